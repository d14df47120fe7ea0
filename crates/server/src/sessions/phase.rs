//! Where a session is in its life, what its worker was doing with it, and what its row tells.

use super::Sessions;
use crate::clock;
use crate::ids::{ConnId, SlotId};
use std::net::SocketAddr;

/// Where a row is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Claimed; the answer to the upgrade is not out yet.
    Opening,
    /// Open.
    Open,
    /// The server stops: open, and about to be told; nobody is to send it anything new.
    Leaving,
    /// A close frame is queued or sent; nothing more is pushed.
    Closing,
    /// Its worker died while serving it; its successor closes it.
    Lost,
}

/// What the worker was doing with the connection, for the case that it dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// All output is in the kernel, leftover input is in the pool: a successor may go on.
    Clean,
    /// Being read from or queued to: something may be lost with the worker, but no half frame is out.
    Handling,
    /// Being written to: half a frame may be out.
    Writing,
}

/// What a session's row tells of its connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// When it was accepted, Unix milliseconds.
    pub connected_at_ms: u64,
    /// When the last frame came, Unix milliseconds.
    pub last_active_ms: u64,
    /// The slot whose worker serves it.
    pub slot: SlotId,
    /// The subprotocol agreed on, empty if none.
    pub subprotocol: String,
}

impl Sessions {
    /// Address, times and worker of a connection; `None` if it is gone.
    #[must_use]
    pub fn info(&self, conn: ConnId) -> Option<SessionInfo> {
        let row = self.read(conn)?;
        let silent_ms = clock::now().0.saturating_sub(self.word(conn, self.columns.last_active)?);
        Some(SessionInfo {
            peer: self.peer(conn)?,
            connected_at_ms: self.word(conn, self.columns.connected_at)?,
            last_active_ms: clock::unix_ms().saturating_sub(silent_ms),
            slot: SlotId(self.rows.owner(conn.row())?),
            subprotocol: row.str(self.columns.subprotocol).to_owned(),
        })
    }
}
