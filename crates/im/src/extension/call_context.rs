//! What an extension sees of who calls, and what it may do for them.
//!
//! Knows no protocol but the envelope of a notification. Invariant: nothing here gives away a handle
//! that could be kept beyond the call but those on shared memory.

use crate::app::ImApp;
use crate::auth::Claims;
use crate::ids::UserId;
use crate::protocol::params::Device;
use crate::protocol::{CallError, notification};
use crate::tables::Account;
use dunlin_server::{ConnId, Context, Message, PushError, Sessions};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

/// A session that is logged in, and what may be done for it.
pub struct CallContext<'a> {
    app: &'a ImApp,
    context: Context<'a, ImApp>,
    conn: ConnId,
    account: &'a Account,
}

impl<'a> CallContext<'a> {
    pub(crate) fn new(
        app: &'a ImApp,
        context: &'a mut Context<'_, ImApp>,
        conn: ConnId,
        account: &'a Account,
    ) -> Self {
        Self { app, context: context.reborrow(), conn, account }
    }

    /// Who it is.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.account.user
    }

    /// The id of the device it is on.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.account.device
    }

    /// What kind of device that is, empty if not told.
    #[must_use]
    pub fn device_kind(&self) -> &str {
        &self.account.kind
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> ConnId {
        self.conn
    }

    /// The client's address; `None` if the connection is gone.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.context.table().peer(self.conn)
    }

    /// The wall clock as integer Unix milliseconds.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        self.context.unix_ms()
    }

    /// The session table, the extension's columns among it. Read any row; write only your own columns,
    /// and of the calling session only.
    #[must_use]
    pub fn table(&self) -> &Sessions {
        self.context.table()
    }

    /// The calling session's word in a counter column of yours; `None` if there is no such column.
    #[must_use]
    pub fn counter(&self, column: &str) -> Option<&'static AtomicU64> {
        let table = self.context.table();
        table.counter(self.conn, table.counter_column(column)?)
    }

    /// An area of yours; `None` if there is none of this name.
    #[must_use]
    pub fn area(&self, name: &str) -> Option<&'static [AtomicU64]> {
        self.context.area(name)
    }

    /// The live sessions of a user, on whichever workers, oldest login first.
    #[must_use]
    pub fn sessions_of(&self, user: &str) -> Vec<ConnId> {
        let live = self.app.tables().live_sessions(self.context.table(), user);
        live.into_iter().map(|session| session.conn).collect()
    }

    /// Sends a notification to one session.
    ///
    /// # Errors
    /// See [`PushError`]; nothing was sent.
    pub fn notify(&mut self, conn: ConnId, method: &str, params: &Json) -> Result<(), PushError> {
        let text = notification::encode_named(method, params);
        self.context.push(conn, Message::Text(&text))
    }

    /// Sends a notification to all live sessions of a user; gives how many took it.
    pub fn notify_user(&mut self, user: &str, method: &str, params: &Json) -> usize {
        let text = notification::encode_named(method, params);
        let sessions = self.sessions_of(user);
        self.context.push_many(&sessions, Message::Text(&text))
    }

    /// Says `bye` to a session and closes it, behind what is queued for it. Of the codes, 4000 to 4499
    /// ask the client to come back, 4500 to 4999 not to. False if the session is not there.
    pub fn close(&mut self, conn: ConnId, code: u16, reason: &str) -> bool {
        ImApp::say_bye_with(&mut self.context, conn, code, reason)
    }
}

impl fmt::Debug for CallContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conn, account, .. } = self;
        f.debug_struct("CallContext")
            .field("session", conn)
            .field("user", &account.user)
            .finish_non_exhaustive()
    }
}

/// Somebody who wants to log in, and could for the IM.
#[derive(Debug)]
pub struct LoginAttempt<'a> {
    /// Who it is to be.
    pub user: &'a UserId<'a>,
    /// On what.
    pub device: &'a Device<'a>,
    /// What the token claims; `None` in the open mode.
    pub claims: Option<&'a Claims>,
    /// The parameters as they were sent; [`read_params`] reads them.
    pub params: Option<&'a RawValue>,
    /// The session.
    pub session: ConnId,
    /// The client's address; `None` if the connection is gone.
    pub peer: Option<SocketAddr>,
    /// The session table, to look at your own columns.
    pub table: &'a Sessions,
    /// The wall clock as integer Unix milliseconds.
    pub unix_ms: u64,
}

/// The parameters of a method as a type of yours; none at all are read as an object without members.
///
/// # Errors
/// -32602, with what serde says of it.
pub fn read_params<T: DeserializeOwned>(params: Option<&RawValue>) -> Result<T, CallError> {
    let text = params.map_or("{}", RawValue::get);
    serde_json::from_str(text)
        .map_err(|error| CallError::param("", format_args!("are wrong: {error}")))
}
