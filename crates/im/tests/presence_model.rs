//! Whatever comes, in whatever order news arrive and whoever dies over what: in the end every watcher's
//! latest version is the truth.

use crate::support::town::{Town, devices};
use dunlin_server::{ClosedBy, ConnId};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const USERS: [&str; 3] = ["ann", "bob", "zoë"];
const WORKERS: u16 = 2;
const CONNECTIONS: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    Login {
        conn: usize,
        user: usize,
        device: u8,
    },
    Logout(usize),
    Close(usize),
    Lose(usize),
    Watch(usize, BTreeSet<usize>),
    Unwatch(usize, BTreeSet<usize>),
    Ask(usize, BTreeSet<usize>),
    Pass(u64),
    /// News are held back from now on.
    Hold,
    /// They arrive, the last first.
    Release,
    /// The worker of a connection ends its login in good order, and dies before anybody hears of it.
    DieOverClose(usize),
    /// A worker dies over the next timer.
    DieOverTimer(usize),
    /// A worker is replaced while it rests.
    Replace(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let conn = || 0..CONNECTIONS;
    let users = || prop::collection::btree_set(0..USERS.len(), 0..3);
    prop_oneof![
        6 => (conn(), 0..USERS.len(), 0..2_u8)
            .prop_map(|(conn, user, device)| Step::Login { conn, user, device }),
        2 => conn().prop_map(Step::Logout),
        2 => conn().prop_map(Step::Close),
        1 => conn().prop_map(Step::Lose),
        4 => (conn(), users()).prop_map(|(conn, users)| Step::Watch(conn, users)),
        2 => (conn(), users()).prop_map(|(conn, users)| Step::Unwatch(conn, users)),
        1 => (conn(), users()).prop_map(|(conn, users)| Step::Ask(conn, users)),
        3 => prop::sample::select(vec![1_u64, 50, 100, 5_000]).prop_map(Step::Pass),
        1 => Just(Step::Hold),
        1 => Just(Step::Release),
        1 => conn().prop_map(Step::DieOverClose),
        1 => (0..usize::from(WORKERS)).prop_map(Step::DieOverTimer),
        1 => (0..usize::from(WORKERS)).prop_map(Step::Replace),
    ]
}

/// What the clients know, beside a town.
struct Model {
    town: Town,
    conns: Vec<ConnId>,
    /// Who is logged in where.
    rows: BTreeMap<ConnId, (usize, String)>,
    watched: BTreeMap<ConnId, BTreeSet<usize>>,
    /// What a client believes of those it watches: the state with the largest version.
    beliefs: BTreeMap<(ConnId, usize), Value>,
}

impl Model {
    fn new(debounce: &str) -> Self {
        // One entry of the table is reached again and again.
        let words = [("im.presence_debounce", debounce), ("table.watches", "9")];
        let mut town = Town::new(WORKERS, &words);
        let conns =
            (0..CONNECTIONS).map(|number| town.open(number % usize::from(WORKERS))).collect();
        let (rows, watched, beliefs) = Default::default();
        Self { town, conns, rows, watched, beliefs }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Login { conn, user, device } => {
                let (conn, device) = (self.conns[conn], format!("d{device}"));
                let params = json!({"user": USERS[user], "device": {"id": device}});
                let answer = self.town.call(conn, "login", params);
                if answer["result"].is_object() {
                    self.rows.insert(conn, (user, device));
                }
                self.close_replaced();
            }
            Step::Logout(conn) => {
                self.town.call(self.conns[conn], "logout", json!({}));
                self.forget(self.conns[conn]);
            }
            Step::Close(place) => {
                self.town.close(self.conns[place], ClosedBy::Client);
                self.renew(place);
            }
            Step::Lose(place) => {
                self.town.lose(self.conns[place]);
                self.renew(place);
            }
            Step::Watch(conn, users) => self.ask(conn, "watch", &users),
            Step::Unwatch(conn, users) => self.ask(conn, "unwatch", &users),
            Step::Ask(conn, users) => self.ask(conn, "presence", &users),
            Step::Pass(ms) => self.town.pass(ms),
            Step::Hold => self.town.hold = true,
            Step::Release => self.town.release_reversed(),
            Step::DieOverClose(place) => {
                let conn = self.conns[place];
                let close = |town: &mut Town| town.close_quietly(conn, ClosedBy::Client);
                self.town.die_over(place % usize::from(WORKERS), close);
                self.renew(place);
            }
            Step::DieOverTimer(worker) => self.town.die_over_timer(worker),
            Step::Replace(worker) => self.town.replace(worker),
        }
        self.listen();
    }

    fn ask(&mut self, place: usize, method: &str, users: &BTreeSet<usize>) {
        let conn = self.conns[place];
        let names: Vec<&str> = users.iter().map(|user| USERS[*user]).collect();
        let answer = self.town.call(conn, method, json!({"users": names}));
        let watched = self.watched.entry(conn).or_default();
        match (method, answer["error"]["code"].as_i64()) {
            ("watch", None) => watched.extend(users),
            ("unwatch", None) => users.iter().for_each(|user| {
                watched.remove(user);
                self.beliefs.remove(&(conn, *user));
            }),
            (_, None | Some(-32000)) | ("watch", Some(-32007)) => {}
            (_, Some(_)) => panic!("{answer}"),
        }
        for user in users {
            if let Some(state) = answer["result"]["users"].get(USERS[*user]) {
                self.believe(conn, *user, state.clone());
            }
        }
    }

    fn listen(&mut self) {
        for conn in self.conns.clone() {
            for state in self.town.news(conn) {
                let user = USERS.iter().position(|user| state["user"] == *user).unwrap();
                self.believe(conn, user, state);
            }
        }
    }

    fn believe(&mut self, conn: ConnId, user: usize, state: Value) {
        if !self.watched.get(&conn).is_some_and(|watched| watched.contains(&user)) {
            return;
        }
        let belief = self.beliefs.entry((conn, user)).or_insert(Value::Null);
        if belief["version"].as_u64() < state["version"].as_u64() {
            *belief = state;
        }
    }

    /// Sessions that a login has left no place for end like any other.
    fn close_replaced(&mut self) {
        for (conn, _) in std::mem::take(&mut self.town.closed) {
            if let Some(place) = self.conns.iter().position(|known| *known == conn) {
                self.town.close(conn, ClosedBy::Server);
                self.renew(place);
            }
        }
    }

    fn renew(&mut self, place: usize) {
        self.forget(self.conns[place]);
        self.conns[place] = self.town.open(place % usize::from(WORKERS));
    }

    fn forget(&mut self, conn: ConnId) {
        self.rows.remove(&conn);
        self.watched.remove(&conn);
        self.beliefs.retain(|(watcher, _), _| *watcher != conn);
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        self.town.release_reversed();
        // Every timer comes due, and what those arm.
        self.town.pass(60_000);
        self.listen();
        let mut watches = 0;
        for (conn, watched) in &self.watched {
            watches += watched.len() as u64;
            for user in watched {
                let mut truth: Vec<&str> = self
                    .rows
                    .values()
                    .filter_map(|row| (row.0 == *user).then_some(&*row.1))
                    .collect();
                truth.sort_unstable();
                let belief = &self.beliefs[&(*conn, *user)];
                prop_assert_eq!(devices(belief), truth, "{} of {}: {}", conn, USERS[*user], belief);
            }
        }
        prop_assert_eq!(self.town.timers(), 0);
        prop_assert_eq!(self.town.status("watches"), watches, "nothing is left behind");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_the_end_every_watcher_knows_the_truth(
        debounce in prop::sample::select(vec!["0s", "100ms"]),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut model = Model::new(debounce);
        for step in steps {
            model.step(step);
        }
        model.check()?;
    }
}
