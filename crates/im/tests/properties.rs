//! What holds whatever comes: no text panics, every request gets one answer, presence equals the rows.

use crate::support::House;
use dunlin_server::ConnId;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const USERS: [&str; 3] = ["ann", "bob", "zoë"];
const METHODS: [&str; 15] = [
    "login", "refresh", "logout", "ping", "send", "signal", "presence", "watch", "unwatch",
    "sessions", "kick", "join", "leave", "members", "\u{0}",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~é\u{0}\\n]{0,70}".prop_map(Value::from),
        prop::sample::select(&USERS[..]).prop_map(Value::from),
    ];
    let names = prop_oneof![
        prop::sample::select(vec![
            "id", "method", "params", "jsonrpc", "user", "room", "device", "to", "body", "key",
            "users", "model", "kind",
        ])
        .prop_map(str::to_owned),
        "[a-z]{0,3}",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone(), inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Value> {
    (any_json(), prop::sample::select(&METHODS[..]), any_json(), any::<bool>()).prop_map(
        |(id, method, params, versioned)| {
            let mut request = json!({"id": id, "method": method, "params": params});
            if versioned {
                request["jsonrpc"] = json!("2.0");
            }
            request
        },
    )
}

/// One step of a life with three connections.
#[derive(Clone, Debug)]
enum Step {
    Login(usize, usize, u8),
    Logout(usize),
    Kick(usize, u8),
    Drop(usize),
    Lose(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let (conn, user, device) = (0..6_usize, 0..USERS.len(), 0..3_u8);
    prop_oneof![
        4 => (conn.clone(), user, device.clone()).prop_map(|(c, u, d)| Step::Login(c, u, d)),
        2 => conn.clone().prop_map(Step::Logout),
        1 => (conn.clone(), device).prop_map(|(c, d)| Step::Kick(c, d)),
        1 => conn.clone().prop_map(Step::Drop),
        1 => conn.prop_map(Step::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_and_every_request_with_an_id_gets_one_answer(
        requests in prop::collection::vec(any_request(), 1..8), login in any::<bool>(),
    ) {
        let mut house = House::new(&[], 4);
        let conn = if login { house.login("ann", "p") } else { house.open() };
        for request in requests {
            let text = request.to_string();
            let said = house.say(conn, &text);
            prop_assert_eq!(said.answers.len(), 1, "{}", request);
            let answer = &said.answers[0];
            // Read back, since reading rounds floats: the texts are the same, and so are the values.
            let id = &serde_json::from_str::<Value>(&text).unwrap()["id"];
            let expected = if id.is_number() || id.is_string() { id } else { &Value::Null };
            prop_assert_eq!(&answer["id"], expected);
            prop_assert_ne!(answer.get("result").is_some(), answer.get("error").is_some());
            prop_assert!(answer["error"]["code"] != -32603, "{}", request);
        }
    }

    #[test]
    fn what_is_not_even_json_gets_at_most_one_answer(
        texts in prop::collection::vec(prop_oneof![".{0,80}", "[\\[\\]{}\",:a1 ]{0,60}"], 1..8),
        cut in any_request(), at in any::<prop::sample::Index>(),
    ) {
        let mut house = House::new(&[], 4);
        let conn = house.login("ann", "p");
        for text in &texts {
            prop_assert!(house.say(conn, text).answers.len() <= 1);
        }
        let whole = cut.to_string();
        let cut = &whole[..whole.floor_char_boundary(at.index(whole.len()))];
        let said = house.say(conn, cut);
        prop_assert_eq!(&said.answers[0]["error"]["code"], &json!(-32700));
    }

    #[test]
    fn presence_equals_the_rows(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut house = House::new(&[("im.max_devices", "3")], 16);
        let watcher = house.login("watcher", "w");
        let mut conns: Vec<ConnId> = (0..6).map(|_| house.open()).collect();
        // What each connection is logged in as, in the order of the logins.
        let mut rows: Vec<(ConnId, &str, String)> = Vec::new();
        for step in steps {
            house.worker.pass(1);
            let mut gone: Vec<ConnId> = Vec::new();
            match step {
                Step::Login(c, u, d) => {
                    let device = format!("d{d}");
                    let params = json!({"user": USERS[u], "device": {"id": device}});
                    let said = house.say(conns[c], &crate::support::request("login", params));
                    if said.answers[0].get("result").is_some() {
                        rows.push((conns[c], USERS[u], device));
                    }
                    gone.extend(said.closed.iter().map(|(conn, _)| *conn));
                }
                Step::Logout(c) => {
                    house.call(conns[c], "logout", json!({}));
                    rows.retain(|row| row.0 != conns[c]);
                }
                Step::Kick(c, d) => {
                    let params = json!({"device": format!("d{d}")});
                    let said = house.say(conns[c], &crate::support::request("kick", params));
                    gone.extend(said.closed.iter().map(|(conn, _)| *conn));
                }
                Step::Drop(c) => {
                    house.drop_connection(conns[c]);
                    rows.retain(|row| row.0 != conns[c]);
                    conns[c] = house.open();
                }
                Step::Lose(c) => {
                    house.worker.lose(conns[c]);
                    gone.push(conns[c]);
                }
            }
            rows.retain(|row| !gone.contains(&row.0));
            prop_assert_eq!(online(&mut house, watcher), expected(&rows));
            for conn in gone {
                house.drop_connection(conn);
                let place = conns.iter().position(|known| *known == conn).unwrap();
                conns[place] = house.open();
            }
            prop_assert_eq!(online(&mut house, watcher), expected(&rows));
        }
    }
}

fn online(house: &mut House, watcher: ConnId) -> BTreeMap<String, Vec<String>> {
    let answer = house.call(watcher, "presence", json!({"users": USERS}));
    let users = answer["result"]["users"].as_object().unwrap();
    let devices = |user: &Value| -> Vec<String> {
        let devices = user["devices"].as_array().unwrap();
        let mut ids: Vec<String> =
            devices.iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        assert_eq!(user["online"], !ids.is_empty());
        ids
    };
    users.iter().map(|(user, presence)| (user.clone(), devices(presence))).collect()
}

fn expected(rows: &[(ConnId, &str, String)]) -> BTreeMap<String, Vec<String>> {
    let mut users: BTreeMap<String, Vec<String>> =
        USERS.iter().map(|user| ((*user).to_owned(), Vec::new())).collect();
    for (_, user, device) in rows {
        let devices = users.get_mut(*user).unwrap();
        devices.push(device.clone());
        devices.sort_unstable();
        devices.dedup();
    }
    users
}
