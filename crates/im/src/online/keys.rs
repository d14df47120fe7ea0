//! Names of keys in Redis, and what stands in an entry: JSON that others may read, too.
//!
//! Pure. Invariant: what comes from Redis is believed only as far as it has the shape of an entry; names
//! in it are names, and no user has more entries than [`ENTRIES_MAX`].

use crate::config::MAX_DEVICES_BOUND;
use crate::ids::{NodeId, check_name};
use crate::protocol::params::{KIND_MAX, MODEL_MAX};
use serde::{Deserialize, Serialize};

/// Most entries taken of one user from one node.
#[expect(clippy::cast_possible_truncation, reason = "it is 32")]
pub(crate) const ENTRIES_MAX: usize = MAX_DEVICES_BOUND as usize;
/// Most bytes of one node's entries of a user that are looked at.
const TEXT_MAX: usize = 64 << 10;

/// One session of a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its id, unique on its node.
    pub session: String,
    /// The device it is on.
    pub device: String,
    /// The device's model, empty if not told.
    pub model: String,
    /// Its kind, empty if not told.
    pub kind: String,
    /// When it logged in, Unix milliseconds.
    pub since: u64,
    /// When something last came from it, Unix milliseconds; as old as the last sweep at the most.
    pub last_active: u64,
}

/// The keys of this node.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    pub(crate) prefix: &'a str,
    /// This node's name, which is also its field in the hash of a user.
    pub(crate) node: String,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(prefix: &'a str, node: NodeId) -> Self {
        Self { prefix, node: node.to_string() }
    }

    /// A string that expires: while it is there its node is alive.
    pub(crate) fn lease(&self, node: &str) -> String {
        format!("{}node:{node}", self.prefix)
    }

    /// A set: the users of whom this node has written entries.
    pub(crate) fn users(&self) -> String {
        format!("{}node:{}:users", self.prefix, self.node)
    }

    /// A hash: a user's entries, a field for each node.
    pub(crate) fn user(&self, user: &str) -> String {
        format!("{}user:{user}", self.prefix)
    }
}

/// The field of a node that has these sessions of a user.
pub(crate) fn encode(entries: &[Entry]) -> String {
    serde_json::to_string(entries).expect("strings and numbers make JSON")
}

/// The sessions in a field; none if it is no field of ours.
pub(crate) fn decode(text: &[u8]) -> Vec<Entry> {
    if text.len() > TEXT_MAX {
        return Vec::new();
    }
    let mut entries: Vec<Entry> = serde_json::from_slice(text).unwrap_or_default();
    entries.retain(|entry| {
        let short = |text: &str, limit| text.len() <= limit && !text.chars().any(char::is_control);
        check_name(&entry.session).is_ok()
            && check_name(&entry.device).is_ok()
            && short(&entry.model, MODEL_MAX)
            && short(&entry.kind, KIND_MAX)
    });
    entries.truncate(ENTRIES_MAX);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(device: &str) -> Entry {
        let session = "0000000700000001".into();
        let (device, model, kind) = (device.into(), "Pixel \"9\"".into(), String::new());
        Entry { session, device, model, kind, since: 1, last_active: 1_800_000_000_000 }
    }

    #[test]
    fn keys_begin_with_the_prefix() {
        let keys = Keys::new("t:", NodeId(255));
        assert_eq!(keys.lease(&keys.node), "t:node:00000000000000ff");
        assert_eq!(keys.users(), "t:node:00000000000000ff:users");
        assert_eq!(keys.user("Ann Lee"), "t:user:Ann Lee");
    }

    #[test]
    fn entries_come_back_as_they_were_written() {
        let entries = vec![entry("d1"), entry("ä 2")];
        let text = encode(&entries);
        assert!(text.starts_with(r#"[{"session":"0000000700000001","device":"d1","model":"#));
        assert_eq!(decode(text.as_bytes()), entries);
        assert_eq!(encode(&[]), "[]");
    }

    #[test]
    fn what_is_no_entry_is_left_out() {
        for text in ["", "{}", "7", "[7]", "[{}]", "\u{0}", "[[", r#"[{"device":"d"}]"#] {
            assert_eq!(decode(text.as_bytes()), [], "{text}");
        }
        let mut odd = vec![entry(""), entry("a\nb"), entry(&"x".repeat(65)), entry("good")];
        odd.push(Entry { session: String::new(), ..entry("d") });
        odd.push(Entry { model: "m".repeat(MODEL_MAX + 1), ..entry("d") });
        odd.push(Entry { kind: "\u{7f}".into(), ..entry("d") });
        assert_eq!(decode(encode(&odd).as_bytes()), [entry("good")]);
        let many: Vec<Entry> = (0..ENTRIES_MAX + 5).map(|n| entry(&n.to_string())).collect();
        assert_eq!(decode(encode(&many).as_bytes()).len(), ENTRIES_MAX);
        let long = format!("[{}]", " ".repeat(TEXT_MAX));
        assert_eq!(decode(long.as_bytes()), []);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).len() <= ENTRIES_MAX);
        }
    }
}
