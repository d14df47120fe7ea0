//! What must hold: after each step, whenever all is quiet, and when everybody has gone.

use super::client::{Client, Sent, To};
use super::house::House;
use crate::session;
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
    let config = &house.server.master().config;
    let users: BTreeSet<&str> = truth.values().map(|account| &*account.user).collect();
    for user in users {
        let live = tables(house).live_sessions(house.server.table(), user);
        let surplus = session::surplus(&live, config.devices, config.max_devices);
        assert!(surplus.is_empty(), "{user} has {live:?}, and {surplus:?} are too many");
    }
}

/// Each session is in the rooms that it was told it is in, and each room has the hints of its members.
fn rooms_are_as_clients_know(house: &House) {
    let (table, rooms) = (house.server.table(), &tables(house).rooms);
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
    let mut ids = BTreeSet::new();
    for sent in house.clients.values().flat_map(|client| &client.sent) {
        let got = house.clients.values().filter(|client| counts(client, sent)).count() as u64;
        match &sent.told {
            Err(code) => assert!(got == 0, "refused with {code}, and arrived: {sent:?}"),
            Ok((id, sessions)) => {
                assert!(ids.insert(id), "two messages are {id}");
                assert!(got <= *sessions, "{got} sessions got it: {sent:?}");
                if house.plan.has_room() {
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
    }
}

/// When everybody has gone.
pub(super) fn at_the_end(house: &House) {
    let (table, tables) = (house.server.table(), tables(house));
    assert_eq!(table.used(), 0, "every row is free");
    assert_eq!(tables.stale_user_hints(table), [0; 0], "no hint is left");
}
