//! The server's own API over HTTP: for the backend of whoever runs the server.
//!
//! One file a resource; before them the [`gate`], which says who may use what. A resource reads its
//! parameters strictly, asks the tables, acts through the context and gives an answer.
//! Invariants: 1. Nothing is read of a request's parameters, and nothing is done, before the key was
//! right. 2. Every answer here is JSON. 3. A worker keeps nothing of a request: paging is by what the
//! caller brings back.

mod access;
mod body;
mod error;
mod gate;
mod key;
mod kick;
mod metrics;
mod presence;
mod push;
mod query;
mod rooms;
mod sessions;
mod status;

pub(crate) use access::Access;
pub(crate) use gate::is_ours;
pub use key::ApiKeyError;

use self::error::ApiError;
use self::gate::Resource;
use crate::app::ImApp;
use crate::protocol::reply;
use crate::tables::ApiCount;
use dunlin_server::{Context, Request, RequestId, Response, limited};
use serde::Serialize;

/// The answer to a request on one of our paths; `None`: it comes later.
pub(crate) fn answer(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    id: RequestId,
    request: &Request,
) -> Option<Response> {
    let answered = gate::admit(request, &app.access)
        .and_then(|resource| Call { app, context, id, request }.run(resource));
    let counts = &app.tables().api;
    let response = match answered {
        Ok(response) => {
            counts.count(ApiCount::Ok);
            response?
        }
        Err(error) => {
            counts.count(match error.status {
                401 => ApiCount::Unauthorized,
                403 => ApiCount::Forbidden,
                400..=499 => ApiCount::Rejected,
                _ => ApiCount::Unavailable,
            });
            if matches!(error.status, 401 | 403) {
                let client = request.arrival.client.ip();
                let (path, why) = (&*request.path, error.reason);
                limited!(warn, %client, path, why, "an API call is refused");
            }
            error.response()
        }
    };
    Some(private(response))
}

/// What only the key's owner may see is kept by nobody on the way.
pub(crate) fn private(response: Response) -> Response {
    response.header("Cache-Control", "no-store")
}

/// The JSON body of a refusal that the engine gives before a request is whole.
pub(crate) fn refusal(status: u16, reason: &str) -> serde_json::Value {
    let word = match status {
        408 => "timeout",
        413 => "too_large",
        500 => "internal_error",
        503 => "busy",
        _ => "bad_request",
    };
    error::body(word, reason)
}

/// A request that was let in.
struct Call<'c, 'e> {
    app: &'c ImApp,
    context: &'c mut Context<'e, ImApp>,
    id: RequestId,
    request: &'c Request,
}

impl Call<'_, '_> {
    fn run(&mut self, resource: Resource) -> Result<Option<Response>, ApiError> {
        let answer = match resource {
            Resource::Presence => return self.presence(),
            Resource::Push => self.push(),
            Resource::Kick => self.kick(),
            Resource::Sessions => self.sessions(),
            Resource::Rooms => self.rooms(),
            Resource::Status => self.status(),
            Resource::Metrics => self.metrics(),
        };
        answer.map(Some)
    }
}

/// 200 with a value of ours.
fn ok<T: Serialize>(value: &T) -> Response {
    let text = reply::to_text(value, reply::TEXT_BYTES);
    Response::with_type(200, "application/json", text.into_bytes())
}
