//! What a session may do, and when it is over.
//!
//! Pure: knows no connection's state but whether it is logged in.

use crate::close::CloseReason;
use crate::protocol::{CallError, Code, Method};
use crate::tables::LiveSession;
use dunlin_server::ConnId;

/// Whether a session may call a method at all.
///
/// # Errors
/// -32000 before a login, -32003 for a second one.
pub(crate) fn permit(method: Method, logged_in: bool) -> Result<(), CallError> {
    match (method, logged_in) {
        (Method::Ping, _) | (Method::Login, false) => Ok(()),
        (Method::Login, true) => {
            let message = "this session is logged in already: log out first";
            Err(CallError::new(Code::Forbidden, message).because("already_logged_in"))
        }
        (_, true) => Ok(()),
        (_, false) => Err(CallError::new(Code::LoginRequired, "log in first")),
    }
}

/// Why a session whose deadline has passed is closed.
pub(crate) fn overdue(logged_in: bool) -> CloseReason {
    if logged_in { CloseReason::HeartbeatTimeout } else { CloseReason::LoginTimeout }
}

/// Which sessions of a user are too many: the oldest logins, so that at most `most` are left. The
/// session that has just logged in is never among them.
///
/// Every worker that looks at the same sessions gives the same answer, so two logins at one time do
/// not close more than is needed.
pub(crate) fn surplus(live: &[LiveSession], newest: ConnId, most: usize) -> Vec<ConnId> {
    let mut others: Vec<(u64, ConnId)> = live
        .iter()
        .filter(|session| session.conn != newest)
        .map(|session| (session.account.logged_in_at_ms, session.conn))
        .collect();
    others.sort_unstable();
    let too_many = (others.len() + 1).saturating_sub(most.max(1));
    others.into_iter().take(too_many).map(|(_, conn)| conn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::METHODS;
    use crate::tables::Account;

    #[test]
    fn before_a_login_there_is_only_login_and_ping() {
        for (name, method) in METHODS {
            let before = permit(method, false).map_err(|error| error.code);
            let after = permit(method, true).map_err(|error| error.data.reason);
            match method {
                Method::Ping => assert!(before.is_ok() && after.is_ok()),
                Method::Login => assert!(before.is_ok() && after == Err("already_logged_in")),
                _ => assert!(before == Err(Code::LoginRequired) && after.is_ok(), "{name}"),
            }
        }
        assert_eq!(overdue(true).code(), 4002);
        assert_eq!(overdue(false).code(), 4501);
    }

    #[test]
    fn the_oldest_logins_are_too_many() {
        let live: Vec<LiveSession> = [(1, 30), (2, 10), (3, 20), (4, 5)]
            .into_iter()
            .map(|(bits, at)| LiveSession {
                conn: ConnId::from_bits(bits),
                account: Account { logged_in_at_ms: at, ..Account::default() },
            })
            .collect();
        let surplus = |newest, most| -> Vec<u64> {
            let conns = surplus(&live, ConnId::from_bits(newest), most);
            conns.into_iter().map(ConnId::to_bits).collect()
        };
        assert!(surplus(1, 4).is_empty());
        assert_eq!(surplus(1, 3), [4]);
        assert_eq!(surplus(1, 2), [4, 2]);
        // The newest by its clock may not be the newest by time: it stays.
        assert_eq!(surplus(4, 1), [2, 3, 1]);
        assert_eq!(surplus(4, 0), [2, 3, 1]);
        assert_eq!(surplus(9, 4), [4]);
    }
}
