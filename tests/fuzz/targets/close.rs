//! Close frames both ways: which payloads are taken, and that what we send is read as we meant it.
#![no_main]

use dunlin_fuzz::frames::{LIMITS, Seen, second_opinion};
use dunlin_server::websocket::{
    CONTROL_MAX, CloseCode, Event, Progress, REASON_MAX, encode_close, unmask,
};
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::Role;

fuzz_target!(|payload: &[u8]| {
    if payload.len() <= CONTROL_MAX {
        receive(payload);
    }
    send(payload);
});

/// Taken are exactly: nothing; or a code that may be sent, and UTF-8.
fn receive(payload: &[u8]) {
    let mask = [0x5A, 0x00, 0xFF, 0x81];
    let mut stream = vec![0x88, 0x80 | u8::try_from(payload.len()).expect("at most 125")];
    stream.extend_from_slice(&mask);
    let start = stream.len();
    stream.extend_from_slice(payload);
    unmask(&mut stream[start..], mask);
    let (right, code) = match *payload {
        [] => (true, None),
        [_] => (false, None),
        [high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            let is_text = std::str::from_utf8(reason).is_ok();
            (CloseCode(code).is_sendable() && is_text, Some(code))
        }
    };
    match Progress::default().next(&mut stream, &LIMITS) {
        Ok((taken, Event::Close { code: seen, reason })) => {
            assert!(right, "taken: {seen:?} {reason:?}");
            assert_eq!((taken, seen), (start + payload.len(), code));
            assert_eq!(reason.as_bytes(), payload.get(2..).unwrap_or_default());
        }
        Ok(other) => panic!("a whole close frame is {other:?}"),
        Err(violation) => {
            assert!(!right, "{violation}");
            assert!(matches!(violation.code.0, 1002 | 1007));
        }
    }
}

/// A client reads the code and as much of the reason as fits.
fn send(payload: &[u8]) {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else { return };
    let (code, reason) = (CloseCode(u16::from_be_bytes(*code)), String::from_utf8_lossy(reason));
    // tungstenite does not know 1014.
    if !code.is_sendable() || code.0 == 1014 {
        return;
    }
    let mut stream = Vec::new();
    encode_close(&mut stream, Some(code), &reason);
    match second_opinion(&stream, Role::Client).as_slice() {
        [Seen::Close(Some(seen), text)] => {
            assert_eq!(*seen, code.0);
            assert!(reason.starts_with(text.as_str()));
            assert!(*text == *reason || text.len() > REASON_MAX - 4, "cut more than it must");
        }
        other => panic!("a client reads {other:?}"),
    }
}
