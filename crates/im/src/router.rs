//! Who gets a message.
//!
//! Pure: sessions in, connections out. Invariant: no connection is named twice, so nobody gets a
//! message twice.

use crate::tables::LiveSession;
use dunlin_server::ConnId;

/// Who gets a message to a user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The recipient's sessions: these are counted.
    pub(crate) recipients: Vec<ConnId>,
    /// The sender's other sessions, which get a copy.
    pub(crate) copies: Vec<ConnId>,
}

/// Routes a message to a user whose sessions are `recipient`, from the session `sender` of a user
/// whose sessions are `own`; `None` if it is the same user: who writes to himself reaches all his
/// sessions as a recipient, the sending one too, and there is no copy.
pub(crate) fn to_user(
    recipient: &[LiveSession],
    own: Option<&[LiveSession]>,
    sender: ConnId,
) -> Route {
    let copies = own.unwrap_or_default().iter().map(|session| session.conn);
    Route {
        recipients: recipient.iter().map(|session| session.conn).collect(),
        copies: copies.filter(|conn| *conn != sender).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Account;

    #[test]
    fn the_senders_other_sessions_get_a_copy() {
        let live = |bits: &[u64]| -> Vec<LiveSession> {
            let session =
                |bits| LiveSession { conn: ConnId::from_bits(bits), account: Account::default() };
            bits.iter().copied().map(session).collect()
        };
        let conns =
            |bits: &[u64]| -> Vec<ConnId> { bits.iter().copied().map(ConnId::from_bits).collect() };
        let sender = ConnId::from_bits(1);
        let route = to_user(&live(&[7, 8]), Some(&live(&[1, 2, 3])), sender);
        assert_eq!(route, Route { recipients: conns(&[7, 8]), copies: conns(&[2, 3]) });
        let to_self = to_user(&live(&[1, 2]), None, sender);
        assert_eq!(to_self, Route { recipients: conns(&[1, 2]), copies: vec![] });
    }
}
