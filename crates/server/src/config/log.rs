//! What `[log]` says.

use std::path::PathBuf;

/// Where and how to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
    /// The file, absolute; standard error if there is none.
    pub file: Option<PathBuf>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `time level role[slot.gen] pid target: what key=value`.
    #[default]
    Text,
    /// One JSON object.
    Json,
}
