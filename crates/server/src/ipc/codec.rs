//! bincode, with the bounds it needs: the only file that sets the format and its limit.
//!
//! Every decode has a limit: without one a bad length makes bincode panic or allocate without bound.
//! Trailing bytes are an error where one value was expected.

use serde::{Serialize, de::DeserializeOwned};

/// The most memory one decoded value may ask for, in bytes.
pub const DECODE_LIMIT: usize = 256 << 20;

/// The settings of every encoding here.
pub(crate) fn settings() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_LIMIT>()
}

/// A value did not encode or decode.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value has a shape bincode cannot write.
    #[error("the value does not encode: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    /// The bytes are not such a value.
    #[error("the bytes do not decode: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// There are bytes behind the value.
    #[error("{0} bytes follow the value")]
    TrailingBytes(usize),
}

/// Encodes a value of the application.
///
/// # Errors
/// [`CodecError::Encode`].
pub fn encode_value<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(bincode::serde::encode_to_vec(value, settings())?)
}

/// Decodes a value of the application.
///
/// # Errors
/// [`CodecError::Decode`], [`CodecError::TrailingBytes`].
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, settings())?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::TrailingBytes(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_length_is_an_error_not_a_panic() {
        let huge = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(decode_value::<Vec<u8>>(&huge).is_err());
        assert!(decode_value::<String>(&huge).is_err());
        let mut good = encode_value(&"tea").expect("encodes");
        assert_eq!(decode_value::<String>(&good).expect("decodes"), "tea");
        good.push(0);
        assert!(matches!(decode_value::<String>(&good), Err(CodecError::TrailingBytes(1))));
    }
}
