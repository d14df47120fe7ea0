//! The part of the status that is about the backend.

use super::Word;
use super::client::Failure;
use crate::app::ImApp;
use dunlin_server::clock;
use serde_json::{Value as Json, json};

impl ImApp {
    /// From shared memory alone.
    pub(crate) fn backend_status(&self) -> Json {
        let shared = self.backend.shared();
        let last_error = Failure::text(shared.get(Word::LastError));
        let last_error_at = last_error.as_ref().map(|_| shared.get(Word::LastErrorAt));
        json!({
            "configured": self.config.backend.target.is_some(),
            "circuit": shared.circuit.state(clock::now().0).name(),
            "failures_in_a_row": shared.get(Word::Failures),
            "seq": shared.get(Word::Seq),
            "queued_bytes": shared.queue.used_bytes(),
            "queue_bytes": shared.queue.bytes(),
            "sent": shared.get(Word::Sent),
            "retried": shared.get(Word::Retried),
            "refused": shared.get(Word::Refused),
            "dropped": shared.get(Word::Dropped),
            "queue_full": shared.get(Word::Full),
            "lost": shared.queue.lost(),
            "allowed": shared.get(Word::Allowed),
            "denied": shared.get(Word::Denied),
            "unasked": shared.get(Word::Unasked),
            "last_error": last_error,
            "last_error_at": last_error_at,
        })
    }
}
