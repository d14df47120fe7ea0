//! What the backend is asked, as it is kept until the answer is there.
//!
//! Pure. It goes with the task and comes back with its outcome, and lies in the payload of a timer that is
//! due if no outcome comes; who was logging in stands in the session's row.

use dunlin_server::ConnId;
use serde::{Deserialize, Serialize};

/// What a timer's payload begins with that guards a question.
const PREFIX: &[u8] = b"backend.ask";

/// A question, and how its answer finds its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Whose request it was.
    pub(crate) conn: ConnId,
    /// The request's id.
    pub(crate) id: AskedId,
    /// What it was.
    pub(crate) what: What,
}

/// The id of a request, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AskedId {
    /// It was a notification.
    None,
    /// This.
    Json(String),
    /// One that did not fit: there is an id, and nobody knows it any more.
    Forgotten,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// Whether the login may be that stands in the row.
    Login {
        /// When its token expires, Unix milliseconds.
        expires_ms: Option<u64>,
    },
    /// Whether a room may be joined.
    Join {
        /// Its name.
        room: String,
        /// By whom: the number of the login.
        login: u64,
    },
}

impl Asked {
    /// As the payload of a timer, of at most `most` bytes; an id that does not fit is forgotten.
    pub(super) fn to_payload(&self, most: usize) -> Vec<u8> {
        let (kind, number, room) = match &self.what {
            What::Login { expires_ms: None } => (0, 0, ""),
            What::Login { expires_ms: Some(ms) } => (1, *ms, ""),
            What::Join { room, login } => (2, *login, room.as_str()),
        };
        let mut payload = PREFIX.to_vec();
        payload.extend(self.conn.to_bits().to_le_bytes());
        payload.extend(u64::to_le_bytes(number));
        payload.push(kind);
        // A room's name has at most 64 bytes.
        payload.push(u8::try_from(room.len()).unwrap_or(0));
        payload.extend(room.as_bytes());
        match &self.id {
            AskedId::None => payload.push(0),
            AskedId::Json(id) if payload.len() + 1 + id.len() <= most => {
                payload.push(1);
                payload.extend(id.as_bytes());
            }
            AskedId::Json(_) | AskedId::Forgotten => payload.push(2),
        }
        payload
    }

    /// What [`Asked::to_payload`] made; `None` for any other payload.
    pub(super) fn from_payload(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(PREFIX)?;
        let (conn, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let number = u64::from_le_bytes(*number);
        let ([kind, room_length], rest) = rest.split_first_chunk()?;
        let (room, rest) = rest.split_at_checked(usize::from(*room_length))?;
        let room = std::str::from_utf8(room).ok()?;
        let what = match kind {
            0 => What::Login { expires_ms: None },
            1 => What::Login { expires_ms: Some(number) },
            2 => What::Join { room: room.to_owned(), login: number },
            _ => return None,
        };
        let id = match rest.split_first()? {
            (0, _) => AskedId::None,
            (1, id) => AskedId::Json(std::str::from_utf8(id).ok()?.to_owned()),
            _ => AskedId::Forgotten,
        };
        Some(Self { conn: ConnId::from_bits(u64::from_le_bytes(*conn)), id, what })
    }
}

/// What the backend says to a question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// It may be.
    Allowed {
        /// Of a login: who it is instead of whom it said.
        user: Option<String>,
        /// Of a login: rooms to be joined by it.
        rooms: Vec<String>,
    },
    /// It may not, and why.
    Denied(Option<String>),
    /// It has not said.
    Unasked,
}

/// Longest reason that is passed on, in bytes.
const REASON_MAX: usize = 200;
/// Most rooms an answer may name.
const ROOMS_MAX: usize = 64;

impl Verdict {
    /// What an answer of the backend's says. What cannot be understood says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Said {
            allow: bool,
            user: Option<String>,
            #[serde(default)]
            rooms: Vec<String>,
            reason: Option<String>,
        }
        match serde_json::from_slice(body) {
            Ok(Said { allow: true, user, rooms, .. }) => {
                let fits = user.as_deref().is_none_or(is_name)
                    && rooms.len() <= ROOMS_MAX
                    && rooms.iter().all(|room| is_name(room));
                if fits { Self::Allowed { user, rooms } } else { Self::Unasked }
            }
            Ok(Said { allow: false, reason, .. }) => Self::Denied(reason.map(|mut reason| {
                reason.truncate(reason.floor_char_boundary(REASON_MAX));
                reason
            })),
            Err(_) => Self::Unasked,
        }
    }
}

fn is_name(text: &str) -> bool {
    crate::ids::check_name(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_question_comes_back_from_a_timer_as_it_went() {
        let room = "r".repeat(64);
        for what in [
            What::Login { expires_ms: None },
            What::Login { expires_ms: Some(u64::MAX) },
            What::Join { room, login: 7 },
        ] {
            for id in [AskedId::None, AskedId::Json("\"an id\"".into()), AskedId::Forgotten] {
                let asked = Asked { conn: ConnId::from_bits(9 << 32 | 3), id, what: what.clone() };
                let payload = asked.to_payload(256);
                assert_eq!(Asked::from_payload(&payload), Some(asked));
            }
            let id = AskedId::Json(format!("\"{}\"", "x".repeat(254)));
            let asked = Asked { conn: ConnId::from_bits(1), id, what };
            let payload = asked.to_payload(256);
            assert!(payload.len() <= 256);
            let id = AskedId::Forgotten;
            assert_eq!(Asked::from_payload(&payload), Some(Asked { id, ..asked }));
        }
        assert_eq!(Asked::from_payload(super::super::WAKE), None);
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        let yes = |user: Option<&str>, rooms: &[&str]| Verdict::Allowed {
            user: user.map(ToOwned::to_owned),
            rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
        };
        for (body, verdict) in [
            (r#"{"allow":true}"#, yes(None, &[])),
            (r#"{"allow":true,"user":"ann","rooms":["tea"],"more":1}"#, yes(Some("ann"), &["tea"])),
            (r#"{"allow":false}"#, Verdict::Denied(None)),
            (r#"{"allow":false,"reason":"no","user":7}"#, Verdict::Unasked),
            (r#"{"allow":true,"user":""}"#, Verdict::Unasked),
            (r#"{"allow":true,"rooms":["a\nb"]}"#, Verdict::Unasked),
            (r#"{"allow":"true"}"#, Verdict::Unasked),
            (r#"{"allow":1}"#, Verdict::Unasked),
            ("{}", Verdict::Unasked),
            ("", Verdict::Unasked),
            ("true", Verdict::Unasked),
            ("\u{0}", Verdict::Unasked),
        ] {
            assert_eq!(Verdict::read(body.as_bytes()), verdict, "{body}");
        }
        let long = format!(r#"{{"allow":false,"reason":"{}"}}"#, "é".repeat(500));
        let Verdict::Denied(Some(reason)) = Verdict::read(long.as_bytes()) else { panic!() };
        assert_eq!(reason, "é".repeat(100));
    }

    proptest! {
        #[test]
        fn no_payload_and_no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Verdict::read(&bytes);
            let _ = Asked::from_payload(&bytes);
            let _ = Asked::from_payload(&[PREFIX, &bytes].concat());
        }
    }
}
