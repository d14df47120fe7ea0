//! The settings of the IM: `[im]`, `[auth]`, `[redis]`, and its part of `[table]`.
//!
//! Knows its own keys and three of the server's (`table.max_sessions`, `websocket.max_message`,
//! `server.listen`); knows nothing of files and flags. Invariant: an [`ImConfig`] is usable as it is;
//! nobody checks a bound again.

use crate::auth::{AuthConfig, AuthConfigError, Mode};
use crate::backend::config::{BackendConfig, BackendConfigError};
use crate::limits::RateLimits;
use crate::online::config::{self as redis, RedisConfig, RedisConfigError};
use crate::tables::presence::WATCHES_MAX;
use crate::tables::rooms::{Limits, ROOMS_BOUND};
use dunlin_server::settings::{KeyKind, KeySpec, Settings};
use std::net::SocketAddr;

/// Most sessions of one user that may be allowed: half the cells of a window of the user index, since
/// all sessions of a user fall into one window.
pub const MAX_DEVICES_BOUND: u64 = 32;

const DAY_MS: u64 = 24 * 3_600_000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every key of the IM.
pub const IM_KEYS: &[KeySpec] = &[
    KeySpec::reload(
        "im.login_timeout",
        KeyKind::Duration { min_ms: 100, max_ms: DAY_MS },
        "\"10s\"",
        "How long a connection may stay without a login.",
    ),
    KeySpec::reload(
        "im.heartbeat",
        KeyKind::Duration { min_ms: 100, max_ms: DAY_MS },
        "\"60s\"",
        "After how much silence a session that is logged in is closed; any frame counts.",
    ),
    KeySpec::reload(
        "im.max_body",
        KeyKind::Size { min: 1, max: 64 * MIB },
        "\"64KiB\"",
        "The largest body of a message or signal, as JSON text.",
    ),
    KeySpec::reload(
        "im.devices",
        KeyKind::Choice(&["many", "one_per_kind", "one"]),
        "\"many\"",
        "On how many devices a user may be logged in; the newer login wins.",
    ),
    KeySpec::reload(
        "im.max_devices",
        KeyKind::Count { min: 1, max: MAX_DEVICES_BOUND },
        "16",
        "Sessions one user may have; a login above that closes the user's oldest session.",
    ),
    KeySpec::reload(
        "im.max_rooms",
        KeyKind::Count { min: 1, max: ROOMS_BOUND as u64 },
        "16",
        "Rooms one session may be in by join.",
    ),
    KeySpec::reload(
        "im.max_room_members",
        KeyKind::Count { min: 1, max: 1 << 24 },
        "10000",
        "Sessions that may be in one room.",
    ),
    KeySpec::reload(
        "im.room_quiet_above",
        KeyKind::Count { min: 0, max: 1 << 24 },
        "100",
        "Members of a room above which nobody is named as come or gone, but their count told.",
    ),
    KeySpec::restart(
        "table.rooms",
        KeyKind::Count { min: 1, max: 1 << 20 },
        "4096",
        "Rooms with anybody in them, at most.",
    ),
    KeySpec::restart(
        "table.room_members",
        KeyKind::Count { min: 0, max: 1 << 26 },
        "0",
        "Memberships of all sessions in all rooms, about; 0: four for each of table.max_sessions.",
    ),
    KeySpec::restart(
        "im.idempotency_entries",
        KeyKind::Count { min: 16, max: 1 << 24 },
        "16384",
        "Keys of sends that are remembered, for five minutes at most; the oldest is dropped.",
    ),
    KeySpec::reload(
        "im.request_rate",
        KeyKind::Count { min: 0, max: MIB },
        "5000",
        "Messages a second from one session; 0 is any number.",
    ),
    KeySpec::reload(
        "im.request_burst",
        KeyKind::Count { min: 1, max: MIB },
        "20000",
        "Messages at once from one session.",
    ),
    KeySpec::reload(
        "im.byte_rate",
        KeyKind::Size { min: 0, max: GIB },
        "\"16MiB\"",
        "Bytes of messages a second from one session; 0 is any number.",
    ),
    KeySpec::reload(
        "im.byte_burst",
        KeyKind::Size { min: 1, max: GIB },
        "\"64MiB\"",
        "Bytes of messages at once from one session.",
    ),
    KeySpec::reload(
        "im.send_rate",
        KeyKind::Count { min: 0, max: MIB },
        "5000",
        "Sends and signals a second by one user, over all sessions; 0 is any number.",
    ),
    KeySpec::reload(
        "im.send_burst",
        KeyKind::Count { min: 1, max: MIB },
        "20000",
        "Sends and signals at once by one user.",
    ),
    KeySpec::reload(
        "im.login_rate",
        KeyKind::Count { min: 0, max: MIB },
        "0",
        "Logins a second from one client address; 0 is any number.",
    ),
    KeySpec::reload(
        "im.login_burst",
        KeyKind::Count { min: 1, max: MIB },
        "100",
        "Logins at once from one client address.",
    ),
    KeySpec::reload(
        "im.login_failures",
        KeyKind::Count { min: 0, max: 200 },
        "20",
        "Refused tokens of one client address before it must wait.",
    ),
    KeySpec::reload(
        "im.login_delay",
        KeyKind::Duration { min_ms: 0, max_ms: DAY_MS },
        "\"500ms\"",
        "The wait after one more, doubled by each further.",
    ),
    KeySpec::reload(
        "im.login_delay_max",
        KeyKind::Duration { min_ms: 0, max_ms: DAY_MS },
        "\"30s\"",
        "The longest such wait.",
    ),
    KeySpec::reload(
        "im.login_forget",
        KeyKind::Duration { min_ms: 1_000, max_ms: DAY_MS },
        "\"10m\"",
        "After how long without a refused token an address's are forgotten.",
    ),
    KeySpec::reload(
        "im.max_refused",
        KeyKind::Count { min: 0, max: MIB },
        "1000",
        "Refusals of one session, by these limits, before it is closed; 0 is any number.",
    ),
    KeySpec::restart(
        "im.rate_entries",
        KeyKind::Count { min: 8, max: 1 << 24 },
        "16384",
        "Users, and client addresses, whose rates are known at once.",
    ),
    KeySpec::reload(
        "im.max_watches",
        KeyKind::Count { min: 0, max: 10_000 },
        "100",
        "Users one session may watch.",
    ),
    KeySpec::reload(
        "im.presence_debounce",
        KeyKind::Duration { min_ms: 0, max_ms: 3_600_000 },
        "\"3s\"",
        "How long a user must stay offline before his watchers are told.",
    ),
    KeySpec::restart(
        "table.watches",
        KeyKind::Count { min: 0, max: WATCHES_MAX },
        "65536",
        "Watches of all sessions together.",
    ),
    KeySpec::restart(
        "table.last_seen",
        KeyKind::Count { min: 0, max: 16_000_000 },
        "16384",
        "Users whose last session's end is kept; 0 keeps none.",
    ),
    KeySpec::restart(
        "auth.mode",
        KeyKind::Choice(&["open", "token"]),
        "\"open\"",
        "Who may log in: open lets anybody be any user, token whoever has a signed token.",
    ),
    KeySpec::reload(
        "auth.allow_open",
        KeyKind::Bool,
        "false",
        "Allow the open mode on addresses other machines can reach.",
    ),
    KeySpec::reload("auth.keys", KeyKind::List, "[]", "Keys that tokens are checked with, by kid."),
    KeySpec::reload(
        "auth.secret_file",
        KeyKind::Path,
        "\"\"",
        "The file of one HS256 key without a kid.",
    ),
    KeySpec {
        key: "auth.secret",
        kind: KeyKind::Text,
        default: "\"\"",
        reloadable: true,
        secret: true,
        doc: "The same key, from the environment.",
    },
    KeySpec::reload("auth.issuer", KeyKind::Text, "\"\"", "What iss of a token must be."),
    KeySpec::reload("auth.audience", KeyKind::Text, "\"\"", "What aud of a token must be or have."),
    KeySpec::reload(
        "auth.leeway",
        KeyKind::Duration { min_ms: 0, max_ms: 600_000 },
        "\"5s\"",
        "How far the clocks of who mints tokens may be from the server's.",
    ),
    KeySpec::reload(
        "auth.expiry_grace",
        KeyKind::Duration { min_ms: 0, max_ms: 3_600_000 },
        "\"10s\"",
        "How long after its token's end a session may still refresh it.",
    ),
    KeySpec::reload(
        "auth.max_failures",
        KeyKind::Count { min: 1, max: 1_000 },
        "5",
        "Tokens refused on one connection before it is closed.",
    ),
    KeySpec::reload(
        "backend.url",
        KeyKind::Text,
        "\"\"",
        "Where the owner's backend is told of events.",
    ),
    KeySpec::reload(
        "backend.secret_file",
        KeyKind::Path,
        "\"\"",
        "The file of the secret that signs them.",
    ),
    KeySpec::reload(
        "backend.ca_file",
        KeyKind::Path,
        "\"\"",
        "Whom to trust for an https URL, in PEM.",
    ),
    KeySpec::reload(
        "backend.events",
        KeyKind::List,
        "[\"login\", \"logout\"]",
        "What it is told of.",
    ),
    KeySpec::reload(
        "backend.message_sample",
        KeyKind::Count { min: 1, max: 1_000_000 },
        "1",
        "Of how many messages one is told.",
    ),
    KeySpec::reload(
        "backend.timeout",
        KeyKind::Duration { min_ms: 100, max_ms: 30_000 },
        "\"3s\"",
        "How long one request to it may take.",
    ),
    KeySpec::restart(
        "backend.queue",
        KeyKind::Size { min: 16 << 10, max: 1 << 30 },
        "\"512KiB\"",
        "Shared memory for events that wait.",
    ),
    KeySpec::reload(
        "backend.max_attempts",
        KeyKind::Count { min: 1, max: 1_000 },
        "10",
        "How often one event is tried.",
    ),
    KeySpec::reload(
        "backend.authorise",
        KeyKind::List,
        "[]",
        "What it is asked before it is done.",
    ),
    KeySpec::reload(
        "backend.authorise_failure",
        KeyKind::Choice(&["refuse", "allow"]),
        "\"refuse\"",
        "What becomes of that where it cannot be asked.",
    ),
    redis::URL,
    redis::PASSWORD_FILE,
    redis::PASSWORD,
    redis::PREFIX,
    redis::LEASE,
    redis::TIMEOUT,
    redis::MAX_CHANGES,
    redis::MAX_QUERIES,
    KeySpec::reload(
        "http.api_key_file",
        KeyKind::Path,
        "\"\"",
        "The file of the HTTP API's key; empty: one is made in the run directory.",
    ),
    KeySpec::reload("http.page", KeyKind::Bool, "true", "Whether `GET /` is the chat page."),
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
    /// What a join may use.
    pub(crate) rooms: Limits,
    /// Sessions in a room above which its members are told how many they are, and not who came and went.
    pub room_quiet_above: usize,
    /// What a session, user or address may do in a time.
    pub limits: RateLimits,
    /// Users one session may watch.
    pub max_watches: usize,
    /// How long a user must stay offline before his watchers are told, in milliseconds.
    pub presence_debounce_ms: u64,
    /// Whether anybody may log in on an address that other machines can reach.
    pub allow_open: bool,
    /// Who may log in, and by which keys.
    pub auth: AuthConfig,
    /// The owner's backend.
    pub backend: BackendConfig,
    /// The Redis of the online list.
    pub redis: RedisConfig,
    /// Whether there is a chat page.
    pub page: bool,
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
    /// `[auth]` does not go together.
    #[error(transparent)]
    Auth(#[from] AuthConfigError),
    /// `[backend]` does not go together.
    #[error(transparent)]
    Backend(#[from] BackendConfigError),
    /// `[redis]` does not go together.
    #[error(transparent)]
    Redis(#[from] RedisConfigError),
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
        let count = |key| usize::try_from(settings.count(key)).unwrap_or(usize::MAX);
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
            rooms: Limits { rooms: count("im.max_rooms"), members: count("im.max_room_members") },
            room_quiet_above: count("im.room_quiet_above"),
            limits: RateLimits::from_settings(settings),
            max_watches: usize::try_from(settings.count("im.max_watches")).unwrap_or(usize::MAX),
            presence_debounce_ms: settings.duration_ms("im.presence_debounce"),
            allow_open: settings.bool("auth.allow_open"),
            auth: AuthConfig::from_settings(settings)?,
            backend: BackendConfig::from_settings(settings)?,
            redis: RedisConfig::from_settings(settings)?,
            page: settings.bool("http.page"),
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
            Some(address) if self.auth.mode == Mode::Open && !self.allow_open => {
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
    use crate::backend::config::{Authorise, Events};
    use crate::rate::{Patience, Rate};
    use dunlin_server::config::SERVER_KEYS;
    use dunlin_server::settings::{FileEntry, FileLayer, Layers, Literal};

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
            rooms: Limits { rooms: 16, members: 10_000 },
            room_quiet_above: 100,
            limits: RateLimits {
                requests: Rate { per_second: 5_000, burst: 20_000 },
                bytes: Rate { per_second: 16 * MIB, burst: 64 * MIB },
                sends: Rate { per_second: 5_000, burst: 20_000 },
                logins: Rate { per_second: 0, burst: 100 },
                failures: Patience {
                    free: 20,
                    first_ms: 500,
                    most_ms: 30_000,
                    forgotten_ms: 600_000,
                },
                max_refused: 1_000,
            },
            max_watches: 100,
            presence_debounce_ms: 3_000,
            allow_open: false,
            auth: AuthConfig {
                mode: Mode::Open,
                keys: vec![],
                issuer: None,
                audience: None,
                leeway_ms: 5_000,
                expiry_grace_ms: 10_000,
                max_failures: 5,
            },
            backend: BackendConfig {
                target: None,
                events: Events { login: true, logout: true, message: false },
                message_sample: 1,
                timeout_ms: 3_000,
                max_attempts: 10,
                authorise: Authorise::default(),
                allow_unasked: false,
            },
            redis: RedisConfig {
                url: None,
                password: None,
                password_origin: String::new(),
                prefix: "dunlin:".into(),
                lease_ms: 15_000,
                timeout_ms: 1_000,
                max_changes: 16_384,
                max_queries: 256,
            },
            page: true,
            max_message_bytes: MIB,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn tokens_want_a_key_and_the_open_mode_none() {
        let auth = |words: &[(&'static str, &str)]| {
            ImConfig::from_settings(&settings(words)).map(|config| config.auth)
        };
        let error = auth(&[("auth.mode", "token")]).unwrap_err().to_string();
        assert!(error.starts_with("--set: auth.mode = \"token\" needs a key"), "{error}");
        let file = ("auth.secret_file", "s.key");
        let single = auth(&[("auth.mode", "token"), file]).unwrap();
        assert_eq!((single.mode, single.keys.len(), &single.keys[0].kid), (Mode::Token, 1, &None));
        assert_eq!(single.keys[0].origin, "--set: auth.secret_file");
        let line = "kid=a alg=RS256 file=a.pem,kid=b alg=HS256 env=B";
        let all = auth(&[("auth.mode", "token"), ("auth.keys", line), file]).unwrap();
        assert_eq!(all.keys.len(), 3);
        let twice = "kid=a alg=RS256 file=a.pem,kid=a alg=HS256 env=B";
        let error = auth(&[("auth.keys", twice)]).unwrap_err().to_string();
        assert!(
            error.starts_with("--set: auth.keys: key 2 has the kid of a key before"),
            "{error}"
        );
        let many: Vec<String> = (0..33).map(|n| format!("kid={n} alg=HS256 file=f")).collect();
        let error = auth(&[("auth.keys", &many.join(","))]).unwrap_err().to_string();
        assert!(error.contains("33 keys are more than the 32"), "{error}");
        assert_eq!(auth(&[("auth.keys", &many[..32].join(","))]).unwrap().keys.len(), 32);
    }

    #[test]
    fn the_secret_itself_comes_from_the_environment_only() {
        let read = |layers| {
            let settings = Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap();
            ImConfig::from_settings(&settings).map(|config| config.auth.keys)
        };
        let variable = |text: &str| Layers {
            environment: vec![("DUNLIN_AUTH__SECRET".into(), text.into())],
            ..Layers::default()
        };
        let keys = read(variable("hush")).unwrap();
        assert_eq!(keys[0].origin, "DUNLIN_AUTH__SECRET: auth.secret");
        assert!(!format!("{keys:?}").contains("hush"));
        // Set to nothing it is a secret, too: an empty one, which no server starts with.
        assert_eq!(read(variable("")).unwrap().len(), 1);
        let mut both = variable("hush");
        both.flag_words("auth.secret_file", "f", "--set");
        let error = read(both).unwrap_err().to_string();
        assert!(error.contains("auth.secret_file") && !error.contains("hush"), "{error}");
        let file = |text: &str| Layers {
            file: Some(FileLayer {
                path: "d.toml".into(),
                entries: vec![FileEntry {
                    key: "auth.secret".into(),
                    value: Literal::Text(text.into()),
                    line: 3,
                }],
            }),
            ..Layers::default()
        };
        let error = read(file("hush")).unwrap_err().to_string();
        assert!(error.starts_with("d.toml:3: auth.secret is taken from"), "{error}");
        assert!(read(file("")).unwrap().is_empty());
        let mut flag = Layers::default();
        flag.flag_words("auth.secret", "hush", "--set");
        let error = Settings::resolve(&[SERVER_KEYS, IM_KEYS], flag).unwrap_err().to_string();
        assert!(error.contains("set auth.secret_file to a file that holds it"), "{error}");
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
