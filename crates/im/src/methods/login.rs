//! `login` and `logout`: a session becomes a user's and ceases to be.

use super::{Caller, Outcome, late, token};
use crate::app::ImApp;
use crate::auth::Mode;
use crate::backend::{Asking, End};
use crate::close::CloseReason;
use crate::extension::LoginAttempt;
use crate::ids::UserId;
use crate::protocol::params::Device;
use crate::protocol::reply::{Done, LoggedIn};
use crate::protocol::{Call, CallError, Code, params};
use crate::session;
use crate::tables::{AuthCount, EnterError};
use dunlin_server::{ConnId, Context};
use serde_json::value::RawValue;

/// When to try again where the user index is full or a row could not be written, in milliseconds.
const RETRY_LOGIN_MS: u64 = 1_000;
/// The same where an earlier login of the session is not answered yet.
const RETRY_UNDER_WAY_MS: u64 = 500;

pub(super) fn login<'a>(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    call: &Call<'a>,
    close: &mut Option<CloseReason>,
) -> Result<Outcome<'a>, CallError> {
    if app.is_asking(context, conn) {
        let error = CallError::new(Code::Busy, "a login of this session is under way");
        return Err(error.because("login_under_way").retry_after(RETRY_UNDER_WAY_MS));
    }
    app.admit_login(context, conn).map_err(|refused| refused.answer(close))?;
    let params = call.params;
    let (user, device, claims) = match app.config.auth.mode {
        Mode::Open => {
            let params::Login { user, device } = params::Login::read(params)?;
            (user, device, None)
        }
        Mode::Token => {
            let login = params::TokenLogin::read(params)?;
            let device = login.device;
            let claims = token::check(app, context, conn, &login.token, device.id.as_str());
            let claims = claims.map_err(|refused| refused.answer(close))?;
            app.tables().forget_refused(context.table(), conn);
            (claims.user.clone(), device, Some(claims))
        }
    };
    app.extension.may_login(&LoginAttempt {
        user: &user,
        device: &device,
        claims: claims.as_ref(),
        params,
        session: conn,
        peer: context.table().peer(conn),
        table: context.table(),
        unix_ms: context.unix_ms(),
    })?;
    let expires = claims.as_ref().map(|claims| claims.expires_ms);
    if app.config.backend.authorise.login {
        let asked = late::ask_login(app, context, conn, call, &user, &device, claims.as_ref())?;
        if let Asking::Later(timer) = asked {
            app.start_asking(context, conn, timer);
            return Ok(Outcome::Later);
        }
    }
    let mut outcome = enter(app, context, conn, user, device, expires)?;
    if close_surplus(app, context, conn) {
        *close = Some(CloseReason::Replaced);
    } else if let (Some(claims), Outcome::LoggedIn(done)) = (&claims, &mut outcome) {
        let named = claims.rooms.as_deref();
        done.rooms = app.keep_to_rooms(context, conn, claims.user.as_str(), named);
    }
    Ok(outcome)
}

pub(super) fn enter<'a>(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    user: UserId<'a>,
    device: Device<'a>,
    expires: Option<u64>,
) -> Result<Outcome<'a>, CallError> {
    let time = context.unix_ms();
    let entered = app.tables().enter(context.table(), conn, user.as_str(), &device, time);
    entered.map_err(refuse)?;
    app.tables().count(AuthCount::LoggedIn);
    let heartbeat_ms = app.config.heartbeat_ms;
    // The limit first: the heartbeat keeps to it.
    let end = expires.map(|expires| token::session_end(app, context, expires));
    context.set_deadline_limit(conn, end);
    context.set_heartbeat(conn, Some(heartbeat_ms));
    let session = conn.to_string();
    let device = device.id;
    Ok(Outcome::LoggedIn(LoggedIn {
        user,
        device,
        session,
        heartbeat_ms,
        expires,
        rooms: None,
        time,
    }))
}

impl Caller<'_, '_> {
    pub(super) fn logout<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        params::read_none(params)?;
        self.app.depart(self.context, self.conn, End::LoggedOut);
        self.app.await_login(self.context, self.conn);
        Ok(Outcome::Done(Done {}))
    }
}

/// Closes the sessions of a user that the one which has just logged in leaves no place for. True if a
/// newer login, at the same time on another worker, leaves none for this one.
pub(super) fn close_surplus(app: &ImApp, context: &mut Context<'_, ImApp>, own: ConnId) -> bool {
    let Some(account) = app.tables().account(context.table(), own) else { return false };
    let live = app.tables().live_sessions(context.table(), &account.user);
    let surplus = session::surplus(&live, app.config.devices, app.config.max_devices);
    for conn in surplus.iter().filter(|conn| **conn != own) {
        ImApp::say_bye(context, *conn, CloseReason::Replaced);
    }
    surplus.contains(&own)
}

pub(super) fn refuse(error: EnterError) -> CallError {
    match error {
        EnterError::IndexFull => {
            CallError::new(Code::TableFull, "the server has no room for this user's session")
        }
        EnterError::Write(error) => {
            tracing::warn!(%error, "a login was not written to the session table");
            CallError::new(Code::Busy, "the login could not be stored")
        }
    }
    .retry_after(RETRY_LOGIN_MS)
}
