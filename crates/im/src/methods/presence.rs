//! `presence`: who is online.

use super::{Caller, Outcome};
use crate::presence;
use crate::protocol::reply::{PresenceAnswer, UserPresence};
use crate::protocol::{CallError, params};
use serde_json::value::RawValue;

impl Caller<'_, '_> {
    pub(super) fn presence<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let asked = params::Presence::read(params)?;
        let answer = asked.users.into_iter().map(|user| {
            let presence = self.presence_of(user.as_str());
            (user, presence)
        });
        Ok(Outcome::Presence(PresenceAnswer(answer.collect())))
    }

    fn presence_of(&self, user: &str) -> UserPresence {
        let sessions = self.context.table();
        let live = self.app.tables().live_sessions(sessions, user).into_iter();
        // One that went away since it was found is offline.
        presence::of_sessions(live.filter_map(|session| {
            let info = sessions.info(session.conn)?;
            Some((session.account, info.last_active_ms))
        }))
    }
}
