//! What a worker is about, from birth to leaving: decisions, no I/O.
//!
//! Knows the messages of the pipe; knows no connection and no socket. Invariants: 1. A worker serves
//! connections only between `Serve` and `Rest`. 2. After `Leave` nothing more is decided.

use crate::clock::Millis;

/// Where a worker is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// `worker_start` is done; the slot is still the predecessor's.
    Prepared,
    /// The slot is this worker's.
    Serving,
    /// It has stopped reading; what is left lies where a successor finds it.
    Resting,
    /// The server stops; connections are being told.
    Stopping { until: Millis },
    /// It leaves with this turn.
    Leaving(Leaving),
}

/// Why a worker leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaving {
    /// A successor has the slot, or it never had it.
    Replaced,
    /// The server stops, and the connections are closed, or the time was up.
    Stopped,
}

/// What comes from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// The master: the slot is yours.
    Commit,
    /// The master: rest.
    Rest,
    /// The master: go on, the successor failed.
    Resume,
    /// The master: leave.
    Leave,
    /// The master: the server stops.
    Stop { timeout_ms: u64 },
    /// A look at what is left to do: connections, mail that waits, results that are awaited.
    Look { left: usize },
    /// So many messages were served in all.
    Served { messages: u64 },
    /// Somebody sent this process SIGTERM.
    Terminate,
}

/// What to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Adopt and serve.
    Serve,
    /// Put everything where a successor finds it, and say so.
    LayDown,
    /// Take it up again.
    TakeUp,
    /// Run `worker_stop`, tell every connection.
    SayGoodbye,
    /// Ask the master for a successor.
    AskForSuccessor,
}

/// The life of one worker.
#[derive(Debug)]
pub(super) struct Life {
    stage: Stage,
    max_messages: u64,
    /// When a successor was asked for; asked again where none has come for long.
    asked_at: Option<Millis>,
}

/// After this time without a successor another one is asked for.
const ASK_AGAIN_MS: u64 = 10_000;

impl Life {
    /// A worker whose `worker_start` is done. `max_messages` 0: no limit.
    pub(super) fn new(max_messages: u64) -> Self {
        Self { stage: Stage::Prepared, max_messages, asked_at: None }
    }

    pub(super) fn serving(&self) -> bool {
        matches!(self.stage, Stage::Serving | Stage::Stopping { .. })
    }

    pub(super) fn accepting(&self) -> bool {
        self.stage == Stage::Serving
    }

    pub(super) fn leaving(&self) -> Option<Leaving> {
        match self.stage {
            Stage::Leaving(why) => Some(why),
            _ => None,
        }
    }

    /// Takes an input; gives what is to be done, if anything.
    pub(super) fn input(&mut self, now: Millis, input: Input) -> Option<Action> {
        match (self.stage, input) {
            (Stage::Leaving(_), _) => None,
            (Stage::Prepared, Input::Commit) => self.go(Stage::Serving, Some(Action::Serve)),
            (Stage::Serving, Input::Rest) => self.go(Stage::Resting, Some(Action::LayDown)),
            (Stage::Resting, Input::Resume) => {
                self.asked_at = None;
                self.go(Stage::Serving, Some(Action::TakeUp))
            }
            (Stage::Prepared | Stage::Resting, Input::Leave | Input::Stop { .. }) => {
                self.go(Stage::Leaving(Leaving::Replaced), None)
            }
            (_, Input::Leave) => self.go(Stage::Leaving(Leaving::Stopped), None),
            (Stage::Serving, Input::Stop { timeout_ms }) => {
                let until = now + timeout_ms;
                self.go(Stage::Stopping { until }, Some(Action::SayGoodbye))
            }
            (Stage::Stopping { until }, Input::Look { left }) => {
                if left == 0 || now >= until {
                    self.stage = Stage::Leaving(Leaving::Stopped);
                }
                None
            }
            (Stage::Serving, Input::Served { messages }) => {
                let due = self.max_messages > 0 && messages >= self.max_messages;
                if due { self.ask(now) } else { None }
            }
            (Stage::Serving, Input::Terminate) => self.ask(now),
            _ => None,
        }
    }

    fn go(&mut self, stage: Stage, action: Option<Action>) -> Option<Action> {
        self.stage = stage;
        action
    }

    fn ask(&mut self, now: Millis) -> Option<Action> {
        let due = self.asked_at.is_none_or(|at| now.since(at) >= ASK_AGAIN_MS);
        due.then(|| {
            self.asked_at = Some(now);
            Action::AskForSuccessor
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000);

    fn serving(max_messages: u64) -> Life {
        let mut life = Life::new(max_messages);
        assert_eq!(life.input(NOW, Input::Commit), Some(Action::Serve));
        life
    }

    #[test]
    fn a_worker_rests_and_leaves_or_goes_on() {
        let mut life = serving(0);
        assert_eq!(life.input(NOW, Input::Rest), Some(Action::LayDown));
        assert!(!life.serving());
        assert_eq!(life.input(NOW, Input::Resume), Some(Action::TakeUp));
        assert!(life.accepting());
        life.input(NOW, Input::Rest);
        assert_eq!(life.input(NOW, Input::Leave), None);
        assert_eq!(life.leaving(), Some(Leaving::Replaced));
        assert_eq!(life.input(NOW, Input::Commit), None, "it is over");
    }

    #[test]
    fn a_stopping_worker_leaves_when_empty_or_late() {
        let mut life = serving(0);
        let stop = Input::Stop { timeout_ms: 500 };
        assert_eq!(life.input(NOW, stop), Some(Action::SayGoodbye));
        assert!(life.serving() && !life.accepting());
        life.input(NOW + 499, Input::Look { left: 3 });
        assert_eq!(life.leaving(), None);
        life.input(NOW + 500, Input::Look { left: 3 });
        assert_eq!(life.leaving(), Some(Leaving::Stopped));
        let mut life = serving(0);
        life.input(NOW, stop);
        life.input(NOW, Input::Look { left: 0 });
        assert_eq!(life.leaving(), Some(Leaving::Stopped));
    }

    #[test]
    fn a_successor_is_asked_for_once() {
        let mut life = serving(10);
        assert_eq!(life.input(NOW, Input::Served { messages: 9 }), None);
        let asked = Some(Action::AskForSuccessor);
        assert_eq!(life.input(NOW, Input::Served { messages: 10 }), asked);
        assert_eq!(life.input(NOW, Input::Served { messages: 11 }), None);
        assert_eq!(life.input(NOW + ASK_AGAIN_MS, Input::Served { messages: 12 }), asked);
        assert_eq!(serving(0).input(NOW, Input::Served { messages: u64::MAX }), None);
        assert_eq!(serving(0).input(NOW, Input::Terminate), asked);
    }
}
