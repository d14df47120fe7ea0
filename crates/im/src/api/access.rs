//! Who may call the API: its key, and from which pages.
//!
//! Knows where the key comes from; judges no request. Invariant: what a reload refuses has changed
//! nothing.

use super::key::{ApiKey, ApiKeyError};
use dunlin_server::MasterContext;
use dunlin_server::http::{Door, OriginPolicy};
use dunlin_server::settings::Settings;
use std::path::Path;

/// See the module.
#[derive(Debug)]
pub(crate) struct Access {
    /// `http.api_key_file`.
    configured: Option<ApiKey>,
    /// The key that the server made; kept, so that it is the same if it is wanted again.
    made: Option<ApiKey>,
    /// Why there is none.
    problem: Option<ApiKeyError>,
    /// `websocket.allowed_origins`, which holds for the API, too.
    pub(super) origins: OriginPolicy,
    /// `http.admin_listen` names addresses for it.
    has_own_door: bool,
}

impl Access {
    /// As the settings say. A key that the server makes is there after [`Access::start`].
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, ApiKeyError> {
        let origins = OriginPolicy::from_allowed(settings.list("websocket.allowed_origins"));
        let has_own_door = !settings.list("http.admin_listen").is_empty();
        let configured = configured(settings)?;
        Ok(Self { configured, made: None, problem: None, origins, has_own_door })
    }

    /// In the master, before there is any other process: makes the key if none is configured. An
    /// application that is tested without a server has no run directory, no key, and lets nobody in.
    pub(crate) fn start(&mut self, run_dir: &Path) {
        if self.configured.is_some() || !run_dir.is_dir() {
            return;
        }
        match ApiKey::in_run_dir(run_dir) {
            Ok(key) => self.made = Some(key),
            Err(error) => self.problem = Some(error),
        }
    }

    /// In a worker that starts: whether there is a key.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.problem.as_ref().map_or(Ok(()), |error| Err(error.to_string()))
    }

    /// What a reload puts in the place of this.
    pub(crate) fn reloaded(
        &self,
        master: &MasterContext<'_>,
        settings: &Settings,
    ) -> Result<Self, ApiKeyError> {
        let mut newer = Self { made: self.made.clone(), ..Self::from_settings(settings)? };
        if newer.configured.is_none() {
            match &newer.made {
                Some(key) => key.put_back(master.run_dir)?,
                None => newer.start(master.run_dir),
            }
            if let Some(error) = newer.problem.take() {
                return Err(error);
            }
        }
        Ok(newer)
    }

    /// Whether what is for who runs the server is served at a door.
    pub(crate) fn admits_admins(&self, door: Door) -> bool {
        door == Door::Admin || !self.has_own_door
    }

    /// The key that holds now.
    pub(super) fn key(&self) -> Option<&ApiKey> {
        self.configured.as_ref().or(self.made.as_ref())
    }
}

fn configured(settings: &Settings) -> Result<Option<ApiKey>, ApiKeyError> {
    let Some(path) = settings.path("http.api_key_file") else { return Ok(None) };
    let origin = || settings.origin("http.api_key_file").to_string();
    let key = ApiKey::load(path)
        .map_err(|problem| ApiKeyError::Configured { origin: origin(), problem })?;
    Ok(Some(key))
}
