"""A client that we did not write against a running server: Python's websockets.

    chat.py SCENARIO URL RUN_DIR

Exits with 0 if the scenario went as promised; else says what did not. Every wait is bounded.
The same scenarios as in chat.mjs.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

DEADLINE = 15


class Client:
    """One connection; requests are answered in order, notifications are kept."""

    def __init__(self, socket):
        self.socket, self.kept, self.last_id = socket, [], 0

    @classmethod
    async def open(cls, url, **options):
        options.setdefault("ping_interval", None)
        client = cls(await connect(url, open_timeout=DEADLINE, **options))
        client.hello = await client.notification("hello")
        return client

    async def read(self):
        async with asyncio.timeout(DEADLINE):
            return json.loads(await self.socket.recv())

    async def notification(self, method):
        while True:
            for place, kept in enumerate(self.kept):
                if kept["method"] == method:
                    return self.kept.pop(place)["params"]
            self.kept.append(await self.read())

    async def call(self, method, params):
        self.last_id += 1
        request = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}
        await self.socket.send(json.dumps(request))
        while "id" not in (answer := await self.read()):
            self.kept.append(answer)
        assert answer["id"] == self.last_id, answer
        assert "result" in answer, answer
        return answer["result"]

    async def login(self, user):
        await self.call("login", {"user": user, "device": {"id": "python"}})
        return self

    async def closed(self):
        """The close code, and the `bye` before it."""
        try:
            while True:
                self.kept.append(await self.read())
        except ConnectionClosed as closed:
            return closed.rcvd.code, await self.notification("bye")


def workers(run_dir, figure):
    with open(os.path.join(run_dir, "status.pipe"), encoding="utf-8") as pipe:
        return [worker[figure] for worker in json.load(pipe)["workers"]]


def connections(run_dir):
    return workers(run_dir, "connections")


def total(run_dir, figure):
    return sum(workers(run_dir, figure))


async def on_two_workers(url, run_dir):
    """Two connections that two workers serve."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        first, second = await Client.open(url), await Client.open(url)
        counts = []
        while sum(counts) != 2 and time.monotonic() < until:
            counts = connections(run_dir)
            await asyncio.sleep(0.01)
        if counts == [1, 1]:
            return first, second
        await first.socket.close()
        await second.socket.close()
        while sum(connections(run_dir)) and time.monotonic() < until:
            await asyncio.sleep(0.01)
    raise AssertionError("no two connections on two workers")


async def chat(url, run_dir):
    ann, bob = await on_two_workers(url, run_dir)
    await ann.login("ann")
    await bob.login("bob")
    for number in range(50):
        sent = await ann.call("send", {"to": {"user": "bob"}, "body": {"text": "grüße 🎉", "n": number}})
        assert sent["sessions"] == 1, sent
        message = await bob.notification("message")
        assert message["id"] == sent["id"], (message, sent)
        assert message["body"] == {"text": "grüße 🎉", "n": number}, message
        assert message["from"] == {"user": "ann", "device": "python"}, message
        await bob.call("send", {"to": {"user": "ann"}, "body": number})
        assert (await ann.notification("message"))["body"] == number
    users = (await ann.call("presence", {"users": ["bob", "zoe"]}))["users"]
    assert users["bob"]["online"] and not users["zoe"]["online"], users
    # A message in fragments, which this library sends from an iterable.
    request = {"id": "f", "method": "send", "params": {"to": {"user": "bob"}, "body": "x" * 20000}}
    text = json.dumps(request)
    await ann.socket.send([text[:1], text[1:9000], text[9000:]])
    answer = await ann.read()
    assert answer["id"] == "f" and answer["result"]["sessions"] == 1, answer
    assert (await bob.notification("message"))["body"] == "x" * 20000
    await bob.socket.close()
    await ann.socket.close()
    assert ann.socket.close_code == 1000, ann.socket.close_code


async def deflate(url, run_dir):
    """Compressed both ways, in the window that is asked for."""
    body = "".join(f"{number}: grüße 🎉 " for number in range(1500))
    for number, bits in enumerate([None, 9, 12, 15]):
        offer = ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=True)
        client = await (await Client.open(url, compression=None, extensions=[offer])).login("ann")
        (agreed,) = client.socket.protocol.extensions
        assert agreed.local_no_context_takeover and agreed.remote_no_context_takeover, agreed
        assert agreed.remote_max_window_bits == (bits or 15), agreed
        for text in [body, "short", "", os.urandom(3000).hex(), body]:
            await client.call("send", {"to": {"user": "ann"}, "body": text})
            assert (await client.notification("message"))["body"] == text
        # In fragments: only the first says that the message is compressed.
        request = {"id": "f", "method": "send", "params": {"to": {"user": "ann"}, "body": body}}
        text = json.dumps(request)
        await client.socket.send([text[:1], text[1:9000], text[9000:9001], text[9001:]])
        assert (await client.notification("message"))["body"] == body
        await client.socket.close()
        assert client.socket.close_code == 1000, client.socket.close_code
        assert total(run_dir, "compressed_in") >= 7 * (number + 1)
        # The texts, each as message, that are worth it.
        assert total(run_dir, "compressed_out") >= 4 * (number + 1)
    plain = await (await Client.open(url, compression=None)).login("ann")
    assert not plain.socket.protocol.extensions
    await plain.call("send", {"to": {"user": "ann"}, "body": body})
    assert (await plain.notification("message"))["body"] == body


async def login_timeout(url, _run_dir):
    client = await Client.open(url)
    began = time.monotonic()
    code, bye = await client.closed()
    took, limit = time.monotonic() - began, client.hello["login_timeout_ms"] / 1000
    assert code == bye["code"] == 4501 and not bye["reconnect"], (code, bye)
    assert limit - 0.1 <= took <= limit + 2, took


async def silence(url, _run_dir):
    client = await (await Client.open(url)).login("ann")
    began = time.monotonic()
    code, bye = await client.closed()
    took, limit = time.monotonic() - began, client.hello["heartbeat_ms"] / 1000
    assert code == bye["code"] == 4002 and bye["reconnect"], (code, bye)
    assert limit - 0.1 <= took <= limit + 2, took


async def pings(url, _run_dir):
    # One is kept alive by the library's own keepalive, one by requests.
    frames = await (await Client.open(url, ping_interval=0.1, ping_timeout=DEADLINE)).login("frames")
    requests = await (await Client.open(url)).login("requests")
    until = time.monotonic() + 3 * frames.hello["heartbeat_ms"] / 1000
    while time.monotonic() < until:
        await requests.call("ping", {})
        await asyncio.sleep(0.05)
    users = (await frames.call("presence", {"users": ["frames", "requests"]}))["users"]
    assert all(user["online"] for user in users.values()), users


async def full(url, run_dir):
    clients = [await (await Client.open(url)).login(f"u{number}") for number in range(2)]
    for _ in range(3):
        try:
            await Client.open(url)
        except InvalidStatus as refused:
            assert refused.response.status_code == 503, refused
            assert int(refused.response.headers["Retry-After"]) > 0, refused.response.headers
        else:
            raise AssertionError("a third was accepted")
    await clients.pop().socket.close()
    until = time.monotonic() + DEADLINE
    while True:
        try:
            clients.append(await (await Client.open(url)).login("next"))
            break
        except InvalidStatus:
            assert time.monotonic() < until, "the free row was not given again"
            await asyncio.sleep(0.01)
    assert (await clients[0].call("presence", {"users": ["next"]}))["users"]["next"]["online"]


def jwt(run_dir, claims):
    """A token by the secret beside the run directory, made by Python alone."""
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    with open(os.path.join(run_dir, "..", "token.key"), "rb") as key:
        secret = key.read().rstrip(b"\n")
    header = {"alg": "HS256", "typ": "JWT", "kid": "h"}
    message = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    return (message + b"." + part(hmac.digest(secret, message, hashlib.sha256))).decode()


async def token(url, run_dir):
    """In by a token that no code of dunlin made; out when it ends, and not a moment before."""
    now = time.time()
    first = jwt(run_dir, {"sub": "ann", "iat": now, "nbf": now, "exp": now + 1, "device": "python"})
    last = jwt(run_dir, {"sub": "ann", "exp": int(now) + 3})
    client = await Client.open(url)
    login = await client.call("login", {"token": first, "device": {"id": "python"}})
    assert login["user"] == "ann" and abs(login["expires"] - (now + 1) * 1000) < 2, login
    refreshed = await client.call("refresh", {"token": last})
    assert refreshed["expires"] == (int(now) + 3) * 1000, refreshed
    offset = time.time() * 1000 - (await client.call("ping", {}))["time"]
    while time.time() * 1000 < refreshed["expires"] + 200 + offset - 100:
        await client.call("ping", {})
        await asyncio.sleep(0.01)
    code, bye = await client.closed()
    took = time.time() * 1000 - offset - refreshed["expires"]
    assert code == bye["code"] == 4502 and not bye["reconnect"], (code, bye)
    assert 180 <= took <= 2200, took
    client = await Client.open(url)
    for claims in [{"sub": "ann", "exp": now - 60}, {"sub": "ann"}, {"exp": now + 60}, {"sub": 7, "exp": now + 60}]:
        request = {"token": jwt(run_dir, claims), "device": {"id": "python"}}
        await client.socket.send(json.dumps({"id": 1, "method": "login", "params": request}))
        error = (await client.read())["error"]
        assert error["code"] == -32001, error


SCENARIOS = {
    "chat": chat, "login-timeout": login_timeout, "silence": silence, "pings": pings, "full": full,
    "deflate": deflate, "token": token,
}


async def main():
    scenario, url, run_dir = sys.argv[1:]
    async with asyncio.timeout(2 * DEADLINE):
        await SCENARIOS[scenario](url, run_dir)


asyncio.run(main())
