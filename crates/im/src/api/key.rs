//! The key that opens the API: read from its file, or made at the start.
//!
//! Knows files and what makes a key unfit; knows no request. Invariants: 1. A key is long, is none that
//! everybody knows, and came from no file that everybody reads. 2. No key stands in an error, a log
//! line or a `Debug`. 3. A key that was made is the same for the life of the server, over reloads and
//! upgrades: it stands in the run directory, where a program that takes the server over finds it.

use crate::auth::keyring::{self, KeyProblem};
use dunlin_server::run_dir::RunDir;
use std::fmt;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Random bytes of a key that is made; it is written as twice as many hexadecimal digits.
const RANDOM_BYTES: usize = 32;

/// What a caller must have.
#[derive(Clone)]
pub(crate) struct ApiKey(Vec<u8>);

/// The API has no key.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    /// The file of the config is not usable.
    #[error("{origin}: http.api_key_file: {problem}")]
    Configured {
        /// Where it was written.
        origin: String,
        /// Why not.
        problem: KeyProblem,
    },
    /// The key that a server before this one made cannot be read.
    #[error("the key of the HTTP API: {0}")]
    Made(#[from] KeyProblem),
    /// It could not be written.
    #[error("cannot write the key of the HTTP API to {}: {source}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel gave no random bytes.
    #[error("no random bytes from the kernel: {0}")]
    Random(getrandom::Error),
}

impl ApiKey {
    /// The key in a file of the operator's.
    pub(super) fn load(path: &Path) -> Result<Self, KeyProblem> {
        let key = keyring::secret_in(path)?;
        // It travels in a header.
        if key.iter().all(u8::is_ascii_graphic) { Ok(Self(key)) } else { Err(KeyProblem::NotText) }
    }

    /// The key that stands in the run directory; a new one where none does.
    pub(super) fn in_run_dir(run_dir: &Path) -> Result<Self, ApiKeyError> {
        let path = RunDir::locate(Some(run_dir)).api_key();
        // It cannot be a leftover: those are removed when the directory is occupied.
        if path.exists() {
            return Ok(Self::load(&path)?);
        }
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(ApiKeyError::Random)?;
        let key = Self(random.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
        key.write(&path).map_err(|source| ApiKeyError::Write { path, source })?;
        Ok(key)
    }

    /// Writes it where it is missing.
    pub(super) fn put_back(&self, run_dir: &Path) -> Result<(), ApiKeyError> {
        let path = RunDir::locate(Some(run_dir)).api_key();
        if path.exists() {
            return Ok(());
        }
        self.write(&path).map_err(|source| ApiKeyError::Write { path, source })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&[&*self.0, b"\n"].concat())
    }

    /// Whether it is this one. How long that takes tells nothing of the key but its length.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        let mut difference = u8::from(given.len() != self.0.len());
        for (place, byte) in given.iter().enumerate() {
            difference = black_box(difference | (byte ^ self.0[place % self.0.len()]));
        }
        difference == 0
    }
}

/// Nobody may see it.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "0123456789abcdefghijklmnopqrstuv";

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.key");
        let key = ApiKey::in_run_dir(dir.path()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (65, true));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(key.is(text.trim_end().as_bytes()));
        let again = ApiKey::in_run_dir(dir.path()).unwrap();
        assert!(again.is(text.trim_end().as_bytes()), "a program that takes over has the same");
        fs::remove_file(&path).unwrap();
        key.put_back(dir.path()).unwrap();
        key.put_back(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::remove_file(&path).unwrap();
        let other = ApiKey::in_run_dir(dir.path()).unwrap();
        assert!(!other.is(text.trim_end().as_bytes()), "another server has another");
        assert!(ApiKey::in_run_dir(Path::new("/dev/null")).is_err());
        assert_eq!(format!("{key:?}"), "***");
    }

    #[test]
    fn only_the_whole_key_is_the_key() {
        let key = ApiKey(KEY.into());
        assert!(key.is(KEY.as_bytes()));
        let twice = [KEY, KEY].concat();
        for wrong in
            ["", "0", &KEY[..31], &twice, &KEY.to_uppercase(), "x123456789abcdefghijklmnopqrstuv"]
        {
            assert!(!key.is(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_key_file_is_judged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let load = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            ApiKey::load(&path).map_err(|problem| problem.to_string())
        };
        assert!(load(&format!("{KEY}\r\n"), 0o600).unwrap().is(KEY.as_bytes()));
        assert!(load(KEY, 0o640).is_ok());
        for (text, mode, problem) in [
            ("", 0o600, "empty"),
            ("\n", 0o600, "empty"),
            (&KEY[..31], 0o600, "31 bytes"),
            (&"x".repeat(40), 0o600, "different bytes"),
            ("0123456789abcdef 0123456789abcdef", 0o600, "visible ASCII"),
            ("0123456789abcdefghijklmnopqrstuvé", 0o600, "visible ASCII"),
            (KEY, 0o644, "chmod o-rwx"),
        ] {
            let said = load(text, mode).unwrap_err();
            assert!(said.contains(problem), "{said}");
            assert!(text.len() < 8 || !said.contains(text), "{said}");
        }
        assert!(ApiKey::load(dir.path()).is_err() && ApiKey::load(&dir.path().join("no")).is_err());
    }
}
