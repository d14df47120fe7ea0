//! What a service manager (systemd, `Type=notify-reload`) hears from the server, by its own protocol.

use crate::support::{Server, wait};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

const TOML: &str = "[server]\nworkers = 2\ntask_workers = 1";

/// The next word, as its lines.
fn hear(manager: &UnixDatagram) -> Vec<String> {
    let mut datagram = [0; 4_096];
    let length = manager.recv(&mut datagram).expect("a word in time");
    let text = String::from_utf8(datagram[..length].to_vec()).expect("words are text");
    text.lines().map(str::to_owned).collect()
}

fn expect(manager: &UnixDatagram, state: &str, status: &str) -> Vec<String> {
    let word = hear(manager);
    assert_eq!(word[0], state, "{word:?}");
    let told = word.last().and_then(|line| line.strip_prefix("STATUS="));
    assert!(told.is_some_and(|told| told.contains(status)), "{word:?}");
    word
}

#[test]
fn a_service_manager_hears_of_start_reload_upgrade_and_stop() {
    let starter = Server::configure(TOML);
    let path = starter.dir().path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket of the test's own");
    manager.set_read_timeout(Some(wait::DEADLINE)).expect("a time that is not 0");
    let mut server = starter.env("NOTIFY_SOCKET", path.to_str().expect("a path of ours")).start();
    let ready = expect(&manager, "READY=1", "dunlin ready on 127.0.0.1:");
    assert_eq!(ready.len(), 2, "no pid of another process is named: {ready:?}");

    let mut earlier = 0_u64;
    for _ in 0..2 {
        server.signal("HUP");
        let reloading = expect(&manager, "RELOADING=1", "reloading");
        let at = reloading[1].strip_prefix("MONOTONIC_USEC=").map(str::parse);
        let Some(Ok(at)) = at else { panic!("{reloading:?}") };
        assert!(at > earlier, "which reload it is");
        earlier = at;
        expect(&manager, "READY=1", "reloaded at ");
    }
    // A reload that is refused is over, too: else the manager would wait for it.
    server.dir().write_config("[server]\nworkerz = 2");
    server.signal("HUP");
    expect(&manager, "RELOADING=1", "reloading");
    expect(&manager, "READY=1", "the last reload failed: ");
    server.dir().write_config(TOML);
    // Neither the rehearsal nor the program that follows starts or stops a service: only the line for people
    // tells, which is all that is seen of one that was asked for by a signal.
    let upgraded = server.verb(&["upgrade"]);
    assert_eq!(upgraded.code, Some(0), "{upgraded:?}");
    let word = hear(&manager);
    assert!(matches!(&word[..], [status] if status.starts_with("STATUS=upgraded at ")), "{word:?}");
    assert_eq!(server.verb(&["upgrade", "/dev/null"]).code, Some(1));
    let word = hear(&manager);
    let refused = "STATUS=the last upgrade failed: /dev/null: it is no file";
    assert!(matches!(&word[..], [status] if status.starts_with(refused)), "{word:?}");
    server.signal("TERM");
    expect(&manager, "STOPPING=1", "stopping");
    assert_eq!(server.wait_end().code(), Some(0));
}

#[test]
fn a_service_manager_that_is_gone_is_no_matter() {
    let starter = Server::configure(TOML);
    let path = starter.dir().path().join("nobody");
    let mut server = starter.env("NOTIFY_SOCKET", path.to_str().expect("a path of ours")).start();
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    server.signal("TERM");
    assert_eq!(server.wait_end().code(), Some(0));
    assert!(server.dir().log().contains("the service manager was not told"));
}

/// Else `journalctl -p warning` has nothing of the server.
#[test]
fn the_journal_is_told_the_level_of_each_line() {
    let worker_dies = |journal: &dyn Fn(&Metadata) -> String| {
        let starter = Server::configure(TOML);
        let log = starter.dir().log_file();
        let journal =
            journal(&File::create(&log).and_then(|file| file.metadata()).expect("a file"));
        let server = starter.env("JOURNAL_STREAM", &journal).start();
        server.kill_worker_of(&mut server.client());
        wait::until("the death is logged", || server.dir().log().contains(" died "));
        server.dir().log()
    };
    let told = worker_dies(&|log| format!("{}:{}", log.dev(), log.ino()));
    for line in told.lines() {
        let (mark, rest) = line.split_at(3);
        let level = rest.split_whitespace().nth(1);
        assert!(matches!((mark, level), ("<6>", Some("INFO")) | ("<4>", Some("WARN"))), "{line}");
    }
    assert!(told.contains("<4>"), "{told}");
    // The variable alone says nothing: a server that a service starts may log elsewhere.
    let told = worker_dies(&|log| format!("{}:{}", log.dev(), log.ino() + 1));
    assert!(told.lines().all(|line| line.starts_with("20")), "{told}");
}
