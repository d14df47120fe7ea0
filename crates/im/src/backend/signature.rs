//! What proves to the backend that a request is ours, and fresh: HMAC-SHA256 over the time and the body.
//!
//! Knows no transport. As Stripe does it: the time is in what is signed, so that a request that was
//! recorded cannot be sent again later.

use aws_lc_rs::hmac;
use std::fmt;
use std::fmt::Write as _;

/// Unix time in seconds.
pub const TIMESTAMP_HEADER: &str = "Dunlin-Timestamp";
/// The event's sequence number.
pub const SEQUENCE_HEADER: &str = "Dunlin-Sequence";
/// `v1=` and the signature in hexadecimal digits.
pub const SIGNATURE_HEADER: &str = "Dunlin-Signature";

/// The key that requests are signed with.
#[derive(Clone)]
pub(crate) struct SigningKey(hmac::Key);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl SigningKey {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The value of [`SIGNATURE_HEADER`] for a body that is sent at this time.
    pub(crate) fn sign(&self, timestamp: u64, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(timestamp.to_string().as_bytes());
        signing.update(b".");
        signing.update(body);
        let mut text = String::from("v1=");
        for byte in signing.sign().as_ref() {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_others_compute() {
        // printf '1764529200.{"event":"login"}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let key = SigningKey::new(b"0123456789abcdef0123456789abcdef");
        assert_eq!(key.sign(1_764_529_200, br#"{"event":"login"}"#), EXPECTED);
        assert_ne!(key.sign(1_764_529_201, br#"{"event":"login"}"#), EXPECTED);
        assert_ne!(key.sign(1_764_529_200, br#"{"event":"logiN"}"#), EXPECTED);
        assert_eq!(format!("{key:?}"), "***");
    }

    const EXPECTED: &str = "v1=17088de5c5fd3c734399065b70a80487b99545ca6233a06c0f229c072f10f5c4";
}
