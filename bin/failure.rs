//! Why a command did not do what it was asked to: one line for people, and the exit code.

use dunlin_server::config::ConfigError;
use dunlin_server::control::ControlError;
use dunlin_server::exit::ExitCode;
use dunlin_server::logging::LogError;
use dunlin_server::privileges::PrivilegesError;
use dunlin_server::settings::{SettingsError, one_line};
use std::fmt;

/// What `main` prints and exits with. The line is one, whatever keys and paths are in it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    line: String,
}

impl Failure {
    /// It was tried and failed.
    pub(crate) fn failed(line: impl Into<String>) -> Self {
        Self { code: ExitCode::Failed, line: line.into() }
    }

    /// It ended so.
    pub(crate) fn with_code(code: ExitCode, line: impl Into<String>) -> Self {
        Self { code, line: line.into() }
    }

    /// Flags or config are wrong; nothing was begun.
    pub(crate) fn bad_usage(line: impl Into<String>) -> Self {
        Self { code: ExitCode::BadUsage, line: line.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.line))
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::bad_usage(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::bad_usage(error.to_string())
    }
}

impl From<PrivilegesError> for Failure {
    fn from(error: PrivilegesError) -> Self {
        Self { code: error.exit_code(), line: error.to_string() }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::NotRunning { .. } => ExitCode::NotRunning,
            _ => ExitCode::Failed,
        };
        Self { code, line: error.to_string() }
    }
}
