//! What must hold: after each step, whenever all is quiet, and when everybody has gone.

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
    if house.plan.has_room() {
        nobody_is_too_many(house, &truth);
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

fn messages_arrived(house: &House) {
    let mut ids = BTreeSet::new();
    for sent in house.clients.values().flat_map(|client| &client.sent) {
        let got = house.clients.values().filter(|client| {
            client.received.contains(&sent.number)
                && client.been.contains(&sent.to)
                && sent
                    .from
                    .as_deref()
                    .is_none_or(|from| from == sent.to || !client.been.contains(from))
        });
        match &sent.told {
            Err(code) => assert!(got.count() == 0, "refused with {code}, and arrived: {sent:?}"),
            Ok((id, sessions)) => {
                assert!(ids.insert(id), "two messages are {id}");
                let got = got.count() as u64;
                assert!(got <= *sessions, "{got} sessions got it: {sent:?}");
                if house.plan.has_room() {
                    all_got_it(house, sent.number, &sent.to, sent.at);
                }
            }
        }
    }
}

/// Whoever was there as its recipient from before it was said until now.
fn all_got_it(house: &House, number: u64, to: &str, said: u64) {
    for client in house.clients.values().filter(|client| client.is_open()) {
        let there = client.login.as_ref().is_some_and(|(user, since)| user == to && *since < said);
        if there {
            assert!(client.received.contains(&number), "{} did not get {number}", client.conn);
        }
    }
}

/// When everybody has gone.
pub(super) fn at_the_end(house: &House) {
    let (table, tables) = (house.server.table(), tables(house));
    assert_eq!(table.used(), 0, "every row is free");
    assert_eq!(tables.stale_user_hints(table), [0; 0], "no hint is left");
}
