//! What `[redis]` says, typed.
//!
//! Reads no file and makes no connection. Invariant: no error shows the URL or the password.

use crate::auth::config::{Secret, Source};
use dunlin_server::settings::{KeyKind, KeySpec, Origin, Settings};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

const HOUR_MS: u64 = 3_600_000;
/// Longest prefix of keys, in bytes.
const PREFIX_MAX: usize = 64;
/// The most questions of one worker that may be under way.
pub(crate) const QUERIES_BOUND: u64 = 1_024;

/// `redis.url`
pub(crate) const URL: KeySpec = KeySpec::reload(
    "redis.url",
    KeyKind::Text,
    "\"\"",
    "The Redis of the online list; empty for none.",
);
/// `redis.password_file`
pub(crate) const PASSWORD_FILE: KeySpec =
    KeySpec::reload("redis.password_file", KeyKind::Path, "\"\"", "The file of its password.");
/// `redis.password`
pub(crate) const PASSWORD: KeySpec = KeySpec {
    key: "redis.password",
    kind: KeyKind::Text,
    default: "\"\"",
    reloadable: true,
    secret: true,
    doc: "Its password, from the environment.",
};
/// `redis.prefix`
pub(crate) const PREFIX: KeySpec = KeySpec::reload(
    "redis.prefix",
    KeyKind::Text,
    "\"dunlin:\"",
    "What every key in Redis begins with.",
);
/// `redis.lease`
pub(crate) const LEASE: KeySpec = KeySpec::reload(
    "redis.lease",
    KeyKind::Duration { min_ms: 500, max_ms: HOUR_MS },
    "\"15s\"",
    "How long other nodes believe this one without hearing of it.",
);
/// `redis.timeout`
pub(crate) const TIMEOUT: KeySpec = KeySpec::reload(
    "redis.timeout",
    KeyKind::Duration { min_ms: 50, max_ms: 30_000 },
    "\"1s\"",
    "How long one call to Redis may take, and a question about other nodes.",
);
/// `redis.max_changes`
pub(crate) const MAX_CHANGES: KeySpec = KeySpec::reload(
    "redis.max_changes",
    KeyKind::Count { min: 1, max: 1 << 20 },
    "16384",
    "Users whose change may wait in one worker to be written.",
);
/// `redis.max_queries`
pub(crate) const MAX_QUERIES: KeySpec = KeySpec::reload(
    "redis.max_queries",
    KeyKind::Count { min: 1, max: QUERIES_BOUND },
    "256",
    "Questions about other nodes that one worker may have under way.",
);

/// What `[redis]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where Redis is, read once; `None`: no list beyond this node is kept.
    pub url: Option<String>,
    /// Where its password is.
    pub password: Option<Source>,
    /// Where the password was named.
    pub password_origin: String,
    /// What every key begins with.
    pub prefix: String,
    /// How long other nodes believe this one without hearing of it, in milliseconds.
    pub lease_ms: u64,
    /// How long one call may take, in milliseconds; at most half the lease.
    pub timeout_ms: u64,
    /// Users whose change may wait in one worker.
    pub max_changes: usize,
    /// Questions about other nodes that one worker may have under way.
    pub max_queries: usize,
}

/// `[redis]` does not go together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RedisConfigError {
    /// The URL is none.
    #[error(
        "{origin}: redis.url is no URL of a Redis; write \"redis://HOST:PORT/DB\" or \
         \"unix:///path/of/socket\""
    )]
    BadUrl {
        /// Where it was written.
        origin: String,
    },
    /// The URL asks for TLS.
    #[error(
        "{origin}: redis.url asks for TLS, which is not built in; use a Unix socket, or a tunnel on this \
         machine"
    )]
    Tls {
        /// Where it was written.
        origin: String,
    },
    /// The URL has a password in it, which `dunlin check` and `ps` would show.
    #[error(
        "{origin}: redis.url has a password in it; put that into a file of its own and name it by \
         redis.password_file"
    )]
    PasswordInUrl {
        /// Where it was written.
        origin: String,
    },
    /// The password stands in the config file.
    #[error(
        "{origin}: redis.password is taken from the environment only (DUNLIN_REDIS__PASSWORD); put it \
         into a file of its own and name that by redis.password_file"
    )]
    PasswordInFile {
        /// Where it was written.
        origin: String,
    },
    /// Two passwords are given.
    #[error("{origin}: redis.password and redis.password_file are both set; take one")]
    TwoPasswords {
        /// Where the first of them stands.
        origin: String,
    },
    /// The prefix is no part of a key.
    #[error(
        "{origin}: redis.prefix must have at most {PREFIX_MAX} bytes and no control characters"
    )]
    BadPrefix {
        /// Where it was written.
        origin: String,
    },
    /// A lease would be over before two calls are.
    #[error("{origin}: redis.timeout must be at most half of redis.lease")]
    TimeoutTooLong {
        /// Where it was written.
        origin: String,
    },
    /// Nobody is there who may wait for Redis.
    #[error("{origin}: redis.url needs a task process: server.task_workers is 0")]
    NoTaskProcess {
        /// Where it was written.
        origin: String,
    },
}

impl RedisConfig {
    /// The typed form of resolved settings.
    ///
    /// # Errors
    /// See [`RedisConfigError`].
    pub fn from_settings(settings: &Settings) -> Result<Self, RedisConfigError> {
        let origin = |key| settings.origin(key).to_string();
        let url = Some(settings.text(URL.key)).filter(|url| !url.is_empty());
        let url_origin = || origin(URL.key);
        if let Some(url) = url {
            parse(url).map_err(|wrong| wrong.at(url_origin()))?;
            if settings.count("server.task_workers") == 0 {
                return Err(RedisConfigError::NoTaskProcess { origin: url_origin() });
            }
        }
        let prefix = settings.text(PREFIX.key);
        if prefix.len() > PREFIX_MAX || prefix.chars().any(char::is_control) {
            return Err(RedisConfigError::BadPrefix { origin: origin(PREFIX.key) });
        }
        let (lease_ms, timeout_ms) =
            (settings.duration_ms(LEASE.key), settings.duration_ms(TIMEOUT.key));
        if timeout_ms > lease_ms / 2 {
            return Err(RedisConfigError::TimeoutTooLong { origin: origin(TIMEOUT.key) });
        }
        let (password, password_origin) = password(settings)?;
        let count = |key| usize::try_from(settings.count(key)).unwrap_or(usize::MAX);
        Ok(Self {
            url: url.map(str::to_owned),
            password,
            password_origin,
            prefix: prefix.to_owned(),
            lease_ms,
            timeout_ms,
            max_changes: count(MAX_CHANGES.key),
            max_queries: count(MAX_QUERIES.key),
        })
    }
}

/// What is wrong with a URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WrongUrl {
    No,
    Tls,
    Password,
}

impl WrongUrl {
    fn at(self, origin: String) -> RedisConfigError {
        match self {
            Self::No => RedisConfigError::BadUrl { origin },
            Self::Tls => RedisConfigError::Tls { origin },
            Self::Password => RedisConfigError::PasswordInUrl { origin },
        }
    }
}

/// Where a URL leads.
pub(crate) fn parse(url: &str) -> Result<ConnectionInfo, WrongUrl> {
    let info = url.into_connection_info().map_err(|_| match url.starts_with("rediss:") {
        true => WrongUrl::Tls,
        false => WrongUrl::No,
    })?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Err(WrongUrl::Tls);
    }
    if info.redis_settings().password().is_some() {
        return Err(WrongUrl::Password);
    }
    Ok(info)
}

/// Where the password is, and where that was said.
fn password(settings: &Settings) -> Result<(Option<Source>, String), RedisConfigError> {
    let origin = settings.origin(PASSWORD.key);
    let text = settings.text(PASSWORD.key);
    let given = match origin {
        Origin::File { .. } if !text.is_empty() => {
            return Err(RedisConfigError::PasswordInFile { origin: origin.to_string() });
        }
        Origin::Environment(_) | Origin::Flag(_) if !text.is_empty() => {
            Some(Secret(text.as_bytes().to_vec()))
        }
        _ => None,
    };
    match (given, settings.path(PASSWORD_FILE.key)) {
        (None, None) => Ok((None, String::new())),
        (Some(_), Some(_)) => Err(RedisConfigError::TwoPasswords { origin: origin.to_string() }),
        (Some(secret), None) => {
            Ok((Some(Source::Given(secret)), format!("{origin}: {}", PASSWORD.key)))
        }
        (None, Some(path)) => {
            let origin = settings.origin(PASSWORD_FILE.key);
            Ok((Some(Source::File(path.to_owned())), format!("{origin}: {}", PASSWORD_FILE.key)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IM_KEYS;
    use dunlin_server::config::SERVER_KEYS;
    use dunlin_server::settings::{FileEntry, FileLayer, Layers, Literal};

    fn read(words: &[(&'static str, &str)]) -> Result<RedisConfig, RedisConfigError> {
        let mut layers = Layers::default();
        for (key, word) in words {
            layers.flag_words(key, word, "--set");
        }
        RedisConfig::from_settings(&Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap())
    }

    #[test]
    fn without_a_url_there_is_no_redis() {
        let config = read(&[]).unwrap();
        assert_eq!((config.url, config.password), (None, None));
        assert_eq!(
            (config.lease_ms, config.timeout_ms, &*config.prefix),
            (15_000, 1_000, "dunlin:")
        );
        assert_eq!((config.max_changes, config.max_queries), (16_384, 256));
    }

    #[test]
    fn a_url_leads_to_a_redis_and_holds_no_password() {
        for good in ["redis://h", "redis://h:1/3", "redis://ann@h:1", "unix:///s", "unix:///s?db=2"]
        {
            assert_eq!(read(&[("redis.url", good)]).unwrap().url.as_deref(), Some(good), "{good}");
        }
        for (bad, words) in [
            ("h:6379", "no URL"),
            ("http://h", "no URL"),
            ("redis://", "no URL"),
            ("redis://h/x", "no URL"),
            ("rediss://h", "TLS"),
            ("redis://:hush@h", "password_file"),
            ("redis://ann:hush@h", "password_file"),
            ("unix:///s?pass=hush", "password_file"),
        ] {
            let error = read(&[("redis.url", bad)]).unwrap_err().to_string();
            assert!(
                error.starts_with("--set: redis.url") && error.contains(words),
                "{bad}: {error}"
            );
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let url = ("redis.url", "redis://h");
        let error = |words: &[(&'static str, &str)]| read(words).unwrap_err();
        assert!(matches!(
            error(&[url, ("server.task_workers", "0")]),
            RedisConfigError::NoTaskProcess { .. }
        ));
        assert!(matches!(
            error(&[("redis.lease", "1s"), ("redis.timeout", "501ms")]),
            RedisConfigError::TimeoutTooLong { .. }
        ));
        assert!(read(&[("redis.lease", "1s"), ("redis.timeout", "500ms")]).is_ok());
        for prefix in ["a\nb", &"x".repeat(65)] {
            let error = error(&[("redis.prefix", prefix)]);
            assert!(matches!(error, RedisConfigError::BadPrefix { .. }));
        }
        assert!(read(&[("redis.prefix", &"x".repeat(64))]).is_ok());
    }

    #[test]
    fn the_password_comes_from_a_file_or_the_environment() {
        let resolve = |layers| {
            let settings = Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap();
            RedisConfig::from_settings(&settings)
        };
        let variable = |text: &str| Layers {
            environment: vec![("DUNLIN_REDIS__PASSWORD".into(), text.into())],
            ..Layers::default()
        };
        let config = resolve(variable("hush")).unwrap();
        assert_eq!(config.password, Some(Source::Given(Secret(b"hush".to_vec()))));
        assert!(!format!("{config:?}").contains("hush"));
        let mut both = variable("hush");
        both.flag_words("redis.password_file", "f", "--set");
        assert!(matches!(resolve(both).unwrap_err(), RedisConfigError::TwoPasswords { .. }));
        let file = read(&[("redis.password_file", "/p")]).unwrap();
        assert_eq!(file.password, Some(Source::File("/p".into())));
        assert_eq!(file.password_origin, "--set: redis.password_file");
        let value = Literal::Text("hush".into());
        let entries = vec![FileEntry { key: "redis.password".into(), value, line: 3 }];
        let file = Some(FileLayer { path: "d.toml".into(), entries });
        let error = resolve(Layers { file, ..Layers::default() }).unwrap_err().to_string();
        assert!(error.starts_with("d.toml:3: redis.password is taken"), "{error}");
        let mut flag = Layers::default();
        flag.flag_words("redis.password", "hush", "--set");
        let error = Settings::resolve(&[SERVER_KEYS, IM_KEYS], flag).unwrap_err().to_string();
        assert!(error.contains("set redis.password_file"), "{error}");
    }
}
