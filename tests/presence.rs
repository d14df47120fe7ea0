//! Watching users over two workers: what is told when they come and go, and when processes die.

use crate::im::upgrade_request;
use crate::support::server::A_WHILE;
use crate::support::{Client, Server, process, raw, wait};
use serde_json::{Value as Json, json};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Debounced by nothing.
const AT_ONCE: &str = "[server]\nworkers = 2\n[im]\npresence_debounce = \"0s\"";

/// Has a client watch a user; gives what it is told of him now.
fn watch(client: &mut Client, user: &str) -> Json {
    client.result("watch", json!({"users": [user]}))["users"][user].take()
}

/// The next news a client is told: of whom, and whether he is online.
fn next(client: &mut Client) -> (String, bool) {
    let news = client.notification("presence");
    let online = news["online"].as_bool().expect("true or false");
    assert_eq!(online, news["devices"] != json!([]), "{news}");
    (news["user"].as_str().expect("a name").to_owned(), online)
}

fn online(user: &str) -> (String, bool) {
    (user.to_owned(), true)
}

fn offline(user: &str) -> (String, bool) {
    (user.to_owned(), false)
}

#[test]
fn a_watcher_on_another_worker_is_told_who_comes_and_goes() {
    let server = Server::start(AT_ONCE);
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]);
    let at_first = watch(&mut ann, "bob");
    assert_eq!((&at_first["online"], &at_first["last_seen"]), (&json!(false), &Json::Null));
    bob.log_in("bob", "phone");
    let news = ann.notification("presence");
    assert_eq!((&news["user"], &news["devices"][0]["id"]), (&json!("bob"), &json!("phone")));
    assert!(news["version"].as_u64() > at_first["version"].as_u64(), "{at_first} {news}");
    bob.result("logout", json!({}));
    let gone = ann.notification("presence");
    assert_eq!(gone["online"], false);
    assert!(gone["version"].as_u64() > news["version"].as_u64());
    let last_seen = gone["last_seen"].as_u64().expect("when he went");
    let time = ann.result("ping", json!({}))["time"].as_u64().expect("a time");
    assert!(last_seen <= time && time - last_seen < 60_000, "{last_seen} {time}");

    ann.result("unwatch", json!({"users": ["bob"]}));
    bob.log_in("bob", "phone");
    assert_eq!(ann.unread(), 0);
    let status = server.status();
    assert_eq!(status.number("/presence/watches"), 0);
    assert_eq!(status.number("/presence/told"), 2);
}

#[test]
fn a_short_reconnect_is_not_told_and_a_long_absence_is_in_time() {
    const DEBOUNCE: Duration = Duration::from_millis(1_500);
    let toml = AT_ONCE.replace("\"0s\"", "\"1500ms\"");
    let server = Server::start(&toml);
    let mut ann = server.client().login("ann");
    let mut bob = server.client().login("bob");
    watch(&mut ann, "bob");
    for _ in 0..3 {
        drop(bob);
        wait::until("bob is offline for who asks", || {
            !server.client().login("zoe").sees_online("bob")
        });
        bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    }
    assert_eq!(ann.unread(), 0);
    let went = Instant::now();
    bob.close();
    assert_eq!(next(&mut ann), offline("bob"));
    let late = went.elapsed().checked_sub(DEBOUNCE).expect("not before its time");
    println!("told {late:?} after the debounce");
    assert!(late < Duration::from_millis(500), "{late:?}");
    // A reload changes it, and takes no watch away.
    server.dir().write_config(&toml.replace("1500ms", "0s"));
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    let bob = server.client().login("bob");
    assert_eq!(next(&mut ann), online("bob"));
    let went = Instant::now();
    drop(bob);
    assert_eq!(next(&mut ann), offline("bob"));
    assert!(went.elapsed() < DEBOUNCE);
}

#[test]
fn watches_survive_reloads_kills_and_moves_of_watcher_and_watched() {
    let server = Server::start(&AT_ONCE.replace("workers = 2", "workers = 2\nbalance_above = 0"));
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    watch(&mut ann, "bob");
    let mut come_and_go = |ann: &mut Client| {
        // A successor that is not sure of what its predecessor told tells it again.
        bob.result("logout", json!({}));
        while next(ann) != offline("bob") {}
        bob.log_in("bob", "phone");
        while next(ann) != online("bob") {}
    };
    come_and_go(&mut ann);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    come_and_go(&mut ann);
    for slot in 0..2 {
        let before = server.status();
        process::signal("KILL", before.worker_pid(slot));
        come_and_go(&mut ann);
        server.wait_until("another worker", |status| {
            status.ready_workers() == 2 && status.worker_pid(slot) != before.worker_pid(slot)
        });
    }
    let slot = server.worker_of(&mut ann).to_string();
    assert_eq!(server.verb(&["drain", &slot]).code, Some(0));
    come_and_go(&mut ann);
    let status = server.status();
    assert_eq!((status.number("/presence/watches"), status.number("/presence/untold")), (1, 0));
    assert_eq!(ann.result("unwatch", json!({"users": ["bob"]}))["users"]["bob"]["online"], true);
    server.wait_until("no watch is left", |status| status.number("/presence/watches") == 0);
}

/// From the kill to the news: who was being served by the dead is offline, and his watchers know.
#[test]
fn watchers_know_within_100_ms_of_a_kill() {
    const LIMIT: Duration = Duration::from_millis(100);
    let mut times: Vec<Duration> = (0..5).map(|_| until_told_after_a_kill()).collect();
    times.sort();
    println!("told after a kill: median {:?}, longest {:?}", times[2], times[4]);
    // The median, since the machine may be busy with other tests.
    assert!(times[2] < LIMIT, "{times:?}");
}

fn until_told_after_a_kill() -> Duration {
    let server = Server::start(AT_ONCE);
    let mut ann = server.client().login("ann");
    watch(&mut ann, "bob");
    let mut bob = TcpStream::connect(server.address).expect("a connection");
    let login = br#"{"id":1,"method":"login","params":{"user":"bob","device":{"id":"d"}}}"#;
    bob.write_all(upgrade_request("/ws").as_bytes()).expect("the upgrade is sent");
    bob.write_all(&raw::frame(raw::TEXT, login)).expect("the login is sent");
    assert_eq!(next(&mut ann), online("bob"));
    // He reads nothing, so that his worker has him in hand when it dies.
    let unsent = |slot: usize| server.status().number(&format!("/workers/{slot}/unsent_bytes")) > 0;
    let slot = wait::for_some("output waits", || {
        ann.send_to("bob", &json!("x".repeat(60_000)));
        (0..2).find(|slot| unsent(*slot))
    });
    let pid = server.status().worker_pid(slot);
    let killed = Instant::now();
    process::signal("KILL", pid);
    assert_eq!(next(&mut ann), offline("bob"));
    let took = killed.elapsed();
    assert!(!ann.sees_online("bob"));
    took
}

#[test]
fn a_client_that_goes_away_with_its_worker_is_told_soon() {
    let server = Server::start(AT_ONCE);
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    watch(&mut ann, "bob");
    let pid = server.status().worker_pid(server.worker_of(&mut bob));
    process::signal("STOP", pid);
    drop(bob);
    process::signal("KILL", pid);
    let killed = Instant::now();
    assert_eq!(next(&mut ann), offline("bob"));
    println!("told {:?} after the kill", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
}

#[test]
fn a_debounce_outlives_worker_and_timer_process() {
    let server = Server::start(&AT_ONCE.replace("\"0s\"", "\"700ms\""));
    let mut ann = server.client().login("ann");
    let mut bob = server.client_apart_from(&mut [&mut ann]).login("bob");
    watch(&mut ann, "bob");
    let slot = server.worker_of(&mut bob);
    let went = Instant::now();
    bob.close();
    server.wait_until("he is gone", |status| status.number("/sessions/logged_in") == 1);
    let status = server.status();
    process::signal("KILL", status.worker_pid(slot));
    process::signal("KILL", status.number("/timer/pid").cast_signed());
    assert_eq!(next(&mut ann), offline("bob"));
    let took = went.elapsed();
    println!("told {took:?} after he went");
    assert!(took >= Duration::from_millis(680) && took < Duration::from_millis(2_000), "{took:?}");
}

#[test]
fn a_thousand_watchers_are_told_of_one_and_of_his_end() {
    const WATCHERS: usize = 1_000;
    let server = Server::start(AT_ONCE);
    let mut watchers: Vec<Client> =
        (0..WATCHERS).map(|number| server.client().login(&format!("w{number}"))).collect();
    for watcher in &mut watchers {
        watch(watcher, "star");
    }
    assert_eq!(server.status().number("/presence/watches"), WATCHERS as u64);
    let began = Instant::now();
    let star = server.client().login("star");
    for watcher in &mut watchers {
        assert_eq!(next(watcher), online("star"));
    }
    println!("{WATCHERS} were told in {:?}", began.elapsed());
    star.close();
    for watcher in &mut watchers {
        assert_eq!(next(watcher), offline("star"));
    }
    assert_eq!(server.status().number("/presence/told"), 2 * WATCHERS as u64);
    drop(watchers);
    server.wait_until("no watch is left", |status| status.number("/presence/watches") == 0);
}

#[test]
fn full_tables_and_limits_are_told_and_counted() {
    let limits = "\nmax_watches = 3\n[table]\nwatches = 4\nlast_seen = 8";
    let server = Server::start(&format!("{AT_ONCE}{limits}"));
    let (mut ann, mut bob) = (server.client().login("ann"), server.client().login("bob"));
    let users = |users: &[&str]| json!({ "users": users });
    assert_eq!(
        ann.error("watch", users(&["a", "b", "c", "d"])),
        (-32003, "too_many_watches".into())
    );
    ann.result("watch", users(&["a", "b", "c"]));
    assert_eq!(bob.error("watch", users(&["a", "b"])), (-32007, "table_full".into()));
    bob.result("watch", users(&["a"]));
    let status = server.status();
    let number = |name: &str| status.number(&format!("/presence/{name}"));
    assert_eq!((number("watches"), number("watches_capacity")), (4, 4));
    assert_eq!((number("watches_refused"), number("last_seen_capacity")), (1, 8));
    let _a = server.client().login("a");
    assert_eq!((next(&mut ann), next(&mut bob)), (online("a"), online("a")));
    // What dies with its session is there for others.
    ann.close();
    wait::until("there is room", || bob.call("watch", users(&["b", "c"])).is_ok());
    let _b = server.client().login("b");
    assert_eq!(next(&mut bob), online("b"));
}

#[test]
fn a_server_that_stops_says_bye_and_no_more() {
    let mut server = Server::start(AT_ONCE);
    let mut ann = server.client().login("ann");
    let _bob = server.client().login("bob");
    watch(&mut ann, "bob");
    server.signal("TERM");
    let mut said = Vec::new();
    let (code, _) = ann.until_close(|object| said.push(object.clone()));
    assert_eq!((code, said), (1001, Vec::new()));
    assert!(server.wait_end().success());
}

#[test]
fn without_a_timer_left_nothing_is_kept_back() {
    let toml =
        AT_ONCE.replace("\"0s\"", "\"1h\"").replace("workers = 2", "workers = 1\nmax_timers = 1");
    let server = Server::start(&toml);
    let mut ann = server.client().login("ann");
    let (bob, zoe) = (server.client().login("bob"), server.client().login("zoe"));
    ann.result("watch", json!({"users": ["bob", "zoe"]}));
    bob.close();
    server.wait_until("he is gone", |status| status.number("/sessions/logged_in") == 2);
    wait::holds_for("it waits for him", A_WHILE, || ann.unread() == 0);
    zoe.close();
    assert_eq!(next(&mut ann), offline("zoe"));
    assert_eq!(server.status().number("/presence/without_timer"), 1);
}
