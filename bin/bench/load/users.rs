//! The users of a run: their names, and what they log in with.

use crate::bench::client::moment::Moment;
use crate::bench::client::protocol::Credential;
use crate::cli::SettingsFlags;
use crate::failure::Failure;
use crate::random;
use crate::settings_file::Sources;
use dunlin_im::ImConfig;
use dunlin_im::auth::{NewToken, mint};
use dunlin_im::ids::UserId;
use dunlin_server::clock;
use std::path::Path;

/// See the module.
#[derive(Debug)]
pub(super) struct Users {
    names: Vec<String>,
    /// One for each user, in the token mode.
    tokens: Option<Vec<String>>,
}

/// How long a token of ours holds: longer than any run.
const TOKEN_TTL_S: u64 = 2 * 86_400;

impl Users {
    /// So many users that no other run has; with tokens where there is a secret.
    ///
    /// # Errors
    /// The secret does not sign.
    pub(super) fn new(count: usize, secret: Option<&Path>) -> Result<Self, Failure> {
        let process = u64::from(std::process::id()) << 40;
        let run = random::mix(Moment::now().us_since(Moment::default()) ^ process) >> 40;
        let names: Vec<String> = (0..count).map(|user| format!("bench-{run:x}-{user}")).collect();
        let tokens = secret.map(|secret| tokens(&names, secret)).transpose()?;
        Ok(Self { names, tokens })
    }

    pub(super) fn name(&self, user: usize) -> &str {
        self.names.get(user).map_or("", String::as_str)
    }

    pub(super) fn credential(&self, user: usize) -> Credential<'_> {
        match self.tokens.as_ref().and_then(|tokens| tokens.get(user)) {
            Some(token) => Credential::Token(token),
            None => Credential::User(self.name(user)),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.names.len()
    }
}

fn tokens(names: &[String], secret: &Path) -> Result<Vec<String>, Failure> {
    let flags = SettingsFlags {
        set: vec!["auth.mode=token".to_owned(), format!("auth.secret_file={}", secret.display())],
        ..SettingsFlags::default()
    };
    let config = ImConfig::from_settings(&Sources::new(&flags)?.settings()?)
        .map_err(|error| Failure::bad_usage(error.to_string()))?;
    let now = clock::unix_ms();
    let token = |name: &String| {
        let user =
            UserId::new(name.as_str()).map_err(|error| Failure::failed(error.to_string()))?;
        let token = NewToken { user, device: None, rooms: Vec::new(), ttl_s: TOKEN_TTL_S };
        mint(&config.auth, None, &token, now).map_err(|error| Failure::bad_usage(error.to_string()))
    };
    names.iter().map(token).collect()
}
