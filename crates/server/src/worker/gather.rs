//! Large messages on their way in, read straight to where they are delivered from.
//!
//! A message of one frame that is too large for one read is gathered in the worker's own memory for as
//! long as it keeps coming. What is there when the turn ends goes to the receive pool, too, where a
//! successor finds it: a gathering is a copy of the pool's chain, and may be forgotten between turns.
//! Invariants: 1. Between turns everything gathered is in the chain. 2. There are at most
//! [`GATHERINGS`] buffers of at most [`GATHER_MAX_BYTES`], those that wait for the next message included.

use super::Worker;
use super::receive::Reading;
use crate::app::App;
use crate::ids::ConnId;
use crate::websocket::Event;

/// Messages gathered at once by a worker; the one that waited longest makes room, or the next goes to the
/// pool alone.
const GATHERINGS: usize = 16;
/// Smaller messages are not worth a buffer of their own.
const GATHER_MIN_BYTES: usize = 64 << 10;
/// Larger ones go to the pool alone.
const GATHER_MAX_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gatherings {
    /// Oldest first.
    under_way: Vec<Gathering>,
    /// Buffers for the next ones.
    spare: Vec<Vec<u8>>,
    /// One has begun since the last sweep.
    used: bool,
}

#[derive(Debug)]
pub(super) struct Gathering {
    conn: ConnId,
    /// Longer than the message may be: it is reused.
    bytes: Vec<u8>,
    /// How many bytes came.
    filled: usize,
    /// How many of them are in the pool.
    saved: usize,
    /// Payload bytes of the frame.
    total: usize,
}

impl Gatherings {
    /// Begins with the first piece of a frame of `total` bytes. False: it is not for here.
    pub(super) fn begin(&mut self, conn: ConnId, piece: &[u8], total: usize) -> bool {
        if !(GATHER_MIN_BYTES..=GATHER_MAX_BYTES).contains(&total) {
            return false;
        }
        if self.under_way.len() >= GATHERINGS {
            let Some(place) = self.under_way.iter().position(|old| old.saved == old.filled) else {
                return false;
            };
            let oldest = self.under_way.remove(place);
            self.spare.push(oldest.bytes);
        }
        let mut bytes = match self.spare.iter().position(|spare| spare.len() >= total) {
            Some(place) => self.spare.swap_remove(place),
            None => {
                self.spare.truncate(GATHERINGS - 1 - self.under_way.len());
                vec![0; total.next_power_of_two()]
            }
        };
        bytes[..piece.len()].copy_from_slice(piece);
        self.used = true;
        self.under_way.push(Gathering { conn, bytes, filled: piece.len(), saved: 0, total });
        true
    }

    fn take(&mut self, conn: ConnId) -> Option<Gathering> {
        let place = self.under_way.iter().position(|gathering| gathering.conn == conn)?;
        Some(self.under_way.remove(place))
    }

    fn give_back(&mut self, gathering: Gathering) {
        if self.under_way.len() + self.spare.len() < GATHERINGS {
            self.spare.push(gathering.bytes);
        }
    }

    /// Forgets what is gathered for a connection; what is saved goes on in the pool.
    pub(super) fn forget(&mut self, conn: ConnId) {
        if let Some(gathering) = self.take(conn) {
            self.give_back(gathering);
        }
    }

    /// Forgets everything; what is saved goes on in the pool.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives memory back that was not used since the last sweep.
    pub(super) fn sweep(&mut self) {
        if !std::mem::take(&mut self.used) {
            self.spare = Vec::new();
        }
    }
}

impl<A: App> Worker<'_, A> {
    /// Begins to gather the message whose first piece this is. False: it is kept the usual way.
    pub(super) fn begin_gathering(&mut self, key: usize, conn: ConnId, piece: &[u8]) -> bool {
        let left =
            self.core.connections[key].open().map_or(0, |open| open.progress.frame_bytes_left());
        if left == 0 {
            return false; // the frame is whole: there is nothing to wait for
        }
        let total =
            usize::try_from(left).map_or(usize::MAX, |left| left.saturating_add(piece.len()));
        self.core.gatherings.begin(conn, piece, total)
    }

    /// Goes on with the message that is gathered for a connection, if there is one.
    pub(super) fn go_on_gathering(&mut self, key: usize) -> Option<Reading> {
        if self.core.gatherings.under_way.is_empty() {
            return None;
        }
        let open = self.core.connections[key].open()?;
        let (conn, closing) = (open.conn, open.closing.is_some());
        let gathering = self.core.gatherings.take(conn)?;
        if closing {
            // Nobody listens any more: what still comes is read the usual way and thrown away.
            self.core.gatherings.give_back(gathering);
            return None;
        }
        Some(self.gather(key, gathering))
    }

    /// Reads until the frame is whole or nothing more is there.
    fn gather(&mut self, key: usize, mut gathering: Gathering) -> Reading {
        let (conn, limits) = (gathering.conn, self.core.limits);
        loop {
            let (from, total) = (gathering.filled, gathering.total);
            let (reading, length) = self.read_into(key, &mut gathering.bytes[from..total]);
            if length == 0 {
                self.core.gatherings.under_way.push(gathering);
                self.note_piece(key, conn);
                return reading;
            }
            let Some(open) = self.core.connections[key].open_mut() else { return reading };
            open.pinged = None;
            gathering.filled += length;
            match open.progress.next(&mut gathering.bytes[from..from + length], &limits) {
                Ok((_, Event::Data { opcode, finish: true, .. })) => {
                    open.began = None;
                    let core = &mut self.core;
                    core.shared.pool.free(core.shared.sessions.message_chain(conn.row()));
                    self.deliver_message(key, conn, opcode, &gathering.bytes[..total]);
                    self.core.gatherings.give_back(gathering);
                    self.note_piece(key, conn);
                    return Reading::More;
                }
                Ok(_) if gathering.filled == total => {
                    // The message has another frame: it goes on in the pool alone.
                    self.save(key, gathering);
                    self.note_piece(key, conn);
                    return Reading::More;
                }
                Ok(_) => {}
                Err(violation) => {
                    self.refuse(key, violation);
                    self.core.gatherings.give_back(gathering);
                    return reading;
                }
            }
        }
    }

    fn note_piece(&mut self, key: usize, conn: ConnId) {
        if self.core.key_of(conn) == Some(key) {
            self.note_life(key, conn);
            self.save_rest(key, conn, &[]);
        }
    }

    /// Copies to the pool what is gathered and not there yet: before a turn ends.
    pub(super) fn save_gathered(&mut self) {
        while let Some(place) =
            self.core.gatherings.under_way.iter().position(|one| one.saved < one.filled)
        {
            let gathering = self.core.gatherings.under_way.remove(place);
            match self.core.key_of(gathering.conn) {
                Some(key) => {
                    if let Some(saved) = self.save(key, gathering) {
                        self.core.gatherings.under_way.push(saved);
                    }
                }
                None => self.core.gatherings.give_back(gathering),
            }
        }
    }

    /// `None`: its connection is closing, or the message is whole or too much for the pool.
    fn save(&mut self, key: usize, mut gathering: Gathering) -> Option<Gathering> {
        let closing = self.core.connections[key].open().is_none_or(|open| open.closing.is_some());
        let unsaved = &gathering.bytes[gathering.saved..gathering.filled];
        let kept = !closing && self.keep_piece(key, gathering.conn, unsaved);
        if kept && gathering.filled < gathering.total {
            gathering.saved = gathering.filled;
            return Some(gathering);
        }
        self.core.gatherings.give_back(gathering);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(number: u64) -> ConnId {
        ConnId::from_row(dunlin_table::RowId::from_bits(number))
    }

    #[test]
    fn only_large_messages_are_gathered() {
        let mut all = Gatherings::default();
        assert!(!all.begin(conn(1), b"ab", GATHER_MIN_BYTES - 1));
        assert!(!all.begin(conn(1), b"ab", GATHER_MAX_BYTES + 1));
        assert!(all.begin(conn(1), b"ab", GATHER_MAX_BYTES));
        let gathering = all.take(conn(1)).unwrap();
        assert_eq!((&gathering.bytes[..2], gathering.filled, gathering.saved), (&b"ab"[..], 2, 0));
        assert!(all.take(conn(1)).is_none());
    }

    #[test]
    fn buffers_are_bounded_and_only_what_is_saved_makes_room() {
        let mut all = Gatherings::default();
        for number in 0..16 {
            assert!(all.begin(conn(number), b"ab", GATHER_MIN_BYTES));
        }
        assert!(!all.begin(conn(16), b"ab", GATHER_MIN_BYTES), "nothing of the others is saved");
        all.under_way[3].saved = 2;
        assert!(all.begin(conn(16), b"cd", GATHER_MIN_BYTES));
        assert!(all.take(conn(3)).is_none(), "it was forgotten");
        assert_eq!(all.under_way.len() + all.spare.len(), GATHERINGS);
        for number in (0..17).filter(|number| *number != 3) {
            let gathering = all.take(conn(number)).unwrap();
            all.give_back(gathering);
        }
        assert_eq!(all.spare.len(), GATHERINGS);
        assert!(all.begin(conn(40), b"ab", GATHER_MAX_BYTES), "a larger one than all spares");
        assert!(all.under_way.len() + all.spare.len() <= GATHERINGS);
        all.sweep();
        assert!(!all.spare.is_empty(), "used since the last sweep");
        all.sweep();
        assert!(all.spare.is_empty());
    }
}
