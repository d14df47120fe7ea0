//! The directory of a test: config file, log and run directory, gone with the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// See the module.
#[derive(Debug)]
pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("dunlin-").tempdir();
        Self(dir.expect("a temporary directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.path().join("run")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path().join("dunlin.toml")
    }

    pub(crate) fn write_config(&self, toml: &str) {
        fs::write(self.config_file(), toml).expect("the config file can be written");
    }

    /// A file with a key or a secret, and who may read it.
    pub(crate) fn write_key(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        path
    }

    /// Where a server's standard error goes.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.path().join("stderr")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}
