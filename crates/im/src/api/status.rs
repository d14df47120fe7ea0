//! `GET /api/status`: the object of the status pipe.

use super::error::ApiError;
use super::{Call, ok, query};
use dunlin_server::Response;

impl Call<'_, '_> {
    pub(super) fn status(&mut self) -> Result<Response, ApiError> {
        query::parameters(self.request, &[])?;
        Ok(ok(&self.context.status(self.app)))
    }
}
