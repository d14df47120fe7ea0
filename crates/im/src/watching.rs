//! Telling those who watch a user how he is: at once, after the debounce, or once more.
//!
//! Knows the tables and the context, and decides little: everything is `tell_watchers`, which reads the user's state
//! now and tells it to those of his watchers whose last news were others. It may be called at any time, any
//! number of times, in any worker.
//!
//! Invariants: 1. Whoever changes a user's state calls `tell_watchers` afterwards, or arms a timer that will; a
//! worker that dies in between is healed by `depart` of the lost session, by the timer, or by its
//! successor (`tables::presence::RecentChanges`). 2. A version is drawn before the state is read that is told
//! under it, so the largest version anybody was told stands for a state with every change in it whose
//! `tell_watchers` had begun. 3. No state is kept from a watcher but one that is the same as, or older than, what he
//! was told last; unless no mailbox took it, and then it is told again for [`UNTOLD_TRIES`] seconds.
//!
//! Where nobody watches, a change costs one look into the index of watches.

use crate::app::ImApp;
use crate::presence;
use crate::protocol::notification;
use crate::protocol::reply::{PresenceAnswer, UserPresence};
use crate::tables::Account;
use crate::tables::presence::{PresenceCount, Teller, Watcher};
use dunlin_server::context::Role;
use dunlin_server::{ConnId, Context, Message, Sessions, SlotId};

/// After how long news that no mailbox took are told again, in milliseconds.
const UNTOLD_RETRY_MS: u64 = 1_000;
/// How many times at most.
const UNTOLD_TRIES: u8 = 10;
/// How long before a dead worker's last change another may have been that was still on its way, in
/// milliseconds: mail waits that long for a full mailbox and longer only where its receiver hangs.
const ON_ITS_WAY_MS: u64 = 2_000;
/// The first byte of our timers' payloads.
const TIMER_TAG: u8 = b'p';

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look<'a> {
    /// A user went offline then (Unix milliseconds): is he still?
    Departed { since: u64, user: &'a str },
    /// No mailbox took news of a user.
    Untold { tries: u8, user: &'a str },
    /// The process is new: was there one before it that died?
    Heal,
}

impl ImApp {
    /// The state of a user, with a version; `elsewhere`: his sessions on other nodes, as far as they are
    /// known, each with when it was last active.
    pub(crate) fn state_of(
        &self,
        sessions: &Sessions,
        user: &str,
        unix_ms: u64,
        elsewhere: impl Iterator<Item = (Account, u64)>,
    ) -> UserPresence {
        let tables = self.tables();
        let version = tables.presence.draw_version(unix_ms);
        let live = tables.live_sessions(sessions, user).into_iter();
        // One that went away since it was found is offline.
        let here = live.filter_map(|session| {
            let info = sessions.info(session.conn)?;
            Some((session.account, info.last_active_ms))
        });
        let mut state = presence::of_sessions(here.chain(elsewhere));
        if !state.online {
            state.last_seen = tables.presence.last_seen.of(tables.hash(user));
        }
        UserPresence { version, ..state }
    }

    /// A session is answered how users are: of those it watches, that counts as told.
    pub(crate) fn note_answered(
        &self,
        sessions: &Sessions,
        conn: ConnId,
        answer: &PresenceAnswer<'_>,
    ) {
        let tables = self.tables();
        let watches = &tables.presence.watches;
        let mine = watches.of_session(sessions, conn);
        if mine.is_empty() {
            return;
        }
        for (user, state) in &answer.0 {
            let hash = tables.hash(user.as_str());
            if let Some(watch) = mine.iter().find(|watch| watch.hash == hash) {
                watches.offer(watch.entry, state.version, presence::print(hash, state), false);
            }
        }
    }

    /// A process begins: it takes a number, and looks soon whether it has something to heal.
    pub(crate) fn begin_watching(&mut self, context: &mut Context<'_, Self>) {
        self.life = self.tables().presence.begin_life();
        if matches!(context.role(), Role::Worker(_)) {
            self.look_after(context, 1, Look::Heal);
        }
    }

    /// A process ends in good order.
    pub(crate) fn end_watching(&self, context: &Context<'_, Self>) {
        self.tables().presence.recent.settle(self.teller(context));
    }

    /// A session of a user is about to end.
    pub(crate) fn note_departure(&self, context: &Context<'_, Self>, user: &str) {
        let tables = self.tables();
        if tables.presence.watches.is_watched(tables.hash(user)) {
            tables.presence.recent.note(self.teller(context), user, context.now(), false);
        }
    }

    /// A session of a user has come.
    pub(crate) fn tell_arrival(&self, context: &mut Context<'_, Self>, user: &str) {
        let tables = self.tables();
        if tables.presence.watches.is_watched(tables.hash(user)) {
            self.tell_watchers(context, user, false, 0);
        }
    }

    /// A session of a user has ended.
    pub(crate) fn tell_departure(&self, context: &mut Context<'_, Self>, user: &str) {
        let tables = self.tables();
        let (hash, since) = (tables.hash(user), context.unix_ms());
        tables.presence.last_seen.note(hash, since);
        // When the server stops everybody is told that it does.
        if context.is_stopping() || !tables.presence.watches.is_watched(hash) {
            return;
        }
        let debounce_ms = self.config.presence_debounce_ms;
        let may_come_back = debounce_ms > 0 && !self.is_online(context, user);
        let look = Look::Departed { since, user };
        if !may_come_back || !self.look_after(context, debounce_ms, look) {
            self.tell_watchers(context, user, false, 0);
        }
    }

    /// Does what a timer was armed for.
    pub(crate) fn look_again(&self, context: &mut Context<'_, Self>, payload: &[u8]) {
        match Look::decode(payload) {
            Some(Look::Departed { since, user }) => {
                let tables = self.tables();
                let last = tables.presence.last_seen.of(tables.hash(user));
                // He was back meanwhile, and went again: that has a timer of its own.
                let went_again = last.is_some_and(|last| last > since);
                if !went_again || self.is_online(context, user) {
                    self.tell_watchers(context, user, false, 0);
                }
            }
            Some(Look::Untold { tries, user }) => self.tell_watchers(context, user, false, tries),
            Some(Look::Heal) => self.heal(context),
            None => tracing::warn!("a timer came that nobody has armed"),
        }
    }

    /// Tells again what a dead process of this slot may have told in vain.
    fn heal(&self, context: &mut Context<'_, Self>) {
        let (now, debounce_ms) = (context.now(), self.config.presence_debounce_ms);
        let presence = &self.tables().presence;
        let window_ms = debounce_ms + ON_ITS_WAY_MS;
        for change in presence.recent.take_of_the_dead(self.teller(context), window_ms) {
            presence.count(PresenceCount::Healed, 1);
            let user = &*change.user;
            let left_ms = debounce_ms.saturating_sub(now.since(change.at));
            let may_come_back = !change.told && left_ms > 0 && !self.is_online(context, user);
            let look = Look::Departed { since: context.unix_ms(), user };
            if !may_come_back || !self.look_after(context, left_ms, look) {
                self.tell_watchers(context, user, true, 0);
            }
        }
    }

    /// Tells the watchers of a user how he is; `again`: also those who were told the same before. `tries`: how
    /// often it was in vain already.
    fn tell_watchers(&self, context: &mut Context<'_, Self>, user: &str, again: bool, tries: u8) {
        let (hash, presence) = (self.tables().hash(user), &self.tables().presence);
        presence.recent.note(self.teller(context), user, context.now(), true);
        let (sessions, unix_ms) = (context.table(), context.unix_ms());
        let state = self.state_of(sessions, user, unix_ms, std::iter::empty());
        let print = presence::print(hash, &state);
        // Looked for behind the draw: see `Watches`.
        let mut watchers = presence.watches.watchers(context.table(), hash);
        watchers
            .retain(|watcher| presence.watches.offer(watcher.entry, state.version, print, again));
        if watchers.is_empty() {
            return;
        }
        let conns: Vec<ConnId> = watchers.iter().map(|watcher| watcher.conn).collect();
        let text = notification::encode(&notification::Presence { user, presence: &state });
        let taken = context.push_many(&conns, Message::Text(&text));
        presence.count(PresenceCount::Told, taken);
        if taken < conns.len() {
            self.tell_later(context, user, &watchers, taken, tries);
        }
    }

    /// Not everybody could be told: those who are still there are told again. Which of them were not is not
    /// known, so some may be told twice.
    fn tell_later(
        &self,
        context: &mut Context<'_, Self>,
        user: &str,
        watchers: &[Watcher],
        taken: usize,
        tries: u8,
    ) {
        let presence = &self.tables().presence;
        let there = || watchers.iter().filter(|watcher| context.is_established(watcher.conn));
        // Those who have gone, or are closed because they are slow, need no news.
        let untold = there().count().saturating_sub(taken);
        if untold == 0 {
            return;
        }
        presence.count(PresenceCount::Refused, untold);
        there().for_each(|watcher| presence.watches.forget_told(watcher.entry));
        if tries < UNTOLD_TRIES {
            self.look_after(context, UNTOLD_RETRY_MS, Look::Untold { tries: tries + 1, user });
        }
    }

    /// Arms a timer of this slot. False, and counted, if none is left.
    fn look_after(&self, context: &mut Context<'_, Self>, after_ms: u64, look: Look<'_>) -> bool {
        let armed = context.after(after_ms, &look.encode());
        if let Err(error) = &armed {
            self.tables().presence.count(PresenceCount::NoTimer, 1);
            tracing::debug!(%error, "a timer of presence was not armed");
        }
        armed.is_ok()
    }

    fn is_online(&self, context: &Context<'_, Self>, user: &str) -> bool {
        !self.tables().live_sessions(context.table(), user).is_empty()
    }

    fn teller(&self, context: &Context<'_, Self>) -> Teller {
        let slot = match context.role() {
            Role::Worker(slot) => slot,
            // Tells nobody anything.
            Role::Task(_) => SlotId(u16::MAX),
        };
        Teller { slot, life: self.life }
    }
}

impl<'a> Look<'a> {
    /// Tag, kind, a number, a user: at most 74 bytes.
    fn encode(self) -> Vec<u8> {
        let (kind, number, user) = match self {
            Self::Departed { since, user } => (0, since, user),
            Self::Untold { tries, user } => (1, u64::from(tries), user),
            Self::Heal => (2, 0, ""),
        };
        let mut bytes = vec![TIMER_TAG, kind];
        bytes.extend(number.to_le_bytes());
        bytes.extend(user.as_bytes());
        bytes
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let ([TIMER_TAG, kind], rest) = bytes.split_first_chunk()? else { return None };
        let (number, user) = rest.split_first_chunk()?;
        let (number, user) = (u64::from_le_bytes(*number), str::from_utf8(user).ok()?);
        match kind {
            0 => Some(Self::Departed { since: number, user }),
            1 => Some(Self::Untold { tries: u8::try_from(number).ok()?, user }),
            2 => Some(Self::Heal),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_server::timer::PAYLOAD_MAX;

    #[test]
    fn a_timer_says_what_it_is_for_and_no_other_is_taken_for_one() {
        let user = "é".repeat(32);
        for look in [
            Look::Departed { since: u64::MAX, user: &user },
            Look::Untold { tries: 10, user: "ann" },
            Look::Heal,
        ] {
            let bytes = look.encode();
            assert_eq!(Look::decode(&bytes), Some(look));
            assert!(bytes.len() <= PAYLOAD_MAX);
        }
        let tries = [&b"p\x01"[..], &300_u64.to_le_bytes(), b"ann"].concat();
        for wrong in
            [&b""[..], b"p", b"p\0", b"q\0\0\0\0\0\0\0\0\0", b"p\x03\0\0\0\0\0\0\0\0", &tries]
        {
            assert_eq!(Look::decode(wrong), None, "{wrong:?}");
        }
    }
}
