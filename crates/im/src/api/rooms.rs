//! `GET /api/rooms`: the rooms somebody is in, a page at a time.
//!
//! The cursor is the row of a room, which a room keeps as long as somebody is in it: who looks at all pages
//! sees each room that is there all the time exactly once.

use super::error::ApiError;
use super::{Call, ok, query};
use dunlin_server::Response;
use serde::Serialize;

/// Rooms of a page where the caller does not say.
const LIMIT_DEFAULT: u64 = 100;
/// Most rooms of a page.
const LIMIT_MAX: u64 = 1_000;

#[derive(Serialize)]
struct Page {
    rooms: Vec<Room>,
    /// Where the next page begins; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Room {
    room: String,
    /// Users that are in it, as `count` of `join` and `leave`.
    count: usize,
    sessions: usize,
}

impl Call<'_, '_> {
    pub(super) fn rooms(&mut self) -> Result<Response, ApiError> {
        let pairs = query::parameters(self.request, &["limit", "cursor"])?;
        let (limit, cursor) = query::page(&pairs, LIMIT_DEFAULT, LIMIT_MAX)?;
        let page = self.app.tables().rooms.rooms_page(self.context.table(), cursor, limit);
        let rooms = page.rooms.into_iter().map(|figures| Room {
            room: figures.name,
            count: figures.users,
            sessions: figures.sessions,
        });
        let cursor = page.next.map(|next| next.to_string());
        Ok(ok(&Page { rooms: rooms.collect(), cursor }))
    }
}
