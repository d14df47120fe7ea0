//! `dunlin trace`: what a user's sessions send and get, live.
//!
//! Makes a datagram socket in the run directory, asks the master for a trace to it, and goes on asking once a
//! second: when that ends, however it ends, the trace does. Knows nothing of how a worker finds out.

pub(crate) mod flags;
mod lines;

use crate::failure::Failure;
use crate::screen;
use crate::settings_file::run_dir;
use crate::terminal;
use dunlin_server::control::{self, ControlAnswer, ControlError, ControlRequest};
use dunlin_server::exit::ExitCode;
use flags::Trace;
use lines::Lines;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use serde_json::Value as Json;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// How long the master may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a trace is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long a renewal may fail while the server does something else, such as an upgrade.
const RENEW_FAILURES_MAX: u32 = 10;
/// The longest datagram is shorter.
const DATAGRAM_MAX: usize = 64 << 10;
/// How often is looked for what the renewals say.
const LOOK_EVERY_MS: u16 = 200;

/// `dunlin trace`.
pub(crate) fn run(flags: &Trace) -> Result<ExitCode, Failure> {
    let run_dir = run_dir(&flags.server);
    // Before there is a thread that would get them.
    let signals = screen::ending_signals()?;
    // Before a socket is left in a directory where no server is.
    let running = control::ask(&run_dir, &ControlRequest::Status, ANSWER_TIMEOUT)?;
    drop(running);
    let socket = Socket::bind(&run_dir)?;
    let lease = Lease { run_dir, user: flags.user.clone(), socket: socket.name.clone() };
    let (number, sessions) = lease.begin()?;
    let colours = io::stdout().is_terminal() && terminal::colours_are_wanted();
    let mut lines = Lines::new(flags.user.clone(), flags.json, colours);
    lines.know(&sessions);
    let count = sessions.as_array().map_or(0, Vec::len);
    let plural = if count == 1 { "" } else { "s" };
    terminal::complain(&format!(
        "tracing {}, {count} session{plural} now; Ctrl-C ends it",
        flags.user
    ));
    let (tell, told) = mpsc::channel();
    let (stop, stopped) = mpsc::channel();
    let renewing = thread::spawn(move || lease.keep(number, &tell, &stopped));
    let outcome = read(&socket.socket, &signals, &told, &mut lines);
    drop(stop);
    // It ends the trace; its waits are bounded.
    let _ = renewing.join();
    outcome
}

/// Prints what comes, until a signal, the end of the server, or of who reads.
fn read(
    socket: &UnixDatagram,
    signals: &SignalFd,
    told: &Receiver<Said>,
    lines: &mut Lines,
) -> Result<ExitCode, Failure> {
    let mut bytes = vec![0; DATAGRAM_MAX];
    loop {
        let mut watched = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut watched, PollTimeout::from(LOOK_EVERY_MS));
        while let Ok(length) = socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]);
            let shown: String = text.lines().filter_map(|line| lines.show(line)).collect();
            if !terminal::print_to_reader(&shown)? {
                return Ok(ExitCode::Ok);
            }
        }
        while let Ok(said) = told.try_recv() {
            match said {
                Said::Dropped(lost) => {
                    terminal::complain(&format!(
                        "{lost} lines were left out: they are not read fast enough"
                    ));
                }
                Said::Sessions(sessions) => lines.know(&sessions),
                Said::Gone(failure) => return Err(failure),
            }
        }
        if matches!(signals.read_signal(), Ok(Some(_))) {
            return Ok(ExitCode::Ok);
        }
    }
}

/// What the renewals have to say.
#[derive(Debug)]
enum Said {
    Dropped(u64),
    /// Begun anew: those that there are.
    Sessions(Json),
    Gone(Failure),
}

/// A trace that lasts while it is renewed.
#[derive(Debug)]
struct Lease {
    run_dir: PathBuf,
    user: String,
    socket: String,
}

impl Lease {
    fn ask(&self, request: &ControlRequest) -> Result<ControlAnswer, ControlError> {
        control::ask(&self.run_dir, request, ANSWER_TIMEOUT)
    }

    /// The number of the trace, and the sessions that there are.
    fn begin(&self) -> Result<(u64, Json), Failure> {
        let (user, socket) = (self.user.clone(), self.socket.clone());
        let answer = self.ask(&ControlRequest::Trace { user, socket })?.outcome();
        let begun = answer.and_then(|mut begun| match begun["trace"].as_u64() {
            Some(number) => Ok((number, begun["sessions"].take())),
            None => Err("the server named no trace".to_owned()),
        });
        begun.map_err(|error| Failure::failed(format!("trace refused: {error}")))
    }

    /// Renews it until `stopped` ends, and then ends it.
    fn keep(self, mut number: u64, tell: &Sender<Said>, stopped: &Receiver<()>) {
        let mut failures = 0;
        let mut dropped = 0;
        while stopped.recv_timeout(RENEW_EVERY) == Err(RecvTimeoutError::Timeout) {
            let said = match self.ask(&ControlRequest::RenewTrace { trace: number }) {
                Ok(answer) if answer.ok => {
                    failures = 0;
                    let now = answer.result["dropped"].as_u64().unwrap_or(0);
                    let lost = now.saturating_sub(std::mem::replace(&mut dropped, now));
                    (lost > 0).then_some(Said::Dropped(lost))
                }
                // Another program has taken the server over, and knows of no trace.
                Ok(_) => match self.begin() {
                    Ok((begun, sessions)) => {
                        (number, dropped) = (begun, 0);
                        Some(Said::Sessions(sessions))
                    }
                    Err(failure) => Some(Said::Gone(failure)),
                },
                Err(ControlError::NotRunning { .. }) => Some(Said::Gone(Failure::with_code(
                    ExitCode::NotRunning,
                    "the server has ended",
                ))),
                Err(error) => {
                    failures += 1;
                    (failures >= RENEW_FAILURES_MAX).then(|| Said::Gone(error.into()))
                }
            };
            if let Some(said) = said {
                let gone = matches!(said, Said::Gone(_));
                if tell.send(said).is_err() || gone {
                    return;
                }
            }
        }
        let _ = self.ask(&ControlRequest::EndTrace { trace: number });
    }
}

/// Where the lines come; its name is gone with it.
#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    name: String,
    path: PathBuf,
}

impl Socket {
    fn bind(run_dir: &Path) -> Result<Self, Failure> {
        let name = format!("trace.{}.sock", std::process::id());
        let path = run_dir.join(&name);
        let failed = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
        // Of a process that had this number before.
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        // From here on its name is removed whatever fails.
        let made = Self { socket, name, path: path.clone() };
        // The directory lets nobody else in; workers must be let in also where root traces.
        let owner = fs::metadata(run_dir).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let _ = chown(&path, Some(owner.uid()), Some(owner.gid()));
        made.socket.set_nonblocking(true).map_err(failed)?;
        Ok(made)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
