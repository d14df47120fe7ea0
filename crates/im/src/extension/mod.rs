//! The IM as a library: what a program of yours adds to it.
//!
//! An [`Extension`] brings methods, rules of who may do what, and columns of the session table; it sees
//! the IM through [`CallContext`] and [`LoginAttempt`], and nothing else of it. Invariants: 1. Its names
//! never take the place of the IM's own ([`ExtensionError`]). 2. It is called behind the IM's own
//! checks, and hears of a login or its end last, so that a panic of its leaves the IM's state as it
//! should be. 3. It is asked in the worker, from which many are served: it must not block.

mod call_context;
mod names;

pub use call_context::{CallContext, LoginAttempt, read_params};
pub use names::ExtensionError;

pub(crate) use names::check;

use crate::ids::RoomId;
use crate::protocol::CallError;
use crate::protocol::params::Target;
use dunlin_server::settings::Settings;
use dunlin_server::{AreaRequest, MasterContext};
use dunlin_table::Column;
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// What a program adds to the IM: every part is optional.
///
/// One value is made before the first fork, and every process has its own copy of it, as of the
/// application (see `docs/application.md`): what must be shared, or outlive a worker, lies in columns
/// and areas. A panic in [`Extension::call`], in a `may_…` or in [`Extension::arrived`] closes the one
/// connection with 1011.
pub trait Extension: Send + 'static {
    /// Columns to add to the session table, zero or empty in each new session. Their names must not
    /// begin with `im_`.
    fn columns(&self) -> Vec<Column> {
        Vec::new()
    }

    /// Areas of shared memory, zero at first. Their names must not begin with `im.`.
    fn areas(&self) -> Vec<AreaRequest> {
        Vec::new()
    }

    /// As [`dunlin_server::App::layout_version`], for the extension's own columns and areas; below 2^16.
    fn layout_version(&self) -> u16 {
        0
    }

    /// Names of the methods that clients may call once they are logged in. One with a dot
    /// (`game.move`) can never be the name of a method of a later version of the IM.
    fn methods(&self) -> &[&str] {
        &[]
    }

    /// Master, once: the shared memory is made, and nothing is forked yet.
    fn start(&mut self, _master: &MasterContext<'_>) {}

    /// Master: a reload, and the IM's own keys are valid. Take over what you need, all or nothing; an
    /// error refuses the reload.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn reload(&mut self, _settings: &Settings) -> Result<(), String> {
        Ok(())
    }

    /// What stands in the status as `extension`; from shared memory only, must not block.
    fn status(&self, _master: &MasterContext<'_>) -> Json {
        Json::Null
    }

    /// Whether a login may be. Called when it is good for the IM, its token among it. Members of
    /// `params` that the IM does not know are yours: a password, a ticket.
    ///
    /// # Errors
    /// What the client is answered.
    fn may_login(&self, _login: &LoginAttempt<'_>) -> Result<(), CallError> {
        Ok(())
    }

    /// Whether a session may join a room that it may join for the IM.
    ///
    /// # Errors
    /// What the client is answered.
    fn may_join(&self, _caller: &CallContext<'_>, _room: &RoomId<'_>) -> Result<(), CallError> {
        Ok(())
    }

    /// Whether a session may send this, as a message or as a signal.
    ///
    /// # Errors
    /// What the client is answered.
    fn may_send(
        &self,
        _caller: &CallContext<'_>,
        _to: &Target<'_>,
        _body: &RawValue,
    ) -> Result<(), CallError> {
        Ok(())
    }

    /// One of [`Extension::methods`] is called by a session that is logged in.
    ///
    /// # Errors
    /// What the client is answered.
    fn call(
        &self,
        _caller: &mut CallContext<'_>,
        _method: &str,
        _params: Option<&RawValue>,
    ) -> Result<Json, CallError> {
        Err(CallError::new(crate::protocol::Code::InternalError, "this method is not served"))
    }

    /// A session has logged in, and is answered.
    fn arrived(&self, _caller: &mut CallContext<'_>) {}

    /// A login is over, by `logout` or with its connection; the caller's session is no longer live, and
    /// its row is there for the last time. Exactly once for each login, but not necessarily in a worker
    /// that heard `arrived`, which may have died before it could.
    fn departed(&self, _caller: &mut CallContext<'_>) {}
}

/// The extension of an IM that nobody has extended.
#[derive(Debug)]
pub(crate) struct Plain;

impl Extension for Plain {}
