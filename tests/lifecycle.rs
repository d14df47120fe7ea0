//! Start, status, stop, daemonize, and what is left when a master is killed.

use crate::support::server::{DUNLIN, read_ready_line};
use crate::support::{Server, process, wait};
use serde_json::{Value as Json, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn the_ready_line_names_address_pid_and_run_directory() {
    let server = Server::start("[server]\nworkers = 2");
    let expected = format!(
        "dunlin ready on {} (pid {}, run dir {})",
        server.address,
        server.pid,
        server.run_dir().display()
    );
    assert_eq!(server.ready_line, expected);
    assert_ne!(server.address.port(), 0);
    server.client().login("ann");
}

#[test]
fn the_run_directory_is_private_and_holds_what_the_contract_names() {
    let server = Server::start("[server]\nworkers = 1");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&server.run_dir()), 0o700);
    for name in ["status.pipe", "control.sock"] {
        assert_eq!(mode(&server.run_dir().join(name)), 0o600, "{name}");
    }
    let pid = fs::read_to_string(server.run_dir().join("dunlin.pid")).expect("the pid file");
    assert_eq!(pid.trim(), server.pid.to_string());
}

#[test]
fn cat_prints_the_status_and_ends() {
    let server = Server::start("[server]\nworkers = 2\ntask_workers = 1");
    let _ann = server.client().login("ann");
    let pipe = server.run_dir().join("status.pipe");
    for _ in 0..3 {
        let cat = process::run(Command::new("cat").arg(&pipe));
        let status: Json = serde_json::from_str(&cat.stdout).expect("one JSON object");
        assert_eq!(status["pid"], server.pid);
        assert_eq!(status["state"], "running");
    }
    let status = server
        .wait_until("the login is counted", |status| status.number("/sessions/logged_in") == 1);
    assert_eq!(status.number("/sessions/used"), 1);
    assert_eq!(status.text("/listen/0"), server.address.to_string());
}

/// The names of section 4 of the contract; fields may be added, never renamed.
#[test]
fn the_status_has_every_field_that_scripts_rely_on() {
    let server = Server::start("[server]\nworkers = 1\ntask_workers = 1");
    let status = server.status();
    for pointer in STATUS_FIELDS {
        assert!(status.0.pointer(pointer).is_some(), "no {pointer} in {}", status.0);
    }
    assert_eq!(status.text("/name"), "dunlin");
    assert_eq!(status.text("/version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(status.text("/timer/state"), "running");
    let at = status.text("/started_at");
    assert!(at.len() == 20 && at.ends_with('Z') && at.as_bytes()[10] == b'T', "{at}");
}

/// As JSON pointers; `docs/status.md` names each of them.
pub(crate) const STATUS_FIELDS: [&str; 66] = [
    "/name",
    "/version",
    "/pid",
    "/state",
    "/generation",
    "/stopping",
    "/started_at",
    "/uptime_ms",
    "/listen",
    "/config",
    "/sessions/capacity",
    "/sessions/used",
    "/sessions/logged_in",
    "/sessions/peak",
    "/sessions/refused",
    "/descriptors/open",
    "/descriptors/unknown",
    "/workers/0/slot",
    "/workers/0/pid",
    "/workers/0/generation",
    "/workers/0/state",
    "/workers/0/restarts",
    "/workers/0/connections",
    "/workers/0/accepted",
    "/workers/0/closed",
    "/workers/0/messages_in",
    "/workers/0/messages_out",
    "/workers/0/bytes_in",
    "/workers/0/bytes_out",
    "/workers/0/slow_closed",
    "/workers/0/mailbox_depth",
    "/workers/0/rss_bytes",
    "/workers/0/cpu_ms",
    "/timer/pid",
    "/timer/state",
    "/timer/restarts",
    "/timer/armed",
    "/timer/fired",
    "/tasks/0/slot",
    "/tasks/0/pid",
    "/tasks/0/state",
    "/tasks/0/restarts",
    "/tasks/0/queued",
    "/tasks/0/done",
    "/tasks/0/failed",
    "/processes/0/name",
    "/processes/0/pid",
    "/processes/0/state",
    "/processes/0/restarts",
    "/redis/configured",
    "/redis/connected",
    "/redis/last_error",
    "/reloads/asked",
    "/reloads/done",
    "/reloads/refused",
    "/last_reload",
    "/last_reload/seq",
    "/last_reload/at",
    "/last_reload/ok",
    "/last_reload/error",
    "/last_reload/took_ms",
    "/last_reload/adopted",
    "/last_reload/dropped",
    "/last_reload/applied",
    "/last_reload/needs_restart",
    "/redis",
];

#[test]
fn twenty_status_verbs_at_once_each_print_a_whole_object() {
    let server = Server::start("[server]\nworkers = 2");
    let started: Vec<_> = (0..20)
        .map(|_| {
            let mut command = server.verb_command(&["status", "--json"]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("the verb starts")
        })
        .collect();
    for mut child in started {
        process::wait_child("dunlin status", &mut child);
        let output = child.wait_with_output().expect("its output");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{error}");
        let status: Json = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(status["pid"], server.pid);
    }
}

#[test]
fn a_reader_that_does_not_read_blocks_nobody() {
    let server = Server::start("[server]\nworkers = 2");
    let pipe = server.run_dir().join("status.pipe");
    let _silent: Vec<_> = (0..5).map(|_| fs::File::open(&pipe).expect("the pipe opens")).collect();
    server.client().login("ann");
    assert_eq!(server.status().ready_workers(), 2);
    assert_eq!(server.verb(&["status", "--json"]).code, Some(0));
}

#[test]
fn status_can_be_read_while_a_worker_is_stopped() {
    let server = Server::start("[server]\nworkers = 2");
    let worker = server.status().worker_pid(0);
    process::signal("STOP", worker);
    let status = server.status();
    process::signal("CONT", worker);
    assert_eq!(status.text("/state"), "running");
}

#[test]
fn stop_ends_with_0_and_leaves_nothing() {
    let mut server = Server::start("[server]\nworkers = 2\ntask_workers = 1");
    let mut ann = server.client().login("ann");
    let children = server.status().child_pids();
    assert!(children.len() >= 4, "{children:?}");
    for pid in children.iter().chain([&server.pid]) {
        assert!(shared_names_of(*pid).is_empty(), "no name in /dev/shm while running");
    }
    let (stop, (code, bye)) = thread::scope(|scope| {
        let stop = scope.spawn(|| server.verb(&["stop", "--timeout", "15"]));
        let closed = ann.expect_close();
        (stop.join().expect("the verb ends"), closed)
    });
    assert_eq!((stop.code, &*stop.stderr), (Some(0), ""), "{stop:?}");
    assert!(stop.stdout.contains(&format!("pid {}", server.pid)), "{}", stop.stdout);
    assert_eq!(server.wait_end().code(), Some(0));
    assert_eq!(code, 1001);
    assert_eq!(bye.expect("a bye goes before")["reconnect"], true);
    assert!(!server.run_dir().exists(), "the directory was made by the server");
    assert!(children.into_iter().all(|pid| !process::is_alive(pid)));
    // Three verbs that find nobody.
    for words in [&["status"][..], &["stop"], &["reload"]] {
        let ended = server.verb(words);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.starts_with("dunlin: no server is running"), "{ended:?}");
    }
}

/// Names under `/dev/shm` that a process maps and that are still there.
fn shared_names_of(pid: i64) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let names = maps.lines().filter_map(|line| Some(&line[line.find("/dev/shm/")?..]));
    names.filter(|name| Path::new(name).exists()).map(ToOwned::to_owned).collect()
}

#[test]
fn a_run_directory_that_was_there_stays_and_is_emptied() {
    let starter = Server::configure("[server]\nworkers = 1");
    let run_dir = starter.dir().run_dir();
    fs::create_dir(&run_dir).expect("a directory");
    fs::set_permissions(&run_dir, fs::Permissions::from_mode(0o700)).expect("its mode");
    let mut server = starter.start();
    assert_eq!(server.verb(&["stop"]).code, Some(0));
    server.wait_end();
    assert_eq!(fs::read_dir(&run_dir).expect("it is still there").count(), 0);
}

#[test]
fn stop_says_1_when_the_server_is_not_gone_in_time() {
    let mut server = Server::start("[server]\nworkers = 1\nstop_timeout = \"30s\"");
    process::signal("STOP", server.pid);
    let stop = server.verb(&["stop", "--timeout", "1"]);
    process::signal("CONT", server.pid);
    assert_eq!(stop.code, Some(1), "{stop:?}");
    assert!(stop.stderr.contains("still there"), "{stop:?}");
    assert_eq!(server.wait_end().code(), Some(0));
}

#[test]
fn a_client_that_does_not_answer_does_not_outlast_the_stop_timeout() {
    let mut server = Server::start("[server]\nworkers = 2\nstop_timeout = \"500ms\"");
    let _silent = server.client().login("ann");
    let began = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait_end().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn daemonize_returns_when_the_server_is_ready() {
    let starter = Server::configure("[server]\nworkers = 2").args(&["-d"]);
    let ended = starter.run();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (address, pid) = read_ready_line(ended.stdout.trim_end());
    let _daemon = Daemon(pid);
    // Ready means ready: no wait.
    let mut ann = crate::support::Client::connect(address).login("ann");
    assert!(ann.sees_online("ann"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon lives");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("its name").1.split(' ').collect();
    assert_ne!(fields[3], session_of_this_process(), "it is in a session of its own");
    let mut stop = Command::new(DUNLIN);
    stop.args(["stop", "--run-dir"]).arg(starter.dir().run_dir());
    assert_eq!(process::run(&mut stop).code, Some(0));
    assert!(!process::is_alive(pid));
}

/// Ends a daemon whose test has failed.
struct Daemon(i64);

impl Drop for Daemon {
    fn drop(&mut self) {
        process::signal("KILL", self.0);
    }
}

fn session_of_this_process() -> String {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is there");
    stat.rsplit_once(") ").expect("its name").1.split(' ').nth(3).expect("a session").to_owned()
}

#[test]
fn a_daemon_that_cannot_start_says_why_to_who_started_it() {
    let server = Server::start("[server]\nworkers = 1");
    let taken = server.address.to_string();
    let starter = Server::configure("[server]\nworkers = 1").listen(&taken).args(&["-d"]);
    let line = starter.fails(1, &[&taken, "in use"]);
    assert!(line.contains(&format!("pid {}", server.pid)), "{line}");
    assert!(!starter.dir().run_dir().exists(), "nothing is left of a start that failed");
}

#[test]
fn a_second_server_in_a_run_directory_is_refused_by_pid() {
    let server = Server::start("[server]\nworkers = 1");
    let mut second = Command::new(DUNLIN);
    second.args(["serve", "-l", "127.0.0.1:0", "--run-dir"]).arg(server.run_dir());
    let ended = process::run(&mut second);
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains(&format!("pid {} is already running", server.pid)), "{ended:?}");
    // The first one has not noticed.
    assert_eq!(server.status().ready_workers(), 1);
    assert_eq!(server.verb(&["status"]).code, Some(0));
}

#[test]
fn children_of_a_killed_master_end_within_a_second_and_the_next_start_takes_over() {
    let mut server = Server::start("[server]\nworkers = 3\ntask_workers = 2");
    let mut ann = server.client().login("ann");
    let children = server.status().child_pids();
    assert!(children.len() >= 6, "{children:?}");
    server.signal("KILL");
    let took = wait::until("the end of every child", || {
        children.iter().all(|pid| !process::is_alive(*pid))
    });
    assert!(took < Duration::from_secs(1), "{took:?}");
    server.wait_end();
    assert!(!ann.is_open());
    assert!(server.run_dir().join("dunlin.pid").exists(), "a killed master cleans nothing up");
    let began = Instant::now();
    let server = server.start_again();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let _ann = server.client().login("ann");
    assert_eq!(server.status().number("/sessions/used"), 1, "with a table of its own");
}

/// The orphans give up the lock of the run directory a moment before their listening sockets.
#[test]
fn a_start_right_after_the_kill_takes_over_address_and_directory() {
    const ROUNDS: usize = 10;
    let mut server = Server::start("[server]\nworkers = 4");
    for round in 1..=ROUNDS {
        // What else the orphans have to close, before they come to that.
        let _open: Vec<_> = (0..40).map(|_| server.client()).collect();
        server.signal("KILL");
        server.wait_end();
        server = server.start_again_for_its_clients();
        assert_eq!(server.status().ready_workers(), 4, "round {round}");
    }
    let mut ann = server.client().login("ann");
    assert_eq!(ann.send_to("ann", &json!(1))["sessions"], 1);
}

#[test]
fn a_killed_timer_and_a_killed_task_process_come_back() {
    let server = Server::start("[server]\nworkers = 1\ntask_workers = 2");
    let before = server.status();
    for pointer in ["/timer", "/tasks/1"] {
        let pid = before.number(&format!("{pointer}/pid"));
        process::signal("KILL", pid.cast_signed());
        server.wait_until("another process in the slot", |status| {
            status.number(&format!("{pointer}/pid")) != pid
                && status.text(&format!("{pointer}/state")) == "running"
                && status.number(&format!("{pointer}/restarts")) == 1
        });
    }
    assert_eq!(before.worker_pids(), server.status().worker_pids(), "no worker was touched");
}
