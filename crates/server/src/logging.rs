//! The log's output: which file, which level, which process, one `write(2)` a line.
//!
//! Knows no subscriber: the binary formats an event into a line and gives it to [`write_line`].
//! There is no writer thread, since a fork would lose it.
//!
//! Invariants: 1. A line is one `write(2)` of at most [`LINE_MAX`] bytes to a descriptor in append
//! mode, so lines of several processes never mix. 2. A descriptor number that lines are written to
//! is never closed, only pointed elsewhere (`dup3`): the workers share the master's descriptors, and
//! a reopened file is theirs at the same instant. 3. A failed write is dropped: there is nobody left
//! to tell.

use crate::clock::{self, Millis};
use crate::config::{LogConfig, LogFormat};
use nix::fcntl::OFlag;
use nix::unistd::dup3;
use std::borrow::Cow;
use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use tracing::level_filters::LevelFilter;

/// A line has at most so many bytes; longer ones are cut.
pub const LINE_MAX: usize = 4 << 10;

/// Takes over where and how to log. At start, and at each reload; where it fails everything stays as
/// it was.
///
/// # Errors
/// The file cannot be opened.
pub fn apply(config: &LogConfig) -> Result<(), LogError> {
    output().point_to(config.file.as_deref())?;
    JOURNAL.store(config.file.is_none() && stderr_is_the_journal(), Ordering::Relaxed);
    JSON.store(config.format == LogFormat::Json, Ordering::Relaxed);
    let level = config.level.parse().unwrap_or(LevelFilter::INFO);
    if LEVEL.swap(level_number(level), Ordering::Relaxed) != level_number(level) {
        tracing::callsite::rebuild_interest_cache();
    }
    Ok(())
}

/// Opens the log file anew, under the name it has, for all processes that share our descriptors.
/// Nothing happens where the log goes to standard error.
///
/// # Errors
/// The file cannot be opened; the old one goes on.
pub fn reopen() -> Result<(), LogError> {
    let mut output = output();
    let path = output.path().map(Path::to_owned);
    match path {
        Some(path) => output.point_to(Some(&path)),
        None => Ok(()),
    }
}

/// Writes a line to the log; a line end is added if it has none.
pub fn write_line(line: &[u8]) {
    // Invariant 3.
    let _ = output().write(line);
}

/// The descriptor of the log file, for those who close what they do not know: it must stay open.
#[must_use]
pub fn descriptor() -> Option<RawFd> {
    output().file.as_ref().map(|file| file.descriptor.as_raw_fd())
}

/// The level up to which lines are wanted.
#[must_use]
pub fn level() -> LevelFilter {
    LEVELS[usize::from(LEVEL.load(Ordering::Relaxed)).min(LEVELS.len() - 1)]
}

/// How lines are to look.
#[must_use]
pub fn format() -> LogFormat {
    if JSON.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Text }
}

/// Whether lines go to systemd's journal, which takes a line's level from a `<4>` before it.
#[must_use]
pub fn to_journal() -> bool {
    JOURNAL.load(Ordering::Relaxed)
}

/// As `$JOURNAL_STREAM` has it (systemd.exec(5)): a process further down may have the variable and another
/// standard error.
fn stderr_is_the_journal() -> bool {
    let Ok(journal) = env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let found = stderr.and_then(|file| file.metadata());
    found.is_ok_and(|found| journal == format!("{}:{}", found.dev(), found.ino()))
}

/// Says what this process is: `master`, `worker[2.7]`, `task[0]`, `timer`. Stands in every line.
pub fn set_role(role: &str) {
    role.clone_into(&mut ROLE.write().unwrap_or_else(PoisonError::into_inner));
}

/// What this process was said to be; `main` before.
#[must_use]
pub fn role() -> String {
    ROLE.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log file {}: {source}", path.display())]
pub struct LogError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

static OUTPUT: Mutex<LogOutput> = Mutex::new(LogOutput::stderr());
static JSON: AtomicBool = AtomicBool::new(false);
static JOURNAL: AtomicBool = AtomicBool::new(false);
static LEVEL: AtomicU8 = AtomicU8::new(3);
static ROLE: LazyLock<RwLock<String>> = LazyLock::new(|| RwLock::new("main".to_owned()));

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

fn level_number(level: LevelFilter) -> u8 {
    let place = LEVELS.iter().position(|known| *known == level).unwrap_or(0);
    u8::try_from(place).unwrap_or(0)
}

fn output() -> MutexGuard<'static, LogOutput> {
    OUTPUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where lines go: standard error, or a file in append mode.
#[derive(Debug, Default)]
pub struct LogOutput {
    file: Option<LogFile>,
}

#[derive(Debug)]
struct LogFile {
    descriptor: OwnedFd,
    /// `None` if the number leads to standard error since the file was given up (invariant 2).
    path: Option<PathBuf>,
}

impl LogOutput {
    /// Standard error.
    #[must_use]
    pub const fn stderr() -> Self {
        Self { file: None }
    }

    /// A file, made with mode 0640 if it is missing.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = LogFile { descriptor: append_to(path)?, path: Some(path.to_owned()) };
        Ok(Self { file: Some(file) })
    }

    /// Opens the file anew, under the same path and the same descriptor number.
    ///
    /// # Errors
    /// It cannot be opened; the old one goes on.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        match self.path().map(Path::to_owned) {
            Some(path) => self.point_to(Some(&path)),
            None => Ok(()),
        }
    }

    /// The file's path, unless it is standard error.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().and_then(|file| file.path.as_deref())
    }

    fn point_to(&mut self, path: Option<&Path>) -> Result<(), LogError> {
        let Some(file) = &mut self.file else {
            if let Some(path) = path {
                *self = Self::open(path)?;
            }
            return Ok(());
        };
        let moved = match path {
            Some(path) => replace(&mut file.descriptor, append_to(path)?.as_fd()),
            None => replace(&mut file.descriptor, io::stderr().as_fd()),
        };
        match moved {
            Ok(()) => {
                file.path = path.map(ToOwned::to_owned);
                Ok(())
            }
            Err(source) => {
                Err(LogError { path: path.unwrap_or_else(|| Path::new("-")).into(), source })
            }
        }
    }
}

/// Each write is one line, one system call, and is taken whole or cut.
impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bytes = cut(line);
        let stderr = io::stderr();
        let descriptor: BorrowedFd<'_> = match &self.file {
            Some(file) => file.descriptor.as_fd(),
            None => stderr.as_fd(),
        };
        nix::unistd::write(descriptor, &bytes)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(path: &Path) -> Result<OwnedFd, LogError> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE_MODE).custom_flags(libc::O_NOCTTY);
    match options.open(path) {
        Ok(file) => Ok(file.into()),
        Err(source) => Err(LogError { path: path.to_owned(), source }),
    }
}

fn replace(number: &mut OwnedFd, with: BorrowedFd<'_>) -> io::Result<()> {
    Ok(dup3(with, number, OFlag::O_CLOEXEC)?)
}

const FILE_MODE: u32 = 0o640;
/// What a line that was cut ends with.
const CUT: &[u8] = "…\n".as_bytes();

/// The line with one line end, within [`LINE_MAX`] bytes and not cut within a character.
fn cut(line: &[u8]) -> Cow<'_, [u8]> {
    let ended = line.ends_with(b"\n");
    if ended && line.len() <= LINE_MAX {
        return Cow::Borrowed(line);
    }
    let mut bytes = line.to_vec();
    if line.len() + usize::from(!ended) <= LINE_MAX {
        bytes.push(b'\n');
        return Cow::Owned(bytes);
    }
    let mut end = LINE_MAX - CUT.len();
    // A byte 10xxxxxx goes on with a character that began before it.
    while end > 0 && bytes[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    bytes.truncate(end);
    bytes.extend_from_slice(CUT);
    Cow::Owned(bytes)
}

/// Lets through at most so many lines a second of one call site, for lines that a peer can trigger.
/// Used by [`limited!`](crate::limited).
#[derive(Debug)]
pub struct Limiter {
    per_second: u32,
    /// The second of the monotonic clock that `admitted` counts.
    second: AtomicU64,
    admitted: AtomicU32,
    suppressed: AtomicU64,
}

impl Limiter {
    /// A limiter that has seen nothing.
    #[must_use]
    pub const fn new(per_second: u32) -> Self {
        Self {
            per_second,
            second: AtomicU64::new(0),
            admitted: AtomicU32::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// `None` if the line is one too many; else how many were suppressed since the last one.
    pub fn admit(&self, now: Millis) -> Option<u64> {
        // Relaxed: two threads at the turn of a second may let one line more through, no harm.
        let second = now.0 / 1_000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.admitted.store(0, Ordering::Relaxed);
        }
        if self.admitted.fetch_add(1, Ordering::Relaxed) < self.per_second {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.admitted.store(self.per_second, Ordering::Relaxed);
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// [`Limiter::admit`] at this moment.
    pub fn admit_now(&self) -> Option<u64> {
        self.admit(clock::now())
    }
}

/// Lines a second of one call site that a peer can trigger.
pub const PEER_LINES_PER_SECOND: u32 = 5;

/// Logs a line that a peer can trigger, at most [`PEER_LINES_PER_SECOND`] times a second at each place
/// where it stands in each process; the next one says how many were suppressed.
///
/// ```
/// dunlin_server::limited!(warn, peer = "127.0.0.1:4711", "a frame that makes no sense");
/// ```
#[macro_export]
macro_rules! limited {
    ($level:ident, $($line:tt)+) => {{
        static LIMITER: $crate::logging::Limiter =
            $crate::logging::Limiter::new($crate::logging::PEER_LINES_PER_SECOND);
        match LIMITER.admit_now() {
            Some(0) => ::tracing::$level!($($line)+),
            Some(suppressed) => ::tracing::$level!(suppressed, $($line)+),
            None => {}
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_line_is_ended_once_and_cut_between_characters() {
        assert_eq!(*cut(b"a"), *b"a\n");
        assert_eq!(*cut(b"a\n"), *b"a\n");
        let longest = [vec![b'x'; LINE_MAX - 1], b"\n".to_vec()].concat();
        assert_eq!(*cut(&longest), *longest);
        for pad in 0..4 {
            let long = "x".repeat(pad) + &"ä€".repeat(LINE_MAX);
            let line = cut(long.as_bytes()).into_owned();
            assert!(line.len() <= LINE_MAX && line.len() > LINE_MAX - 8, "{}", line.len());
            assert!(String::from_utf8(line).unwrap().ends_with("…\n"));
        }
    }

    #[test]
    fn a_reopened_file_keeps_its_descriptor_and_leaves_the_renamed_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let mut output = LogOutput::open(&path).unwrap();
        let number = output.file.as_ref().unwrap().descriptor.as_raw_fd();
        output.write_all(b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        output.write_all(b"two").unwrap();
        output.reopen().unwrap();
        output.write_all(b"three").unwrap();
        assert_eq!(output.file.as_ref().unwrap().descriptor.as_raw_fd(), number);
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(output.reopen().is_err());
        assert!(output.write_all(b"the old file goes on").is_ok());
    }

    #[test]
    fn a_limiter_admits_so_many_a_second_and_counts_the_rest() {
        let limiter = Limiter::new(2);
        let at = |ms| limiter.admit(Millis(ms));
        assert_eq!([at(5_000), at(5_100), at(5_200), at(5_999)], [Some(0), Some(0), None, None]);
        assert_eq!([at(6_000), at(6_001), at(6_002)], [Some(2), Some(0), None]);
    }
}
