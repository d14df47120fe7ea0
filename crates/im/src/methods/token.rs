//! Tokens that sessions bring: `refresh`, and what `login` and `refresh` have in common.

use super::{Caller, Outcome};
use crate::app::ImApp;
use crate::auth::{Claims, Mode, TokenError, verify};
use crate::close::CloseReason;
use crate::protocol::params::Token;
use crate::protocol::reply::Refreshed;
use crate::protocol::{CallError, Code, params};
use dunlin_server::clock::Millis;
use dunlin_server::{ConnId, Context, limited};
use serde_json::value::RawValue;

/// A token was refused, and counted.
#[derive(Debug)]
pub(super) struct Refused {
    error: CallError,
    /// Whether it was one too many on its connection.
    too_many: bool,
}

impl Refused {
    /// The error to answer with; the connection is closed after it if this was one too many.
    pub(super) fn answer(self, close: &mut Option<CloseReason>) -> CallError {
        if self.too_many {
            *close = Some(CloseReason::TokensRefused);
        }
        self.error
    }
}

/// Checks a token that a session brings for a device.
pub(super) fn check(
    app: &ImApp,
    context: &Context<'_, ImApp>,
    conn: ConnId,
    token: &Token<'_>,
    device: &str,
) -> Result<Claims, Refused> {
    let claims = verify(&app.keyring, &app.config.auth, &token.0, context.unix_ms());
    let claims = claims.map_err(|why| refuse(app, context, conn, &why, error_of(&why)))?;
    if claims.device.as_ref().is_some_and(|bound| bound.as_str() != device) {
        let error = CallError::new(Code::Forbidden, "the token is for another device");
        let error = error.because("wrong_device");
        return Err(refuse(app, context, conn, &"it is for another device", error));
    }
    Ok(claims)
}

/// Until when a session may go on whose token ends then, Unix milliseconds.
pub(super) fn session_end(app: &ImApp, context: &Context<'_, ImApp>, expires_ms: u64) -> Millis {
    let auth = &app.config.auth;
    let end_ms = expires_ms.saturating_add(auth.leeway_ms).saturating_add(auth.expiry_grace_ms);
    context.now() + end_ms.saturating_sub(context.unix_ms())
}

impl Caller<'_, '_> {
    pub(super) fn refresh<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        if self.app.config.auth.mode == Mode::Open {
            let message = "there are no tokens in the open mode";
            return Err(CallError::new(Code::Forbidden, message).because("open_mode"));
        }
        let refresh = params::Refresh::read(params)?;
        let (app, conn) = (self.app, self.conn);
        app.admit_token(self.context, conn).map_err(|refused| refused.answer(self.close))?;
        let claims = check(app, self.context, conn, &refresh.token, &self.account.device)
            .map_err(|refused| refused.answer(self.close))?;
        if claims.user.as_str() != self.account.user {
            let error = CallError::new(Code::Forbidden, "the token is for another user");
            let error = error.because("wrong_user");
            let refused = refuse(app, self.context, conn, &"it is for another user", error);
            return Err(refused.answer(self.close));
        }
        app.tables().forget_refused(self.context.table(), conn);
        let end = session_end(app, self.context, claims.expires_ms);
        self.context.set_deadline_limit(conn, Some(end));
        // The deadline may stand at the old limit: this frame is life as any other.
        self.context.set_heartbeat(conn, Some(app.config.heartbeat_ms));
        let (user, named) = (&self.account.user, claims.rooms.as_deref());
        let rooms = app.keep_to_rooms(self.context, conn, user, named);
        Ok(Outcome::Refreshed(Refreshed { expires: claims.expires_ms, rooms }))
    }
}

/// What a client is told: who cannot sign learns nothing.
fn error_of(why: &TokenError) -> CallError {
    match why {
        TokenError::Expired => {
            CallError::new(Code::AuthFailed, "the token has expired").because("token_expired")
        }
        _ => CallError::new(Code::AuthFailed, "the token is not accepted"),
    }
}

/// Counts a refused token and says why in the log.
fn refuse(
    app: &ImApp,
    context: &Context<'_, ImApp>,
    conn: ConnId,
    why: &dyn std::fmt::Display,
    error: CallError,
) -> Refused {
    app.note_failed_login(context, conn);
    let refused = app.tables().note_refused(context.table(), conn);
    let ip = context.table().peer(conn).map(|peer| peer.ip());
    limited!(info, session = %conn, ?ip, %why, "a token was refused");
    Refused { error, too_many: refused >= app.config.auth.max_failures }
}
