//! What follows when a user comes to a session and when he goes: the one place where features hear of it.
//!
//! Decides nothing of who may come. Invariants: 1. Each login ends with one `depart`, in whichever
//! worker the session is by then, before its row is freed; a worker may die in the middle of either, and
//! then `arrive` may not have run. 2. Both run behind the change: the session is live in `arrive` (unless
//! a newer login has overtaken it), and no longer live in `depart`.

use crate::app::ImApp;
use crate::backend::End;
use crate::extension::CallContext;
use crate::tables::Account;
use dunlin_server::{ConnId, Context};

impl ImApp {
    /// A session has logged in, and is answered.
    pub(crate) fn arrive(&self, context: &mut Context<'_, Self>, conn: ConnId) {
        let Some(account) = self.tables().account(context.table(), conn) else { return };
        self.note_change(&account.user);
        self.tell_login(context, conn, &account);
        self.tell_arrival(context, &account.user);
        // Last: it may panic.
        self.extension.arrived(&mut CallContext::new(self, context, conn, &account));
    }

    /// A session that was logged in ends its login: by `logout`, or because its connection is over.
    pub(crate) fn depart(&self, context: &mut Context<'_, Self>, conn: ConnId, end: End<'_>) {
        if let End::Closed(closed) = &end {
            self.trace_closed(context, conn, closed);
        }
        // While the row names the user, and also where only this was left undone by a worker that died.
        self.leave_rooms(context, conn);
        let tables = self.tables();
        tables.presence.watches.clear(context.table(), conn);
        if let Some(account) = tables.account(context.table(), conn) {
            self.note_departure(context, &account.user);
        }
        let Some(account) = tables.leave(context.table(), conn) else { return };
        self.departed(context, conn, &account, end);
    }

    fn departed(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        account: &Account,
        end: End<'_>,
    ) {
        self.note_change(&account.user);
        self.tell_departure(context, &account.user);
        self.tell_logout(context, conn, account, end);
        // Last: it may panic.
        self.extension.departed(&mut CallContext::new(self, context, conn, account));
    }
}
