//! `POST /api/push`: a message from the server's owner.

use super::body::{self, Audience};
use super::error::ApiError;
use super::{Call, ok, query};
use crate::message_id::MessageId;
use crate::protocol::notification::{self, Announcement};
use crate::protocol::params::Target;
use crate::tables::ApiCount;
use dunlin_server::{ConnId, Message, Response};
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Pushed {
    id: MessageId,
    sessions: usize,
}

impl Call<'_, '_> {
    pub(super) fn push(&mut self) -> Result<Response, ApiError> {
        query::parameters(self.request, &[])?;
        let [to, sent] = body::members(self.request, ["to", "body"])?;
        let to = body::audience(to)?;
        let sent = body::message(sent, self.app.config.max_body_bytes)?;
        let recipients = self.recipients(&to);
        let id = self.app.tables().next_message_id(self.context.unix_ms());
        // Encoded once for all who get it.
        let text = encode(id, &to, sent);
        let sessions = self.context.push_many(&recipients, Message::Text(&text));
        if sessions == 0 && !recipients.is_empty() {
            return Err(ApiError::busy("no session of the recipients can take a message now"));
        }
        self.app.tables().api.add(ApiCount::Pushed, sessions);
        Ok(ok(&Pushed { id, sessions }))
    }

    fn recipients(&self, to: &Audience<'_>) -> Vec<ConnId> {
        let (tables, sessions) = (self.app.tables(), self.context.table());
        match to {
            Audience::User(user) => {
                let live = tables.live_sessions(sessions, user.as_str());
                live.into_iter().map(|session| session.conn).collect()
            }
            Audience::Room(room) => {
                let found = tables.rooms.find(room.as_str());
                let members = found.map(|room| tables.rooms.members(sessions, room));
                members.unwrap_or_default().into_iter().map(|member| member.conn).collect()
            }
            // Two words a row are read. A broadcast would also reach those who have not logged in.
            Audience::All => {
                let open = sessions.established();
                open.filter(|conn| tables.is_logged_in(sessions, *conn)).collect()
            }
        }
    }
}

fn encode(id: MessageId, to: &Audience<'_>, body: &RawValue) -> String {
    let time = id.unix_ms();
    let message =
        |to| notification::encode(&notification::Message { id, from: None, to: &to, body, time });
    match to {
        Audience::User(user) => message(Target::User(user.clone())),
        Audience::Room(room) => message(Target::Room(room.clone())),
        Audience::All => notification::encode(&Announcement::new(id, body)),
    }
}
