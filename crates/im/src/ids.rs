//! The names people and clients choose ([`UserId`], [`DeviceId`], [`RoomId`]) and the name of this
//! server ([`NodeId`]).
//!
//! Knows the rules of a name and nothing of who has it. The rule is the same for all three: 1 to
//! [`NAME_MAX`] bytes of UTF-8 without a control character (Unicode category Cc: U+0000 to U+001F and
//! U+007F to U+009F). Everything else is allowed and compared byte by byte: no trimming, no folding of
//! case, no normalisation.

use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Longest user, device and room id, in bytes.
pub const NAME_MAX: usize = 64;

/// A text is no id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdError {
    /// It has no character.
    #[error("must not be empty")]
    Empty,
    /// It has more than [`NAME_MAX`] bytes.
    #[error("must have at most {NAME_MAX} bytes")]
    TooLong,
    /// It has a control character.
    #[error("must not have control characters")]
    ControlCharacter,
}

/// Whether a text may be an id.
///
/// # Errors
/// See [`IdError`].
pub fn check_name(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > NAME_MAX {
        return Err(IdError::TooLong);
    }
    // Nearly all names are plain ASCII, which a look at each byte tells.
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_plain && text.chars().any(char::is_control) {
        return Err(IdError::ControlCharacter);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $id:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $id<'a>(Cow<'a, str>);

        impl<'a> $id<'a> {
            /// The id, if the text may be one.
            ///
            /// # Errors
            /// See [`IdError`].
            pub fn new(text: impl Into<Cow<'a, str>>) -> Result<Self, IdError> {
                let text = text.into();
                check_name(&text)?;
                Ok(Self(text))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $id<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $id<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

name! {
    /// A user: who somebody is, on all devices.
    UserId
}
name! {
    /// A device of a user, named by its client.
    DeviceId
}
name! {
    /// A room.
    RoomId
}

/// This server among others: 64 random bits, drawn once for all its processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeId(pub u64);

/// Sixteen hexadecimal digits.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_64_bytes_and_no_control_character() {
        for good in ["a", "Ann Lee", "å∂ƒ", " ", "a/b?c", "\u{feff}", &"x".repeat(64)] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
        for (wrong, error) in [
            (String::new(), IdError::Empty),
            ("x".repeat(65), IdError::TooLong),
            ("é".repeat(33), IdError::TooLong),
            ("a\0".into(), IdError::ControlCharacter),
            ("\u{7f}".into(), IdError::ControlCharacter),
            ("a\u{85}b".into(), IdError::ControlCharacter),
            ("line\n".into(), IdError::ControlCharacter),
        ] {
            assert_eq!(UserId::new(wrong.clone()).unwrap_err(), error, "{wrong:?}");
        }
        assert_eq!(NodeId(255).to_string(), "00000000000000ff");
    }
}
