//! What workers give up (`server.sandbox`), and that it is only that. As root: else the kernel refuses
//! part of it anyway.

use crate::runner::tests;
use crate::server::Server;
use nix::sys::signal::Signal;

tests![
    a_worker_gives_up_what_no_server_needs_and_keeps_the_rest,
    a_reload_turns_the_sandbox_off,
    a_task_process_may_start_programs,
    a_worker_that_is_locked_in_has_no_say_at_the_control_socket,
];

const NEEDED: [&str; 3] = ["thread", "file", "socket"];
const GIVEN_UP: [&str; 4] = ["program", "namespace", "root", "user"];

fn a_worker_gives_up_what_no_server_needs_and_keeps_the_rest() {
    let server = Server::start(&[("server.workers", "2")]);
    for slot in 0..2_u16 {
        let mut client = server.client_at(slot);
        for what in GIVEN_UP {
            assert_eq!(client.ask(&format!("try {what}")), "PermissionDenied", "{what}");
        }
        for what in NEEDED {
            assert_eq!(client.ask(&format!("try {what}")), "done", "{what}");
        }
        assert_eq!(server.status()["workers"][usize::from(slot)]["sandboxed"], true);
    }
    assert_eq!(server.status()["timer"]["sandboxed"], true);
}

fn a_reload_turns_the_sandbox_off() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("try program"), "PermissionDenied");
    server.place.set("server.sandbox", "false");
    server.reload(Signal::SIGUSR1);
    assert_eq!(client.ask("try program"), "done");
    assert_eq!(server.status()["workers"][0]["sandboxed"], false);
    assert_eq!(server.status()["timer"]["sandboxed"], false);
}

fn a_task_process_may_start_programs() {
    let server = Server::start(&[("server.task_workers", "1")]);
    let mut client = server.client();
    client.ask("task try program");
    server.wait_call("finish", "done");
}

/// It would only have to ask for an upgrade to have another program started.
fn a_worker_that_is_locked_in_has_no_say_at_the_control_socket() {
    let server = Server::start(&[("server.task_workers", "1")]);
    let socket = server.place.run_dir().join("control.sock");
    let mut client = server.client();
    // The master answers while the worker waits for it.
    let answer = client.ask(&format!("try control {}", socket.display()));
    assert!(answer.contains("no worker"), "{answer}");
    client.ask(&format!("task try control {}", socket.display()));
    server.wait_call("finish", "uptime_ms");
    server.place.set("server.sandbox", "false");
    server.reload(Signal::SIGUSR1);
    let answer = client.ask(&format!("try control {}", socket.display()));
    assert!(answer.contains("uptime_ms"), "what is turned off is off: {answer}");
}
