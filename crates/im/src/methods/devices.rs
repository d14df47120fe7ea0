//! `sessions` and `kick`: a user's own sessions.

use super::{Caller, Outcome};
use crate::app::ImApp;
use crate::close::CloseReason;
use crate::protocol::reply::{Kicked, OwnSession, OwnSessions};
use crate::protocol::{CallError, Code, params};
use serde_json::value::RawValue;

impl Caller<'_, '_> {
    pub(super) fn sessions<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        params::read_none(params)?;
        let table = self.context.table();
        let live = self.app.tables().live_sessions(table, &self.account.user).into_iter();
        let sessions = live.filter_map(|session| {
            let info = table.info(session.conn)?;
            Some(OwnSession {
                session: session.conn.to_string(),
                device: session.account.device,
                ip: info.peer.ip().to_string(),
                connected_at: info.connected_at_ms,
                last_active: info.last_active_ms,
            })
        });
        Ok(Outcome::Sessions(OwnSessions { sessions: sessions.collect() }))
    }

    pub(super) fn kick<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let kick = params::Kick::read(params)?;
        if kick.device.as_str() == self.account.device {
            let message = "this is the device you are on: log out instead";
            return Err(CallError::new(Code::Forbidden, message).because("own_device"));
        }
        let live = self.app.tables().live_sessions(self.context.table(), &self.account.user);
        let mut kicked = 0;
        for session in live.iter().filter(|live| live.account.device == kick.device.as_str()) {
            let reason = CloseReason::KickedByOwnDevice;
            kicked += usize::from(ImApp::say_bye(self.context, session.conn, reason));
        }
        Ok(Outcome::Kicked(Kicked { kicked }))
    }
}
