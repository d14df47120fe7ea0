//! What the fuzz targets share: how an input says where reads cut a stream, and a reader of frames.
//!
//! A target is one file in `targets/`. It is given any bytes and must neither panic nor hang nor ask for much
//! memory; beyond that each states what must hold of whatever it accepts.

pub mod frames;

/// How a stream is cut into reads: the first byte of an input is a number of cuts (its low four bits; the
/// others are the target's), then
/// as many bytes give the length of one read each; what follows is the stream, its rest in one last read.
#[must_use]
pub fn cuts_and_stream(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((&count, rest)) = input.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(count & 0x0F).min(rest.len()))
}

/// Gives the reads that `cuts` make of `stream`, the last one perhaps empty.
pub fn reads<'s>(cuts: &'s [u8], stream: &'s [u8]) -> impl Iterator<Item = &'s [u8]> {
    let mut rest = stream;
    let mut lengths = cuts.iter().map(|length| usize::from(*length)).chain([usize::MAX]);
    std::iter::from_fn(move || {
        let (read, after) = rest.split_at(lengths.next()?.min(rest.len()));
        rest = after;
        Some(read)
    })
}

/// Streams of at most so many bytes are also read byte by byte.
pub const BYTEWISE_MAX: usize = 400;
