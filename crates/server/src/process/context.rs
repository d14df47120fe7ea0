//! What the closure of a process may do.
//!
//! Knows its pipe, and in a server also the master's control pipe, everybody's mailboxes and the
//! shared memory. One call, [`ProcessContext::wait`], watches all of it: it is the process's event
//! loop.

use crate::app::Sender;
use crate::ids::SlotId;
use crate::ipc::codec;
use crate::ipc::mail::Mail;
use crate::ipc::pipe::{Control, Pipe, TERM_PATIENCE_MS};
use crate::ipc::post::Post;
use crate::logging;
use crate::scoreboard::ProcessRow;
use crate::sessions::Sessions;
use crate::shared::Shared;
use crate::sys::{descriptor, packet, signals};
use crate::wiring::Wiring;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::libc::SIGTERM;
use serde::Serialize;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};
use tracing::error;

const INNER: Token = Token(0);
const TERM_PATIENCE: Duration = Duration::from_millis(TERM_PATIENCE_MS);
const CONTROL: Token = Token(1);
const SIGNALS: Token = Token(2);

/// Longest piece read from the pipe at once.
const PIECE_MAX: usize = 64 << 10;

/// What [`ProcessContext::wait`] saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProcessEvent {
    /// These bytes came through the pipe: a packet, or a piece of the stream.
    Bytes(Vec<u8>),
    /// Nobody holds the other end any more.
    PipeEnded,
    /// The server stops or replaces this process: return soon.
    Stop,
    /// The time is up.
    Timeout,
}

/// What a process of a server is born with.
pub(crate) struct Birth {
    pub(crate) place: u16,
    pub(crate) control: RawFd,
    pub(crate) inner: RawFd,
    pub(crate) shared: Shared,
    pub(crate) wiring: Wiring,
}

/// The hands of a process.
pub struct ProcessContext {
    inner: RawFd,
    poll: Poll,
    events: Events,
    /// The pipe may have more, said the last look at it.
    inner_ready: bool,
    inner_ended: bool,
    signal_pipe: RawFd,
    stop: bool,
    /// When it asks to be replaced, since it got SIGTERM.
    ask_at: Option<Instant>,
    server: Option<InServer>,
}

struct InServer {
    place: u16,
    control: Pipe,
    post: Post,
    shared: Shared,
}

impl ProcessContext {
    pub(crate) fn in_server(birth: Birth) -> io::Result<Self> {
        let mut context = Self::alone(birth.inner)?;
        let control = Pipe::new(birth.control);
        context.poll.registry().register(
            &mut SourceFd(&birth.control),
            CONTROL,
            Interest::READABLE,
        )?;
        context.server = Some(InServer {
            place: birth.place,
            control,
            post: Post::new(&birth.wiring.post),
            shared: birth.shared,
        });
        Ok(context)
    }

    pub(crate) fn alone(inner: RawFd) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (signal_pipe, _) = signals::own_pipe()?;
        descriptor::set_nonblocking(inner, true)?;
        let registry = poll.registry();
        registry.register(&mut SourceFd(&inner), INNER, Interest::READABLE)?;
        registry.register(&mut SourceFd(&signal_pipe), SIGNALS, Interest::READABLE)?;
        Ok(Self {
            inner,
            poll,
            events: Events::with_capacity(16),
            inner_ready: true,
            inner_ended: false,
            signal_pipe,
            stop: false,
            ask_at: None,
            server: None,
        })
    }

    /// Waits for the first of: bytes in the pipe, its end, a stop, the time. `None`: no limit in time.
    /// SIGTERM to this process counts as a stop; in a server, as the wish to be replaced, which the master
    /// then sees to.
    pub fn wait(&mut self, timeout: Option<Duration>) -> ProcessEvent {
        let until = timeout.map(deadline);
        loop {
            self.look_at_control();
            self.ask_where_due();
            if self.stop {
                return ProcessEvent::Stop;
            }
            if let Some(event) = self.look_at_pipe() {
                return event;
            }
            self.flush_mail();
            let left = until.map(|until| until.saturating_duration_since(now()));
            if left.is_some_and(|left| left.is_zero()) {
                return ProcessEvent::Timeout;
            }
            let ask = self.ask_at.map(|at| at.saturating_duration_since(now()));
            let left = left.into_iter().chain(ask).min();
            if let Err(error) = self.poll.poll(&mut self.events, left)
                && error.kind() != io::ErrorKind::Interrupted
            {
                error!(%error, "this process cannot wait");
                return ProcessEvent::Stop;
            }
            for event in &self.events {
                match event.token() {
                    INNER => self.inner_ready = true,
                    SIGNALS => {
                        let came = signals::drain(self.signal_pipe);
                        if came.has(SIGTERM) {
                            self.ask_at.get_or_insert_with(|| deadline(TERM_PATIENCE));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Writes into the pipe: one packet, or bytes of the stream. Waits where the other side is slow.
    ///
    /// # Errors
    /// The other side is gone; a packet is empty or longer than 64 KiB.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_whole(self.inner, bytes)
    }

    /// The pipe's descriptor, for a loop of the process's own.
    #[must_use]
    pub fn pipe_descriptor(&self) -> RawFd {
        self.inner
    }

    /// Sends a message to the `pipe_message` hook of a worker. False: the mailbox is full, or this
    /// process belongs to no server.
    pub fn send_pipe_message<M: Serialize>(&mut self, to: SlotId, message: &M) -> bool {
        let Some(server) = &self.server else { return false };
        let from = Sender::Process(server.place).into();
        match codec::encode_value(message) {
            Ok(bytes) => {
                let posted = self.post(to, &Mail::Pipe { from, message: &bytes });
                self.flush_mail();
                posted
            }
            Err(error) => {
                error!(%error, "a pipe message was not sent");
                false
            }
        }
    }

    /// The session table of the server, if there is one.
    #[must_use]
    pub fn sessions(&self) -> Option<&Sessions> {
        self.server.as_ref().map(|server| &server.shared.sessions)
    }

    pub(crate) fn post(&mut self, slot: SlotId, mail: &Mail<'_>) -> bool {
        self.server.as_mut().is_some_and(|server| server.post.put(slot.index(), mail).is_ok())
    }

    pub(crate) fn flush_mail(&mut self) {
        if let Some(server) = &mut self.server {
            server.post.flush();
            server.post.retry();
        }
    }

    /// The shared memory. Only for processes of a server.
    pub(crate) fn shared(&self) -> &Shared {
        &self.server.as_ref().expect("only the server's own processes ask for it").shared
    }

    pub(crate) fn row(&self) -> ProcessRow {
        let server = self.server.as_ref().expect("only the server's own processes ask for it");
        server.shared.scoreboard.process(usize::from(server.place))
    }

    /// Tells the master that the process is up.
    pub(crate) fn say_prepared(&mut self) {
        if let Some(server) = &mut self.server {
            // A master that does not read its pipe is gone, and so will this process be.
            let _ = server.control.send(&Control::Prepared);
        }
    }

    /// Asks the master to be replaced, where this process was asked to end.
    fn ask_where_due(&mut self) {
        if let Some(server) = &mut self.server {
            if self.ask_at.take_if(|at| now() >= *at).is_some() {
                self.stop |= server.control.send(&Control::Recycle).is_err();
            }
        } else {
            self.stop |= self.ask_at.is_some();
        }
    }

    fn look_at_control(&mut self) {
        let Some(server) = &mut self.server else { return };
        while let Some(message) = server.control.receive() {
            match message {
                Control::Stop { .. } | Control::Leave => self.stop = true,
                Control::ReopenLog => {
                    if let Err(error) = logging::reopen() {
                        error!(%error, "the log cannot be opened anew");
                    }
                }
                other => error!(?other, "not for an added process"),
            }
        }
    }

    fn look_at_pipe(&mut self) -> Option<ProcessEvent> {
        if !self.inner_ready || self.inner_ended {
            return None;
        }
        let mut piece = vec![0; PIECE_MAX];
        // Redirected standard input is a blocking one, and so is this end with it.
        match packet::read_now(self.inner, &mut piece) {
            Ok(0) => {
                self.inner_ended = true;
                Some(ProcessEvent::PipeEnded)
            }
            Ok(length) => {
                piece.truncate(length);
                Some(ProcessEvent::Bytes(piece))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.inner_ready = false;
                None
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => {
                self.inner_ended = true;
                Some(ProcessEvent::PipeEnded)
            }
        }
    }
}

impl std::fmt::Debug for ProcessContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessContext")
            .field("inner", &self.inner)
            .field("in_server", &self.server.is_some())
            .finish_non_exhaustive()
    }
}

/// Writes all of it to a non-blocking pipe end, waiting as long as the other side is slow.
pub(super) fn write_whole(end: RawFd, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "nothing to write"));
    }
    let mut left = bytes;
    while !left.is_empty() {
        match descriptor::write(end, left) {
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // However long it takes; the loop asks again.
                packet::wait_writable(end, Duration::from_secs(1))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a shell's clock: only how long to sleep")]
fn now() -> Instant {
    Instant::now()
}

fn deadline(timeout: Duration) -> Instant {
    now() + timeout
}
