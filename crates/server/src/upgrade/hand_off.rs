//! What one program gives the next, as the bytes of a memfd.
//!
//! Knows the format; knows not what is made of it. JSON, so that a program of another version can at
//! least read which version it is.

use crate::layout::Facts;
use crate::master::Succession;
use crate::shared::Sizes;
use crate::sys::descriptor;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;

/// Tells a program the number of the descriptor where its hand-off is. Without `__`, so that it is no
/// setting.
pub(crate) const VARIABLE: &str = "DUNLIN_UPGRADE";

/// Raised when a hand-off changes in a way that an older or newer program would read wrongly.
const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandOff {
    /// How the shared memory is read.
    pub(crate) facts: Facts,
    pub(crate) sizes: Sizes,
    /// The segment's descriptor, and the seed of its counts by address.
    pub(crate) segment: RawFd,
    pub(crate) seed: u64,
    /// Every setting of the program that runs, as a TOML literal.
    pub(crate) settings: Vec<(String, String)>,
    /// Where a setting leaves it open: how many there are.
    pub(crate) workers: u16,
    /// Where a setting leaves it open: which it is.
    pub(crate) run_dir: OsString,
    pub(crate) purpose: Purpose,
}

/// What the new program is started for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// To show that it could: the verdict goes to this descriptor. It has its own directory to live in.
    Rehearsal { report: RawFd, run_dir: OsString },
    /// To go on.
    Succession(Box<Succession>),
}

/// What a rehearsal says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// Why it could not; none if it could.
    pub(crate) error: Option<String>,
    /// The program's version.
    pub(crate) version: String,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    dunlin_upgrade: u32,
    hand_off: T,
}

impl HandOff {
    /// Writes it into a memfd, which is the caller's.
    pub(crate) fn write(&self) -> io::Result<RawFd> {
        let envelope = Envelope { dunlin_upgrade: VERSION, hand_off: self };
        descriptor::memfd_with(&serde_json::to_vec(&envelope)?)
    }

    /// Reads what the variable says is there.
    pub(crate) fn read(variable: &str) -> Result<Self, String> {
        let number: RawFd =
            variable.parse().map_err(|_| format!("{VARIABLE} is no descriptor: {variable:?}"))?;
        if number < 0 || !descriptor::is_our_memfd(number) {
            return Err(format!("descriptor {number} of {VARIABLE} is no hand-off"));
        }
        let bytes =
            descriptor::read_memfd(number).map_err(|error| format!("the hand-off: {error}"));
        let read = bytes.and_then(|bytes| Self::from_bytes(&bytes));
        descriptor::close(number);
        read
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let unreadable = |error| format!("the hand-off cannot be read: {error}");
        let envelope: Envelope<Json> = serde_json::from_slice(bytes).map_err(unreadable)?;
        if envelope.dunlin_upgrade != VERSION {
            let theirs = envelope.dunlin_upgrade;
            return Err(format!(
                "what runs hands over by version {theirs} of the upgrade, this program takes over by \
                 version {VERSION}: restart instead"
            ));
        }
        serde_json::from_value(envelope.hand_off).map_err(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use serde_json::json;

    fn hand_off() -> HandOff {
        let sizes = Sizes {
            sessions: 9,
            receive_pool_bytes: 1 << 20,
            workers: 1,
            tasks: 0,
            processes: 1,
            timers: 1,
            descriptors: 64,
        };
        let layout = Layout::new(sizes, Vec::new(), &[], 0).expect("a layout");
        HandOff {
            facts: layout.facts(&["timer".to_owned()]),
            sizes,
            segment: 7,
            seed: u64::MAX,
            settings: vec![("log.level".to_owned(), "\"info\"".to_owned())],
            workers: 1,
            run_dir: OsString::from("/run/d"),
            purpose: Purpose::Rehearsal { report: 8, run_dir: OsString::from("/run/d/next") },
        }
    }

    #[test]
    fn what_is_written_is_read_once_and_the_descriptor_is_gone() {
        let memfd = hand_off().write().expect("a memfd");
        let read = HandOff::read(&memfd.to_string()).expect("what was written");
        assert_eq!(read.facts, hand_off().facts);
        assert_eq!((read.seed, read.settings), (u64::MAX, hand_off().settings));
        assert!(HandOff::read("tea").is_err_and(|why| why.contains("is no descriptor")));
        assert!(HandOff::read("2").is_err_and(|why| why.contains("is no hand-off")));
    }

    #[test]
    fn another_version_is_named_and_not_guessed_at() {
        let other = json!({"dunlin_upgrade": VERSION + 1, "hand_off": {"whatever": 1}}).to_string();
        let why = HandOff::from_bytes(other.as_bytes()).expect_err("another version");
        assert!(why.contains(&format!("by version {}", VERSION + 1)), "{why}");
        assert!(HandOff::from_bytes(b"{}").is_err_and(|why| why.contains("cannot be read")));
    }
}
