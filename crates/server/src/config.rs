//! The server's own settings: their keys, bounds and defaults, and what they mean as one typed
//! [`Config`].
//!
//! Knows nothing of files and flags (`settings`) and nothing of the application's keys. Invariant:
//! a [`Config`] is consistent as a whole; nobody checks a bound again later.

mod checks;
mod error;
mod keys;
mod log;

use self::checks::{admin_listen, check_output, check_pool, group, listen, named, trusted_proxies};
pub use self::error::ConfigError;
pub use self::keys::SERVER_KEYS;
pub use self::log::{LogConfig, LogFormat};
use crate::http::TrustedProxies;
use crate::run_dir::RunDir;
use crate::settings::Settings;
use crate::upgrade;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;

/// What the server was told to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on; at least one, at most [`LISTEN_MAX`].
    pub listen: Vec<SocketAddr>,
    /// Addresses for who runs the server alone; what is for everybody is not served there.
    pub admin_listen: Vec<SocketAddr>,
    /// Proxies that are believed about whose requests they pass on.
    pub trusted_proxies: TrustedProxies,
    /// Workers, 1 to [`WORKERS_MAX`]; the number of cores where the setting is 0.
    pub workers: u16,
    /// Task processes, 0 to [`TASK_WORKERS_MAX`].
    pub task_workers: u16,
    /// The run directory, absolute; see [`crate::run_dir::RunDir::locate`].
    pub run_dir: PathBuf,
    /// Whether to leave the terminal once ready.
    pub daemonize: bool,
    /// The user that a server becomes which root starts; `None`: it stays who it is.
    pub user: Option<String>,
    /// Its group, where it is not the user's own.
    pub group: Option<String>,
    /// Whether workers and the timer process give up system calls that they do not need.
    pub sandbox: bool,
    /// Connections the kernel queues for each listener.
    pub backlog: i32,
    /// Connections of one client address, over all workers; 0 for any number.
    pub max_connections_per_ip: u32,
    /// Connections accepted a second, over all workers; 0 for any number.
    pub accept_rate: u32,
    /// Connections a second that one client address may open; 0 for any number.
    pub accept_rate_per_ip: u32,
    /// Messages after which a worker is replaced; 0 for never.
    pub max_request: u64,
    /// What a graceful stop may take, in milliseconds.
    pub stop_timeout_ms: u64,
    /// Clients that a stopping server tells a second, over all workers; 0 for all at once.
    pub drain_rate: u32,
    /// How long the kernel tries to deliver output nobody acknowledges, in milliseconds; 0: its own limit.
    pub tcp_user_timeout_ms: u64,
    /// What one slot's replacement may take, in milliseconds.
    pub handover_timeout_ms: u64,
    /// How long a worker may be busy with one turn before it is taken for stuck, in milliseconds.
    pub stuck_after_ms: u64,
    /// The spread between the fullest and the emptiest worker, in percent of the mean, from which on
    /// connections are moved; 0 for never.
    pub balance_above_percent: u32,
    /// The least such spread, in connections.
    pub balance_above_connections: u32,
    /// Connections moved a second by themselves.
    pub balance_rate: u32,
    /// Timers of the application that can be armed at once.
    pub max_timers: u32,
    /// How long one task may run, in milliseconds.
    pub task_timeout_ms: u64,
    /// Rows of the session table.
    pub max_sessions: u32,
    /// Bytes of the shared receive pool, at least [`POOL_MESSAGES`] times `max_message_bytes`.
    pub receive_pool_bytes: usize,
    /// The largest message a client may send, in bytes.
    pub max_message_bytes: u64,
    /// Whether messages are compressed for clients that offer it.
    pub compression: bool,
    /// The shortest message that is compressed, in bytes.
    pub compression_threshold_bytes: usize,
    /// How hard to compress: 1, quick, to 9, thorough.
    pub compression_level: u8,
    /// What one client address may hold of the receive pool, in percent.
    pub receive_share_percent: u32,
    /// How long an upgrade may take, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// How long a message may take from its first byte to its last, in milliseconds.
    pub message_timeout_ms: u64,
    /// After how much silence a client is pinged, in milliseconds; 0 for never.
    pub ping_interval_ms: u64,
    /// The most unsent output of one connection, in bytes.
    pub send_buffer_bytes: usize,
    /// The most unsent output of all connections of one worker, in bytes; at least
    /// [`TOTAL_OUTPUTS`] times `send_buffer_bytes`.
    pub send_buffer_total_bytes: usize,
    /// Frames, or plain requests, served of one connection before the others have their turn.
    pub frames_per_turn: u32,
    /// Values of `Origin` that may upgrade, beside none; empty: the server's own host and loopback.
    pub allowed_origins: Vec<String>,
    /// Connections that are not upgraded, at most.
    pub http_max_connections: u32,
    /// The largest body of a plain request, in bytes.
    pub http_max_body_bytes: usize,
    /// Where and how to log.
    pub log: LogConfig,
    /// The config file that was read, as it was named.
    pub config_path: Option<PathBuf>,
    /// What all this was read from, the application's keys among it.
    pub settings: Settings,
}

/// Addresses to listen on, at most: each costs a listener per worker.
pub const LISTEN_MAX: usize = 16;
/// Workers, at most.
pub const WORKERS_MAX: u16 = 1_024;
/// Task processes, at most.
pub const TASK_WORKERS_MAX: u16 = 256;
/// Rows of the session table, at most.
pub const SESSIONS_MAX: u64 = 16 << 20;
/// Connections a second that a rate can tell apart, at most: one a microsecond.
pub const ACCEPT_RATE_MAX: u64 = 1_000_000;
/// Clients a second that a stop can be slowed down to, at most.
pub const DRAIN_RATE_MAX: u64 = 1_000_000;
/// How many of the largest messages the receive pool must hold at once.
pub const POOL_MESSAGES: u64 = 4;
/// How many of the largest outboxes `websocket.send_buffer_total` must hold.
pub const TOTAL_OUTPUTS: u64 = 2;

impl Config {
    /// The typed form of resolved settings, which must have [`SERVER_KEYS`] among their specs.
    ///
    /// # Errors
    /// The values do not go together; one line with the place.
    pub fn from_settings(settings: Settings) -> Result<Self, ConfigError> {
        let refused = |sentence| ConfigError::HandOff { sentence };
        let settings = upgrade::keep_running_values(settings).map_err(refused)?;
        let running = upgrade::inherited().map_err(refused)?;
        check_pool(&settings)?;
        check_output(&settings)?;
        let run_dir = match (running, absolute(&settings, "server.run_dir")?) {
            (Some(running), _) => PathBuf::from(&running.run_dir),
            (None, Some(path)) => path,
            (None, None) if settings.text("server.user").is_empty() => {
                RunDir::locate(None).path().to_owned()
            }
            (None, None) => RunDir::of_a_service().path().to_owned(),
        };
        Ok(Self {
            listen: listen(&settings)?,
            admin_listen: admin_listen(&settings)?,
            trusted_proxies: trusted_proxies(&settings)?,
            workers: running.map_or_else(
                || workers(settings.count("server.workers")),
                |running| running.workers,
            ),
            task_workers: bounded(settings.count("server.task_workers")),
            run_dir,
            daemonize: settings.bool("server.daemonize"),
            user: named(&settings, "server.user"),
            group: group(&settings)?,
            sandbox: settings.bool("server.sandbox"),
            backlog: bounded(settings.count("server.backlog")),
            max_connections_per_ip: bounded(settings.count("server.max_connections_per_ip")),
            accept_rate: bounded(settings.count("server.accept_rate")),
            accept_rate_per_ip: bounded(settings.count("server.accept_rate_per_ip")),
            max_request: settings.count("server.max_request"),
            stop_timeout_ms: settings.duration_ms("server.stop_timeout"),
            drain_rate: bounded(settings.count("server.drain_rate")),
            tcp_user_timeout_ms: settings.duration_ms("server.tcp_user_timeout"),
            handover_timeout_ms: settings.duration_ms("server.handover_timeout"),
            stuck_after_ms: settings.duration_ms("server.stuck_after"),
            balance_above_percent: bounded(settings.count("server.balance_above")),
            balance_above_connections: bounded(settings.count("server.balance_above_connections")),
            balance_rate: bounded(settings.count("server.balance_rate")),
            max_timers: bounded(settings.count("server.max_timers")),
            task_timeout_ms: settings.duration_ms("server.task_timeout"),
            max_sessions: bounded(settings.count("table.max_sessions")),
            receive_pool_bytes: bounded(settings.size("table.receive_pool")),
            max_message_bytes: settings.size("websocket.max_message"),
            compression: settings.bool("websocket.compression"),
            compression_threshold_bytes: bounded(settings.size("websocket.compression_threshold")),
            compression_level: bounded(settings.count("websocket.compression_level")),
            receive_share_percent: bounded(settings.count("websocket.receive_share")),
            handshake_timeout_ms: settings.duration_ms("websocket.handshake_timeout"),
            message_timeout_ms: settings.duration_ms("websocket.message_timeout"),
            ping_interval_ms: settings.duration_ms("websocket.ping_interval"),
            send_buffer_bytes: bounded(settings.size("websocket.send_buffer")),
            send_buffer_total_bytes: bounded(settings.size("websocket.send_buffer_total")),
            frames_per_turn: bounded(settings.count("websocket.frames_per_turn")),
            allowed_origins: settings.list("websocket.allowed_origins").to_vec(),
            http_max_connections: bounded(settings.count("http.max_connections")),
            http_max_body_bytes: bounded(settings.size("http.max_body")),
            log: LogConfig {
                level: settings.text("log.level").to_owned(),
                format: match settings.text("log.format") {
                    "json" => LogFormat::Json,
                    _ => LogFormat::Text,
                },
                file: absolute(&settings, "log.file")?,
            },
            config_path: settings.file().map(ToOwned::to_owned),
            settings,
        })
    }
}

/// The number of cores for 0.
fn workers(asked: u64) -> u16 {
    if asked != 0 {
        return bounded(asked);
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u16::try_from(cores).unwrap_or(WORKERS_MAX).min(WORKERS_MAX)
}

/// A path made absolute, since a daemon may change its working directory; `None` if it is empty.
fn absolute(settings: &Settings, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = settings.path(key) else { return Ok(None) };
    match std::path::absolute(path) {
        Ok(path) => Ok(Some(path)),
        Err(problem) => Err(ConfigError::NoWorkingDirectory {
            origin: settings.origin(key).to_string(),
            key,
            problem: problem.to_string(),
        }),
    }
}

/// A number whose spec bounds it below the most its type holds; the other arm is never taken on a
/// 64-bit machine.
fn bounded<N: TryFrom<u64> + Bounded>(number: u64) -> N {
    debug_assert!(N::try_from(number).is_ok(), "{number} passed a bound wider than its type");
    N::try_from(number).unwrap_or(N::MOST)
}

trait Bounded {
    const MOST: Self;
}

macro_rules! bounded_by_its_type {
    ($($number:ty)*) => { $(impl Bounded for $number { const MOST: Self = <$number>::MAX; })* };
}
bounded_by_its_type!(u8 u16 i32 u32 usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Layers;

    fn config(flags: &[(&str, &str)]) -> Result<Config, String> {
        let mut layers = Layers::default();
        for (key, value) in flags {
            layers.flag_words(key, value, "--set");
        }
        let settings = Settings::resolve(&[SERVER_KEYS], layers).map_err(|e| e.to_string())?;
        Config::from_settings(settings).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_a_config() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:9502".parse().unwrap()]);
        assert!(config.workers >= 1);
        assert_eq!((config.max_sessions, config.receive_pool_bytes), (16_384, 16 << 20));
        assert_eq!((config.ping_interval_ms, config.log.format), (25_000, LogFormat::Text));
        assert!(config.run_dir.is_absolute() && config.log.file.is_none());
    }

    #[test]
    fn the_bounds_of_the_contract_are_reached_and_not_passed() {
        for (key, value) in [
            ("server.workers", "1024"),
            ("table.max_sessions", "16777216"),
            ("table.max_sessions", "1"),
            ("server.max_timers", "1048576"),
            ("websocket.ping_interval", "0"),
            ("server.listen", "[::1]:1,127.0.0.1:0,127.0.0.1:0"),
        ] {
            assert!(config(&[(key, value)]).is_ok(), "{key}={value}");
        }
        for (key, value, bound) in [
            ("server.workers", "1025", "at most 1024"),
            ("table.max_sessions", "0", "at least 1"),
            ("table.max_sessions", "16777217", "at most 16777216"),
            ("websocket.max_message", "65MiB", "at most 64MiB"),
            ("server.accept_rate", "1000001", "at most 1000000"),
            ("server.accept_rate_per_ip", "1000001", "at most 1000000"),
            ("server.drain_rate", "1000001", "at most 1000000"),
            ("server.listen", "", "at least one address"),
            ("server.listen", "localhost:1", "\"localhost:1\""),
            ("server.listen", "127.0.0.1:1,127.0.0.1:1", "named before"),
            ("server.listen", &["127.0.0.1:0"; 17].join(","), "at most 16"),
            ("http.admin_listen", "127.0.0.1:9502", "http.admin_listen names 127.0.0.1:9502"),
            ("http.admin_listen", "localhost:1", "http.admin_listen wants addresses"),
            ("http.admin_listen", &["127.0.0.1:0"; 17].join(","), "at most 16"),
            ("http.trusted_proxies", "10.0.0.0/8,10.0.0.1/8", "\"10.0.0.1/8\""),
            ("http.trusted_proxies", "proxy.test", "\"proxy.test\""),
        ] {
            let line = config(&[(key, value)]).unwrap_err();
            assert!(line.contains(bound) && line.starts_with("--set: "), "{line}");
        }
    }

    #[test]
    fn the_pool_holds_four_of_the_largest_messages() {
        assert!(config(&[("websocket.max_message", "4MiB")]).is_ok());
        let line = config(&[("websocket.max_message", "5MiB")]).unwrap_err();
        assert!(line.starts_with("--set: table.receive_pool is 16777216 bytes"), "{line}");
        let line = config(&[("websocket.send_buffer", "33MiB")]).unwrap_err();
        assert!(line.starts_with("--set: websocket.send_buffer_total is 67108864"), "{line}");
        let both = [("websocket.max_message", "5MiB"), ("table.receive_pool", "20MiB")];
        assert!(config(&both).is_ok());
    }
}
