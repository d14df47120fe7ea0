//! The online list of all users over several nodes, kept in Redis.
//!
//! Workers note whose sessions have changed and hand that on by the dozen; task processes write what is true
//! when they write, and read what other nodes have written. A worker never waits for Redis.
//!
//! - `config`, `keys`, `changes`, `queries`, `upkeep`: decisions, pure.
//! - `desk`: a worker's side. `clerk`: a task process's side, over a `link` to Redis.
//!
//! Invariants: 1. What stands in Redis about this node was true in the session table when it was written, or
//! is written again: who writes a user reads his sessions after he has drawn a ticket for him, and writes
//! again if somebody drew a later one meanwhile. 2. Whatever was lost on the way, a change, a task, a
//! process, Redis itself, is mended by the next sweep, one lease later at the most. 3. Entries of a node
//! without a lease are believed by nobody.

pub(crate) mod changes;
pub(crate) mod clerk;
pub mod config;
pub(crate) mod desk;
pub(crate) mod keys;
pub(crate) mod link;
pub(crate) mod queries;
pub(crate) mod upkeep;

use crate::app::ImApp;
use crate::auth::KeyError;
use crate::auth::config::Secret;
use crate::auth::keyring::KeyProblem;
use crate::config::ImConfig;
use crate::online::desk::Desk;
use crate::online::keys::Entry;
use crate::online::link::Link;
use crate::tables::OnlineCount;
use dunlin_server::{ConnId, RequestId, clock};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::cell::RefCell;

/// What one process keeps of it: all of it may be lost.
#[derive(Debug, Default)]
pub(crate) struct Online {
    /// As the config says, read at the start and at each reload.
    pub(crate) password: Option<Secret>,
    /// In a worker.
    pub(crate) desk: RefCell<Desk>,
    /// In a task process.
    pub(crate) link: Link,
}

/// What a task process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum OnlineWork {
    /// Renew this node's lease; where Redis was away this is how its return is noticed.
    Beat,
    /// Write what is true now of these users.
    Sync(Vec<String>),
    /// Go on with the sweep over everything of this node.
    Sweep,
    /// Find these users on other nodes.
    Find {
        /// Who is told.
        asker: Asker,
        /// Who is looked for, as many as one request may name.
        users: Vec<String>,
        /// When whoever asked has stopped waiting: the server's clock, in milliseconds.
        until_ms: u64,
    },
}

/// What a worker is told of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum OnlineOutcome {
    /// The lease is renewed, or Redis is away.
    Beaten,
    /// The users of a [`OnlineWork::Sync`] are written, or left to the next sweep.
    Synced,
    /// A piece of the sweep is done.
    Swept,
    /// Who was looked for.
    Found {
        /// Who is told.
        asker: Asker,
        /// Who was looked for.
        users: Vec<String>,
        /// Their sessions on other nodes, in the same order; `None` if Redis did not say.
        elsewhere: Option<Vec<Vec<Entry>>>,
    },
}

/// Who asked for the presence of users: enough to answer it without a memory of the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asker {
    /// A session, by a request.
    Session {
        /// The session's connection, [`ConnId::to_bits`].
        conn: u64,
        /// The request's id as it was sent, JSON.
        id: String,
    },
    /// Somebody by HTTP.
    Request(RequestId),
}

impl Asker {
    /// A session that sent a request with this id.
    pub(crate) fn session(conn: ConnId, id: &str) -> Self {
        Self::Session { conn: conn.to_bits(), id: id.to_owned() }
    }
}

/// The password of Redis, if it has one.
pub(crate) fn load_password(config: &ImConfig) -> Result<Option<Secret>, KeyError> {
    let Some(source) = &config.redis.password else { return Ok(None) };
    let error = |problem| {
        let origin = config.redis.password_origin.clone();
        KeyError { origin, kid: None, problem }
    };
    let password = source.read_secret().map_err(error)?;
    if password.is_empty() {
        return Err(error(KeyProblem::Empty));
    }
    Ok(Some(Secret(password)))
}

impl ImApp {
    /// What the status says of Redis; from words alone, as the master needs it.
    pub(crate) fn online_status(&self) -> Json {
        let board = self.tables().online;
        let configured = self.config.redis.url.is_some();
        let (last_error, last_error_at) = board.last_error().unzip();
        let counted = |what| board.counted(what);
        json!({
            "configured": configured,
            "connected": configured && board.is_fresh(clock::now(), self.config.redis.lease_ms),
            "last_error": last_error,
            "last_error_at": last_error_at.map(clock::rfc3339),
            "connections_made": counted(OnlineCount::Connected),
            "failed": counted(OnlineCount::Failed),
            "written": counted(OnlineCount::Written),
            "cleared": counted(OnlineCount::Cleared),
            "dropped": counted(OnlineCount::Dropped),
            "sweeps": counted(OnlineCount::Swept),
            "buried": counted(OnlineCount::Buried),
            "asked": counted(OnlineCount::Asked),
            "partial": counted(OnlineCount::Partial),
        })
    }
}
