//! The session against a server played by hand, and against one played by dice.

use super::*;
use crate::chat::outgoing::SEND_TIMEOUT_MS;
use dunlin_server::exit::ExitCode;
use proptest::prelude::*;

/// A session and everything it has asked for.
struct Desk {
    state: State,
    now: Millis,
    sent: Vec<Json>,
    told: Vec<News>,
    opens: usize,
    closes: usize,
    token_reads: usize,
    ended: Option<Ending>,
}

impl Desk {
    fn with(identity: Identity) -> Self {
        let state = State::new(Millis(1_000), identity, "base".to_owned(), 7);
        let mut desk = Self {
            state,
            now: Millis(1_000),
            sent: Vec::new(),
            told: Vec::new(),
            opens: 0,
            closes: 0,
            token_reads: 0,
            ended: None,
        };
        desk.settle();
        desk
    }

    fn ann() -> Self {
        Self::with(identity())
    }

    fn settle(&mut self) {
        while let Some(action) = self.state.take_action() {
            assert!(self.ended.is_none(), "nothing comes behind the end: {action:?}");
            match action {
                Action::Open => self.opens += 1,
                Action::Close => self.closes += 1,
                Action::ReadToken => self.token_reads += 1,
                Action::Send(text) => self.sent.push(serde_json::from_str(&text).unwrap()),
                Action::Tell(news) => self.told.push(news),
                Action::End(ending) => self.ended = Some(ending),
            }
        }
    }

    fn hear(&mut self, frame: &Json) {
        self.state.hear(self.now, &frame.to_string());
        self.settle();
    }

    fn notify(&mut self, method: &str, params: Json) {
        self.hear(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Answers the oldest request of this method that is not answered.
    fn answer(&mut self, method: &str, result: Json) {
        let request = self.take(method);
        self.hear(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
    }

    fn refuse(&mut self, method: &str, code: i64, reason: &str, retry_after_ms: Option<u64>) {
        let request = self.take(method);
        let mut data = json!({"reason": reason});
        if let Some(ms) = retry_after_ms {
            data["retry_after_ms"] = json!(ms);
        }
        let error = json!({"code": code, "message": format!("no: {reason}"), "data": data});
        self.hear(&json!({"jsonrpc": "2.0", "id": request["id"], "error": error}));
    }

    fn take(&mut self, method: &str) -> Json {
        let place = self.sent.iter().position(|sent| sent["method"] == method);
        self.sent.remove(place.unwrap_or_else(|| panic!("no {method} in {:?}", self.sent)))
    }

    fn methods(&self) -> Vec<&str> {
        self.sent.iter().filter_map(|sent| sent["method"].as_str()).collect()
    }

    fn greet(&mut self) {
        let reconnect = json!({"base_ms": 100, "max_ms": 1_000, "jitter": 0.5});
        self.notify("hello", json!({"max_message": 1_000, "reconnect": reconnect}));
    }

    fn log_in(&mut self) {
        self.greet();
        self.answer("login", json!({"user": "ann", "heartbeat_ms": 30_000, "time": 5}));
    }

    fn close(&mut self, code: u16) {
        self.state.closed(self.now, code, "");
        self.sent.clear();
        self.settle();
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + ms;
        self.state.expire(self.now);
        self.settle();
    }

    /// To the next moment at which something is due.
    fn pass_to_due(&mut self) -> u64 {
        let due = self.state.next_due().expect("something is due");
        let ms = due.since(self.now);
        self.pass(ms);
        ms
    }

    fn say(&mut self, text: &str) {
        let to = Target::User("bob".to_owned());
        assert!(self.state.send(self.now, to, text.to_owned()).is_some());
        self.settle();
    }

    fn verdicts(&self) -> Vec<(String, bool)> {
        let verdict = |news: &News| match news {
            News::Sent { message, .. } => Some((message.text.clone(), true)),
            News::NotSent { message, .. } => Some((message.text.clone(), false)),
            _ => None,
        };
        self.told.iter().filter_map(verdict).collect()
    }
}

fn identity() -> Identity {
    Identity {
        user: Some("ann".to_owned()),
        token: None,
        renews: false,
        device: json!({"id": "d"}),
    }
}

#[test]
fn rooms_are_joined_before_anything_is_sent_there_and_again_after_each_return() {
    let mut desk = Desk::ann();
    desk.state.join("tea");
    desk.state.watch(&["bob".to_owned()]);
    desk.say("before");
    assert_eq!((desk.opens, desk.methods()), (1, vec![]));
    for round in 0..3 {
        desk.log_in();
        assert_eq!(desk.methods(), ["join", "watch"], "round {round}");
        desk.answer("join", json!({"room": "tea", "count": 1}));
        let expected =
            if round == 0 { vec!["watch", "members", "send"] } else { vec!["watch", "members"] };
        assert_eq!(desk.methods(), expected);
        if round == 0 {
            desk.answer("send", json!({"id": "1", "time": 9, "sessions": 1}));
        }
        desk.close(1012);
        assert_eq!(desk.opens, round + 1);
        desk.pass_to_due();
        assert_eq!(desk.opens, round + 2);
    }
    assert_eq!(desk.verdicts(), [("before".to_owned(), true)]);
}

#[test]
fn what_is_unanswered_is_repeated_under_its_key_and_in_its_order() {
    let mut desk = Desk::ann();
    desk.log_in();
    desk.say("a");
    desk.say("b");
    let first = desk.take("send");
    assert_eq!(first["params"]["key"], "base-1");
    desk.close(1006);
    desk.pass_to_due();
    desk.log_in();
    let again = desk.take("send");
    assert_eq!(again["params"], first["params"]);
    assert_ne!(again["id"], first["id"]);
    desk.hear(&json!({"id": first["id"], "result": {}}));
    assert_eq!(desk.verdicts(), [], "an answer to the request of another connection is none");
    desk.hear(&json!({"id": again["id"], "result": {"time": 1, "sessions": 0}}));
    assert_eq!(desk.take("send")["params"]["key"], "base-2");
    assert_eq!(desk.verdicts(), [("a".to_owned(), true)]);
}

#[test]
fn a_message_that_is_refused_for_a_moment_is_repeated_and_overtaken_by_none() {
    let mut desk = Desk::ann();
    desk.log_in();
    desk.say("a");
    desk.say("b");
    desk.refuse("send", -32002, "rate_limited", Some(70));
    assert_eq!(desk.methods(), Vec::<&str>::new());
    assert_eq!(desk.pass_to_due(), 70);
    assert_eq!(desk.sent[0]["params"]["key"], "base-1");
    desk.refuse("send", -32003, "not_a_member", None);
    assert_eq!(desk.sent[0]["params"]["key"], "base-2");
    desk.pass(SEND_TIMEOUT_MS);
    assert_eq!(desk.verdicts(), [("a".to_owned(), false), ("b".to_owned(), false)]);
}

#[test]
fn what_is_longer_than_the_server_takes_is_not_sent() {
    let mut desk = Desk::ann();
    desk.log_in();
    desk.say(&"x".repeat(900));
    desk.say("short");
    assert_eq!(desk.sent[0]["params"]["body"]["text"], "short");
    assert_eq!(desk.verdicts().len(), 1);
}

#[test]
fn close_codes_and_bye_decide_whether_and_when_it_comes_back() {
    for (code, bye, comes_back, least, most) in [
        (1012, None, true, 50, 100),
        (4002, None, true, 50, 100),
        (1001, Some(json!({"reconnect": true, "after_ms": [500, 2_000]})), true, 500, 2_000),
        (4510, Some(json!({"reconnect": false, "reason": "replaced"})), false, 0, 0),
        (4502, None, false, 0, 0),
        (1008, None, false, 0, 0),
        (1000, None, false, 0, 0),
    ] {
        let mut desk = Desk::ann();
        desk.log_in();
        if let Some(bye) = bye {
            desk.notify("bye", bye);
            desk.say("after the bye");
            assert_eq!(desk.methods(), Vec::<&str>::new(), "what is sent after a bye is not read");
        }
        desk.close(code);
        assert_eq!(desk.ended.is_none(), comes_back, "{code}");
        if comes_back {
            let waited = desk.pass_to_due();
            assert!((least..=most).contains(&waited), "{code}: {waited} ms");
            assert_eq!(desk.opens, 2);
        } else {
            let ending = desk.ended.unwrap();
            assert_eq!(ending.code, ExitCode::Failed);
            assert!(ending.line.unwrap().contains(&code.to_string()));
        }
    }
}

#[test]
fn waits_grow_with_each_failure_and_begin_anew_after_a_login() {
    let mut desk = Desk::ann();
    desk.log_in();
    let mut longest = Vec::new();
    desk.close(1006);
    for _ in 0..5 {
        let waited = desk.pass_to_due();
        longest.push(waited);
        desk.state.open_failed(
            desk.now,
            &OpenFailure::NoServer { place: "p".to_owned(), why: "refused".to_owned() },
        );
        desk.settle();
    }
    for (waited, most) in longest.iter().zip([100, 200, 400, 800, 1_000]) {
        assert!((most / 2..=most).contains(waited), "{longest:?}");
    }
    desk.pass_to_due();
    desk.log_in();
    desk.close(1006);
    assert!(desk.pass_to_due() <= 100);
    assert!(desk.ended.is_none());
}

#[test]
fn a_first_attempt_that_fails_is_the_last_and_says_why() {
    let place = || "ws://h/ws".to_owned();
    for (failure, code, word) in [
        (
            OpenFailure::NoServer { place: place(), why: "refused".to_owned() },
            ExitCode::NotRunning,
            "refused",
        ),
        (OpenFailure::Full { retry_after_s: Some(3) }, ExitCode::Failed, "try again in 3 s"),
        (OpenFailure::Http { place: place(), status: 404 }, ExitCode::Failed, "404"),
        (OpenFailure::TimedOut, ExitCode::Failed, "in time"),
    ] {
        let mut desk = Desk::ann();
        desk.state.open_failed(desk.now, &failure);
        desk.settle();
        let ending = desk.ended.unwrap();
        assert_eq!(ending.code, code);
        assert!(ending.line.as_ref().unwrap().contains(word), "{ending:?}");
    }
    // Nor one in which nothing comes of the login.
    let mut desk = Desk::ann();
    desk.greet();
    assert_eq!(desk.pass_to_due(), CONNECT_TIMEOUT_MS);
    assert_eq!(desk.ended.unwrap().code, ExitCode::Failed);
}

#[test]
fn a_full_server_is_asked_again_when_it_said() {
    let mut desk = Desk::ann();
    desk.log_in();
    desk.close(1013);
    desk.pass_to_due();
    desk.state.open_failed(desk.now, &OpenFailure::Full { retry_after_s: Some(5) });
    desk.settle();
    assert_eq!(desk.pass_to_due(), 5_000);
    assert_eq!(desk.opens, 3);
}

#[test]
fn a_refused_login_ends_it_unless_it_may_help_to_wait() {
    let mut desk = Desk::ann();
    desk.greet();
    desk.refuse("login", -32006, "backend_unavailable", Some(4_000));
    assert_eq!(desk.pass_to_due(), 4_000);
    desk.greet();
    desk.refuse("login", -32003, "denied", None);
    let ending = desk.ended.unwrap();
    assert_eq!((ending.code, desk.closes), (ExitCode::Failed, 2));
    assert!(ending.line.unwrap().contains("no: denied (denied)"));
}

#[test]
fn the_token_must_be_of_the_user_that_was_named() {
    let identity = Identity { token: Some("t".to_owned()), ..identity() };
    let mut desk = Desk::with(identity);
    desk.greet();
    assert_eq!(desk.sent[0]["params"], json!({"token": "t", "device": {"id": "d"}}));
    desk.answer("login", json!({"user": "bob", "heartbeat_ms": 30_000, "time": 5}));
    assert!(desk.ended.unwrap().line.unwrap().contains("\"bob\", not as \"ann\""));
}

#[test]
fn a_token_of_a_file_is_renewed_before_it_ends_and_after_it_has() {
    let mut desk =
        Desk::with(Identity { token: Some("t1".to_owned()), renews: true, ..identity() });
    desk.greet();
    let account = json!({"user": "ann", "heartbeat_ms": 900_000, "time": 5, "expires": 10_005});
    desk.answer("login", account.clone());
    assert_eq!((desk.pass_to_due(), desk.token_reads), (8_000, 1));
    desk.state.token_read(Some("t1".to_owned()));
    desk.settle();
    assert_eq!(desk.methods(), Vec::<&str>::new(), "the same token is of no use");
    desk.state.token_read(Some("t2".to_owned()));
    desk.settle();
    assert_eq!(desk.take("refresh")["params"], json!({"token": "t2"}));
    // It was over all the same: once more with what the file has then.
    desk.close(4502);
    assert_eq!((desk.token_reads, desk.ended.is_none()), (2, true));
    desk.state.token_read(Some("t3".to_owned()));
    desk.pass_to_due();
    desk.greet();
    assert_eq!(desk.sent[0]["params"]["token"], "t3");
    desk.refuse("login", -32001, "token_expired", None);
    assert!(desk.ended.is_some(), "what is refused behind a failure stays refused");
}

#[test]
fn a_message_is_told_once_and_news_of_presence_only_if_newer() {
    let mut desk = Desk::ann();
    desk.state.watch(&["bob".to_owned()]);
    desk.log_in();
    let message = json!({"id": "m1", "from": {"user": "bob", "device": "x"}, "to": {"user": "ann"},
        "body": {"text": "tea?"}, "time": 5});
    desk.notify("message", message.clone());
    desk.notify("message", message);
    for (version, online) in [(5, true), (4, false), (5, false), (6, false)] {
        desk.notify(
            "presence",
            json!({"user": "bob", "online": online, "devices": [], "version": version}),
        );
    }
    let messages = desk.told.iter().filter(|news| matches!(news, News::Message(_))).count();
    let states: Vec<bool> = desk
        .told
        .iter()
        .filter_map(|news| match news {
            News::Presence { online, .. } => Some(*online),
            _ => None,
        })
        .collect();
    assert_eq!((messages, states), (1, vec![true, false]));
}

#[test]
fn a_server_that_says_nothing_is_left() {
    let mut desk = Desk::ann();
    desk.log_in();
    assert_eq!(desk.pass_to_due(), 10_000);
    desk.answer("ping", json!({"time": 1}));
    desk.pass_to_due();
    desk.state.heard_something();
    desk.pass_to_due();
    assert!(desk.state.phase == Phase::Online, "a late answer is no silence");
    desk.pass_to_due();
    assert_eq!(
        (desk.state.phase == Phase::Online, desk.closes, desk.ended.is_none()),
        (false, 1, true)
    );
}

#[test]
fn it_ends_when_everything_is_sent_and_no_earlier() {
    let mut desk = Desk::ann();
    desk.say("a");
    desk.state.finish();
    desk.log_in();
    assert!(desk.ended.is_none());
    desk.answer("send", json!({"time": 1, "sessions": 1}));
    assert_eq!(desk.ended, Some(Ending::done()));
    let mut idle = Desk::ann();
    idle.state.finish();
    idle.settle();
    assert!(idle.ended.is_none(), "whether the login works is worth knowing");
    idle.log_in();
    assert_eq!(idle.ended, Some(Ending::done()));
}

#[test]
fn no_more_people_are_watched_than_servers_allow() {
    let mut desk = Desk::ann();
    desk.log_in();
    let names: Vec<String> = (0..WATCHED_MAX + 5).map(|n| format!("u{n}")).collect();
    desk.state.watch(&names);
    desk.state.watch(&names);
    desk.settle();
    assert_eq!(desk.take("watch")["params"]["users"].as_array().unwrap().len(), WATCHED_MAX);
    assert_eq!(desk.methods(), Vec::<&str>::new());
}

/// What may happen to a session.
#[derive(Clone, Debug)]
enum Step {
    Say,
    /// The server takes the oldest request, and its answer arrives, or is lost.
    Serve {
        lost: bool,
    },
    /// It refuses it for a moment.
    Busy,
    Close(u16),
    Pass(u64),
    /// A frame of anybody's making.
    Nonsense(String),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Say),
        6 => any::<bool>().prop_map(|lost| Step::Serve { lost }),
        1 => Just(Step::Busy),
        1 => prop_oneof![Just(1001), Just(1006), Just(1012), Just(4002)].prop_map(Step::Close),
        3 => (0_u64..3_000).prop_map(Step::Pass),
        1 => prop_oneof![
            ".{0,20}",
            Just("{\"method\":\"message\",\"params\":{\"id\":\"x\"}}".to_owned()),
            Just("{\"method\":\"presence\",\"params\":{\"user\":1,\"version\":-1}}".to_owned()),
            Just("{\"id\":1,\"error\":{}}".to_owned()),
            Just("{\"method\":\"bye\"}".to_owned()),
        ].prop_map(Step::Nonsense),
    ]
}

/// A server that knows keys, as far as one connection matters.
#[derive(Default)]
struct Played {
    /// Keys in the order in which their messages were first taken.
    taken: Vec<String>,
    opens: usize,
}

impl Played {
    /// Takes the oldest request; its answer arrives unless it is lost.
    fn serve(&mut self, desk: &mut Desk, lost: bool) {
        if desk.sent.is_empty() {
            return;
        }
        let request = desk.sent.remove(0);
        let result = match request["method"].as_str().unwrap() {
            "login" => json!({"user": "ann", "heartbeat_ms": 600_000, "time": 5}),
            "send" => {
                let key = request["params"]["key"].as_str().unwrap().to_owned();
                if !self.taken.contains(&key) {
                    self.taken.push(key);
                }
                json!({"id": "1", "time": 1, "sessions": 1})
            }
            _ => json!({}),
        };
        if !lost {
            desk.hear(&json!({"id": request["id"], "result": result}));
        }
    }

    fn open_if_asked(&mut self, desk: &mut Desk) {
        if self.opens < desk.opens {
            self.opens = desk.opens;
            desk.sent.clear();
            desk.greet();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is lost, refused, closed or said: each message has one verdict, in the order they were
    /// typed; what is told as sent was taken once; the order in which they were taken is theirs.
    #[test]
    fn each_message_is_sent_once_and_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut desk = Desk::ann();
        let mut server = Played::default();
        server.open_if_asked(&mut desk);
        server.serve(&mut desk, false);
        let mut said = 0;
        for step in steps {
            match step {
                Step::Say => {
                    said += 1;
                    desk.say(&format!("{said}"));
                }
                Step::Serve { lost } => server.serve(&mut desk, lost),
                Step::Busy if desk.methods().first() == Some(&"send") => {
                    desk.refuse("send", -32006, "busy", Some(100));
                }
                Step::Busy => {}
                Step::Close(code) => desk.close(code),
                Step::Pass(ms) => desk.pass(ms),
                Step::Nonsense(text) => {
                    desk.state.hear(desk.now, &text);
                    desk.settle();
                }
            }
            server.open_if_asked(&mut desk);
            let under_way = desk.methods().iter().filter(|method| **method == "send").count();
            prop_assert!(under_way <= 1);
            prop_assert!(desk.ended.is_none(), "{:?}", desk.ended);
        }
        // Whatever is still open: the server is well again, and everything is answered.
        desk.close(1006);
        for _ in 0..4 * said + 20 {
            if desk.state.unsent() == 0 {
                break;
            }
            if desk.sent.is_empty() {
                desk.pass_to_due();
            }
            server.open_if_asked(&mut desk);
            server.serve(&mut desk, false);
        }
        let verdicts = desk.verdicts();
        let order: Vec<String> = verdicts.iter().map(|(text, _)| text.clone()).collect();
        let expected: Vec<String> = (1..=said).map(|number| number.to_string()).collect();
        prop_assert_eq!(&order, &expected);
        let keys: Vec<u64> =
            server.taken.iter().map(|key| key["base-".len()..].parse().unwrap()).collect();
        prop_assert!(keys.is_sorted(), "{keys:?}");
        for (text, sent) in verdicts {
            let taken = server.taken.contains(&format!("base-{text}"));
            prop_assert!(!sent || taken, "{text} was told as sent");
        }
    }
}
