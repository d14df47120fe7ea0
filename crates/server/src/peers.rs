//! How many connections each client address has, over all workers, and how fast they are opened.
//!
//! Knows addresses by their hash alone, IPv6 by its /64, which is what one client is given; knows no
//! connection and no socket.
//!
//! Invariants: 1. The cells of a slot are written by the worker that owns the slot alone, and are its
//! connections: a successor clears them and counts those it takes over, so no death leaks one. 2. The
//! cells of an address lie in one window per slot that is read whole; 0 is a free cell. Where the window
//! is full the address is not counted, which is told: it is then let in rather than others kept out.
//! 3. A rate is one word that any process moves by a swap: whoever dies leaves it whole.

use crate::clock::Millis;
use dunlin_table::hash_key;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// Cells of a window.
const WINDOW_CELLS: usize = 16;
/// Cells for each connection there can be: so few are taken that a full window is rare.
const CELLS_PER_CONNECTION: usize = 4;
/// Rates by address; addresses that share one are held to it together.
const RATES: usize = 4_096;
/// Low bits of a cell that are its count; the rest is of the address.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// How much of a rate may come at once: what it allows in this time.
const BURST_US: u64 = 1_000_000;

/// A client's address, as far as it is told from others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(u64);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Peers {
    seed: u64,
    /// A rate for all, then those by address.
    rates: &'static [AtomicU64],
    cells: &'static [AtomicU64],
    windows_per_slot: usize,
    slots: usize,
}

impl Peers {
    /// Words needed for so many worker slots and connections.
    #[must_use]
    pub fn words_needed(slots: usize, connections: usize) -> usize {
        1 + RATES + slots.max(1) * windows_per_slot(slots, connections) * WINDOW_CELLS
    }

    /// Counts over zeroed words. `seed` is unpredictable and the same in all processes.
    #[must_use]
    pub fn new(words: &'static [AtomicU64], slots: usize, connections: usize, seed: u64) -> Self {
        let (rates, cells) = words.split_at(1 + RATES);
        let windows_per_slot = windows_per_slot(slots, connections);
        Self { seed, rates, cells, windows_per_slot, slots: slots.max(1) }
    }

    /// What is counted for a client at `ip`.
    #[must_use]
    pub fn address(&self, ip: IpAddr) -> Address {
        let hash = match ip.to_canonical() {
            IpAddr::V4(ip) => hash_key(&ip.octets(), self.seed),
            IpAddr::V6(ip) => hash_key(&ip.octets()[..8], self.seed),
        };
        Address(hash)
    }

    /// Counts one more connection of a slot. False where it cannot be counted.
    #[must_use = "only what was counted may be taken off again"]
    pub fn add(&self, slot: usize, address: Address) -> bool {
        let window = self.window(slot, address);
        let mut free = None;
        for cell in window {
            let seen = cell.load(Relaxed);
            if is_of(seen, address) {
                // SeqCst: of two workers that count and then look, at least one sees the other.
                cell.store(seen + 1, SeqCst);
                return true;
            }
            if seen == 0 {
                free = free.or(Some(cell));
            }
        }
        if let Some(free) = free {
            free.store(address.tag() | 1, SeqCst);
        }
        free.is_some()
    }

    /// Takes off a connection of a slot that was counted.
    pub fn remove(&self, slot: usize, address: Address) {
        for cell in self.window(slot, address) {
            let seen = cell.load(Relaxed);
            if is_of(seen, address) {
                let left = if seen & COUNT_MASK > 1 { seen - 1 } else { 0 };
                return cell.store(left, Release);
            }
        }
    }

    /// Forgets all connections of a slot, before its new worker counts them anew.
    pub fn clear(&self, slot: usize) {
        let cells = self.windows_per_slot * WINDOW_CELLS;
        for cell in &self.cells[slot * cells..(slot + 1) * cells] {
            cell.store(0, Release);
        }
    }

    /// Connections of an address, over all slots.
    #[must_use]
    pub fn count(&self, address: Address) -> u64 {
        (0..self.slots)
            .flat_map(|slot| self.window(slot, address))
            .map(|cell| cell.load(SeqCst))
            .filter(|seen| is_of(*seen, address))
            .map(|seen| seen & COUNT_MASK)
            .sum()
    }

    /// Whether another connection may be accepted now, at `per_second` of all addresses together; 0 is
    /// any number.
    #[must_use]
    pub fn may_accept(&self, now: Millis, per_second: u32) -> bool {
        per_second == 0 || after_one_more(self.rates[0].load(Acquire), now, per_second).is_some()
    }

    /// Notes that a connection was accepted.
    pub fn note_accepted(&self, now: Millis, per_second: u32) {
        let _ = per_second == 0 || take(&self.rates[0], now, per_second);
    }

    /// Whether an address may open another connection now, at `per_second`; if so it has.
    #[must_use]
    pub fn may_open(&self, address: Address, now: Millis, per_second: u32) -> bool {
        let rate = 1 + place(address.0.rotate_left(32), RATES);
        per_second == 0 || take(&self.rates[rate], now, per_second)
    }

    fn window(&self, slot: usize, address: Address) -> &'static [AtomicU64] {
        let window = slot * self.windows_per_slot + place(address.0, self.windows_per_slot);
        &self.cells[window * WINDOW_CELLS..(window + 1) * WINDOW_CELLS]
    }
}

impl Address {
    /// Which of so many groups it is in; `groups` is not 0.
    #[must_use]
    pub fn group(self, groups: usize) -> usize {
        place(self.0.rotate_left(16), groups)
    }

    fn tag(self) -> u64 {
        self.0 & !COUNT_MASK
    }
}

fn is_of(cell: u64, address: Address) -> bool {
    cell & COUNT_MASK != 0 && cell & !COUNT_MASK == address.tag()
}

fn windows_per_slot(slots: usize, connections: usize) -> usize {
    (connections * CELLS_PER_CONNECTION).div_ceil(slots.max(1) * WINDOW_CELLS).max(1)
}

/// One of `places` by the low half of a hash.
fn place(hash: u64, places: usize) -> usize {
    let places = u64::try_from(places).unwrap_or(u64::MAX);
    // It is below `places`, which is a usize.
    usize::try_from((hash & 0xffff_ffff) % places).unwrap_or(0)
}

/// Moves a rate by one, if it allows one.
fn take(rate: &AtomicU64, now: Millis, per_second: u32) -> bool {
    rate.fetch_update(Release, Acquire, |free_at| after_one_more(free_at, now, per_second)).is_ok()
}

/// A rate is the moment, in microseconds, at which all that came would have come evenly spaced; `None`
/// if one more would be too far ahead of now.
fn after_one_more(free_at_us: u64, now: Millis, per_second: u32) -> Option<u64> {
    let now_us = now.0.saturating_mul(1_000);
    let next_us = free_at_us.max(now_us) + 1_000_000 / u64::from(per_second.max(1));
    (next_us <= now_us + BURST_US).then_some(next_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn peers(slots: usize, connections: usize) -> Peers {
        let words = Peers::words_needed(slots, connections);
        let words = Box::leak((0..words).map(|_| AtomicU64::new(0)).collect());
        Peers::new(words, slots, connections, 7)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_counted_over_all_slots_and_no_other() {
        let peers = peers(3, 100);
        let [ann, bob] = ["10.0.0.1", "10.0.0.2"].map(|text| peers.address(ip(text)));
        assert!(peers.add(0, ann) && peers.add(2, ann) && peers.add(2, ann) && peers.add(1, bob));
        assert_eq!((peers.count(ann), peers.count(bob)), (3, 1));
        peers.remove(2, ann);
        peers.remove(1, bob);
        assert_eq!((peers.count(ann), peers.count(bob)), (2, 0));
        peers.clear(0);
        assert_eq!(peers.count(ann), 1, "a slot's connections are counted anew by its next worker");
    }

    #[test]
    fn ipv6_counts_by_its_64_and_mapped_ipv4_as_ipv4() {
        let peers = peers(1, 10);
        let of = |text| peers.address(ip(text));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn a_full_window_counts_no_more_and_says_so() {
        // One window: 16 addresses fill it.
        let peers = peers(1, 1);
        let all: Vec<Address> = (0..17_u64).map(|number| Address(number << 32)).collect();
        let counted = all.iter().filter(|address| peers.add(0, **address)).count();
        assert_eq!(counted, WINDOW_CELLS);
        assert_eq!(peers.count(all[16]), 0);
        peers.remove(0, all[3]);
        assert!(peers.add(0, all[16]), "there is room again");
        assert_eq!((peers.count(all[3]), peers.count(all[16])), (0, 1));
    }

    #[test]
    fn a_rate_allows_a_burst_and_then_its_pace() {
        let peers = peers(1, 1);
        let (ann, bob) = (Address(1), Address(2 << 32));
        let at = |ms: u64, who| peers.may_open(who, Millis(ms), 10);
        assert_eq!((0..30).filter(|_| at(5_000, ann)).count(), 10);
        assert!(at(5_000, bob), "another address has its own");
        assert!(!at(5_099, ann) && at(5_100, ann) && !at(5_100, ann));
        assert_eq!((0..30).filter(|_| at(60_000, ann)).count(), 10, "what is not used is not kept");
        assert!((0..1_000).all(|_| peers.may_open(ann, Millis(1), 0)), "0 is no limit");
        let accepted = (0..100).filter(|_| {
            let may = peers.may_accept(Millis(9), 20);
            peers.note_accepted(Millis(9), 20);
            may
        });
        assert_eq!(accepted.count(), 20);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_map(steps in prop::collection::vec((0..4_usize, 0..20_u8, any::<bool>()), 0..300)) {
            let peers = peers(4, 4_000);
            let mut map: HashMap<(usize, u8), u64> = HashMap::new();
            let address = |number: u8| peers.address(IpAddr::from([10, 0, 0, number]));
            for (slot, number, adds) in steps {
                let held = map.entry((slot, number)).or_default();
                if adds {
                    prop_assert!(peers.add(slot, address(number)));
                    *held += 1;
                } else if *held > 0 {
                    peers.remove(slot, address(number));
                    *held -= 1;
                }
            }
            for number in 0..20 {
                let expected: u64 = (0..4).filter_map(|slot| map.get(&(slot, number))).sum();
                prop_assert_eq!(peers.count(address(number)), expected);
            }
        }
    }
}
