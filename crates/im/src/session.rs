//! What a session may do, and when it is over.
//!
//! Pure: knows no connection's state but whether it is logged in.

use crate::close::CloseReason;
use crate::config::DevicePolicy;
use crate::protocol::{CallError, Code, Method};
use crate::tables::{Account, LiveSession};
use dunlin_server::ConnId;
use std::cmp::Reverse;

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

/// Why a session whose deadline has passed is closed; `expired`: its token has, too, and its grace.
pub(crate) fn overdue(logged_in: bool, expired: bool) -> CloseReason {
    match (logged_in, expired) {
        (false, _) => CloseReason::LoginTimeout,
        (true, true) => CloseReason::TokenExpired,
        (true, false) => CloseReason::HeartbeatTimeout,
    }
}

/// Which sessions of a user must go, oldest login first. From the newest login on, a session stays
/// unless one that stays and is newer is of the same device, is one the policy does not allow beside
/// it, or `most` stay already.
///
/// Follows from the sessions alone. Every worker that looks at the same sessions gives the same answer,
/// so two logins at one time close no more than one of them needs; the newest never goes.
pub(crate) fn surplus(live: &[LiveSession], policy: DevicePolicy, most: usize) -> Vec<ConnId> {
    let mut newest_first: Vec<&LiveSession> = live.iter().collect();
    newest_first.sort_unstable_by_key(|session| Reverse(session.account.login));
    let mut stay: Vec<&Account> = Vec::new();
    let mut go = Vec::new();
    for session in newest_first {
        let account = &session.account;
        let displaced = stay.iter().any(|newer| {
            newer.device == account.device
                || match policy {
                    DevicePolicy::Many => false,
                    DevicePolicy::OnePerKind => newer.kind == account.kind,
                    DevicePolicy::One => true,
                }
        });
        if displaced || stay.len() >= most.max(1) {
            go.push(session.conn);
        } else {
            stay.push(account);
        }
    }
    go.reverse();
    go
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::METHODS;

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
        assert_eq!(overdue(true, false).code(), 4002);
        assert_eq!(overdue(true, true).code(), 4502);
        assert_eq!(overdue(false, false).code(), 4501);
    }

    /// Sessions from what stands for them: number, login, device, kind.
    fn live(sessions: &[(u64, u64, &str, &str)]) -> Vec<LiveSession> {
        let session = |(bits, login, device, kind): &(u64, u64, &str, &str)| LiveSession {
            conn: ConnId::from_bits(*bits),
            account: Account {
                device: (*device).into(),
                kind: (*kind).into(),
                login: *login,
                ..Account::default()
            },
        };
        sessions.iter().map(session).collect()
    }

    fn go(live: &[LiveSession], policy: DevicePolicy, most: usize) -> Vec<u64> {
        surplus(live, policy, most).into_iter().map(ConnId::to_bits).collect()
    }

    #[test]
    fn the_oldest_logins_are_too_many() {
        let live = live(&[(1, 30, "a", ""), (2, 10, "b", ""), (3, 20, "c", ""), (4, 5, "d", "")]);
        let go = |most| go(&live, DevicePolicy::Many, most);
        assert!(go(4).is_empty());
        assert_eq!(go(3), [4]);
        assert_eq!(go(2), [4, 2]);
        assert_eq!(go(1), [4, 2, 3]);
        assert_eq!(go(0), [4, 2, 3]);
    }

    #[test]
    fn a_device_has_one_session_whatever_the_policy() {
        let live = live(&[(1, 1, "p", "phone"), (2, 2, "q", "web"), (3, 3, "p", "")]);
        assert_eq!(go(&live, DevicePolicy::Many, 9), [1]);
        assert_eq!(go(&live, DevicePolicy::OnePerKind, 9), [1]);
        assert_eq!(go(&live, DevicePolicy::One, 9), [1, 2]);
    }

    #[test]
    fn one_per_kind_lets_other_kinds_be() {
        let live = live(&[
            (1, 1, "p1", "phone"),
            (2, 2, "w1", "web"),
            (3, 3, "x", ""),
            (4, 4, "p2", "phone"),
            (5, 5, "y", ""),
        ]);
        assert_eq!(go(&live, DevicePolicy::OnePerKind, 9), [1, 3]);
        // Who goes makes no room and takes none.
        assert_eq!(go(&live, DevicePolicy::OnePerKind, 2), [1, 2, 3]);
        assert!(go(&live[..3], DevicePolicy::OnePerKind, 9).is_empty());
    }

    #[test]
    fn whoever_looks_says_the_same_and_the_newest_stays() {
        let policies = [DevicePolicy::Many, DevicePolicy::OnePerKind, DevicePolicy::One];
        for seed in 0..200_u64 {
            let names = ["a", "b", "c"];
            let pick = |n: u64, by: u64| names[usize::try_from((seed / by + n * n) % 3).unwrap()];
            let mut sessions: Vec<_> =
                (1..7).map(|n| (n, (n * 5 + seed) % 7 + 1, pick(n, 1), pick(n, 3))).collect();
            sessions.dedup_by_key(|session| session.1);
            let one_way = live(&sessions);
            sessions.reverse();
            let other_way = live(&sessions);
            let newest = sessions.iter().max_by_key(|session| session.1).unwrap().0;
            for (policy, most) in policies.into_iter().flat_map(|policy| [(policy, 1), (policy, 3)])
            {
                let gone = go(&one_way, policy, most);
                assert_eq!(gone, go(&other_way, policy, most));
                assert!(!gone.contains(&newest) && sessions.len() - gone.len() <= most);
            }
        }
    }
}
