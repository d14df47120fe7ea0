//! `presence`: who is online.

use super::{Caller, Outcome};
use crate::online::Asker;
use crate::protocol::{CallError, params};
use serde_json::value::RawValue;

impl Caller<'_, '_> {
    /// With Redis the answer comes later, and `None` is given; a notification asks nobody.
    pub(super) fn presence<'a>(
        &mut self,
        params: Option<&'a RawValue>,
    ) -> Result<Option<Outcome<'a>>, CallError> {
        let asked = params::Presence::read(params)?;
        let Some(id) = self.id else { return Ok(None) };
        let asker = Asker::session(self.conn, id.as_json());
        let answer = self.app.ask_presence(self.context, asker, asked.users);
        Ok(answer.map(Outcome::Presence))
    }
}
