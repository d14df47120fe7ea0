# dunlin in a container.
#
#   docker build -t dunlin .
#   docker run -p 127.0.0.1:9502:9502 --shm-size 256m --stop-timeout 45 -v ./dunlin.toml:/etc/dunlin/dunlin.toml:ro dunlin
#
# --shm-size: shared memory is made in /dev/shm, whose 64 MiB the defaults fit; table.max_sessions and
# table.receive_pool want more (docs/sizing.md). --stop-timeout: longer than server.stop_timeout (30 s), or
# docker kills the server in the middle of its goodbyes. The settings mounted must be readable by user 10001;
# a reload is `docker kill -s HUP NAME`, and every verb is `docker exec NAME dunlin VERB`.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin dunlin && strip -o /dunlin target/release/dunlin

FROM debian:bookworm-slim
# A number and no name where root starts nothing: the server has no privileges to drop.
RUN groupadd --gid 10001 dunlin \
    && useradd --uid 10001 --gid dunlin --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin dunlin \
    && install -d -o dunlin -g dunlin -m 700 /run/dunlin \
    && install -d -m 755 /etc/dunlin
COPY --from=build /dunlin /usr/bin/dunlin
COPY packaging/container.toml /etc/dunlin/dunlin.toml
USER 10001:10001
# Where the verbs of `docker exec`, and the health check, find the server.
ENV RUNTIME_DIRECTORY=/run/dunlin
EXPOSE 9502
STOPSIGNAL SIGTERM
# It answers while a worker is stuck, and needs no port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["dunlin", "status", "--json"]
ENTRYPOINT ["dunlin"]
CMD ["serve", "-c", "/etc/dunlin/dunlin.toml"]
