//! How this program was started: the file, the words behind it, what was open.

use crate::sys::{descriptor, exec};
use serde::{Deserialize, Serialize};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What another program is to be started with in this one's place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The file, absolute: another one may have its name by the time it is started again.
    pub(crate) file: OsString,
    /// The words behind the program's name.
    pub(crate) words: Vec<OsString>,
    /// Descriptors that whoever started the server wanted it to have.
    pub(crate) inherited: Vec<RawFd>,
}

impl Start {
    /// Of this process. To be asked before the working directory changes and descriptors are opened.
    pub(crate) fn of_this_process() -> Self {
        let mut words = env::args_os();
        let name = words.next().unwrap_or_default();
        let kept = descriptor::open_numbers().unwrap_or_default().into_iter();
        Self {
            file: file_of(&name).into_os_string(),
            words: words.collect(),
            inherited: kept.filter(|number| *number > 2 && exec::is_kept(*number)).collect(),
        }
    }

    /// All words, the file being the first.
    pub(crate) fn words(&self) -> Vec<OsString> {
        std::iter::once(&self.file).chain(&self.words).cloned().collect()
    }
}

/// The file that was named, and not what `/proc/self/exe` makes of it: a name that leads to another
/// file tomorrow is what is to be started tomorrow. Where the name leads elsewhere already, it was only a
/// name.
fn file_of(name: &OsStr) -> PathBuf {
    let exe = Path::new("/proc/self/exe");
    let is_this = |path: &PathBuf| {
        let (Ok(named), Ok(running)) = (fs::metadata(path), fs::metadata(exe)) else {
            return false;
        };
        (named.dev(), named.ino()) == (running.dev(), running.ino())
    };
    let given = Path::new(name);
    let found = if given.components().count() > 1 {
        std::path::absolute(given).ok()
    } else {
        let places = env::var_os("PATH").unwrap_or_default();
        let mut candidates = env::split_paths(&places).map(|place| place.join(given));
        candidates.find(is_this).and_then(|path| std::path::absolute(path).ok())
    };
    found.filter(is_this).or_else(|| env::current_exe().ok()).unwrap_or_else(|| given.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_name_and_by_itself_where_the_name_lies() {
        let this = env::current_exe().expect("this test");
        assert_eq!(file_of(this.as_os_str()), this);
        assert_eq!(file_of(OsStr::new("/bin/sh")), this, "another file has the name");
        assert_eq!(file_of(OsStr::new("-login")), this);
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("current");
        std::os::unix::fs::symlink(&this, &link).expect("a link");
        assert_eq!(file_of(link.as_os_str()), link, "a link may lead elsewhere tomorrow");
    }
}
