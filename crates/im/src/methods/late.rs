//! Requests that are answered when the backend has said whether they may be: `login` and `join`.

use super::{Caller, Outcome, login, rooms};
use crate::app::ImApp;
use crate::auth::{Claims, Mode};
use crate::backend::{
    self, Asked, AskedId, Asking, DeviceOf, Login, What, Who, question_of_join, question_of_login,
};
use crate::close::CloseReason;
use crate::ids::{DeviceId, RoomId, UserId};
use crate::protocol::params::Device;
use crate::protocol::reply::RoomCount;
use crate::protocol::{Call, CallError, Code, Id};
use dunlin_server::{ConnId, Context};
use serde_json::Value as Json;

/// What comes of a request in the end.
#[derive(Debug)]
pub(crate) struct Late {
    /// Its result, or its error.
    pub(crate) result: Result<Json, CallError>,
    /// Why the connection is closed after it, if it is.
    pub(crate) close: Option<CloseReason>,
    /// Whether the session has just logged in.
    pub(crate) arrived: bool,
    /// Rooms that it then joins.
    pub(crate) rooms: Vec<String>,
}

impl From<Result<Json, CallError>> for Late {
    fn from(result: Result<Json, CallError>) -> Self {
        Self { result, close: None, arrived: false, rooms: Vec::new() }
    }
}

/// Asks whether a login may be; who it is is noted in the row.
pub(super) fn ask_login(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    call: &Call<'_>,
    user: &UserId<'_>,
    device: &Device<'_>,
    claims: Option<&Claims>,
) -> Result<Asking, CallError> {
    let named = claims.and_then(|claims| claims.rooms.as_deref());
    // In the row before anything is asked: whoever answers may know the names no more.
    app.allow_rooms(context, conn, named);
    let noted = app.tables().note_names(context.table(), conn, user.as_str(), device);
    noted.map_err(login::refuse)?;
    let device = DeviceOf { id: device.id.as_str(), model: &device.model, kind: &device.kind };
    let who = Who { user: user.as_str(), device, session: conn.to_string() };
    let ip = context.table().peer(conn).map(|peer| peer.ip().to_string());
    // A token is nothing to show around.
    let params = call.params.filter(|_| app.config.auth.mode == Mode::Open);
    let body = question_of_login(app.tables().node, context.unix_ms(), &Login { who, ip }, params);
    let expires_ms = claims.map(|claims| claims.expires_ms);
    let asked = Asked { conn, id: asked_id(call.id), what: What::Login { expires_ms } };
    let token_rooms =
        named.map(|named| named.iter().map(|room| room.as_str().to_owned()).collect());
    app.ask(context, asked, body, token_rooms)
        .inspect_err(|_| app.tables().forget_names(context.table(), conn))
}

/// A login that may be.
#[derive(Debug)]
pub(crate) struct LateLogin<'a> {
    /// Who it is instead of who was noted.
    pub(crate) user: Option<String>,
    /// When its token expires, Unix milliseconds.
    pub(crate) expires_ms: Option<u64>,
    /// The rooms that its token names, if it does and they are known.
    pub(crate) token_rooms: Option<&'a [String]>,
    /// Those that the backend names.
    pub(crate) rooms: Vec<String>,
}

/// Logs in who was noted, or whom the backend has named.
pub(crate) fn finish_login(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    late: LateLogin<'_>,
) -> Late {
    let LateLogin { user, expires_ms, token_rooms, rooms } = late;
    let noted = app.tables().noted_names(context.table(), conn).and_then(|noted| {
        let user = UserId::new(user.unwrap_or(noted.user)).ok()?;
        let id = DeviceId::new(noted.device).ok()?;
        Some((user, Device { id, model: noted.model.into(), kind: noted.kind.into() }))
    });
    let Some((user, device)) = noted else {
        // Only a foreign write to shared memory can leave such a row.
        let error = CallError::new(Code::InternalError, "the session's row holds no valid ids");
        return Err(error).into();
    };
    let name = user.as_str().to_owned();
    let mut outcome = login::enter(app, context, conn, user, device, expires_ms);
    let arrived = outcome.is_ok();
    let is_surplus = arrived && login::close_surplus(app, context, conn);
    if let (Ok(Outcome::LoggedIn(done)), Some(named), false) =
        (&mut outcome, token_rooms, is_surplus)
    {
        let named: Vec<RoomId<'static>> =
            named.iter().filter_map(|room| RoomId::new(room.clone()).ok()).collect();
        done.rooms = app.keep_to_rooms(context, conn, &name, Some(&named));
    }
    let result = outcome.map(|done| json(&done));
    Late { result, arrived, close: is_surplus.then_some(CloseReason::Replaced), rooms }
}

/// Joins the rooms that a backend has named with its yes to a login.
pub(crate) fn join_granted(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    rooms: &[String],
) {
    let Some(account) = app.tables().account(context.table(), conn) else { return };
    for room in rooms {
        let most = app.config.rooms.rooms;
        if !app.tables().rooms.is_allowed(context.table(), conn, room) {
            continue; // The token says so.
        }
        if let Err(error) = app.join_room(context, conn, &account.user, room, most) {
            dunlin_server::limited!(warn, ?error, "a room that the backend named was not joined");
        }
    }
}

/// Joins a room for who asked, if he is still there.
pub(crate) fn finish_join(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    room: &str,
    login: u64,
) -> Late {
    let account = app.tables().account(context.table(), conn);
    let Some(account) = account.filter(|account| account.login == login) else {
        return Err(CallError::new(Code::LoginRequired, "the login has ended meanwhile")).into();
    };
    let most = app.config.rooms.rooms;
    let joined = app.join_room(context, conn, &account.user, room, most).map_err(rooms::refuse);
    let answered = joined.and_then(|count| {
        let room = RoomId::new(room.to_owned());
        let room =
            room.map_err(|_| CallError::new(Code::InternalError, "no room has this name"))?;
        Ok(json(&Outcome::Room(RoomCount { room, count })))
    });
    answered.into()
}

impl Caller<'_, '_> {
    /// Asks whether this session may join a room.
    pub(super) fn ask_join(&mut self, room: &RoomId<'_>) -> Result<Asking, CallError> {
        let who = backend::who(self.conn, &self.account);
        let (node, time) = (self.app.tables().node, self.context.unix_ms());
        let body = question_of_join(node, time, &who, room.as_str());
        let what = What::Join { room: room.as_str().to_owned(), login: self.account.login };
        let asked = Asked { conn: self.conn, id: asked_id(self.id), what };
        self.app.ask(self.context, asked, body, None)
    }
}

fn asked_id(id: Option<Id<'_>>) -> AskedId {
    id.map_or(AskedId::None, |id| AskedId::Json(id.as_json().to_owned()))
}

fn json(outcome: &Outcome<'_>) -> Json {
    serde_json::to_value(outcome).expect("our own types have string keys and do not fail")
}
