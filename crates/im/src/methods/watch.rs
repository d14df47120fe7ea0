//! `watch` and `unwatch`: from now on, and no longer, to be told of users.

use super::{Caller, Outcome};
use crate::ids::UserId;
use crate::protocol::reply::{FoundPresence, PresenceAnswer};
use crate::protocol::{CallError, Code, params};
use crate::tables::presence::{PresenceCount, Watch, WatchTableFull};
use serde_json::value::RawValue;

/// When to try again where the table of watches is full, in milliseconds.
const RETRY_WATCH_MS: u64 = 1_000;

impl Caller<'_, '_> {
    /// All or nothing. The state in the result is read after everybody is watched: what changes later is
    /// told.
    pub(super) fn watch<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let asked = params::Presence::read(params)?;
        let (tables, sessions) = (self.app.tables(), self.context.table());
        let watches = &tables.presence.watches;
        let mine = watches.of_session(sessions, self.conn);
        let mut wanted: Vec<u64> =
            asked.users.iter().map(|user| tables.hash(user.as_str())).collect();
        wanted.retain(|hash| mine.iter().all(|watch| watch.hash != *hash));
        let most = self.app.config.max_watches;
        if mine.len() + wanted.len() > most {
            let message = format!("a session may watch at most {most} users");
            return Err(CallError::new(Code::Forbidden, message).because("too_many_watches"));
        }
        let mut added = Vec::with_capacity(wanted.len());
        for hash in wanted {
            match watches.add(sessions, self.conn, hash, self.context.now()) {
                Ok(entry) => added.push(Watch { entry, hash }),
                Err(WatchTableFull) => {
                    for watch in added {
                        watches.remove(sessions, self.conn, watch);
                    }
                    tables.presence.count(PresenceCount::TableFull, 1);
                    let message = "the server has no room for more watches";
                    let error = CallError::new(Code::TableFull, message);
                    return Err(error.retry_after(RETRY_WATCH_MS));
                }
            }
        }
        Ok(self.states_here(asked.users))
    }

    /// Who is not watched is passed over.
    pub(super) fn unwatch<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        let asked = params::Presence::read(params)?;
        let (tables, sessions) = (self.app.tables(), self.context.table());
        let unwanted: Vec<u64> =
            asked.users.iter().map(|user| tables.hash(user.as_str())).collect();
        let watches = &tables.presence.watches;
        for watch in watches.of_session(sessions, self.conn) {
            if unwanted.contains(&watch.hash) {
                watches.remove(sessions, self.conn, watch);
            }
        }
        Ok(self.states_here(asked.users))
    }

    /// What this node knows of users, as the notifications that follow.
    fn states_here<'a>(&self, users: Vec<UserId<'a>>) -> Outcome<'a> {
        let (sessions, unix_ms) = (self.context.table(), self.context.unix_ms());
        let answer = users.into_iter().map(|user| {
            let state = self.app.state_of(sessions, user.as_str(), unix_ms, std::iter::empty());
            (user, state)
        });
        let answer = PresenceAnswer(answer.collect());
        self.app.note_answered(sessions, self.conn, &answer);
        Outcome::Presence(FoundPresence { answer, partial: false })
    }
}
