//! `POST /api/kick`: a user's sessions closed for good.

use super::error::ApiError;
use super::{Call, body, ok, query};
use crate::app::ImApp;
use crate::close::CloseReason;
use crate::protocol::reply::Kicked;
use crate::tables::ApiCount;
use dunlin_server::Response;

/// What a close frame holds of a reason, in bytes.
const REASON_MAX: usize = 123;

impl Call<'_, '_> {
    pub(super) fn kick(&mut self) -> Result<Response, ApiError> {
        query::parameters(self.request, &[])?;
        let [user, device, reason] = body::members(self.request, ["user", "device", "reason"])?;
        let user = body::user(body::required(user, "user")?, "user")?;
        let device =
            body::optional(device).map(|value| body::device(value, "device")).transpose()?;
        let reason = body::optional(reason).map(|value| body::text(value, "reason")).transpose()?;
        let why = CloseReason::KickedByOperator;
        let reason =
            reason.as_deref().filter(|text| !text.is_empty()).unwrap_or_else(|| why.text());
        let mut kicked = 0;
        for session in self.app.tables().live_sessions(self.context.table(), user.as_str()) {
            if device.as_ref().is_none_or(|device| device.as_str() == session.account.device) {
                let said = ImApp::say_bye_because(self.context, session.conn, why, cut(reason));
                kicked += usize::from(said);
            }
        }
        self.app.tables().api.add(ApiCount::Kicked, kicked);
        Ok(ok(&Kicked { kicked }))
    }
}

/// As much of a reason as fits a close frame, whole characters.
fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(cut("too loud"), "too loud");
        assert_eq!(cut(&"x".repeat(500)).len(), 123);
        let long = "é".repeat(500);
        assert_eq!(cut(&long), "é".repeat(61));
    }
}
