//! Floods against the real binary: of requests, of sends over all workers, of wrong tokens. Whoever is not
//! part of them notices nothing.

use crate::support::raw::{Raw, TEXT, frame};
use crate::support::{Client, Server, wait};
use serde_json::{Value as Json, json};

const FLOOD: usize = 3_000;

fn refused(server: &Server, what: &str) -> u64 {
    server.status().number(&format!("/limits/{what}"))
}

#[test]
fn a_flood_of_requests_is_refused_and_then_closed_with_1008() {
    let toml =
        "[server]\nworkers = 1\n[im]\nrequest_rate = 50\nrequest_burst = 100\nmax_refused = 200\n";
    let server = Server::start(toml);
    let mut ann = server.client().login("ann");
    let mut flooder = Raw::connect(server.address);
    flooder.send(frame(TEXT, br#"{"method":"ping","id":1}"#).repeat(FLOOD));
    let pinged = ann.result("ping", json!({}));
    assert!(pinged["time"].is_u64());
    let (mut answered, mut refusals, mut waits) = (0, 0, Vec::new());
    let code = loop {
        let frame = flooder.frame().expect("a close frame before the end");
        if frame.opcode == 8 {
            break u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
        }
        let said: Json = serde_json::from_slice(&frame.payload).expect("JSON");
        if said["method"] == "bye" {
            assert_eq!(said["params"]["code"], 1008);
            assert_eq!(said["params"]["reconnect"], false);
        } else if said["error"]["code"] == -32002 {
            waits.extend(said["error"]["data"]["retry_after_ms"].as_u64());
            refusals += 1;
        } else {
            answered += usize::from(said["result"].is_object());
        }
    };
    assert_eq!(code, 1008);
    // A burst, and what the pace gave while this took: far from all.
    assert!((100..400).contains(&answered), "{answered}");
    assert!((200..600).contains(&refusals), "{refusals}");
    assert!(waits.len() == refusals && waits.iter().all(|wait| (1..=20).contains(wait)));
    assert_eq!(refused(&server, "closed"), 1);
    assert_eq!(refused(&server, "requests"), refusals as u64);
    assert!(ann.result("ping", json!({}))["time"].is_u64(), "another session has its own bucket");
    // A reload changes what is allowed, for connections that are open, too.
    server.dir().write_config("[server]\nworkers = 1\n[im]\nrequest_rate = 0\n");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    for _ in 0..300 {
        ann.result("ping", json!({}));
    }
}

#[test]
fn a_user_has_one_pace_over_all_workers_and_reloads() {
    let server = Server::start("[server]\nworkers = 2\n[im]\nsend_rate = 1\nsend_burst = 40\n");
    let mut phone = server.client();
    phone.log_in("ann", "phone");
    let mut desk = server.client_apart_from(&mut [&mut phone]);
    desk.log_in("ann", "desk");
    let send = |client: &mut Client| {
        let sent = client.call("send", json!({"to": {"user": "bob"}, "body": 1}));
        sent.map_err(|error| assert_eq!(error["code"], -32002, "{error}")).is_ok()
    };
    let mut sent = 0;
    wait::for_some("the end of the burst", || {
        let both = [send(&mut phone), send(&mut desk)];
        sent += both.iter().filter(|sent| **sent).count();
        (both == [false, false]).then_some(())
    });
    assert!((40..60).contains(&sent), "{sent}");
    let before = refused(&server, "sends");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    let mut through = 0;
    for _ in 0..20 {
        through += usize::from(send(&mut phone)) + usize::from(send(&mut desk));
    }
    assert!(through < 20, "the reload brought no new burst: {through}");
    assert!(refused(&server, "sends") > before);
}

#[test]
fn wrong_tokens_make_their_address_wait() {
    let starter = Server::configure("");
    starter.dir().write_key("token.key", "0f8d2c7be1a94635bb0d7c51e6a2f394", 0o600);
    starter.dir().write_config(
        "[server]\nworkers = 2\n[auth]\nmode = \"token\"\nsecret_file = \"token.key\"\n\
         [im]\nlogin_failures = 7\nlogin_delay = \"20s\"\nlogin_delay_max = \"20s\"\n",
    );
    let server = starter.start();
    let guess = |client: &mut Client| {
        let params = json!({"token": "a.b.c", "device": {"id": "d"}});
        client.call("login", params).expect_err("it is wrong")
    };
    // Over connections and workers; five refused tokens close each of them.
    let mut codes = Vec::new();
    let mut wait_ms = 0;
    for _ in 0..4 {
        let mut client = server.client();
        for _ in 0..4 {
            let error = guess(&mut client);
            codes.push(error["code"].as_i64().expect("a code"));
            wait_ms = error["data"]["retry_after_ms"].as_u64().unwrap_or(wait_ms);
        }
    }
    let looked_at = codes.iter().filter(|code| **code == -32001).count();
    assert_eq!(looked_at, 8, "{codes:?}");
    assert!(codes[8..].iter().all(|code| *code == -32002), "{codes:?}");
    assert!((1..=20_000).contains(&wait_ms), "{wait_ms}");
    assert_eq!(refused(&server, "failed_logins"), 8);
    assert_eq!(server.status().number("/auth/refused"), 8);
}
