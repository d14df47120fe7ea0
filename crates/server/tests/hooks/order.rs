//! Every hook runs in the right process, in the right order, with what it was promised.

use crate::client::{Client, Heard, Raw, stream};
use crate::runner::tests;
use crate::server::{Line, Server, pid_in, wait_until};
use dunlin_server::control::{self, ControlRequest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::SockRef;
use std::process::Command;
use std::time::Duration;
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

tests![
    a_life_in_order,
    master_hooks_run_in_the_master_alone,
    open_knows_the_upgrade,
    a_task_and_its_finish,
    pipe_messages_name_their_sender,
    worker_error_names_the_dead,
    buffer_full_and_empty,
    requests_are_answered,
    a_reload_calls_its_hooks,
    a_hook_asks_for_reload_and_shutdown,
    status_by_plain_cat,
];

fn hooks_of<'a>(record: &'a [Line], role: &str) -> Vec<&'a str> {
    record.iter().filter(|line| line.role == role).map(|line| line.hook.as_str()).collect()
}

fn a_life_in_order() {
    let mut server = Server::start(&[("server.task_workers", "1")]);
    let (master, worker, task) = (server.master(), server.pid("workers/0"), server.pid("tasks/0"));
    let mut client = server.client();
    assert_eq!(client.ask("echo tea"), "tea");
    let id = client.id.clone();
    client.close(1000, "bye");
    let close = server.wait_call("close", &id);
    assert_eq!(close.arguments, format!("{id} 1000 \"bye\" Client"));
    assert!(server.stop().success());
    let record = server.record();
    assert_eq!(
        hooks_of(&record, "master"),
        ["columns", "areas", "start", "manager_start", "shutdown"]
    );
    assert_eq!(
        hooks_of(&record, "worker0"),
        [
            "worker_start",
            "connect",
            "handshake",
            "open",
            "message",
            "message",
            "close",
            "worker_stop"
        ]
    );
    assert_eq!(hooks_of(&record, "task0"), ["worker_start", "worker_stop"]);
    assert_eq!(record.last().map(|line| line.hook.as_str()), Some("shutdown"), "the last of all");
    for line in &record {
        let expected = match line.role.as_str() {
            "master" => master,
            "worker0" => worker,
            _ => task,
        };
        assert_eq!(line.pid, expected, "{line:?}");
    }
    let place = |hook: &str, role: &str| {
        record
            .iter()
            .position(|line| line.hook == hook && line.role == role)
            .expect("it was called")
    };
    assert!(place("start", "master") < place("worker_start", "worker0"), "before the first fork");
    assert!(place("worker_stop", "worker0") < place("worker_stop", "task0"), "workers stop first");
    assert!(server.calls("worker_stop").iter().all(|line| line.arguments == "Shutdown"));
}

fn master_hooks_run_in_the_master_alone() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "2")]);
    server.reload(Signal::SIGUSR1);
    for hook in ["columns", "areas", "start", "manager_start", "before_reload", "after_reload"] {
        let calls = server.calls(hook);
        assert_eq!(calls.len(), 1, "{hook}");
        assert_eq!((calls[0].role.as_str(), calls[0].pid), ("master", server.master()), "{hook}");
    }
    assert_eq!(server.calls("start")[0].arguments, server.address.to_string());
}

fn open_knows_the_upgrade() {
    let server = Server::start(&[]);
    let headers = [("X-Tea", "green"), ("Cookie", "a=1; b=2")];
    let client = Client::connect(server.address, "/chat?room=7", &headers);
    let open = server.wait_call("open", &client.id);
    let peer = client.socket.get_ref().local_addr().expect("an address");
    let expected =
        format!("{} /chat room=7 green [(\"a\", \"1\"), (\"b\", \"2\")] {peer} []", client.id);
    assert_eq!(open.arguments, expected);
    assert_eq!(server.wait_call("connect", "").arguments, peer.to_string());
    assert_eq!(server.wait_call("handshake", "").word(1), "/chat");
}

fn a_task_and_its_finish() {
    let server = Server::start(&[("server.workers", "2"), ("server.task_workers", "1")]);
    let mut client = server.client_at(1);
    let mut ask = |what: &str, expected: &str| {
        let asked = client.ask(what);
        let task = asked.strip_prefix("task ").expect("a task's number").to_owned();
        let done = server.wait_call("task", &task);
        assert_eq!((done.role.as_str(), done.pid), ("task0", server.pid("tasks/0")));
        let finish = server.wait_call("finish", &task);
        assert_eq!(finish.arguments, format!("{task} {expected}"));
        assert_eq!(finish.role, "worker1", "the slot that asked");
    };
    ask("task say boil water", "Ok(\"boil water\")");
    ask("task nothing", "Err(NoResult)");
    ask("task panic", "Err(Panicked)");
    ask("task tell 0 tea is ready", "Ok(\"true\")");
    let id = client.id.clone();
    assert_eq!(client.ask("task say last").split(' ').next(), Some("task"));
    client.say(&format!("task push {id} from a task"));
    // The push and the answer of the command come by different roads.
    let heard = [client.hear_text(), client.hear_text()];
    assert!(heard.contains(&"from a task".to_owned()), "{heard:?}");
    let told = server.wait_call("pipe_message", "tea is ready");
    assert_eq!((told.role.as_str(), told.word(0)), ("worker0", "Task(0)"));
}

fn pipe_messages_name_their_sender() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut client = server.client_at(0);
    for to in ["0", "1"] {
        assert_eq!(client.ask(&format!("pipe {to} hello {to}")), "true");
        let told = server.wait_call("pipe_message", &format!("hello {to}"));
        assert_eq!(told.role, format!("worker{to}"));
        assert_eq!(told.arguments, format!("Worker(SlotId(0)) hello {to}"));
    }
    assert_eq!(client.ask("pipe 7 nobody"), "false");
}

fn worker_error_names_the_dead() {
    let prepared = Server::prepare(&[("server.workers", "2"), ("server.task_workers", "1")]);
    prepared.place.mark("with_helper");
    let server = prepared.start();
    for (of, role, slot) in
        [("workers/1", "worker", 1), ("tasks/0", "task", 0), ("processes/1", "helper", 1)]
    {
        let dead = server.pid(of);
        server.kill_and_wait(of);
        let error = server.wait_call("worker_error", &format!(" {dead} "));
        assert_eq!(error.arguments, format!("{role} {slot} {dead} None Some(9)"));
        assert_eq!(error.pid, server.master());
    }
    let mut client = server.client_at(0);
    client.say("exit 7");
    let error = server.wait_call("worker_error", &client.pid.to_string());
    assert_eq!(error.arguments, format!("worker 0 {} Some(7) None", client.pid));
}

fn buffer_full_and_empty() {
    let server = Server::start(&[("websocket.send_buffer", "256KiB")]);
    let mut sender = server.client();
    let mut slow = slow_client(&server);
    let mut dropped = false;
    let mut taken = 0_u64;
    wait_until("an outbox that is full", || {
        let answer = sender.ask(&format!("drop {} 4 65536", slow.id));
        let (count, outcome) = answer.split_once(' ').expect("how many were taken");
        taken += count.parse::<u64>().expect("a number");
        dropped |= outcome == "OutboxFull";
        dropped && !server.calls("buffer_full").is_empty()
    });
    assert!(server.calls("buffer_empty").is_empty(), "not yet");
    for number in 0..taken {
        assert_eq!(slow.hear(), Heard::Binary(vec![b'x'; 65536]), "message {number} of {taken}");
    }
    server.wait_call("buffer_empty", &slow.id);
    let calls = server.calls("buffer_full");
    assert_eq!((calls.len(), calls[0].arguments.as_str()), (1, slow.id.as_str()));
    assert_eq!(slow.ask("echo on"), "on", "it was never closed");
}

/// A client with a small receive buffer, so that the server's fills soon.
pub(crate) fn slow_client(server: &Server) -> Client {
    let mut raw = Raw { stream: stream(server.address), heard: Vec::new() };
    SockRef::from(&raw.stream).set_recv_buffer_size(64 << 10).expect("a small buffer");
    raw.ask_upgrade("/");
    assert_eq!(raw.hear().0, 101);
    Client::over(WebSocket::from_raw_socket(raw.stream, Role::Client, None))
}

fn requests_are_answered() {
    let server = Server::start(&[]);
    let mut raw = Raw::connect(server.address);
    for path in ["/now", "/now?again=1"] {
        raw.get(path);
        let (status, head, body) = raw.hear();
        assert_eq!((status, body.as_str()), (200, "at once"));
        assert!(head.contains("X-App: yes"), "{head}");
    }
    raw.get("/elsewhere");
    assert_eq!(raw.hear().0, 404);
    let calls = server.calls("request");
    assert_eq!(calls.len(), 3);
    assert!(calls[0].arguments.ends_with("GET /now"), "{:?}", calls[0]);
    assert!(calls.iter().all(|line| line.pid == server.pid("workers/0")));
}

fn a_reload_calls_its_hooks() {
    let server = Server::start(&[("server.task_workers", "1")]);
    let before = server.children();
    server.place.set("server.max_request", "70000");
    let report = server.reload(Signal::SIGHUP);
    assert_eq!((report["ok"].as_bool(), report["seq"].as_u64()), (Some(true), Some(1)));
    assert_eq!(report["applied"][0], "server.max_request");
    let (asked, over) = (server.calls("before_reload"), server.calls("after_reload"));
    assert_eq!(asked[0].arguments, "70000", "the new settings");
    assert_eq!(over[0].arguments, "1 Some(true)");
    let after = server.children();
    assert!(before.iter().all(|pid| !after.contains(pid)), "every child is another");
    wait_until("the old ones' last hooks", || server.calls("worker_stop").len() == 2);
    // The application refuses: nothing changes.
    server.place.mark("refuse_reload");
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!(report["error"], "the application refuses");
    assert_eq!(server.children(), after);
    // The settings are wrong: the application is not even asked.
    server.place.set("server.max_request", "many");
    let report = server.reload(Signal::SIGUSR1);
    assert_eq!(report["ok"], false);
    assert_eq!(server.calls("before_reload").len(), 2);
    assert_eq!(server.calls("after_reload").len(), 3);
    assert_eq!(server.children(), after);
    let status = server.status();
    assert_eq!(status["reloads"], serde_json::json!({"asked": 3, "done": 1, "refused": 2}));
    assert_eq!(status["generation"], 2, "applied reloads, counted from 1");
}

fn a_hook_asks_for_reload_and_shutdown() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    client.say("reload");
    server.wait_call("after_reload", "Some(true)");
    let (id, _, pid) = client.who();
    assert_eq!(id, client.id);
    assert_ne!(pid, client.pid);
    client.say("shutdown");
    assert_eq!(client.hear_text(), "last words");
    assert_eq!(client.hear_close().0, 1001);
    assert!(server.wait_end().success());
    assert!(!server.place.run_dir().exists(), "nothing is left behind");
}

fn status_by_plain_cat() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut client = server.client();
    let counted: u64 =
        client.ask("count").strip_prefix("count ").expect("count").parse().expect("1");
    assert_eq!(counted, 1);
    let pipe = server.place.run_dir().join("status.pipe");
    let output = Command::new("timeout").arg("10").arg("cat").arg(&pipe).output().expect("cat");
    assert!(output.status.success());
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(status["recording"]["messages"], 2, "the application's part, from shared memory");
    assert_eq!(pid_in(&status, ""), server.master());
    let run_dir = server.place.run_dir();
    let answer = control::ask(&run_dir, &ControlRequest::Status, Duration::from_secs(10));
    assert_eq!(answer.expect("an answer").result["pid"], status["pid"]);
    // A worker that is stuck in a hook is no hindrance.
    client.say("sleep 700");
    let slot = client.slot;
    server.wait_status("a busy worker", |status| {
        status["workers"][usize::from(slot)]["busy_ms"].as_u64().is_some_and(|busy| busy > 100)
    });
    let stats: serde_json::Value = {
        assert_eq!(client.hear_text(), "slept");
        serde_json::from_str(&client.ask("stats")).expect("an object")
    };
    assert_eq!(stats["sessions"]["used"], 1);
    kill(Pid::from_raw(server.master()), Signal::SIGPIPE).expect("the master lives");
    assert_eq!(client.ask("echo still here"), "still here");
}
