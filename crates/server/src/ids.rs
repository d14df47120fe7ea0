//! The newtypes that name things: connections, slots, generations, tasks, timers, requests.
//!
//! Knows nothing of what they name. Every id fits one 64-bit word, so that it may stand in shared
//! memory and in an envelope.

use dunlin_table::RowId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A WebSocket connection: its row in the session table and the row's generation.
///
/// It holds neither a slot nor a process, so a connection may move between workers and keep it; a
/// stale id (the row was freed, perhaps taken again) is noticed by its generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ConnId(u64);

impl ConnId {
    /// The id of a row.
    #[must_use]
    pub fn from_row(row: RowId) -> Self {
        Self(row.to_bits())
    }

    /// The row in the session table.
    #[must_use]
    pub fn row(self) -> RowId {
        RowId::from_bits(self.0)
    }

    /// The id as one word, for shared memory and envelopes.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The id that [`ConnId::to_bits`] gave.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Reads what `Display` wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 || text.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

/// Sixteen hexadecimal digits: the session id that clients see.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A lasting place of a worker in the process table, 0 to `server.workers` - 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SlotId(pub u16);

impl SlotId {
    /// The slot as an index into per-slot lists.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The n-th life of a slot; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A task handed to the task processes; unique for the life of the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TaskId(pub u64);

/// An armed timer: its row in the shared timer table and the row's generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct TimerId(pub u64);

/// A plain HTTP request, or an upgrade, that waits for its answer; survives a reload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// One turn of one worker's loop: a slot, and its count of turns, which goes on over the slot's lives. Fits
/// [`Turn::BITS`] bits; 0 is no turn.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Turn(u64);

impl Turn {
    /// Bits of [`Turn::to_bits`] that may be set.
    pub const BITS: u32 = 62;
    const COUNT_BITS: u32 = Self::BITS - 16;
    const COUNT_MASK: u64 = (1 << Self::COUNT_BITS) - 1;

    /// The turn of a slot that has this stamp, which is odd while it is under way.
    pub(crate) fn new(slot: SlotId, stamp: u64) -> Self {
        Self(u64::from(slot.0) << Self::COUNT_BITS | stamp & Self::COUNT_MASK)
    }

    /// Whose it is.
    pub(crate) fn slot(self) -> SlotId {
        SlotId(u16::try_from(self.0 >> Self::COUNT_BITS & 0xffff).unwrap_or(u16::MAX))
    }

    /// The turn as one word, for shared memory.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The turn that [`Turn::to_bits`] gave.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_reads_back_what_it_wrote_and_nothing_else() {
        let id = ConnId::from_bits(0x0000_0007_0000_002a);
        assert_eq!(id.to_string(), "000000070000002a");
        assert_eq!(ConnId::parse(&id.to_string()), Some(id));
        for wrong in ["", "7", "000000070000002A", "000000070000002a0", "+00000070000002a"] {
            assert_eq!(ConnId::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_turn_fits_its_bits_and_comes_back() {
        let turn = Turn::new(SlotId(u16::MAX), u64::MAX);
        assert_eq!(turn.to_bits(), (1 << Turn::BITS) - 1);
        assert_eq!(Turn::from_bits(turn.to_bits() | 3 << 62), turn);
        assert_eq!(turn.slot(), SlotId(u16::MAX));
        assert_ne!(Turn::new(SlotId(1), 5), Turn::new(SlotId(1), 7));
        assert_eq!(Turn::from_bits(0), Turn::default());
    }
}
