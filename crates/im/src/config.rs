//! The settings of the IM: `[im]` and `[auth]`.
//!
//! Knows its own keys and three of the server's (`table.max_sessions`, `websocket.max_message`,
//! `server.listen`); knows nothing of files and flags. Invariant: an [`ImConfig`] is usable as it is;
//! nobody checks a bound again.

use dunlin_server::settings::{KeyKind, KeySpec, Settings};
use std::net::SocketAddr;

/// Most sessions of one user that may be allowed: half the cells of a window of the user index, since
/// all sessions of a user fall into one window.
pub const MAX_DEVICES_BOUND: u64 = 32;

const DAY_MS: u64 = 24 * 3_600_000;
const MIB: u64 = 1 << 20;

/// Every key of the IM.
pub const IM_KEYS: &[KeySpec] = &[
    KeySpec {
        key: "im.login_timeout",
        kind: KeyKind::Duration { min_ms: 100, max_ms: DAY_MS },
        default: "\"10s\"",
        reloadable: true,
        secret: false,
        doc: "How long a connection may stay without a login.",
    },
    KeySpec {
        key: "im.heartbeat",
        kind: KeyKind::Duration { min_ms: 100, max_ms: DAY_MS },
        default: "\"60s\"",
        reloadable: true,
        secret: false,
        doc: "After how much silence a session that is logged in is closed; any frame counts.",
    },
    KeySpec {
        key: "im.max_body",
        kind: KeyKind::Size { min: 1, max: 64 * MIB },
        default: "\"64KiB\"",
        reloadable: true,
        secret: false,
        doc: "The largest body of a message or signal, as JSON text.",
    },
    KeySpec {
        key: "im.devices",
        kind: KeyKind::Choice(&["many", "one_per_kind", "one"]),
        default: "\"many\"",
        reloadable: true,
        secret: false,
        doc: "On how many devices a user may be logged in; the newer login wins.",
    },
    KeySpec {
        key: "im.max_devices",
        kind: KeyKind::Count { min: 1, max: MAX_DEVICES_BOUND },
        default: "16",
        reloadable: true,
        secret: false,
        doc: "Sessions one user may have; a login above that closes the user's oldest session.",
    },
    KeySpec {
        key: "auth.mode",
        kind: KeyKind::Choice(&["open", "token"]),
        default: "\"open\"",
        reloadable: false,
        secret: false,
        doc: "Who may log in: open lets anybody be any user.",
    },
    KeySpec {
        key: "auth.allow_open",
        kind: KeyKind::Bool,
        default: "false",
        reloadable: true,
        secret: false,
        doc: "Allow the open mode on addresses other machines can reach.",
    },
];

/// What the IM was told to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImConfig {
    /// How long a connection may stay without a login, in milliseconds.
    pub login_timeout_ms: u64,
    /// After how much silence a session that is logged in is closed, in milliseconds.
    pub heartbeat_ms: u64,
    /// The largest body, in bytes of JSON text.
    pub max_body_bytes: usize,
    /// On how many devices a user may be logged in.
    pub devices: DevicePolicy,
    /// Sessions one user may have, 1 to [`MAX_DEVICES_BOUND`].
    pub max_devices: usize,
    /// Whether anybody may log in on an address that other machines can reach.
    pub allow_open: bool,
    /// `websocket.max_message`, told to clients.
    pub max_message_bytes: u64,
}

/// On how many devices a user may be logged in at once. The newer login wins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DevicePolicy {
    /// On any number up to [`ImConfig::max_devices`].
    Many,
    /// On one device of each kind; devices that tell no kind are of one kind.
    OnePerKind,
    /// On one.
    One,
}

/// The settings do not go together, or ask for what is not there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// Tokens are asked for.
    #[error(
        "{origin}: auth.mode = \"token\" comes with a later release; this one knows only \"open\""
    )]
    TokenMode {
        /// Where it was written.
        origin: String,
    },
    /// Anybody from anywhere could be any user.
    #[error(
        "auth.mode = \"open\" lets anybody be any user, and {address} can be reached from other \
         machines: listen on a loopback address, or set auth.allow_open = true"
    )]
    OpenToOthers {
        /// The first such address.
        address: SocketAddr,
    },
}

impl ImConfig {
    /// The typed form of resolved settings, which must have [`IM_KEYS`] and the server's keys among
    /// their specs.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        if settings.text("auth.mode") == "token" {
            let origin = settings.origin("auth.mode").to_string();
            return Err(ConfigError::TokenMode { origin });
        }
        Ok(Self {
            login_timeout_ms: settings.duration_ms("im.login_timeout"),
            heartbeat_ms: settings.duration_ms("im.heartbeat"),
            max_body_bytes: usize::try_from(settings.size("im.max_body")).unwrap_or(usize::MAX),
            devices: match settings.text("im.devices") {
                "one" => DevicePolicy::One,
                "one_per_kind" => DevicePolicy::OnePerKind,
                _ => DevicePolicy::Many,
            },
            max_devices: usize::try_from(settings.count("im.max_devices")).unwrap_or(usize::MAX),
            allow_open: settings.bool("auth.allow_open"),
            max_message_bytes: settings.size("websocket.max_message"),
        })
    }

    /// Whether the open mode may be served on these addresses.
    ///
    /// # Errors
    /// [`ConfigError::OpenToOthers`].
    pub fn check_open_mode(&self, listen: &[SocketAddr]) -> Result<(), ConfigError> {
        let public = listen.iter().find(|address| !is_loopback(address));
        match public {
            Some(address) if !self.allow_open => {
                Err(ConfigError::OpenToOthers { address: *address })
            }
            _ => Ok(()),
        }
    }
}

/// The addresses of `server.listen`; what is none is left to the server's own check.
pub(crate) fn listen_addresses(settings: &Settings) -> Vec<SocketAddr> {
    settings.list("server.listen").iter().filter_map(|text| text.parse().ok()).collect()
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_server::config::SERVER_KEYS;
    use dunlin_server::settings::Layers;

    fn settings(words: &[(&'static str, &str)]) -> Settings {
        let mut layers = Layers::default();
        for (key, word) in words {
            layers.flag_words(key, word, "--set");
        }
        Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = ImConfig::from_settings(&settings(&[])).unwrap();
        let expected = ImConfig {
            login_timeout_ms: 10_000,
            heartbeat_ms: 60_000,
            max_body_bytes: 65_536,
            devices: DevicePolicy::Many,
            max_devices: 16,
            allow_open: false,
            max_message_bytes: MIB,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn tokens_come_later_and_say_so() {
        let error = ImConfig::from_settings(&settings(&[("auth.mode", "token")])).unwrap_err();
        assert!(
            error.to_string().starts_with("--set: auth.mode = \"token\" comes with"),
            "{error}"
        );
    }

    #[test]
    fn the_open_mode_stays_at_home_unless_allowed() {
        let closed = ImConfig::from_settings(&settings(&[])).unwrap();
        let allowed = ImConfig { allow_open: true, ..closed.clone() };
        for home in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(closed.check_open_mode(&[home.parse().unwrap()]), Ok(()), "{home}");
        }
        for public in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:8.8.8.8]:1"] {
            let listen = ["127.0.0.1:1".parse().unwrap(), public.parse().unwrap()];
            let error = closed.check_open_mode(&listen).unwrap_err();
            assert_eq!(error, ConfigError::OpenToOthers { address: listen[1] });
            assert_eq!(allowed.check_open_mode(&listen), Ok(()));
        }
    }
}
