//! The methods: what a call of a session does.
//!
//! One file for each family. A method reads its parameters, asks the pure modules, acts through the
//! context and gives a result; it never encodes one. Invariant: a request gets exactly one answer, a
//! notification none.

mod devices;
mod late;
mod login;
mod messages;
mod once;
mod own;
mod presence;
mod rooms;
mod token;
mod watch;

pub(crate) use late::{Late, LateLogin, finish_join, finish_login, join_granted};

use crate::app::ImApp;
use crate::close::CloseReason;
use crate::extension::CallContext;
use crate::limits::Refused;
use crate::protocol::reply::{
    self, Done, FoundPresence, Kicked, LoggedIn, OwnSessions, Pong, Refreshed, RoomCount,
    RoomMembers, Sent,
};
use crate::protocol::request::Id;
use crate::protocol::{Call, CallError, Code, Method, decode, params};
use crate::session;
use crate::tables::Account;
use dunlin_server::{ConnId, Context};
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// What is to be said to who sent a text.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The text of the answer; a notification gets none.
    pub(crate) text: Option<String>,
    /// Why the connection is closed after it, if it is.
    pub(crate) close: Option<CloseReason>,
    /// Whether the session has just logged in.
    pub(crate) arrived: bool,
}

/// Does what a text asks for.
pub(crate) fn answer(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    text: &str,
) -> Answer {
    let call = match decode(text) {
        Ok(call) => call,
        Err(refused) => {
            let text = reply::error(refused.id, &refused.error);
            return Answer { text: Some(text), ..Answer::default() };
        }
    };
    let mut close = None;
    let outcome = run(app, context, conn, &call, &mut close);
    let arrived = matches!(outcome, Ok(Outcome::LoggedIn(_)));
    let text = call.id.and_then(|id| match outcome {
        Ok(Outcome::Later) => None,
        Ok(outcome) => Some(reply::result(id, &outcome)),
        Err(error) => Some(reply::error(Some(id), &error)),
    });
    Answer { text, close, arrived }
}

/// What is said to a text that a limit keeps from being done: who expects an answer gets one.
pub(crate) fn refuse(text: &str, refused: Refused) -> Answer {
    let mut close = None;
    let error = refused.answer(&mut close);
    let text = match decode(text) {
        Ok(call) => call.id.map(|id| reply::error(Some(id), &error)),
        Err(broken) => Some(reply::error(broken.id, &error)),
    };
    Answer { text, close, ..Answer::default() }
}

/// The result of a method.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Done(Done),
    LoggedIn(LoggedIn<'a>),
    Refreshed(Refreshed),
    Pong(Pong),
    Sent(Sent),
    Room(RoomCount<'a>),
    Members(RoomMembers<'a>),
    Presence(FoundPresence<'a>),
    Sessions(OwnSessions),
    Kicked(Kicked),
    Own(Json),
    /// The answer comes from elsewhere.
    #[serde(skip)]
    Later,
}

/// A call of a session that is logged in.
struct Caller<'c, 'e> {
    app: &'c ImApp,
    context: &'c mut Context<'e, ImApp>,
    conn: ConnId,
    /// The request's; `None` for a notification.
    id: Option<Id<'c>>,
    account: Account,
    /// Set where the connection is to be closed once it is answered.
    close: &'c mut Option<CloseReason>,
}

fn run<'a>(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    call: &Call<'a>,
    close: &mut Option<CloseReason>,
) -> Result<Outcome<'a>, CallError> {
    let Ok(method) = call.method else { return own::call(app, context, conn, call) };
    let account = app.tables().account(context.table(), conn);
    session::permit(method, account.is_some())?;
    let account = match (method, account) {
        (Method::Ping, _) => {
            params::read_none(call.params)?;
            return Ok(Outcome::Pong(Pong { time: context.unix_ms() }));
        }
        (Method::Login, _) => return login::login(app, context, conn, call, close),
        (_, Some(account)) => account,
        // `permit` lets only the two above through without an account.
        (_, None) => return Err(CallError::new(Code::LoginRequired, "log in first")),
    };
    Caller { app, context, conn, id: call.id, account, close }.run(method, call.params)
}

impl Caller<'_, '_> {
    /// As an extension sees it.
    fn seen(&mut self) -> CallContext<'_> {
        CallContext::new(self.app, self.context, self.conn, &self.account)
    }

    fn run<'a>(
        &mut self,
        method: Method,
        params: Option<&'a RawValue>,
    ) -> Result<Outcome<'a>, CallError> {
        match method {
            Method::Refresh => self.refresh(params),
            Method::Logout => self.logout(params),
            Method::Send => self.send(params),
            Method::Signal => self.signal(params),
            Method::Join => self.join(params),
            Method::Leave => self.leave(params),
            Method::Members => self.members(params),
            Method::Presence => Ok(self.presence(params)?.unwrap_or(Outcome::Later)),
            Method::Watch => self.watch(params),
            Method::Unwatch => self.unwatch(params),
            Method::Sessions => self.sessions(params),
            Method::Kick => self.kick(params),
            // Served in `run`, with or without a login.
            Method::Ping | Method::Login => {
                Err(CallError::new(Code::InternalError, "a method was not served"))
            }
        }
    }
}
