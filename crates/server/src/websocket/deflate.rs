//! Messages compressed and inflated, each by itself (RFC 7692 section 7.2): bytes in, bytes out.
//!
//! Knows nothing of frames, connections or limits in the config. One [`Deflater`] and one [`Inflater`] serve
//! all connections of a process: nothing is remembered from one message to the next.
//!
//! Invariants:
//! 1. What an [`Inflater`] gives is never longer than the limit, and a message that would be is left as soon
//!    as it passes it: the memory it may take is bounded by the limit, not by what the sender claims.
//! 2. A message can refer to nothing before its own first byte: whoever sends it sees nobody else's bytes.
//! 3. What a [`Deflater`] gives is shorter than the message, or it gives nothing.
//! 4. Both take no memory before their first message.
//! 5. A stream that failed is not used again, and a panic of the library below costs one message: what it
//!    is given comes from anybody.

use super::Agreement;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a compressed message ends with, taken off by the sender and put back by the receiver: the rest of an
/// empty block.
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// An empty final block. Behind [`TAIL`] it ends the stream exactly if the message ended between two blocks.
const END: [u8; 2] = [0x03, 0x00];
/// How far back a block may refer, at most.
const WINDOW_BYTES: usize = 32 << 10;
/// Blocks of a message that may be marked as final. A sender that uses them needs one; each costs the copy of
/// a window.
const FINAL_BLOCKS_MAX: usize = 16;
/// How many sizes of window there are.
const WINDOWS: usize = 7;
/// Bytes that the inflated form begins with; then it doubles.
const FIRST_STEP: usize = 4 << 10;
/// What compressing may add to a message beside an eighth of it: heads of blocks, and the tail.
const SPARE_BYTES: usize = 64;
/// Bytes of output that are kept for the next message.
const KEPT_BYTES: usize = 256 << 10;

/// A compressed message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It is longer than the limit once inflated.
    #[error("the message is over the size limit once inflated")]
    TooLong,
    /// It is not what a compressor makes, or it ends within a block.
    #[error("the message is not rightly compressed")]
    Corrupt,
}

/// Inflates messages, whatever their window.
#[derive(Debug, Default)]
pub struct Inflater {
    stream: Option<Decompress>,
}

impl Inflater {
    /// Puts the inflated form of `message`, at most `limit` bytes, into `output` in the place of what was there.
    ///
    /// A message of no bytes, which RFC 7692 does not know but others send, is an empty one.
    ///
    /// # Errors
    /// [`InflateError`]; what `output` then holds means nothing.
    pub fn inflate(
        &mut self,
        message: &[u8],
        limit: usize,
        output: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        output.clear();
        output.shrink_to(KEPT_BYTES);
        if message.is_empty() {
            return Ok(());
        }
        let mut stream = self.stream.take().unwrap_or_else(|| Decompress::new(false));
        stream.reset(false);
        let inflating = AssertUnwindSafe(|| inflate_all(&mut stream, message, limit, output));
        let inflated = catch_unwind(inflating).unwrap_or(Err(InflateError::Corrupt));
        if inflated.is_ok() {
            self.stream = Some(stream);
        }
        inflated
    }
}

/// Inflates a message that is not empty with a stream that is at its beginning.
fn inflate_all(
    stream: &mut Decompress,
    message: &[u8],
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<(), InflateError> {
    let mut rest = message;
    let mut finals = 0;
    while let Fed::Ended(left) = feed(stream, rest, limit, output)? {
        if left.is_empty() {
            return Ok(());
        }
        finals += 1;
        if finals > FINAL_BLOCKS_MAX {
            return Err(InflateError::Corrupt);
        }
        rest = left;
        go_on_behind(stream, output)?;
    }
    match feed(stream, &TAIL, limit, output)? {
        // The last block, whose end is in the tail, was marked as final.
        Fed::Ended([]) => return Ok(()),
        Fed::Ended(_) => return Err(InflateError::Corrupt),
        Fed::All => {}
    }
    match feed(stream, &END, limit, output)? {
        Fed::Ended([]) => Ok(()),
        Fed::Ended(_) | Fed::All => Err(InflateError::Corrupt),
    }
}

/// What became of bytes given to the inflater.
enum Fed<'i> {
    /// All were taken.
    All,
    /// A final block has ended in front of these.
    Ended(&'i [u8]),
}

/// Inflates `input` behind what `output` holds, step by step.
fn feed<'i>(
    stream: &mut Decompress,
    input: &'i [u8],
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<Fed<'i>, InflateError> {
    let mut rest = input;
    loop {
        if output.len() == output.capacity() {
            // One byte more than the limit tells that it is passed.
            let step = output.len().max(FIRST_STEP).min(limit - output.len() + 1);
            output.reserve_exact(step);
        }
        let before = stream.total_in();
        let status = stream.decompress_vec(rest, output, FlushDecompress::None);
        let status = status.map_err(|_| InflateError::Corrupt)?;
        let taken = usize::try_from(stream.total_in() - before).unwrap_or(usize::MAX);
        rest = rest.get(taken..).unwrap_or_default();
        if output.len() > limit {
            return Err(InflateError::TooLong);
        }
        if status == Status::StreamEnd {
            return Ok(Fed::Ended(rest));
        }
        if output.len() < output.capacity() {
            // There was room, so it wants input: it has had all of it.
            return if rest.is_empty() { Ok(Fed::All) } else { Err(InflateError::Corrupt) };
        }
    }
}

/// A block marked as final is over, and more of the message follows; it may refer to what came before.
fn go_on_behind(stream: &mut Decompress, output: &[u8]) -> Result<(), InflateError> {
    stream.reset(false);
    let window = &output[output.len().saturating_sub(WINDOW_BYTES)..];
    if window.is_empty() {
        return Ok(());
    }
    stream.set_dictionary(window).map(drop).map_err(|_| InflateError::Corrupt)
}

/// A message on its way to one or many: compressed at most once for each size of window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial(u64);

/// What became of a message given to a [`Deflater`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflated<'d> {
    /// The compressed form; `None` where it would not be shorter.
    pub bytes: Option<&'d [u8]>,
    /// It was compressed now, not for an earlier recipient.
    pub ran: bool,
}

/// Compresses messages, with a compressor for each size of window that somebody has agreed on.
#[derive(Debug)]
pub struct Deflater {
    level: Compression,
    windows: [Option<Box<Window>>; WINDOWS],
    serial: u64,
}

/// A compressor and the last message it has compressed.
#[derive(Debug)]
struct Window {
    /// `None` before the first message, and after one that went wrong.
    stream: Option<Compress>,
    output: Vec<u8>,
    holds: Serial,
    shorter: bool,
}

impl Deflater {
    /// A deflater of this effort: 1 is quick, 9 is thorough; what is beyond is taken for the nearest.
    #[must_use]
    pub fn new(level: u8) -> Self {
        let level = Compression::new(u32::from(level.clamp(1, 9)));
        Self { level, windows: Default::default(), serial: 0 }
    }

    /// A name for the next message, by which its other recipients find what was compressed for the first.
    pub const fn next_serial(&mut self) -> Serial {
        self.serial += 1;
        Serial(self.serial)
    }

    /// The compressed form of a message for a recipient with this agreement. `serial` must be of this message
    /// and no other.
    pub fn deflate(
        &mut self,
        agreement: Agreement,
        serial: Serial,
        message: &[u8],
    ) -> Deflated<'_> {
        let bits = agreement.window_bits();
        // An agreement is of 9 to 15 bits.
        let place = usize::from(bits - Agreement::LEAST_BITS);
        let window = self.windows[place].get_or_insert_with(|| {
            Box::new(Window { stream: None, output: Vec::new(), holds: Serial(0), shorter: false })
        });
        let ran = window.holds != serial;
        if ran {
            window.holds = serial;
            let fresh = || Compress::new_with_window_bits(self.level, false, bits);
            let stream = window.stream.take().unwrap_or_else(fresh);
            window.shorter = window.run(stream, message);
        }
        Deflated { bytes: window.shorter.then_some(&*window.output), ran }
    }
}

impl Window {
    /// Compresses a message into `output`. False: that is not shorter.
    fn run(&mut self, mut stream: Compress, message: &[u8]) -> bool {
        self.output.clear();
        self.output.shrink_to(KEPT_BYTES);
        // Room for the worst there is, not only for what is shorter: zlib-rs 0.6.8 does not take back its
        // place in a buffer that it could not empty when it is reset, and panics some messages later.
        self.output.reserve_exact(message.len() + message.len() / 8 + SPARE_BYTES);
        stream.reset();
        let compressing = AssertUnwindSafe(|| {
            stream.compress_vec(message, &mut self.output, FlushCompress::Sync)
        });
        let ended_well = matches!(catch_unwind(compressing), Ok(Ok(_)));
        let all_taken = usize::try_from(stream.total_in()) == Ok(message.len());
        // A full output may not be all of it.
        let whole = ended_well && all_taken && self.output.len() < self.output.capacity();
        if !whole {
            return false;
        }
        self.stream = Some(stream);
        if !self.output.ends_with(&TAIL) {
            return false;
        }
        self.output.truncate(self.output.len() - TAIL.len());
        self.output.len() < message.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    const LIMIT: usize = 1 << 20;

    fn inflated(message: &[u8]) -> Result<Vec<u8>, InflateError> {
        let mut output = Vec::new();
        Inflater::default().inflate(message, LIMIT, &mut output).map(|()| output)
    }

    fn agreement(bits: u8) -> Agreement {
        Agreement::from_word(u64::from(bits)).unwrap()
    }

    fn deflated(deflater: &mut Deflater, bits: u8, message: &[u8]) -> Option<Vec<u8>> {
        let serial = deflater.next_serial();
        deflater.deflate(agreement(bits), serial, message).bytes.map(<[u8]>::to_vec)
    }

    /// The whole of a deflate stream, tail and all, as others compress it.
    fn stream_of(message: &[u8], flush: FlushCompress) -> Vec<u8> {
        let mut output = Vec::with_capacity(message.len() + 100);
        let mut stream = Compress::new(Compression::best(), false);
        stream.compress_vec(message, &mut output, flush).unwrap();
        output
    }

    /// Bytes that cannot be compressed.
    fn random(length: usize) -> Vec<u8> {
        let mut noise = 1_u64;
        let next = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_inflate() {
        let hello = b"Hello".to_vec();
        let one_block = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflated(&one_block), Ok(hello.clone()));
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(inflated(&stored), Ok(hello.clone()));
        let final_block = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflated(&final_block), Ok(hello.clone()));
        assert_eq!(inflated(&final_block[..7]), Ok(hello.clone()), "without the empty block");
        let two_blocks =
            [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflated(&two_blocks), Ok(hello));
        assert_eq!(inflated(&[0x00]), Ok(Vec::new()), "an empty message");
        assert_eq!(inflated(&[]), Ok(Vec::new()), "an empty message of the careless");
        assert_eq!(inflated(&[0x01]), Ok(Vec::new()), "its empty block is final");
    }

    #[test]
    fn a_block_behind_a_final_one_may_refer_to_it() {
        let first = b"a text that comes twice, and then once more";
        let mut stream = stream_of(first, FlushCompress::Finish);
        let mut second = Compress::new(Compression::best(), false);
        second.set_dictionary(first).unwrap();
        let mut output = Vec::with_capacity(100);
        second.compress_vec(first, &mut output, FlushCompress::Sync).unwrap();
        assert!(output.len() < 20, "it refers: {}", output.len());
        stream.extend_from_slice(&output[..output.len() - TAIL.len()]);
        assert_eq!(inflated(&stream), Ok([&first[..], first].concat()));
        let finals = |count| [[0x03, 0x00].repeat(count), vec![0x00]].concat();
        assert_eq!(inflated(&finals(FINAL_BLOCKS_MAX)), Ok(Vec::new()));
        assert_eq!(inflated(&finals(FINAL_BLOCKS_MAX + 1)), Err(InflateError::Corrupt));
    }

    #[test]
    fn what_is_no_stream_is_corrupt() {
        let whole = stream_of(&b"It was the best of times".repeat(9), FlushCompress::Sync);
        let message = &whole[..whole.len() - TAIL.len()];
        assert!(inflated(message).is_ok());
        for length in 1..message.len() {
            let cut = &message[..length];
            assert_eq!(inflated(cut), Err(InflateError::Corrupt), "cut to {length}");
        }
        for wrong in [&[0x07][..], &[0xFF; 9], &[0x00, 0x06, 0x00, 0xf9, 0xff, 0x48], b"plain"] {
            assert_eq!(inflated(wrong), Err(InflateError::Corrupt), "{wrong:x?}");
        }
    }

    #[test]
    fn a_message_cannot_refer_to_the_one_before() {
        let secret = b"the password of another client is tea and biscuits";
        let mut compressor = Compress::new(Compression::best(), false);
        compressor.set_dictionary(secret).unwrap();
        let mut referring = Vec::with_capacity(200);
        compressor.compress_vec(secret, &mut referring, FlushCompress::Sync).unwrap();
        referring.truncate(referring.len() - TAIL.len());
        let mut inflater = Inflater::default();
        let mut output = Vec::new();
        let first = stream_of(secret, FlushCompress::Sync);
        inflater.inflate(&first[..first.len() - TAIL.len()], LIMIT, &mut output).unwrap();
        assert_eq!(output, secret);
        let leaked = inflater.inflate(&referring, LIMIT, &mut output);
        assert_eq!(leaked, Err(InflateError::Corrupt));
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_takes_no_more_memory() {
        let zeros = vec![0; 64 << 20];
        let whole = stream_of(&zeros, FlushCompress::Sync);
        let bomb = &whole[..whole.len() - TAIL.len()];
        assert!(bomb.len() < 70_000, "{}", bomb.len());
        let mut output = Vec::new();
        for limit in [0, 1, 1000, LIMIT, (64 << 20) - 1] {
            let refused = Inflater::default().inflate(bomb, limit, &mut output);
            assert_eq!(refused, Err(InflateError::TooLong), "{limit}");
            assert!(output.capacity() <= (limit + 1).max(KEPT_BYTES), "{limit}");
        }
        Inflater::default().inflate(bomb, 64 << 20, &mut output).unwrap();
        assert_eq!(output.len(), 64 << 20, "exactly the limit");
    }

    #[test]
    fn what_would_not_be_shorter_is_not_compressed() {
        let mut deflater = Deflater::new(6);
        let random = random(100_000);
        for message in [&b""[..], b"a", b"abc", &random, &random[..999]] {
            assert_eq!(deflated(&mut deflater, 15, message), None, "{} bytes", message.len());
        }
        assert!(deflated(&mut deflater, 15, &b"tea ".repeat(99)).is_some(), "and goes on after");
    }

    #[test]
    fn random_messages_in_a_row_wear_no_compressor_out() {
        let (random, text) = (random(70_000), b"tea ".repeat(9_999));
        for level in [1, 6, 9] {
            let mut deflater = Deflater::new(level);
            for length in (100..70_000).step_by(700) {
                assert_eq!(deflated(&mut deflater, 9, &random[..length]), None, "{length}");
                let window = deflater.windows[0].as_ref().unwrap();
                assert!(window.stream.is_some(), "the first is still in use after {length}");
            }
            let short = deflated(&mut deflater, 9, &text);
            assert_eq!(inflated(&short.unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn a_message_is_compressed_once_for_each_window() {
        let mut deflater = Deflater::new(6);
        let text = b"tea ".repeat(999);
        let serial = deflater.next_serial();
        assert!(deflater.deflate(agreement(15), serial, &text).ran);
        assert!(!deflater.deflate(agreement(15), serial, &text).ran);
        assert!(deflater.deflate(agreement(9), serial, &text).ran);
        let again = deflater.deflate(agreement(15), serial, &text);
        assert!(!again.ran && again.bytes.is_some());
        // Another message in between: the first is compressed anew, not mistaken.
        let other = deflater.next_serial();
        deflater.deflate(agreement(15), other, b"x");
        let bytes = deflater.deflate(agreement(15), serial, &text);
        assert!(bytes.ran);
        assert_eq!(inflated(bytes.bytes.unwrap()).unwrap(), text);
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let text = ("[a-z{}\":, ]{1,40}", 1..2000_usize);
        prop_oneof![
            4 => text.prop_map(|(seed, times)| seed.repeat(times).into_bytes()),
            1 => vec(any::<u8>(), 0..3000),
            1 => vec(0..4_u8, 0..90_000),
        ]
    }

    proptest! {
        #[test]
        fn what_is_deflated_inflates_in_the_window_agreed_on(
            messages in vec((message(), 9..=15_u8), 1..6), level in 1..=9_u8,
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(level), Inflater::default());
            let mut output = Vec::new();
            for (message, bits) in messages {
                let Some(short) = deflated(&mut deflater, bits, &message) else { continue };
                prop_assert!(short.len() < message.len());
                inflater.inflate(&short, message.len(), &mut output).unwrap();
                prop_assert!(output == message);
                let refused = inflater.inflate(&short, message.len() - 1, &mut output);
                prop_assert_eq!(refused, Err(InflateError::TooLong));
                // As a client that has no more than the window it asked for.
                let mut narrow = Decompress::new_with_window_bits(false, bits);
                let (mut seen, mut at) = (Vec::new(), 0);
                let whole = [&short[..], &TAIL].concat();
                loop {
                    // In small steps: only then it is the window, not the output, that is referred to.
                    let mut piece = Vec::with_capacity(97);
                    narrow.decompress_vec(&whole[at..], &mut piece, FlushDecompress::None).unwrap();
                    at = usize::try_from(narrow.total_in()).unwrap();
                    seen.extend_from_slice(&piece);
                    if at == whole.len() && piece.len() < 97 {
                        break;
                    }
                }
                prop_assert!(seen == message);
            }
        }

        #[test]
        fn no_bytes_panic_or_pass_the_limit(
            noise in vec(any::<u8>(), 0..300), text in message(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut inflater = Inflater::default();
            let mut output = Vec::new();
            if inflater.inflate(&noise, 5000, &mut output).is_ok() {
                prop_assert!(output.len() <= 5000);
            }
            if let Some(mut short) = deflated(&mut Deflater::new(6), 15, &text) {
                for (at, bits) in damage {
                    *at.get_mut(&mut short) ^= bits;
                }
                if inflater.inflate(&short, 5000, &mut output).is_ok() {
                    prop_assert!(output.len() <= 5000);
                }
            }
        }
    }
}
