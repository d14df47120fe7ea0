//! Frames of a client: any stream gives the same events wherever reads cut it, and tungstenite sees the same.
#![no_main]

use dunlin_fuzz::{
    BYTEWISE_MAX, cuts_and_stream,
    frames::{FrameReader, LIMITS, second_opinion},
    reads,
};
use dunlin_server::websocket::{Event, Progress};
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::Role;

fuzz_target!(|input: &[u8]| {
    let (cuts, stream) = cuts_and_stream(input);
    let whole = FrameReader::behind([stream]);
    assert_eq!(FrameReader::behind(reads(cuts, stream)), whole, "cut by {cuts:?}");
    if stream.len() <= BYTEWISE_MAX {
        assert_eq!(FrameReader::behind(stream.chunks(1)), whole, "cut at every byte");
    }
    compare(&whole, stream);
    resume_from_anything(stream);
});

/// Where we take a stream tungstenite reads the same in it; where we refuse it, the same up to there.
fn compare(ours: &FrameReader, stream: &[u8]) {
    let theirs = second_opinion(stream, Role::Server);
    let seen = ours.seen_as_tungstenite();
    match ours.violation {
        None => assert_eq!(seen, theirs),
        Some(code) => {
            assert!(matches!(code, 1002 | 1007 | 1009), "{code} is no code of a violation");
            assert!(theirs.starts_with(&seen), "{seen:?} and {theirs:?}");
        }
    }
}

/// Any words make a progress: they may come from shared memory.
fn resume_from_anything(stream: &[u8]) {
    let Some((words, input)) = stream.split_first_chunk::<24>() else { return };
    let (words, _) = words.as_chunks::<8>();
    let mut progress = Progress::from_words([0, 1, 2].map(|at| u64::from_le_bytes(words[at])));
    let (mut input, mut at) = (input.to_vec(), 0);
    while let Ok((taken @ 1.., event)) = progress.next(&mut input[at..], &LIMITS) {
        assert!(!matches!(event, Event::Incomplete));
        at += taken;
    }
}
