//! `send` with a key: once, however often it is asked for, on whichever worker.
//!
//! Decides nothing of who gets the message. Invariant: what a claim is taken for ends with the claim given
//! up, or with its mark under way.

use super::Caller;
use crate::message_id::MessageId;
use crate::protocol::params::{Send, Target};
use crate::protocol::reply::Sent;
use crate::protocol::{CallError, Code};
use crate::tables::{Begun, Claim};

/// When to ask again for the outcome of a send that is under way elsewhere, in milliseconds.
const RETRY_KEY_MS: u64 = 250;

impl Caller<'_, '_> {
    /// Sends what has not been sent under its key, or gives the first result.
    pub(super) fn send_once(&mut self, send: &Send<'_>, key: &str) -> Result<Sent, CallError> {
        let claim = match self.begin(send, key) {
            Begun::Claimed(claim) => claim,
            Begun::Done { id, sessions } => {
                let sessions = usize::try_from(sessions).unwrap_or(usize::MAX);
                return Ok(Sent { id, time: id.unix_ms(), sessions });
            }
            Begun::UnderWay => {
                let message = "a send with this key is under way";
                return Err(CallError::new(Code::Busy, message)
                    .because("key_under_way")
                    .retry_after(RETRY_KEY_MS));
            }
            Begun::Reused => {
                let error = CallError::param("key", "was of another message");
                return Err(error.because("key_reused"));
            }
        };
        match self.deliver(send, claim.id()) {
            Ok(sent) => {
                self.note_sent(claim, sent.sessions);
                Ok(sent)
            }
            Err(error) => {
                claim.give_up();
                Err(error)
            }
        }
    }

    fn begin(&self, send: &Send<'_>, key: &str) -> Begun {
        let (kind, name) = match &send.to {
            Target::User(user) => (b"user ", user.as_str()),
            Target::Room(room) => (b"room ", room.as_str()),
        };
        let tables = self.app.tables();
        let content = [kind, name.as_bytes(), send.body.get().as_bytes()];
        let key = tables.send_key(&self.account, key, &content);
        let (context, unix_ms) = (&*self.context, self.context.unix_ms());
        let mut draw = || -> MessageId { tables.next_message_id(unix_ms) };
        let is_under_way = |turn| context.is_under_way(turn);
        tables.idempotency.begin(&key, unix_ms, context.turn(), &mut draw, &is_under_way)
    }

    /// The result counts from when the message has left: it is lost with this worker before.
    fn note_sent(&mut self, claim: Claim, sessions: usize) {
        let sessions = u64::try_from(sessions).unwrap_or(u64::MAX);
        let (word, from, to) = claim.sent_to(sessions);
        self.context.mark_when_sent(word, from, to);
    }
}
