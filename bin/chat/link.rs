//! The session and its socket together: carries out what the state asks for, and tells it what came.
//!
//! Both the full screen and the line client have one; what is told goes to them.

use super::connection::{Connection, Heard, Opening, may_have_more};
use super::news::{Ending, News, OpenFailure};
use super::place::Place;
use super::state::{Action, Identity, State};
use crate::failure::Failure;
use dunlin_server::clock::{self, Millis};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Longest time in which nothing is looked at: what no descriptor tells of (a changed size of the
/// window, the minute) is seen by then.
const LOOK_EVERY_MS: u64 = 1_000;
/// The longest token a server takes is half of this.
const TOKEN_FILE_MAX_BYTES: u64 = 16 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) state: State,
    place: Place,
    token_file: Option<PathBuf>,
    opening: Option<Opening>,
    connection: Option<Connection>,
    /// The socket has more than was read in the last turn.
    more: bool,
    wake: UnixStream,
    woken: UnixStream,
    ending: Option<Ending>,
}

impl Link {
    pub(crate) fn new(
        place: Place,
        identity: Identity,
        token_file: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::failed(error.to_string());
        let (wake, woken) = UnixStream::pair().map_err(failed)?;
        wake.set_nonblocking(true).and_then(|()| woken.set_nonblocking(true)).map_err(failed)?;
        let key_base = random_text()?;
        let seed = clock::now_us() ^ u64::from(std::process::id()) << 32;
        Ok(Self {
            state: State::new(clock::now(), identity, key_base, seed),
            place,
            token_file,
            opening: None,
            connection: None,
            more: false,
            wake,
            woken,
            ending: None,
        })
    }

    /// How it ended, once it has.
    pub(crate) fn take_ending(&mut self) -> Option<Ending> {
        self.ending.take()
    }

    /// Waits for the socket, for time to pass, or for one of `others` to be readable; which of those
    /// are.
    pub(crate) fn wait(&self, others: &[BorrowedFd<'_>]) -> Result<Vec<bool>, Failure> {
        let mut watched: Vec<PollFd<'_>> =
            others.iter().map(|other| PollFd::new(*other, PollFlags::POLLIN)).collect();
        watched.push(PollFd::new(self.woken.as_fd(), PollFlags::POLLIN));
        if let Some(connection) = &self.connection {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, connection.wants_write());
            watched.push(PollFd::new(connection.as_fd(), flags));
        }
        match poll(&mut watched, self.timeout(clock::now())) {
            // A signal: the size of the window has changed, say.
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Failure::failed(format!("cannot wait: {errno}"))),
        }
        // An end or an error is found by reading.
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|found| !found.is_empty());
        Ok(watched[..others.len()].iter().map(is_ready).collect())
    }

    fn timeout(&self, now: Millis) -> PollTimeout {
        if self.more {
            return PollTimeout::ZERO;
        }
        let due = self.state.next_due().map_or(LOOK_EVERY_MS, |at| at.since(now));
        // It is at most a second.
        PollTimeout::from(u16::try_from(due.min(LOOK_EVERY_MS)).unwrap_or(1_000))
    }

    /// Reads what came, does what is due and what the state asks for; what it tells.
    pub(crate) fn turn(&mut self) -> Vec<News> {
        let now = clock::now();
        let mut dust = [0; 64];
        while (&self.woken).read(&mut dust).is_ok_and(|read| read > 0) {}
        self.take_opened(now);
        self.read(now);
        if self.state.next_due().is_some_and(|due| due <= now) {
            self.state.expire(now);
        }
        self.carry_out(now)
    }

    fn take_opened(&mut self, now: Millis) {
        match self.opening.as_ref().and_then(Opening::outcome) {
            None => return,
            Some(Ok(connection)) => self.connection = Some(connection),
            Some(Err(failure)) => self.state.open_failed(now, &failure),
        }
        self.opening = None;
    }

    fn read(&mut self, now: Millis) {
        let Some(connection) = &mut self.connection else { return };
        let heard = connection.read();
        self.more = may_have_more(&heard);
        for heard in heard {
            match heard {
                Heard::Text(text) => self.state.hear(now, &text),
                Heard::Something => self.state.heard_something(),
                Heard::Closed { code, reason } => {
                    self.connection = None;
                    self.more = false;
                    self.state.closed(now, code, &reason);
                }
            }
        }
    }

    /// Until the state wants no more.
    fn carry_out(&mut self, now: Millis) -> Vec<News> {
        let mut told = Vec::new();
        while let Some(action) = self.state.take_action() {
            match action {
                Action::Open => match Opening::begin(&self.place, &self.wake) {
                    Ok(opening) => self.opening = Some(opening),
                    Err(error) => {
                        let (place, why) = (self.place.to_string(), error.to_string());
                        self.state.open_failed(now, &OpenFailure::NoServer { place, why });
                    }
                },
                Action::Send(text) => {
                    if let Some(connection) = &mut self.connection {
                        connection.send(text);
                    }
                }
                Action::Close => {
                    self.opening = None;
                    self.more = false;
                    if let Some(connection) = self.connection.take() {
                        connection.close();
                    }
                }
                Action::ReadToken => {
                    let token = self.token_file.as_deref().and_then(|file| read_token(file).ok());
                    self.state.token_read(token);
                }
                Action::Tell(news) => told.push(news),
                Action::End(ending) => self.ending = Some(ending),
            }
        }
        told
    }
}

/// The token in a file, without the line end behind it.
pub(crate) fn read_token(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    File::open(file)
        .and_then(|opened| opened.take(TOKEN_FILE_MAX_BYTES).read_to_string(&mut text))
        .map_err(|error| {
            Failure::bad_usage(format!("cannot read the token in {}: {error}", file.display()))
        })?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::bad_usage(format!("{} has no token", file.display())));
    }
    Ok(token.to_owned())
}

/// A text that no other client has.
pub(crate) fn random_text() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("no random numbers: {error}")))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
