//! The scoreboard: a row of shared words per process, from which the status is read.
//!
//! Knows nothing of what the figures mean to anybody. Half of a row is written by the master only,
//! half by the process itself only, once per turn; readers never wait, so the status can be read
//! while a worker is stuck. Figures belong to the slot and go on over its lives.

mod closes;
mod errand;
mod histogram;

pub use closes::{APP_CODES_MAX, End};
pub(crate) use errand::Errand;
pub use histogram::{BOUNDS_US, Spread, Times};

use crate::clock::Millis;
use crate::ids::{SlotId, Turn};
use std::sync::atomic::{AtomicU64, Ordering};

/// Words per process row; a multiple of a cache line, so that two writers never share one.
pub const ROW_WORDS: usize = 176;

/// Where the counts of [`End`]s begin; behind them the two histograms.
const ENDS: usize = 96;
const TURN_TIMES: usize = ENDS + closes::WORDS;

/// The word of the whole server that says whose turn it is to take a task; the first is the peak.
const TASK_TURN: usize = 1;

macro_rules! cells {
    ($($(#[$doc:meta])* $name:ident = $index:expr;)*) => {
        /// One word of a process row.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Cell { $($(#[$doc])* $name = $index,)* }

        /// Every cell by name, with its place in the row.
        pub(crate) const CELLS: &[(&str, usize)] = &[$((stringify!($name), $index),)*];
    };
}

cells! {
    /// Master: process id, 0 if there is none.
    Pid = 0;
    /// Master: the life of the slot that owns it now. Writing it is the commit of a handover.
    Generation = 1;
    /// Master: a [`ChildState`] code.
    State = 2;
    /// Master: how often a dead process was replaced.
    Restarts = 3;
    /// Master: how often its worker was killed as stuck.
    StuckKilled = 5;
    /// Master: the slot whose worker stands in for this one, and 1; 0: none does.
    StoodInBy = 6;
    /// Process: turn count, with the lowest bit set while it is busy.
    Stamp = 8;
    /// Process: when the turn under way began, in monotonic milliseconds.
    TurnBegan = 9;
    /// Process: connections it serves.
    Connections = 10;
    /// Process: TCP connections taken in.
    Accepted = 11;
    /// Process: connections ended.
    Closed = 12;
    /// Process: messages received.
    MessagesIn = 13;
    /// Process: messages sent.
    MessagesOut = 14;
    /// Process: bytes received.
    BytesIn = 15;
    /// Process: bytes sent.
    BytesOut = 16;
    /// Process: connections closed because they read too slowly.
    SlowClosed = 17;
    /// Process: droppable messages dropped at three quarters of an outbox, or of all.
    Dropped = 18;
    /// Process: bytes waiting for other workers' mailboxes.
    SpilledBytes = 19;
    /// Process: messages refused because a mailbox and its spill list were full.
    MailRefused = 20;
    /// Process: envelopes whose connection was gone.
    MailStale = 21;
    /// Process: hooks that panicked.
    HookPanics = 22;
    /// Process: connections taken over from a predecessor.
    Adopted = 23;
    /// Process: connections of a dead predecessor closed with 1012.
    LostHandling = 24;
    /// Process: connections of a dead predecessor reset, half a frame being out.
    LostWriting = 25;
    /// Process: upgrades refused because the session table was full.
    TableFull = 26;
    /// Process: connections refused because `http.max_connections` were open.
    HttpFull = 27;
    /// Process: protocol violations by clients.
    Violations = 28;
    /// Process: handshakes and requests that timed out.
    HttpTimeouts = 29;
    /// Process: messages refused because the receive pool was full.
    PoolFull = 30;
    /// Process: serial number of tasks and requests it has named.
    Serial = 31;
    /// Process: established sessions of the slot.
    Sessions = 32;
    /// Process: plain requests answered.
    Requests = 33;
    /// Process: datagrams taken out of its mailbox.
    MailIn = 34;
    /// Process: connections that are not open yet: plain HTTP and handshakes.
    HttpOpen = 35;
    /// Process: tasks it has put into the queue.
    TasksAsked = 36;
    /// Process: messages that were begun and not ended within `websocket.message_timeout`.
    MessageTimeouts = 50;
    /// Process: connections closed as dead: no answer to a ping, or the kernel gave up.
    DeadClosed = 51;
    /// Process: bytes of all outboxes.
    UnsentBytes = 52;
    /// Process: how often `websocket.send_buffer_total` was reached.
    OutputFull = 53;
    /// Process: pings not answered because a later one came before there was room for a pong.
    PongsSkipped = 54;
    /// Process: turns in which a connection had more to serve than its share, or all together too much.
    TurnsFull = 55;
    /// Process: connections refused because their address had `server.max_connections_per_ip`.
    FullPerIp = 56;
    /// Process: connections refused because their address opened them too fast.
    TooFastPerIp = 57;
    /// Process: turns in which nothing more was accepted because of `server.accept_rate`.
    AcceptDelayed = 58;
    /// Process: messages refused because their address had `websocket.receive_share` of the pool.
    PoolShareFull = 59;
    /// Process: connections handed to workers of other slots.
    MovedOut = 64;
    /// Process: connections taken up from workers of other slots.
    MovedIn = 65;
    /// Process: recipients of mail sent on to the worker that serves them.
    Forwarded = 66;
    /// Process: connections closed because mail for them was lost with a worker.
    LostMail = 67;
    /// Process: the code of what it is about; see `Errand`.
    Errand = 72;
    /// Process: the connection it is about, 0 for none.
    ErrandConn = 73;
    /// Process: connections closed because taking them up had killed three workers.
    Poisonous = 74;
    /// Task process: the task in hand, 0 if none.
    TaskInHand = 40;
    /// Task process: the slot that asked for it.
    TaskAsker = 41;
    /// Task process: when it was begun, in monotonic milliseconds.
    TaskBegan = 42;
    /// Task process: tasks done.
    TasksDone = 43;
    /// Master: tasks failed by the death or timeout of the process; process: other failures are in
    /// [`Cell::TasksFailedInside`].
    TasksFailed = 4;
    /// Task process: tasks whose hook panicked or gave nothing, or that did not decode.
    TasksFailedInside = 44;
    /// Task process: tasks it has taken out of the queue.
    TasksTaken = 45;
    /// Process: compressed messages received.
    CompressedIn = 37;
    /// Process: messages sent compressed, each recipient counted.
    CompressedOut = 38;
    /// Process: runs of the compressor; a message for many is compressed once for each size of window.
    Compressions = 39;
    /// Process: bytes that compressed messages sent were shorter than the messages.
    SavedBytes = 46;
    /// Process: compressed messages refused because they inflate over `websocket.max_message`.
    BombsRefused = 47;
    /// Process: clients it had when the server began to stop.
    StopTotal = 88;
    /// Process: those of them that were told.
    StopTold = 89;
    /// Process: turns that ended with connections still to be closed.
    ClosesDelayed = 90;
    /// Process: 1 where it has given up system calls that no server needs (`server.sandbox`).
    Sandboxed = 91;
    /// Master: how often its process died by a SIGKILL that was not the master's.
    DeathsKilled = 168;
    /// Master: how often its process died by any other signal.
    DeathsCrashed = 169;
    /// Master: how often its process ended by itself, unasked.
    DeathsExited = 170;
    /// Master: how often its process was killed for what it did not do: end its turn or its task, read its pipe.
    DeathsStuck = 171;
    /// Master: connections of dead workers that no row named: plain HTTP, handshakes, what was being closed.
    ClosedForDead = 172;
    /// Timer process: timers and deadlines it has seen armed at its last look.
    TimersArmed = 48;
    /// Timer process: timers and deadlines it has reported due.
    TimersFired = 49;
}

/// What a child is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildState {
    /// Started, not yet serving.
    Starting,
    /// Serving.
    Running,
    /// Has stopped reading, before it is replaced.
    Resting,
    /// Ended as asked.
    Stopped,
    /// Died; a successor is due.
    Crashed,
    /// Dies again and again; the next start is delayed.
    CrashLooping,
}

impl ChildState {
    const ALL: [(Self, u64, &'static str); 6] = [
        (Self::Starting, 1, "starting"),
        (Self::Running, 2, "running"),
        (Self::Resting, 3, "resting"),
        (Self::Stopped, 4, "stopped"),
        (Self::Crashed, 5, "crashed"),
        (Self::CrashLooping, 6, "crash_looping"),
    ];

    fn code(self) -> u64 {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or(0, |entry| entry.1)
    }

    /// The word of the status object.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or("stopped", |entry| entry.2)
    }

    fn from_code(code: u64) -> Self {
        Self::ALL.iter().find(|entry| entry.1 == code).map_or(Self::Stopped, |entry| entry.0)
    }
}

/// The row of one process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessRow {
    words: &'static [AtomicU64],
    close_codes: &'static [u16],
}

impl ProcessRow {
    /// A figure.
    #[must_use]
    pub fn value(&self, cell: Cell) -> u64 {
        self.words[cell as usize].load(Ordering::Relaxed)
    }

    /// Writes a figure; only its one writer may.
    pub fn set(&self, cell: Cell, value: u64) {
        self.words[cell as usize].store(value, Ordering::Relaxed);
    }

    /// Adds to a figure; only its one writer may.
    pub fn add(&self, cell: Cell, by: u64) {
        self.set(cell, self.value(cell).wrapping_add(by));
    }

    /// The life of the slot that owns it now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        // Acquire pairs with `commit`: who sees the new owner sees what the old one left.
        self.words[Cell::Generation as usize].load(Ordering::Acquire)
    }

    /// Master: makes a generation the owner of the slot. The commit point of a handover.
    pub fn commit(&self, generation: u64) {
        self.words[Cell::Generation as usize].store(generation, Ordering::Release);
    }

    /// What the process is doing.
    #[must_use]
    pub fn state(&self) -> ChildState {
        ChildState::from_code(self.value(Cell::State))
    }

    /// Master: notes what the process is doing.
    pub fn set_state(&self, state: ChildState) {
        self.set(Cell::State, state.code());
    }

    /// Process: a turn begins.
    pub fn turn_begins(&self, now: Millis) {
        self.set(Cell::TurnBegan, now.0);
        self.set(Cell::Stamp, self.value(Cell::Stamp).wrapping_add(2) | 1);
    }

    /// Process: the turn is over, it is about to wait. Release: whatever it did in the turn is seen
    /// by who reads the stamp.
    pub fn turn_ends(&self) {
        let stamp = self.value(Cell::Stamp) & !1;
        self.words[Cell::Stamp as usize].store(stamp, Ordering::Release);
    }

    /// The stamp: a turn count, odd while busy.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        self.words[Cell::Stamp as usize].load(Ordering::Acquire)
    }

    /// Task process: notes the task in hand, 0 for none, after whose it is.
    pub fn note_task(&self, task: u64) {
        // Release: who reads the task reads the asker that was written before it.
        self.words[Cell::TaskInHand as usize].store(task, Ordering::Release);
    }

    /// The task in hand, 0 for none.
    #[must_use]
    pub fn task_in_hand(&self) -> u64 {
        self.words[Cell::TaskInHand as usize].load(Ordering::Acquire)
    }

    /// A new serial number of the slot, never given before, over all its lives.
    #[must_use]
    pub fn next_serial(&self) -> u64 {
        self.words[Cell::Serial as usize].fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// All process rows: workers first, then task processes, then added processes; and a few words of
/// the whole server.
#[derive(Clone, Copy, Debug)]
pub struct Scoreboard {
    words: &'static [AtomicU64],
    workers: usize,
    tasks: usize,
    close_codes: &'static [u16],
}

impl Scoreboard {
    /// Words needed for so many processes.
    #[must_use]
    pub fn words_needed(workers: usize, tasks: usize, processes: usize) -> usize {
        (1 + workers + tasks + processes) * ROW_WORDS
    }

    /// A scoreboard over zeroed words; `close_codes` are the application's, see [`End`].
    #[must_use]
    pub fn new(
        words: &'static [AtomicU64],
        workers: usize,
        tasks: usize,
        close_codes: &'static [u16],
    ) -> Self {
        Self { words, workers, tasks, close_codes }
    }

    /// The row of a worker slot. Panics if there is no such slot: slots come from the config.
    #[must_use]
    pub fn worker(&self, slot: usize) -> ProcessRow {
        assert!(slot < self.workers, "there are {} worker slots, not {slot}", self.workers);
        self.row(1 + slot)
    }

    /// The row of a task process. Panics if there is no such place.
    #[must_use]
    pub fn task(&self, place: usize) -> ProcessRow {
        assert!(place < self.tasks, "there are {} task processes, not {place}", self.tasks);
        self.row(1 + self.workers + place)
    }

    /// The row of an added process. Panics if there is no such place.
    #[must_use]
    pub fn process(&self, place: usize) -> ProcessRow {
        self.row(1 + self.workers + self.tasks + place)
    }

    /// How many worker slots there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// How many task processes there are.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// The sum of a figure over all worker slots.
    #[must_use]
    pub fn worker_sum(&self, cell: Cell) -> u64 {
        (0..self.workers).map(|slot| self.worker(slot).value(cell)).sum()
    }

    /// Tasks in the queue that all task processes read.
    #[must_use]
    pub fn tasks_queued(&self) -> u64 {
        let taken: u64 =
            (0..self.tasks).map(|place| self.task(place).value(Cell::TasksTaken)).sum();
        self.worker_sum(Cell::TasksAsked).saturating_sub(taken)
    }

    /// The turn a worker is in; none that is under way before it serves.
    pub(crate) fn turn(&self, slot: SlotId) -> Turn {
        Turn::new(slot, self.worker(slot.index()).stamp())
    }

    /// Whether a turn goes on. Acquire, by the stamp: who sees it over sees all that it did.
    pub(crate) fn is_under_way(&self, turn: Turn) -> bool {
        let slot = turn.slot();
        let stamp = (slot.index() < self.workers).then(|| self.worker(slot.index()).stamp());
        stamp.is_some_and(|stamp| stamp & 1 == 1 && Turn::new(slot, stamp) == turn)
    }

    /// Notes that so many sessions were open at once.
    pub fn note_peak(&self, sessions: u64) {
        self.words[0].fetch_max(sessions, Ordering::Relaxed);
    }

    /// The most sessions open at once so far.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.words[0].load(Ordering::Relaxed)
    }

    /// Task process: it is its turn to take a task. False: another's.
    pub(crate) fn begin_task_turn(&self, place: u16) -> bool {
        let turn = u64::from(place) + 1;
        self.words[TASK_TURN].compare_exchange(0, turn, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Task process, or the master for a dead one: the turn is over. Nothing happens in another's turn.
    pub(crate) fn end_task_turn(&self, place: u16) {
        let turn = u64::from(place) + 1;
        // It is another's already, which is what is wanted.
        let _ =
            self.words[TASK_TURN].compare_exchange(turn, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whose turn it is to take a task.
    pub(crate) fn task_turn(&self) -> Option<u16> {
        let turn = self.words[TASK_TURN].load(Ordering::Acquire);
        turn.checked_sub(1).and_then(|place| u16::try_from(place).ok())
    }

    fn row(&self, index: usize) -> ProcessRow {
        ProcessRow {
            words: &self.words[index * ROW_WORDS..(index + 1) * ROW_WORDS],
            close_codes: self.close_codes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(workers: usize, tasks: usize, processes: usize) -> Scoreboard {
        let needed = Scoreboard::words_needed(workers, tasks, processes);
        Scoreboard::new(
            Box::leak((0..needed).map(|_| AtomicU64::new(0)).collect()),
            workers,
            tasks,
            &[],
        )
    }

    #[test]
    fn rows_do_not_overlap() {
        let board = board(2, 1, 1);
        board.worker(0).set(Cell::Accepted, 1);
        board.worker(1).set(Cell::Accepted, 2);
        board.task(0).set(Cell::Accepted, 4);
        board.process(0).set(Cell::Accepted, 8);
        assert_eq!(board.worker_sum(Cell::Accepted), 3);
        assert_eq!(board.task(0).value(Cell::Accepted), 4);
    }

    #[test]
    fn the_stamp_tells_busy_from_waiting_and_counts_turns() {
        let row = board(1, 0, 0).worker(0);
        row.turn_begins(Millis(5));
        let busy = row.stamp();
        assert_eq!(busy & 1, 1);
        row.turn_ends();
        assert_eq!(row.stamp() & 1, 0);
        row.turn_begins(Millis(6));
        assert!(row.stamp() > busy);
    }
}
