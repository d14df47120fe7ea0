//! Who is online, from a user's live sessions.
//!
//! Pure. Invariants: 1. A user is online exactly if there is a live session. 2. A device stands once,
//! however many sessions it has.

use crate::protocol::reply::{DevicePresence, UserPresence};
use crate::tables::Account;

/// The presence of a user whose live sessions are these, each with when it was last active (Unix
/// milliseconds).
pub(crate) fn of_sessions(sessions: impl Iterator<Item = (Account, u64)>) -> UserPresence {
    let mut devices: Vec<DevicePresence> = Vec::new();
    for (account, last_active) in sessions {
        match devices.iter_mut().find(|device| device.id == account.device) {
            Some(known) if known.last_active >= last_active => {}
            Some(known) => *known = device(account, last_active),
            None => devices.push(device(account, last_active)),
        }
    }
    devices.sort_by(|a, b| b.last_active.cmp(&a.last_active).then_with(|| a.id.cmp(&b.id)));
    UserPresence { online: !devices.is_empty(), devices, last_seen: None }
}

fn device(account: Account, last_active: u64) -> DevicePresence {
    let Account { device: id, model, kind, .. } = account;
    DevicePresence { id, model, kind, last_active }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_stand_once_the_latest_first() {
        let session = |device: &str, model: &str, last_active| {
            let account =
                Account { device: device.into(), model: model.into(), ..Account::default() };
            (account, last_active)
        };
        let sessions = [
            session("phone", "old", 10),
            session("tablet", "", 20),
            session("phone", "new", 30),
            session("phone", "older", 5),
            session("desk", "", 20),
        ];
        let presence = of_sessions(sessions.into_iter());
        let seen: Vec<(&str, &str, u64)> = presence
            .devices
            .iter()
            .map(|device| (&*device.id, &*device.model, device.last_active))
            .collect();
        assert_eq!(seen, [("phone", "new", 30), ("desk", "", 20), ("tablet", "", 20)]);
        assert!(presence.online && presence.last_seen.is_none());
        assert_eq!(of_sessions([].into_iter()), UserPresence::default());
    }
}
