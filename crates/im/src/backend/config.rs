//! What `[backend]` says, typed.
//!
//! Reads no file: the secret is named here, and read by `Backend::load`. Invariant: with a URL
//! there is a secret.

use crate::auth::{Algorithm, KeyConfig, Source};
use dunlin_server::settings::Settings;
use dunlin_table::hash_key;
use std::path::PathBuf;

/// How much longer than one request a task may be at it: then its process is killed.
const TASK_MARGIN_MS: u64 = 3_000;

/// What `[backend]` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Where the backend is; `None`: there is none.
    pub target: Option<Target>,
    /// Which events it is told.
    pub events: Events,
    /// Of how many messages one is told; 1 is all.
    pub message_sample: u64,
    /// How long one request may take, in milliseconds.
    pub timeout_ms: u64,
    /// How often one event is tried.
    pub max_attempts: u64,
    /// What it is asked before it is done.
    pub authorise: Authorise,
    /// Whether what it cannot be asked is done all the same.
    pub allow_unasked: bool,
}

/// Where the backend is, and what proves to it who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `http://` or `https://`.
    pub url: String,
    /// Where the secret is.
    pub secret: KeyConfig,
    /// Who vouches for an `https://` URL, in PEM; `None`: whom the system trusts.
    pub roots: Option<PathBuf>,
}

/// Events that are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Somebody has logged in.
    pub login: bool,
    /// A login is over.
    pub logout: bool,
    /// A message was sent.
    pub message: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Authorise {
    /// Whether a login may be.
    pub login: bool,
    /// Whether a room may be joined.
    pub join: bool,
}

/// `[backend]` does not go together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BackendConfigError {
    /// It is no URL that can be called.
    #[error(
        "{origin}: backend.url must be http:// or https:// and a host, such as http://127.0.0.1:8000/dunlin"
    )]
    BadUrl {
        /// Where it was written.
        origin: String,
    },
    /// Nothing would prove to the backend that a request is ours.
    #[error(
        "{origin}: backend.url needs backend.secret_file, the file of a secret that the backend has, \
         too; `openssl rand -hex 32` makes one"
    )]
    NoSecret {
        /// Where the URL was written.
        origin: String,
    },
    /// A word of a list that means nothing.
    #[error("{origin}: {key} has a word that is none of {known}")]
    UnknownWord {
        /// Where it was written.
        origin: String,
        /// The setting.
        key: &'static str,
        /// What there is.
        known: &'static str,
    },
    /// There is nobody to ask.
    #[error("{origin}: backend.authorise needs backend.url")]
    NobodyToAsk {
        /// Where it was written.
        origin: String,
    },
    /// The process of a task would be killed while it waits for the backend.
    #[error(
        "{origin}: backend.timeout must be at least {TASK_MARGIN_MS} ms below server.task_timeout"
    )]
    TooPatient {
        /// Where it was written.
        origin: String,
    },
}

impl BackendConfig {
    /// The typed form of resolved settings.
    ///
    /// # Errors
    /// See [`BackendConfigError`].
    pub fn from_settings(settings: &Settings) -> Result<Self, BackendConfigError> {
        let target = target(settings)?;
        let [login, logout, message] =
            words(settings, "backend.events", ["login", "logout", "message"])?;
        let [ask_login, ask_join] = words(settings, "backend.authorise", ["login", "join"])?;
        let origin = |key| settings.origin(key).to_string();
        if target.is_none() && (ask_login || ask_join) {
            return Err(BackendConfigError::NobodyToAsk { origin: origin("backend.authorise") });
        }
        let timeout_ms = settings.duration_ms("backend.timeout");
        let task_timeout_ms = settings.duration_ms("server.task_timeout");
        if target.is_some() && timeout_ms + TASK_MARGIN_MS > task_timeout_ms {
            return Err(BackendConfigError::TooPatient { origin: origin("backend.timeout") });
        }
        Ok(Self {
            target,
            events: Events { login, logout, message },
            message_sample: settings.count("backend.message_sample"),
            timeout_ms,
            max_attempts: settings.count("backend.max_attempts"),
            authorise: Authorise { login: ask_login, join: ask_join },
            allow_unasked: settings.text("backend.authorise_failure") == "allow",
        })
    }
}

impl BackendConfig {
    /// What tells two URLs apart, across processes.
    pub(super) fn target_hash(&self) -> u64 {
        self.target.as_ref().map_or(0, |target| hash_key(target.url.as_bytes(), 0))
    }
}

fn target(settings: &Settings) -> Result<Option<Target>, BackendConfigError> {
    let url = settings.text("backend.url");
    if url.is_empty() {
        return Ok(None);
    }
    let origin = settings.origin("backend.url").to_string();
    if !is_callable(url) {
        return Err(BackendConfigError::BadUrl { origin });
    }
    let Some(path) = settings.path("backend.secret_file") else {
        return Err(BackendConfigError::NoSecret { origin });
    };
    let secret = KeyConfig {
        kid: None,
        algorithm: Algorithm::Hs256,
        source: Source::File(path.to_owned()),
        signing: None,
        origin: format!("{}: backend.secret_file", settings.origin("backend.secret_file")),
    };
    let roots = settings.path("backend.ca_file").map(ToOwned::to_owned);
    Ok(Some(Target { url: url.to_owned(), secret, roots }))
}

/// Whether a URL has a scheme of ours and a host, and no user or password: these would be shown.
fn is_callable(url: &str) -> bool {
    let Ok(uri) = url.parse::<ureq::http::Uri>() else { return false };
    let host = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    matches!(uri.scheme_str(), Some("http" | "https"))
        && host.is_some_and(|host| !host.host().is_empty())
}

/// Which of the known words a list has.
fn words<const N: usize>(
    settings: &Settings,
    key: &'static str,
    known: [&'static str; N],
) -> Result<[bool; N], BackendConfigError> {
    let mut found = [false; N];
    for word in settings.list(key) {
        let Some(place) = known.iter().position(|known| known == word) else {
            let origin = settings.origin(key).to_string();
            let known = if N == 3 { "login, logout and message" } else { "login and join" };
            return Err(BackendConfigError::UnknownWord { origin, key, known });
        };
        found[place] = true;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IM_KEYS;
    use dunlin_server::config::SERVER_KEYS;
    use dunlin_server::settings::Layers;

    fn read(words: &[(&'static str, &str)]) -> Result<BackendConfig, String> {
        let mut layers = Layers::default();
        for (key, word) in words {
            layers.flag_words(key, word, "--set");
        }
        let settings = Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap();
        BackendConfig::from_settings(&settings).map_err(|error| error.to_string())
    }

    const URL: (&str, &str) = ("backend.url", "http://127.0.0.1:8000/dunlin");
    const SECRET: (&str, &str) = ("backend.secret_file", "hush.key");

    #[test]
    fn without_a_url_there_is_no_backend() {
        let config = read(&[]).unwrap();
        assert_eq!(config.target, None);
        assert_eq!(config.events, Events { login: true, logout: true, message: false });
        assert!(!config.allow_unasked && config.authorise == Authorise::default());
        let refused = read(&[("backend.authorise", "login")]).unwrap_err();
        assert_eq!(refused, "--set: backend.authorise needs backend.url");
    }

    #[test]
    fn a_url_needs_a_secret_and_time() {
        assert!(read(&[URL]).unwrap_err().contains("needs backend.secret_file"));
        let config =
            read(&[URL, SECRET, ("backend.events", "message"), ("backend.authorise", "join")]);
        let config = config.unwrap();
        assert_eq!(config.target.unwrap().secret.origin, "--set: backend.secret_file");
        assert_eq!(config.events, Events { message: true, ..Events::default() });
        assert_eq!(config.authorise, Authorise { join: true, login: false });
        let hasty = read(&[URL, SECRET, ("server.task_timeout", "5s")]).unwrap_err();
        assert!(hasty.contains("server.task_timeout"), "{hasty}");
    }

    #[test]
    fn what_cannot_be_called_is_refused() {
        for url in [
            "127.0.0.1:8000",
            "ftp://host/",
            "http://",
            "/path",
            "http://a b/",
            "https://ann:pw@host/",
        ] {
            let refused = read(&[("backend.url", url), SECRET]).unwrap_err();
            assert!(refused.contains("must be http:// or https://"), "{url}: {refused}");
            assert!(!refused.contains("pw"));
        }
        for url in ["http://h", "https://h:1/p?q=1", "http://[::1]:8/"] {
            assert!(read(&[("backend.url", url), SECRET]).is_ok(), "{url}");
        }
        assert!(read(&[("backend.events", "login,signin")]).unwrap_err().contains("login, logout"));
        assert!(read(&[("backend.authorise", "send")]).unwrap_err().contains("login and join"));
    }
}
