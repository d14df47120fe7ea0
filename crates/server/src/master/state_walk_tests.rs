//! A world of simulated children around the master's mind: random walks in which every message takes as
//! long as it likes and everybody may die at any time, checked against the invariants of the module.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// What a simulated child is doing; as `worker::state`, and simpler for the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Born,
    Prepared,
    Serving,
    Resting,
}

#[derive(Debug)]
struct SimulatedChild {
    stage: Stage,
    alive: bool,
    /// The slot it stands in for.
    stands_in: Option<u16>,
    /// What the master has sent and it has not read.
    inbox: VecDeque<Control>,
    /// What it has sent and the master has not read.
    outbox: VecDeque<Input>,
}

/// The master's mind and its children, with every message on its way for as long as the walk likes.
struct World {
    bench: Bench,
    children: BTreeMap<(Seat, u32), SimulatedChild>,
    gone: bool,
    reloads_done: usize,
    /// Upgrades that ended well, and that did not.
    upgrades: (usize, usize),
}

impl World {
    fn new() -> Self {
        let seats = [WORKER, Seat::Worker(1), TASK, TIMER];
        let mut bench = Bench::new(&seats);
        bench.state.start(bench.now);
        let children = BTreeMap::new();
        let mut world = Self { bench, children, gone: false, reloads_done: 0, upgrades: (0, 0) };
        world.act();
        world.settle();
        assert!(world.bench.state.was_ready());
        world
    }

    fn input(&mut self, input: Input) {
        self.bench.state.input(self.bench.now, input);
        self.act();
    }

    /// Does what the state decided, as the master's loop does, and checks each deed.
    fn act(&mut self) {
        for action in self.bench.state.take_actions() {
            match action {
                Action::Spawn(seat, generation) => {
                    let others = self.children.keys().filter(|(other, _)| *other == seat);
                    assert!(
                        others.map(|(_, known)| *known).max() < Some(generation),
                        "a new number"
                    );
                    let child = SimulatedChild {
                        stage: Stage::Born,
                        alive: true,
                        stands_in: None,
                        inbox: VecDeque::new(),
                        outbox: VecDeque::new(),
                    };
                    self.children.insert((seat, generation), child);
                }
                Action::Tell(seat, generation, message) => {
                    if let Control::StandIn { slot, .. } = message {
                        self.expect_unserved(Seat::Worker(slot));
                    }
                    if let Some(child) = self.children.get_mut(&(seat, generation)) {
                        child.inbox.push_back(message);
                    }
                }
                Action::Kill(seat, generation) => self.kill(seat, generation),
                Action::Commit(seat, generation) if seat.is_worker() => {
                    self.expect_no_sibling(seat);
                    for ((other, life), child) in &self.children {
                        let serves = child.alive && child.stage == Stage::Serving;
                        let another = *other == seat && *life != generation;
                        assert!(
                            !(another && serves),
                            "{seat}: {life} serves at {generation}'s commit"
                        );
                        let wakes = child.alive && child.inbox.contains(&Control::Resume);
                        assert!(
                            !(another && wakes),
                            "{seat}: {life} will go on beside {generation}"
                        );
                    }
                }
                Action::AllGone => {
                    assert!(self.children.values().all(|child| !child.alive), "somebody is left");
                    self.gone = true;
                }
                Action::ReloadDone(outcome) => self.reloads_done += usize::from(outcome.by_request),
                Action::Exec => self.exec(),
                Action::BeginStop => self.input(Input::Stop),
                Action::UpgradeFailed(_) => self.upgrades.1 += 1,
                Action::Arrived(_) => self.upgrades.0 += 1,
                Action::GiveUp(sentence) => panic!("it was up once: {sentence}"),
                Action::Commit(..)
                | Action::MarkLost(..)
                | Action::ReportDeath(..)
                | Action::AllReady => {}
            }
        }
        self.check();
    }

    /// Every second time there is no such program.
    fn exec(&mut self) {
        assert!(
            self.children.values().all(|child| !child.alive),
            "somebody shares the descriptors"
        );
        self.children.clear();
        if (self.upgrades.0 + self.upgrades.1).is_multiple_of(2) {
            return self.input(Input::ExecFailed("no such file".into()));
        }
        let before = &self.bench.state;
        let mut next = State::new(before.seats.keys().copied(), PATIENCE);
        next.take_over(self.bench.now, &before.seats_to_hand_over(), before.stop_waits());
        next.start(self.bench.now);
        self.bench.state = next;
        self.act();
    }

    /// Nobody stands in for a slot, or will.
    fn expect_no_sibling(&self, seat: Seat) {
        for ((sibling, life), child) in self.children.iter().filter(|(_, child)| child.alive) {
            let stands = child.stands_in.map(Seat::Worker) == Some(seat);
            let will = child.inbox.iter().any(|message| {
                matches!(message, Control::StandIn { slot, .. } if Seat::Worker(*slot) == seat)
            });
            assert!(!stands && !will, "{sibling} {life} stands in for {seat}");
        }
    }

    /// Nobody reads a slot's mailbox, or will.
    fn expect_unserved(&self, seat: Seat) {
        self.expect_no_sibling(seat);
        for ((other, life), child) in self.children.iter().filter(|(_, child)| child.alive) {
            let wakes = child
                .inbox
                .iter()
                .any(|message| matches!(message, Control::Resume | Control::Commit { .. }));
            let serves = child.stage == Stage::Serving || wakes;
            assert!(*other != seat || !serves, "{seat} has {life}");
        }
    }

    fn check(&self) {
        for (seat, state) in &self.bench.state.seats {
            let mut generations = state.generations();
            generations.sort_unstable();
            generations.dedup();
            assert_eq!(generations.len(), state.generations().len(), "{seat}: each life once");
            let serving = self.children.iter().filter(|((other, _), child)| {
                other == seat && child.alive && child.stage == Stage::Serving
            });
            assert!(!seat.is_worker() || serving.count() <= 1, "{seat} has one owner");
        }
    }

    fn kill(&mut self, seat: Seat, generation: u32) {
        if let Some(child) = self.children.get_mut(&(seat, generation)) {
            child.alive = false;
        }
    }

    /// A child does one thing: its first step, or what the next message says.
    fn step_child(&mut self, seat: Seat, generation: u32, fails: bool) {
        let Some(child) = self.children.get_mut(&(seat, generation)) else { return };
        if !child.alive {
            return;
        }
        if child.stage == Stage::Born {
            if fails {
                let sentence = "as it pleases".into();
                child.outbox.push_back(Input::PrepareFailed(seat, generation, sentence));
                child.alive = false;
            } else {
                child.outbox.push_back(Input::Prepared(seat, generation));
                child.stage = if seat.is_worker() { Stage::Prepared } else { Stage::Serving };
            }
            return;
        }
        match (child.stage, child.inbox.pop_front()) {
            (Stage::Prepared, Some(Control::Commit { .. })) => {
                child.stage = Stage::Serving;
                child.outbox.push_back(Input::Ready(seat, generation, 0, 0));
            }
            (Stage::Serving, Some(Control::StandIn { slot, .. })) => {
                assert_eq!(child.stands_in, None, "one at a time");
                child.stands_in = Some(slot);
            }
            (_, Some(Control::StandIn { slot, rest, .. })) => {
                child.outbox.push_back(Input::StoodDown(seat, generation, slot, rest));
            }
            (_, Some(Control::StandDown { slot })) => {
                let stood = child.stands_in.take();
                child
                    .outbox
                    .extend(stood.map(|_| Input::StoodDown(seat, generation, slot, Some(9))));
            }
            (Stage::Serving, Some(Control::Rest { successor })) => {
                assert_eq!(child.stands_in, None, "it has given back what is not its own");
                child.stage = Stage::Resting;
                child.outbox.push_back(if fails {
                    Input::RestFailed(seat, generation, successor, "as it pleases".into())
                } else {
                    Input::Rested(seat, generation, successor, None)
                });
            }
            (Stage::Resting, Some(Control::Resume)) => child.stage = Stage::Serving,
            (_, Some(Control::Leave | Control::Stop { .. })) => child.alive = false,
            _ => {}
        }
        self.check();
    }

    /// The master reads one message of a child, or notices its end behind the last.
    fn read_child(&mut self, seat: Seat, generation: u32) {
        let Some(child) = self.children.get_mut(&(seat, generation)) else { return };
        if let Some(input) = child.outbox.pop_front() {
            self.input(input);
        } else if !child.alive {
            self.children.remove(&(seat, generation));
            self.input(Input::Ended(seat, generation));
        }
    }

    /// Everything on its way arrives, nothing new goes wrong, and time passes.
    fn settle(&mut self) {
        // A minute: a stop may have to wait for an upgrade, and that for the program that arrives and for
        // processes that have died in between.
        for _ in 0..1_200 {
            for (seat, generation) in self.children.keys().copied().collect::<Vec<_>>() {
                self.step_child(seat, generation, false);
                self.read_child(seat, generation);
            }
            self.bench.now = self.bench.now + 50;
            self.input(Input::Tick);
        }
    }

    fn walk(&mut self, step: (u8, u8, u16)) {
        let (what, which, ms) = step;
        let alive: Vec<(Seat, u32)> = self.children.keys().copied().collect();
        let chosen = (!alive.is_empty()).then(|| alive[usize::from(which) % alive.len()]);
        match (what, chosen) {
            (0..=34, Some((seat, generation))) => self.step_child(seat, generation, false),
            (35..=69, Some((seat, generation))) => self.read_child(seat, generation),
            (70..=71, Some((seat, generation))) => self.step_child(seat, generation, true),
            (72..=75, Some((seat, generation))) => self.kill(seat, generation),
            (76..=79, Some((seat @ Seat::Worker(_), generation))) => {
                self.input(Input::Recycle(seat, generation));
            }
            (80..=85, _) => self.input(Input::Reload { tasks_only: which > 200 }),
            (90, _) => self.input(Input::ReloadWorker(u16::from(which % 2))),
            (86, _) if which > 200 => self.input(Input::Stop),
            (87..=89, _) => self.input(Input::Upgrade),
            _ => {
                self.bench.now = self.bench.now + u64::from(ms);
                self.input(Input::Tick);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// At most one serves a seat, a commit finds nobody serving, and whatever happened the server ends
    /// up running whole or gone.
    #[test]
    fn a_random_walk_keeps_the_invariants(
        steps in prop::collection::vec((0_u8..100, any::<u8>(), 0_u16..3_000), 0..400),
    ) {
        let mut world = World::new();
        for step in steps {
            world.walk(step);
        }
        world.settle();
        if world.bench.state.is_stopping() {
            prop_assert!(world.gone, "{:?}", world.bench.state);
        } else {
            for (seat, state) in &world.bench.state.seats {
                let phase = state.current.as_ref().map(|life| life.phase);
                prop_assert_eq!(phase, Some(Phase::Running), "{}", seat);
                prop_assert!(state.successor.is_none() && state.leaving.is_empty());
            }
            prop_assert!(!world.bench.state.is_reloading());
            prop_assert!(!world.bench.state.is_upgrading());
        }
    }
}
