//! Rooms against a model: sessions of three users on two workers come, go, fall away and die in any order.

use crate::support::{House, Said, request};
use dunlin_server::simulation::FakeWorker;
use dunlin_server::{ConnId, SlotId};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const USERS: [&str; 3] = ["ann", "bob", "zoë"];
const ROOMS: [&str; 3] = ["tea", "milk", "sugar"];
const SESSIONS: usize = 6;

/// What a session, by its number, does next, or what happens to it.
#[derive(Clone, Debug)]
enum Step {
    Join(usize, usize),
    Leave(usize, usize),
    Logout(usize),
    /// Its transport ends, and another comes in its place.
    Drop(usize),
    /// Its worker dies with it in hand; the successor closes it when it is there.
    Lose(usize),
    Close(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let (session, room) = (0..SESSIONS, 0..ROOMS.len());
    prop_oneof![
        6 => (session.clone(), room.clone()).prop_map(|(session, room)| Step::Join(session, room)),
        3 => (session.clone(), room).prop_map(|(session, room)| Step::Leave(session, room)),
        1 => session.clone().prop_map(Step::Logout),
        1 => session.clone().prop_map(Step::Drop),
        1 => session.clone().prop_map(Step::Lose),
        1 => session.prop_map(Step::Close),
    ]
}

/// What there should be.
struct Model {
    conns: Vec<ConnId>,
    rooms: Vec<BTreeSet<usize>>,
    lost: BTreeSet<usize>,
}

impl Model {
    fn user(session: usize) -> &'static str {
        USERS[session % USERS.len()]
    }

    /// Live sessions that are in a room.
    fn members(&self, room: usize) -> BTreeSet<usize> {
        let is_live = |session: &usize| !self.lost.contains(session);
        let is_in = |session: &usize| self.rooms[*session].contains(&room);
        (0..SESSIONS).filter(is_in).filter(is_live).collect()
    }

    /// These rooms were left: one without a live member is gone, and with it what the lost had of it.
    fn leave(&mut self, left: &BTreeSet<usize>) {
        for room in left.iter().filter(|room| self.members(**room).is_empty()).collect::<Vec<_>>() {
            self.rooms.iter_mut().for_each(|rooms| _ = rooms.remove(room));
        }
    }

    fn users(&self, room: usize) -> BTreeSet<&'static str> {
        self.members(room).into_iter().map(Self::user).collect()
    }

    /// Who must be told what when a session's user has come or gone: to each its notification.
    fn news(&self, session: usize, room: usize, method: &str) -> BTreeSet<String> {
        let (user, name) = (Self::user(session), ROOMS[room]);
        let mut others = self.members(room);
        others.remove(&session);
        if others.iter().any(|other| Self::user(*other) == user) {
            return BTreeSet::new();
        }
        let count = self.users(room).len();
        let told = |other| format!("{} {method} {name} {user} {count}", self.conns[other]);
        others.into_iter().map(told).collect()
    }
}

fn told(said: &Said) -> BTreeSet<String> {
    let told: BTreeSet<String> = said
        .told
        .iter()
        .map(|(conn, value)| {
            let (method, params) = (value["method"].as_str().unwrap(), &value["params"]);
            let text = |name: &str| params[name].as_str().unwrap().to_owned();
            format!("{conn} {method} {} {} {}", text("room"), text("user"), params["count"])
        })
        .collect();
    assert_eq!(told.len(), said.told.len(), "nobody is told twice: {said:?}");
    told
}

fn login(house: &mut House, session: usize) -> ConnId {
    house.login(Model::user(session), &format!("d{session}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rooms_are_what_the_model_says(
        steps in prop::collection::vec((any_step(), any::<bool>()), 1..60),
    ) {
        let mut house = House::new(&[("table.rooms", "3")], 16);
        let mut sibling: FakeWorker = house.worker.sibling(SlotId(1));
        let conns = (0..SESSIONS).map(|session| login(&mut house, session)).collect();
        let mut model =
            Model { conns, rooms: vec![BTreeSet::new(); SESSIONS], lost: BTreeSet::new() };
        for (step, other_worker) in steps {
            if other_worker {
                std::mem::swap(&mut house.worker, &mut sibling);
            }
            match step {
                Step::Join(session, room) if !model.lost.contains(&session) => {
                    let conn = model.conns[session];
                    let is_new = model.rooms[session].insert(room);
                    let said = house.say(conn, &request("join", json!({"room": ROOMS[room]})));
                    let count = model.users(room).len();
                    prop_assert_eq!(said.answers[0]["result"]["count"].as_u64(), Some(count as u64));
                    let news = model.news(session, room, "joined");
                    prop_assert_eq!(told(&said), if is_new { news } else { BTreeSet::new() });
                }
                Step::Leave(session, room) if !model.lost.contains(&session) => {
                    let conn = model.conns[session];
                    let was_in = model.rooms[session].remove(&room);
                    let said = house.say(conn, &request("leave", json!({"room": ROOMS[room]})));
                    let count = if was_in { model.users(room).len() } else { 0 };
                    prop_assert_eq!(said.answers[0]["result"]["count"].as_u64(), Some(count as u64));
                    let news = model.news(session, room, "left");
                    prop_assert_eq!(told(&said), if was_in { news } else { BTreeSet::new() });
                    if was_in {
                        model.leave(&BTreeSet::from([room]));
                    }
                }
                Step::Logout(session) if !model.lost.contains(&session) => {
                    let conn = model.conns[session];
                    let left = std::mem::take(&mut model.rooms[session]);
                    let said = house.say(conn, &request("logout", json!({})));
                    let news = left.iter().flat_map(|room| model.news(session, *room, "left"));
                    prop_assert_eq!(told(&said), news.collect::<BTreeSet<_>>());
                    model.leave(&left);
                    let device = json!({"id": format!("d{session}")});
                    let login = json!({"user": Model::user(session), "device": device});
                    house.call(conn, "login", login);
                }
                Step::Lose(session) => {
                    house.worker.lose(model.conns[session]);
                    model.lost.insert(session);
                }
                Step::Drop(session) | Step::Close(session) => {
                    if matches!(step, Step::Close(_)) && !model.lost.contains(&session) {
                        continue;
                    }
                    let conn = model.conns[session];
                    let left = std::mem::take(&mut model.rooms[session]);
                    house.drop_connection(conn);
                    model.lost.insert(session);
                    let news = left.iter().flat_map(|room| model.news(session, *room, "left"));
                    let news = news.collect::<BTreeSet<_>>();
                    prop_assert_eq!(told(&house.heard(conn)), news);
                    model.leave(&left);
                    model.conns[session] = login(&mut house, session);
                    model.lost.remove(&session);
                }
                Step::Join(..) | Step::Leave(..) | Step::Logout(_) => {}
            }
            check(&mut house, &model)?;
        }
    }
}

/// What every member is told of its room is what the model says, and who is in none is told nothing.
fn check(house: &mut House, model: &Model) -> Result<(), TestCaseError> {
    for (room, name) in ROOMS.into_iter().enumerate() {
        let members = model.members(room);
        for session in (0..SESSIONS).filter(|session| !model.lost.contains(session)) {
            let params = json!({"room": name});
            let answer = house.call(model.conns[session], "members", params);
            if members.contains(&session) {
                let users = answer["result"]["members"].as_array().unwrap().iter();
                let mut times: BTreeMap<&str, usize> = BTreeMap::new();
                users.for_each(|user| *times.entry(user.as_str().unwrap()).or_default() += 1);
                let expected = model.users(room).into_iter().map(|user| (user, 1)).collect();
                prop_assert_eq!(times, expected);
            } else {
                prop_assert_eq!(&answer["error"]["data"]["reason"], "not_a_member");
            }
        }
    }
    Ok(())
}
