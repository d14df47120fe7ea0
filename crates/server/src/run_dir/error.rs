//! Why a run directory cannot be used, for people.

use super::SOCKET_PATH_MAX;
use std::io;
use std::path::PathBuf;

/// Why a run directory cannot be used. Each is one line that names the path.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// A server lives there.
    #[error("a server with pid {pid} is already running in {}", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
        /// The server's master.
        pid: i32,
    },
    /// A server died there, and processes of it live on.
    #[error("the server with pid {pid} is dead, but processes of it still live in {}", path.display())]
    OrphansRemain {
        /// The directory.
        path: PathBuf,
        /// The dead master.
        pid: i32,
    },
    /// It is missing and cannot be made.
    #[error("cannot make the run directory {}: {source}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be looked at.
    #[error("cannot look at the run directory {}: {source}", path.display())]
    Inspect {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a symbolic link.
    #[error("the run directory {} is a symbolic link; name the real directory", path.display())]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// It is something else than a directory.
    #[error("the run directory {} is not a directory", path.display())]
    NotADirectory {
        /// What was named.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error("the run directory {} belongs to user {owner}, not to user {ours}", path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// This process' user id.
        ours: u32,
    },
    /// Others may look into it.
    #[error("the run directory {} has mode {mode:04o}; it must be 0700", path.display())]
    WrongMode {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The control socket would have a path no socket can have.
    #[error(
        "the run directory {} has too long a path: that of its control socket may have \
         {SOCKET_PATH_MAX} bytes",
        path.display()
    )]
    PathTooLong {
        /// The directory.
        path: PathBuf,
    },
    /// The pid file cannot be opened, locked or written.
    #[error("cannot lock {}: {source}", path.display())]
    LockPidFile {
        /// The pid file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of an earlier server, or ours, cannot be removed.
    #[error("cannot remove {}: {source}", path.display())]
    RemoveLeftover {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody keeps removing what we make.
    #[error("the run directory {} is removed again and again while the server starts", path.display())]
    Unsteady {
        /// The directory.
        path: PathBuf,
    },
}
