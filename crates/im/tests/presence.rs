//! `watch`, `unwatch`, and what watchers are told: by hooks of several workers that share memory.

use crate::support::town::{Town, devices};
use crate::support::{request, small_settings};
use dunlin_im::ImApp;
use dunlin_server::simulation::Deed;
use dunlin_server::{App, ClosedBy, Message};
use serde_json::json;
use std::sync::Barrier;

fn told(user: &str, devices: &[&str]) -> (String, Vec<String>) {
    (user.to_owned(), devices.iter().map(|device| (*device).to_owned()).collect())
}

#[test]
fn a_watcher_is_told_of_comings_goings_and_devices_on_any_worker() {
    let mut town = Town::new(2, &[("im.presence_debounce", "3s")]);
    let ann = town.login(0, "ann", "desk");
    let states = town.ask(ann, "watch", &["bob", "ann"]);
    assert_eq!((&states["bob"]["online"], &states["ann"]["online"]), (&json!(false), &json!(true)));
    assert!(states["bob"]["version"].as_u64() < states["ann"]["version"].as_u64());

    let phone = town.login(1, "bob", "phone");
    let news = town.news(ann);
    assert_eq!(news.len(), 1, "{news:?}");
    assert_eq!((&news[0]["user"], devices(&news[0])), (&json!("bob"), vec!["phone".to_owned()]));
    assert!(news[0]["version"].as_u64() > states["bob"]["version"].as_u64());
    assert_eq!(news[0]["last_seen"], json!(null));
    assert!(news[0]["devices"][0]["last_active"].is_u64());

    let desk = town.login(0, "bob", "desk");
    town.close(phone, ClosedBy::Client);
    assert_eq!(town.told(ann), [told("bob", &["desk", "phone"]), told("bob", &["desk"])]);
    town.close(desk, ClosedBy::Client);
    town.pass(2_999);
    assert!(town.told(ann).is_empty(), "he may come back");
    town.pass(1);
    let news = town.news(ann);
    assert_eq!((news.len(), &news[0]["online"]), (1, &json!(false)));
    assert_eq!(
        news[0]["last_seen"],
        json!(1_800_000_000_001_u64),
        "when he went, not when it was told"
    );
    assert_eq!(town.timers(), 0);

    town.ask(ann, "unwatch", &["bob", "zoe"]);
    town.login(1, "bob", "phone");
    assert!(town.told(ann).is_empty());
    assert_eq!((town.status("watches"), town.status("told")), (1, 4));
}

#[test]
fn who_comes_back_within_the_debounce_is_not_told_at_all() {
    let mut town = Town::new(2, &[("im.presence_debounce", "3s")]);
    let ann = town.login(0, "ann", "desk");
    let mut phone = town.login(1, "bob", "phone");
    town.ask(ann, "watch", &["bob"]);
    for round in 0..3 {
        town.close(phone, ClosedBy::Client);
        assert_eq!(town.ask(ann, "presence", &["zoe"])["zoe"]["online"], false);
        town.pass(2_000);
        phone = town.login(round % 2, "bob", "phone");
        town.pass(500);
        assert!(town.told(ann).is_empty());
    }
    // Each time a time of its own: the timers of earlier goings tell nothing.
    town.close(phone, ClosedBy::Client);
    town.pass(2_999);
    assert!(town.told(ann).is_empty());
    town.pass(1);
    assert_eq!(town.told(ann), [told("bob", &[])]);
    assert_eq!(town.timers(), 0);
    // With another device he is told when he comes.
    let phone = town.login(0, "bob", "phone");
    town.close(phone, ClosedBy::Client);
    town.login(0, "bob", "tablet");
    town.pass(5_000);
    assert_eq!(town.told(ann), [told("bob", &["phone"]), told("bob", &["tablet"])]);
}

/// The answer to a question is news, too: what was told by it counts.
#[test]
fn a_query_is_not_debounced_and_counts_as_told() {
    let mut town = Town::new(1, &[]);
    let ann = town.login(0, "ann", "desk");
    let phone = town.login(0, "bob", "phone");
    town.ask(ann, "watch", &["bob"]);
    town.close(phone, ClosedBy::Client);
    let gone = town.ask(ann, "presence", &["bob"])["bob"].clone();
    assert_eq!(
        (&gone["online"], &gone["last_seen"]),
        (&json!(false), &json!(1_800_000_000_001_u64))
    );
    town.pass(5_000);
    assert!(town.told(ann).is_empty(), "she knows");
    town.login(0, "bob", "phone");
    assert_eq!(town.told(ann), [told("bob", &["phone"])]);
    // The same for a second `watch` of him, and for `unwatch`, which ends it.
    let zoe = town.login(0, "zoe", "desk");
    town.ask(zoe, "watch", &["bob"]);
    assert_eq!(town.ask(zoe, "watch", &["bob"])["bob"]["online"], true);
    assert_eq!(town.ask(zoe, "unwatch", &["bob"])["bob"]["online"], true);
    assert_eq!(town.status("watches"), 1);
}

#[test]
fn without_a_debounce_everything_is_told_at_once() {
    let mut town = Town::new(2, &[("im.presence_debounce", "0s")]);
    let ann = town.login(0, "ann", "desk");
    town.ask(ann, "watch", &["bob"]);
    let phone = town.login(1, "bob", "phone");
    town.close(phone, ClosedBy::Client);
    let phone = town.login(1, "bob", "phone");
    town.call(phone, "logout", json!({}));
    town.call(phone, "login", json!({"user": "bob", "device": {"id": "p2", "model": "M"}}));
    let all = [&["phone"][..], &[], &["phone"], &[], &["p2"]].map(|devices| told("bob", devices));
    assert_eq!(town.told(ann), all);
    assert_eq!(town.timers(), 0);
}

#[test]
fn a_dead_client_is_told_when_its_heartbeat_is_over_not_when_its_transport_is() {
    let mut town = Town::new(1, &[("im.presence_debounce", "0s"), ("im.heartbeat", "60s")]);
    let ann = town.login(0, "ann", "desk");
    let bob = town.login(0, "bob", "phone");
    town.ask(ann, "watch", &["bob"]);
    town.pass(30_000);
    town.call(ann, "ping", json!({}));
    town.pass(30_000);
    let (app, worker) = &mut town.workers[0];
    assert!(worker.expire(app, bob) && !worker.expire(app, ann));
    town.collect(None);
    assert_eq!(town.told(ann), [told("bob", &[])]);
    assert_eq!(town.closed, [(bob, 4002)]);
    town.close(bob, ClosedBy::Server);
    assert!(town.told(ann).is_empty());
}

#[test]
fn a_watch_ends_with_the_login() {
    let mut town = Town::new(1, &[("im.presence_debounce", "0s")]);
    let ann = town.login(0, "ann", "desk");
    town.ask(ann, "watch", &["bob", "zoe"]);
    town.call(ann, "logout", json!({}));
    assert_eq!(town.status("watches"), 0);
    town.call(ann, "login", json!({"user": "ann", "device": {"id": "desk"}}));
    let bob = town.login(0, "bob", "phone");
    assert!(town.told(ann).is_empty());
    town.ask(ann, "watch", &["bob", "zoe"]);
    town.close(ann, ClosedBy::Client);
    assert_eq!(town.status("watches"), 0);
    // Nor has whoever is in the row now a part in it.
    let next = town.login(0, "ann", "desk");
    assert_eq!(next.row().index, ann.row().index);
    town.close(bob, ClosedBy::Client);
    assert!(town.told(next).is_empty());
    // Before the login there is nothing to watch with.
    let stranger = town.open(0);
    let users = json!({"users": ["bob"]});
    assert_eq!(town.refused(stranger, "watch", users).0, -32000);
}

#[test]
fn limits_are_reached_and_nothing_is_half_done() {
    let words = [("im.max_watches", "3"), ("table.watches", "5"), ("im.presence_debounce", "0s")];
    let mut town = Town::new(1, &words);
    let ann = town.login(0, "ann", "desk");
    let too_many = (-32003, "too_many_watches".to_owned());
    let users = |users: &[&str]| json!({ "users": users });
    assert_eq!(town.refused(ann, "watch", users(&["a", "b", "c", "d"])), too_many);
    assert_eq!(town.status("watches"), 0);
    town.ask(ann, "watch", &["a", "b", "c"]);
    town.ask(ann, "watch", &["a", "b", "c"]);
    assert_eq!(town.refused(ann, "watch", users(&["a", "d"])), too_many);
    assert_eq!(town.refused(ann, "watch", json!({"users": "a"})).0, -32602);
    assert_eq!(town.refused(ann, "unwatch", json!({})).0, -32602);

    let bob = town.login(0, "bob", "desk");
    let answer = town.call(bob, "watch", users(&["d", "e", "f"]));
    assert_eq!(answer["error"]["code"], -32007, "{answer}");
    assert_eq!(answer["error"]["data"], json!({"reason": "table_full", "retry_after_ms": 1_000}));
    assert_eq!((town.status("watches"), town.status("watches_refused")), (3, 1));
    town.login(0, "d", "desk");
    assert!(town.told(bob).is_empty(), "none of them is watched");
    assert_eq!(town.status("watches_capacity"), 5);
    // It was freed again within the call, so there is no waiting.
    town.ask(bob, "watch", &["d", "e"]);
    assert_eq!(town.refused(bob, "watch", users(&["f"])), (-32007, "table_full".into()));
    // What is freed is found at once.
    town.ask(ann, "unwatch", &["b"]);
    town.ask(bob, "watch", &["f"]);
    town.login(0, "f", "desk");
    assert_eq!(town.told(bob), [told("f", &["desk"])]);
    town.login(0, "b", "desk");
    town.login(0, "c", "desk");
    assert_eq!(town.told(ann), [told("c", &["desk"])]);
}

#[test]
fn a_table_for_no_watches_takes_none_and_none_of_last_seen_keeps_none() {
    let mut town = Town::new(1, &[("table.watches", "0"), ("table.last_seen", "0")]);
    let ann = town.login(0, "ann", "desk");
    let bob = town.login(0, "bob", "desk");
    assert_eq!(town.refused(ann, "watch", json!({"users": ["bob"]})).0, -32007);
    town.close(bob, ClosedBy::Client);
    assert_eq!(town.ask(ann, "presence", &["bob"])["bob"]["last_seen"], json!(null));
    assert_eq!((town.status("last_seen"), town.status("last_seen_capacity")), (0, 0));
}

#[test]
fn the_oldest_is_forgotten_where_last_seen_is_full() {
    let mut town = Town::new(1, &[("table.last_seen", "8"), ("table.max_sessions", "64")]);
    let ann = town.login(0, "ann", "desk");
    let mut left = Vec::new();
    for number in 0..20_u64 {
        let user = format!("u{number}");
        let conn = town.login(0, &user, "d");
        town.pass(1);
        town.close(conn, ClosedBy::Client);
        left.push((user, 1_800_000_000_000 + town.clock));
    }
    assert_eq!((town.status("last_seen"), town.status("last_seen_capacity")), (8, 8));
    for (number, (user, at)) in left.iter().enumerate() {
        let seen = town.ask(ann, "presence", &[user])[user]["last_seen"].as_u64();
        assert_eq!(seen, (number >= 12).then_some(*at), "{user}");
    }
    // Who is online was not last seen; who goes again is seen later.
    let conn = town.login(0, "u15", "d");
    assert_eq!(town.ask(ann, "presence", &["u15"])["u15"]["last_seen"], json!(null));
    town.pass(7);
    town.close(conn, ClosedBy::Client);
    let seen = town.ask(ann, "presence", &["u15"])["u15"]["last_seen"].as_u64();
    assert_eq!(seen, Some(left[19].1 + 7));
    assert_eq!(town.status("last_seen"), 8);
}

#[test]
fn news_that_come_late_have_the_smaller_version() {
    let mut town = Town::new(2, &[("im.presence_debounce", "0s")]);
    let ann = town.login(0, "ann", "desk");
    town.hold = true;
    let first = town.ask(ann, "watch", &["bob"])["bob"]["version"].as_u64();
    let bob = town.login(1, "bob", "phone");
    let asked = town.ask(ann, "presence", &["bob"])["bob"]["version"].as_u64();
    town.close(bob, ClosedBy::Client);
    town.release_reversed();
    let news = town.news(ann);
    let versions: Vec<Option<u64>> = news.iter().map(|one| one["version"].as_u64()).collect();
    assert_eq!(news.iter().map(|one| one["online"] == true).collect::<Vec<_>>(), [false, true]);
    assert!(first < versions[1] && versions[1] < asked && asked < versions[0], "{versions:?}");
}

#[test]
fn who_was_lost_with_his_worker_is_told_by_its_successor() {
    for debounce_ms in [0, 3_000] {
        let debounce = format!("{debounce_ms}ms");
        let mut town = Town::new(2, &[("im.presence_debounce", &debounce)]);
        let ann = town.login(0, "ann", "desk");
        let bob = town.login(1, "bob", "phone");
        town.ask(ann, "watch", &["bob"]);
        town.workers[1].1.lose(bob);
        assert_eq!(town.ask(ann, "presence", &["zoe"])["zoe"]["online"], false);
        town.replace(1);
        town.close(bob, ClosedBy::WorkerLost);
        town.pass(debounce_ms);
        assert_eq!(town.told(ann), [told("bob", &[])], "{debounce}");
        town.pass(10_000);
        assert!(town.told(ann).is_empty());
    }
}

/// What a worker had packed in its last turn is lost: its successor tells it again.
#[test]
fn what_a_dead_worker_told_in_vain_is_told_again() {
    let mut town = Town::new(2, &[("im.presence_debounce", "0s")]);
    let ann = town.login(0, "ann", "desk");
    let bob = town.login(1, "bob", "phone");
    town.ask(ann, "watch", &["bob"]);
    town.die_over(1, |town| town.close_quietly(bob, ClosedBy::Client));
    assert_eq!(town.told(ann), [told("bob", &[])]);
    assert_eq!(town.status("healed"), 1);
    // Another slot's successor, and one after an end in good order, have nothing to heal.
    town.login(1, "bob", "phone");
    assert_eq!(town.told(ann).len(), 1);
    town.replace(0);
    town.pass(1);
    let (app, worker) = &mut town.workers[1];
    app.worker_stop(&mut worker.context(), dunlin_server::StopReason::Replaced);
    town.replace(1);
    town.pass(1);
    assert!(town.told(ann).is_empty());
    assert_eq!(town.status("healed"), 1);
}

#[test]
fn a_debounce_survives_the_death_of_its_worker_even_in_the_middle_of_it() {
    let mut town = Town::new(2, &[("im.presence_debounce", "3s")]);
    let ann = town.login(0, "ann", "desk");
    let bob = town.login(1, "bob", "phone");
    town.ask(ann, "watch", &["bob"]);
    // The timer is shared; the successor's healing does not tell too early.
    town.die_over(1, |town| town.close_quietly(bob, ClosedBy::Client));
    town.pass(2_990);
    assert!(town.told(ann).is_empty());
    // The worker dies with the timer in hand: neither it nor its mail is left.
    town.die_over_timer(1);
    assert_eq!(town.told(ann), [told("bob", &[])]);
    town.pass(10_000);
    assert!(town.told(ann).is_empty());
}

#[test]
fn a_full_mailbox_is_counted_and_told_again_when_it_has_room() {
    let mut town = Town::new(2, &[("im.presence_debounce", "0s")]);
    let ann = town.login(0, "ann", "desk");
    let zoe = town.login(0, "zoe", "desk");
    town.ask(ann, "watch", &["bob"]);
    town.ask(zoe, "watch", &["bob"]);
    town.workers[1].1.set_full(ann, true);
    town.login(1, "bob", "phone");
    assert_eq!((town.told(ann).len(), town.told(zoe)), (0, vec![told("bob", &["phone"])]));
    assert_eq!((town.status("told"), town.status("untold")), (1, 1));
    town.pass(1_000);
    assert!(town.told(ann).is_empty());
    town.workers[1].1.set_full(ann, false);
    town.pass(1_000);
    assert_eq!(town.told(ann), [told("bob", &["phone"])]);
    assert_eq!(town.timers(), 0, "nothing is left to be told");
    // It is given up after a while: until the next change.
    town.workers[1].1.set_full(ann, true);
    town.login(1, "bob", "desk");
    town.pass(60_000);
    assert_eq!((town.timers(), town.status("untold")), (0, 2 + 11));
    // Who is gone is not told again.
    town.workers[1].1.set_full(ann, false);
    town.close(ann, ClosedBy::Client);
    town.login(1, "bob", "tablet");
    assert_eq!(town.timers(), 0);
}

#[test]
fn a_thousand_watchers_are_told_of_one() {
    let sizes = [("table.max_sessions", "1100"), ("table.watches", "2000")];
    let mut town = Town::new(2, &[&sizes[..], &[("im.presence_debounce", "0s")]].concat());
    let watchers: Vec<_> =
        (0..1_000).map(|number| town.login(number % 2, &format!("w{number}"), "d")).collect();
    for watcher in &watchers {
        town.ask(*watcher, "watch", &["star", "other"]);
    }
    let star = town.login(0, "star", "d");
    town.close(watchers[500], ClosedBy::Client);
    town.close(star, ClosedBy::Client);
    for (number, watcher) in watchers.iter().enumerate().filter(|(number, _)| *number != 500) {
        assert_eq!(town.told(*watcher), [told("star", &["d"]), told("star", &[])], "{number}");
    }
    assert_eq!((town.status("watches"), town.status("told")), (2 * 999, 1_999));
}

/// Somebody comes in the very instant somebody else begins to watch him, again and again: either the result
/// has him, or he is told.
#[test]
fn between_the_result_and_the_first_news_is_no_gap() {
    let words = [("table.max_sessions", "8"), ("im.presence_debounce", "0s")];
    let mut town = Town::new(2, &words);
    let ann = town.login(0, "ann", "desk");
    let (mut in_result, mut in_news) = (0, 0);
    for round in 0..2_000 {
        let bob = town.open(1);
        let barrier = Barrier::new(2);
        let watch = request("watch", json!({"users": ["bob"]}));
        let login = request("login", json!({"user": "bob", "device": {"id": "d"}}));
        let [(app, worker), (other_app, other)] = &mut town.workers[..] else { panic!("two") };
        let say =
            |app: &mut ImApp, worker: &mut dunlin_server::simulation::FakeWorker, conn, text| {
                barrier.wait();
                app.message(&mut worker.context(), conn, Message::Text(text));
            };
        std::thread::scope(|scope| {
            scope.spawn(|| say(other_app, other, bob, &login));
            say(app, worker, ann, &watch);
        });
        let mut latest = (0, false);
        for deed in worker.take_deeds().into_iter().chain(other.take_deeds()) {
            let Deed::Push { conn, payload, .. } = deed else { panic!("{deed:?}") };
            let said: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            let (state, in_which) = match said["method"].as_str() {
                Some("presence") => (&said["params"], &mut in_news),
                _ => (&said["result"]["users"]["bob"], &mut in_result),
            };
            if conn == ann {
                *in_which += u32::from(state["online"] == true);
                latest = latest.max((state["version"].as_u64().unwrap(), state["online"] == true));
            }
        }
        assert!(latest.1, "round {round}: {latest:?}");
        town.close(bob, ClosedBy::Client);
        town.ask(ann, "unwatch", &["bob"]);
        town.news(ann);
    }
    assert!(in_result > 0 && in_news > 0, "both ways were met: {in_result} {in_news}");
}

/// Two devices of a user change at one time on two workers: the largest version has both changes.
#[test]
fn the_largest_version_has_every_change_in_it() {
    let words = [("table.max_sessions", "8"), ("im.presence_debounce", "0s")];
    let mut town = Town::new(2, &words);
    let ann = town.login(0, "ann", "desk");
    town.ask(ann, "watch", &["bob"]);
    for round in 0..2_000 {
        let mut conns = [town.open(0), town.open(1)];
        let going = round % 2 == 1;
        if going {
            conns.iter().for_each(|conn| town.close(*conn, ClosedBy::Client));
            conns = [town.login(0, "bob", "p0"), town.login(1, "bob", "p1")];
            town.news(ann);
        }
        let barrier = Barrier::new(2);
        let act = |(app, worker): &mut (ImApp, dunlin_server::simulation::FakeWorker),
                   place: usize| {
            let login = json!({"user": "bob", "device": {"id": format!("p{place}")}});
            let text = if going { request("logout", json!({})) } else { request("login", login) };
            barrier.wait();
            app.message(&mut worker.context(), conns[place], Message::Text(&text));
        };
        let [here, there] = &mut town.workers[..] else { panic!("two") };
        std::thread::scope(|scope| {
            scope.spawn(|| act(there, 1));
            act(here, 0);
        });
        town.collect(None);
        town.forget_answers();
        let news = town.news(ann);
        let last = news.iter().max_by_key(|state| state["version"].as_u64()).expect("news");
        let expected: &[&str] = if going { &[] } else { &["p0", "p1"] };
        assert_eq!(devices(last), expected, "round {round}: {news:?}");
        conns.iter().for_each(|conn| town.close(*conn, ClosedBy::Client));
        town.news(ann);
    }
}

#[test]
fn a_reload_changes_debounce_and_limit() {
    let mut town = Town::new(1, &[]);
    let ann = town.login(0, "ann", "desk");
    let settings = small_settings(&[("im.presence_debounce", "0s"), ("im.max_watches", "1")]);
    let (app, worker) = &mut town.workers[0];
    worker.in_master(|master| app.before_reload(master, &settings)).unwrap();
    assert_eq!(town.refused(ann, "watch", json!({"users": ["a", "b"]})).1, "too_many_watches");
    let bob = town.login(0, "bob", "d");
    town.ask(ann, "watch", &["bob"]);
    town.close(bob, ClosedBy::Client);
    assert_eq!(town.told(ann), [told("bob", &[])]);
}
