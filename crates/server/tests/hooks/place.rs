//! A directory of one test: the server's settings, run directory, record, log and marks.
//!
//! Both sides know it: the test writes settings and marks, the server reads them at its start and at
//! each reload.

use std::fs;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    dir: PathBuf,
}

impl Place {
    /// A place in a directory that is there.
    pub(crate) fn existing(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.dir.join("record")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    /// Key and value of each setting.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.dir.join("settings")).unwrap_or_default();
        let pair = |line: &str| {
            line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
        };
        text.lines().filter_map(pair).collect()
    }

    /// Sets a setting, for the next start or reload.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let mut settings = self.settings();
        settings.retain(|(known, _)| known != key);
        settings.push((key.into(), value.into()));
        let lines: String =
            settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        fs::write(self.dir.join("settings"), lines).expect("the test's own directory");
    }

    /// Leaves a mark that the application looks for.
    pub(crate) fn mark(&self, what: &str) {
        fs::write(self.dir.join(what), "").expect("the test's own directory");
    }

    pub(crate) fn unmark(&self, what: &str) {
        fs::remove_file(self.dir.join(what)).expect("the mark was left");
    }

    pub(crate) fn is_marked(&self, what: &str) -> bool {
        self.dir.join(what).exists()
    }
}
