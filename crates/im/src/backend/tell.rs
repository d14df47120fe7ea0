//! Events on their way into the queue, in the worker where they happen.
//!
//! Costs what its JSON costs, and stores; nothing where the event is not asked for.

use super::Word;
use super::event::{DeviceOf, Event, Login, Logout, Message, Sender, Stamp, Who, encode};
use super::queue::{PutError, Share};
use crate::app::ImApp;
use crate::protocol::params::Target;
use crate::tables::Account;
use dunlin_server::{Closed, ClosedBy, ConnId, Context};
use serde_json::value::RawValue;
use std::sync::atomic::Ordering;

/// How a login ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// By `logout`; the connection stays.
    LoggedOut,
    /// With its connection.
    Closed(&'a Closed),
}

/// What there is to know of a message that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentMessage<'a> {
    pub(crate) id: crate::message_id::MessageId,
    pub(crate) from: Option<(&'a str, &'a str)>,
    pub(crate) to: &'a Target<'a>,
    pub(crate) body: &'a RawValue,
    pub(crate) sessions: usize,
}

impl ImApp {
    /// Somebody has logged in.
    pub(crate) fn tell_login(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        account: &Account,
    ) {
        if !self.tells(self.config.backend.events.login) {
            return;
        }
        let ip = context.table().peer(conn).map(|peer| peer.ip().to_string());
        self.tell_event(context, &Login { who: who(conn, account), ip });
    }

    /// A login is over.
    pub(crate) fn tell_logout(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        account: &Account,
        end: End<'_>,
    ) {
        if !self.tells(self.config.backend.events.logout) {
            return;
        }
        let (by, code, reason) = match end {
            End::LoggedOut => ("logout", None, ""),
            End::Closed(closed) => {
                let by = match closed.by {
                    ClosedBy::Client => "client",
                    ClosedBy::Server => "server",
                    ClosedBy::WorkerLost => "worker_lost",
                };
                (by, Some(closed.code), &*closed.reason)
            }
        };
        self.tell_event(context, &Logout { who: who(conn, account), by, code, reason });
    }

    /// A message was sent.
    pub(crate) fn tell_message(&self, context: &mut Context<'_, Self>, sent: SentMessage<'_>) {
        if !self.tells(self.config.backend.events.message) {
            return;
        }
        let seen = self.backend.shared().word(Word::Messages).fetch_add(1, Ordering::Relaxed);
        if !seen.is_multiple_of(self.config.backend.message_sample) {
            return;
        }
        let mut message = Message {
            id: sent.id.to_string(),
            from: sent.from.map(|(user, device)| Sender { user, device }),
            to: sent.to,
            body: Some(sent.body),
            omitted_bytes: None,
            sessions: sent.sessions,
        };
        let stamp = self.stamp(context);
        let text = encode(stamp, &message);
        if self.put(stamp, &text, Share::Half) == Err(PutError::TooLong) {
            message.body = None;
            message.omitted_bytes = Some(sent.body.get().len());
            // The rest of it is far shorter than a record may be.
            let _ = self.put(stamp, &encode(stamp, &message), Share::Half);
        }
        self.drain_soon(context);
    }

    fn tells(&self, asked_for: bool) -> bool {
        asked_for && self.config.backend.target.is_some()
    }

    fn tell_event<E: Event>(&self, context: &mut Context<'_, Self>, event: &E) {
        let stamp = self.stamp(context);
        let _ = self.put(stamp, &encode(stamp, event), Share::All);
        self.drain_soon(context);
    }

    pub(super) fn stamp(&self, context: &Context<'_, Self>) -> Stamp {
        let seq = self.backend.shared().next_seq();
        Stamp { node: self.tables().node, seq, unix_ms: context.unix_ms() }
    }

    fn put(&self, stamp: Stamp, text: &str, share: Share) -> Result<(), PutError> {
        let shared = self.backend.shared();
        let put = shared.queue.put(stamp.seq, text.as_bytes(), share);
        if put == Err(PutError::Full) {
            shared.count(Word::Full);
            // What was lost of messages is not put right by telling who is online.
            if share == Share::All {
                shared.event_is_lost();
            }
        }
        put
    }
}

pub(crate) fn who(conn: ConnId, account: &Account) -> Who<'_> {
    let device = DeviceOf { id: &account.device, model: &account.model, kind: &account.kind };
    Who { user: &account.user, device, session: conn.to_string() }
}
