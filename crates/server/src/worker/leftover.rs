//! What a resting worker leaves its successor, as the bytes of one file.
//!
//! Knows the format; knows no connection, and not what is made of what it reads. A file is a mark, then
//! records: a prefix of four lengths, a head in bincode, and three blobs as they are. A prefix of noughts
//! ends it.
//! Invariants: 1. Nothing here is bounded but a head; the file is as long as what its worker may hold.
//! 2. No length is believed before it was held against the file's own. 3. What cannot be written fails
//! before the worker says that it rests; what cannot be read leaves what came before it.

use super::connection::Pending;
use crate::app::ClosedBy;
use crate::clock::Millis;
use crate::ids::ConnId;
use crate::ipc::codec::{self, CodecError};
use crate::ipc::post::Waiting;
use crate::sys::descriptor;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use tracing::error;

/// Blobs of a record.
const BLOBS: usize = 3;
/// The length of the head, then those of the blobs.
const PREFIX_BYTES: usize = 8 * (1 + BLOBS);
/// The longest head of a record. The longest there is holds a request's head, parsed: a few times 8 KiB.
const HEAD_MAX_BYTES: usize = 1 << 20;
/// How a file begins; raised with its format.
pub(crate) const MARK: &[u8; 8] = b"dunlin 4";
/// Small records are written together.
const WRITE_BYTES: usize = 64 << 10;

/// What a record is about.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Head {
    /// A packet that waits for the mailbox of a slot. Blobs: the packet; its parcel's content.
    Mail { slot: usize, has_parcel: bool },
    /// A connection without a row. Blobs: unsent output; input; the body of the request under way.
    Http(Box<HttpHead>),
    /// A WebSocket whose output is not all with the kernel, whose input is not all served, or that is
    /// closing. Blobs: unsent output; input that is read and not served.
    Open(OpenHead),
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct HttpHead {
    pub(super) descriptor: RawFd,
    pub(super) peer: SocketAddr,
    pub(super) deadline: Millis,
    /// Its body is a blob.
    pub(super) pending: Option<Pending>,
    pub(super) ending: bool,
    /// The request that is not all there was answered with 100 (Continue).
    pub(super) told_to_go_on: bool,
    /// A header of the PROXY protocol may come.
    pub(super) begins: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct OpenHead {
    pub(super) conn: ConnId,
    /// The output begins in the middle of a frame.
    pub(super) half_out: bool,
    pub(super) closing: Option<ClosingHead>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct ClosingHead {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) by: ClosedBy,
    pub(super) answered: bool,
    pub(super) deaf: bool,
    pub(super) until: Millis,
}

/// What is left cannot be written, or not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LeftoverError {
    #[error("what is left cannot be written: {0}")]
    Write(#[source] io::Error),
    #[error("what is left cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("a head of {0} bytes is longer than {HEAD_MAX_BYTES}")]
    HeadTooLong(u64),
    #[error("a head of what is left: {0}")]
    Head(#[from] CodecError),
    #[error("it is no leftover of this version")]
    Foreign,
    #[error("it is cut off at byte {0}")]
    Cut(u64),
}

/// Writes records; see the module.
#[derive(Debug)]
pub(super) struct LeftoverWriter<W: Write> {
    out: BufWriter<W>,
}

impl<W: Write> LeftoverWriter<W> {
    pub(super) fn begin(file: W) -> Result<Self, LeftoverError> {
        let mut writer = Self { out: BufWriter::with_capacity(WRITE_BYTES, file) };
        writer.write(MARK)?;
        Ok(writer)
    }

    /// Writes a record. Each blob is given in pieces.
    pub(super) fn put(
        &mut self,
        head: &Head,
        blobs: [&[&[u8]]; BLOBS],
    ) -> Result<(), LeftoverError> {
        let head = codec::encode_value(head)?;
        if head.len() > HEAD_MAX_BYTES {
            return Err(LeftoverError::HeadTooLong(wide(head.len())));
        }
        self.write(&wide(head.len()).to_le_bytes())?;
        for blob in blobs {
            self.write(&blob.iter().map(|piece| wide(piece.len())).sum::<u64>().to_le_bytes())?;
        }
        self.write(&head)?;
        blobs.iter().flat_map(|blob| blob.iter()).try_for_each(|piece| self.write(piece))
    }

    /// Ends the file; gives it back, all written.
    pub(super) fn end(mut self) -> Result<W, LeftoverError> {
        self.write(&[0; PREFIX_BYTES])?;
        self.out.into_inner().map_err(|error| LeftoverError::Write(error.into_error()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LeftoverError> {
        self.out.write_all(bytes).map_err(LeftoverError::Write)
    }
}

/// What a predecessor left: its heads are read, its blobs are still in the file.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    file: Option<ManuallyDrop<File>>,
    /// Slot, whether there is a parcel, blobs.
    mail: Vec<(usize, bool, Blobs)>,
    pub(super) http: Vec<(HttpHead, Blobs)>,
    pub(super) open: HashMap<ConnId, (OpenHead, Blobs)>,
}

/// See [`Head`] for which is what.
pub(super) type Blobs = [Blob; BLOBS];

impl Leftover {
    /// Reads the heads; the descriptor stays the caller's. Whatever is bad is logged, and what stands
    /// before it is kept.
    pub(super) fn read(memfd: RawFd) -> Self {
        let file = descriptor::lend(memfd);
        let (records, end) = read_records(&file);
        if let Err(error) = end {
            error!(%error, read = records.len(), "what the predecessor left is not whole");
        }
        let mut left = Self { file: Some(file), ..Self::default() };
        for Record { head, blobs } in records {
            match head {
                Head::Mail { slot, has_parcel } => left.mail.push((slot, has_parcel, blobs)),
                Head::Http(head) => left.http.push((*head, blobs)),
                Head::Open(head) => drop(left.open.insert(head.conn, (head, blobs))),
            }
        }
        left
    }

    /// Appends a blob to `into`, which takes no more memory than it needs.
    pub(super) fn read_onto(&self, blob: Blob, into: &mut Vec<u8>) -> Result<(), LeftoverError> {
        match &self.file {
            Some(file) => blob.read_onto(file, into),
            None => Ok(()),
        }
    }

    /// A blob.
    pub(super) fn bytes(&self, blob: Blob) -> Result<Vec<u8>, LeftoverError> {
        let mut bytes = Vec::new();
        self.read_onto(blob, &mut bytes)?;
        Ok(bytes)
    }

    /// The mail that waits, in its order, one read at a time.
    pub(super) fn mail(&self) -> impl Iterator<Item = (usize, Result<Waiting, LeftoverError>)> {
        self.mail.iter().map(|(slot, has_parcel, [packet, parcel, _])| {
            let read = || {
                let packet = self.bytes(*packet)?;
                let parcel = has_parcel.then(|| self.bytes(*parcel)).transpose()?;
                Ok(Waiting { packet, parcel })
            };
            (*slot, read())
        })
    }
}

/// A record whose head is read; its blobs are in the file.
#[derive(Clone, PartialEq, Debug)]
struct Record {
    head: Head,
    blobs: Blobs,
}

/// Bytes that are in the file for certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Blob {
    at: u64,
    bytes: usize,
}

impl Blob {
    pub(super) fn len(self) -> usize {
        self.bytes
    }

    fn read_onto(self, file: &File, into: &mut Vec<u8>) -> Result<(), LeftoverError> {
        if self.bytes == 0 {
            return Ok(());
        }
        into.reserve_exact(self.bytes);
        let mut file = file;
        file.seek(SeekFrom::Start(self.at)).map_err(LeftoverError::Read)?;
        let read = file.take(wide(self.bytes)).read_to_end(into).map_err(LeftoverError::Read)?;
        if read == self.bytes { Ok(()) } else { Err(LeftoverError::Cut(self.at + wide(read))) }
    }
}

/// Reads all heads, up to the end or to the first that is bad; and why it is.
fn read_records(file: &File) -> (Vec<Record>, Result<(), LeftoverError>) {
    let mut records = Vec::new();
    let read = read_into(file, &mut records);
    (records, read)
}

fn read_into(file: &File, records: &mut Vec<Record>) -> Result<(), LeftoverError> {
    let length = file.metadata().map_err(LeftoverError::Read)?.len();
    let mut mark = [0; MARK.len()];
    let mut at = 0;
    take(file, &mut at, length, &mut mark)?;
    if mark != *MARK {
        return Err(LeftoverError::Foreign);
    }
    let mut head = Vec::new();
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        take(file, &mut at, length, &mut prefix)?;
        if prefix == [0; PREFIX_BYTES] {
            return Ok(());
        }
        let mut lengths = [0_u64; 1 + BLOBS];
        for (length, bytes) in lengths.iter_mut().zip(prefix.chunks_exact(8)) {
            // Chunks of exactly eight.
            *length = bytes.try_into().map_or(u64::MAX, u64::from_le_bytes);
        }
        let [head_bytes, blob_bytes @ ..] = lengths;
        let fits = usize::try_from(head_bytes).ok().filter(|bytes| *bytes <= HEAD_MAX_BYTES);
        head.resize(fits.ok_or(LeftoverError::HeadTooLong(head_bytes))?, 0);
        take(file, &mut at, length, &mut head)?;
        let mut blobs = [Blob { at, bytes: 0 }; BLOBS];
        for (blob, bytes) in blobs.iter_mut().zip(blob_bytes) {
            let end = at.checked_add(bytes).filter(|end| *end <= length);
            let bytes = usize::try_from(bytes).map_err(|_| LeftoverError::Cut(at))?;
            *blob = Blob { at, bytes };
            at = end.ok_or(LeftoverError::Cut(at))?;
        }
        records.push(Record { head: codec::decode_value(&head)?, blobs });
    }
}

/// Fills `into` from the file, and moves on.
fn take(file: &File, at: &mut u64, length: u64, into: &mut [u8]) -> Result<(), LeftoverError> {
    let end = *at + wide(into.len());
    if end > length {
        return Err(LeftoverError::Cut(*at));
    }
    file.read_exact_at(into, *at).map_err(LeftoverError::Read)?;
    *at = end;
    Ok(())
}

fn wide(bytes: usize) -> u64 {
    // No machine of ours counts memory in more than 64 bits.
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Written = (Head, [Vec<u8>; BLOBS]);

    fn file_with(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// Each blob goes in as two pieces.
    fn written(records: &[Written]) -> Vec<u8> {
        let mut writer = LeftoverWriter::begin(Vec::new()).unwrap();
        for (head, blobs) in records {
            let halves = blobs.each_ref().map(|blob| blob.split_at(blob.len() / 2));
            let pieces = halves.map(|(left, right)| [left, right]);
            writer.put(head, pieces.each_ref().map(|two| &two[..])).unwrap();
        }
        writer.end().unwrap()
    }

    fn read(bytes: &[u8]) -> (Vec<Written>, Result<(), LeftoverError>) {
        let file = file_with(bytes);
        let (records, end) = read_records(&file);
        let whole = |record: Record| {
            let bytes = |blob: Blob| {
                let mut bytes = Vec::new();
                blob.read_onto(&file, &mut bytes).expect("it is in the file");
                bytes
            };
            (record.head, record.blobs.map(bytes))
        };
        (records.into_iter().map(whole).collect(), end)
    }

    fn some_head() -> impl Strategy<Value = Head> {
        let mail = (0..9_usize, any::<bool>())
            .prop_map(|(slot, has_parcel)| Head::Mail { slot, has_parcel });
        let http = (3..999_i32, any::<u16>(), any::<u64>(), any::<bool>()).prop_map(
            |(descriptor, port, at, ending)| {
                let peer = SocketAddr::from(([127, 0, 0, 1], port));
                let deadline = Millis(at);
                Head::Http(Box::new(HttpHead {
                    descriptor,
                    peer,
                    deadline,
                    pending: None,
                    ending,
                    told_to_go_on: ending,
                    begins: !ending,
                }))
            },
        );
        let closing = (any::<u16>(), ".{0,40}", any::<[bool; 3]>(), any::<u64>()).prop_map(
            |(code, reason, [lost, answered, deaf], until)| {
                let until = Millis(until);
                let by = if lost { ClosedBy::WorkerLost } else { ClosedBy::Client };
                ClosingHead { code, reason, by, answered, deaf, until }
            },
        );
        let open = (any::<u64>(), any::<bool>(), prop::option::of(closing)).prop_map(
            |(bits, half_out, closing)| {
                let conn = ConnId::from_row(dunlin_table::RowId::from_bits(bits));
                Head::Open(OpenHead { conn, half_out, closing })
            },
        );
        prop_oneof![mail, http, open]
    }

    fn some_records() -> impl Strategy<Value = Vec<Written>> {
        let blob = || prop::collection::vec(any::<u8>(), 0..300);
        prop::collection::vec((some_head(), [blob(), blob(), blob()]), 0..12)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in some_records()) {
            let (heard, end) = read(&written(&records));
            prop_assert!(end.is_ok(), "{:?}", end);
            prop_assert_eq!(heard, records);
        }

        #[test]
        fn a_file_that_is_cut_gives_what_is_whole(records in some_records(), cut in any::<prop::sample::Index>()) {
            let bytes = written(&records);
            let (heard, end) = read(&bytes[..cut.index(bytes.len())]);
            prop_assert!(end.is_err());
            prop_assert!(records.starts_with(&heard));
        }

        #[test]
        fn a_bad_file_is_an_error_and_no_panic(
            records in some_records(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = written(&records);
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            // Whatever comes of it: each blob is within the file, which `read` asks for.
            let _ = read(&bytes);
        }
    }

    #[test]
    fn no_length_is_believed() {
        let record = (Head::Mail { slot: 1, has_parcel: false }, [vec![7; 9], vec![], vec![]]);
        let good = written(std::slice::from_ref(&record));
        for place in 0..=BLOBS {
            for length in [u64::MAX, u64::MAX - 40, 1 << 40, wide(good.len())] {
                let mut bad = good.clone();
                bad[MARK.len() + 8 * place..][..8].copy_from_slice(&length.to_le_bytes());
                let (heard, end) = read(&bad);
                assert!(heard.is_empty() && end.is_err(), "{place}: {length}");
            }
        }
        assert!(matches!(read(b"dunlin 1").1, Err(LeftoverError::Foreign)));
        assert!(matches!(read(b"").1, Err(LeftoverError::Cut(0))));
    }

    #[test]
    fn a_head_that_could_not_be_read_is_not_written() {
        let mut writer = LeftoverWriter::begin(Vec::new()).unwrap();
        let closing = ClosingHead {
            code: 1000,
            reason: "a".repeat(HEAD_MAX_BYTES),
            by: ClosedBy::Server,
            answered: false,
            deaf: false,
            until: Millis(0),
        };
        let conn = ConnId::from_row(dunlin_table::RowId::from_bits(1));
        let head = Head::Open(OpenHead { conn, half_out: false, closing: Some(closing) });
        let put = writer.put(&head, [&[], &[], &[]]);
        assert!(matches!(put, Err(LeftoverError::HeadTooLong(_))), "{put:?}");
    }

    #[test]
    fn mail_keeps_its_order_and_its_parcels() {
        let mut writer = LeftoverWriter::begin(descriptor::empty_memfd().unwrap()).unwrap();
        let all =
            [(2, vec![1; 9], None), (2, vec![], Some(vec![7; 90_000])), (0, vec![3], Some(vec![]))];
        for (slot, packet, parcel) in &all {
            let head = Head::Mail { slot: *slot, has_parcel: parcel.is_some() };
            let parcel = parcel.as_deref().unwrap_or_default();
            writer.put(&head, [&[packet], &[parcel], &[]]).unwrap();
        }
        let memfd = descriptor::release(writer.end().unwrap().into());
        let read: Vec<_> = Leftover::read(memfd)
            .mail()
            .map(|(slot, waiting)| {
                let Waiting { packet, parcel } = waiting.unwrap();
                (slot, packet, parcel)
            })
            .collect();
        assert_eq!(read, all);
        descriptor::close(memfd);
    }
}
