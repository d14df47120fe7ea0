//! Frames of a client: any stream gives the same events wherever reads cut it, and tungstenite sees the same.
#![no_main]

use dunlin_fuzz::{
    BYTEWISE_MAX, cuts_and_stream,
    frames::{FrameReader, LIMITS, second_opinion},
    reads,
};
use dunlin_server::websocket::{Event, Limits, Progress};
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::Role;

fuzz_target!(|input: &[u8]| {
    let (cuts, stream) = cuts_and_stream(input);
    let may_compress = input.first().is_some_and(|bits| bits & 0x10 != 0);
    let limits = Limits { may_compress, ..LIMITS };
    let whole = FrameReader::behind([stream], limits);
    assert_eq!(FrameReader::behind(reads(cuts, stream), limits), whole, "cut by {cuts:?}");
    if stream.len() <= BYTEWISE_MAX {
        assert_eq!(FrameReader::behind(stream.chunks(1), limits), whole, "cut at every byte");
    }
    if !may_compress {
        compare(&whole, stream);
    }
    resume_from_anything(stream, &limits);
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
fn resume_from_anything(stream: &[u8], limits: &Limits) {
    let Some((words, input)) = stream.split_first_chunk::<24>() else { return };
    let (words, _) = words.as_chunks::<8>();
    let mut progress = Progress::from_words([0, 1, 2].map(|at| u64::from_le_bytes(words[at])));
    let (mut input, mut at) = (input.to_vec(), 0);
    while let Ok((taken @ 1.., event)) = progress.next(&mut input[at..], limits) {
        assert!(!matches!(event, Event::Incomplete));
        at += taken;
    }
}
