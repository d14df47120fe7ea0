//! A task process's side of the online list: what is written to Redis and read from it.
//!
//! May block, as long as `redis.timeout` for each call. Knows the session table and no connection of a
//! client. Invariants: 1. A user is named in the set of this node before his entry is written, and taken out
//! of it after the entry is gone: whoever dies in between leaves somebody whom the next sweep finds. 2. The
//! entries of another node are removed only in one step with finding that it has no lease.

use super::keys::{self, Entry, Keys};
use super::link::{Away, Link};
use super::upkeep::{Step, garbage_ms};
use super::{OnlineOutcome, OnlineWork};
use crate::app::ImApp;
use crate::config::ImConfig;
use crate::message_id;
use crate::tables::{OnlineBoard, OnlineCount, Tables};
use dunlin_server::clock::Millis;
use dunlin_server::{Context, Role, Sessions, StopReason, clock};
use redis::{Connection, RedisResult, cmd, pipe};
use std::collections::{BTreeSet, HashMap};

/// Users written with one call.
const USERS_PER_CALL: usize = 256;
/// How often those are written again who changed while they were written.
const ROUNDS: usize = 4;
/// Rows looked at, and users found in them, by one piece of a sweep.
const ROWS_PER_PIECE: u64 = 65_536;
const USERS_PER_PIECE: usize = 512;
/// Sessions of one user that are told of, over all other nodes.
const FOUND_MAX: usize = 8 * keys::ENTRIES_MAX;
/// Dead nodes one question looks at, at most.
const DEAD_PER_QUESTION: usize = 64;

/// Removes the entry of a node from a user, if the node has no lease.
const BURY: &str = "if redis.call('EXISTS', KEYS[2]) == 0 then \
                    return redis.call('HDEL', KEYS[1], ARGV[1]) end return 0";

impl ImApp {
    /// In a task process: does it.
    pub(crate) fn online_work(
        &mut self,
        context: &Context<'_, Self>,
        work: OnlineWork,
    ) -> OnlineOutcome {
        let board = self.tables().online;
        let mut clerk = self.clerk(context.table());
        match work {
            OnlineWork::Beat => {
                let _ = clerk.beat();
                board.note_beat(clock::now());
                OnlineOutcome::Beaten
            }
            OnlineWork::Sync(users) => {
                let users_left = users.len();
                if clerk.sync(users).is_err() {
                    board.count(OnlineCount::Dropped, users_left);
                }
                OnlineOutcome::Synced
            }
            OnlineWork::Sweep => {
                let _ = clerk.sweep();
                board.note_sweep(clock::now());
                OnlineOutcome::Swept
            }
            OnlineWork::Find { asker, users, until_ms } => {
                // Whoever asked may have stopped waiting while the task lay in the queue.
                let in_time = clock::now() < Millis(until_ms);
                let elsewhere = if in_time { clerk.find(&users).ok() } else { None };
                OnlineOutcome::Found { asker, users, elsewhere }
            }
        }
    }

    /// A task process ends. If the server does, this node is taken off the list.
    pub(crate) fn online_stop(&mut self, context: &Context<'_, Self>, reason: StopReason) {
        let is_task = matches!(context.role(), Role::Task(_));
        if is_task && reason == StopReason::Shutdown && self.config.redis.url.is_some() {
            // Redis is away: the lease runs out by itself.
            let _ = self.clerk(context.table()).leave();
        }
    }

    fn clerk<'a>(&'a mut self, sessions: &'a Sessions) -> Clerk<'a> {
        let tables = self.tables.as_ref().expect("`start` ran in the master before any other hook");
        Clerk {
            config: &self.config,
            keys: Keys::new(&self.config.redis.prefix, tables.node),
            tables,
            sessions,
            board: tables.online,
            password: self.online.password.as_ref(),
            link: &mut self.online.link,
        }
    }
}

struct Clerk<'a> {
    config: &'a ImConfig,
    keys: Keys<'a>,
    tables: &'a Tables,
    sessions: &'a Sessions,
    board: OnlineBoard,
    password: Option<&'a crate::auth::config::Secret>,
    link: &'a mut Link,
}

impl Clerk<'_> {
    fn call<R>(&mut self, call: impl FnOnce(&mut Connection) -> RedisResult<R>) -> Result<R, Away> {
        self.link.call(&self.config.redis, self.password, self.board, call)
    }

    /// Renews the lease. That it was gone means that the list is not what it was.
    fn beat(&mut self) -> Result<(), Away> {
        let lease_ms = self.config.redis.lease_ms;
        let lease = self.keys.lease(&self.keys.node);
        let mut call = pipe();
        call.cmd("EXISTS").arg(&lease);
        call.cmd("SET").arg(&lease).arg(clock::unix_ms()).arg("PX").arg(lease_ms).ignore();
        call.cmd("PEXPIRE").arg(self.keys.users()).arg(garbage_ms(lease_ms)).ignore();
        let (there,): (u64,) = self.call(|connection| call.query(connection))?;
        if there == 0 {
            self.board.want_sweep();
        }
        Ok(())
    }

    /// Writes what is true of these users.
    fn sync(&mut self, mut users: Vec<String>) -> Result<(), Away> {
        for _ in 0..ROUNDS {
            let mut overtaken = Vec::new();
            for some in users.chunks(USERS_PER_CALL) {
                overtaken.extend(self.write(some)?);
            }
            if overtaken.is_empty() {
                return Ok(());
            }
            users = overtaken;
        }
        // Whoever overtook them has written them, or the next sweep will.
        Ok(())
    }

    /// Writes users once; gives those of whom something newer was read elsewhere in the meantime, and may
    /// have been written before this was.
    fn write(&mut self, users: &[String]) -> Result<Vec<String>, Away> {
        let (mut call, mut written) = (pipe(), 0);
        let set = self.keys.users();
        let node = &self.keys.node;
        let garbage_ms = garbage_ms(self.config.redis.lease_ms);
        let mut tickets = Vec::with_capacity(users.len());
        for user in users {
            let hash = self.tables.hash(user);
            tickets.push((hash, self.board.draw(hash)));
            let entries = entries(self.tables, self.sessions, user);
            let key = self.keys.user(user);
            if entries.is_empty() {
                call.cmd("HDEL").arg(&key).arg(node).ignore();
                call.cmd("SREM").arg(&set).arg(user).ignore();
            } else {
                written += 1;
                call.cmd("SADD").arg(&set).arg(user).ignore();
                call.cmd("HSET").arg(&key).arg(node).arg(keys::encode(&entries)).ignore();
                call.cmd("PEXPIRE").arg(&key).arg(garbage_ms).ignore();
            }
        }
        self.call(|connection| call.query::<()>(connection))?;
        self.board.count(OnlineCount::Written, written);
        self.board.count(OnlineCount::Cleared, users.len() - written);
        let overtaken = users.iter().zip(tickets);
        let overtaken =
            overtaken.filter(|(_, (hash, ticket))| !self.board.is_latest(*hash, *ticket));
        Ok(overtaken.map(|(user, _)| user.clone()).collect())
    }

    /// Goes on with the sweep from where it is: writes everybody who is here, then looks at everybody who
    /// is said to be here.
    fn sweep(&mut self) -> Result<(), Away> {
        let place = self.board.sweep_place();
        let next = match place.step {
            Step::Rest => return Ok(()),
            Step::Rows(row) => {
                let (users, next) = self.users_from(row);
                self.sync(users)?;
                next
            }
            Step::Members(cursor) => {
                let mut call = cmd("SSCAN");
                call.arg(self.keys.users()).arg(cursor).arg("COUNT").arg(USERS_PER_PIECE);
                let (cursor, members): (u64, Vec<String>) =
                    self.call(|connection| call.query(connection))?;
                let gone =
                    |user: &String| self.tables.live_sessions(self.sessions, user).is_empty();
                self.sync(members.into_iter().filter(gone).collect())?;
                if cursor == 0 { Step::Rest } else { Step::Members(cursor) }
            }
        };
        if self.board.move_sweep(place, place.at(next)) && next == Step::Rest {
            self.board.count(OnlineCount::Swept, 1);
        }
        Ok(())
    }

    /// The users of some rows from this one on, each at the row of his oldest login; and the step after.
    fn users_from(&self, row: u64) -> (Vec<String>, Step) {
        let capacity = u64::from(self.sessions.capacity());
        let end = capacity.min(row + ROWS_PER_PIECE);
        let mut users = Vec::new();
        for index in row..end {
            if users.len() == USERS_PER_PIECE {
                return (users, Step::Rows(index));
            }
            let conn = u32::try_from(index).ok().and_then(|at| self.sessions.established_at(at));
            let Some(conn) = conn else { continue };
            let Some(account) = self.tables.account(self.sessions, conn) else { continue };
            let live = self.tables.live_sessions(self.sessions, &account.user);
            if live.first().is_none_or(|oldest| oldest.conn == conn) {
                users.push(account.user);
            }
        }
        (users, if end == capacity { Step::Members(0) } else { Step::Rows(end) })
    }

    /// The sessions of users on other nodes.
    fn find(&mut self, users: &[String]) -> Result<Vec<Vec<Entry>>, Away> {
        let mut call = pipe();
        for user in users {
            call.cmd("HGETALL").arg(self.keys.user(user));
        }
        let found: Vec<HashMap<String, Vec<u8>>> =
            self.call(|connection| call.query(connection))?;
        let nodes: BTreeSet<&String> =
            found.iter().flat_map(HashMap::keys).filter(|node| **node != self.keys.node).collect();
        if nodes.is_empty() {
            return Ok(vec![Vec::new(); users.len()]);
        }
        let mut call = pipe();
        for node in &nodes {
            call.cmd("EXISTS").arg(self.keys.lease(node));
        }
        let there: Vec<u64> = self.call(|connection| call.query(connection))?;
        let alive: BTreeSet<&String> = nodes
            .iter()
            .zip(there)
            .filter(|(_, there)| *there != 0)
            .map(|(node, _)| *node)
            .collect();
        self.bury(users, &found, &alive);
        let of_user = |fields: &HashMap<String, Vec<u8>>| -> Vec<Entry> {
            let fields = fields.iter().filter(|(node, _)| alive.contains(node));
            fields.flat_map(|(_, text)| keys::decode(text)).take(FOUND_MAX).collect()
        };
        Ok(found.iter().map(of_user).collect())
    }

    /// Removes what nodes without a lease have left behind of these users. What is not removed now is
    /// another time, or goes by itself.
    fn bury(
        &mut self,
        users: &[String],
        found: &[HashMap<String, Vec<u8>>],
        alive: &BTreeSet<&String>,
    ) {
        let dead = users.iter().zip(found).flat_map(|(user, fields)| {
            let fields = fields.keys().filter(|node| **node != self.keys.node);
            fields.filter(|node| !alive.contains(node)).map(move |node| (user, node))
        });
        let mut call = pipe();
        for (user, node) in dead.take(DEAD_PER_QUESTION) {
            call.cmd("EVAL").arg(BURY).arg(2);
            call.arg(self.keys.user(user)).arg(self.keys.lease(node)).arg(node);
        }
        if call.is_empty() {
            return;
        }
        if let Ok(removed) = self.call(|connection| call.query::<Vec<usize>>(connection)) {
            self.board.count(OnlineCount::Buried, removed.iter().sum());
        }
    }

    /// Takes this node off the list: the lease first, so that nobody believes the rest; then, as long as a
    /// call may take, entry by entry. Several task processes may do so at once.
    fn leave(&mut self) -> Result<(), Away> {
        let until = clock::now() + self.config.redis.timeout_ms;
        let (lease, set) = (self.keys.lease(&self.keys.node), self.keys.users());
        self.call(|connection| cmd("DEL").arg(lease).query::<()>(connection))?;
        while clock::now() < until {
            let mut call = cmd("SPOP");
            call.arg(&set).arg(USERS_PER_PIECE);
            let users: Vec<String> = self.call(|connection| call.query(connection))?;
            if users.is_empty() {
                break;
            }
            let mut call = pipe();
            for user in &users {
                call.cmd("HDEL").arg(self.keys.user(user)).arg(&self.keys.node).ignore();
            }
            self.call(|connection| call.query::<()>(connection))?;
        }
        Ok(())
    }
}

/// What is true of a user on this node now.
fn entries(tables: &Tables, sessions: &Sessions, user: &str) -> Vec<Entry> {
    let live = tables.live_sessions(sessions, user).into_iter();
    let entries = live.filter_map(|session| {
        let info = sessions.info(session.conn)?;
        let account = session.account;
        Some(Entry {
            session: session.conn.to_string(),
            device: account.device,
            model: account.model,
            kind: account.kind,
            since: message_id::drawn_at_ms(account.login),
            last_active: info.last_active_ms,
        })
    });
    entries.take(keys::ENTRIES_MAX).collect()
}
