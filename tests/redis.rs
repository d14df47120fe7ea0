//! The online list over several nodes, with a real Redis that is killed, frozen and flushed.

use crate::support::api::Api;
use crate::support::redis::Redis;
use crate::support::server::{Starter, dunlin};
use crate::support::{Client, Server, process, wait};
use serde_json::{Value as Json, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(1);
/// How much later than promised something may be seen on a machine with other things to do.
const SLACK: Duration = Duration::from_secs(2);

fn node(redis: &Redis) -> Server {
    configure(redis, "").start()
}

/// A node of two workers with more lines in `[redis]`.
fn configure(redis: &Redis, more: &str) -> Starter {
    let url = redis.url();
    Server::configure(&format!(
        "[server]\nworkers = 2\n[redis]\nurl = \"{url}\"\nlease = \"1s\"\ntimeout = \"300ms\"\n{more}\n"
    ))
}

fn connected(server: &Server) {
    server.wait_until("Redis is connected", |status| status.0["redis"]["connected"] == true);
}

fn presence(client: &mut Client, user: &str) -> Json {
    client.result("presence", json!({"users": [user]}))
}

/// Waits until a client sees a user online or not, from all nodes; gives how long it took.
fn sees(client: &mut Client, user: &str, online: bool) -> Duration {
    wait::until("a user is seen as he is", || {
        let answer = presence(client, user);
        answer["users"][user]["online"] == online && answer.get("partial").is_none()
    })
}

fn node_id(client: &Client) -> String {
    client.hello["node"].as_str().expect("a node").to_owned()
}

#[test]
fn nodes_see_each_others_users_until_they_go_or_die() {
    let redis = Redis::start();
    let (here, mut there) = (node(&redis), node(&redis));
    let mut bob = here.client().login("bob");
    let mut ann = there.client();
    ann.result(
        "login",
        json!({"user": "ann", "device": {"id": "p1", "model": "Pixel", "kind": "phone"}}),
    );
    sees(&mut bob, "ann", true);
    let device = &presence(&mut bob, "ann")["users"]["ann"]["devices"][0];
    assert_eq!(
        (&device["id"], &device["model"], &device["kind"]),
        (&json!("p1"), &json!("Pixel"), &json!("phone"))
    );
    sees(&mut ann, "bob", true);
    // The HTTP API answers over all nodes as well.
    let asked = Api::of(&here).read("/api/presence?user=ann&user=bob&user=nobody");
    let online = |user: &str| asked["users"][user]["online"].clone();
    assert_eq!(
        [online("ann"), online("bob"), online("nobody")],
        [json!(true), json!(true), json!(false)]
    );
    assert_eq!(asked["users"]["ann"]["devices"][0]["model"], "Pixel", "{asked}");
    // Who is on both nodes has the devices of both.
    let ann_here = here.client().login("ann");
    wait::until("both devices", || {
        presence(&mut ann, "ann")["users"]["ann"]["devices"].as_array().map(Vec::len) == Some(2)
    });
    drop(ann_here);
    ann.result("logout", json!({}));
    sees(&mut bob, "ann", false);
    wait::until("her key is gone", || !redis.has("dunlin:user:ann"));

    ann.log_in("ann", "p1");
    sees(&mut bob, "ann", true);
    there.signal("KILL");
    there.wait_end();
    let took = sees(&mut bob, "ann", false);
    assert!(took < LEASE + SLACK, "a dead node was believed for {took:?}");
    wait::until("whoever saw it has removed it", || {
        presence(&mut bob, "ann");
        !redis.has("dunlin:user:ann")
    });
    assert!(here.status().number("/redis/buried") >= 1);
}

#[test]
fn a_node_that_stops_takes_itself_off_the_list() {
    let redis = Redis::start();
    let (here, mut there) = (node(&redis), node(&redis));
    let mut bob = here.client().login("bob");
    let anns: Vec<Client> = (0..20).map(|n| there.client().login(&format!("ann{n}"))).collect();
    sees(&mut bob, "ann19", true);
    let id = node_id(&anns[0]);
    there.signal("TERM");
    assert!(there.wait_end().success());
    assert_eq!(redis.call(&["KEYS", &format!("dunlin:node:{id}*")]), "");
    assert_eq!(redis.call(&["KEYS", "dunlin:user:ann*"]), "");
    assert_eq!(presence(&mut bob, "ann3")["users"]["ann3"]["online"], false);
    assert!(redis.has("dunlin:user:bob"));
}

#[test]
fn every_key_goes_by_itself_if_nobody_is_left() {
    let redis = Redis::start();
    let server = configure(&redis, "prefix = \"mine:\"").start();
    let ann = server.client().login("ann");
    let id = node_id(&ann);
    wait::until("she is listed", || redis.has("mine:user:ann"));
    wait::until("all keys have a time to live", || {
        let keys = redis.call(&["KEYS", "*"]);
        let keys: Vec<&str> = keys.lines().collect();
        assert!(keys.iter().all(|key| key.starts_with("mine:")), "{keys:?}");
        let ttl = |key: &&str| redis.call(&["PTTL", key]).parse::<i64>().unwrap_or(0) > 0;
        keys.len() == 3 && keys.iter().all(ttl)
    });
    let ttl: u64 = redis.call(&["PTTL", &format!("mine:node:{id}")]).parse().expect("a number");
    assert!(ttl <= 1_000, "{ttl}");
    let entry: Json =
        serde_json::from_str(&redis.call(&["HGET", "mine:user:ann", &id])).expect("JSON");
    assert_eq!(entry[0]["device"], "ann-device");
    assert_eq!(redis.call(&["SMEMBERS", &format!("mine:node:{id}:users")]), "ann");
}

#[test]
fn while_redis_is_away_this_node_goes_on_and_the_list_is_right_soon_after() {
    let mut redis = Redis::start();
    let (here, there) = (node(&redis), node(&redis));
    let mut bob = here.client().login("bob");
    let mut ann = there.client().login("ann");
    let mut gone = there.client().login("gone");
    sees(&mut bob, "ann", true);
    sees(&mut bob, "gone", true);
    redis.kill();
    let status = here.wait_until("the status says so", |status| {
        status.0["redis"]["connected"] == false && status.0["redis"]["last_error"].is_string()
    });
    assert_eq!(status.0["redis"]["configured"], true);
    let answer = presence(&mut bob, "ann");
    assert_eq!(
        (&answer["partial"], &answer["users"]["ann"]["online"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(presence(&mut bob, "bob")["users"]["bob"]["online"], true);
    // Meanwhile one goes and another comes.
    gone.result("logout", json!({}));
    let mut carl = there.client().login("carl");
    assert_eq!(ann.send_to("carl", &json!("hello"))["sessions"], 1);
    assert_eq!(carl.message_body(), "hello");
    redis.start_again();
    let began = Instant::now();
    for (user, online) in [("ann", true), ("carl", true), ("gone", false)] {
        sees(&mut bob, user, online);
    }
    assert!(began.elapsed() < LEASE + SLACK, "right again after {:?}", began.elapsed());
    connected(&here);
}

#[test]
fn a_frozen_redis_keeps_nobody_waiting_and_is_not_believed_afterwards() {
    let redis = Redis::start();
    let (here, there) = (node(&redis), node(&redis));
    let mut bob = here.client().login("bob");
    let mut carl = here.client_apart_from(&mut [&mut bob]).login("carl");
    let mut ann = there.client().login("ann");
    sees(&mut bob, "ann", true);
    redis.freeze();
    // The first question waits for what one call may take, and is answered from here.
    let began = Instant::now();
    let answer = presence(&mut bob, "ann");
    assert_eq!(answer["partial"], true);
    assert!(began.elapsed() < Duration::from_millis(300) + SLACK, "{:?}", began.elapsed());
    let mut slowest = Duration::ZERO;
    for n in 0..200 {
        let began = Instant::now();
        assert_eq!(bob.send_to("carl", &json!(n))["sessions"], 1);
        assert_eq!(carl.message_body(), n);
        slowest = slowest.max(began.elapsed());
        if n % 20 == 0 {
            let mut coming = there.client().login(&format!("came{n}"));
            coming.result("ping", json!({}));
        }
    }
    assert!(slowest < Duration::from_millis(250), "a message waited {slowest:?}");
    ann.result("logout", json!({}));
    let _dora = there.client().login("dora");
    here.wait_until("the status says so", |status| status.0["redis"]["connected"] == false);
    // Connections are taken by the kernel: that is no sign of life.
    let made = here.status().number("/redis/connections_made");
    wait::holds_for("Redis is away, and nobody waits for it", LEASE, || {
        let began = Instant::now();
        let partial = presence(&mut bob, "ann")["partial"] == true;
        partial && began.elapsed() < Duration::from_millis(250)
    });
    assert_eq!(here.status().number("/redis/connections_made"), made);
    redis.thaw();
    let began = Instant::now();
    for (user, online) in [("dora", true), ("ann", false), ("came0", false), ("came180", false)] {
        sees(&mut bob, user, online);
    }
    assert!(began.elapsed() < LEASE + SLACK, "right again after {:?}", began.elapsed());
}

#[test]
fn a_flushed_redis_has_the_list_again_within_a_lease() {
    let redis = Redis::start();
    let (here, there) = (node(&redis), node(&redis));
    let mut bob = here.client().login("bob");
    let mut many: Vec<Client> = (0..30).map(|n| there.client().login(&format!("u{n}"))).collect();
    sees(&mut bob, "u29", true);
    for round in 0..3 {
        redis.call(&["FLUSHALL"]);
        // Under load: half of them come and go.
        for client in &mut many[..15] {
            client.result("logout", json!({}));
        }
        many[round].log_in(&format!("new{round}"), "d");
        let began = Instant::now();
        for (user, online) in [("u29", true), (&*format!("new{round}"), true), ("u14", false)] {
            sees(&mut bob, user, online);
        }
        assert!(began.elapsed() < LEASE + SLACK, "right again after {:?}", began.elapsed());
        many[round].result("logout", json!({}));
        for (n, client) in many[..15].iter_mut().enumerate() {
            client.log_in(&format!("u{n}"), "d");
        }
        sees(&mut bob, "u14", true);
    }
}

#[test]
fn killed_workers_and_task_processes_leave_the_list_right() {
    let redis = Redis::start();
    let (here, there) = (node(&redis), node(&redis));
    let mut bob = here.client().login("bob");
    let mut ann = there.client().login("ann");
    let mut anna = there.client_apart_from(&mut [&mut ann]).login("anna");
    sees(&mut bob, "anna", true);
    there.kill_worker_of(&mut ann);
    let task = there.status().0["tasks"][0]["pid"].as_i64().expect("a pid");
    process::signal("KILL", task);
    there.wait_until("all are back", |status| {
        status.ready_workers() == 2 && status.0["tasks"][0]["state"] == "running"
    });
    anna.result("logout", json!({}));
    sees(&mut bob, "anna", false);
    let mut dora = there.client().login("dora");
    sees(&mut bob, "dora", true);
    // Ann's connection went with her worker, or was taken over by the next one.
    let is_there = ann.call_or_end("ping", json!({})).is_some();
    sees(&mut bob, "ann", is_there);
    dora.result("ping", json!({}));
}

#[test]
fn a_reload_takes_over_another_redis_and_none() {
    let (first, second) = (Redis::start(), Redis::start());
    let server = node(&first);
    let mut ann = server.client().login("ann");
    wait::until("she is on the first", || first.has("dunlin:user:ann"));
    let config = fs::read_to_string(server.dir().config_file()).expect("the config");
    server.dir().write_config(&config.replace(&first.url(), &second.url()));
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    wait::until("she is on the second", || second.has("dunlin:user:ann"));
    server.dir().write_config(&config.replace(&first.url(), ""));
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    let status = server.status();
    assert_eq!(status.0["redis"]["configured"], false);
    assert_eq!(status.0["redis"]["connected"], false);
    let id = node_id(&ann);
    wait::until("the lease runs out", || !second.has(&format!("dunlin:node:{id}")));
    let answer = presence(&mut ann, "ann");
    assert!(answer["users"]["ann"]["online"] == true && answer.get("partial").is_none());
    // What is left is the deadline of Ann's session.
    wait::until("its timers are gone", || server.status().number("/timer/armed") == 1);
}

#[test]
fn the_password_comes_from_its_file_and_is_shown_nowhere() {
    let redis = Redis::with_password("hush-hush");
    let server = node(&redis);
    let status = server
        .wait_until("Redis wants a password", |status| status.0["redis"]["last_error"].is_string());
    let error = status.text("/redis/last_error");
    assert!(error.contains("NOAUTH") || error.contains("uthentication"), "{error}");
    let path = server.dir().path().join("redis.password");
    let write = |password: &str, mode| {
        fs::write(&path, password).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    };
    write("wrong-one\n", 0o600);
    let config = fs::read_to_string(server.dir().config_file()).expect("the config");
    server.dir().write_config(&format!("{config}password_file = \"{}\"\n", path.display()));
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    server.wait_until("the wrong password is refused", |status| {
        status.text("/redis/last_error").contains("WRONGPASS")
            || status.text("/redis/last_error").contains("uthentication failed")
    });
    write("hush-hush\n", 0o604);
    assert_eq!(server.verb(&["reload"]).code, Some(1), "everybody can read it");
    write("hush-hush\n", 0o600);
    assert_eq!(server.verb(&["reload"]).code, Some(0));
    connected(&server);
    let _ann = server.client().login("ann");
    wait::until("she is listed", || redis.has("dunlin:user:ann"));
    let shown = format!("{} {}", server.status().0, server.dir().log());
    assert!(!shown.contains("hush-hush") && !shown.contains("wrong-one"));
}

#[test]
fn a_password_on_the_command_line_or_in_the_url_is_refused() {
    let redis = |words: &[&str]| Server::configure("").args(words);
    let line = redis(&["--set", "redis.password=hush"]).fails(2, &["redis.password_file"]);
    assert!(!line.contains("hush"));
    let line = redis(&["--set", "redis.url=redis://:hush@h"]).fails(2, &["redis.password_file"]);
    assert!(!line.contains("hush"));
    redis(&["--set", "redis.url=rediss://h"]).fails(2, &["TLS"]);
    redis(&["--set", "redis.url=redis://h", "-t", "0"]).fails(2, &["task process"]);
    let mut check = dunlin();
    check.arg("check").env("DUNLIN_REDIS__PASSWORD", "hush");
    let ended = process::run(check.current_dir(std::env::temp_dir()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("***") && !ended.stdout.contains("hush"), "{}", ended.stdout);
}
