//! Requests that are not yet answered, and what each was for.

use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// What a request was for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Login,
    Refresh,
    Ping,
    Send,
    Join {
        room: String,
    },
    Leave,
    Members {
        room: String,
        /// Somebody wants to read it.
        told: bool,
    },
    Presence {
        users: Vec<String>,
    },
    Watch {
        users: Vec<String>,
    },
}

impl Asked {
    /// The `params`, where the question says all of them.
    pub(crate) fn params(&self) -> Json {
        match self {
            Self::Members { room, .. } | Self::Join { room } => json!({"room": room}),
            Self::Presence { users } | Self::Watch { users } => json!({"users": users}),
            Self::Login | Self::Refresh | Self::Ping | Self::Send | Self::Leave => json!({}),
        }
    }
}

/// The requests of one connection by their ids, which are never used again.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    asked: BTreeMap<u64, Asked>,
    last_id: u64,
}

impl Calls {
    pub(crate) fn add(&mut self, asked: Asked) -> u64 {
        self.last_id += 1;
        self.asked.insert(self.last_id, asked);
        self.last_id
    }

    pub(crate) fn take(&mut self, id: u64) -> Option<Asked> {
        self.asked.remove(&id)
    }

    pub(crate) fn any_join(&self) -> bool {
        self.asked.values().any(|asked| matches!(asked, Asked::Join { .. }))
    }

    /// The connection has ended: nothing of it is answered any more.
    pub(crate) fn clear(&mut self) {
        self.asked.clear();
    }
}
