//! Close codes and what they ask of a client: one table for `bye`, the close frame and the docs.
//!
//! Knows no connection. The policy follows from the code alone, so a client that missed the `bye` can
//! apply it to the close frame.

use crate::protocol::notification::Bye;
use std::borrow::Cow;

/// Why the application closes a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseReason {
    /// The server stops.
    Stopping,
    /// A binary message came.
    BinaryNotTaken,
    /// Nothing came for `im.heartbeat`.
    HeartbeatTimeout,
    /// No login within `im.login_timeout`.
    LoginTimeout,
    /// Its token has expired, and no other was given in time.
    TokenExpired,
    /// Too many tokens were refused.
    TokensRefused,
    /// It went on far over its limits.
    TooManyRequests,
    /// A newer login of the same user took the place (`im.devices`, `im.max_devices`).
    Replaced,
    /// Another device of the same user asked for it by `kick`.
    KickedByOwnDevice,
    /// Whoever runs the server asked for it.
    KickedByOperator,
}

/// Every reason, for tables and tests.
pub const CLOSE_REASONS: [CloseReason; 10] = [
    CloseReason::Stopping,
    CloseReason::BinaryNotTaken,
    CloseReason::HeartbeatTimeout,
    CloseReason::LoginTimeout,
    CloseReason::TokenExpired,
    CloseReason::TokensRefused,
    CloseReason::TooManyRequests,
    CloseReason::Replaced,
    CloseReason::KickedByOwnDevice,
    CloseReason::KickedByOperator,
];

/// Codes of our own, counted apart from all others.
pub(crate) const CLOSE_CODES: &[u16] = &[4002, 4501, 4502, 4510, 4511];

impl CloseReason {
    /// The close code.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Stopping => 1001,
            Self::BinaryNotTaken => 1003,
            Self::TooManyRequests => 1008,
            Self::HeartbeatTimeout => 4002,
            Self::LoginTimeout => 4501,
            Self::TokenExpired | Self::TokensRefused => 4502,
            Self::Replaced | Self::KickedByOwnDevice => 4510,
            Self::KickedByOperator => 4511,
        }
    }

    /// A sentence for people; fits a close frame.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Stopping => "the server is stopping",
            Self::BinaryNotTaken => "binary messages are not taken",
            Self::HeartbeatTimeout => "nothing was heard for longer than the heartbeat",
            Self::LoginTimeout => "no login in time",
            Self::TokenExpired => "the token has expired",
            Self::TokensRefused => "too many tokens were refused",
            Self::TooManyRequests => "it went on far over its limits",
            Self::Replaced => "replaced by a newer login of this user",
            Self::KickedByOwnDevice => "closed by another device of this user",
            Self::KickedByOperator => "closed by who runs the server",
        }
    }

    /// The `bye` that goes before the close frame of one connection.
    #[must_use]
    pub fn bye(self) -> Bye {
        bye(self.code(), self.text().into(), 1)
    }
}

/// The `bye` for any code, the engine's own among them; `returning` is how many clients are told so at
/// about the same time.
#[must_use]
pub fn bye(code: u16, reason: Cow<'static, str>, returning: u64) -> Bye {
    let reconnect = may_reconnect(code);
    let after_ms = if reconnect { spread_ms(returning) } else { [0, 0] };
    Bye { code, reason, reconnect, after_ms }
}

/// Whether a client that was closed with this code should connect again by itself.
#[must_use]
pub const fn may_reconnect(code: u16) -> bool {
    matches!(code, 1001 | 1006 | 1012 | 1013 | 4000..=4499)
}

/// The first moment to come back, in milliseconds: what a restart of the server takes.
const RETURN_AFTER_MS: u64 = 500;
/// Clients that return in one millisecond on average.
const RETURNS_PER_MS: u64 = 1;
/// The shortest and the longest time over which returns are spread.
const SPREAD_MS: (u64, u64) = (1_500, 30_000);

/// Between when and when so many clients are to come back, so that they do not come at once.
fn spread_ms(returning: u64) -> [u64; 2] {
    let needed = returning / RETURNS_PER_MS;
    [RETURN_AFTER_MS, RETURN_AFTER_MS + needed.clamp(SPREAD_MS.0, SPREAD_MS.1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_may_stand_in_a_close_frame_and_follows_the_policy() {
        for reason in CLOSE_REASONS {
            let code = reason.code();
            assert!(matches!(code, 1000..=1003 | 1007..=1014 | 4000..=4999), "{code}");
            assert!(reason.text().len() <= 123 && !reason.text().is_empty());
            let bye = reason.bye();
            assert_eq!(bye.reconnect, code == 1001 || (4000..4500).contains(&code), "{code}");
            assert_eq!(bye.reconnect, bye.after_ms[1] > 0);
        }
        assert!(may_reconnect(1012) && may_reconnect(1013) && may_reconnect(4499));
        assert!(!may_reconnect(4500) && !may_reconnect(1002) && !may_reconnect(1000));
    }

    #[test]
    fn every_code_of_our_own_is_counted_apart() {
        let mut own: Vec<u16> = CLOSE_REASONS.iter().map(|reason| reason.code()).collect();
        own.retain(|code| *code >= 4000);
        own.sort_unstable();
        own.dedup();
        assert_eq!(own, CLOSE_CODES);
        assert!(own.len() <= dunlin_server::scoreboard::APP_CODES_MAX);
    }

    #[test]
    fn many_clients_are_spread_over_a_longer_time() {
        let after_ms = |returning| bye(1001, "the server is stopping".into(), returning).after_ms;
        assert_eq!(after_ms(1), [500, 2_000]);
        assert_eq!(after_ms(10_000), [500, 10_500]);
        assert_eq!(after_ms(u64::MAX), [500, 30_500]);
    }
}
