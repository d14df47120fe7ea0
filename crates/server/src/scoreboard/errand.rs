//! What a worker does for whom, noted before it does it: what its death, or a turn without an end, is put
//! down to.

use super::{Cell, ProcessRow};
use crate::ids::ConnId;
use std::sync::atomic::Ordering;

/// What a worker is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    /// None of what follows.
    None,
    /// Taking up a connection of a predecessor, and the hook `adopt`.
    Adopt,
    /// Closing a connection that a death has lost.
    CloseLost,
    /// Reading and serving what a connection sent.
    Serve,
    /// The hook `connect`.
    Connect,
    /// The hook `handshake`.
    Handshake,
    /// The hook `open`.
    Open,
    /// The hook `message`.
    Message,
    /// The hook `request`.
    Request,
    /// The hook `deadline`.
    Deadline,
    /// The hook `buffer_full` or `buffer_empty`.
    Buffer,
    /// The hook `close`.
    Close,
    /// The hook `pipe_message`.
    PipeMessage,
    /// The hook `timer`.
    Timer,
    /// The hook `finish`.
    Finish,
}

impl Errand {
    const ALL: [(Self, u64, &'static str); 15] = [
        (Self::None, 0, "none"),
        (Self::Adopt, 1, "adopt"),
        (Self::CloseLost, 2, "closing what was lost"),
        (Self::Serve, 3, "reading"),
        (Self::Connect, 4, "connect"),
        (Self::Handshake, 5, "handshake"),
        (Self::Open, 6, "open"),
        (Self::Message, 7, "message"),
        (Self::Request, 8, "request"),
        (Self::Deadline, 9, "deadline"),
        (Self::Buffer, 10, "buffer"),
        (Self::Close, 11, "close"),
        (Self::PipeMessage, 12, "pipe_message"),
        (Self::Timer, 13, "timer"),
        (Self::Finish, 14, "finish"),
    ];

    /// As a line of the log names it.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or("none", |entry| entry.2)
    }

    fn code(self) -> u64 {
        Self::ALL.iter().find(|entry| entry.0 == self).map_or(0, |entry| entry.1)
    }

    fn from_code(code: u64) -> Self {
        Self::ALL.iter().find(|entry| entry.1 == code).map_or(Self::None, |entry| entry.0)
    }
}

impl ProcessRow {
    /// Process: notes what is about to be done, and for which connection. Two stores.
    pub(crate) fn note_errand(&self, errand: Errand, conn: Option<ConnId>) {
        self.set(Cell::ErrandConn, conn.map_or(0, ConnId::to_bits));
        // Release: with an errand goes its connection.
        self.words[Cell::Errand as usize].store(errand.code(), Ordering::Release);
    }

    /// Process: it is done.
    pub(crate) fn end_errand(&self) {
        self.note_errand(Errand::None, None);
    }

    /// What is being done, and for which connection.
    pub(crate) fn errand(&self) -> (Errand, Option<ConnId>) {
        let errand = Errand::from_code(self.words[Cell::Errand as usize].load(Ordering::Acquire));
        let conn = Some(self.value(Cell::ErrandConn)).filter(|bits| *bits != 0);
        (errand, conn.map(ConnId::from_bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoreboard::Scoreboard;

    #[test]
    fn every_errand_is_told_with_its_connection() {
        let words = dunlin_table::heap_words(Scoreboard::words_needed(1, 0, 0));
        let row = Scoreboard::new(words, 1, 0, &[]).worker(0);
        assert_eq!(row.errand(), (Errand::None, None));
        for (place, (errand, code, _)) in Errand::ALL.into_iter().enumerate() {
            assert_eq!(code, place as u64, "codes are told apart");
            let conn = ConnId::from_bits(7 << 32 | code);
            row.note_errand(errand, Some(conn));
            assert_eq!(row.errand(), (errand, Some(conn)));
        }
        row.end_errand();
        assert_eq!(row.errand(), (Errand::None, None));
    }
}
