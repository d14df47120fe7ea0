//! The descriptors of master and workers as the ledger has them, held against what the kernel has open.
//!
//! Only the master may ask: it has the table that the ledger is about. A descriptor that is opened or
//! closed in this very moment may show as `unknown` or `stale`; one that stays so is a leak.

use crate::ledger::{DescriptorKind, Ledger};
use crate::sys::{descriptor, limits};
use serde_json::{Value as Json, json};
use std::os::fd::RawFd;

/// See the module; an object of counts.
pub(super) fn descriptors(ledger: Ledger) -> Json {
    let open = open_by_number(ledger.len());
    let [mut sessions, mut handshaking, mut private, mut master, mut rest, mut spill] = [0_u64; 6];
    let (mut unknown, mut stale) = (0_u64, 0_u64);
    for (number, open) in open.iter().enumerate() {
        let number = RawFd::try_from(number).unwrap_or(RawFd::MAX);
        let Some(entry) = ledger.entry(number) else {
            // The one that was opened to look is closed by now.
            unknown += u64::from(*open && descriptor::identity(number).is_some());
            continue;
        };
        let kind = match entry.kind {
            DescriptorKind::Session => &mut sessions,
            DescriptorKind::Handshaking => &mut handshaking,
            DescriptorKind::Private => &mut private,
            DescriptorKind::Master => &mut master,
            DescriptorKind::Rest => &mut rest,
            DescriptorKind::Spill => &mut spill,
        };
        *kind += 1;
        // Looked at again: it may have been opened since.
        stale += u64::from(!*open && descriptor::identity(number).is_none());
    }
    json!({
        "limit": limits::descriptor_limit().unwrap_or(0),
        "reserved": ledger.len(),
        "open": open.iter().filter(|open| **open).count() - 1,
        "sessions": sessions,
        "handshaking": handshaking,
        "private": private,
        "master": master,
        "rest": rest,
        "spill": spill,
        "unknown": unknown,
        "stale": stale,
    })
}

fn open_by_number(reserved: usize) -> Vec<bool> {
    let mut open = vec![false; reserved];
    for number in descriptor::listed_numbers().unwrap_or_default() {
        let Ok(number) = usize::try_from(number) else { continue };
        if number >= open.len() {
            open.resize(number + 1, false);
        }
        open[number] = true;
    }
    open
}
