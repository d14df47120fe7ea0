//! `GET /api/sessions`: everybody who is logged in, a page at a time.
//!
//! The cursor is the index of a row. A session keeps its row for its life, whatever worker serves it, so
//! who is there from the first page to the last stands on exactly one of them, however many come and go
//! meanwhile.

use super::error::ApiError;
use super::{Call, ok, query};
use crate::tables::Account;
use dunlin_server::{ConnId, Response, SessionInfo};
use serde::Serialize;

/// Sessions of a page where the caller does not say.
const LIMIT_DEFAULT: u64 = 100;
/// Most sessions of a page.
const LIMIT_MAX: u64 = 1_000;
/// Rows looked at for one page, so that a large table that is nearly empty holds nobody up.
const ROWS_PER_PAGE: u32 = 1 << 16;

#[derive(Serialize)]
struct Page {
    sessions: Vec<Session>,
    /// Where the next page begins; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Session {
    session: String,
    user: String,
    device: String,
    model: String,
    kind: String,
    ip: String,
    connected_at: u64,
    last_active: u64,
    worker: u16,
}

impl Call<'_, '_> {
    pub(super) fn sessions(&mut self) -> Result<Response, ApiError> {
        let pairs = query::parameters(self.request, &["limit", "cursor"])?;
        let (limit, cursor) = query::page(&pairs, LIMIT_DEFAULT, LIMIT_MAX)?;
        Ok(ok(&self.page(limit, cursor)))
    }

    fn page(&self, limit: usize, cursor: u32) -> Page {
        let capacity = self.context.table().capacity();
        let end = cursor.saturating_add(ROWS_PER_PAGE).min(capacity);
        let mut sessions = Vec::new();
        for index in cursor..end {
            let Some(session) = self.session_at(index) else { continue };
            if sessions.len() == limit {
                // It is there: no page is empty but the last.
                return Page { sessions, cursor: Some(index.to_string()) };
            }
            sessions.push(session);
        }
        Page { sessions, cursor: (end < capacity).then(|| end.to_string()) }
    }

    fn session_at(&self, index: u32) -> Option<Session> {
        let sessions = self.context.table();
        let conn = sessions.established_at(index)?;
        let account = self.app.tables().account(sessions, conn)?;
        Some(Session::new(conn, account, &sessions.info(conn)?))
    }
}

impl Session {
    fn new(conn: ConnId, account: Account, info: &SessionInfo) -> Self {
        let Account { user, device, model, kind, .. } = account;
        Self {
            session: conn.to_string(),
            user,
            device,
            model,
            kind,
            ip: info.peer.ip().to_string(),
            connected_at: info.connected_at_ms,
            last_active: info.last_active_ms,
            worker: info.slot.0,
        }
    }
}
