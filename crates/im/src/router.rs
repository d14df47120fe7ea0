//! Who gets a message.
//!
//! Pure: sessions in, connections out. Invariant: no connection is named twice, so nobody gets a
//! message twice.

use dunlin_server::ConnId;

/// Who gets a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The sessions of the recipient, or those in the room: these are counted.
    pub(crate) recipients: Vec<ConnId>,
    /// The sender's other sessions, which get a copy.
    pub(crate) copies: Vec<ConnId>,
}

/// Routes a message to a user whose sessions are `recipients`, from the session `sender` of a user
/// whose sessions are `own`; `None` if it is the same user: who writes to himself reaches all his
/// sessions as a recipient, the sending one too, and there is no copy.
pub(crate) fn to_user(recipients: Vec<ConnId>, own: Option<Vec<ConnId>>, sender: ConnId) -> Route {
    let mut copies = own.unwrap_or_default();
    copies.retain(|conn| *conn != sender);
    Route { recipients, copies }
}

/// Routes a message to a room with these members, in the order of their rows, from the session `sender` of
/// a user whose sessions are `own`: the sender's other sessions are members as any, or get a copy.
pub(crate) fn to_room(members: Vec<ConnId>, mut own: Vec<ConnId>, sender: ConnId) -> Route {
    let is_member = |conn: &ConnId| {
        members.binary_search_by_key(&conn.row().index, |member| member.row().index).is_ok()
    };
    own.retain(|conn| *conn != sender && !is_member(conn));
    let mut recipients = members;
    recipients.retain(|conn| *conn != sender);
    Route { recipients, copies: own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_senders_other_sessions_get_a_copy() {
        let conns =
            |bits: &[u64]| -> Vec<ConnId> { bits.iter().copied().map(ConnId::from_bits).collect() };
        let sender = ConnId::from_bits(1);
        let route = to_user(conns(&[7, 8]), Some(conns(&[1, 2, 3])), sender);
        assert_eq!(route, Route { recipients: conns(&[7, 8]), copies: conns(&[2, 3]) });
        let to_self = to_user(conns(&[1, 2]), None, sender);
        assert_eq!(to_self, Route { recipients: conns(&[1, 2]), copies: vec![] });
    }

    #[test]
    fn a_room_is_its_members_and_the_senders_sessions_beside_it_get_a_copy() {
        let conns =
            |bits: &[u64]| -> Vec<ConnId> { bits.iter().copied().map(ConnId::from_bits).collect() };
        let route = to_room(conns(&[2, 3, 5, 8]), conns(&[1, 3, 5]), ConnId::from_bits(5));
        assert_eq!(route, Route { recipients: conns(&[2, 3, 8]), copies: conns(&[1]) });
    }
}
