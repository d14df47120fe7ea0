//! Methods that an extension brings.

use super::Outcome;
use crate::app::ImApp;
use crate::extension::CallContext;
use crate::protocol::{Call, CallError, Code};
use dunlin_server::{ConnId, Context};

/// A method that is none of the IM's: the extension's, if it has it and the session is logged in.
pub(super) fn call<'a>(
    app: &ImApp,
    context: &mut Context<'_, ImApp>,
    conn: ConnId,
    call: &Call<'a>,
) -> Result<Outcome<'a>, CallError> {
    if !app.extension.methods().contains(&&*call.name) {
        let message = "there is no such method in this version";
        return Err(CallError::new(Code::MethodNotFound, message));
    }
    let account = app.tables().account(context.table(), conn);
    let account = account.ok_or_else(|| CallError::new(Code::LoginRequired, "log in first"))?;
    let caller = &mut CallContext::new(app, context, conn, &account);
    app.extension.call(caller, &call.name, call.params).map(Outcome::Own)
}
