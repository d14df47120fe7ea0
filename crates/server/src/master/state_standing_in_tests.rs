//! Slots without a worker, and the siblings that stand in for them.

use super::*;

const OTHER: Seat = Seat::Worker(1);
const THIRD: Seat = Seat::Worker(2);

fn stand_in(sibling: Seat, rest: Option<i32>, why: WireAdoption) -> Action {
    Action::Tell(sibling, 1, Control::StandIn { slot: 0, rest, why })
}

fn stand_down(sibling: Seat, generation: u32) -> Action {
    Action::Tell(sibling, generation, Control::StandDown { slot: 0 })
}

/// Two workers; that of slot 0 has died a while ago, and the other was told to stand in.
fn stood_in() -> Bench {
    let mut bench = Bench::running(&[WORKER, OTHER]);
    let died = bench.input(Input::Ended(WORKER, 1));
    assert!(died.contains(&Action::Spawn(WORKER, 2)), "{died:?}");
    assert_eq!(bench.pass(299), []);
    assert_eq!(bench.pass(1), [stand_in(OTHER, None, WireAdoption::Crash)]);
    assert_eq!(bench.pass(1_000), [], "once");
    assert!(bench.state.someone_stands_in());
    bench
}

#[test]
fn a_slot_without_a_worker_is_served_by_the_next_until_its_own_is_prepared() {
    let mut bench = stood_in();
    assert_eq!(bench.input(Input::Prepared(WORKER, 2)), [stand_down(OTHER, 1)], "no commit yet");
    assert_eq!(bench.pass(100), [], "asked once");
    assert_eq!(
        bench.input(Input::StoodDown(OTHER, 1, 0, Some(9))),
        [
            Action::Commit(WORKER, 2),
            Action::Tell(WORKER, 2, commit(Some(9), WireAdoption::GivenBack, false)),
        ]
    );
    bench.input(Input::Ready(WORKER, 2, 3, 0));
    assert_eq!(bench.pass(10_000), []);
    assert!(!bench.state.someone_stands_in());
}

#[test]
fn who_is_up_in_time_is_not_stood_in_for() {
    let mut bench = Bench::running(&[WORKER, OTHER]);
    bench.input(Input::Ended(WORKER, 1));
    bench.pass(200);
    bench.input(Input::Prepared(WORKER, 2));
    assert_eq!(bench.pass(200), [], "it has the slot, and takes it over");
    bench.input(Input::Ready(WORKER, 2, 3, 0));
    assert_eq!(bench.pass(10_000), []);
}

#[test]
fn one_worker_alone_has_no_sibling() {
    let mut bench = Bench::running(&[WORKER, TASK]);
    bench.input(Input::Ended(WORKER, 1));
    assert_eq!(bench.pass(4_000), []);
}

#[test]
fn a_sibling_that_dies_is_followed_by_another_and_both_slots_are_lost_with_it() {
    let mut bench = Bench::running(&[WORKER, OTHER, THIRD]);
    bench.input(Input::Ended(WORKER, 1));
    bench.pass(300);
    let died = bench.input(Input::Ended(OTHER, 1));
    assert!(died.contains(&Action::MarkLost(OTHER, 1)), "{died:?}");
    assert!(died.contains(&Action::MarkLost(WORKER, 1)), "{died:?}");
    assert!(died.contains(&stand_in(THIRD, None, WireAdoption::Crash)), "{died:?}");
}

#[test]
fn a_sibling_that_dies_before_it_has_given_back_leaves_the_slot_to_its_own_worker() {
    let mut bench = stood_in();
    bench.input(Input::Prepared(WORKER, 2));
    let died = bench.input(Input::Ended(OTHER, 1));
    assert!(died.contains(&Action::MarkLost(WORKER, 1)), "{died:?}");
    let crash = Action::Tell(WORKER, 2, commit(None, WireAdoption::Crash, false));
    assert!(
        died.ends_with(&[Action::Commit(WORKER, 2), crash, Action::Spawn(OTHER, 2)]),
        "{died:?}"
    );
}

#[test]
fn what_was_left_waits_for_whoever_is_next() {
    let mut bench = stood_in();
    bench.input(Input::Prepared(WORKER, 2));
    // Its own worker dies while the sibling gives back.
    bench.input(Input::Ended(WORKER, 2));
    let next = bench.input(Input::StoodDown(OTHER, 1, 0, Some(9)));
    assert_eq!(next, [stand_in(OTHER, Some(9), WireAdoption::GivenBack)]);
    assert_eq!(bench.input(Input::StoodDown(OTHER, 1, 1, Some(8))), [], "not of that slot");
}

#[test]
fn a_sibling_gives_back_before_it_is_replaced_and_its_successor_stands_in() {
    let mut bench = stood_in();
    bench.input(Input::Recycle(OTHER, 1));
    let asked = bench.input(Input::Prepared(OTHER, 2));
    let rest = Action::Tell(OTHER, 1, Control::Rest { successor: 2 });
    assert_eq!(asked, [stand_down(OTHER, 1), rest]);
    assert_eq!(bench.input(Input::StoodDown(OTHER, 1, 0, Some(9))), [], "nobody else is there");
    bench.input(Input::Rested(OTHER, 1, 2, None));
    let ready = bench.input(Input::Ready(OTHER, 2, 3, 0));
    let message = Control::StandIn { slot: 0, rest: Some(9), why: WireAdoption::GivenBack };
    assert!(ready.contains(&Action::Tell(OTHER, 2, message)), "{ready:?}");
}

#[test]
fn a_stop_leaves_everything_to_the_sibling() {
    let mut bench = stood_in();
    let stop = bench.input(Input::Stop);
    assert!(
        matches!(stop[..], [Action::Kill(WORKER, 2), Action::Tell(OTHER, 1, Control::Stop { .. })]),
        "{stop:?}"
    );
    bench.input(Input::Ended(WORKER, 2));
    let last = bench.input(Input::Ended(OTHER, 1));
    assert!(last.contains(&Action::AllGone), "{last:?}");
}
