//! The master's mind without a process: inputs in, actions out.

#[path = "state_standing_in_tests.rs"]
mod standing_in;
#[path = "state_stop_tests.rs"]
mod stop;
#[path = "state_walk_tests.rs"]
mod walk;

use super::*;

const WORKER: Seat = Seat::Worker(0);
const TASK: Seat = Seat::Task(0);
const TIMER: Seat = Seat::Process(0);
const PATIENCE: Patience = Patience { handover_ms: 5_000, stop_ms: 30_000, task_ms: 60_000 };

/// A state, its clock, and what it decided last.
struct Bench {
    state: State,
    now: Millis,
}

impl Bench {
    fn new(seats: &[Seat]) -> Self {
        Self { state: State::new(seats.iter().copied(), PATIENCE), now: Millis(1_000_000) }
    }

    /// Every seat's first life serves, for longer than counts as short.
    fn running(seats: &[Seat]) -> Self {
        let mut bench = Self::new(seats);
        bench.state.start(bench.now);
        for seat in seats {
            bench.input(Input::Prepared(*seat, 1));
            bench.input(Input::Ready(*seat, 1, 0, 0));
        }
        assert!(bench.state.was_ready());
        bench.pass(10_000);
        bench
    }

    fn input(&mut self, input: Input) -> Vec<Action> {
        self.state.input(self.now, input);
        self.state.take_actions()
    }

    fn pass(&mut self, ms: u64) -> Vec<Action> {
        self.now = self.now + ms;
        self.input(Input::Tick)
    }

    fn phase(&self, seat: Seat) -> Option<Phase> {
        self.state.seats[&seat].current.as_ref().map(|life| life.phase)
    }
}

fn commit(rest: Option<i32>, why: WireAdoption, empty: bool) -> Control {
    Control::Commit { rest, why, empty }
}

const RELOAD: Input = Input::Reload { tasks_only: false };

fn done(actions: &[Action]) -> Option<&Outcome> {
    actions.iter().find_map(|action| match action {
        Action::ReloadDone(outcome) => Some(outcome),
        _ => None,
    })
}

/// The reason of a reload that has failed with these actions.
fn failure(actions: &[Action]) -> &str {
    done(actions).and_then(|outcome| outcome.error.as_deref()).expect("the reload has failed")
}

#[test]
fn a_first_start_is_over_when_everybody_is_up() {
    let mut bench = Bench::new(&[WORKER, TASK, TIMER]);
    bench.state.start(bench.now);
    let started = bench.state.take_actions();
    assert_eq!(started, [WORKER, TASK, TIMER].map(|seat| Action::Spawn(seat, 1)));
    assert_eq!(bench.input(Input::Prepared(TIMER, 1)), [Action::Commit(TIMER, 1)]);
    assert_eq!(
        bench.input(Input::Prepared(WORKER, 1)),
        [
            Action::Commit(WORKER, 1),
            Action::Tell(WORKER, 1, commit(None, WireAdoption::Crash, false))
        ]
    );
    assert_eq!(bench.input(Input::Ready(WORKER, 1, 0, 0)), []);
    let last = bench.input(Input::Prepared(TASK, 1));
    assert_eq!(last, [Action::Commit(TASK, 1), Action::AllReady]);
    assert_eq!(bench.pass(60_000), [], "once");
}

#[test]
fn a_first_start_that_fails_gives_up() {
    let mut bench = Bench::new(&[WORKER]);
    bench.state.start(bench.now);
    bench.state.take_actions();
    let actions = bench.input(Input::PrepareFailed(WORKER, 1, "no tea".into()));
    assert!(actions.contains(&Action::GiveUp("worker 0 could not start: no tea".into())));
}

#[test]
fn a_handover_goes_prepared_rest_rested_commit_ready() {
    let mut bench = Bench::running(&[WORKER]);
    assert_eq!(bench.input(RELOAD), [Action::Spawn(WORKER, 2)]);
    assert_eq!(bench.phase(WORKER), Some(Phase::Running), "the old one serves meanwhile");
    let asked = bench.input(Input::Prepared(WORKER, 2));
    assert!(matches!(asked[..], [Action::Tell(WORKER, 1, Control::Rest { .. })]), "{asked:?}");
    assert_eq!(
        bench.input(rested(1, 2, Some(9))),
        [
            Action::Commit(WORKER, 2),
            Action::Tell(WORKER, 2, commit(Some(9), WireAdoption::Reload, false)),
            Action::Tell(WORKER, 1, Control::Leave),
        ]
    );
    let actions = bench.input(Input::Ready(WORKER, 2, 40, 1));
    let replaced = vec![WORKER];
    let outcome = Outcome { error: None, adopted: 40, dropped: 1, by_request: true, replaced };
    assert_eq!(actions, [Action::ReloadDone(outcome)]);
    assert_eq!(bench.input(Input::Ended(WORKER, 1)), [], "as it was asked to");
    assert_eq!(bench.state.seats[&WORKER].restarts, 0);
}

#[test]
fn a_successor_that_dies_before_the_commit_changes_nothing() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(RELOAD);
    bench.input(Input::Prepared(WORKER, 2));
    let actions = bench.input(Input::Ended(WORKER, 2));
    assert!(actions.contains(&Action::Tell(WORKER, 1, Control::Resume)), "{actions:?}");
    assert!(actions.contains(&Action::ReportDeath(WORKER, 2)));
    assert!(failure(&actions).contains("the old generation goes on"));
    assert!(!actions.iter().any(|action| matches!(action, Action::Commit(..))));
    assert_eq!(bench.phase(WORKER), Some(Phase::Running));
    assert_eq!(bench.input(rested(1, 2, None)), [], "its answer crossed `Resume`");
    assert_eq!(bench.phase(WORKER), Some(Phase::Running));
}

#[test]
fn a_worker_that_cannot_rest_goes_on_at_once() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(RELOAD);
    bench.input(Input::Prepared(WORKER, 2));
    let failed = |successor| Input::RestFailed(WORKER, 1, successor, "no room".into());
    let actions = bench.input(failed(2));
    assert!(actions.contains(&Action::Tell(WORKER, 1, Control::Resume)), "{actions:?}");
    assert!(actions.contains(&Action::Kill(WORKER, 2)));
    assert!(failure(&actions).contains("no room"));
    assert!(!actions.iter().any(|action| matches!(action, Action::Commit(..))));
    assert_eq!(bench.phase(WORKER), Some(Phase::Running));
    bench.input(Input::Ended(WORKER, 2));
    bench.input(RELOAD);
    bench.input(Input::Prepared(WORKER, 3));
    assert_eq!(bench.input(failed(2)), [], "it is about an earlier successor");
}

#[test]
fn a_late_answer_to_an_earlier_rest_is_no_answer_to_the_next() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(RELOAD);
    bench.input(Input::Prepared(WORKER, 2));
    bench.input(Input::Ended(WORKER, 2));
    bench.input(RELOAD);
    bench.input(Input::Prepared(WORKER, 3));
    // The worker rested for 2, and has `Resume` and the second `Rest` still before it.
    assert_eq!(bench.input(rested(1, 2, Some(9))), []);
    let actions = bench.input(rested(1, 3, Some(10)));
    let told = Action::Tell(WORKER, 3, commit(Some(10), WireAdoption::Reload, false));
    assert!(actions.contains(&told), "{actions:?}");
}

#[test]
fn an_owner_that_dies_resting_is_followed_as_after_a_crash() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(RELOAD);
    bench.input(Input::Prepared(WORKER, 2));
    let actions = bench.input(Input::Ended(WORKER, 1));
    assert_eq!(
        actions,
        [
            Action::MarkLost(WORKER, 1),
            Action::ReportDeath(WORKER, 1),
            Action::Commit(WORKER, 2),
            Action::Tell(WORKER, 2, commit(None, WireAdoption::Crash, false)),
        ]
    );
    let actions = bench.input(Input::Ready(WORKER, 2, 5, 0));
    assert_eq!(done(&actions).map(|outcome| outcome.error.clone()), Some(None), "it is done, too");
}

#[test]
fn a_successor_that_dies_after_the_commit_is_a_crash_of_the_seat() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(RELOAD);
    bench.input(Input::Prepared(WORKER, 2));
    bench.input(rested(1, 2, None));
    bench.now = bench.now + 2_000;
    let actions = bench.input(Input::Ended(WORKER, 2));
    assert_eq!(actions[..2], [Action::MarkLost(WORKER, 2), Action::ReportDeath(WORKER, 2)]);
    assert!(failure(&actions).contains("died while it took over"));
    assert!(actions.contains(&Action::Spawn(WORKER, 3)), "at once: {actions:?}");
    assert_eq!(bench.state.seats[&WORKER].restarts, 1);
    let actions = bench.input(Input::Prepared(WORKER, 3));
    let told = Action::Tell(WORKER, 3, commit(None, WireAdoption::Crash, false));
    assert!(actions.contains(&told));
}

#[test]
fn after_three_deaths_in_adoption_a_seat_starts_empty() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(Input::Ended(WORKER, 1));
    for generation in 2..=4 {
        bench.pass(2_000);
        let actions = bench.input(Input::Prepared(WORKER, generation));
        let told = Action::Tell(WORKER, generation, commit(None, WireAdoption::Crash, false));
        assert!(actions.contains(&told), "{generation}: {actions:?}");
        bench.input(Input::Ended(WORKER, generation));
    }
    bench.pass(2_000);
    let actions = bench.input(Input::Prepared(WORKER, 5));
    let told = Action::Tell(WORKER, 5, commit(None, WireAdoption::Crash, true));
    assert!(actions.contains(&told), "{actions:?}");
    bench.input(Input::Ready(WORKER, 5, 0, 0));
    bench.pass(2_000);
    bench.input(Input::Ended(WORKER, 5));
    bench.pass(2_000);
    let actions = bench.input(Input::Prepared(WORKER, 6));
    let told = Action::Tell(WORKER, 6, commit(None, WireAdoption::Crash, false));
    assert!(actions.contains(&told), "one that served ends the row: {actions:?}");
}

#[test]
fn reloads_asked_for_meanwhile_are_folded_into_one_more() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(RELOAD);
    assert_eq!(bench.input(RELOAD), []);
    assert_eq!(bench.input(RELOAD), []);
    bench.input(Input::Prepared(WORKER, 2));
    bench.input(rested(1, 2, None));
    let actions = bench.input(Input::Ready(WORKER, 2, 0, 0));
    assert!(done(&actions).is_some());
    assert_eq!(bench.state.take_again(), Some(false));
    assert_eq!(bench.state.take_again(), None, "one");
    bench.input(RELOAD);
    bench.input(Input::Reload { tasks_only: true });
    assert_eq!(bench.state.take_again(), Some(true), "no more than was asked for");
}

#[test]
fn only_task_processes_where_only_they_are_asked_for() {
    let mut bench = Bench::running(&[WORKER, TASK, TIMER]);
    let actions = bench.input(Input::Reload { tasks_only: true });
    assert_eq!(actions, [Action::Tell(TASK, 1, Control::Leave)]);
    assert_eq!(bench.input(Input::Ended(TASK, 1)), [Action::Spawn(TASK, 2)], "asked: no report");
    let actions = bench.input(Input::Prepared(TASK, 2));
    assert_eq!(actions[0], Action::Commit(TASK, 2));
    assert!(done(&actions).is_some());
}

#[test]
fn one_worker_where_only_it_is_asked_for() {
    let other = Seat::Worker(1);
    let mut bench = Bench::running(&[WORKER, other, TASK]);
    assert_eq!(bench.input(Input::ReloadWorker(1)), [Action::Spawn(other, 2)]);
    assert!(bench.state.is_reloading());
    assert_eq!(bench.input(Input::ReloadWorker(0)), [], "one at a time, and none is put off");
    bench.input(Input::Prepared(other, 2));
    bench.input(Input::Rested(other, 1, 2, None));
    let actions = bench.input(Input::Ready(other, 2, 7, 0));
    let outcome = done(&actions).expect("it is over");
    assert_eq!((outcome.adopted, &outcome.replaced), (7, &vec![other]));
    assert_eq!(bench.state.take_again(), None);
    // Also where a worker is just being recycled: that one first.
    bench.input(Input::Ended(other, 1));
    assert_eq!(bench.input(Input::Recycle(WORKER, 1)), [Action::Spawn(WORKER, 2)]);
    assert_eq!(bench.input(Input::ReloadWorker(1)), []);
    bench.input(Input::Prepared(WORKER, 2));
    bench.input(rested(1, 2, None));
    assert_eq!(bench.input(Input::Ready(WORKER, 2, 0, 0)), [Action::Spawn(other, 3)]);
}

#[test]
fn a_reload_takes_one_seat_after_the_other() {
    let mut bench = Bench::running(&[WORKER, Seat::Worker(1)]);
    assert_eq!(bench.input(RELOAD), [Action::Spawn(WORKER, 2)]);
    bench.input(Input::Prepared(WORKER, 2));
    bench.input(rested(1, 2, None));
    let actions = bench.input(Input::Ready(WORKER, 2, 0, 0));
    assert_eq!(actions, [Action::Spawn(Seat::Worker(1), 2)]);
    assert!(bench.state.is_reloading());
}

#[test]
fn a_reload_waits_for_who_was_started_with_the_old_config() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(Input::Ended(WORKER, 1));
    // The successor of the dead one was forked before the reload read the config.
    assert_eq!(bench.input(RELOAD), []);
    bench.input(Input::Prepared(WORKER, 2));
    let actions = bench.input(Input::Ready(WORKER, 2, 0, 0));
    assert_eq!(actions, [Action::Spawn(WORKER, 3)], "now its turn has come");
}

#[test]
fn workers_stop_first_then_tasks_then_the_others() {
    let mut bench = Bench::running(&[WORKER, TASK, TIMER]);
    let stopped = |actions: &[Action]| -> Vec<Seat> {
        let stop = |action: &Action| match action {
            Action::Tell(seat, _, Control::Stop { .. }) => Some(*seat),
            _ => None,
        };
        actions.iter().filter_map(stop).collect()
    };
    assert_eq!(stopped(&bench.input(Input::Stop)), [WORKER]);
    assert_eq!(bench.pass(100), []);
    assert_eq!(stopped(&bench.input(Input::Ended(WORKER, 1))), [TASK]);
    assert_eq!(stopped(&bench.input(Input::Ended(TASK, 1))), [TIMER]);
    assert_eq!(bench.input(Input::Ended(TIMER, 1)), [Action::AllGone]);
}

#[test]
fn a_stop_that_takes_too_long_kills_what_is_left() {
    let mut bench = Bench::running(&[WORKER, TASK]);
    bench.input(Input::Stop);
    assert_eq!(bench.pass(PATIENCE.stop_ms - 1), []);
    let actions = bench.pass(1);
    assert_eq!(actions, [Action::Kill(WORKER, 1), Action::Kill(TASK, 1)]);
    let mut bench = Bench::running(&[WORKER, TASK]);
    bench.input(Input::Stop);
    assert_eq!(bench.input(Input::Stop), [], "asking again changes nothing");
    let actions = bench.input(Input::StopNow);
    assert!(actions.contains(&Action::Kill(WORKER, 1)), "{actions:?}");
}

#[test]
fn a_stop_ends_a_reload_and_wakes_who_rests() {
    let mut bench = Bench::running(&[WORKER]);
    bench.input(RELOAD);
    bench.input(Input::Prepared(WORKER, 2));
    let actions = bench.input(Input::Stop);
    assert_eq!(failure(&actions), "the server stops");
    let place = |wanted: &dyn Fn(&Action) -> bool| actions.iter().position(wanted);
    let resumed = place(&|action| *action == Action::Tell(WORKER, 1, Control::Resume));
    let stopped = place(&|action| matches!(action, Action::Tell(WORKER, 1, Control::Stop { .. })));
    assert!(resumed.is_some() && resumed < stopped, "{actions:?}");
    assert!(actions.contains(&Action::Kill(WORKER, 2)));
    bench.input(Input::Ended(WORKER, 2));
    assert_eq!(bench.input(Input::Ended(WORKER, 1)).last(), Some(&Action::AllGone));
}

#[test]
fn a_late_successor_is_killed_and_the_owner_goes_on() {
    for prepared in [false, true] {
        let mut bench = Bench::running(&[WORKER]);
        bench.input(RELOAD);
        if prepared {
            bench.input(Input::Prepared(WORKER, 2));
        }
        assert_eq!(bench.pass(PATIENCE.handover_ms - 1), []);
        let actions = bench.pass(1);
        assert!(actions.contains(&Action::Kill(WORKER, 2)), "{actions:?}");
        assert!(failure(&actions).contains("handover_timeout"));
        let resumed = actions.contains(&Action::Tell(WORKER, 1, Control::Resume));
        assert_eq!(resumed, prepared, "whoever was asked to rest goes on");
        assert_eq!(bench.phase(WORKER), Some(Phase::Running));
    }
}

#[test]
fn a_worker_is_recycled_once_and_nobody_calls_it_a_reload() {
    let mut bench = Bench::running(&[WORKER]);
    assert_eq!(bench.input(Input::Recycle(WORKER, 1)), [Action::Spawn(WORKER, 2)]);
    assert_eq!(bench.input(Input::Recycle(WORKER, 1)), []);
    assert!(!bench.state.is_reloading());
    bench.input(Input::Prepared(WORKER, 2));
    bench.input(rested(1, 2, None));
    let actions = bench.input(Input::Ready(WORKER, 2, 3, 0));
    assert_eq!(done(&actions).map(|outcome| outcome.by_request), Some(false));
    assert_eq!(bench.input(Input::Recycle(WORKER, 1)), [], "it is nobody now");
}

/// A worker's answer to the `Rest` that was sent for this successor.
fn rested(generation: u32, successor: u32, rest: Option<i32>) -> Input {
    Input::Rested(WORKER, generation, successor, rest)
}
