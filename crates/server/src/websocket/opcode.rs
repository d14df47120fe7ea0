//! What a message is: text or binary.

/// The kind of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// The payload is UTF-8.
    Text,
    /// The payload is any bytes.
    Binary,
}
