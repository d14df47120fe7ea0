//! The API through the application's hooks: who is let in, and what each resource does.

use crate::support::House;
use dunlin_server::simulation::{Deed, get};
use dunlin_server::{App, ConnId, Reply, Request, RequestId, Response, SlotId};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

const KEY: &str = "0123456789abcdefghijklmnopqrstuv";

/// A house with a key of the operator's.
fn house(words: &[(&'static str, &str)]) -> House {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    options.unwrap().write_all(KEY.as_bytes()).unwrap();
    let mut words = words.to_vec();
    words.push(("http.api_key_file", path.to_str().unwrap()));
    House::new(&words, 8)
}

fn bare(method: &str, path: &str, body: &str) -> Request {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (path, None),
    };
    let mut request = Request { method: method.into(), query, body: body.into(), ..get(path) };
    request.headers.push("Host", "im.test");
    if method == "POST" {
        request.headers.push("Content-Type", "application/json");
    }
    request
}

fn with_key(method: &str, path: &str, body: &str) -> Request {
    let mut request = bare(method, path, body);
    request.headers.push("Authorization", format!("Bearer {KEY}"));
    request
}

fn ask(house: &mut House, request: &Request) -> (Response, Value) {
    let reply = house.app.request(&mut house.worker.context(), RequestId(1), request);
    let Reply::Now(response) = reply else { panic!("the API answers at once") };
    let body = serde_json::from_slice(&response.body);
    let body = body.unwrap_or_else(|_| panic!("no JSON: {response:?}"));
    assert_eq!(header(&response, "Content-Type"), Some("application/json"));
    assert_eq!(header(&response, "Cache-Control"), Some("no-store"));
    (response, body)
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let mut found = response.headers.iter().filter(|(known, _)| known == name);
    found.next().map(|(_, value)| value.as_str())
}

/// The answer to a request that must be served.
fn good(house: &mut House, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (response, answer) = ask(house, &with_key(method, path, &body));
    assert_eq!(response.status, 200, "{path}: {answer}");
    answer
}

/// Status and reason of a request that must be refused.
fn bad(house: &mut House, request: &Request) -> (u16, String) {
    let (response, answer) = ask(house, request);
    assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    let reason = answer["error"].as_str().unwrap_or_else(|| panic!("{answer}"));
    (response.status, reason.to_owned())
}

/// What was pushed, and to whom.
fn pushed(house: &mut House) -> Vec<(ConnId, Value)> {
    let deeds = house.worker.take_deeds().into_iter();
    deeds
        .filter_map(|deed| match deed {
            Deed::Push { conn, payload, .. } => {
                Some((conn, serde_json::from_slice(&payload).unwrap()))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn nothing_is_told_and_nothing_done_without_the_key() {
    let mut house = house(&[]);
    let ann = house.login("ann", "d");
    let kick = r#"{"user":"ann"}"#;
    let wrong = [
        None,
        Some(String::new()),
        Some("Bearer".into()),
        Some("Bearer ".into()),
        Some(KEY.into()),
        Some(format!("Basic {KEY}")),
        Some(format!("Bearer {}", &KEY[..31])),
        Some(format!("Bearer {KEY}x")),
        Some(format!("Bearer {}", KEY.to_uppercase())),
    ];
    for value in &wrong {
        for (method, path) in [("POST", "/api/kick"), ("GET", "/api/nope"), ("PUT", "/api")] {
            let mut request = bare(method, path, kick);
            if let Some(value) = value {
                request.headers.push("Authorization", value.clone());
            }
            assert_eq!(bad(&mut house, &request), (401, "unauthorized".into()), "{value:?}");
            let (response, _) = ask(&mut house, &request);
            assert_eq!(header(&response, "WWW-Authenticate"), Some("Bearer"));
        }
    }
    let mut twice = with_key("POST", "/api/kick", kick);
    twice.headers.push("Authorization", format!("Bearer {KEY}"));
    assert_eq!(bad(&mut house, &twice).0, 401, "of two keys nobody knows which is meant");
    assert!(house.worker.table().is_established(ann));
    // The scheme has no case, and the key may stand behind several spaces.
    let mut request = bare("POST", "/api/kick", kick);
    request.headers.push("authorization", format!("bearer  {KEY}"));
    assert_eq!(ask(&mut house, &request).1, json!({"kicked": 1}));
}

#[test]
fn each_path_takes_its_method_and_json() {
    let mut house = house(&[]);
    for (method, path, status, reason) in [
        ("GET", "/api", 404, "not_found"),
        ("GET", "/api/", 404, "not_found"),
        ("GET", "/api/push/", 404, "not_found"),
        ("POST", "/api/nope", 404, "not_found"),
        ("GET", "/api/push", 405, "method_not_allowed"),
        ("PUT", "/api/kick", 405, "method_not_allowed"),
        ("POST", "/api/presence", 405, "method_not_allowed"),
        ("DELETE", "/api/sessions", 405, "method_not_allowed"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("OPTIONS", "/api/push", 405, "method_not_allowed"),
        ("post", "/api/push", 405, "method_not_allowed"),
    ] {
        let said = bad(&mut house, &with_key(method, path, "{}"));
        assert_eq!(said, (status, reason.into()), "{method} {path}");
    }
    let (response, _) = ask(&mut house, &with_key("GET", "/api/push", ""));
    assert_eq!(header(&response, "Allow"), Some("POST"));
    let (response, _) = ask(&mut house, &with_key("POST", "/api/sessions", ""));
    assert_eq!(header(&response, "Allow"), Some("GET, HEAD"));
    assert_eq!(good(&mut house, "HEAD", "/api/sessions", &Value::Null), json!({"sessions": []}));
    let kick = json!({"user": "nobody"}).to_string();
    for (media_type, status) in [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/jsonp", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ] {
        let mut request = with_key("POST", "/api/kick", &kick);
        request.headers.replace("Content-Type", media_type);
        assert_eq!(ask(&mut house, &request).0.status, status, "{media_type:?}");
    }
    let mut two = with_key("POST", "/api/kick", &kick);
    two.headers.push("Content-Type", "application/json");
    assert_eq!(bad(&mut house, &two), (415, "unsupported_media_type".into()));
}

#[test]
fn a_page_of_strangers_is_refused_though_it_had_the_key() {
    let mut own = house(&[]);
    let mut listed = house(&[("websocket.allowed_origins", "https://ops.test")]);
    let status = |house: &mut House, origin: &str| {
        let mut request = with_key("GET", "/api/sessions", "");
        request.headers.push("Origin", origin);
        ask(house, &request).0.status
    };
    assert_eq!(status(&mut own, "https://im.test"), 200);
    assert_eq!(status(&mut own, "http://localhost:3000"), 200);
    for origin in ["https://evil.test", "null", "", "https://im.test.evil.test", "http://im.test:1"]
    {
        assert_eq!(status(&mut own, origin), 403, "{origin}");
    }
    assert_eq!(status(&mut listed, "https://ops.test"), 200);
    assert_eq!(status(&mut listed, "https://im.test"), 403);
    let mut request = with_key("GET", "/api/sessions", "");
    request.headers.push("Origin", "https://im.test");
    request.headers.push("Origin", "https://evil.test");
    assert_eq!(bad(&mut own, &request), (403, "forbidden_origin".into()));
}

#[test]
fn a_push_goes_to_all_sessions_of_a_user_and_has_no_sender() {
    let mut house = house(&[]);
    let (phone, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    house.login("bob", "d");
    let push = json!({"to": {"user": "ann"}, "body": {"n": 1.0}});
    let answer = good(&mut house, "POST", "/api/push", &push);
    assert_eq!(answer["sessions"], 2);
    let got = pushed(&mut house);
    assert_eq!(got.iter().map(|(conn, _)| *conn).collect::<Vec<_>>(), [phone, desk]);
    let message = &got[0].1;
    assert_eq!(message["method"], "message");
    let params = &message["params"];
    assert_eq!((&params["from"], &params["to"]), (&Value::Null, &json!({"user": "ann"})));
    assert_eq!((&params["id"], &params["body"]), (&answer["id"], &json!({"n": 1.0})));
    // Nobody there, nobody in the room: no error.
    for to in [json!({"user": "zoe"}), json!({"room": "r"})] {
        let answer = good(&mut house, "POST", "/api/push", &json!({"to": to, "body": 1}));
        assert_eq!(answer["sessions"], 0);
        assert!(answer["id"].as_str().is_some_and(|id| id.len() == 16));
    }
    assert!(pushed(&mut house).is_empty());
}

#[test]
fn a_push_to_all_reaches_who_is_logged_in_and_nobody_else() {
    let mut house = house(&[]);
    let (ann, bob) = (house.login("ann", "d"), house.login("bob", "d"));
    house.open();
    let gone = house.login("cat", "d");
    house.call(gone, "logout", json!({}));
    let push = json!({"to": "all", "body": "hello"});
    let answer = good(&mut house, "POST", "/api/push", &push);
    assert_eq!(answer["sessions"], 2);
    let got = pushed(&mut house);
    assert_eq!(got.iter().map(|(conn, _)| *conn).collect::<Vec<_>>(), [ann, bob]);
    assert_eq!(got[0].1["params"]["to"], "all");
    assert_eq!(got[0].1["params"]["from"], Value::Null);
}

#[test]
fn a_push_that_nobody_can_take_is_to_be_tried_again() {
    let mut house = house(&[]);
    let (phone, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    house.worker.set_full(phone, true);
    let push = json!({"to": {"user": "ann"}, "body": 1});
    assert_eq!(good(&mut house, "POST", "/api/push", &push)["sessions"], 1);
    house.worker.set_full(desk, true);
    for to in [json!({"user": "ann"}), json!("all")] {
        let body = json!({"to": to, "body": 1}).to_string();
        let (response, answer) = ask(&mut house, &with_key("POST", "/api/push", &body));
        assert_eq!((response.status, &answer["error"]), (503, &json!("busy")));
        assert_eq!(header(&response, "Retry-After"), Some("1"));
    }
}

#[test]
fn what_is_wrong_with_a_post_is_said() {
    let mut house = house(&[("im.max_body", "10")]);
    let ann = house.login("ann", "d");
    let reason = "x".repeat(500);
    for (path, body, status, names) in [
        ("/api/push", "", 400, "the body"),
        ("/api/push", "[]", 400, "the body"),
        ("/api/push", "{}", 400, "to is missing"),
        ("/api/push", r#"{"to":"all"}"#, 400, "body is missing"),
        ("/api/push", r#"{"to":"everybody","body":1}"#, 400, "to must be"),
        ("/api/push", r#"{"to":{"user":""},"body":1}"#, 400, "to.user must not be empty"),
        ("/api/push", r#"{"to":{"usr":"ann"},"body":1}"#, 400, "to.usr is no member"),
        ("/api/push", r#"{"to":"all","body":1,"ttl":5}"#, 400, "ttl is no member"),
        ("/api/push", r#"{"to":"all","body":"0123456789"}"#, 413, "12 bytes"),
        ("/api/push?dry=1", r#"{"to":"all","body":1}"#, 400, "dry is no parameter"),
        ("/api/kick", "{}", 400, "user is missing"),
        ("/api/kick", r#"{"user":7}"#, 400, "user must be a string"),
        ("/api/kick", r#"{"user":"ann","device":""}"#, 400, "device must not be empty"),
        ("/api/kick", r#"{"user":"ann","reason":7}"#, 400, "reason must be a string"),
        ("/api/kick", r#"{"user":"ann","devise":"d"}"#, 400, "devise is no member"),
        ("/api/kick", r#"{"user":"a","user":"ann"}"#, 400, "user stands twice"),
    ] {
        let (response, answer) = ask(&mut house, &with_key("POST", path, body));
        assert_eq!(response.status, status, "{path} {body}: {answer}");
        let said = answer["message"].as_str().unwrap();
        assert!(said.contains(names), "{path} {body}: {said}");
    }
    assert!(house.worker.take_deeds().iter().all(|deed| !matches!(deed, Deed::Disconnect { .. })));
    assert!(house.worker.table().is_established(ann));
    // A long reason is no error: it is cut to what a close frame holds.
    let kick = json!({"user": "ann", "device": null, "reason": reason});
    assert_eq!(good(&mut house, "POST", "/api/kick", &kick), json!({"kicked": 1}));
}

#[test]
fn a_kick_says_why_and_closes_for_good() {
    let mut house = house(&[]);
    let (phone, desk) = (house.login("ann", "phone"), house.login("ann", "desk"));
    let bob = house.login("bob", "phone");
    let one = json!({"user": "ann", "device": "phone", "reason": "too loud"});
    assert_eq!(good(&mut house, "POST", "/api/kick", &one), json!({"kicked": 1}));
    let said = house.heard(phone);
    assert_eq!(said.closed, [(phone, 4511)]);
    let bye = &said.told[0].1["params"];
    assert_eq!((&bye["code"], &bye["reason"]), (&json!(4511), &json!("too loud")));
    assert_eq!(bye["reconnect"], false);
    assert_eq!(good(&mut house, "POST", "/api/kick", &one), json!({"kicked": 0}));
    let all = json!({"user": "ann"});
    assert_eq!(good(&mut house, "POST", "/api/kick", &all), json!({"kicked": 1}));
    assert_eq!(house.heard(desk).closed, [(desk, 4511)]);
    assert!(house.worker.table().is_established(bob));
}

#[test]
fn presence_is_told_of_whom_is_asked() {
    let mut house = house(&[]);
    house.login("ann", "phone");
    let answer =
        good(&mut house, "GET", "/api/presence?user=ann&user=zo%C3%A9&user=ann", &Value::Null);
    let users = answer["users"].as_object().unwrap();
    assert_eq!(users.len(), 2);
    assert_eq!((&users["ann"]["online"], &users["zoé"]["online"]), (&json!(true), &json!(false)));
    assert_eq!(users["ann"]["devices"][0]["id"], "phone");
    let many: Vec<String> = (0..101).map(|n| format!("user=u{n}")).collect();
    let many = format!("/api/presence?{}", many.join("&"));
    for path in [
        "/api/presence",
        "/api/presence?",
        "/api/presence?user=",
        "/api/presence?users=ann",
        "/api/presence?user=a&x=1",
        "/api/presence?user=a%00",
        &many,
    ] {
        let said = bad(&mut house, &with_key("GET", path, ""));
        assert_eq!(said, (400, "bad_request".into()), "{path}");
    }
}

/// Every session by its pages, and how many pages there were; `between` runs after each.
fn pages(
    house: &mut House,
    limit: usize,
    mut between: impl FnMut(&mut House),
) -> (Vec<Value>, usize) {
    let (mut all, mut pages) = (Vec::new(), 0);
    let mut path = format!("/api/sessions?limit={limit}");
    loop {
        let page = good(house, "GET", &path, &Value::Null);
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= limit);
        all.extend(sessions.clone());
        pages += 1;
        let Some(cursor) = page.get("cursor") else { return (all, pages) };
        path = format!("/api/sessions?limit={limit}&cursor={}", cursor.as_str().unwrap());
        between(house);
    }
}

#[test]
fn sessions_come_in_pages_of_those_who_are_logged_in() {
    let mut house = house(&[]);
    let ann = house.login("ann", "phone");
    house.open();
    for user in ["bob", "cat", "dan", "eve"] {
        house.login(user, "d");
    }
    let names = |sessions: &[Value]| -> Vec<String> {
        let mut names: Vec<_> =
            sessions.iter().map(|one| one["user"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    for (limit, expected) in [(1, 5), (2, 3), (5, 1), (1000, 1)] {
        let (all, count) = pages(&mut house, limit, |_| {});
        assert_eq!(
            (names(&all), count),
            (["ann", "bob", "cat", "dan", "eve"].map(String::from).to_vec(), expected)
        );
    }
    let first = &pages(&mut house, 9, |_| {}).0[0];
    assert_eq!(first["session"], ann.to_string());
    assert_eq!(
        (&first["device"], &first["model"], &first["kind"]),
        (&json!("phone"), &json!("M"), &json!("k"))
    );
    assert_eq!((&first["ip"], &first["worker"]), (&json!("192.0.2.7"), &json!(0)));
    assert!(first["connected_at"].is_u64() && first["last_active"].is_u64());
    for wrong in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "limit=1&limit=2",
        "cursor=-1",
        "cursor=x",
        "cursor=4294967296",
        "page=2",
    ] {
        let said = bad(&mut house, &with_key("GET", &format!("/api/sessions?{wrong}"), ""));
        assert_eq!(said, (400, "bad_request".into()), "{wrong}");
    }
    // Beyond the end there is nobody.
    let end = good(&mut house, "GET", "/api/sessions?cursor=4294967295", &Value::Null);
    assert_eq!(end, json!({"sessions": []}));
}

#[test]
fn who_stays_is_on_exactly_one_page_while_others_come_and_go() {
    let mut house = house(&[]);
    let stay: Vec<ConnId> = ["a", "b", "c"].iter().map(|user| house.login(user, "d")).collect();
    let mut others = vec![house.login("x", "d"), house.login("y", "d")];
    let (all, _) = pages(&mut house, 1, |house| {
        if let Some(gone) = others.pop() {
            house.drop_connection(gone);
        }
        house.login("z", "d");
        house.worker.take_deeds();
    });
    for conn in stay {
        let seen = all.iter().filter(|one| one["session"] == conn.to_string()).count();
        assert_eq!(seen, 1, "{all:?}");
    }
}

#[test]
fn a_push_to_a_room_reaches_who_is_in_it() {
    let mut house = house(&[]);
    let (ann, bob) = (house.login("ann", "d"), house.login("bob", "d"));
    house.login("cat", "d");
    for conn in [ann, bob] {
        house.call(conn, "join", json!({"room": "r"}));
    }
    house.worker.take_deeds();
    let answer = good(&mut house, "POST", "/api/push", &json!({"to": {"room": "r"}, "body": 1}));
    assert_eq!(answer["sessions"], 2);
    let got = pushed(&mut house);
    assert_eq!(got.iter().map(|(conn, _)| *conn).collect::<Vec<_>>(), [ann, bob]);
    assert_eq!(got[0].1["params"]["to"], json!({"room": "r"}));
    assert_eq!(got[0].1["params"]["from"], Value::Null);
}

#[test]
fn rooms_come_in_pages_of_those_that_somebody_is_in() {
    let mut house = house(&[]);
    assert_eq!(good(&mut house, "GET", "/api/rooms", &Value::Null), json!({"rooms": []}));
    let (ann, other) = (house.login("ann", "p"), house.login("ann", "q"));
    let bob = house.login("bob", "d");
    for (conn, room) in
        [(ann, "a"), (other, "a"), (bob, "a"), (ann, "b"), (bob, "c"), (bob, "gone")]
    {
        house.call(conn, "join", json!({"room": room}));
    }
    house.call(bob, "leave", json!({"room": "gone"}));
    let (mut rooms, mut path) = (Vec::new(), "/api/rooms?limit=2".to_owned());
    loop {
        let page = good(&mut house, "GET", &path, &Value::Null);
        rooms.extend(page["rooms"].as_array().unwrap().clone());
        let Some(cursor) = page["cursor"].as_str() else { break };
        path = format!("/api/rooms?limit=2&cursor={cursor}");
    }
    rooms.sort_by_key(|room| room["room"].to_string());
    assert_eq!(
        rooms,
        [
            json!({"room": "a", "count": 2, "sessions": 3}),
            json!({"room": "b", "count": 1, "sessions": 1}),
            json!({"room": "c", "count": 1, "sessions": 1}),
        ]
    );
    for wrong in ["limit=0", "limit=1001", "cursor=x", "room=a"] {
        let said = bad(&mut house, &with_key("GET", &format!("/api/rooms?{wrong}"), ""));
        assert_eq!(said, (400, "bad_request".into()), "{wrong}");
    }
}

#[test]
fn the_status_has_the_applications_part_and_metrics_are_made_of_it() {
    let mut house = house(&[]);
    house.login("ann", "d");
    let status = good(&mut house, "GET", "/api/status", &Value::Null);
    assert_eq!(
        (&status["sessions"]["logged_in"], &status["auth"]["logins"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(bad(&mut house, &with_key("GET", "/api/status?x=1", "")).0, 400);
    assert_eq!(bad(&mut house, &bare("GET", "/metrics", "")), (401, "unauthorized".into()));
    let request = with_key("GET", "/metrics", "");
    let reply = house.app.request(&mut house.worker.context(), RequestId(1), &request);
    let Reply::Now(response) = reply else { panic!("the API answers at once") };
    let media_type = header(&response, "Content-Type").unwrap();
    assert!(media_type.starts_with("text/plain; version=0.0.4"), "{media_type}");
    let text = String::from_utf8(response.body).unwrap();
    for line in ["dunlin_sessions_logged_in 1", "dunlin_api_requests_total{outcome=\"ok\"} 1"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn any_worker_answers_for_all() {
    let mut house = house(&[]);
    let ann = house.login("ann", "d");
    let mut sibling = house.worker.sibling(SlotId(1));
    let request = with_key("POST", "/api/kick", r#"{"user":"ann"}"#);
    let reply = house.app.request(&mut sibling.context(), RequestId(1), &request);
    let Reply::Now(response) = reply else { panic!("the API answers at once") };
    assert_eq!(response.body, br#"{"kicked":1}"#);
    assert!(!house.worker.table().is_established(ann));
}

#[test]
fn answers_are_counted_by_their_outcome() {
    let mut house = house(&[]);
    house.login("ann", "d");
    good(&mut house, "POST", "/api/push", &json!({"to": {"user": "ann"}, "body": 1}));
    good(&mut house, "POST", "/api/kick", &json!({"user": "ann"}));
    bad(&mut house, &bare("GET", "/api/sessions", ""));
    bad(&mut house, &with_key("GET", "/api/nope", ""));
    let mut page = with_key("GET", "/api/sessions", "");
    page.headers.push("Origin", "null");
    bad(&mut house, &page);
    let status = house.worker.in_master(|master| house.app.status(master));
    let expected = json!({
        "ok": 2, "unauthorized": 1, "forbidden": 1, "rejected": 1, "unavailable": 0,
        "pushed": 1, "kicked": 1,
    });
    assert_eq!(status["api"], expected);
}
