//! A stop under way: who is told when, and what is still done for whoever is not told yet.

use crate::client::{Client, Heard, Raw, stream};
use crate::order::slow_client;
use crate::runner::tests;
use crate::server::{Line, Server, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::Message;

tests![
    clients_are_told_evenly,
    a_slow_rate_gives_way_to_the_deadline,
    a_backlog_is_answered_before_the_goodbye,
    clients_of_several_workers_talk_until_they_are_told,
    a_task_is_awaited_before_the_goodbye,
    requests_under_way_are_answered,
    a_handshake_under_way_is_refused,
    who_waits_at_the_door_is_answered_and_who_comes_is_refused,
    a_slow_reader_hears_everything,
    who_never_reads_is_cut_off_and_its_close_hook_runs,
    a_worker_that_dies_while_stopping_is_spoken_for,
    a_worker_that_died_before_the_stop_is_spoken_for,
];

const STOPPING: &str = "the server is stopping";

/// A stop that lasts as long as its clients: one of them is told in a second.
const SLOW: (&str, &str) = ("server.drain_rate", "1");

fn stop_begins(server: &Server) -> Instant {
    server.signal(Signal::SIGTERM);
    Instant::now()
}

fn wait_for_a_shut_door(server: &Server) {
    wait_until("a door that is shut", || TcpStream::connect(server.address).is_err());
}

/// Reads to the close frame of the stop, whatever comes before.
fn expect_told(client: &mut Client) {
    assert_eq!(client.hear_close(), (1001, STOPPING.into()));
}

fn clients_are_told_evenly() {
    const CLIENTS: u32 = 500;
    const RATE: u32 = 200;
    let settings = [("server.drain_rate", "200"), ("server.stop_timeout", "60s")];
    let mut server = Server::start(&settings);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    let began = stop_begins(&server);
    // Told in the order in which they came.
    let told: Vec<Duration> = clients
        .iter_mut()
        .map(|client| {
            expect_told(client);
            began.elapsed()
        })
        .collect();
    assert!(server.wait_end().success());
    for (number, at) in (1_u32..).zip(&told) {
        // The n-th is never told before its time, but for what a look makes up for.
        let early = Duration::from_millis(100);
        assert!(*at + early >= Duration::from_secs(1) * number / RATE, "{number}: {at:?}");
    }
    let last = told[told.len() - 1];
    assert!(last < Duration::from_secs(8), "2.5 s, where the machine is not busy: {last:?}");
    assert_eq!(server.calls("close").len(), clients.len());
}

fn a_slow_rate_gives_way_to_the_deadline() {
    let settings =
        [("server.workers", "2"), ("server.drain_rate", "10"), ("server.stop_timeout", "2s")];
    let mut server = Server::start(&settings);
    let mut clients: Vec<Client> = (0..100).map(|_| server.client()).collect();
    let began = stop_begins(&server);
    let status = server.wait_status("half of them told", |status| {
        status["stopping"]["told"].as_u64().is_some_and(|told| told >= 50)
    });
    assert!(began.elapsed() >= Duration::from_millis(600), "evenly: {status}");
    assert_eq!(status["stopping"]["total"], 100);
    clients.iter_mut().for_each(expect_told);
    // At 80 % of two seconds, ten at a time on a machine that is not busy.
    assert!(began.elapsed() < Duration::from_millis(1_950), "{:?}", began.elapsed());
    assert!(server.wait_end().success());
}

/// What Swoole's SIGTERM loses: 728 of these 1,950 answers, and every close frame.
fn a_backlog_is_answered_before_the_goodbye() {
    let mut server = Server::start(&[("server.workers", "2"), ("server.drain_rate", "0")]);
    let mut clients: Vec<Client> = (0..50).map(|_| server.client()).collect();
    for client in &mut clients {
        for number in 0..39 {
            let word = if number % 10 == 0 { "sleep 2" } else { "echo" };
            client.socket.write(Message::text(format!("{word} {number}"))).expect("taken");
        }
        client.socket.flush().expect("the connection takes it");
    }
    stop_begins(&server);
    for client in &mut clients {
        let mut answers = 0;
        loop {
            match client.hear() {
                Heard::Text(text) if text == "last words" => {}
                Heard::Text(_) => answers += 1,
                Heard::Close(code, _) => break assert_eq!(code, 1001),
                other => panic!("{other:?} after {answers} answers"),
            }
        }
        assert_eq!(answers, 39);
    }
    assert!(server.wait_end().success());
}

fn clients_of_several_workers_talk_until_they_are_told() {
    let mut server = Server::start(&[("server.workers", "2"), SLOW]);
    let (mut left, mut right) = (server.client_at(0), server.client_at(1));
    stop_begins(&server);
    assert_eq!((left.hear_text(), right.hear_text()), ("last words".into(), "last words".into()));
    left.say(&format!("push {} over", right.id));
    assert_eq!(right.hear_text(), "over");
    assert_eq!(left.hear_text(), "Ok(())");
    expect_told(&mut left);
    expect_told(&mut right);
    assert!(server.wait_end().success());
}

fn a_task_is_awaited_before_the_goodbye() {
    let settings = [("server.task_workers", "1"), ("server.drain_rate", "0")];
    let mut server = Server::start(&settings);
    let mut client = server.client();
    let task = client.ask("task sleep 400");
    let task = task.strip_prefix("task ").expect("a task's number");
    stop_begins(&server);
    expect_told(&mut client);
    assert!(server.wait_end().success());
    let record = server.record();
    let place = |so: &dyn Fn(&Line) -> bool| record.iter().position(so).expect("it was called");
    let finish = place(&|line| line.hook == "finish" && line.word(0) == task);
    let stop = place(&|line| line.hook == "worker_stop" && line.role == "worker0");
    let close = place(&|line| line.hook == "close");
    assert!(stop < finish && finish < close, "{record:?}");
}

fn requests_under_way_are_answered() {
    let mut server = Server::start(&[SLOW]);
    let mut ws: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let (mut kept, mut half, mut waiting) =
        (Raw::connect(server.address), Raw::connect(server.address), Raw::connect(server.address));
    kept.get("/now");
    assert_eq!(kept.hear().0, 200);
    half.write("GET /now HTTP/1.1\r\nHost: d");
    waiting.get("/later");
    let id = server.wait_call("request", "/later").word(0).to_owned();
    wait_until("the half request is read", || server.status()["workers"][0]["connections"] == 6);
    stop_begins(&server);
    wait_for_a_shut_door(&server);
    assert!(kept.is_ended(), "it asks for nothing");
    half.write("unlin\r\n\r\n");
    let (status, head, body) = half.hear();
    assert_eq!((status, body.as_str()), (200, "at once"));
    assert!(head.contains("Connection: close"), "{head}");
    // The last to be told can still answer it.
    ws[2].say(&format!("respond {id} at last"));
    let (status, head, body) = waiting.hear();
    assert_eq!((status, body.as_str()), (200, "at last"));
    assert!(head.contains("Connection: close"), "{head}");
    assert!(half.is_ended() && waiting.is_ended());
    ws.iter_mut().for_each(expect_told);
    assert!(server.wait_end().success());
}

fn a_handshake_under_way_is_refused() {
    let mut server = Server::start(&[SLOW]);
    let mut ws: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let (mut asked, mut half) = (Raw::connect(server.address), Raw::connect(server.address));
    asked.ask_upgrade("/later");
    let id = server.wait_call("handshake", "/later").word(0).to_owned();
    half.write("GET / HTTP/1.1\r\n");
    wait_until("both are there", || server.status()["workers"][0]["connections"] == 5);
    stop_begins(&server);
    wait_for_a_shut_door(&server);
    half.ask_upgrade_rest();
    let refused = |raw: &mut Raw| {
        let (status, head, _) = raw.hear();
        status == 503 && head.contains("Retry-After: 5")
    };
    assert!(refused(&mut half));
    ws[2].say(&format!("accept {id}"));
    assert!(refused(&mut asked));
    ws.iter_mut().for_each(expect_told);
    assert!(server.wait_end().success());
}

fn who_waits_at_the_door_is_answered_and_who_comes_is_refused() {
    let mut server = Server::start(&[SLOW]);
    let mut ws: Vec<Client> = (0..2).map(|_| server.client()).collect();
    let worker = Pid::from_raw(server.pid("workers/0"));
    kill(worker, Signal::SIGSTOP).expect("the worker lives");
    // The kernel takes them in; the worker has not.
    let (mut upgrade, mut plain, mut silent) =
        (Raw::connect(server.address), Raw::connect(server.address), Raw::connect(server.address));
    upgrade.ask_upgrade("/");
    plain.get("/now");
    stop_begins(&server);
    server.wait_status("the stop", |status| status["state"] == "stopping");
    kill(worker, Signal::SIGCONT).expect("the worker lives");
    assert_eq!(upgrade.hear().0, 503);
    assert_eq!(plain.hear().0, 200);
    wait_for_a_shut_door(&server);
    assert!(silent.is_ended());
    ws.iter_mut().for_each(expect_told);
    assert!(server.wait_end().success());
}

/// Sends until the kernel takes no more and output waits; gives how many messages were taken.
fn fill(sender: &mut Client, slow: &Client) -> u32 {
    let mut taken = 0;
    wait_until("output that waits", || {
        let answer = sender.ask(&format!("drop {} 4 65536", slow.id));
        let (count, outcome) = answer.split_once(' ').expect("how many were taken");
        taken += count.parse::<u32>().expect("a number");
        outcome == "OutboxFull"
    });
    taken
}

fn a_slow_reader_hears_everything() {
    let settings = [("server.drain_rate", "0"), ("server.stop_timeout", "30s")];
    let mut server = Server::start(&settings);
    let mut sender = server.client();
    let mut slow = slow_client(&server);
    let taken = fill(&mut sender, &slow);
    stop_begins(&server);
    expect_told(&mut sender);
    // Longer than the grace of a client that has read all.
    std::thread::sleep(Duration::from_millis(4_000));
    for number in 0..taken {
        assert_eq!(slow.hear(), Heard::Binary(vec![b'x'; 65536]), "message {number} of {taken}");
    }
    expect_told(&mut slow);
    assert!(server.wait_end().success());
}

fn who_never_reads_is_cut_off_and_its_close_hook_runs() {
    let settings = [("server.drain_rate", "0"), ("server.stop_timeout", "1s")];
    let mut server = Server::start(&settings);
    let mut sender = server.client();
    let slow = slow_client(&server);
    fill(&mut sender, &slow);
    let began = stop_begins(&server);
    expect_told(&mut sender);
    assert!(server.wait_end().success());
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    let close = server.wait_call("close", &slow.id);
    assert_eq!(close.word(1), "1001");
    assert_eq!(server.calls("close").len(), 2);
}

/// Each of these connections hears 1001, and each of them has one `close`.
fn all_are_told(mut server: Server, clients: &mut [Client]) {
    for client in clients.iter_mut() {
        assert_eq!(client.hear_close(), (1001, STOPPING.into()));
    }
    assert!(server.wait_end().success());
    for client in clients.iter() {
        let closes = server.calls("close");
        let own: Vec<&Line> = closes.iter().filter(|line| line.word(0) == client.id).collect();
        assert_eq!(own.len(), 1, "{own:?}");
    }
    assert!(TcpStream::connect(server.address).is_err());
}

fn a_worker_that_dies_while_stopping_is_spoken_for() {
    let settings = [("server.workers", "2"), ("server.drain_rate", "10")];
    let server = Server::start(&settings);
    let mut clients: Vec<Client> = (0..20).map(|_| server.client()).collect();
    stop_begins(&server);
    server.wait_status("some are told", |status| {
        status["stopping"]["told"].as_u64().is_some_and(|told| told >= 2)
    });
    server.wait_quiet();
    let worker = Pid::from_raw(server.pid("workers/0"));
    kill(worker, Signal::SIGKILL).expect("the worker lives");
    all_are_told(server, &mut clients);
}

fn a_worker_that_died_before_the_stop_is_spoken_for() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut clients: Vec<Client> = (0..10).map(|_| server.client()).collect();
    server.wait_quiet();
    // It is not started again before the stop is asked for.
    let master = Pid::from_raw(server.master());
    kill(master, Signal::SIGSTOP).expect("the master lives");
    kill(Pid::from_raw(clients[0].pid), Signal::SIGKILL).expect("the worker lives");
    // In its queue; whoever is served by the other one is told by that.
    let late: Vec<TcpStream> = (0..8).map(|_| stream(server.address)).collect();
    stop_begins(&server);
    kill(master, Signal::SIGCONT).expect("the master lives");
    all_are_told(server, &mut clients);
    for stream in late {
        // Refused or reset: nobody is left to wait for an answer that never comes.
        assert!(Raw { stream, heard: Vec::new() }.is_ended());
    }
}
