//! Who a client is behind proxies, and the listeners for who runs the server alone.

use crate::im::upgrade_request;
use crate::support::api::Api;
use crate::support::http::{Http, get};
use crate::support::{Client, Server, wait};
use serde_json::json;
use std::net::{Ipv6Addr, SocketAddr};

/// A header of the PROXY protocol with this command, family and content.
fn proxy_header(command: u8, family: u8, told: &[u8]) -> Vec<u8> {
    let length = u16::try_from(told.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, told].concat()
}

/// For a client at an IPv4 address.
fn proxy_v4(client: [u8; 4]) -> Vec<u8> {
    proxy_header(0x21, 0x11, &[&client[..], &[10, 0, 0, 1, 0x12, 0x67, 0, 80]].concat())
}

fn server(trusted: &str, more: &str) -> Server {
    Server::start(&format!(
        "[server]\nworkers = 2\ntask_workers = 0\n{more}\n[http]\ntrusted_proxies = [{trusted}]"
    ))
}

/// The address that the server has of a client.
fn ip_of(client: &mut Client) -> String {
    let sessions = client.result("sessions", json!({}))["sessions"].take();
    let mut sessions = sessions.as_array().expect("a list").iter();
    // One that is just closed may still stand there.
    let own = sessions.find(|one| one["session"] == client.hello["session"]);
    own.expect("one's own")["ip"].as_str().expect("an address").to_owned()
}

/// The address that the server has of who connects so.
fn seen(server: &Server, before: &[u8], forwarded_for: &[&str]) -> String {
    let client = Client::try_connect_through(server.address, before, forwarded_for);
    ip_of(&mut client.expect("it is let in").login("ann"))
}

#[test]
fn a_trusted_proxy_names_the_client_and_nobody_else_does() {
    let server = server("\"127.0.0.0/8\", \"10.0.0.0/8\"", "");
    assert_eq!(seen(&server, b"", &[]), "127.0.0.1");
    assert_eq!(seen(&server, b"", &["198.51.100.9"]), "198.51.100.9");
    assert_eq!(seen(&server, b"", &["1.2.3.4", "2001:db8::9, 10.1.1.1"]), "2001:db8::9");
    assert_eq!(seen(&server, b"", &["198.51.100.9, garbage"]), "127.0.0.1");
    assert_eq!(seen(&server, &proxy_v4([198, 51, 100, 7]), &[]), "198.51.100.7");
    let v6 = [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).octets(), [0; 16]].concat();
    let v6 = proxy_header(0x21, 0x21, &[&v6[..], &[0, 9, 0, 80]].concat());
    assert_eq!(seen(&server, &v6, &[]), "2001:db8::9");
    assert_eq!(seen(&server, &proxy_header(0x20, 0, b""), &[]), "127.0.0.1");
    // Whom the first proxy names is believed in turn only if it is one, too.
    assert_eq!(seen(&server, &proxy_v4([10, 9, 9, 9]), &["198.51.100.9"]), "198.51.100.9");
    assert_eq!(seen(&server, &proxy_v4([192, 0, 2, 1]), &["198.51.100.9"]), "192.0.2.1");

    let strict = self::server("\"10.0.0.0/8\"", "");
    assert_eq!(seen(&strict, b"", &["198.51.100.9"]), "127.0.0.1");
    let mut liar = Http::connect(strict.address);
    let health = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    liar.send([&proxy_v4([198, 51, 100, 7])[..], health.as_bytes()].concat());
    assert!(liar.is_refused(), "no HTTP, from who is not trusted");
}

#[test]
fn a_header_that_is_broken_ends_the_connection_and_half_a_one_is_waited_for() {
    let server = Server::start(
        "[server]\nworkers = 1\n[websocket]\nhandshake_timeout = \"400ms\"\n\
         [http]\ntrusted_proxies = [\"127.0.0.1\"]",
    );
    let health = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".as_slice();
    for broken in [
        proxy_header(0x11, 0x11, &[0; 12]),
        proxy_header(0x21, 0x11, &[0; 11]),
        proxy_header(0x21, 0x12, &[0; 12]),
        proxy_header(0x21, 0x11, &[0; 3_000]),
    ] {
        let mut http = Http::connect(server.address);
        http.send([&broken[..], health].concat());
        assert!(http.is_ended(), "{broken:?}");
    }
    let whole = [&proxy_v4([198, 51, 100, 7])[..], health].concat();
    let mut slow = Http::connect(server.address);
    whole.iter().for_each(|byte| slow.send([*byte]));
    assert_eq!(slow.answer().status, 200);
    // It stands before the first request alone.
    slow.send(&whole);
    assert!(slow.is_refused());
    // As long as a handshake may take, and no longer.
    let mut stalled = Http::connect(server.address);
    stalled.send(&whole[..20]);
    assert!(stalled.is_refused());
}

#[test]
fn connections_count_for_the_client_and_not_for_the_proxy() {
    let server = server("\"127.0.0.1\"", "max_connections_per_ip = 2");
    let through = |client: &str| Client::try_connect_through(server.address, b"", &[client]);
    let mut ann: Vec<Client> =
        (0..2).map(|_| through("198.51.100.1").expect("there is room")).collect();
    assert_eq!(through("198.51.100.1").err(), Some(503));
    let header = proxy_v4([198, 51, 100, 1]);
    assert_eq!(Client::try_connect_through(server.address, &header, &[]).err(), Some(503));
    let refused = |status: &crate::support::Status| -> u64 {
        status.workers().iter().filter_map(|worker| worker["refused_per_ip"].as_u64()).sum()
    };
    assert_eq!(refused(&server.status()), 2);
    // Others behind the same proxy have their own.
    let _bob: Vec<Client> =
        (0..2).map(|_| through("198.51.100.2").expect("there is room")).collect();
    // A reload and a death count anew, and by the same addresses.
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    crate::support::process::signal("KILL", server.status().worker_pid(0));
    server.wait_until("both workers", |status| status.ready_workers() == 2);
    assert_eq!(through("198.51.100.1").err(), Some(503));
    ann.pop();
    wait::until("room again", || through("198.51.100.1").is_ok());
}

#[test]
fn who_runs_the_server_has_a_door_of_its_own() {
    let server = Server::start(
        "[server]\nworkers = 2\ntask_workers = 0\n[http]\nadmin_listen = [\"127.0.0.1:0\"]",
    );
    let status = server.status();
    let admin: SocketAddr = status.text("/admin_listen/0").parse().expect("an address");
    assert_eq!(status.0["listen"], json!([server.address.to_string()]));
    assert!(!server.ready_line.contains(&admin.to_string()));
    let (outside, inside) = (Api::of(&server), Api::of(&server).at(admin));
    let mut ann = server.client().login("ann");
    let check = |ann: &mut Client| {
        assert_eq!(outside.get("/api/sessions").status, 404);
        assert_eq!(outside.get("/api/sessions").json()["error"], "not_found");
        assert_eq!(outside.get("/metrics").status, 404);
        assert_eq!(get(admin, "/api/sessions").status, 401, "the key is wanted there, too");
        assert_eq!(inside.read("/api/sessions")["sessions"][0]["user"], "ann");
        for (path, status) in [("/", 404), ("/ws", 404), ("/healthz", 200), ("/readyz", 200)] {
            assert_eq!(get(admin, path).status, status, "{path}");
        }
        let upgrade = Http::connect(admin).ask(upgrade_request("/ws"));
        assert_eq!(upgrade.status, 404);
        ann.result("ping", json!({}));
    };
    check(&mut ann);
    // A connection that is kept over a reload is still the one that came by that door.
    let mut kept = Http::connect(admin);
    let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(kept.ask(ask).status, 404);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!(kept.ask(ask).status, 404);
    check(&mut ann);
    assert_eq!(server.verb(&["upgrade"]).code, Some(0));
    check(&mut ann);
    // Where it listens needs a restart.
    server.dir().write_config("[server]\nworkers = 2\ntask_workers = 0");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    assert_eq!(server.status().0["last_reload"]["needs_restart"], json!(["http.admin_listen"]));
    check(&mut ann);
}
