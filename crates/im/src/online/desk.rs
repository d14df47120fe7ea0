//! A worker's side of the online list: what has changed, what is due, who waits for an answer.
//!
//! Never waits. What it keeps may be lost with the worker: the sweep mends the list, and an outcome says
//! whom it is for. Invariants: 1. One [`TICK_MS`] timer runs in each slot while Redis is configured: an unknown
//! one takes the place of the known one, so that neither a restart nor a reload that fails leaves two or
//! none. 2. A question is answered once: by its outcome, or before it, which is noted where a successor of
//! this worker looks.

use super::changes::Changes;
use super::keys::Entry;
use super::queries::{Queries, Query};
use super::{Asker, OnlineOutcome, OnlineWork};
use crate::api;
use crate::app::ImApp;
use crate::ids::UserId;
use crate::protocol::reply::{self, FoundPresence, PresenceAnswer, UserPresence};
use crate::protocol::request::Id;
use crate::tables::{Account, OnlineCount};
use crate::tasks::Work;
use dunlin_server::clock::Millis;
use dunlin_server::{ConnId, Context, Message, Response, Sessions, TaskId, TimerId};
use serde_json::value::RawValue;

/// How often a worker looks at what waits and what is due.
pub(crate) const TICK_MS: u64 = 100;
/// What the timer brings back.
pub(crate) const TICK: &[u8] = b"im.online";
/// Users handed on in one task: at 64 bytes each, a quarter of what a task may be.
const USERS_PER_TASK: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    changes: Changes,
    /// The users on their way to Redis, and since when.
    syncing: Option<(TaskId, Millis)>,
    queries: Queries,
    tick: Option<TimerId>,
}

impl ImApp {
    fn has_redis(&self) -> bool {
        self.config.redis.url.is_some()
    }

    /// A worker starts.
    pub(crate) fn online_start(&mut self, context: &mut Context<'_, Self>) -> Result<(), String> {
        if self.has_redis() {
            let armed = context.tick(TICK_MS, TICK);
            let timer = armed.map_err(|error| format!("no timer for redis.url: {error}"))?;
            self.online.desk.get_mut().tick = Some(timer);
        }
        Ok(())
    }

    /// A session of a user has come or gone. Costs a word of memory without Redis, and the name with it.
    pub(crate) fn note_change(&self, user: &str) {
        if self.has_redis()
            && !self.online.desk.borrow_mut().changes.note(user, self.config.redis.max_changes)
        {
            self.tables().online.count(OnlineCount::Dropped, 1);
        }
    }

    /// The timer of this worker is due.
    pub(crate) fn online_tick(&mut self, context: &mut Context<'_, Self>, timer: TimerId) {
        let desk = self.online.desk.get_mut();
        if let Some(known) = desk.tick.replace(timer)
            && known != timer
        {
            context.clear_timer(known);
        }
        if !self.has_redis() {
            context.clear_timer(timer);
            self.online.desk.get_mut().tick = None;
            return;
        }
        let overdue = self.online.desk.get_mut().queries.expire(context.now());
        for (task, query) in overdue {
            self.answer_early(context, task, &query);
        }
        self.send_changes(context);
        // Whoever stops has nothing to add, and a late beat would bring back what was taken off the list.
        if !context.is_stopping() {
            self.send_beat(context);
            self.send_sweep(context);
        }
    }

    /// Hands on what waits, one task at a time.
    fn send_changes(&mut self, context: &mut Context<'_, Self>) {
        let board = self.tables().online;
        let wait_ms = self.config.redis.lease_ms;
        let now = context.now();
        let desk = self.online.desk.get_mut();
        if !board.is_connected() {
            // What is true when Redis comes back is written then.
            board.count(OnlineCount::Dropped, desk.changes.clear());
            return;
        }
        let is_under_way = desk.syncing.is_some_and(|(_, since)| now.since(since) < wait_ms);
        if is_under_way || desk.changes.len() == 0 {
            return;
        }
        let users = desk.changes.take(USERS_PER_TASK);
        let count = users.len();
        match context.task(&Work::Online(OnlineWork::Sync(users))) {
            Ok(task) => desk.syncing = Some((task, now)),
            Err(error) => {
                tracing::debug!(%error, "changes of the online list are left to the next sweep");
                board.count(OnlineCount::Dropped, count);
            }
        }
    }

    fn send_beat(&self, context: &mut Context<'_, Self>) {
        let (board, redis) = (self.tables().online, &self.config.redis);
        if board.claim_beat(context.now(), redis.lease_ms, redis.timeout_ms)
            && context.task(&Work::Online(OnlineWork::Beat)).is_err()
        {
            board.give_beat_back();
        }
    }

    fn send_sweep(&self, context: &mut Context<'_, Self>) {
        let (board, redis) = (self.tables().online, &self.config.redis);
        if board.is_connected()
            && board.claim_sweep(context.now(), redis.lease_ms, redis.timeout_ms)
            && context.task(&Work::Online(OnlineWork::Sweep)).is_err()
        {
            board.give_sweep_back();
        }
    }

    /// Whether the presence of users can be asked of Redis; then it is answered later, and `None` given.
    /// Otherwise what this node knows, and whether that may not be all.
    pub(crate) fn ask_presence<'u>(
        &self,
        context: &mut Context<'_, Self>,
        asker: Asker,
        users: Vec<UserId<'u>>,
    ) -> Option<FoundPresence<'u>> {
        if !self.has_redis() {
            return Some(self.presence_here(context, &asker, users, false));
        }
        let board = self.tables().online;
        let names: Vec<String> = users.iter().map(|user| user.as_str().to_owned()).collect();
        let mut desk = self.online.desk.borrow_mut();
        if board.is_connected() && desk.queries.len() < self.config.redis.max_queries {
            let until = context.now() + self.config.redis.timeout_ms;
            let find =
                OnlineWork::Find { asker: asker.clone(), users: names.clone(), until_ms: until.0 };
            if let Ok(task) = context.task(&Work::Online(find)) {
                board.count(OnlineCount::Asked, 1);
                desk.queries.asked(task, Query { asker, users: names, until });
                return None;
            }
        }
        board.count(OnlineCount::Partial, 1);
        Some(self.presence_here(context, &asker, users, true))
    }

    /// A task is over.
    pub(crate) fn online_worked(
        &mut self,
        context: &mut Context<'_, Self>,
        task: TaskId,
        outcome: OnlineOutcome,
    ) {
        let desk = self.online.desk.get_mut();
        match outcome {
            OnlineOutcome::Beaten => {}
            OnlineOutcome::Synced => {
                if desk.syncing.is_some_and(|(known, _)| known == task) {
                    desk.syncing = None;
                    // Where thousands come at once the next do not wait for the timer.
                    if desk.changes.len() >= USERS_PER_TASK {
                        self.send_changes(context);
                    }
                }
            }
            OnlineOutcome::Swept => {
                if self.has_redis() && !context.is_stopping() {
                    self.send_sweep(context);
                }
            }
            OnlineOutcome::Found { asker, users, elsewhere } => {
                // This worker does not remember it: it has answered, or its predecessor asked and did not.
                if desk.queries.take(task).is_none() && self.tables().online.was_early(task) {
                    return;
                }
                self.answer(context, &asker, &users, elsewhere);
            }
        }
    }

    /// A task gave no outcome. True if it was one of these.
    pub(crate) fn online_lost(&mut self, context: &mut Context<'_, Self>, task: TaskId) -> bool {
        let desk = self.online.desk.get_mut();
        if desk.syncing.is_some_and(|(known, _)| known == task) {
            desk.syncing = None;
            return true;
        }
        let Some(query) = desk.queries.take(task) else { return false };
        self.answer_early(context, task, &query);
        true
    }

    fn answer_early(&self, context: &mut Context<'_, Self>, task: TaskId, query: &Query) {
        self.tables().online.note_early(task);
        self.answer(context, &query.asker, &query.users, None);
    }

    /// Answers a question with what this node knows now and what was found elsewhere.
    fn answer(
        &self,
        context: &mut Context<'_, Self>,
        asker: &Asker,
        users: &[String],
        elsewhere: Option<Vec<Vec<Entry>>>,
    ) {
        let partial = elsewhere.is_none();
        if partial {
            self.tables().online.count(OnlineCount::Partial, 1);
        }
        let mut elsewhere = elsewhere.unwrap_or_default().into_iter();
        let answer = users.iter().filter_map(|name| {
            let others = elsewhere.next().unwrap_or_default();
            // It was one when it was asked for.
            let user = UserId::new(name.as_str()).ok()?;
            Some((user, self.presence_of(context.table(), name, context.unix_ms(), others)))
        });
        let answer = FoundPresence { answer: PresenceAnswer(answer.collect()), partial };
        match asker {
            Asker::Session { conn, id } => {
                self.note_answered(context.table(), ConnId::from_bits(*conn), &answer.answer);
                let raw = serde_json::from_str::<&RawValue>(id).ok();
                let Some(id) = raw.and_then(Id::from_raw) else { return };
                let text = reply::result(id, &answer);
                // Gone or too slow: the framework closes it, and nothing is left to tell it.
                let _ = context.push(ConnId::from_bits(*conn), Message::Text(&text));
            }
            Asker::Request(request) => {
                let body = serde_json::to_value(&answer).unwrap_or_default();
                context.respond(*request, api::private(Response::json(200, &body)));
            }
        }
    }

    /// What this node knows.
    fn presence_here<'u>(
        &self,
        context: &Context<'_, Self>,
        asker: &Asker,
        users: Vec<UserId<'u>>,
        partial: bool,
    ) -> FoundPresence<'u> {
        let (sessions, unix_ms) = (context.table(), context.unix_ms());
        let answer = users.into_iter().map(|user| {
            let presence = self.presence_of(sessions, user.as_str(), unix_ms, Vec::new());
            (user, presence)
        });
        let answer = PresenceAnswer(answer.collect());
        if let Asker::Session { conn, .. } = asker {
            self.note_answered(sessions, ConnId::from_bits(*conn), &answer);
        }
        FoundPresence { answer, partial }
    }

    /// The presence of a user from the sessions of this node and of others.
    fn presence_of(
        &self,
        sessions: &Sessions,
        user: &str,
        unix_ms: u64,
        others: Vec<Entry>,
    ) -> UserPresence {
        let elsewhere = others.into_iter().map(|entry| {
            let Entry { device, model, kind, last_active, .. } = entry;
            let account = Account { device, model, kind, ..Account::default() };
            (account, last_active)
        });
        self.state_of(sessions, user, unix_ms, elsewhere)
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
