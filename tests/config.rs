//! Where settings come from, and every bad input that a start must refuse in one line.

use crate::support::Server;
use crate::support::dir::Dir;
use crate::support::process::{self, Ended};
use crate::support::server::dunlin;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// `dunlin check` in a directory, with these flags and this environment.
fn check(place: &Path, flags: &[&str], env: &[(&str, &str)]) -> Ended {
    let mut command = dunlin();
    command.arg("check").args(flags).current_dir(place).envs(env.iter().copied());
    process::run(&mut command)
}

/// The value and the origin of a key in the output of `check`.
fn setting(output: &str, section: &str, name: &str) -> (String, String) {
    let mut lines = output.lines().skip_while(|line| *line != format!("[{section}]"));
    let line = lines.find(|line| line.starts_with(&format!("{name} = ")));
    let (value, origin) =
        line.and_then(|line| line.rsplit_once(" # ")).expect("NAME = VALUE # ORIGIN");
    let value = value.split_once(" = ").expect("NAME = VALUE").1.trim();
    (value.to_owned(), origin.to_owned())
}

#[test]
fn flags_go_before_environment_before_file_before_default() {
    let dir = Dir::new();
    dir.write_config("[server]\nworkers = 2\ntask_workers = 2\nbacklog = 7\n");
    let env = [("DUNLIN_SERVER__WORKERS", "3"), ("DUNLIN_SERVER__TASK_WORKERS", "3")];
    // ./dunlin.toml is found without -c.
    let ended = check(dir.path(), &["-w", "4"], &env);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let of = |name| setting(&ended.stdout, "server", name);
    assert_eq!(of("workers"), ("4".into(), "-w".into()));
    assert_eq!(of("task_workers"), ("3".into(), "DUNLIN_SERVER__TASK_WORKERS".into()));
    assert_eq!(of("backlog"), ("7".into(), "dunlin.toml:4".into()));
    assert_eq!(of("stop_timeout"), ("\"30s\"".into(), "default".into()));
}

#[test]
fn a_server_takes_its_settings_by_the_same_order() {
    let server = Server::configure("[server]\nworkers = 1\n[table]\nmax_sessions = 10\n")
        .env("DUNLIN_SERVER__WORKERS", "2")
        .env("DUNLIN_TABLE__MAX_SESSIONS", "20")
        .args(&["-w", "3"])
        .start();
    let status = server.status();
    assert_eq!((status.workers().len(), status.number("/sessions/capacity")), (3, 20));
    assert!(status.text("/config").ends_with("dunlin.toml"));
}

#[test]
fn variables_without_a_double_underscore_are_not_ours() {
    let dir = Dir::new();
    let env = [("DUNLIN_PORT", "tcp://10.0.0.1"), ("DUNLIN_", ""), ("DUNLIN_SERVICE_HOST", "x")];
    assert_eq!(check(dir.path(), &[], &env).code, Some(0));
    let ended = check(dir.path(), &[], &[("DUNLIN_SERVER__WRKERS", "1")]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("DUNLIN_SERVER__WORKERS"), "{ended:?}");
}

#[test]
fn what_check_prints_is_a_config_file_that_means_the_same() {
    let dir = Dir::new();
    let first = check(dir.path(), &["-w", "3", "--set", "im.login_timeout=3s"], &[]);
    dir.write_config(&first.stdout);
    let second = check(dir.path(), &[], &[]);
    assert_eq!(second.code, Some(0), "{second:?}");
    let values = |text: &str| -> Vec<String> {
        let lines =
            text.lines().map(|line| line.rsplit_once(" # ").map_or(line, |(value, _)| value));
        lines.map(|line| line.trim_end().to_owned()).collect()
    };
    assert_eq!(values(&first.stdout), values(&second.stdout));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let starter = Server::configure("# a comment\n[server]\nworkers = 1\nwrokers = 2\n");
    starter.fails(2, &["dunlin.toml:4", "server.wrokers", "server.workers"]);
    assert!(!starter.dir().run_dir().exists());
    let starter = Server::configure("[zebra]\nstripes = 2\n");
    starter.fails(2, &["dunlin.toml:2", "zebra.stripes", "the nearest known key is"]);
    let starter = Server::configure("").args(&["--set", "backend.secret=abc"]);
    let line = starter.fails(2, &["backend.secret_file"]);
    assert!(!line.contains("auth.secret"), "{line}");
}

#[test]
fn an_error_is_one_line_whatever_stands_in_a_key_or_a_path() {
    let starter = Server::configure("\"a\\nb\" = 1\n");
    let ended = starter.run();
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{ended:?}");
    let ended = process::run(dunlin().args(["serve", "-c", "x\ny"]));
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(2), 1), "{ended:?}");
    assert!(ended.stderr.contains("x\\ny"), "{ended:?}");
}

#[test]
fn wrong_values_are_named_with_key_line_and_what_is_wanted() {
    for (toml, words) in [
        ("[server]\nworkers = \"many\"\n", ["dunlin.toml:2", "server.workers"]),
        ("[server]\nworkers = -1\n", ["dunlin.toml:2", "server.workers"]),
        ("[server]\nworkers = 1025\n", ["dunlin.toml:2", "at most 1024"]),
        ("[table]\nmax_sessions = 0\n", ["dunlin.toml:2", "at least 1"]),
        ("[table]\nmax_sessions = 16777217\n", ["dunlin.toml:2", "at most 16777216"]),
        ("[server]\nstop_timeout = 5\n", ["dunlin.toml:2", "server.stop_timeout"]),
        ("[server]\nstop_timeout = \"5 parsecs\"\n", ["dunlin.toml:2", "server.stop_timeout"]),
        ("[log]\nlevel = \"loud\"\n", ["dunlin.toml:2", "log.level"]),
        ("[table]\nreceive_pool = \"1MiB\"\n", ["receive_pool", "max_message"]),
        ("[server\nworkers = 1\n", ["dunlin.toml:1", ""]),
        ("[server]\nworkers = 1\nworkers = 2\n", ["dunlin.toml:3", ""]),
    ] {
        let starter = Server::configure(toml);
        starter.fails(2, &words);
        assert!(!starter.dir().run_dir().exists(), "{toml}");
    }
}

#[test]
fn wrong_flags_end_with_2_and_nothing_begun() {
    for (flags, words) in [
        (&["--nope"][..], &["--nope"][..]),
        (&["-w", "1025"], &["server.workers", "at most 1024"]),
        (&["-w", "two"], &["server.workers"]),
        (&["--max-sessions", "0"], &["table.max_sessions", "at least 1"]),
        (&["--max-sessions", "16777217"], &["table.max_sessions", "at most 16777216"]),
        (&["--set", "server.workers"], &["KEY=VALUE"]),
        (&["--set", "server.nope=1"], &["server.nope"]),
        (&["--set", "log.level=loud"], &["log.level"]),
    ] {
        let starter = Server::configure("").args(flags);
        let ended = starter.run();
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{flags:?}: {ended:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "{flags:?}: {ended:?}");
        }
        assert!(!starter.dir().run_dir().exists());
    }
}

#[test]
fn a_config_file_that_is_not_there_is_named() {
    let starter = Server::configure("");
    fs::remove_file(starter.dir().config_file()).expect("it was written");
    starter.fails(2, &["cannot read", "dunlin.toml"]);
}

#[test]
fn a_port_in_use_names_the_address_and_who_has_it() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = holder.local_addr().expect("its address").to_string();
    let starter = Server::configure("[server]\nworkers = 2").listen(&address);
    starter.fails(1, &[&address, "in use", &format!("pid {}", std::process::id())]);
    assert!(!starter.dir().run_dir().exists());
    // Another server of the same user would bind the same port without an error.
    let server = Server::start("[server]\nworkers = 2");
    let address = server.address.to_string();
    let starter = Server::configure("[server]\nworkers = 2").listen(&address);
    starter.fails(1, &[&address, "in use", &format!("pid {}", server.pid)]);
    server.client().login("ann");
}

#[test]
fn an_address_that_is_not_ours_is_named() {
    let toml = "[auth]\nallow_open = true\n";
    let starter = Server::configure(toml).listen("192.0.2.1:9502");
    starter.fails(1, &["192.0.2.1:9502"]);
    Server::configure("").listen("nonsense").fails(2, &["nonsense"]);
}

#[test]
fn the_open_mode_is_for_loopback_unless_allowed() {
    let starter = Server::configure("[server]\nworkers = 1").listen("0.0.0.0:0");
    let line = starter.fails(2, &["0.0.0.0:0", "auth.allow_open"]);
    assert!(line.contains("open"), "{line}");
    assert!(!starter.dir().run_dir().exists());
    let starter = Server::configure("[server]\nworkers = 1\n[auth]\nallow_open = true\n");
    let server = starter.listen("0.0.0.0:0").start();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    crate::support::Client::connect(address).login("ann");
}

#[test]
fn a_run_directory_that_cannot_be_trusted_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let starter = Server::configure("");
    let run_dir = starter.dir().run_dir();
    fs::create_dir(&run_dir).expect("a directory");
    fs::set_permissions(&run_dir, fs::Permissions::from_mode(0o755)).expect("its mode");
    starter.fails(1, &["run", "0700"]);
    fs::remove_dir(&run_dir).expect("it is empty still");
    symlink(starter.dir().path(), &run_dir).expect("a link");
    starter.fails(1, &["run"]);
    fs::remove_file(&run_dir).expect("the link");
    fs::write(&run_dir, "a file").expect("a file");
    starter.fails(1, &["run"]);
}

#[test]
fn too_few_descriptors_name_the_number_that_fits_and_it_fits() {
    let toml = "[server]\nworkers = 2\n[http]\nmax_connections = 64\n";
    let starter = Server::configure(toml).after("ulimit -n 300");
    let line = starter.fails(1, &["max_sessions", "300"]);
    assert!(!starter.dir().run_dir().exists());
    let fits = line.split(": ").last().and_then(|rest| rest.split(' ').next());
    let fits: u64 = fits.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    let more = (fits + 1).to_string();
    Server::configure(toml).after("ulimit -n 300").args(&["--max-sessions", &more]).fails(1, &[]);
    let most = fits.to_string();
    let starter = Server::configure(toml).after("ulimit -n 300").args(&["--max-sessions", &most]);
    let server = starter.start();
    let mut clients: Vec<_> = (0..fits).map(|n| server.client().login(&format!("u{n}"))).collect();
    assert_eq!(server.status().connections(), fits);
    assert!(clients[0].sees_online(&format!("u{}", fits - 1)));
}

/// Even where no number fits, the line says what to do.
#[test]
fn a_descriptor_limit_that_fits_nothing_says_how_many_are_needed() {
    let starter = Server::configure("[server]\nworkers = 2\n").after("ulimit -n 300");
    let line = starter.fails(1, &["descriptors"]);
    assert!(line.contains("300"), "the limit it has is not named: {line}");
    assert!(!starter.dir().run_dir().exists());
}

#[test]
fn a_small_dev_shm_is_named_and_nothing_is_left() {
    let may_mount = Command::new("unshare").args(["-m", "true"]).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        eprintln!("not tested: a mount namespace is not permitted here");
        return;
    }
    let starter = Server::configure("[server]\nworkers = 1\n").after(IN_8_MIB);
    starter.fails(1, &["/dev/shm"]);
    assert!(!starter.dir().run_dir().exists());
    // What fits there starts there.
    let toml = "[server]\nworkers = 1\n[im]\nidempotency_entries = 1000\nrate_entries = 1000\n\
                [table]\nmax_sessions = 100\nreceive_pool = \"4MiB\"\n\
                watches = 1000\nlast_seen = 1000\n";
    let server = Server::configure(toml).after(IN_8_MIB).start();
    server.client().login("ann");
}

/// Runs the rest in a mount namespace of its own with a small `/dev/shm`.
const IN_8_MIB: &str = "exec unshare -m sh -c \
    'mount -t tmpfs -o size=8m none /dev/shm && exec \"$0\" \"$@\"' \"$0\" \"$@\"";
