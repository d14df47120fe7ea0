//! What lies outside of the processes of a [`FakeServer`](super::FakeServer): shared memory, mailboxes,
//! the queue of tasks, and the wires to the clients.
//!
//! Knows no application and no hook. Invariant: what stands here outlives any process.

use crate::app::{Closed, Response, Sender, TaskFailure};
use crate::clock::Millis;
use crate::context::MasterDeed;
use crate::ids::{ConnId, RequestId, SlotId, TaskId, TimerId};
use crate::scoreboard::Scoreboard;
use crate::sessions::{Phase, Service, Sessions, Writer};
use crate::shared::Areas;
use crate::timer::TimerTable;
use crate::websocket::Opcode;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// How much a [`FakeServer`](super::FakeServer) takes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Rows of the session table.
    pub sessions: u32,
    /// Armed timers.
    pub timers: usize,
    /// Envelopes on the way to one mailbox.
    pub mailbox: usize,
    /// Unsent bytes of a connection; what may be dropped is from half of it on.
    pub send_buffer: usize,
    /// Tasks that wait.
    pub tasks: usize,
}

/// What the client's end of a connection has heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A close frame: nothing follows.
    Close {
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// The transport ended without a close frame: nothing follows.
    Gone,
}

/// What a client has sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A WebSocket ping or pong, or anything else that shows life and is not shown to the application.
    Life,
    /// The end: by a close frame with this code, or (1006) without one.
    End(u16),
}

/// A message on its way to clients.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) payload: Rc<[u8]>,
}

/// What waits to be sent to a client.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Message(Frame),
    Close { code: u16, reason: String },
}

/// One envelope between processes.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    Deliver { to: Vec<ConnId>, frame: Frame, droppable: bool },
    Broadcast(Frame),
    Disconnect { conn: ConnId, last_words: Option<Frame>, code: u16, reason: String },
    Overdue(ConnId),
    Timer { timer: TimerId, ticks: u64, due: Millis },
    Pipe { from: Sender, message: Vec<u8> },
    Finish { task: TaskId, result: Result<Vec<u8>, TaskFailure> },
    Moved(ConnId),
    Lost(ConnId),
}

impl Mail {
    /// The connections it is for.
    pub(super) fn recipients(&self) -> &[ConnId] {
        match self {
            Self::Deliver { to, .. } => to,
            Self::Disconnect { conn, .. } | Self::Lost(conn) => std::slice::from_ref(conn),
            _ => &[],
        }
    }
}

/// The mail of one turn for one slot: taken as a whole, and lost as a whole.
pub(super) type Packet = Vec<Mail>;

/// A connection outside of its worker.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// Said by the client and not read yet.
    pub(super) said: VecDeque<Said>,
    /// Not yet sent to the client; dies with the worker unless it lays it down.
    pub(super) outbox: Vec<Output>,
    /// What the client has not looked at yet.
    pub(super) heard: Vec<Heard>,
    /// The client's end is over.
    pub(super) over: bool,
    /// The client reads nothing.
    pub(super) stalled: bool,
    /// Set while the worker closes it.
    pub(super) closing: Option<Closed>,
    /// Whether it has ever been served elsewhere than at home.
    pub(super) moved: bool,
    /// When its deadline was told of last.
    pub(super) told_overdue: Option<Millis>,
}

impl Wire {
    pub(super) fn outbox_bytes(&self) -> usize {
        let size = |output: &Output| match output {
            Output::Message(frame) => frame.payload.len(),
            Output::Close { .. } => 0,
        };
        self.outbox.iter().map(size).sum()
    }

    /// Sends what waits, unless the client does not read.
    pub(super) fn flush(&mut self) {
        if self.stalled {
            return;
        }
        for output in std::mem::take(&mut self.outbox) {
            let heard = match output {
                Output::Message(Frame { opcode: Opcode::Binary, payload }) => {
                    Heard::Binary(payload.to_vec())
                }
                Output::Message(frame) => {
                    let text = String::from_utf8(frame.payload.to_vec());
                    Heard::Text(text.expect("applications push texts as `str`"))
                }
                Output::Close { code, reason } => Heard::Close { code, reason },
            };
            self.hear(heard);
        }
    }

    /// The transport ends.
    pub(super) fn cut(&mut self) {
        self.outbox.clear();
        self.hear(Heard::Gone);
    }

    fn hear(&mut self, heard: Heard) {
        if self.over {
            return;
        }
        self.over = matches!(heard, Heard::Close { .. } | Heard::Gone);
        self.heard.push(heard);
    }
}

/// A task that waits for a task process.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) task: TaskId,
    pub(super) asker: SlotId,
    pub(super) work: Vec<u8>,
}

/// Everything outside of the processes.
#[derive(Debug)]
pub(super) struct World {
    pub(super) sessions: Sessions,
    pub(super) areas: Areas,
    pub(super) timers: TimerTable,
    pub(super) now: Millis,
    pub(super) unix_ms: u64,
    pub(super) bounds: Bounds,
    pub(super) slots: usize,
    pub(super) wires: BTreeMap<ConnId, Wire>,
    /// By receiver and sender; the order of one sender is kept, between senders there is none.
    pub(super) post: Vec<Vec<VecDeque<Packet>>>,
    pub(super) tasks: VecDeque<Work>,
    pub(super) responses: Vec<(RequestId, Response)>,
    pub(super) asked: Vec<MasterDeed>,
    /// Stamps of the turns.
    pub(super) scoreboard: Scoreboard,
    pub(super) next_id: u64,
}

/// A connection's deadline is told again after so long if nobody acted on it, in milliseconds.
const TELL_AGAIN_MS: u64 = 1_000;

impl World {
    /// The place of master and timer process among senders, behind the workers.
    pub(super) fn master(&self) -> usize {
        self.slots
    }

    /// The place of the task process among senders.
    pub(super) fn task_process(&self) -> usize {
        self.slots + 1
    }

    /// How many envelopes wait in the mailbox of a slot.
    pub(super) fn waiting(&self, slot: SlotId) -> usize {
        self.post[slot.index()].iter().flatten().map(Vec::len).sum()
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Mail of the master or the timer process, which is always taken.
    pub(super) fn post_as_master(&mut self, slot: SlotId, mail: Mail) {
        let master = self.master();
        self.post[slot.index()][master].push_back(vec![mail]);
    }

    /// What the timer process does in a sweep.
    pub(super) fn sweep(&mut self) {
        let due: Vec<_> = self.timers.armed().filter(|timer| timer.due <= self.now).collect();
        for timer in due {
            let ticks = crate::timer::missed(&timer, self.now).max(1);
            let mail = Mail::Timer { timer: timer.id, ticks, due: timer.due };
            self.timers.reported(&timer, self.now);
            self.post_as_master(timer.slot, mail);
        }
        let overdue =
            |conn: &ConnId| self.sessions.deadline(*conn).is_some_and(|at| at <= self.now);
        let overdue: Vec<ConnId> = self.sessions.all().filter(overdue).collect();
        for conn in overdue {
            let now = self.now;
            let Some(wire) = self.wires.get_mut(&conn) else { continue };
            if wire.told_overdue.is_none_or(|told| told + TELL_AGAIN_MS <= now) {
                wire.told_overdue = Some(now);
                self.tell_overdue(conn);
            }
        }
    }

    pub(super) fn tell_overdue(&mut self, conn: ConnId) {
        if let Some(home) = self.sessions.home(conn) {
            self.post_as_master(home, Mail::Overdue(conn));
        }
    }

    /// What the master does at a death: what was being served is lost for all readers at once.
    pub(super) fn mark_lost(&mut self, slot: SlotId, writer: Writer) {
        let rows: Vec<ConnId> = self.sessions.owned_by(slot).collect();
        for conn in rows {
            let wire = self.wires.entry(conn).or_default();
            let service = self.sessions.service(conn).unwrap_or(Service::Handling);
            if matches!(self.sessions.phase(conn), None | Some(Phase::Opening)) {
                wire.cut();
                self.sessions.free(conn);
            } else if service != Service::Clean {
                wire.outbox.clear();
                self.sessions.set_state(conn, Phase::Lost, service);
            }
        }
        self.sessions.recover(writer);
        // Connections that no row names any more: their worker had just freed it.
        for (conn, wire) in &mut self.wires {
            if self.sessions.phase(*conn).is_none() {
                wire.cut();
            }
        }
        self.timers.recover(slot);
        self.timers.rearm(slot);
    }
}
