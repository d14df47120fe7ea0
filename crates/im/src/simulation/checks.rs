//! What must hold: after each step, whenever all is quiet, and when everybody has gone.

use super::client::{Client, Repeats, Sent, To};
use super::house::House;
use crate::tables::{Account, Tables};
use dunlin_server::ConnId;
use std::collections::{BTreeMap, BTreeSet};

/// Who is live by the rows alone.
fn truth(house: &House) -> BTreeMap<ConnId, Account> {
    let (table, tables) = (house.server.table(), tables(house));
    let account = |conn| tables.account(table, conn).map(|account| (conn, account));
    table.established().filter_map(account).collect()
}

fn tables(house: &House) -> &Tables {
    house.server.master().tables()
}

/// After each step, whatever is under way.
pub(super) fn always(house: &House) {
    let (table, tables) = (house.server.table(), tables(house));
    let truth = truth(house);
    let mut users: BTreeMap<&str, BTreeSet<ConnId>> = BTreeMap::new();
    let mut logins = BTreeSet::new();
    for (conn, account) in &truth {
        users.entry(&account.user).or_default().insert(*conn);
        assert!(logins.insert(account.login), "login {} stands in two rows", account.login);
        assert!(house.clients[conn].been.contains(&account.user), "{conn} is {account:?}");
    }
    for user in users.keys() {
        let found = tables.live_sessions(table, user);
        let conns: BTreeSet<ConnId> = found.iter().map(|live| live.conn).collect();
        assert_eq!(found.len(), conns.len(), "a session of {user} is found twice");
        assert_eq!(conns, users[user], "the index does not find the sessions of {user}");
    }
    // Nobody is found who is not live, whomever one asks for.
    for client in house.clients.values() {
        for user in client.been.iter().filter(|user| !users.contains_key(user.as_str())) {
            assert!(tables.live_sessions(table, user).is_empty(), "{user} is not online");
        }
    }
}

/// When nothing is under way and everybody reads.
pub(super) fn at_rest(house: &House) {
    let (table, tables) = (house.server.table(), tables(house));
    let truth = truth(house);
    assert_eq!(tables.stale_user_hints(table), [0; 0], "rows with a stale hint");
    let open: BTreeSet<ConnId> = house
        .clients
        .values()
        .filter(|client| client.is_open())
        .map(|client| client.conn)
        .collect();
    let rows: BTreeSet<ConnId> = table.established().collect();
    assert_eq!(rows, open, "the rows are the open connections");
    assert_eq!(usize::try_from(table.used()), Ok(open.len()), "no row is left behind");
    for client in house.clients.values().filter(|client| client.is_open()) {
        assert!(client.hello, "{} was greeted", client.conn);
        assert!(client.asked.is_empty(), "{} waits for {:?}", client.conn, client.asked);
        let account = truth.get(&client.conn);
        let believed = client.login.as_ref().map(|(user, _)| user);
        assert_eq!(account.map(|account| &account.user), believed, "{}", client.conn);
        assert!(table.deadline(client.conn).is_some(), "{} has a deadline", client.conn);
        if let Some(account) = account {
            let hints = tables.user_hints(&account.user, client.conn.row().index);
            assert_eq!(hints, 1, "{} is hinted at once", client.conn);
        }
    }
    rooms_are_as_clients_know(house);
    if house.plan.has_room() {
        nobody_is_too_many(house, &truth);
        neighbours_were_told(house, &truth);
    }
    messages_arrived(house);
}

fn nobody_is_too_many(house: &House, truth: &BTreeMap<ConnId, Account>) {
    let mut users: BTreeMap<&str, Vec<&Account>> = BTreeMap::new();
    for account in truth.values() {
        users.entry(&account.user).or_default().push(account);
    }
    for (user, live) in users {
        let distinct = |name: fn(&Account) -> &String| {
            live.iter().map(|account| name(account)).collect::<BTreeSet<_>>().len() == live.len()
        };
        assert!(live.len() <= house.plan.max_devices, "{user} has too many: {live:?}");
        assert!(distinct(|account| &account.device), "{user} is twice on a device: {live:?}");
        match house.plan.policy {
            "one" => assert_eq!(live.len(), 1, "{user}: {live:?}"),
            "one_per_kind" => {
                assert!(distinct(|account| &account.kind), "{user} is twice on a kind: {live:?}");
            }
            _ => {}
        }
    }
}

/// What a client was told of who is online, when nothing happens.
pub(super) fn presence_is_true(house: &House, answer: &serde_json::Value) {
    let truth = truth(house);
    for (user, presence) in answer["users"].as_object().expect("users by name") {
        let devices = presence["devices"].as_array().expect("a list").iter();
        let told: BTreeSet<&str> =
            devices.map(|device| device["id"].as_str().expect("an id")).collect();
        let live = truth.values().filter(|account| account.user == *user);
        let there: BTreeSet<&str> = live.map(|account| &*account.device).collect();
        assert_eq!(told, there, "the devices of {user}");
        assert_eq!(presence["online"], !there.is_empty(), "{user}");
    }
}

/// Each session is in the rooms that it was told it is in, and each room has the hints of its members.
fn rooms_are_as_clients_know(house: &House) {
    let (table, rooms) = (house.server.table(), &tables(house).rooms);
    assert_eq!(rooms.stale_hints(table), [0; 0], "rows with a stale hint of a room");
    let mut inhabited = BTreeSet::new();
    for client in house.clients.values().filter(|client| client.is_open()) {
        let known: BTreeSet<String> = client.rooms.keys().cloned().collect();
        let named = rooms.rooms_of(table, client.conn);
        let found: Vec<String> =
            named.map(|room| rooms.name(room).expect("a room with a member is there")).collect();
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), known, "{}", client.conn);
        assert_eq!(found.len(), known.len(), "{} is in a room twice", client.conn);
        inhabited.extend(known);
    }
    for name in &inhabited {
        let room = rooms.find(name).expect("a room with a member is found");
        let there = |client: &&Client| client.is_open() && client.rooms.contains_key(name);
        let there: BTreeSet<ConnId> =
            house.clients.values().filter(there).map(|client| client.conn).collect();
        let found: Vec<ConnId> =
            rooms.members(table, room).iter().map(|member| member.conn).collect();
        assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), there, "who is in {name}");
        assert_eq!(rooms.hinted(room), there.len(), "the hints of {name}");
    }
    if house.deaths() == 0 {
        // Who dies between making a room and entering it leaves it for a sweep.
        assert_eq!(rooms.used() as usize, inhabited.len(), "rooms that nobody is in");
    }
}

/// Of who has gone one is told at least once, and of who has come again, too.
fn neighbours_were_told(house: &House, truth: &BTreeMap<ConnId, Account>) {
    for client in house.clients.values().filter(|client| client.is_open()) {
        for ((room, user), [joined, left]) in &client.told_of {
            if !client.rooms.contains_key(room) {
                continue;
            }
            let is_there = house.clients.values().any(|other| {
                other.rooms.contains_key(room)
                    && truth.get(&other.conn).is_some_and(|account| account.user == *user)
            });
            let told = if is_there { *left == 0 || *joined > 0 } else { *left > 0 };
            let seen = [joined, left];
            assert!(told, "{}: {user} in {room}: {is_there}, {seen:?}", client.conn);
        }
    }
}

fn messages_arrived(house: &House) {
    let mut ids: BTreeMap<&str, u64> = BTreeMap::new();
    let mut numbers: BTreeMap<u64, &str> = BTreeMap::new();
    for sent in house.clients.values().flat_map(|client| &client.sent) {
        let got = house.clients.values().filter(|client| counts(client, sent)).count() as u64;
        match &sent.told {
            // Of what is repeated another attempt may have arrived.
            Err(code) => assert!(
                got == 0 || sent.repeats != Repeats::Never,
                "refused with {code}, and arrived: {sent:?}"
            ),
            Ok((id, sessions)) => {
                let number = *ids.entry(id).or_insert(sent.number);
                assert_eq!(number, sent.number, "two messages are {id}");
                let first = *numbers.entry(sent.number).or_insert(id);
                assert_eq!(first, id, "{} has two ids", sent.number);
                assert!(
                    got <= *sessions || sent.repeats != Repeats::Never,
                    "{got} sessions got it: {sent:?}"
                );
                if house.plan.has_room() && sent.repeats != Repeats::Again {
                    all_got_it(house, sent);
                }
            }
        }
    }
}

/// Whether a client has got a message as one that it is for, and not as a copy of its own user's.
fn counts(client: &Client, sent: &Sent) -> bool {
    let is_own = sent.from.as_ref().is_some_and(|from| client.been.contains(from));
    let to_himself = matches!((&sent.to, &sent.from), (To::User(to), Some(from)) if to == from);
    client.received.contains(&sent.number) && (to_himself || !is_own)
}

/// Whoever was there as its recipient from before it was said until now.
fn all_got_it(house: &House, sent: &Sent) {
    for client in house.clients.values().filter(|client| client.is_open()) {
        let is_sender = client.sent.iter().any(|own| own.number == sent.number);
        let there = match &sent.to {
            To::User(user) => {
                client.login.as_ref().is_some_and(|(own, since)| own == user && *since < sent.at)
            }
            To::Room(room) => {
                !is_sender && client.rooms.get(room).is_some_and(|since| *since < sent.at)
            }
        };
        let got = client.received.contains(&sent.number);
        assert!(got || !there, "{} did not get {sent:?}", client.conn);
        let is_own = client.login.as_ref().is_some_and(|(own, since)| {
            sent.from.as_ref() == Some(own) && *since < sent.at && !is_sender
        });
        let copied = client.got.values().flatten().any(|number| *number == sent.number);
        assert!(copied || !is_own, "{} has no copy of {sent:?}", client.conn);
    }
}

/// When everybody has gone.
pub(super) fn at_the_end(house: &House) {
    let (table, tables) = (house.server.table(), tables(house));
    assert_eq!(table.used(), 0, "every row is free");
    assert_eq!(tables.stale_user_hints(table), [0; 0], "no hint is left");
    assert_eq!(tables.rooms.stale_hints(table), [0; 0], "no hint of a room is left");
}
