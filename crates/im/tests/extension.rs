//! What a program adds to the IM: methods, rules, columns, through the hooks.

use crate::support::{House, request, settings};
use dunlin_im::ids::RoomId;
use dunlin_im::protocol::params::Target;
use dunlin_im::protocol::{CallError, Code};
use dunlin_im::{CallContext, Extension, ImApp, LoginAttempt, read_params};
use dunlin_server::settings::Settings;
use dunlin_server::{
    App, AreaRequest, Closed, ClosedBy, ConnId, MasterContext, Message, PushError, SlotId,
};
use dunlin_table::{Column, ColumnKind};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// Counts in a column and an area, and has a rule of each kind.
struct Game {
    /// Of the last reload.
    heartbeat_ms: u64,
}

#[derive(Deserialize)]
struct Move {
    by: u64,
}

impl Game {
    fn count(caller: &CallContext<'_>, word: usize) {
        caller.area("game.counts").unwrap()[word].fetch_add(1, Ordering::Relaxed);
    }
}

impl Extension for Game {
    fn columns(&self) -> Vec<Column> {
        vec![Column { name: "moves".into(), kind: ColumnKind::Counter }]
    }

    fn areas(&self) -> Vec<AreaRequest> {
        vec![AreaRequest { name: "game.counts", words: 2 }]
    }

    fn layout_version(&self) -> u16 {
        7
    }

    fn methods(&self) -> &[&str] {
        &["game.move", "game.tell", "game.end", "game.none"]
    }

    fn reload(&mut self, settings: &Settings) -> Result<(), String> {
        self.heartbeat_ms = settings.duration_ms("im.heartbeat");
        if self.heartbeat_ms == 1_000 { Err("not so fast".into()) } else { Ok(()) }
    }

    fn status(&self, master: &MasterContext<'_>) -> Value {
        let counts = master.areas.words("game.counts").unwrap();
        let [arrived, departed] = [0, 1].map(|word| counts[word].load(Ordering::Relaxed));
        json!({"arrived": arrived, "departed": departed, "heartbeat_ms": self.heartbeat_ms})
    }

    fn may_login(&self, login: &LoginAttempt<'_>) -> Result<(), CallError> {
        #[derive(Deserialize)]
        struct Ticket {
            ticket: Option<String>,
        }
        let Ticket { ticket } = read_params(login.params)?;
        if login.user.as_str() == "vip" && ticket.as_deref() != Some("gold") {
            return Err(CallError::new(Code::AuthFailed, "no ticket").because("no_ticket"));
        }
        assert!(login.table.is_established(login.session) && login.claims.is_none());
        Ok(())
    }

    fn may_send(
        &self,
        caller: &CallContext<'_>,
        to: &Target<'_>,
        body: &RawValue,
    ) -> Result<(), CallError> {
        let to_self = matches!(to, Target::User(user) if user.as_str() == caller.user());
        if to_self || body.get() == "\"spam\"" {
            return Err(CallError::new(Code::Forbidden, "no").because("rule"));
        }
        Ok(())
    }

    fn may_join(&self, _: &CallContext<'_>, room: &RoomId<'_>) -> Result<(), CallError> {
        match room.as_str() {
            "closed" => Err(CallError::new(Code::Forbidden, "no").because("rule")),
            _ => Ok(()),
        }
    }

    fn call(
        &self,
        caller: &mut CallContext<'_>,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Value, CallError> {
        match method {
            "game.move" => {
                let Move { by } = read_params(params)?;
                let moves = caller.counter("moves").unwrap().fetch_add(by, Ordering::Relaxed) + by;
                assert!(caller.counter("im_no_such").is_none());
                Ok(json!({"moves": moves, "device": caller.device(), "kind": caller.device_kind()}))
            }
            "game.tell" => {
                let told = caller.notify_user("bob", "game.told", &json!({"by": caller.user()}));
                let own = caller.notify(caller.session(), "game.told", &json!(told));
                let nobody = caller.notify(ConnId::from_bits(7), "game.told", &json!(null));
                assert_eq!((own, nobody), (Ok(()), Err(PushError::NotOpen)));
                Ok(json!(told))
            }
            "game.end" => {
                let bob = caller.sessions_of("bob");
                let closed = bob.iter().filter(|conn| caller.close(**conn, 4600, "game over"));
                Ok(json!(closed.count()))
            }
            _ => Err(CallError::new(Code::NotFound, "none").because("no_game").retry_after(5)),
        }
    }

    fn arrived(&self, caller: &mut CallContext<'_>) {
        assert!(caller.sessions_of(caller.user()).contains(&caller.session()));
        Self::count(caller, 0);
    }

    fn departed(&self, caller: &mut CallContext<'_>) {
        assert!(!caller.sessions_of(caller.user()).contains(&caller.session()));
        Self::count(caller, 1);
    }
}

fn house() -> House {
    let app = ImApp::new(&settings(&[])).unwrap();
    House::of(app.with_extension(Game { heartbeat_ms: 0 }).unwrap(), 8)
}

fn counts(house: &House) -> (u64, u64) {
    let status = house.worker.in_master(|master| house.app.status(master));
    let count = |name: &str| status["extension"][name].as_u64().unwrap();
    (count("arrived"), count("departed"))
}

#[test]
fn own_methods_are_called_by_sessions_that_are_logged_in() {
    let mut house = house();
    let conn = house.open();
    assert_eq!(house.fail(conn, "game.move", json!({"by": 1})).0, -32000);
    let (ann, bob) = (house.login("ann", "p"), house.login("bob", "q"));
    let answer = house.call(ann, "game.move", json!({"by": 2}));
    assert_eq!(answer["result"], json!({"moves": 2, "device": "p", "kind": "k"}));
    assert_eq!(house.call(ann, "game.move", json!({"by": 3}))["result"]["moves"], 5);
    assert_eq!(house.call(bob, "game.move", json!({"by": 1}))["result"]["moves"], 1);
    for wrong in [json!({}), json!([]), json!({"by": -1}), json!({"by": "1"})] {
        let answer = house.call(ann, "game.move", wrong);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(answer["error"]["code"] == -32602 && message.starts_with("params"), "{answer}");
    }
    let answer = house.call(ann, "game.none", json!(null));
    assert_eq!(answer["error"]["data"], json!({"reason": "no_game", "retry_after_ms": 5}));
    assert_eq!(house.fail(ann, "game.nope", json!({})).0, -32601);
    // A notification is done, and gets no answer.
    let said = house.say(ann, r#"{"method":"game.move","params":{"by":1}}"#);
    assert!(said.answers.is_empty());
    assert_eq!(house.call(ann, "game.move", json!({"by": 0}))["result"]["moves"], 6);
}

#[test]
fn a_new_session_in_the_same_row_has_its_own_columns() {
    let mut house = house();
    let ann = house.login("ann", "p");
    house.call(ann, "game.move", json!({"by": 9}));
    house.drop_connection(ann);
    let bob = house.login("bob", "p");
    assert_eq!(bob.row().index, ann.row().index);
    assert_eq!(house.call(bob, "game.move", json!({"by": 1}))["result"]["moves"], 1);
}

#[test]
fn an_extension_speaks_to_users_on_all_workers_and_closes_their_sessions() {
    let mut house = house();
    let ann = house.login("ann", "p");
    let mut sibling = house.worker.sibling(SlotId(1));
    let bob = sibling.open(&mut house.app, "192.0.2.9:1".parse().unwrap(), "/ws");
    let login = request("login", json!({"user": "bob", "device": {"id": "q"}}));
    house.app.message(&mut sibling.context(), bob, Message::Text(&login));
    let said = house.say(ann, &request("game.tell", json!({})));
    assert_eq!(said.answers[0]["result"], 1);
    assert_eq!(said.told[0].0, bob);
    assert_eq!(said.told[0].1["method"], "game.told");
    assert_eq!(said.told[0].1["params"], json!({"by": "ann"}));
    assert_eq!((said.told[1].0, &said.told[1].1["params"]), (ann, &json!(1)));
    let said = house.say(ann, &request("game.end", json!({})));
    assert_eq!((&said.answers[0]["result"], &said.closed), (&json!(1), &vec![(bob, 4600)]));
    let bye = &said.told[0].1;
    assert_eq!((&bye["method"], &bye["params"]["reconnect"]), (&json!("bye"), &json!(false)));
    assert_eq!(bye["params"]["reason"], "game over");
}

#[test]
fn rules_are_asked_before_anything_is_done() {
    let mut house = house();
    let conn = house.open();
    let device = json!({"id": "d"});
    let login = |ticket: Value| json!({"user": "vip", "device": device, "ticket": ticket});
    assert_eq!(house.fail(conn, "login", login(json!("tin"))), (-32001, "no_ticket".into()));
    assert_eq!(house.fail(conn, "login", login(json!(7))).0, -32602);
    assert_eq!(house.fail(conn, "sessions", json!(null)).0, -32000, "it is not logged in");
    assert_eq!(counts(&house), (0, 0));
    assert!(house.call(conn, "login", login(json!("gold")))["result"].is_object());
    let bob = house.login("bob", "p");
    for method in ["send", "signal"] {
        let spam = json!({"to": {"user": "bob"}, "body": "spam"});
        let said = house.say(conn, &request(method, spam));
        assert_eq!(said.answers[0]["error"]["data"]["reason"], "rule", "{method}");
        assert!(said.told.is_empty());
        let to_self = json!({"to": {"user": "bob"}, "body": 1});
        assert_eq!(house.fail(bob, method, to_self), (-32003, "rule".into()));
        let fine = json!({"to": {"user": "bob"}, "body": "ham"});
        assert!(house.call(conn, method, fine)["result"].is_object());
    }
    let join = |room: &str| json!({"room": room});
    assert_eq!(house.fail(conn, "join", join("closed")), (-32003, "rule".into()));
    assert_eq!(house.fail(conn, "members", join("closed")), (-32003, "not_a_member".into()));
    assert_eq!(house.call(conn, "join", join("open"))["result"]["count"], 1);
}

#[test]
fn each_login_is_told_and_its_end_once() {
    let mut house = house();
    let ann = house.login("ann", "p");
    assert_eq!(counts(&house), (1, 0));
    house.call(ann, "logout", json!(null));
    assert_eq!(counts(&house), (1, 1));
    house.drop_connection(ann);
    assert_eq!(counts(&house), (1, 1), "it had logged out");
    let bob = house.login("bob", "p");
    house.worker.lose(bob);
    let closed = Closed { code: 1012, reason: String::new(), by: ClosedBy::WorkerLost };
    house.worker.end(&mut house.app, bob, &closed);
    assert_eq!(counts(&house), (2, 2));
}

#[test]
fn a_reload_that_an_extension_refuses_changes_nothing() {
    let mut house = house();
    let (worker, app) = (&house.worker, &mut house.app);
    let fast = settings(&[("im.heartbeat", "1s"), ("im.max_body", "1")]);
    let refused = worker.in_master(|master| app.before_reload(master, &fast)).unwrap_err();
    assert_eq!(refused, "not so fast");
    let (ann, _) = (house.login("ann", "p"), house.login("bob", "p"));
    let long = json!({"to": {"user": "bob"}, "body": "longer than one byte"});
    assert!(house.call(ann, "send", long)["result"].is_object());
    let (worker, app) = (&house.worker, &mut house.app);
    let good = settings(&[("im.heartbeat", "7s")]);
    worker.in_master(|master| app.before_reload(master, &good)).unwrap();
    let status = worker.in_master(|master| app.status(master));
    assert_eq!(status["extension"]["heartbeat_ms"], 7_000);
}

#[test]
fn an_upgrade_sees_another_layout_of_an_extension() {
    let plain = ImApp::new(&settings(&[])).unwrap();
    let version = plain.layout_version();
    let extended = plain.with_extension(Game { heartbeat_ms: 0 }).unwrap();
    assert_eq!(extended.layout_version(), version + 7);
}

#[test]
fn names_of_the_ims_own_are_refused_with_a_sentence() {
    struct Taken;
    impl Extension for Taken {
        fn methods(&self) -> &[&str] {
            &["send"]
        }
    }
    let app = ImApp::new(&settings(&[])).unwrap();
    let refused = app.with_extension(Taken).expect_err("refused").to_string();
    assert_eq!(
        refused,
        "the extension's method \"send\" is a method of the IM: give it another name, such as app.send"
    );
}
