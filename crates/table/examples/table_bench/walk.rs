//! Which keys a process goes through, in which order, and what it writes into their rows.
//!
//! Keys lie in memory in the order they are asked for, so that reading the next one costs the same in
//! either order.

use std::ops::Range;

use crate::jobs::Order;

/// Rows of the table that stay free, for insertions.
pub(crate) const FREE_ROWS: u32 = 256;
/// Keys that are inserted and deleted by one process, one after the other.
const ABSENT_KEYS: u32 = 65_536;

pub(crate) fn key(number: u32) -> Box<str> {
    format!("user:{number}").into()
}

/// The keys of the rows `range` in some order.
pub(crate) fn present(range: Range<u32>, order: Order) -> Vec<Box<str>> {
    ordered(range, order).into_iter().map(key).collect()
}

/// Keys that are in no table, others for each process.
pub(crate) fn absent(process: usize, order: Order) -> Vec<Box<str>> {
    let name = |number: u32| format!("new{process}:{number}").into();
    ordered(0..ABSENT_KEYS, order).into_iter().map(name).collect()
}

/// What a process writes. Lengths as they are in use: of 366 bytes of text that fit, 125.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) user: &'static str,
    pub(crate) device: &'static str,
    pub(crate) ip: &'static str,
    pub(crate) recv_pool: &'static str,
}

pub(crate) const CONTENT: Content = Content {
    user: "user-0012345",
    device: "0f8fad5bd9cb469fa16570867728950e",
    ip: "203.0.113.181:52",
    recv_pool: "{\"op\":\"message\",\"room\":\"7\",\"text\":\"half of it came, the rest ",
};

fn ordered(range: Range<u32>, order: Order) -> Vec<u32> {
    let mut numbers: Vec<u32> = range.collect();
    if order == Order::Random {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for at in (1..numbers.len()).rev() {
            // xorshift64*: the same order in every run.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let random = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
            let other = usize::try_from(random).unwrap_or(0) % (at + 1);
            numbers.swap(at, other);
        }
    }
    numbers
}
