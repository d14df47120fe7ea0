//! Close codes, and the close frame.
//!
//! Knows which codes may stand in a close frame (RFC 6455 section 7.4 and the IANA registry behind it);
//! what a code means to an application is the application's.

use super::frame::{CONTROL_MAX, FrameKind, encode_frame};

/// Longest reason of a close frame, in bytes: what a control frame holds beside the code.
pub const REASON_MAX: usize = CONTROL_MAX - 2;

/// Why a connection is closed, as it stands in a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server stops, or the page was left.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// A kind of message that is not served here.
    pub const UNSUPPORTED: Self = Self(1003);
    /// The content does not fit the kind of message: text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// The peer broke a rule of the server.
    pub const POLICY: Self = Self(1008);
    /// A message over the limit.
    pub const TOO_BIG: Self = Self(1009);
    /// The server failed while it served the connection.
    pub const INTERNAL: Self = Self(1011);
    /// What served the connection is being started anew.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The server has no room now, or the peer reads too slowly.
    pub const TRY_AGAIN: Self = Self(1013);

    /// Whether the code may stand in a close frame: 1000–1003, 1007–1014 and 3000–4999.
    ///
    /// 1004 to 1006 and 1015 are never sent, 1016–2999 are reserved, and the rest has no meaning.
    #[must_use]
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// Appends a close frame to `out`. `code` is `None` for a close without a code, and `reason` is then left out.
///
/// A reason over [`REASON_MAX`] bytes is cut at the last character that fits.
pub fn encode_close(out: &mut Vec<u8>, code: Option<CloseCode>, reason: &str) {
    let mut payload = [0u8; CONTROL_MAX];
    let Some(code) = code else {
        return encode_frame(out, FrameKind::Close, true, &[]);
    };
    debug_assert!(code.is_sendable(), "{code:?} may not stand in a close frame");
    let reason = &reason[..reason.floor_char_boundary(REASON_MAX)];
    payload[..2].copy_from_slice(&code.0.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    encode_frame(out, FrameKind::Close, true, &payload[..2 + reason.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_codes_of_the_registry_may_be_sent() {
        let allowed = |code: u16| CloseCode(code).is_sendable();
        for code in (1000..=1003).chain(1007..=1014).chain(3000..=4999) {
            assert!(allowed(code), "{code}");
        }
        for code in (0..=999).chain(1004..=1006).chain(1015..=2999).chain(5000..=u16::MAX) {
            assert!(!allowed(code), "{code}");
        }
    }

    #[test]
    fn a_close_frame_is_code_and_reason() {
        let mut out = Vec::new();
        encode_close(&mut out, Some(CloseCode::GOING_AWAY), "bye");
        assert_eq!(out, b"\x88\x05\x03\xe9bye");
        out.clear();
        encode_close(&mut out, None, "not sent");
        assert_eq!(out, b"\x88\x00");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        encode_close(&mut out, Some(CloseCode::POLICY), &"é".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
        out.clear();
        encode_close(&mut out, Some(CloseCode::POLICY), &"a".repeat(200));
        assert_eq!(out.len(), 2 + CONTROL_MAX);
    }
}
