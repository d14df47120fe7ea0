//! A connection in the memory of its worker: what is rebuilt from its row when another worker takes
//! over.
//!
//! Knows its stages and what it may do in each; does no I/O. Stages: HTTP (reading requests, waiting
//! for answers) → open (WebSocket) → closing → gone.

use crate::app::{Closed, Handshake, Response};
use crate::clock::Millis;
use crate::http::{Door, Request, Upgrade};
use crate::ids::{ConnId, RequestId, SlotId};
use crate::outbox::{Outbox, OutboxLimits};
use crate::peers::Address;
use crate::websocket::{Agreement, Progress};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// One accepted socket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) descriptor: RawFd,
    /// Of the other side of the socket, or what a trusted proxy said of it.
    pub(crate) peer: SocketAddr,
    /// Which listener took it.
    pub(crate) door: Door,
    /// The client, as far as it is told from others.
    pub(crate) address: Address,
    /// It is counted among the connections of its address.
    pub(crate) counted: bool,
    pub(crate) stage: Stage,
    pub(crate) outbox: Outbox,
    /// The kernel takes output; falls on WouldBlock, rises on the edge.
    pub(crate) writable: bool,
    /// The peer has ended its half: read until nothing is left.
    pub(crate) peer_ended: bool,
    /// The front of the outbox is the rest of something that is partly sent.
    pub(crate) half_out: bool,
    /// Stands in the list of connections to be settled at the end of the turn.
    pub(crate) touched: bool,
    /// Over; stands in the list of connections to be closed.
    pub(crate) parting: bool,
    /// Stands in the list of connections to be served in the next turn.
    pub(crate) queued: bool,
    /// When the last byte came.
    pub(crate) last_read: Millis,
    /// Bytes of a WebSocket that are read and not served yet: frames that came in one piece with the
    /// upgrade, or more of them than a turn takes. While there are any nothing more is read.
    pub(crate) held: Vec<u8>,
}

/// What a connection is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// HTTP: no row in the session table.
    Http(Box<HttpStage>),
    /// WebSocket: has a row.
    Open(OpenStage),
}

/// A connection that speaks HTTP.
#[derive(Debug, Default)]
pub(crate) struct HttpStage {
    /// Bytes read and not yet taken as a request; bounded by the limits on head and body.
    pub(crate) input: Vec<u8>,
    /// Requests in `input` wait for their turn: more came at once than one turn serves.
    pub(crate) waits: bool,
    /// When a request must be there, or its answer.
    pub(crate) deadline: Millis,
    /// The request that is not all there was answered with 100 (Continue).
    pub(crate) told_to_go_on: bool,
    /// A trusted proxy's, of which nothing has come yet: a header of the PROXY protocol may.
    pub(crate) begins: bool,
    /// A request was answered: the next has its time from its first byte on.
    pub(crate) answered: bool,
    /// The request under way, if one waits for its answer.
    pub(crate) pending: Option<Pending>,
    /// Nothing more is served; closed once the outbox is empty and the peer has ended, too.
    pub(crate) ending: bool,
    /// Our half is ended; what still comes is thrown away, so that the answer is not lost in a reset.
    pub(crate) lingering: bool,
    /// The peer has ended, or its time is up.
    pub(crate) gone: bool,
}

/// A request whose answer comes later; it travels to a successor.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    /// Whether it is an upgrade: the key to answer and the subprotocols offered.
    pub(crate) upgrade: Option<PendingUpgrade>,
}

/// The part of an upgrade that its answer needs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct PendingUpgrade {
    pub(crate) key: String,
    pub(crate) subprotocols: Vec<String>,
}

impl From<Upgrade> for PendingUpgrade {
    fn from(upgrade: Upgrade) -> Self {
        Self { key: upgrade.key, subprotocols: upgrade.subprotocols }
    }
}

/// An answer that came by a context.
#[derive(Debug)]
pub(crate) enum Answer {
    Handshake(Handshake),
    Response(Response),
}

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct OpenStage {
    pub(crate) conn: ConnId,
    /// The slot whose mailbox takes what is for it.
    pub(crate) home: SlotId,
    /// It has been served elsewhere than at home: whoever sends to it goes by its home, here too.
    pub(crate) moved: bool,
    /// Nothing is read from it until the worker that had it has said its last.
    pub(crate) arriving: bool,
    pub(crate) progress: Progress,
    /// When the first byte of what is half received came: of a message, or of a cut frame.
    pub(crate) began: Option<Millis>,
    /// How messages may be compressed, if at all; a copy of the row's.
    pub(crate) agreement: Option<Agreement>,
    /// Bytes of a cut header or control frame lie in the pool.
    pub(crate) has_cut: bool,
    /// The deadline moves by so much with every frame.
    pub(crate) heartbeat_ms: Option<u64>,
    /// The latest ping that could not be answered at once: its payload.
    pub(crate) pong: Option<Vec<u8>>,
    /// When a server ping was queued, if nothing came since.
    pub(crate) pinged: Option<Millis>,
    /// Its worker died serving it: offline for everybody, though its close is still to be said.
    pub(crate) lost: bool,
    /// It has been opened to the application: its `close` hook is due.
    pub(crate) announced: bool,
    /// The server stops and is about to tell it: others are to send it nothing more.
    pub(crate) leaving: bool,
    pub(crate) closing: Option<Closing>,
}

impl OpenStage {
    pub(crate) fn new(conn: ConnId, home: SlotId, agreement: Option<Agreement>) -> Self {
        Self {
            conn,
            home,
            moved: false,
            arriving: false,
            progress: Progress::default(),
            began: None,
            agreement,
            has_cut: false,
            heartbeat_ms: None,
            pong: None,
            pinged: None,
            lost: false,
            announced: false,
            leaving: false,
            closing: None,
        }
    }

    /// Whether what still comes has no meaning.
    pub(crate) fn is_deaf(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.deaf)
    }
}

/// A WebSocket on its way out: our close frame is queued or sent.
#[derive(Debug, Clone)]
pub(crate) struct Closing {
    /// What the application is told.
    pub(crate) closed: Closed,
    /// The peer's close frame came, or nothing is awaited from it.
    pub(crate) answered: bool,
    /// What still comes has no meaning: read and thrown away, so that our close frame is not lost in
    /// the reset that closing a socket with unread input sends.
    pub(crate) deaf: bool,
    /// Our half is ended, behind our close frame.
    pub(crate) half_closed: bool,
    /// Closed at the latest then.
    pub(crate) until: Millis,
}

impl Connection {
    pub(crate) fn new(
        descriptor: RawFd,
        peer: SocketAddr,
        address: Address,
        outbox_bytes: usize,
        now: Millis,
    ) -> Self {
        Self {
            descriptor,
            peer,
            door: Door::Public,
            address,
            counted: false,
            stage: Stage::Http(Box::default()),
            outbox: Outbox::new(outbox_bytes),
            // Optimistic: the first write tells.
            writable: true,
            peer_ended: false,
            half_out: false,
            touched: false,
            parting: false,
            queued: false,
            last_read: now,
            held: Vec::new(),
        }
    }

    /// What a predecessor had queued may be more than a limit that was lowered meanwhile.
    pub(crate) fn make_room_for(&mut self, bytes: usize) {
        if bytes > self.outbox.room_bytes() {
            self.outbox.set_limits(OutboxLimits::new(bytes));
        }
    }

    /// Its session, if it is a WebSocket.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match &self.stage {
            Stage::Open(open) => Some(open.conn),
            Stage::Http(_) => None,
        }
    }

    pub(crate) fn open(&self) -> Option<&OpenStage> {
        match &self.stage {
            Stage::Open(open) => Some(open),
            Stage::Http(_) => None,
        }
    }

    pub(crate) fn open_mut(&mut self) -> Option<&mut OpenStage> {
        match &mut self.stage {
            Stage::Open(open) => Some(open),
            Stage::Http(_) => None,
        }
    }

    pub(crate) fn http_mut(&mut self) -> Option<&mut HttpStage> {
        match &mut self.stage {
            Stage::Http(http) => Some(http),
            Stage::Open(_) => None,
        }
    }

    /// Whether it can be closed now: everything said, everything heard.
    pub(crate) fn is_over(&self) -> bool {
        match &self.stage {
            Stage::Http(http) => http.ending && http.gone && self.outbox.is_empty(),
            Stage::Open(open) => {
                open.closing.as_ref().is_some_and(|closing| closing.answered)
                    && self.outbox.is_empty()
            }
        }
    }
}
