//! A stop in the master's mind: how long each may take, and who speaks for the dead.

use super::*;

/// What a worker was told: the time to leave in, and the time to tell its clients in.
fn told_to_stop(actions: &[Action], generation: u32) -> Option<(u64, u64)> {
    actions.iter().find_map(|action| match action {
        Action::Tell(WORKER, life, Control::Stop { timeout_ms, tell_ms }) => {
            (*life == generation).then_some((*timeout_ms, *tell_ms))
        }
        _ => None,
    })
}

fn stopping_with_orphans() -> Bench {
    let mut bench = Bench::running(&[WORKER, TASK]);
    bench.input(Input::Stop);
    bench.state.note_orphans(WORKER, true);
    bench
}

#[test]
fn clients_are_told_in_four_fifths_of_the_time() {
    let mut bench = Bench::running(&[WORKER]);
    assert_eq!(told_to_stop(&bench.input(Input::Stop), 1), Some((29_500, 24_000)));
    // Of a short stop the margin is a tenth.
    let mut bench = Bench::running(&[WORKER]);
    bench.state.set_patience(Patience { stop_ms: 500, ..PATIENCE });
    assert_eq!(told_to_stop(&bench.input(Input::Stop), 1), Some((450, 400)));
    let mut bench = Bench::running(&[WORKER]);
    bench.state.set_patience(Patience { stop_ms: 0, ..PATIENCE });
    assert!(bench.input(Input::Stop).contains(&Action::Kill(WORKER, 1)), "at once");
}

#[test]
fn a_worker_that_dies_while_stopping_is_spoken_for_by_another() {
    let mut bench = stopping_with_orphans();
    let actions = bench.input(Input::Ended(WORKER, 1));
    assert!(actions.contains(&Action::MarkLost(WORKER, 1)), "{actions:?}");
    assert!(actions.contains(&Action::Spawn(WORKER, 2)), "{actions:?}");
    let task_stops = |actions: &[Action]| {
        actions.iter().any(|action| matches!(action, Action::Tell(TASK, _, Control::Stop { .. })))
    };
    assert!(!task_stops(&actions), "its last words may be tasks");
    bench.now = bench.now + 5_000;
    let actions = bench.input(Input::Prepared(WORKER, 2));
    let commit = Action::Tell(WORKER, 2, commit(None, WireAdoption::Crash, false));
    let adopts = actions.iter().position(|action| *action == commit);
    let stops = actions
        .iter()
        .position(|action| matches!(action, Action::Tell(WORKER, 2, Control::Stop { .. })));
    assert!(adopts.is_some() && adopts < stops, "{actions:?}");
    assert_eq!(told_to_stop(&actions, 2), Some((24_500, 19_000)), "what is left of the time");
    bench.input(Input::Ready(WORKER, 2, 3, 0));
    bench.state.note_orphans(WORKER, false);
    assert!(task_stops(&bench.input(Input::Ended(WORKER, 2))), "nothing is left to say");
}

#[test]
fn the_dead_are_spoken_for_twice_at_most_and_not_when_there_is_no_time() {
    let mut bench = stopping_with_orphans();
    for generation in 1..=3 {
        bench.state.note_orphans(WORKER, true);
        let actions = bench.input(Input::Ended(WORKER, generation));
        let spawned = actions.contains(&Action::Spawn(WORKER, generation + 1));
        assert_eq!(spawned, generation < 3, "{actions:?}");
        if generation == 1 {
            bench.input(Input::Prepared(WORKER, 2));
        }
    }
    let mut bench = stopping_with_orphans();
    bench.input(Input::StopNow);
    let actions = bench.input(Input::Ended(WORKER, 1));
    assert!(!actions.contains(&Action::Spawn(WORKER, 2)), "at once is at once: {actions:?}");
}

#[test]
fn a_slot_without_a_worker_gets_one_for_the_goodbye() {
    // Started already: it goes on, and adopts.
    let mut bench = Bench::running(&[WORKER]);
    bench.input(Input::Ended(WORKER, 1));
    let actions = bench.input(Input::Stop);
    assert!(!actions.contains(&Action::Kill(WORKER, 2)), "{actions:?}");
    assert!(told_to_stop(&bench.input(Input::Prepared(WORKER, 2)), 2).is_some());
    // Waiting for its next start: the stop does not wait for that.
    let mut bench = Bench::running(&[WORKER]);
    for generation in 1..4 {
        bench.input(Input::Ended(WORKER, generation));
        bench.input(Input::Prepared(WORKER, generation + 1));
    }
    assert!(bench.state.seats[&WORKER].respawn_at.is_some());
    bench.state.note_orphans(WORKER, true);
    let next = bench.state.seats[&WORKER].generation + 1;
    assert!(bench.input(Input::Stop).contains(&Action::Spawn(WORKER, next)));
}
