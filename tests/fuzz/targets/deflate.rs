//! permessage-deflate: any bytes inflate within the limit or not at all, what we deflate inflates to the
//! message, and any offer leads to an agreement that we can keep or to none.
#![no_main]

use std::{alloc::System, cell::RefCell};

use cap::Cap;
use dunlin_server::websocket::{Agreement, Deflater, InflateError, Inflater};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Most bytes of an inflated message; small, so that inputs of a fuzzer reach it.
const LIMIT: usize = 20_000;
/// What a message may take beside its inflated form: the states of two inflaters or one deflater.
const SLACK_BYTES: usize = 1 << 20;

/// Serves one message after the other, as a worker's does.
struct Used {
    inflater: Inflater,
    deflater: Deflater,
}

fuzz_target!(|input: &[u8]| {
    thread_local!(static USED: RefCell<Used> =
        RefCell::new(Used { inflater: Inflater::default(), deflater: Deflater::new(1) }));
    let Some((kind, bytes)) = input.split_first() else { return };
    let most = ALLOCATOR.allocated() + 2 * LIMIT + SLACK_BYTES;
    ALLOCATOR.set_limit(most).expect("the limit is above what is taken");
    USED.with_borrow_mut(|used| match kind % 3 {
        0 => inflate(used, bytes),
        1 => deflate(used, u64::from(kind / 3), bytes),
        _ => negotiate(bytes),
    });
    ALLOCATOR.set_limit(usize::MAX).expect("it is above what is taken");
});

/// What was inflated before makes no difference.
fn inflate(used: &mut Used, message: &[u8]) {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    let outcome = Inflater::default().inflate(message, LIMIT, &mut first);
    assert_eq!(used.inflater.inflate(message, LIMIT, &mut again), outcome);
    if outcome.is_ok() {
        assert_eq!(first, again);
        assert!(first.len() <= LIMIT);
        assert_eq!(used.inflater.inflate(message, first.len(), &mut again), Ok(()), "its length");
        if let Some(less) = first.len().checked_sub(1) {
            let outcome = used.inflater.inflate(message, less, &mut again);
            assert_eq!(outcome, Err(InflateError::TooLong), "one byte less than its length");
        }
    }
}

/// `choice`: the window.
fn deflate(used: &mut Used, choice: u64, message: &[u8]) {
    let word = u64::from(Agreement::LEAST_BITS) + choice % 7;
    let agreement = Agreement::from_word(word).expect("nine to fifteen bits");
    let serial = used.deflater.next_serial();
    let deflated = used.deflater.deflate(agreement, serial, message);
    assert!(deflated.ran);
    let Some(bytes) = deflated.bytes.map(<[u8]>::to_vec) else { return };
    assert!(bytes.len() < message.len());
    let again = used.deflater.deflate(agreement, serial, message);
    assert!(!again.ran && again.bytes == Some(&bytes));
    let mut inflated = Vec::new();
    assert_eq!(used.inflater.inflate(&bytes, message.len(), &mut inflated), Ok(()));
    assert_eq!(inflated, message);
}

fn negotiate(lines: &[u8]) {
    let Ok(lines) = std::str::from_utf8(lines) else { return };
    let agreed = Agreement::negotiate(lines.lines());
    let agreement = agreed.as_ref().map(|(agreement, _)| *agreement);
    assert_eq!(Agreement::from_word(Agreement::to_word(agreement)), agreement);
    if let Some((agreement, answer)) = agreed {
        assert!((Agreement::LEAST_BITS..=15).contains(&agreement.window_bits()));
        // The answer is an offer of just what was agreed on.
        let again = Agreement::negotiate([answer.as_str()]);
        assert_eq!(again.map(|(agreement, _)| agreement), Some(agreement), "{answer}");
    }
}
