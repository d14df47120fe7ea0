//! Carrying out what the [`Balancer`](super::balance::Balancer) decides: orders to workers, answers to
//! who asked.

use super::Master;
use super::balance::{Done, Job, Left, Outcome, SlotView, Step, Thresholds};
use super::control::Waiting;
use super::seats::{Phase, Seat};
use crate::app::App;
use crate::clock;
use crate::config::Config;
use crate::control::ControlAnswer;
use crate::ipc::pipe::Control;
use crate::scoreboard::Cell;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::info;

/// What the status says of moved connections.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct BalanceFigures {
    /// Asked for by a verb.
    asked: u64,
    /// Connections that were given to another worker, for whatever reason.
    moved: u64,
    /// When connections were moved last, as an RFC 3339 time.
    last_at: Option<String>,
}

impl<A: App> Master<A> {
    /// Begins to even connections out, or to drain a worker; whoever waits is told in the end.
    pub(super) fn begin_job(&mut self, job: Job, waiting: Waiting) {
        let refused = if self.state.is_stopping() || !self.state.was_ready() {
            let doing = if self.state.is_stopping() { "stopping" } else { "starting" };
            Err(format!("the server is {doing}"))
        } else {
            let slots = usize::from(self.config.workers);
            self.balancer.ask(self.now, job, slots).map_err(|refused| refused.to_string())
        };
        match refused {
            Ok(()) => {
                self.balance_figures.asked += 1;
                self.job_waiting = Some(waiting);
            }
            Err(sentence) => self.control.answer(waiting, &ControlAnswer::refused(sentence)),
        }
    }

    /// Time passes for it.
    pub(super) fn move_connections(&mut self) {
        let slots = self.slot_views();
        let step = if self.state.is_stopping() {
            self.balancer.stop(self.now, "the server stops", &slots)
        } else {
            let may_move =
                self.state.was_ready() && self.state.is_quiet() && !self.upgrades.is_under_way();
            self.balancer.tick(self.now, may_move, &slots, &thresholds(&self.config))
        };
        match step {
            Some(Step::Tell(order, life)) => {
                let message = Control::Move {
                    id: order.id,
                    to: order.to,
                    count: order.count,
                    within_ms: order.within_ms,
                };
                if let Some(child) = self.children.of(Seat::Worker(order.from), life) {
                    child.stuck |= child.pipe.send(&message).is_err();
                }
            }
            Some(Step::Over(outcome)) => self.end_job(&outcome),
            None => {}
        }
    }

    /// Whether nothing is on its way between workers. What people asked for is over where they are to
    /// make way for another program.
    pub(super) fn moves_have_ended(&mut self) -> bool {
        let settled = self.balancer.is_settled(self.now);
        if settled {
            let slots = self.slot_views();
            if let Some(Step::Over(outcome)) =
                self.balancer.stop(self.now, "an upgrade came in between", &slots)
            {
                self.end_job(&outcome);
            }
        }
        settled
    }

    /// A worker has done its order.
    pub(super) fn moves_done(&mut self, seat: Seat, done: Done) {
        self.balance_figures.moved += u64::from(done.moved);
        if done.moved > 0 {
            self.balance_figures.last_at = Some(clock::rfc3339(clock::unix_ms()));
        }
        self.balancer.done(self.now, seat.place(), done);
    }

    fn end_job(&mut self, outcome: &Outcome) {
        let Left { http, unsent, other } = outcome.left;
        let left = u64::from(http) + u64::from(unsent) + u64::from(other);
        let (error, moved, took_ms) = (outcome.error.as_deref(), outcome.moved, outcome.took_ms);
        info!(error, moved, left, took_ms, "connections moved");
        let answer = ControlAnswer {
            ok: outcome.error.is_none(),
            error: outcome.error.clone(),
            result: json!({
                "moved": outcome.moved,
                "left": { "http": http, "unsent": unsent, "other": other },
                "took_ms": outcome.took_ms,
                "connections": outcome.connections,
            }),
        };
        if let Some(waiting) = self.job_waiting.take() {
            self.control.answer(waiting, &answer);
        }
    }

    fn slot_views(&self) -> Vec<SlotView> {
        let board = &self.shared.scoreboard;
        // What workers say of themselves may be of a moment ago; the rows are of now.
        let owned = self.balancer.wants_exact_views().then(|| self.sessions_by_owner());
        (0..self.config.workers)
            .map(|slot| {
                let current = self.state.seats.get(&Seat::Worker(slot));
                let current = current.and_then(|seat| seat.current.as_ref());
                let running = current.filter(|life| life.phase == Phase::Running);
                let place = usize::from(slot);
                let said = || board.worker(place).value(Cell::Sessions);
                let sessions = owned.as_ref().map_or_else(said, |owned| owned[place]);
                SlotView { serving: running.map(|life| life.generation), sessions }
            })
            .collect()
    }

    fn sessions_by_owner(&self) -> Vec<u64> {
        let mut owned = vec![0; usize::from(self.config.workers)];
        let sessions = &self.shared.sessions;
        for owner in sessions.all().filter_map(|conn| sessions.owner(conn)) {
            if let Some(count) = owned.get_mut(owner.index()) {
                *count += 1;
            }
        }
        owned
    }
}

fn thresholds(config: &Config) -> Thresholds {
    Thresholds {
        percent: config.balance_above_percent,
        connections: u64::from(config.balance_above_connections),
        rate: u64::from(config.balance_rate),
    }
}
