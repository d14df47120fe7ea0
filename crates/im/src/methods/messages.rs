//! `send` and `signal`: from one session to the sessions of a user or of a room.

use super::{Caller, Outcome};
use crate::backend::SentMessage;
use crate::ids::{DeviceId, UserId};
use crate::message_id::MessageId;
use crate::protocol::notification::{self, From};
use crate::protocol::params::{self, Target};
use crate::protocol::reply::{Done, Sent};
use crate::protocol::{CallError, Code};
use crate::router::{self, Route};
use dunlin_server::{ConnId, Message};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// When to try again where no session of the recipient could take a message, in milliseconds.
const RETRY_SEND_MS: u64 = 250;

impl Caller<'_, '_> {
    pub(super) fn send<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let send = params::Send::read(params, self.app.config.max_body_bytes)?;
        self.admit_send()?;
        let sent = match &send.key {
            Some(key) => self.send_once(&send, key)?,
            None => {
                let id = self.app.tables().next_message_id(self.context.unix_ms());
                self.deliver(&send, id)?
            }
        };
        Ok(Outcome::Sent(sent))
    }

    /// Sends a message under its id, whether it was sent before or not.
    pub(super) fn deliver(
        &mut self,
        send: &params::Send<'_>,
        id: MessageId,
    ) -> Result<Sent, CallError> {
        let route = self.route(&send.to)?;
        self.app.extension.may_send(&self.seen(), &send.to, send.body)?;

        let time = id.unix_ms();
        let (user, device) = self.sender()?;
        let from = Some(From { user: &user, device: &device });
        // Encoded once for all who get it.
        let text = notification::encode(&notification::Message {
            id,
            from,
            to: &send.to,
            body: send.body,
            time,
        });
        let sessions = self.context.push_many(&route.recipients, Message::Text(&text));
        if sessions == 0 && !route.recipients.is_empty() {
            let message = "no session of the recipient can take a message now";
            return Err(CallError::new(Code::Busy, message).retry_after(RETRY_SEND_MS));
        }
        self.context.push_many(&route.copies, Message::Text(&text));
        let from = Some((&*self.account.user, &*self.account.device));
        let sent = SentMessage { id, from, to: &send.to, body: send.body, sessions };
        self.app.tell_message(self.context, sent);
        Ok(Sent { id, time, sessions })
    }

    pub(super) fn signal<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let signal = params::Signal::read(params, self.app.config.max_body_bytes)?;
        self.admit_send()?;
        let to = self.recipients(&signal.to)?;
        self.app.extension.may_send(&self.seen(), &signal.to, signal.body)?;
        let (user, device) = self.sender()?;
        let from = From { user: &user, device: &device };
        let signal = notification::Signal { from, to: &signal.to, body: signal.body };
        let text = notification::encode(&signal);
        for conn in to {
            // Where it does not fit it is dropped: that is what a signal is.
            let _ = self.context.push_droppable(conn, Message::Text(&text));
        }
        Ok(Outcome::Done(Done {}))
    }

    /// Who gets a message, and who a copy.
    fn route(&self, to: &Target<'_>) -> Result<Route, CallError> {
        match to {
            Target::User(user) => {
                let is_self = user.as_str() == self.account.user;
                let to = self.live_conns(user.as_str());
                let own = (!is_self).then(|| self.live_conns(&self.account.user));
                Ok(router::to_user(to, own, self.conn))
            }
            Target::Room(room) => {
                let room = self.room_of_member(room)?;
                let members = self.app.sessions_in(self.context, room);
                let own = self.live_conns(&self.account.user);
                Ok(router::to_room(members, own, self.conn))
            }
        }
    }

    /// Who gets a signal.
    fn recipients(&self, to: &Target<'_>) -> Result<Vec<ConnId>, CallError> {
        Ok(match to {
            Target::User(user) => self.live_conns(user.as_str()),
            Target::Room(room) => {
                let room = self.room_of_member(room)?;
                let mut members = self.app.sessions_in(self.context, room);
                members.retain(|conn| *conn != self.conn);
                members
            }
        })
    }

    /// Counts a send of this user, if it may be now.
    fn admit_send(&mut self) -> Result<(), CallError> {
        let admitted = self.app.admit_send(self.context, self.conn, &self.account.user);
        admitted.map_err(|refused| refused.answer(self.close))
    }

    fn live_conns(&self, user: &str) -> Vec<ConnId> {
        self.app.tables().live_conns(self.context.table(), user)
    }

    /// Who sends, as it stands in the row.
    fn sender(&self) -> Result<(UserId<'_>, DeviceId<'_>), CallError> {
        let user = UserId::new(Cow::Borrowed(&*self.account.user));
        let device = DeviceId::new(Cow::Borrowed(&*self.account.device));
        match (user, device) {
            (Ok(user), Ok(device)) => Ok((user, device)),
            // Only a foreign write to shared memory can leave such a row.
            _ => Err(CallError::new(Code::InternalError, "the session's row holds no valid ids")),
        }
    }
}
