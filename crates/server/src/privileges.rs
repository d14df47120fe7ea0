//! Privileges that a server started by root needs for a moment, and gives up: `server.user`,
//! `server.group`.
//!
//! Root is needed twice: for a run directory below one of root's, and for listeners on ports below 1024.
//! Everything else, from the log file on, is done as the user the server will be, so that what works at
//! the start works at a reload, too, and no file of root's is ever left where that user may write.
//!
//! ```text
//! root ── enter: groups for good, acts as the user ── with_root: directory, listeners ── give_up: for good
//! ```
//!
//! Invariants: 1. Nothing is forked before `give_up`, but for the first process of a daemon. 2. What
//! cannot be given up whole is no server: the start fails. 3. A program that takes the place of a running
//! one has nothing to give up: the one before it did.

use crate::config::Config;
use crate::exit::ExitCode;
use crate::run_dir::{RunDir, RunDirError};
use crate::sys::privileges::{self as sys, Account, Identity};
use crate::upgrade;
use std::io;

/// What is left to give up. [`Privileges::enter`] makes it.
#[derive(Debug)]
pub struct Privileges {
    /// Who the server will be; `None` where it stays who it is.
    target: Option<Target>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Target {
    account: Account,
    group: u32,
}

/// The server cannot be who it is to be. Each is one line that names the key or the deed.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// A name or number that this machine does not know.
    #[error("{origin}: {key} names {name:?}, which this machine does not have")]
    Unknown {
        /// Where it was written.
        origin: String,
        /// The key.
        key: &'static str,
        /// What was written.
        name: String,
    },
    /// The accounts of this machine cannot be read.
    #[error("{origin}: {key} {name:?} cannot be looked up: {source}")]
    LookUp {
        /// Where it was written.
        origin: String,
        /// The key.
        key: &'static str,
        /// What was written.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// Root is no user to drop privileges to.
    #[error(
        "{origin}: server.user names root; leave it empty to stay what the server is started as"
    )]
    Root {
        /// Where it was written.
        origin: String,
    },
    /// Only root can become somebody else.
    #[error(
        "{origin}: {key} is {name:?}, but only a server that root starts can become another; this one \
         is user {user}, group {group}"
    )]
    NotRoot {
        /// Where it was written.
        origin: String,
        /// The key.
        key: &'static str,
        /// What was written.
        name: String,
        /// Who this is.
        user: u32,
        /// Its group.
        group: u32,
    },
    /// The kernel did not let us.
    #[error("cannot become user {name:?}: {step}: {source}")]
    Become {
        /// The user.
        name: String,
        /// What failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl PrivilegesError {
    /// With what code a program ends that is told this.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unknown { .. } | Self::Root { .. } | Self::NotRoot { .. } => ExitCode::BadUsage,
            Self::LookUp { .. } | Self::Become { .. } => ExitCode::Failed,
        }
    }
}

impl Privileges {
    /// Acts as the user that the config names from here on, as far as that can be taken back. Where this
    /// was done before it is done again without harm.
    ///
    /// # Errors
    /// There is no such user or group, this is not root, or the kernel refuses.
    pub fn enter(config: &Config) -> Result<Self, PrivilegesError> {
        let succeeds = matches!(upgrade::inherited(), Ok(Some(_)));
        let wanted = if succeeds { None } else { wanted(config)? };
        let Some(target) = wanted else { return Ok(Self::kept()) };
        match judge(sys::identity(), &target) {
            Standing::There => return Ok(Self::kept()),
            Standing::Entered => {}
            Standing::Root => target.enter()?,
            Standing::Other(key) => return Err(not_root(config, key)),
        }
        Ok(Self { target: Some(target) })
    }

    /// Whether there is a user and a group of the names in the config; nothing is done.
    ///
    /// # Errors
    /// There is none.
    pub fn check(config: &Config) -> Result<(), PrivilegesError> {
        wanted(config).map(drop)
    }

    /// Nothing to give up.
    pub(crate) fn kept() -> Self {
        Self { target: None }
    }

    /// The name of the user the server becomes; `None` where it stays who it is.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.target.as_ref().map(|target| target.account.name.as_str())
    }

    /// Has the run directory be the user's, where it is to be made or root's.
    pub(crate) fn prepare(&self, run_dir: &RunDir) -> Result<(), PreparationError> {
        let Some(Target { account, group }) = &self.target else { return Ok(()) };
        Ok(self.with_root(|| run_dir.give_to(account.user, *group))??)
    }

    /// Does as root what only root can.
    pub(crate) fn with_root<R>(&self, deed: impl FnOnce() -> R) -> Result<R, PrivilegesError> {
        let Some(target) = &self.target else { return Ok(deed()) };
        sys::act_as(0).map_err(target.failed("it cannot be root for a moment"))?;
        let done = deed();
        sys::act_as(target.account.user).map_err(target.failed("its user id cannot be set"))?;
        Ok(done)
    }

    /// Gives up all that is left, for good.
    pub(crate) fn give_up(&self) -> Result<(), PrivilegesError> {
        let Some(target) = &self.target else { return Ok(()) };
        let Target { account: Account { name, user, .. }, group } = target;
        sys::become_for_good(*user, *group)
            .map_err(target.failed("root's privileges cannot be given up"))?;
        tracing::info!(%name, user, group, "privileges are dropped");
        Ok(())
    }
}

/// The run directory could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PreparationError {
    #[error("{0}")]
    Privileges(#[from] PrivilegesError),
    #[error("{0}")]
    RunDir(#[from] RunDirError),
}

impl Target {
    fn enter(&self) -> Result<(), PrivilegesError> {
        sys::take_groups(&self.account, self.group)
            .map_err(self.failed("its groups cannot be set"))?;
        sys::act_as(self.account.user).map_err(self.failed("its user id cannot be set"))
    }

    fn failed(&self, step: &'static str) -> impl FnOnce(io::Error) -> PrivilegesError {
        let name = self.account.name.clone();
        move |source| PrivilegesError::Become { name, step, source }
    }
}

/// How this process stands to who it is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It is root, and can become anybody.
    Root,
    /// It was root, and acts as that user.
    Entered,
    /// It was started as that user.
    There,
    /// It is somebody else; the key that says so.
    Other(&'static str),
}

fn judge(now: Identity, target: &Target) -> Standing {
    let user = target.account.user;
    match now.real_user {
        0 if now.effective_user == user => Standing::Entered,
        0 => Standing::Root,
        _ if now.effective_user != user => Standing::Other("server.user"),
        _ if now.effective_group != target.group => Standing::Other("server.group"),
        _ => Standing::There,
    }
}

fn not_root(config: &Config, key: &'static str) -> PrivilegesError {
    let Identity { effective_user: user, effective_group: group, .. } = sys::identity();
    // Without a group of its own the user's decides.
    let key = if config.settings.text(key).is_empty() { "server.user" } else { key };
    let name = config.settings.text(key).to_owned();
    PrivilegesError::NotRoot { origin: origin(config, key), key, name, user, group }
}

fn wanted(config: &Config) -> Result<Option<Target>, PrivilegesError> {
    let Some(name) = &config.user else { return Ok(None) };
    let account = found(config, "server.user", name, sys::account(name))?;
    if account.user == 0 {
        return Err(PrivilegesError::Root { origin: origin(config, "server.user") });
    }
    let group = match &config.group {
        Some(name) => found(config, "server.group", name, sys::group(name))?,
        None => account.group,
    };
    Ok(Some(Target { account, group }))
}

fn found<T>(
    config: &Config,
    key: &'static str,
    name: &str,
    looked_up: io::Result<Option<T>>,
) -> Result<T, PrivilegesError> {
    let (origin, name) = (origin(config, key), name.to_owned());
    match looked_up {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(PrivilegesError::Unknown { origin, key, name }),
        Err(source) => Err(PrivilegesError::LookUp { origin, key, name, source }),
    }
}

fn origin(config: &Config, key: &'static str) -> String {
    config.settings.origin(key).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_becomes_another() {
        let account = Account { name: "bird".to_owned(), user: 7, group: 8 };
        let target = Target { account, group: 9 };
        let standing = |real_user, effective_user, effective_group| {
            judge(Identity { real_user, effective_user, effective_group }, &target)
        };
        assert_eq!(standing(0, 0, 0), Standing::Root);
        assert_eq!(standing(0, 7, 9), Standing::Entered);
        assert_eq!(standing(7, 7, 9), Standing::There);
        assert_eq!(standing(7, 7, 8), Standing::Other("server.group"));
        assert_eq!(standing(6, 6, 9), Standing::Other("server.user"));
        assert_eq!(standing(6, 7, 9), Standing::There, "what it may do is what counts");
    }
}
