//! From one session to another everything arrives in its order, whatever the way between them does.

use crate::support::{Client, Server, process};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Messages sent before the first answer is read.
const WINDOW: usize = 40;
/// Much enough that a mailbox that is not read is full soon.
const PADDING: usize = 2_000;
/// Fast enough to fill it; and what waited there is not too much for who reads.
const NO_LIMITS: &str = "[server]\nworkers = 3\nbalance_above = 0\n\
                         [im]\nrequest_rate = 0\nbyte_rate = \"0B\"\nsend_rate = 0\n\
                         [websocket]\nsend_buffer = \"64MiB\"\nsend_buffer_total = \"256MiB\"\n";

#[test]
fn order_holds_through_full_mailboxes_moves_and_reloads() {
    let server = Server::start(NO_LIMITS);
    let mut ann = server.client();
    ann.log_in("ann", "phone");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    let mut desk = server.client_apart_from(&mut [&mut ann, &mut bob]);
    desk.log_in("ann", "desk");
    let bobs = server.worker_of(&mut bob);
    let done = AtomicBool::new(false);
    let (sent, bobs_ids, desks_ids) = thread::scope(|scope| {
        let sender = scope.spawn(|| send_in_order(&mut ann, &done));
        let readers = [&mut bob, &mut desk].map(|client| scope.spawn(|| read_in_order(client)));
        for deed in 0..2 {
            let slot = bobs.to_string();
            if deed > 0 {
                // His home is still there. Who speaks must not be: the balance may have brought Ann.
                assert_eq!(server.verb(&["drain", &slot]).code, Some(0));
            }
            process::signal("STOP", server.status().worker_pid(bobs));
            server.wait_until("mail that waits", |status| {
                let spilled = |slot| status.number(&format!("/workers/{slot}/spilled_bytes"));
                (0..3).any(|slot| spilled(slot) > 0)
            });
            process::signal("CONT", server.status().worker_pid(bobs));
            // Moves him while that is still on its way; then back, or wherever.
            for words in [&["drain", &*slot][..], &["reload"], &["balance"]] {
                assert_eq!(server.verb(words).code, Some(0), "{deed}: {words:?}");
            }
        }
        done.store(true, Ordering::SeqCst);
        let sent = sender.join().expect("the sender");
        let [bobs_ids, desks_ids] = readers.map(|reader| reader.join().expect("a reader"));
        (sent, bobs_ids, desks_ids)
    });
    println!("{} messages", sent.len());
    assert!(sent.len() > 1_000, "there was load: {}", sent.len());
    assert!(sent.is_sorted_by(|a, b| a < b), "ids ascend as they are sent");
    assert!(bobs_ids == sent, "{} of {}", bobs_ids.len(), sent.len());
    assert!(desks_ids == sent, "the copies: {} of {}", desks_ids.len(), sent.len());
    let status = server.status();
    let moved: u64 = (0..3).map(|slot| status.number(&format!("/workers/{slot}/moved_in"))).sum();
    assert!(moved > 0, "he was moved");
}

/// Numbers, each with a signal behind it, until told to end; the ids of those that were taken, in order.
fn send_in_order(ann: &mut Client, done: &AtomicBool) -> Vec<String> {
    let mut ids = Vec::new();
    let mut next = 0_u64;
    loop {
        let last = done.load(Ordering::SeqCst);
        for place in 0..WINDOW {
            let body =
                json!({"n": next, "last": last && place + 1 == WINDOW, "x": "x".repeat(PADDING)});
            let params = json!({"to": {"user": "bob"}, "body": body});
            ann.send_json(&json!({"id": 1_000_000 + next, "method": "send", "params": params}));
            let params = json!({"to": {"user": "bob"}, "body": {"n": next}});
            ann.send_json(&json!({"method": "signal", "params": params}));
            next += 1;
        }
        for answered in next - WINDOW as u64..next {
            let answer = ann.response();
            assert_eq!(answer["id"], 1_000_000 + answered, "{answer}");
            match answer["result"]["id"].as_str() {
                Some(id) => ids.push(id.to_owned()),
                // What waits for him is at its bound: not sent, and told so.
                None => assert_eq!(answer["error"]["code"], -32006, "{answer}"),
            }
        }
        if last {
            return ids;
        }
    }
}

/// The ids of messages as they come, to the last. A signal may be missing, and is never late or early.
fn read_in_order(client: &mut Client) -> Vec<String> {
    let mut ids = Vec::new();
    let (mut message, mut signal) = (None, None);
    loop {
        let (method, params) = client.next_notification();
        let n = params["body"]["n"].as_u64();
        match &*method {
            "message" => {
                assert!(
                    n > message && n > signal,
                    "message {n:?} after {message:?}, signal {signal:?}"
                );
                message = n;
                ids.push(params["id"].as_str().expect("an id").to_owned());
                if params["body"]["last"] == true {
                    return ids;
                }
            }
            "signal" => {
                assert!(
                    n >= message && n > signal,
                    "signal {n:?} after {signal:?}, message {message:?}"
                );
                signal = n;
            }
            other => panic!("nobody has asked for {other}: {params}"),
        }
    }
}
