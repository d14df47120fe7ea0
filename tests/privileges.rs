//! A server that root starts and that becomes somebody else: `server.user`, `server.group`. They need
//! root, and leave the machine's accounts alone: what is known as `/etc/passwd` is so for one process.

use crate::support::server::{DUNLIN, Starter};
use crate::support::{Server, Status, process, wait};
use serde_json::json;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

const WADER: u32 = 61_234;
const POND: u32 = 61_235;
const MARSH: u32 = 61_236;
const SHORE: u32 = 61_237;

/// Whether this is root, and may mount; says so where it is not.
fn root() -> bool {
    let may_mount = Command::new("unshare").args(["-m", "true"]).status();
    let root = may_mount.is_ok_and(|status| status.success());
    if !root {
        eprintln!("skipped: only root can become another user");
    }
    root
}

/// A server on a machine that has the user `wader`, who is in the groups `pond` and `marsh`; the program
/// is where that user finds it.
fn on_a_pond(toml: &str) -> Starter {
    on_a_pond_by(toml, "")
}

/// The same, started by another program, such as one that takes a capability away.
fn on_a_pond_by(toml: &str, before: &str) -> Starter {
    let starter = Server::configure(toml);
    let here = starter.dir().path().to_owned();
    let (passwd, group) = (here.join("passwd"), here.join("group"));
    let accounts = format!("root:x:0:0::/:/bin/sh\nwader:x:{WADER}:{WADER}::/:/bin/false\n");
    fs::write(&passwd, accounts).expect("a file of the test's");
    let groups = format!(
        "root:x:0:\nwader:x:{WADER}:\npond:x:{POND}:wader\nmarsh:x:{MARSH}:wader\nshore:x:{SHORE}:\n"
    );
    fs::write(&group, groups).expect("a file of the test's");
    fs::copy(DUNLIN, here.join("dunlin")).expect("a copy of the program");
    fs::set_permissions(&here, Permissions::from_mode(0o755)).expect("the test's own directory");
    let inside = format!(
        "mount --bind {0}/passwd /etc/passwd && mount --bind {0}/group /etc/group && exec {before} \"$0\" \"$@\"",
        here.display()
    );
    let program = here.join("dunlin");
    starter.after(&format!("exec unshare -m sh -c '{inside}' {} \"$@\"", program.display()))
}

/// Who a process is: the four user ids, the four group ids, the supplementary groups, what it may.
fn identity(pid: i64) -> [String; 4] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    ["Uid:", "Gid:", "Groups:", "CapPrm:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("every status");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

fn expect_everybody_is(server: &Server, group: u32) {
    let everybody = |status: &Status| status.child_pids().iter().all(|pid| *pid > 1);
    let status = server.wait_until("every process", everybody);
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    let mut groups = [group, POND, MARSH];
    groups.sort_unstable();
    let groups = groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let nothing = "0".repeat(16);
    let pids: Vec<i64> = status.child_pids().into_iter().chain([server.pid]).collect();
    // Two workers, a task process, the timer process, the master.
    assert_eq!(pids.len(), 5, "{pids:?}");
    for pid in pids {
        assert_eq!(identity(pid), [four(WADER), four(group), groups.clone(), nothing.clone()]);
    }
}

/// A port that only root may listen on, free a moment ago.
fn low_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (600..1_024).find(is_free).expect("a free port below 1024")
}

const TOML: &str =
    "[server]\nworkers = 2\ntask_workers = 1\nuser = \"wader\"\n[auth]\nmode = \"open\"";

#[test]
fn everybody_is_the_user_and_stays_so_over_reload_death_and_upgrade() {
    if !root() {
        return;
    }
    let starter = on_a_pond(TOML);
    let logs = starter.dir().path().join("logs");
    fs::create_dir(&logs).expect("a directory of the test's");
    std::os::unix::fs::chown(&logs, Some(WADER), Some(WADER)).expect("root may");
    let (log, old_log) = (logs.join("dunlin.log"), logs.join("old.log"));
    let mut server = starter
        .listen(&format!("127.0.0.1:{}", low_port()))
        .args(&["--set", &format!("log.file={}", log.display())])
        .start();
    let mut ann = server.client().login("ann");
    expect_everybody_is(&server, WADER);
    for file in ["", "dunlin.pid", "status.pipe", "control.sock", "api.key"] {
        let found = fs::metadata(server.run_dir().join(file)).expect("a file of the server's");
        assert_eq!((found.uid(), found.gid()), (WADER, WADER), "{file:?}");
    }

    let reloaded = server.verb(&["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    let before = server.status();
    let slot = server.kill_worker_of(&mut ann);
    let dead = before.worker_pid(slot);
    server.wait_until("a successor", |status| {
        status.ready_workers() == 2 && status.worker_pid(slot) != dead
    });
    expect_everybody_is(&server, WADER);

    let upgraded = server.verb(&["upgrade"]);
    assert_eq!(upgraded.code, Some(0), "{upgraded:?}");
    expect_everybody_is(&server, WADER);
    // The old connection, and a new one on the port that nobody could bind any more.
    ann.result("ping", json!({}));
    server.client().login("bob").send_to("ann", &json!("hello"));
    assert_eq!(ann.message_body(), json!("hello"));

    fs::rename(&log, &old_log).expect("both in one directory");
    server.signal("34");
    wait::until("a fresh log file", || log.exists());
    assert_eq!(fs::metadata(&log).expect("it exists").uid(), WADER);
    server.signal("TERM");
    assert_eq!(server.wait_end().code(), Some(0));
    let left: Vec<_> = fs::read_dir(server.run_dir()).expect("it stays: root made it").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn another_group_than_the_users_own_may_be_named() {
    if !root() {
        return;
    }
    let server = on_a_pond(&TOML.replace("[auth]", "group = \"shore\"\n[auth]")).start();
    expect_everybody_is(&server, SHORE);
}

#[test]
fn a_start_after_a_crash_takes_the_users_directory_over() {
    if !root() {
        return;
    }
    let starter = on_a_pond(TOML);
    let mut again = starter.command();
    let mut server = starter.start();
    server.signal("KILL");
    server.wait_end();
    again.args(["-d", "--set", "log.level=off"]);
    let started = process::run(&mut again);
    assert_eq!(started.code, Some(0), "{started:?}");
    let stopped = server.verb(&["stop"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
}

#[test]
fn who_is_not_there_is_refused_by_key_and_line() {
    if !root() {
        return;
    }
    let heron = TOML.replace("wader", "heron");
    on_a_pond(&heron).fails(2, &["dunlin.toml:4: server.user", "\"heron\"", "does not have"]);
    let lake = TOML.replace("[auth]", "group = \"lake\"\n[auth]");
    on_a_pond(&lake).fails(2, &["dunlin.toml:5: server.group", "\"lake\"", "does not have"]);
    on_a_pond(&TOML.replace("wader", "root")).fails(2, &["server.user names root"]);
    let alone = on_a_pond("[server]\ngroup = \"pond\"");
    alone.fails(2, &["dunlin.toml:2: server.group is set without server.user"]);
}

#[test]
fn what_the_user_cannot_read_is_refused_at_the_start_and_not_at_the_first_reload() {
    if !root() {
        return;
    }
    let starter = on_a_pond(TOML);
    let config = starter.dir().config_file();
    fs::set_permissions(&config, Permissions::from_mode(0o600)).expect("the test's own file");
    starter.fails(2, &["cannot read", "dunlin.toml", "Permission denied", "\"wader\" has to"]);
    assert!(!starter.dir().run_dir().exists());
}

#[test]
fn who_is_not_root_becomes_nobody_else() {
    if !root() {
        return;
    }
    let starter = Server::configure("[server]\nuser = \"nobody\"");
    let here = starter.dir().path().to_owned();
    fs::copy(DUNLIN, here.join("dunlin")).expect("a copy of the program");
    fs::set_permissions(&here, Permissions::from_mode(0o755)).expect("the test's own directory");
    let as_user = |user: &str| {
        format!(
            "exec setpriv --reuid {user} --regid {user} --clear-groups {}/dunlin \"$@\"",
            here.display()
        )
    };
    let starter = starter.after(&as_user("61234"));
    starter.fails(2, &["server.user is \"nobody\"", "only a server that root starts", "61234"]);
}

#[test]
fn privileges_that_cannot_be_dropped_are_the_end_of_the_start() {
    if !root() {
        return;
    }
    for (missing, step) in [("setgid", "groups cannot be set"), ("setuid", "user id cannot be set")]
    {
        let starter = on_a_pond_by(TOML, &format!("setpriv --bounding-set -{missing}"));
        let told = format!("cannot become user \"wader\": its {step}");
        starter.fails(1, &[&told, "Operation not permitted"]);
        assert!(!starter.dir().run_dir().join("dunlin.pid").exists());
    }
}
