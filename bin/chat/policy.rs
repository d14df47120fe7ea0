//! When a client comes back, and whether: the rules of docs/protocol.md, "Closing and coming back".
//!
//! Knows no socket and no clock; what is random is handed in.

use serde_json::Value as Json;

/// Without a close frame.
pub(crate) const NO_CLOSE_FRAME: u16 = 1006;
/// The session's token is over.
pub(crate) const TOKEN_OVER: u16 = 4502;

/// Close codes after which a client comes back, besides 4000 to 4499.
const COMES_BACK: [u16; 5] = [1001, 1005, NO_CLOSE_FRAME, 1012, 1013];

/// Whether a client that was closed with this code connects again by itself.
pub(crate) fn comes_back(code: u16) -> bool {
    COMES_BACK.contains(&code) || (4000..4500).contains(&code)
}

/// The waits a server has told, or those of a client that has not yet been told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Policy {
    base_ms: u64,
    max_ms: u64,
    jitter: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { base_ms: 500, max_ms: 30_000, jitter: 0.5 }
    }
}

/// No server has a client wait longer than this, whatever it says.
const WAIT_MAX_MS: u64 = 300_000;

impl Policy {
    /// `reconnect` of a `hello`; what is not told, or makes no sense, stays at its default.
    pub(crate) fn from_hello(reconnect: &Json) -> Self {
        let usual = Self::default();
        let ms = |name: &str, usual| reconnect[name].as_u64().unwrap_or(usual).min(WAIT_MAX_MS);
        let jitter = reconnect["jitter"].as_f64().filter(|part| (0.0..=1.0).contains(part));
        Self {
            base_ms: ms("base_ms", usual.base_ms),
            max_ms: ms("max_ms", usual.max_ms),
            jitter: jitter.unwrap_or(usual.jitter),
        }
    }

    /// Between when and when to come back after so many failures in a row; 1 is the first.
    pub(crate) fn window(&self, failures: u32) -> (u64, u64) {
        let doubled = 1_u64 << failures.saturating_sub(1).min(30);
        let most = self.base_ms.saturating_mul(doubled).min(self.max_ms);
        // Both are at most five minutes: no figure here is near the edge of its type.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let least = (most as f64 * (1.0 - self.jitter)) as u64;
        (least, most)
    }
}

/// `after_ms` of a `bye` that wants this client back.
pub(crate) fn asked_back(bye: &Json) -> Option<(u64, u64)> {
    if bye["reconnect"] != true {
        return None;
    }
    let ms = |at: usize| bye["after_ms"][at].as_u64().map(|ms| ms.min(WAIT_MAX_MS));
    let (least, most) = (ms(0)?, ms(1)?);
    Some((least, most.max(least)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_codes_of_the_protocol_page_say_who_comes_back() {
        for code in [1001, 1005, 1006, 1012, 1013, 4000, 4002, 4499] {
            assert!(comes_back(code), "{code}");
        }
        for code in [1000, 1002, 1003, 1007, 1008, 1009, 1011, 3999, 4500, 4501, 4502, 4510, 4511] {
            assert!(!comes_back(code), "{code}");
        }
    }

    #[test]
    fn waits_double_up_to_the_most_and_are_shortened_by_jitter() {
        let policy = Policy::from_hello(&json!({"base_ms": 100, "max_ms": 1_000, "jitter": 0.25}));
        let windows: Vec<_> = (1..=6).map(|failures| policy.window(failures)).collect();
        assert_eq!(
            windows,
            [(75, 100), (150, 200), (300, 400), (600, 800), (750, 1_000), (750, 1_000)]
        );
        assert_eq!(policy.window(u32::MAX), (750, 1_000));
        assert_eq!(Policy::default().window(1), (250, 500));
    }

    #[test]
    fn what_a_server_tells_badly_is_not_believed() {
        let usual = Policy::default();
        for told in [json!(null), json!({"base_ms": -1, "max_ms": "x", "jitter": 7})] {
            assert_eq!(Policy::from_hello(&told), usual);
        }
        let long = Policy::from_hello(&json!({"base_ms": u64::MAX, "max_ms": u64::MAX}));
        assert!(long.window(9).1 <= WAIT_MAX_MS);
        assert_eq!(asked_back(&json!({"reconnect": true, "after_ms": [5, 2]})), Some((5, 5)));
        assert_eq!(asked_back(&json!({"reconnect": false, "after_ms": [5, 9]})), None);
        assert_eq!(asked_back(&json!({"reconnect": true, "after_ms": [5]})), None);
    }
}
