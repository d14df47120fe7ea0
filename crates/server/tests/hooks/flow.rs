//! Messages between connections and workers: order, size, slowness, goodbye.

use crate::client::{Client, Heard, Raw};
use crate::order::slow_client;
use crate::runner::tests;
use crate::server::{PATIENCE, Server, wait_until};
use socket2::{Domain, Socket, Type};
use std::io::Read;
use tungstenite::Message;

tests![
    a_stop_says_goodbye,
    a_second_sigterm_stops_at_once,
    a_large_message_crosses_workers,
    small_messages_cross_in_order,
    a_broadcast_reaches_everybody_once,
    a_push_to_many,
    a_droppable_push_is_dropped_and_counted,
    a_kept_push_closes_who_does_not_read,
    a_worker_full_of_output_closes_the_fattest,
    a_broadcast_larger_than_the_worker_reaches_all_that_read,
    a_turn_ends_though_more_connections_are_ready,
    what_is_unsent_holds_no_memory_of_what_was_sent,
    a_worker_nearly_full_of_output_drops_what_may_be_dropped,
    a_disconnect_reaches_any_worker,
    last_words_and_the_close_come_together,
    last_words_without_room_are_dropped_and_the_close_comes,
    a_stale_id_is_nobody,
];

fn two() -> (Server, Client, Client) {
    let server = Server::start(&[("server.workers", "2")]);
    let (left, right) = (server.client_at(0), server.client_at(1));
    (server, left, right)
}

fn a_stop_says_goodbye() {
    let mut server = Server::start(&[("server.workers", "2")]);
    let mut clients: Vec<Client> = (0..10).map(|_| server.client()).collect();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    for client in &mut clients {
        assert_eq!(client.hear_text(), "last words", "what `worker_stop` pushed comes first");
        assert_eq!(client.hear(), Heard::Close(1001, "the server is stopping".into()));
        assert_eq!(client.hear(), Heard::End);
    }
    assert!(server.wait_end().success());
    let closes = server.calls("close");
    assert_eq!(closes.len(), 10);
    assert!(closes.iter().all(|line| line.word(1) == "1001"));
    assert!(!server.place.run_dir().exists(), "nothing is left behind");
}

fn a_second_sigterm_stops_at_once() {
    let mut server = Server::start(&[("server.stop_timeout", "1h")]);
    let mut client = server.client();
    client.say("sleep 60000");
    server.wait_call("message", "sleep");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait_status("the stop", |status| status["state"] == "stopping");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait_end();
    assert!(!server.place.run_dir().exists(), "nothing is left behind");
}

fn a_large_message_crosses_workers() {
    let (_server, mut left, mut right) = two();
    let payload: Vec<u8> = (0..900_u32 << 10).map(|at| (at % 251) as u8).collect();
    for _ in 0..3 {
        let mut message = right.id.clone().into_bytes();
        message.extend(&payload);
        left.socket.send(Message::binary(message)).expect("the connection takes it");
        let heard = right.hear();
        assert!(heard == Heard::Binary(payload.clone()), "the same bytes");
    }
}

fn small_messages_cross_in_order() {
    let (_server, mut left, mut right) = two();
    let to = right.id.clone();
    for number in 0..1_000 {
        left.socket.write(Message::text(format!("push {to} number {number}"))).expect("taken");
    }
    left.socket.flush().expect("taken");
    for number in 0..1_000 {
        assert_eq!(right.hear_text(), format!("number {number}"));
    }
    for _ in 0..1_000 {
        assert_eq!(left.hear_text(), "Ok(())");
    }
    assert!(right.is_quiet(), "each came once");
}

fn a_broadcast_reaches_everybody_once() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut clients: Vec<Client> = (0..30).map(|_| server.client()).collect();
    clients.push(server.client_at(0));
    clients.push(server.client_at(1));
    clients.push(server.client_at(2));
    clients[4].say("broadcast to all");
    for client in &mut clients {
        assert_eq!(client.hear_text(), "to all");
        assert_eq!(client.ask("echo after"), "after", "once");
    }
}

fn a_push_to_many() {
    let (server, mut left, mut right) = two();
    let other = server.client_at(1);
    let gone = other.id.clone();
    other.close(1000, "");
    server.wait_call("close", &gone);
    let answer = left.ask(&format!("many {} {} {gone}", right.id, left.id));
    // The sender's own comes before the answer.
    assert_eq!(answer, "to many");
    assert_eq!(left.hear_text(), "many 2", "those that took it");
    assert_eq!(right.hear_text(), "to many");
}

fn a_droppable_push_is_dropped_and_counted() {
    let server = Server::start(&[("websocket.send_buffer", "64KiB")]);
    let mut sender = server.client();
    let mut slow = slow_client(&server);
    let mut taken = 0_u64;
    let mut dropped = 0_u64;
    wait_until("a push that is dropped", || {
        let answer = sender.ask(&format!("drop {} 8 16384", slow.id));
        let (count, outcome) = answer.split_once(' ').expect("how many were taken");
        taken += count.parse::<u64>().expect("a number");
        dropped += u64::from(outcome == "OutboxFull");
        dropped == 3
    });
    let status = server.wait_status("the count", |status| status["workers"][0]["dropped"] == 3);
    assert_eq!(status["workers"][0]["slow_closed"], 0);
    for _ in 0..taken {
        assert_eq!(slow.hear(), Heard::Binary(vec![b'x'; 16384]));
    }
    assert_eq!(slow.ask("echo still open"), "still open");
}

fn a_kept_push_closes_who_does_not_read() {
    let server = Server::start(&[("websocket.send_buffer", "64KiB"), ("server.workers", "2")]);
    let mut slow = slow_client(&server);
    let mut sender = server.client_at(1 - slow.slot);
    // From another worker: the sender is told of nothing, the receiver's worker decides.
    wait_until("the slow one is closed", || {
        sender.ask(&format!("flood {} 8 16384", slow.id));
        sender.ask(&format!("established {}", slow.id)) == "false"
    });
    let (code, reason) = slow.hear_close();
    assert_eq!((code, reason.as_str()), (1013, "the client reads too slowly"));
    assert!(server.wait_call("close", &slow.id).arguments.ends_with("Server"));
    let slot = usize::from(slow.slot);
    server.wait_status("the count", |status| status["workers"][slot]["slow_closed"] == 1);
    assert_eq!(sender.ask("echo tea"), "tea");
}

/// Two outboxes of 1 MiB fill a worker.
const FULL_BY_TWO: [(&str, &str); 2] =
    [("websocket.send_buffer", "1MiB"), ("websocket.send_buffer_total", "2MiB")];
const TOTAL_BYTES: u64 = 2 << 20;

fn a_worker_full_of_output_closes_the_fattest() {
    let server = Server::start(&FULL_BY_TWO);
    let mut sender = server.client();
    let mut slow: Vec<Client> = (0..6).map(|_| slow_client(&server)).collect();
    let worker = |name: &str| server.status()["workers"][0][name].as_u64().expect("a number");
    // The last one gets half of what the others get, so it is never among the fattest.
    wait_until("the worker is full", || {
        for (place, client) in slow.iter().enumerate() {
            let times = if place == 5 { 1 } else { 2 };
            sender.ask(&format!("flood {} {times} 16384", client.id));
        }
        let unsent = worker("unsent_bytes");
        assert!(unsent <= TOTAL_BYTES, "{unsent} bytes of output");
        worker("output_full") > 0
    });
    let closed = worker("slow_closed");
    assert!((1..=2).contains(&closed), "an eighth of the whole is freed, not more: {closed}");
    let last = slow.pop().expect("six");
    assert_eq!(sender.ask(&format!("established {}", last.id)), "true");
    assert_eq!(server.calls("close").len() as u64, closed);
    assert!(server.calls("close").iter().all(|line| line.word(1) == "1013"));
    drop(slow);
    drop(last);
    server
        .wait_status("nothing is left unsent", |status| status["workers"][0]["unsent_bytes"] == 0);
    assert_eq!(sender.ask("echo tea"), "tea");
}

fn a_broadcast_larger_than_the_worker_reaches_all_that_read() {
    const CLIENTS: usize = 100;
    const MESSAGE: usize = 65_000;
    let server = Server::start(&FULL_BY_TWO);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    const { assert!(CLIENTS * MESSAGE > 3 * (2 << 20), "three times what the worker may hold") };
    clients[0].say(&format!("broadcast {}", "b".repeat(MESSAGE)));
    for client in &mut clients {
        assert_eq!(client.hear_text().len(), MESSAGE);
    }
    let status = server.status();
    let worker = &status["workers"][0];
    assert_eq!((&worker["slow_closed"], &worker["output_full"]), (&0.into(), &0.into()));
}

fn a_turn_ends_though_more_connections_are_ready() {
    const CLIENTS: usize = 60;
    let server = Server::start(&[]);
    let (mut first, mut clients) = (server.client(), Vec::new());
    clients.extend((0..CLIENTS).map(|_| server.client()));
    let served = || server.calls("message").iter().filter(|call| call.word(1) == "sleep").count();
    first.say("sleep 600");
    wait_until("the worker sleeps", || served() == 1);
    // All of them are ready when it wakes.
    clients.iter_mut().for_each(|client| client.say("sleep 20"));
    clients[0].hear_text();
    let served = served();
    assert!(served < CLIENTS / 2, "{served} were served before the first had its answer");
    for client in &mut clients[1..] {
        client.hear_text();
    }
    let full = server.status()["workers"][0]["turns_full"].as_u64().expect("a number");
    assert!(full >= 10, "{full}");
}

fn a_worker_nearly_full_of_output_drops_what_may_be_dropped() {
    let server = Server::start(&FULL_BY_TWO);
    let mut sender = server.client();
    let mut slow: Vec<Client> = (0..4).map(|_| slow_client(&server)).collect();
    let worker = |name: &str| server.status()["workers"][0][name].as_u64().expect("a number");
    // Of an outbox that is less than three quarters full, in a worker that is.
    wait_until("three quarters of the whole", || {
        for client in &slow {
            sender.ask(&format!("drop {} 1 16384", client.id));
        }
        worker("dropped") > 0
    });
    let unsent = worker("unsent_bytes");
    assert!(unsent > TOTAL_BYTES / 2 && unsent < TOTAL_BYTES, "{unsent} bytes of output");
    assert_eq!((worker("slow_closed"), worker("output_full")), (0, 0));
    let mut one = slow.pop().expect("four");
    drop(slow);
    server.wait_status("there is room", |status| {
        status["workers"][0]["unsent_bytes"].as_u64() < Some(TOTAL_BYTES / 2)
    });
    one.say("echo still open");
    while one.hear() != Heard::Text("still open".into()) {}
}

/// Each reads most of what waits for it, and then no more.
fn what_is_unsent_holds_no_memory_of_what_was_sent() {
    const READERS: u64 = 24;
    const LEFT: u64 = 32 << 10;
    let settings = [("server.workers", "1"), ("websocket.max_message", "1MiB")];
    let server = Server::start(&settings);
    let mut sender = server.client();
    let worker = |name: &str| server.status()["workers"][0][name].as_u64().expect("a number");
    let before = worker("rss_bytes");
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = barely_reading_client(&server);
        let others = worker("unsent_bytes");
        while worker("unsent_bytes") < others + (800 << 10) {
            assert_eq!(sender.ask(&format!("flood {} 1 65536", reader.id)), "1 taken");
        }
        let mut some = vec![0; 8 << 10];
        while worker("unsent_bytes") > others + LEFT {
            reader.socket.get_mut().read_exact(&mut some).expect("there is more");
        }
        readers.push(reader);
    }
    let unsent = worker("unsent_bytes");
    assert!(unsent <= READERS * LEFT, "{unsent}");
    let held = worker("rss_bytes").saturating_sub(before);
    assert!(held < 3 * unsent + READERS * (64 << 10) + (3 << 20), "{held} bytes for {unsent}");
}

/// A client for which the kernel keeps next to nothing, as far away, on both sides.
fn barely_reading_client(server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    socket.set_tcp_mss(536).expect("small segments");
    socket.connect(&server.address.into()).expect("accepted");
    let mut raw = Raw { stream: socket.into(), heard: Vec::new() };
    raw.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    raw.ask_upgrade("/");
    assert_eq!(raw.hear().0, 101);
    raw.into_client()
}

fn a_disconnect_reaches_any_worker() {
    let (server, mut left, mut right) = two();
    assert_eq!(left.ask(&format!("disconnect {} 4321 go away", right.id)), "true");
    assert_eq!(right.hear_close(), (4321, "go away".into()));
    let close = server.wait_call("close", &right.id);
    assert_eq!(close.arguments, format!("{} 4321 \"go away\" Server", right.id));
    wait_until("it is gone for everybody", || {
        left.ask(&format!("established {}", right.id)) == "false"
    });
    assert_eq!(left.ask(&format!("disconnect {} 4321 again", right.id)), "false");
}

fn hears_last(client: &mut Client, words: &str, code: u16) {
    assert_eq!(client.hear(), Heard::Text(words.into()));
    assert_eq!(client.hear(), Heard::Close(code, "enough".into()));
    assert_eq!(client.hear(), Heard::End);
}

fn last_words_and_the_close_come_together() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "1")]);
    let mut left = server.client_at(0);
    let mut itself = server.client_at(0);
    itself.say(&format!("farewell {} 4001 you said so", itself.id));
    hears_last(&mut itself, "you said so", 4001);
    for slot in [0, 1] {
        let mut other = server.client_at(slot);
        // Whoever is closing has said his last words.
        for (code, words) in [(4510, "from a worker"), (4511, "once more")] {
            left.say(&format!("farewell {} {code} {words}", other.id));
        }
        hears_last(&mut other, "from a worker", 4510);
        assert_eq!(left.hear_text(), "true");
        left.hear_text();
    }
    let mut right = server.client_at(1);
    let asked = left.ask(&format!("task farewell {} 4511 from a task", right.id));
    hears_last(&mut right, "from a task", 4511);
    let task = asked.strip_prefix("task ").expect("a task's number");
    assert!(server.wait_call("finish", task).arguments.ends_with("Ok(\"true\")"));
    let nobody = left.ask(&format!("farewell {} 4511 who is there", right.id));
    assert_eq!(nobody, "false", "it is gone");
    assert_eq!(server.status()["workers"][1]["dropped"], 0);
}

fn last_words_without_room_are_dropped_and_the_close_comes() {
    let server = Server::start(&[("websocket.send_buffer", "64KiB"), ("server.workers", "2")]);
    let mut slow = slow_client(&server);
    let mut same = server.client_at(slow.slot);
    let mut other = server.client_at(1 - slow.slot);
    let mut in_vain = 0;
    wait_until("its kernel takes no more", || {
        let refused = same.ask(&format!("drop {} 16 8192", slow.id)) == "0 OutboxFull";
        in_vain = if refused { in_vain + 1 } else { 0 };
        in_vain == 3
    });
    // Well above what lets droppable messages in.
    assert_eq!(same.ask(&format!("flood {} 1 4096", slow.id)), "1 taken");
    let slot = usize::from(slow.slot);
    let dropped = server.status()["workers"][slot]["dropped"].as_u64().expect("a number");
    assert_eq!(other.ask(&format!("farewell {} 4510 unheard", slow.id)), "true");
    server.wait_status("the count", |status| status["workers"][slot]["dropped"] == dropped + 1);
    let end = loop {
        match slow.hear() {
            Heard::Binary(_) => {}
            other => break other,
        }
    };
    assert_eq!(end, Heard::Close(4510, "enough".into()));
}

fn a_stale_id_is_nobody() {
    let (server, mut left, right) = two();
    let stale = right.id.clone();
    right.close(1000, "");
    server.wait_call("close", &stale);
    wait_until("the row is free", || left.ask(&format!("info {stale}")) == "None");
    // Whoever has the row now is another connection.
    let others: Vec<Client> = (0..8).map(|_| server.client()).collect();
    assert!(others.iter().all(|client| client.id != stale));
    assert_eq!(left.ask(&format!("push {stale} for nobody")), "Err(NotOpen)");
    assert_eq!(left.ask(&format!("established {stale}")), "false");
}
