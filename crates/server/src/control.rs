//! How a command speaks to a running server: the types of the control socket, and the client's side
//! of the socket, the status pipe and the stop signal.
//!
//! Knows nothing of what a verb does; `master::control` is the other side. One connection carries
//! one request, a JSON object on one line, and one answer, the same; then it ends.
//! Invariant: every wait of a client has a deadline.

use crate::clock::{self, Millis};
use crate::run_dir::{RunDir, is_alive};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// What a server can be asked to do: `{"verb":"reload","tasks":true}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum ControlRequest {
    /// Say how you are: the object of the status pipe.
    Status,
    /// Re-read the config and replace every process; or, without reading it, only some of them.
    Reload {
        /// Only the task processes.
        #[serde(default)]
        tasks: bool,
        /// Only the worker in this slot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<u16>,
    },
    /// Stop gracefully. Answered when it has begun.
    Stop,
    /// Start the binary again, in place.
    Upgrade {
        /// Another file than the one that runs.
        #[serde(default)]
        file: Option<String>,
    },
    /// Even the connections out over the workers.
    Balance,
    /// Trace what sessions of this name send and get, to a socket in the run directory.
    Trace {
        /// Whose sessions.
        user: String,
        /// The socket's name, such as `trace.1.sock`.
        socket: String,
    },
    /// Let a trace go on; to be asked once a second.
    #[serde(rename = "trace-renew")]
    RenewTrace {
        /// Its number.
        trace: u64,
    },
    /// End a trace.
    #[serde(rename = "trace-end")]
    EndTrace {
        /// Its number.
        trace: u64,
    },
    /// Move the connections of one worker to the others.
    Drain {
        /// Its slot.
        worker: u16,
    },
}

impl ControlRequest {
    /// A reload of everything.
    pub const RELOAD: Self = Self::Reload { tasks: false, worker: None };

    /// Reads a request line; the line end may be missing.
    ///
    /// # Errors
    /// A sentence for who asked.
    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlAnswer {
    /// Whether it was done.
    pub ok: bool,
    /// Why not: a sentence for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it took, by verb.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub result: Json,
}

impl ControlAnswer {
    /// It was done.
    #[must_use]
    pub fn done(result: Json) -> Self {
        Self { ok: true, error: None, result }
    }

    /// It was not.
    #[must_use]
    pub fn refused(error: impl Into<String>) -> Self {
        Self { ok: false, error: Some(error.into()), result: Json::Null }
    }

    /// What it took, or why it was not done.
    ///
    /// # Errors
    /// It was not: the sentence for the operator.
    pub fn outcome(self) -> Result<Json, String> {
        match self.ok {
            true => Ok(self.result),
            false => Err(self.error.unwrap_or_else(|| "the server gave no reason".to_owned())),
        }
    }

    /// The answer as the line that is sent.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_else(|_| b"{\"ok\":false}".to_vec());
        line.push(b'\n');
        line
    }
}

/// A request line has at most so many bytes; the server hangs up on more.
pub const REQUEST_MAX_BYTES: usize = 16 << 10;
/// An answer, and a status, has at most so many bytes: 1,024 workers of 1 KiB fit twice.
pub const ANSWER_MAX_BYTES: u64 = 4 << 20;

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is none. Exit code 3.
    #[error("no server is running in {}", run_dir.display())]
    NotRunning {
        /// Where one was looked for.
        run_dir: PathBuf,
    },
    /// It cannot be reached, though one runs.
    #[error("cannot reach the server with pid {pid}: {source}")]
    Reach {
        /// Its master.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// It took too long.
    #[error("the server did not answer within {} ms", limit.as_millis())]
    TimedOut {
        /// The time it had.
        limit: Duration,
    },
    /// What it said makes no sense.
    #[error("the server's answer cannot be read: {problem}")]
    BadAnswer {
        /// What is wrong with it.
        problem: String,
    },
    /// The signal to stop could not be sent.
    #[error("cannot signal the server with pid {pid}: {source}")]
    Signal {
        /// Its master.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
}

/// Asks the server that lives in `run_dir`, and waits for its answer.
///
/// # Errors
/// See [`ControlError`]; a request that was refused is an answer, not an error.
pub fn ask(
    run_dir: &Path,
    request: &ControlRequest,
    timeout: Duration,
) -> Result<ControlAnswer, ControlError> {
    let asker = Asker::new(run_dir, timeout);
    let mut line = serde_json::to_vec(request)
        .map_err(|error| ControlError::BadAnswer { problem: error.to_string() })?;
    line.push(b'\n');
    let stream = asker.connect()?;
    // A request fits the socket's buffer many times over.
    (&stream).write_all(&line).map_err(|source| asker.unreachable(source))?;
    let mut answer = Vec::new();
    asker.read_to_end(&stream, &mut answer)?;
    if answer.is_empty() {
        return Err(asker.unreachable(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&answer)
        .map_err(|error| ControlError::BadAnswer { problem: error.to_string() })
}

/// Reads the status pipe of the server that lives in `run_dir`: one whole JSON object, as it came.
/// Any number of processes may do so at once: each holds a lock on the directory meanwhile.
///
/// # Errors
/// See [`ControlError`].
pub fn read_status(run_dir: &Path, timeout: Duration) -> Result<String, ControlError> {
    let asker = Asker::new(run_dir, timeout);
    let _lock = asker.lock_directory()?;
    loop {
        // Without waiting for a writer: where no server is there is none, and the end comes at once.
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(asker.dir.status_pipe())
            .map_err(|source| asker.unreachable(source))?;
        let mut status = Vec::new();
        asker.read_to_end(&pipe, &mut status)?;
        // A reader without the lock (`cat`) at the same instant may have taken a part of it.
        let whole = serde_json::from_slice::<serde::de::IgnoredAny>(&status).is_ok();
        if let (true, Ok(text)) = (whole, String::from_utf8(status)) {
            return Ok(text);
        }
        asker.server_pid()?;
        asker.pause()?;
    }
}

/// Sends SIGTERM to the server that lives in `run_dir`: it begins to stop. Gives its pid.
///
/// # Errors
/// None runs, or it may not be signalled.
pub fn terminate(run_dir: &Path) -> Result<i32, ControlError> {
    let pid = Asker::new(run_dir, Duration::ZERO).server_pid()?;
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) => Ok(pid),
        Err(Errno::ESRCH) => Err(ControlError::NotRunning { run_dir: run_dir.to_owned() }),
        Err(errno) => Err(ControlError::Signal { pid, source: errno.into() }),
    }
}

/// Whether the server with this pid has ended and left `run_dir`.
#[must_use]
pub fn is_gone(run_dir: &Path, pid: i32) -> bool {
    !is_alive(pid) && RunDir::locate(Some(run_dir)).running_pid() != Some(pid)
}

/// How long to wait between two looks at something that cannot be waited for.
const RETRY: Duration = Duration::from_millis(10);

/// One question with its deadline.
struct Asker {
    dir: RunDir,
    limit: Duration,
    until: Millis,
}

impl Asker {
    fn new(run_dir: &Path, limit: Duration) -> Self {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Self { dir: RunDir::locate(Some(run_dir)), limit, until: clock::now() + limit_ms }
    }

    fn server_pid(&self) -> Result<i32, ControlError> {
        match self.dir.running_pid() {
            Some(pid) if is_alive(pid) => Ok(pid),
            _ => Err(ControlError::NotRunning { run_dir: self.dir.path().to_owned() }),
        }
    }

    /// Why it cannot be spoken to: because there is none, or because of `source`.
    fn unreachable(&self, source: io::Error) -> ControlError {
        match self.server_pid() {
            Ok(pid) => ControlError::Reach { pid, source },
            Err(not_running) => not_running,
        }
    }

    fn timed_out(&self) -> ControlError {
        ControlError::TimedOut { limit: self.limit }
    }

    fn left(&self) -> Result<Duration, ControlError> {
        match self.until.since(clock::now()) {
            0 => Err(self.timed_out()),
            ms => Ok(Duration::from_millis(ms)),
        }
    }

    fn pause(&self) -> Result<(), ControlError> {
        thread::sleep(RETRY.min(self.left()?));
        Ok(())
    }

    /// A non-blocking stream: even the way into the server's queue may be long.
    fn connect(&self) -> Result<UnixStream, ControlError> {
        let failed = |source| self.unreachable(source);
        let address = SockAddr::unix(self.dir.control_socket()).map_err(failed)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        loop {
            match socket.connect(&address) {
                Ok(()) => return Ok(UnixStream::from(OwnedFd::from(socket))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.pause()?,
                Err(source) => return Err(failed(source)),
            }
        }
    }

    fn lock_directory(&self) -> Result<File, ControlError> {
        let directory = File::open(self.dir.path()).map_err(|error| self.unreachable(error))?;
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(directory),
                Err(TryLockError::WouldBlock) => self.pause()?,
                Err(TryLockError::Error(source)) => return Err(self.unreachable(source)),
            }
        }
    }

    /// Reads a non-blocking descriptor to its end.
    fn read_to_end<R: AsFd>(&self, source: &R, into: &mut Vec<u8>) -> Result<(), ControlError>
    where
        for<'a> &'a R: Read,
    {
        let mut reader = source;
        let mut part = [0; 16 << 10];
        loop {
            match reader.read(&mut part) {
                Ok(0) => return Ok(()),
                Ok(length) => into.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(source)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreachable(error)),
            }
            if into.len() as u64 > ANSWER_MAX_BYTES {
                let problem = format!("it is longer than {ANSWER_MAX_BYTES} bytes");
                return Err(ControlError::BadAnswer { problem });
            }
        }
    }

    fn wait(&self, source: &impl AsFd) -> Result<(), ControlError> {
        let timeout = PollTimeout::try_from(self.left()?).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(self.unreachable(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn requests_are_one_object_with_a_verb() {
        let read = |line: &str| ControlRequest::from_line(line.as_bytes());
        assert_eq!(read(r#"{"verb":"status"}"#), Ok(ControlRequest::Status));
        assert_eq!(read(r#"{"verb":"reload"}"#), Ok(ControlRequest::RELOAD));
        assert_eq!(
            read(r#"{"verb":"reload","worker":2}"#),
            Ok(ControlRequest::Reload { tasks: false, worker: Some(2) })
        );
        assert_eq!(
            read("{\"verb\":\"drain\",\"worker\":3}\n"),
            Ok(ControlRequest::Drain { worker: 3 })
        );
        assert_eq!(read(r#"{"verb":"upgrade"}"#), Ok(ControlRequest::Upgrade { file: None }));
        for wrong in ["", "{}", "[]", r#"{"verb":"dance"}"#, r#"{"verb":"drain","worker":-1}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let reload =
            serde_json::to_value(ControlRequest::Reload { tasks: true, worker: None }).unwrap();
        assert_eq!(reload, json!({"verb": "reload", "tasks": true}));
    }

    #[test]
    fn answers_are_one_line_without_what_is_empty() {
        assert_eq!(ControlAnswer::refused("no").to_line(), b"{\"ok\":false,\"error\":\"no\"}\n");
        assert_eq!(ControlAnswer::done(Json::Null).to_line(), b"{\"ok\":true}\n");
    }

    #[test]
    fn where_no_server_is_every_verb_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("missing")] {
            let asked = ask(&path, &ControlRequest::Status, SOON).unwrap_err();
            assert!(matches!(asked, ControlError::NotRunning { .. }), "{asked}");
            assert!(matches!(read_status(&path, SOON), Err(ControlError::NotRunning { .. })));
            assert!(matches!(terminate(&path), Err(ControlError::NotRunning { .. })));
        }
        // As a crash leaves it: names, but nobody behind them.
        drop(UnixListener::bind(dir.path().join("control.sock")).unwrap());
        nix::unistd::mkfifo(&dir.path().join("status.pipe"), nix::sys::stat::Mode::S_IRWXU)
            .unwrap();
        let asked = ask(dir.path(), &ControlRequest::Status, SOON).unwrap_err();
        assert!(matches!(asked, ControlError::NotRunning { .. }), "{asked}");
        let read = read_status(dir.path(), SOON).unwrap_err();
        assert!(matches!(read, ControlError::NotRunning { .. }), "{read}");
    }

    #[test]
    fn a_question_gets_its_answer_or_a_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            io::BufReader::new(&stream).read_line(&mut line).unwrap();
            let request = ControlRequest::from_line(line.as_bytes()).unwrap();
            assert_eq!(request, ControlRequest::Balance);
            (&stream).write_all(&ControlAnswer::done(json!({"moved": 3})).to_line()).unwrap();
            drop(stream);
            listener
        });
        let answer = ask(dir.path(), &ControlRequest::Balance, SOON).unwrap();
        assert_eq!(answer, ControlAnswer::done(json!({"moved": 3})));
        let _silent = server.join().unwrap();
        let late = ask(dir.path(), &ControlRequest::Status, Duration::from_millis(30));
        assert!(matches!(late, Err(ControlError::TimedOut { .. })), "{late:?}");
    }
}
