//! The ledger against honest and dishonest servers, made up.

use super::*;
use crate::bench::survive::random::Random;
use proptest::prelude::*;

/// A server between lives that each send to all, with a queue for every pair.
struct World {
    ledger: Ledger,
    faults: Faults,
    lives: Vec<LifeId>,
    /// Messages on their way: to whom, which, with which id.
    queues: HashMap<(LifeId, LifeId), VecDeque<(Name, u64)>>,
    /// Answers on their way.
    answers: VecDeque<(LifeId, u64, u64)>,
    last_id: u64,
}

impl World {
    fn new(lives: usize) -> Self {
        let mut ledger = Ledger::default();
        let lives = (0..lives).map(|_| ledger.begin()).collect();
        let (queues, answers) = (HashMap::new(), VecDeque::new());
        Self { ledger, faults: Faults::default(), lives, queues, answers, last_id: 0 }
    }

    fn send(&mut self, from: LifeId, to: LifeId) -> Name {
        let name = self.ledger.name(from, to);
        let request = self.ledger.ask(from, Asked::Send(name), Moment::default());
        self.last_id += 1;
        self.answers.push_back((from, request, self.last_id));
        self.queues.entry((from, to)).or_default().push_back((name, self.last_id));
        name
    }

    fn answer_one(&mut self) {
        let Some((life, request, id)) = self.answers.pop_front() else { return };
        if !self.ledger.is_open(life) {
            return;
        }
        let answered = self.ledger.answer(life, request, &mut self.faults);
        let Some(Request { asked: Asked::Send(name), .. }) = answered else { return };
        if self.ledger.is_open(name.to) {
            self.ledger.taken(name, id, &mut self.faults);
        } else {
            self.ledger.not_taken(name, &mut self.faults);
        }
    }

    fn deliver_one(&mut self, from: LifeId, to: LifeId) {
        let Some((name, id)) = self.queues.get_mut(&(from, to)).and_then(VecDeque::pop_front)
        else {
            return;
        };
        if self.ledger.is_open(to) {
            self.ledger.delivered(to, name, id, &mut self.faults);
        }
    }

    /// Answers and delivers all that is on its way.
    fn drain(&mut self) {
        while !self.answers.is_empty() {
            self.answer_one();
        }
        let pairs: Vec<_> = self.queues.keys().copied().collect();
        for (from, to) in pairs {
            while !self.queues[&(from, to)].is_empty() {
                self.deliver_one(from, to);
            }
        }
        self.ledger.settle(&mut self.faults);
    }

    /// Messages that are kept though their sender is open. Those of one that is gone have no answer,
    /// and are kept for what may come.
    fn kept(&self) -> usize {
        let pairs = self.ledger.pairs.iter();
        let open = pairs.filter(|((from, _), _)| self.ledger.is_open(*from));
        open.map(|(_, pair)| pair.entries.len()).sum()
    }
}

/// What a run of the world says is broken, and how often.
fn broken(mut world: World) -> Vec<(Fault, u64)> {
    world.drain();
    world.faults.broken().collect()
}

/// Two lives, of which the first sends the second five messages; nothing has come yet.
fn five() -> (World, LifeId, LifeId) {
    let mut world = World::new(2);
    let (ann, bob) = (world.lives[0], world.lives[1]);
    for _ in 0..5 {
        world.send(ann, bob);
    }
    (world, ann, bob)
}

#[test]
fn an_honest_server_breaks_nothing() {
    let (world, ..) = five();
    assert_eq!(broken(world), []);
}

#[test]
fn a_message_that_is_dropped_is_lost() {
    for place in 0..5 {
        let (mut world, ann, bob) = five();
        world.queues.get_mut(&(ann, bob)).unwrap().remove(place);
        assert_eq!(broken(world), [(Fault::Lost, 1)], "{place}");
    }
}

#[test]
fn a_message_that_comes_twice_is_doubled() {
    for (place, gap) in [(0, 0), (0, 3), (4, 0), (2, 1)] {
        let (mut world, ann, bob) = five();
        let queue = world.queues.get_mut(&(ann, bob)).unwrap();
        let copy = queue[place];
        queue.insert(place + 1 + gap, copy);
        assert_eq!(broken(world), [(Fault::Doubled, 1)], "{place} {gap}");
    }
    let (mut world, ann, bob) = five();
    while !world.answers.is_empty() {
        world.answer_one();
    }
    let (name, id) = world.queues[&(ann, bob)][0];
    for _ in 0..5 {
        world.deliver_one(ann, bob);
    }
    // When it is forgotten already.
    world.ledger.delivered(bob, name, id, &mut world.faults);
    assert_eq!(broken(world), [(Fault::Doubled, 1)]);
}

#[test]
fn messages_that_change_places_are_out_of_order() {
    let (mut world, ann, bob) = five();
    world.queues.get_mut(&(ann, bob)).unwrap().swap(1, 2);
    assert_eq!(broken(world), [(Fault::Reordered, 1)]);
}

#[test]
fn a_message_for_another_or_never_sent_is_damaged() {
    let (mut world, ann, bob) = five();
    let name = Name { from: ann, to: bob, number: 5 };
    world.ledger.delivered(bob, name, 9, &mut world.faults);
    world.ledger.delivered(bob, Name { from: bob, to: ann, number: 0 }, 9, &mut world.faults);
    world.ledger.delivered(ann, Name { number: 0, ..name }, 1, &mut world.faults);
    assert_eq!(broken(world), [(Fault::Damaged, 3)]);
}

#[test]
fn a_request_without_an_answer_is_told_and_one_with_two_too() {
    let (mut world, ..) = five();
    world.answers.remove(2);
    assert_eq!(broken(world), [(Fault::Unanswered, 1)]);
    let (mut world, ..) = five();
    let first = world.answers[0];
    world.answers.push_back(first);
    assert_eq!(broken(world), [(Fault::Doubled, 1)]);
    let (mut world, ann, _) = five();
    assert!(world.ledger.answer(ann, 77, &mut world.faults).is_none());
    assert_eq!(broken(world), [(Fault::Damaged, 1)]);
}

#[test]
fn an_answer_that_is_not_true_is_told() {
    // Says that nobody took it, before and after it came.
    for early in [true, false] {
        let mut world = World::new(2);
        let (ann, bob) = (world.lives[0], world.lives[1]);
        let name = world.send(ann, bob);
        if early {
            world.deliver_one(ann, bob);
        }
        world.answers.clear();
        world.ledger.answer(ann, 1, &mut world.faults).unwrap();
        world.ledger.not_taken(name, &mut world.faults);
        assert_eq!(broken(world), [(Fault::Untrue, 1)], "{early}");
    }
    // Names another id.
    let (mut world, ann, bob) = five();
    world.queues.get_mut(&(ann, bob)).unwrap()[1].1 += 100;
    assert_eq!(broken(world), [(Fault::Untrue, 1)]);
}

#[test]
fn what_a_closed_connection_owes_or_is_owed_is_no_debt() {
    let (mut world, ann, bob) = five();
    world.answer_one();
    world.answer_one();
    assert_eq!(world.ledger.debts(), (3, 2));
    world.ledger.close(ann);
    assert_eq!(world.ledger.debts(), (0, 2), "what was taken is owed still");
    world.ledger.close(bob);
    world.ledger.close(bob);
    assert_eq!(world.ledger.debts(), (0, 0));
    assert_eq!(world.ledger.counts().in_doubt, 5);
    world.queues.clear();
    assert_eq!(broken(world), []);
}

#[test]
fn a_message_taken_is_owed_though_its_sender_is_gone() {
    let (mut world, ann, bob) = five();
    world.answer_one();
    world.ledger.close(ann);
    world.queues.remove(&(ann, bob));
    assert_eq!(broken(world), [(Fault::Lost, 1)]);
}

proptest! {
    /// However answers, deliveries and closes fall, an honest server is found honest, the debts are
    /// none at the end, and little is kept.
    #[test]
    fn honest_servers_are_found_honest(seed: u64, lives in 1_usize..6, steps in 1_usize..400) {
        let mut random = Random::new(seed);
        let mut world = World::new(lives);
        for _ in 0..steps {
            let any = |random: &mut Random, world: &World| world.lives[random.below(lives)];
            let (from, to) = (any(&mut random, &world), any(&mut random, &world));
            match random.below(40) {
                0 => world.ledger.close(from),
                1..16 if world.ledger.is_open(from) && world.ledger.is_open(to) => {
                    world.send(from, to);
                }
                16..26 => world.answer_one(),
                _ => world.deliver_one(from, to),
            }
        }
        world.drain();
        prop_assert_eq!((world.ledger.debts(), world.kept()), ((0, 0), 0));
        prop_assert_eq!(broken(world), []);
    }

    /// One message that is dropped, wherever, is found.
    #[test]
    fn one_lost_message_is_found(seed: u64, steps in 1_usize..200) {
        let mut random = Random::new(seed);
        let mut world = World::new(3);
        for _ in 0..steps {
            let (from, to) = (world.lives[random.below(3)], world.lives[random.below(3)]);
            match random.below(3) {
                0 => world.deliver_one(from, to),
                1 => world.answer_one(),
                _ => drop(world.send(from, to)),
            }
        }
        let pairs: Vec<_> = world.queues.iter().filter(|(_, queue)| !queue.is_empty()).collect();
        prop_assume!(!pairs.is_empty());
        let mut keys: Vec<_> = pairs.into_iter().map(|(key, _)| *key).collect();
        keys.sort_unstable_by_key(|(from, to)| (from.0, to.0));
        let queue = world.queues.get_mut(&keys[random.below(keys.len())]).unwrap();
        let place = random.below(queue.len());
        queue.remove(place);
        prop_assert_eq!(broken(world), [(Fault::Lost, 1)]);
    }
}
