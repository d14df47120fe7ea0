//! The mind that evens connections out, against workers that give what they can.

use super::*;
use proptest::prelude::*;

const OFF: Thresholds = Thresholds { percent: 0, connections: 100, rate: 50 };
const ON: Thresholds = Thresholds { percent: 20, connections: 100, rate: 50 };

/// Workers, and how many of their connections cannot be moved.
struct World {
    now: Millis,
    balancer: Balancer,
    slots: Vec<SlotView>,
    stuck: Vec<u64>,
    orders: Vec<Order>,
}

impl World {
    fn new(sessions: &[u64]) -> Self {
        let slots = |sessions: &u64| SlotView { serving: Some(1), sessions: *sessions };
        Self {
            now: Millis(1_000),
            balancer: Balancer::default(),
            slots: sessions.iter().map(slots).collect(),
            stuck: vec![0; sessions.len()],
            orders: Vec::new(),
        }
    }

    fn sessions(&self) -> Vec<u64> {
        self.slots.iter().map(|slot| slot.sessions).collect()
    }

    fn tick(&mut self, may_move: bool, thresholds: &Thresholds) -> Option<Step> {
        self.now = self.now + 10;
        self.balancer.tick(self.now, may_move, &self.slots, thresholds)
    }

    /// Does an order as a worker would.
    fn obey(&mut self, order: Order) {
        let (from, to) = (usize::from(order.from), usize::from(order.to));
        assert_ne!(from, to);
        assert!(order.count > 0);
        let movable = self.slots[from].sessions - self.stuck[from];
        let moved = movable.min(u64::from(order.count));
        self.slots[from].sessions -= moved;
        self.slots[to].sessions += moved;
        let rest = self.slots[from].sessions;
        let stuck = self.stuck[from].min(rest);
        let left = Left {
            http: 0,
            unsent: u32::try_from(stuck).unwrap(),
            other: u32::try_from(rest - stuck).unwrap(),
        };
        self.orders.push(order);
        let moved = u32::try_from(moved).unwrap();
        let done = Done { id: order.id, moved, pending: 0, left };
        self.balancer.done(self.now, order.from, done);
    }

    fn run(&mut self, job: Job) -> Outcome {
        self.balancer.ask(self.now, job, self.slots.len()).expect("it is begun");
        for _ in 0..10_000 {
            match self.tick(true, &OFF) {
                Some(Step::Tell(order, life)) => {
                    assert_eq!(self.slots[usize::from(order.from)].serving, Some(life));
                    self.obey(order);
                }
                Some(Step::Over(outcome)) => return outcome,
                None => {}
            }
        }
        panic!("it does not end");
    }
}

#[test]
fn a_balance_evens_out_and_counts() {
    let mut world = World::new(&[1_500, 0, 300]);
    let outcome = world.run(Job::Balance);
    assert_eq!(world.sessions(), [600, 600, 600]);
    assert_eq!((outcome.moved, outcome.error, outcome.left), (900, None, Left::default()));
    assert_eq!(outcome.connections, [600, 600, 600]);
    let outcome = world.run(Job::Balance);
    assert_eq!(outcome.moved, 0, "nothing is left to do");
}

#[test]
fn a_drain_empties_one_and_fills_the_others_evenly() {
    let mut world = World::new(&[10, 2_000, 400]);
    let outcome = world.run(Job::Drain(1));
    assert_eq!(world.sessions(), [1_205, 0, 1_205]);
    assert_eq!((outcome.moved, outcome.left), (2_000, Left::default()));
    world.stuck[0] = 5;
    let outcome = world.run(Job::Drain(0));
    assert_eq!(world.slots[0].sessions, 5);
    assert_eq!(outcome.left, Left { http: 0, unsent: 5, other: 0 }, "and says why");
    assert_eq!(outcome.connections[0], 5);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let mut balancer = Balancer::default();
    assert_eq!(balancer.ask(Millis(0), Job::Balance, 1), Err(Refused::OneWorker));
    assert_eq!(balancer.ask(Millis(0), Job::Drain(4), 4), Err(Refused::NoSuchWorker(4, 3)));
    balancer.ask(Millis(0), Job::Drain(3), 4).expect("there is one");
    assert_eq!(balancer.ask(Millis(0), Job::Balance, 4), Err(Refused::Busy));
}

#[test]
fn nothing_is_ordered_while_the_server_is_busy_or_things_settle() {
    let mut world = World::new(&[500, 0]);
    world.balancer.ask(world.now, Job::Balance, 2).expect("begun");
    assert!((0..50).all(|_| world.tick(false, &ON).is_none()), "a reload");
    let Some(Step::Tell(first, _)) = world.tick(true, &ON) else { panic!("an order") };
    assert!((0..50).all(|_| world.tick(true, &ON).is_none()), "one at a time");
    // Its taker dies and comes back.
    world.slots[1].serving = Some(2);
    let given_up = world.now;
    assert!(world.tick(true, &ON).is_none());
    let late = Done { id: first.id, moved: 7, pending: 0, left: Left::default() };
    world.balancer.done(world.now, first.from, late);
    let next = std::iter::repeat_with(|| world.tick(true, &ON)).take(1_000).flatten().next();
    let Some(Step::Tell(second, _)) = next else { panic!("it goes on") };
    assert_ne!(second.id, first.id);
    assert!(world.now.since(given_up) >= QUIET_MS);
    // Some are on their way.
    let done = Done { id: second.id, moved: 7, pending: 1, left: Left::default() };
    world.balancer.done(world.now, second.from, done);
    let settling = world.now;
    let next = std::iter::repeat_with(|| world.tick(true, &ON)).take(1_000).flatten().next();
    assert!(next.is_some() && world.now.since(settling) >= QUIET_MS);
}

#[test]
fn a_job_ends_with_the_server_or_after_a_minute() {
    let mut world = World::new(&[500, 0]);
    world.balancer.ask(world.now, Job::Balance, 2).expect("begun");
    let Some(Step::Over(outcome)) =
        world.balancer.stop(world.now, "the server stops", &world.slots)
    else {
        panic!("over")
    };
    assert!(outcome.error.is_some_and(|error| error.contains("stops")));
    assert!(
        world.balancer.stop(world.now, "the server stops", &world.slots).is_none(),
        "told once"
    );
    world.balancer.ask(world.now, Job::Balance, 2).expect("begun");
    world.now = world.now + JOB_MS;
    assert!(matches!(world.tick(false, &OFF), Some(Step::Over(Outcome { error: Some(_), .. }))));
}

#[test]
fn by_itself_it_begins_at_the_threshold_and_stops_at_half_of_it() {
    let mut world = World::new(&[1_100, 1_000]);
    for _ in 0..1_000 {
        assert_eq!(world.tick(true, &ON), None, "100 are not 20 % of 1050");
    }
    world.slots[0].sessions = 1_400;
    let began = world.now;
    for _ in 0..20_000 {
        assert_eq!(world.tick(true, &OFF), None, "it is off");
        if let Some(Step::Tell(order, _)) = world.tick(true, &ON) {
            assert!(order.count <= 50);
            world.obey(order);
        }
    }
    let [left, right] = world.sessions()[..] else { panic!("two") };
    assert!(left - right <= 120 && left - right > 10, "{left} and {right}: half of 240");
    let orders = u64::try_from(world.orders.len()).unwrap();
    assert!(orders >= 3 && orders * 50 >= 140, "{orders}");
    assert!(world.now.since(began) >= orders * AUTOMATIC_EVERY_MS, "a few per second");
    let few = World::new(&[99, 0]).tick(true, &ON);
    assert_eq!(few, None, "100 % of them, but not 100");
}

proptest! {
    #[test]
    fn whatever_happens_orders_are_sane_and_jobs_end(
        sessions in prop::collection::vec(0..3_000_u64, 2..6),
        stuck in prop::collection::vec(0..300_u64, 6),
        deaths in prop::collection::vec((0..400_usize, 0..6_usize, 1..90_usize), 0..6),
        drain in prop::option::of(0..2_u16),
    ) {
        let mut world = World::new(&sessions);
        for (slot, stuck) in stuck.iter().enumerate().take(sessions.len()) {
            world.stuck[slot] = (*stuck).min(sessions[slot]);
        }
        let job = drain.map_or(Job::Balance, Job::Drain);
        world.balancer.ask(world.now, job, sessions.len()).expect("begun");
        let (mut outcome, mut last) = (None, None);
        for turn in 0..20_000_usize {
            for (at, slot, back) in &deaths {
                let slot = slot % sessions.len();
                if turn == *at {
                    world.slots[slot].serving = None;
                } else if turn == at + back {
                    world.slots[slot].serving = Some(2 + u32::try_from(turn).unwrap());
                }
            }
            match world.tick(true, &OFF) {
                Some(Step::Tell(order, _)) => {
                    prop_assert!(last.is_none_or(|last| order.id > last));
                    last = Some(order.id);
                    for slot in [order.from, order.to] {
                        prop_assert!(world.slots[usize::from(slot)].serving.is_some());
                    }
                    prop_assert!(drain.is_none_or(|drained| order.from == drained && order.to != drained));
                    // Some answers are never heard: the worker dies with the order.
                    if order.id % 5 != 4 {
                        world.obey(order);
                    } else {
                        world.slots[usize::from(order.from)].serving = Some(9_000 + order.id);
                    }
                }
                Some(Step::Over(over)) => {
                    outcome = Some(over);
                    break;
                }
                None => {}
            }
        }
        let outcome = outcome.expect("a job ends");
        prop_assert_eq!(world.sessions().iter().sum::<u64>(), sessions.iter().sum::<u64>());
        if outcome.error.is_none() && deaths.is_empty() && stuck.iter().all(|stuck| *stuck == 0) {
            match drain {
                Some(slot) => prop_assert_eq!(world.slots[usize::from(slot)].sessions, 0),
                None => {
                    let all = world.sessions();
                    prop_assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 1);
                }
            }
        }
    }
}
