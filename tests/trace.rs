//! `dunlin trace`: what a user's sessions send and get, whatever becomes of workers meanwhile.

use crate::support::talker::{Ending, Talker};
use crate::support::{Client, Server, process, wait};
use crate::tokens::mint;
use serde_json::{Value as Json, json};
use std::fs;

const TWO_WORKERS: &str = "[server]\nworkers = 2";

/// `dunlin trace --json` of a user, once it traces.
fn trace(server: &Server, user: &str) -> Talker {
    let mut command = server.verb_command(&["trace", "--json", "--user", user]);
    let mut tracer = Talker::of(&mut command);
    tracer.wait_said("tracing");
    tracer
}

/// The next line: its way, the device, and the frame or text.
fn next(tracer: &mut Talker) -> (String, Json, Json) {
    let mut line: Json = serde_json::from_str(&tracer.line()).expect("JSON");
    let way = line["way"].as_str().expect("a way").to_owned();
    (way, line["device"].take(), line["frame"].take())
}

fn trace_sockets(server: &Server) -> usize {
    let names = fs::read_dir(server.run_dir()).expect("the run directory").flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("trace.")).count()
}

#[test]
fn login_send_message_and_close_are_seen_in_order_on_both_workers() {
    let server = Server::start(TWO_WORKERS);
    let mut tracer = trace(&server, "ann");
    let mut phone = server.client();
    let mut tablet = server.client_apart_from(&mut [&mut phone]);
    let mut bob = server.client().login("bob");
    for (client, device) in [(&mut phone, "phone"), (&mut tablet, "tablet")] {
        let session = client.hello["session"].clone();
        client.log_in("ann", device);
        let (way, who, frame) = next(&mut tracer);
        assert_eq!((way.as_str(), &who), ("in", &json!(device)), "{frame}");
        assert_eq!(frame["method"], "login");
        let (way, who, frame) = next(&mut tracer);
        assert_eq!((way.as_str(), &who), ("out", &json!(device)));
        assert_eq!(
            (&frame["result"]["user"], &frame["result"]["session"]),
            (&json!("ann"), &session)
        );
    }
    phone.send_to("zoe", &json!("to nobody"));
    assert_eq!(next(&mut tracer).2["params"]["body"], "to nobody");
    // The copy to the other device, by the other worker, and the answer; each worker tells for itself.
    let seen = [next(&mut tracer), next(&mut tracer)];
    assert!(seen.iter().all(|(way, ..)| way == "out"));
    let of = |device: &str| seen.iter().find(|(_, who, _)| who == device).expect("both devices");
    assert_eq!(of("tablet").2["method"], "message");
    assert_eq!(of("phone").2["result"]["sessions"], 0);
    bob.send_to("ann", &json!({"text": "tea?"}));
    for _ in 0..2 {
        let (way, _, frame) = next(&mut tracer);
        assert_eq!((way.as_str(), &frame["params"]["body"]["text"]), ("out", &json!("tea?")));
    }
    tablet.close();
    let (way, who, frame) = next(&mut tracer);
    assert_eq!((way.as_str(), who, &frame["code"]), ("closed", json!("tablet"), &json!(1005)));
    phone.result("logout", json!({}));
    assert_eq!(next(&mut tracer).2["method"], "logout");
    // What bob does is nobody's business, and ann's session is nobody's any more.
    phone.result("ping", json!({}));
    bob.send_to("bob", &json!("own"));
    phone.log_in("ann", "phone");
    let (way, _, frame) = next(&mut tracer);
    assert_eq!((way.as_str(), &frame["method"]), ("in", &json!("login")), "{frame}");
    assert_eq!(server.status().number("/traces/active"), 1);
    tracer.signal("INT");
    assert_eq!(tracer.finish().0, Some(0));
    assert_eq!((server.status().number("/traces/active"), trace_sockets(&server)), (0, 0));
    let log = server.dir().log();
    assert!(log.contains("a trace begins") && log.contains("a trace ends"), "{log}");
}

#[test]
fn it_goes_on_after_a_reload_a_killed_worker_and_an_upgrade() {
    let server = Server::start(TWO_WORKERS);
    let mut ann = server.client().login("ann");
    // Begun while she is there: her device is known.
    let mut tracer = trace(&server, "ann");
    let seen = |ann: &mut Client, tracer: &mut Talker, body: &str| {
        ann.send_to("zoe", &json!(body));
        let (way, device, frame) = next(tracer);
        assert_eq!((way.as_str(), device), ("in", json!("ann-device")), "{frame}");
        assert_eq!(frame["params"]["body"], body);
        assert_eq!(next(tracer).0, "out");
    };
    seen(&mut ann, &mut tracer, "before");
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    seen(&mut ann, &mut tracer, "after a reload");
    process::signal("KILL", server.status().worker_pid(0));
    process::signal("KILL", server.status().worker_pid(1));
    server.wait_until("both are back", |status| {
        status.ready_workers() == 2
            && (0..2).all(|slot| status.number(&format!("/workers/{slot}/restarts")) == 1)
    });
    seen(&mut ann, &mut tracer, "after both workers were killed");
    assert_eq!(server.verb(&["upgrade"]).code, Some(0));
    // The new program knows of no trace until it is asked anew.
    server.wait_until("it traces again", |status| status.number("/traces/active") == 1);
    seen(&mut ann, &mut tracer, "after an upgrade");
    tracer.signal("TERM");
    assert_eq!(tracer.finish().0, Some(0));
}

#[test]
fn a_token_is_never_shown() {
    let starter = Server::configure(
        "[server]\nworkers = 1\n[auth]\nmode = \"token\"\nsecret_file = \"token.key\"\n",
    );
    starter.dir().write_key("token.key", "0123456789abcdef0123456789abcdef", 0o600);
    let server = starter.start();
    let token = mint(server.dir(), &["--user", "ann"]);
    assert!(token.len() > 60, "{token}");
    let mut tracer = trace(&server, "ann");
    let mut ann = server.client();
    ann.result("login", json!({"token": token, "device": {"id": "d"}}));
    ann.result("refresh", json!({"token": token}));
    // However it is hidden: under another method, in another place, behind an escape.
    let _ = ann.call("dance", json!({"token": token, "device": {"token": token}}));
    ann.ask_raw(&format!(
        "{{\"id\":\"x\",\"method\":\"refresh\",\"params\":{{\"\\u0074oken\":\"{token}\"}}}}"
    ));
    ann.ask_raw(&format!("{{\"token\":\"{token}\" no JSON"));
    ann.send_to("zoe", &json!("last"));
    let mut all = String::new();
    loop {
        let line = tracer.line();
        all.push_str(&line);
        if line.contains("last") {
            break;
        }
    }
    assert!(
        all.contains("\"***\"") && all.contains("\"refresh\"") && all.contains("\"dance\""),
        "{all}"
    );
    let signature = token.rsplit('.').next().expect("three parts");
    assert!(!all.contains(signature), "{all}");
    assert!(!server.dir().log().contains(signature));
}

#[test]
fn a_fifth_is_refused_and_who_was_killed_gives_his_place_back() {
    let server = Server::start(TWO_WORKERS);
    let tracers: Vec<Talker> = (0..4).map(|n| trace(&server, &format!("u{n}"))).collect();
    let fifth = server.verb(&["trace", "--user", "ann"]);
    assert_eq!(fifth.code, Some(1), "{fifth:?}");
    assert_eq!(fifth.stderr, "dunlin: trace refused: 4 traces are active already: end one first\n");
    assert_eq!(trace_sockets(&server), 4);
    for tracer in tracers {
        tracer.signal("KILL");
        tracer.finish();
    }
    server.wait_until("all are forgotten", |status| status.number("/traces/active") == 0);
    assert_eq!(trace_sockets(&server), 0, "their names, too");
}

#[test]
fn a_reader_that_does_not_read_loses_lines_and_slows_nobody() {
    const SENT: usize = 3_000;
    let server = Server::start("[server]\nworkers = 1\n[im]\nrequest_rate = 0\nsend_rate = 0");
    let mut ann = server.client().login("ann");
    let tracer = trace(&server, "ann");
    tracer.signal("STOP");
    let body = json!("x".repeat(2_000));
    for _ in 0..SENT {
        ann.send_to("zoe", &body);
    }
    let status = server.wait_until("it is counted", |status| status.number("/traces/dropped") > 0);
    let (sent, dropped) = (status.number("/traces/sent"), status.number("/traces/dropped"));
    assert!(sent + dropped >= 2 * SENT as u64 && dropped > sent, "{sent} {dropped}");
    // Stopped for so long that it is forgotten, it begins anew and goes on.
    server.wait_until("its lease is over", |status| status.number("/traces/active") == 0);
    tracer.signal("CONT");
    server.wait_until("it traces again", |status| status.number("/traces/active") == 1);
    ann.send_to("zoe", &json!("small"));
    let mut tracer = tracer;
    wait::until("a line of what is said now", || tracer.line().contains("small"));
}

#[test]
fn without_a_server_it_says_so_and_its_end_ends_it() {
    let mut server = Server::start(TWO_WORKERS);
    let tracer = trace(&server, "ann");
    server.signal("TERM");
    assert!(server.wait_end().success());
    let (code, _, said): Ending = tracer.finish();
    assert_eq!((code, said), (Some(3), vec!["dunlin: the server has ended".to_owned()]));
    let ended = server.verb(&["trace", "--user", "ann"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{ended:?}");
    assert!(ended.stderr.starts_with("dunlin: no server is running in"), "{ended:?}");
    assert!(!server.run_dir().exists(), "nothing is left");
}
