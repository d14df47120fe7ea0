//! What is known of a setting: its key, kind, default, bounds, and who may change it when.
//!
//! Knows no particular key: the lists of them stand beside the modules that read them
//! (`SERVER_KEYS` in this crate's `config`, and one list per application).

use super::value::{duration_text, size_text};
use std::fmt;
use std::path::PathBuf;

/// One setting.
#[derive(Debug)]
pub struct KeySpec {
    /// Its dotted key, such as `server.workers`.
    pub key: &'static str,
    /// What it may hold.
    pub kind: KeyKind,
    /// What it is when nobody says anything, as a TOML literal.
    pub default: &'static str,
    /// Whether a reload takes a new value over; the others need a restart.
    pub reloadable: bool,
    /// Whether it is hidden in what people see and refused on the command line.
    pub secret: bool,
    /// One line for people.
    pub doc: &'static str,
}

impl KeySpec {
    /// A setting whose new value a reload takes over, and that is no secret.
    #[must_use]
    pub const fn reload(
        key: &'static str,
        kind: KeyKind,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self { key, kind, default, reloadable: true, secret: false, doc }
    }

    /// A setting whose new value needs a restart, and that is no secret.
    #[must_use]
    pub const fn restart(
        key: &'static str,
        kind: KeyKind,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self { reloadable: false, ..Self::reload(key, kind, default, doc) }
    }

    /// The environment variable that sets it: `DUNLIN_SERVER__WORKERS` for `server.workers`.
    #[must_use]
    pub fn environment_name(&self) -> String {
        environment_name(self.key)
    }
}

/// The environment variable of a dotted key.
pub(super) fn environment_name(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// What the names of our environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "DUNLIN_";

/// What a setting may hold. All bounds are inclusive.
#[derive(Debug)]
pub enum KeyKind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A length of time, written `"250ms"`, `"10s"`, `"5m"` or `"1h"`.
    Duration {
        /// The least, in milliseconds.
        min_ms: u64,
        /// The most, in milliseconds.
        max_ms: u64,
    },
    /// A number of bytes, written `"64KiB"`, `"1MiB"`, `"1GiB"` or as a plain integer.
    Size {
        /// The least, in bytes.
        min: u64,
        /// The most, in bytes.
        max: u64,
    },
    /// Any text.
    Text,
    /// A path; empty means none.
    Path,
    /// A list of texts.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl KeyKind {
    /// The bounds for people, such as `0 to 1024`; `None` where there are none.
    #[must_use]
    pub fn bounds(&self) -> Option<String> {
        match self {
            Self::Count { min, max } => Some(format!("{min} to {max}")),
            Self::Duration { min_ms, max_ms } => {
                Some(format!("{} to {}", duration_text(*min_ms), duration_text(*max_ms)))
            }
            Self::Size { min, max } => Some(format!("{} to {}", size_text(*min), size_text(*max))),
            Self::Choice(words) => Some(words.join(", ")),
            Self::Bool | Self::Text | Self::Path | Self::List => None,
        }
    }
}

/// What is wanted, for a sentence that begins "wants".
impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Count { .. } => f.write_str("a whole number"),
            Self::Duration { .. } => f.write_str("a duration such as \"10s\" or \"250ms\""),
            Self::Size { .. } => f.write_str("a size such as \"64KiB\" or a number of bytes"),
            Self::Text => f.write_str("a text"),
            Self::Path => f.write_str("a path"),
            Self::List => f.write_str("a list of texts"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

/// A text that may hold anything as a part of one line: control characters are written as escapes.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The config file.
    File {
        /// Its path, as it was given.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The flag of this name, such as `-w`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => {
                write!(f, "{}:{line}", one_line(&path.display().to_string()))
            }
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}
