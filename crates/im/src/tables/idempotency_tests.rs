//! Keys found, claimed, given up and dropped; half-written entries; threads that race for one.

use super::*;
use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

const NOW: u64 = 1_800_000_000_000;

/// Keys on the heap, and the ids of their messages.
struct House {
    keys: Idempotency,
    last: AtomicU64,
}

impl House {
    fn new(entries: usize) -> Self {
        let words = dunlin_table::heap_words(Idempotency::words_needed(entries));
        Self { keys: Idempotency::new(words), last: AtomicU64::new(0) }
    }

    fn begin(&self, key: &SendKey, unix_ms: u64, turn: u64, alive: &[u64]) -> Begun {
        let mut draw = || MessageId::next(&self.last, unix_ms);
        let is_under_way = |turn: Turn| alive.contains(&turn.to_bits());
        self.keys.begin(key, unix_ms, Turn::from_bits(turn), &mut draw, &is_under_way)
    }

    /// Sends for the first time, to the end.
    fn send(&self, key: &SendKey, unix_ms: u64, sessions: u64) -> MessageId {
        let claim = claimed(self.begin(key, unix_ms, 1, &[]));
        let id = claim.id();
        mark(claim.sent_to(sessions));
        id
    }
}

fn key(name: &str, body: &str) -> SendKey {
    SendKey::new(7, "ann", "phone", name, &[b"bob", body.as_bytes()])
}

fn mark((word, from, to): (&AtomicU64, u64, u64)) {
    let _ = word.compare_exchange(from, to, AcqRel, Relaxed);
}

fn claimed(begun: Begun) -> Claim {
    match begun {
        Begun::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn done(begun: &Begun) -> (MessageId, u64) {
    match begun {
        Begun::Done { id, sessions } => (*id, *sessions),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_retry_gets_the_first_result_for_five_minutes() {
    let house = House::new(64);
    let id = house.send(&key("k", "tea?"), NOW, 3);
    for later in [0, 1, KEPT_MS - 1] {
        assert_eq!(done(&house.begin(&key("k", "tea?"), NOW + later, 2, &[])), (id, 3));
    }
    assert_eq!(house.keys.kept(NOW + KEPT_MS - 1), 1);
    let anew = claimed(house.begin(&key("k", "tea?"), NOW + KEPT_MS, 2, &[]));
    assert!(anew.id() > id && !anew.again);
    assert_eq!(house.keys.counted(KeyCount::Repeated), 3);
    assert_eq!(house.keys.counted(KeyCount::Dropped), 0);
}

#[test]
fn another_message_or_user_or_device_is_told_apart() {
    let house = House::new(64);
    let first = house.send(&key("k", "tea?"), NOW, 1);
    assert!(matches!(house.begin(&key("k", "no tea"), NOW, 1, &[]), Begun::Reused));
    assert_eq!(house.keys.counted(KeyCount::Reused), 1);
    let mut ids = HashSet::from([first]);
    for (user, device, name) in
        [("ann", "phone", "l"), ("ann", "phonek", "k"), ("annp", "hone", "k"), ("ann", "desk", "k")]
    {
        let other = SendKey::new(7, user, device, name, &[b"bob", b"tea?"]);
        assert!(ids.insert(house.send(&other, NOW, 1)), "{user} {device} {name}");
    }
    assert_ne!(
        SendKey::new(7, "a", "d", "k", &[b"bo", b"b"]).content,
        SendKey::new(7, "a", "d", "k", &[b"b", b"ob"]).content
    );
}

#[test]
fn of_two_at_once_the_second_waits_and_a_claim_can_be_given_up() {
    let house = House::new(64);
    let first = claimed(house.begin(&key("k", "x"), NOW, 5, &[5]));
    assert!(matches!(house.begin(&key("k", "x"), NOW, 7, &[5, 7]), Begun::UnderWay));
    let id = first.id();
    first.give_up();
    let second = claimed(house.begin(&key("k", "x"), NOW, 7, &[5, 7]));
    assert!(second.id() > id && !second.again, "nothing of the first was sent");
}

#[test]
fn what_may_be_lost_is_sent_again_under_the_same_id() {
    let house = House::new(64);
    let first = claimed(house.begin(&key("k", "x"), NOW, 5, &[5]));
    let (id, late) = (first.id(), first.sent_to(9));
    // Its turn is over, and nothing was marked.
    let second = claimed(house.begin(&key("k", "x"), NOW + 10, 7, &[7]));
    assert!(second.again);
    assert_eq!(second.id(), id);
    mark(late);
    assert!(matches!(house.begin(&key("k", "x"), NOW + 10, 8, &[7, 8]), Begun::UnderWay));
    // It could not be sent this time, and may have been the first: the id stays.
    second.give_up();
    let third = claimed(house.begin(&key("k", "x"), NOW + 20, 9, &[9]));
    assert_eq!((third.id(), third.again), (id, true));
    mark(third.sent_to(2));
    assert_eq!(done(&house.begin(&key("k", "x"), NOW + 30, 11, &[])), (id, 2));
    assert_eq!(house.keys.counted(KeyCount::SentAgain), 2);
}

#[test]
fn a_full_window_drops_its_oldest_and_counts_it() {
    let house = House::new(1);
    assert_eq!(house.keys.capacity(), WINDOW);
    let name = |n: usize| key(&format!("k{n}"), "x");
    let ids: Vec<MessageId> = (0..WINDOW).map(|n| house.send(&name(n), NOW, 1)).collect();
    assert_eq!(house.keys.counted(KeyCount::Dropped), 0);
    house.send(&name(WINDOW), NOW, 1);
    assert_eq!(house.keys.counted(KeyCount::Dropped), 1);
    assert_eq!(house.keys.kept(NOW), WINDOW);
    for (n, id) in ids.iter().enumerate().skip(1) {
        assert_eq!(done(&house.begin(&name(n), NOW, 1, &[])).0, *id);
    }
    assert!(!claimed(house.begin(&name(0), NOW, 1, &[])).again, "the oldest is forgotten");
}

/// Whoever is killed between two of its writes leaves nothing that is believed.
#[test]
fn a_claim_that_is_half_written_is_nobodys() {
    let house = House::new(1);
    let whole = key("k", "x");
    let words = house.keys.words;
    for written in 0..4 {
        words.iter().for_each(|word| word.store(0, Relaxed));
        let old = house.send(&key("old", "y"), NOW - KEPT_MS, 1);
        let mut before: Vec<u64> = words.iter().map(|word| word.load(Relaxed)).collect();
        let claim = claimed(house.begin(&whole, NOW, 5, &[5]));
        // Undo its last writes, in the order they were made.
        let order = [Kind::Second, Kind::First, Kind::State, Kind::Content];
        let place = words.iter().position(|w| w.load(Relaxed) == claim.id().to_bits()).unwrap();
        for kind in &order[..4 - written] {
            let at = *kind as usize * WINDOW + place;
            words[at].store(std::mem::take(&mut before[at]), Relaxed);
        }
        let again = claimed(house.begin(&whole, NOW, 7, &[7]));
        assert!(!again.again && again.id() > claim.id(), "{written} words: {old:?}");
    }
}

/// Threads that all try the same keys: each key is sent by one of them, and everybody is told its id.
#[test]
fn of_many_at_once_one_sends() {
    let house = House::new(4);
    let under_way = [const { AtomicBool::new(false) }; 5];
    let (house, under_way, together) = (&house, &under_way, &Barrier::new(4));
    let told: Vec<Vec<(usize, MessageId, bool)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..5_u64)
            .map(|turn| {
                let mut one = move |n| {
                    together.wait();
                    retry(house, under_way, turn, n)
                };
                scope.spawn(move || (0..300).map(&mut one).collect())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for n in 0..300 {
        let ids: Vec<_> = told.iter().flatten().filter(|(key, ..)| *key == n).collect();
        assert_eq!(ids.iter().filter(|(_, _, sent)| *sent).count(), 1, "{ids:?}");
        assert!(ids.iter().all(|(_, id, _)| *id == ids[0].1), "{ids:?}");
    }
    assert_eq!(house.keys.counted(KeyCount::SentAgain), 0);
}

/// Tries one of the latest keys until it has a result, at a time of its own for each so that windows turn over.
fn retry(house: &House, under_way: &[AtomicBool], turn: u64, n: usize) -> (usize, MessageId, bool) {
    let now = NOW + u64::try_from(n).unwrap() * KEPT_MS / 8;
    let name = key(&format!("k{n}"), "x");
    under_way[usize::try_from(turn).unwrap()].store(true, SeqCst);
    loop {
        let is_under_way =
            |turn: Turn| under_way[usize::try_from(turn.to_bits()).unwrap()].load(SeqCst);
        let mut draw = || MessageId::next(&house.last, now);
        match house.keys.begin(&name, now, Turn::from_bits(turn), &mut draw, &is_under_way) {
            Begun::Claimed(claim) => {
                let id = claim.id();
                mark(claim.sent_to(1));
                return (n, id, true);
            }
            Begun::Done { id, .. } => return (n, id, false),
            Begun::UnderWay => std::thread::yield_now(),
            Begun::Reused => panic!("it is the same message"),
        }
    }
}
