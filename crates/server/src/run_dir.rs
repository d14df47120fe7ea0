//! The run directory: where it is, whose it is, and that only one server lives in it.
//!
//! Knows names and the lock, not what is spoken through the files: `master::status` and
//! `master::control` make the FIFOs and the socket, [`crate::control`] speaks through them.
//!
//! Invariants: 1. Nothing is read, written or removed in a directory that is not a real one of this
//! user with mode 0700. 2. Files are removed only by the process that holds the lock. 3. The lock
//! dies with the master and the workers that share its descriptors: no leftover can keep it.
//!
//! The lock is a POSIX one (`fcntl`), since `flock` would be inherited by every fork. Its kind has
//! one trap: closing *any* descriptor of the pid file, in any process that shares the master's
//! descriptor table, gives it up. So nobody but this module may open `dunlin.pid` there.

mod error;

pub use error::RunDirError;

use crate::clock::{self, Millis};
use crate::master::remove_trace_sockets;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A run directory, by its path: what is where in it. Nothing is touched by making one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

/// A run directory this process is the server of. Dropping it leaves everything in place, so that a
/// forked copy does no harm; [`OccupiedRunDir::remove_all`] ends it.
#[derive(Debug)]
pub struct OccupiedRunDir {
    dir: RunDir,
    /// Holds the lock as long as it is open.
    pid_file: File,
    /// Whether the directory goes when the server does.
    remove_directory: bool,
    /// Until when processes of a server whose place this one takes may hold its addresses.
    orphans_until: Option<Millis>,
}

/// An occupied directory, for the program that follows by an upgrade.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RunDirHandOff {
    pub(crate) pid_file: RawFd,
    remove_directory: bool,
}

impl RunDir {
    /// The directory that was given, else the first of `$RUNTIME_DIRECTORY`,
    /// `$XDG_RUNTIME_DIR/dunlin`, `/run/dunlin` for root, `/tmp/dunlin-$UID`.
    #[must_use]
    pub fn locate(given: Option<&Path>) -> Self {
        let path = match given {
            Some(path) => path.to_owned(),
            None => automatic(|name| std::env::var_os(name), Uid::effective()),
        };
        // The current directory is gone where this fails; the relative path will fail with a name.
        let path = std::path::absolute(&path).unwrap_or(path);
        // Without a trailing slash, behind which a symbolic link would not be seen as one.
        Self { path: path.components().collect() }
    }

    /// Where a server that root starts and that becomes another user (`server.user`) finds its
    /// directory, whoever asks: the first of `$RUNTIME_DIRECTORY`, else `/run/dunlin`. Not where
    /// `$XDG_RUNTIME_DIR` leads: that is for one user alone, and not this one.
    #[must_use]
    pub fn of_a_service() -> Self {
        let variable = |name: &str| match name {
            "RUNTIME_DIRECTORY" => std::env::var_os(name),
            _ => None,
        };
        Self::locate(Some(&automatic(variable, Uid::from_raw(0))))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pid file, locked while the master lives.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.path.join("dunlin.pid")
    }

    /// The FIFO that `cat` reads the status from.
    #[must_use]
    pub fn status_pipe(&self) -> PathBuf {
        self.path.join("status.pipe")
    }

    /// The FIFO that takes its place when a reader came.
    #[must_use]
    pub fn spare_status_pipe(&self) -> PathBuf {
        self.path.join("status.pipe.spare")
    }

    /// The socket of the verbs.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// The key of the HTTP interface that the server makes at start.
    #[must_use]
    pub fn api_key(&self) -> PathBuf {
        self.path.join("api.key")
    }

    /// The pid of the server that lives here. Only for processes that are not that server: see the
    /// trap in the module's description.
    #[must_use]
    pub fn running_pid(&self) -> Option<i32> {
        let pid_file = File::open(self.pid_file()).ok()?;
        holder(&pid_file)
    }

    /// Makes this process the server of the directory: makes the directory if it is missing, locks
    /// the pid file and writes our pid, and removes what a server that crashed has left. Waits up to
    /// a second for the orphans of such a server to end.
    ///
    /// # Errors
    /// Another server lives there, or the directory cannot be trusted or used.
    pub fn occupy(self) -> Result<OccupiedRunDir, RunDirError> {
        if self.control_socket().as_os_str().len() > SOCKET_PATH_MAX {
            return Err(RunDirError::PathTooLong { path: self.path });
        }
        let begun = clock::now();
        let made = self.make()?;
        let mut waited = false;
        // A server that is just ending may remove the file or the directory under our hands.
        for _ in 0..OCCUPY_ATTEMPTS {
            self.check()?;
            let Some(pid_file) = self.lock(&mut waited)? else {
                self.make()?;
                continue;
            };
            // A server that crashed may have made the directory; it can no longer be asked.
            let took_over = pid_file.metadata().is_ok_and(|found| found.len() > 0);
            self.write_pid(&pid_file)?;
            self.remove_leftovers()?;
            let remove_directory = made || took_over || self.is_automatic();
            let orphans_until = (took_over || waited).then(|| begun + ORPHANS_MS);
            return Ok(OccupiedRunDir { dir: self, pid_file, remove_directory, orphans_until });
        }
        Err(RunDirError::Unsteady { path: self.path })
    }

    /// True if the directory was missing and is made now.
    fn make(&self) -> Result<bool, RunDirError> {
        match DirBuilder::new().mode(MODE).create(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(source) => Err(RunDirError::Make { path: self.path.clone(), source }),
        }
    }

    /// As root, for a server that will be another user: makes the directory if it is missing, and gives
    /// it to that user if it is root's. Anything else there is not touched; `occupy` refuses it.
    pub(crate) fn give_to(&self, user: u32, group: u32) -> Result<(), RunDirError> {
        self.make()?;
        // What is opened is what is given away, whatever has the name by then.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&self.path);
        let Ok(directory) = opened else { return Ok(()) };
        let fail = |source| RunDirError::Inspect { path: self.path.clone(), source };
        let found = directory.metadata().map_err(fail)?;
        if found.uid() == 0 && found.mode() & PERMISSIONS == MODE {
            std::os::unix::fs::fchown(&directory, Some(user), Some(group)).map_err(fail)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), RunDirError> {
        let path = || self.path.clone();
        let found = fs::symlink_metadata(&self.path)
            .map_err(|source| RunDirError::Inspect { path: path(), source })?;
        if found.file_type().is_symlink() {
            return Err(RunDirError::Symlink { path: path() });
        }
        if !found.is_dir() {
            return Err(RunDirError::NotADirectory { path: path() });
        }
        let ours = Uid::effective().as_raw();
        if found.uid() != ours {
            return Err(RunDirError::ForeignOwner { path: path(), owner: found.uid(), ours });
        }
        let mode = found.mode() & PERMISSIONS;
        if mode != MODE {
            return Err(RunDirError::WrongMode { path: path(), mode });
        }
        Ok(())
    }

    /// The pid file, open and locked; `None` if it was removed meanwhile. Notes whether somebody else
    /// had to give up the lock.
    fn lock(&self, waited: &mut bool) -> Result<Option<File>, RunDirError> {
        let fail = |source| RunDirError::LockPidFile { path: self.pid_file(), source };
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.pid_file());
        let pid_file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(fail(source)),
        };
        *waited |= self.wait_for_lock(&pid_file)?;
        let locked = pid_file.metadata().map_err(fail)?;
        match fs::symlink_metadata(self.pid_file()) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => {
                Ok(Some(pid_file))
            }
            _ => Ok(None),
        }
    }

    /// Locks the pid file; whether somebody else had to give the lock up.
    fn wait_for_lock(&self, pid_file: &File) -> Result<bool, RunDirError> {
        let begun = clock::now();
        let mut waited = false;
        loop {
            match fcntl(pid_file, FcntlArg::F_SETLK(&whole_file())) {
                Ok(_) => return Ok(waited),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => {}
                Err(errno) => {
                    let source = errno.into();
                    return Err(RunDirError::LockPidFile { path: self.pid_file(), source });
                }
            }
            waited = true;
            // A dead holder lives on in its workers, which share its descriptors, until they have
            // noticed; after an upgrade in place the dead holder has even our own pid.
            let waited_ms = clock::now().since(begun);
            match holder(pid_file) {
                Some(pid) if pid != own_pid() && is_alive(pid) => {
                    if waited_ms < LAST_BREATH_MS {
                        thread::sleep(LOCK_RETRY);
                        continue;
                    }
                    return Err(RunDirError::Running { path: self.path.clone(), pid });
                }
                Some(pid) if waited_ms >= ORPHANS_MS => {
                    return Err(RunDirError::OrphansRemain { path: self.path.clone(), pid });
                }
                _ => thread::sleep(LOCK_RETRY),
            }
        }
    }

    fn write_pid(&self, mut pid_file: &File) -> Result<(), RunDirError> {
        let line = format!("{}\n", own_pid());
        // One that was there may have any mode.
        pid_file
            .set_permissions(Permissions::from_mode(FILE_MODE))
            .and_then(|()| pid_file.set_len(0))
            .and_then(|()| pid_file.write_all(line.as_bytes()))
            .map_err(|source| RunDirError::LockPidFile { path: self.pid_file(), source })
    }

    fn remove_leftovers(&self) -> Result<(), RunDirError> {
        remove_trace_sockets(&self.path);
        for path in
            [self.status_pipe(), self.spare_status_pipe(), self.control_socket(), self.api_key()]
        {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RunDirError::RemoveLeftover { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the path is one of those this program makes up, and not one somebody named.
    fn is_automatic(&self) -> bool {
        let unnamed = |name: &str| match name {
            "RUNTIME_DIRECTORY" => None,
            name => std::env::var_os(name),
        };
        self.path == automatic(unnamed, Uid::effective())
    }
}

impl OccupiedRunDir {
    /// The directory of the program whose place this one took by an exec: the lock went over with the
    /// process.
    ///
    /// # Errors
    /// Somebody else has the lock.
    pub(crate) fn taken_over(path: &Path, handed: RunDirHandOff) -> Result<Self, RunDirError> {
        let RunDirHandOff { pid_file, remove_directory } = handed;
        let dir = RunDir::locate(Some(path));
        let pid_file = File::from(crate::sys::descriptor::own(pid_file));
        // Whose lock it is already gets it again.
        dir.wait_for_lock(&pid_file)?;
        Ok(Self { dir, pid_file, remove_directory, orphans_until: None })
    }

    /// What the next program has to know.
    pub(crate) fn hand_off(&self) -> RunDirHandOff {
        let remove_directory = self.remove_directory;
        RunDirHandOff { pid_file: self.pid_file.as_raw_fd(), remove_directory }
    }

    /// Until when addresses may still be held by processes of the server whose place this one takes:
    /// they give up the lock a moment before their sockets. `None`: nothing was taken over.
    pub(crate) fn orphans_until(&self) -> Option<Millis> {
        self.orphans_until
    }

    /// What is where.
    #[must_use]
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// Removes the server's files, the pid file last, and the directory if this program made it.
    ///
    /// # Errors
    /// A file could not be removed; the others were.
    pub fn remove_all(self) -> Result<(), RunDirError> {
        let leftovers = self.dir.remove_leftovers();
        let path = self.dir.pid_file();
        let pid_file = fs::remove_file(&path);
        // Open until here, so that nobody could take the name over between the two removals.
        drop(self.pid_file);
        if self.remove_directory {
            // It may hold what is not ours, or a successor's pid file: then it stays.
            let _ = fs::remove_dir(&self.dir.path);
        }
        leftovers?;
        pid_file.map_err(|source| RunDirError::RemoveLeftover { path, source })
    }
}

/// The descriptor that holds the lock: it must stay open, and under this number.
impl AsFd for OccupiedRunDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pid_file.as_fd()
    }
}

/// Whether a process of this id lives; one that is dead but not yet reaped does not.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in parentheses and may itself contain some.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// How long the children of a master that died may take to end.
const ORPHANS_MS: u64 = 1_000;
/// How long a server that seems to live may still be one that was killed or is just ending.
const LAST_BREATH_MS: u64 = 100;
const LOCK_RETRY: Duration = Duration::from_millis(10);
const OCCUPY_ATTEMPTS: u32 = 10;
const MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const PERMISSIONS: u32 = 0o777;
/// `sun_path` holds 108 bytes, the last of which is zero.
const SOCKET_PATH_MAX: usize = 107;

fn automatic(variable: impl Fn(&str) -> Option<OsString>, user: Uid) -> PathBuf {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(paths) = set("RUNTIME_DIRECTORY") {
        // systemd names several, colons between them, where a unit asks for several.
        if let Some(first) = std::env::split_paths(&paths).next() {
            return first;
        }
    }
    if let Some(path) = set("XDG_RUNTIME_DIR") {
        return PathBuf::from(path).join("dunlin");
    }
    if user.is_root() {
        return PathBuf::from("/run/dunlin");
    }
    PathBuf::from(format!("/tmp/dunlin-{user}"))
}

/// The process that keeps us from locking the file, if one does.
fn holder(pid_file: &File) -> Option<i32> {
    let mut lock = whole_file();
    fcntl(pid_file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
}

#[expect(clippy::cast_possible_truncation, reason = "both constants are below 3")]
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::symlink;
    use std::process::{Child, Command, Stdio};

    fn place() -> (tempfile::TempDir, RunDir) {
        let outer = tempfile::tempdir().unwrap();
        let dir = RunDir::locate(Some(&outer.path().join("run")));
        (outer, dir)
    }

    fn refusal(dir: &RunDir) -> String {
        dir.clone().occupy().unwrap_err().to_string()
    }

    #[test]
    fn the_first_place_that_is_named_wins() {
        let with = |pairs: &'static [(&str, &str)], uid: u32| {
            let variable = |name: &str| {
                pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
            };
            automatic(variable, Uid::from_raw(uid)).display().to_string()
        };
        let both = &[("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/x")];
        assert_eq!(with(both, 0), "/run/a");
        assert_eq!(with(&[("RUNTIME_DIRECTORY", ""), ("XDG_RUNTIME_DIR", "/x")], 0), "/x/dunlin");
        assert_eq!(with(&[], 0), "/run/dunlin");
        assert_eq!(with(&[], 7), "/tmp/dunlin-7");
    }

    #[test]
    fn it_is_made_private_and_goes_without_a_trace() {
        let (outer, dir) = place();
        let occupied = dir.clone().occupy().unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & PERMISSIONS, 0o700);
        let pid = fs::read_to_string(dir.pid_file()).unwrap();
        assert_eq!(pid, format!("{}\n", std::process::id()));
        assert_eq!(occupied.orphans_until(), None, "nobody was there");
        fs::write(dir.status_pipe(), "").unwrap();
        fs::write(dir.api_key(), "").unwrap();
        occupied.remove_all().unwrap();
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_was_there_stays_and_so_does_what_is_not_ours() {
        let (_outer, dir) = place();
        DirBuilder::new().mode(0o700).create(dir.path()).unwrap();
        fs::write(dir.path().join("notes"), "mine").unwrap();
        dir.clone().occupy().unwrap().remove_all().unwrap();
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["notes"]);
    }

    #[test]
    fn leftovers_of_a_crash_are_removed() {
        let (_outer, dir) = place();
        dir.make().unwrap();
        fs::write(dir.pid_file(), "1\n").unwrap();
        fs::set_permissions(dir.pid_file(), Permissions::from_mode(0o644)).unwrap();
        for path in
            [dir.status_pipe(), dir.spare_status_pipe(), dir.control_socket(), dir.api_key()]
        {
            fs::write(path, "stale").unwrap();
        }
        let occupied = dir.clone().occupy().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the pid file is left");
        assert_eq!(fs::metadata(dir.pid_file()).unwrap().mode() & PERMISSIONS, 0o600);
        assert!(occupied.orphans_until().is_some(), "it may have left sockets, too");
        occupied.remove_all().unwrap();
        assert!(!dir.path().exists());
    }

    #[test]
    fn what_cannot_be_trusted_is_refused_by_name() {
        let (outer, dir) = place();
        let target = outer.path().join("target");
        DirBuilder::new().mode(0o700).create(&target).unwrap();
        symlink(&target, dir.path()).unwrap();
        assert!(refusal(&dir).contains("symbolic link"));
        let slash = PathBuf::from(format!("{}/", dir.path().display()));
        assert!(refusal(&RunDir::locate(Some(&slash))).contains("symbolic link"));
        fs::set_permissions(&target, Permissions::from_mode(0o755)).unwrap();
        assert!(refusal(&RunDir::locate(Some(&target))).contains("has mode 0755"));
        fs::write(outer.path().join("file"), "").unwrap();
        let file = RunDir::locate(Some(&outer.path().join("file")));
        assert!(refusal(&file).contains("not a directory"));
        let orphan = RunDir::locate(Some(&outer.path().join("missing/run")));
        assert!(refusal(&orphan).starts_with("cannot make the run directory"));
        let long = RunDir::locate(Some(&outer.path().join("x".repeat(100))));
        assert!(refusal(&long).contains("too long"));
    }

    #[test]
    fn a_second_server_is_refused_by_the_pid_of_the_first() {
        let (_outer, dir) = place();
        assert_eq!(dir.running_pid(), None);
        let mut first = other_server(&dir);
        assert_eq!(dir.running_pid(), i32::try_from(first.id()).ok());
        let line = refusal(&dir);
        assert!(line.contains(&format!("pid {} is already running", first.id())), "{line}");
        first.kill().unwrap();
        // Dead and not reaped: its pid exists, but no server does.
        let occupied = dir.clone().occupy().unwrap();
        first.wait().unwrap();
        occupied.remove_all().unwrap();
    }

    /// Another process that occupies `dir`: this test program once more, running the test below.
    fn other_server(dir: &RunDir) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "run_dir::tests::occupies_until_killed", "--nocapture"])
            .env("OCCUPY", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        assert!(out.lines().any(|line| line.unwrap().contains("occupied")), "it occupies");
        child
    }

    #[test]
    fn occupies_until_killed() {
        let Some(path) = std::env::var_os("OCCUPY") else { return };
        let _occupied = RunDir::locate(Some(Path::new(&path))).occupy().unwrap();
        println!("\noccupied");
        thread::sleep(Duration::from_secs(20));
    }
}
