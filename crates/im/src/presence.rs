//! Who is online, from a user's live sessions.
//!
//! Pure. Invariants: 1. A user is online exactly if there is a live session. 2. A device stands once,
//! however many sessions it has. 3. Two states of a user have the same print exactly if a watcher who was
//! told the one need not be told the other (but for a chance of 2^-64).

use crate::protocol::reply::{DevicePresence, UserPresence};
use crate::tables::Account;
use dunlin_table::hash_key;

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
    UserPresence { online: !devices.is_empty(), devices, ..UserPresence::default() }
}

/// What tells one state of a user from another: the devices and what they say of themselves, not when they
/// were last active. `user` is the hash of the user.
pub(crate) fn print(user: u64, presence: &UserPresence) -> u64 {
    let mut devices: Vec<[&str; 3]> = presence
        .devices
        .iter()
        .map(|device| [&*device.id, &*device.model, &*device.kind])
        .collect();
    devices.sort_unstable();
    // No name has a control character, so these part them.
    let text =
        devices.into_iter().flat_map(|words| words.into_iter().flat_map(|word| [word, "\n"]));
    hash_key(text.collect::<String>().as_bytes(), user)
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

    #[test]
    fn a_print_tells_devices_and_users_apart_and_nothing_else() {
        let state = |devices: &[(&str, &str, &str, u64)]| {
            let sessions = devices.iter().map(|&(device, model, kind, last_active)| {
                let [device, model, kind] = [device, model, kind].map(str::to_owned);
                (Account { device, model, kind, ..Account::default() }, last_active)
            });
            of_sessions(sessions)
        };
        let one = state(&[("a", "m", "k", 1), ("b", "", "", 2)]);
        let later = UserPresence { version: 9, last_seen: Some(1), ..one.clone() };
        assert_eq!(print(7, &one), print(7, &later));
        assert_eq!(print(7, &one), print(7, &state(&[("a", "m", "k", 3), ("b", "", "", 2)])));
        let others = [
            state(&[]),
            state(&[("a", "m", "k", 1)]),
            state(&[("a", "m", "", 1), ("b", "", "k", 2)]),
            state(&[("a", "", "k", 1), ("b", "m", "", 2)]),
            state(&[("a", "mk", "", 1), ("b", "", "", 2)]),
            state(&[("ab", "m", "k", 1)]),
        ];
        for other in others {
            assert_ne!(print(7, &one), print(7, &other), "{other:?}");
        }
        assert_ne!(print(7, &one), print(8, &one));
    }
}
