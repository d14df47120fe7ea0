//! A process that belongs to no server: start it, talk through the pipe, wait for its end.
//!
//! For programs with one thread: a fork in a program with threads leaves their locks taken for ever.

use super::PipeKind;
use super::context::{ProcessContext, write_whole};
use crate::sys::fork::{self, Descriptors, Forked};
use crate::sys::{descriptor, inherit, packet, signals};
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// This program has several threads.
    #[error("a process can only be started by a program with one thread; this one has {0}")]
    SeveralThreads(usize),
    /// The pipe could not be made.
    #[error("the pipe of the process cannot be made: {0}")]
    Pipe(#[source] io::Error),
    /// The kernel did not start it.
    #[error("the process cannot be started: {0}")]
    Fork(#[source] io::Error),
}

/// A child that runs a closure, and our side of its pipe.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pipe: RawFd,
    waited: bool,
}

impl Process {
    /// Starts a child that runs `run` and ends with it: 0, or 101 if it panicked. It ends with this
    /// program, too. Everything but standard input, output, error and the pipe is closed in it.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub fn start(
        pipe: PipeKind,
        run: impl FnOnce(&mut ProcessContext),
    ) -> Result<Self, ProcessError> {
        let threads = threads();
        if threads > 1 {
            return Err(ProcessError::SeveralThreads(threads));
        }
        let (outer, inner) = pair(pipe).map_err(ProcessError::Pipe)?;
        let parent = std::process::id();
        match fork::fork(Descriptors::Own).map_err(ProcessError::Fork)? {
            Forked::Parent(pid) => {
                descriptor::close(inner);
                Ok(Self { pid, pipe: outer, waited: false })
            }
            Forked::Child => {
                signals::forget_pipe();
                fork::die_with(parent);
                fork::exit_now(run_child(pipe, inner, run))
            }
        }
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Writes into the pipe. Waits where the child is slow.
    ///
    /// # Errors
    /// The child is gone; a packet is empty or longer than 64 KiB.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_whole(self.pipe, bytes)
    }

    /// Says that nothing more will be written: the child reads what is on its way, and then the end
    /// ([`ProcessEvent::PipeEnded`](super::ProcessEvent::PipeEnded), or the end of its standard
    /// input). What it writes can still be read here.
    ///
    /// # Errors
    /// The child is gone.
    pub fn end_input(&mut self) -> io::Result<()> {
        packet::end_output(self.pipe)
    }

    /// Reads what comes next: a packet, or a piece of the stream. `None`: nothing came in time.
    /// `Some` of nothing: the child has closed its end.
    ///
    /// # Errors
    /// The pipe is broken.
    pub fn read(&mut self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        if !packet::wait_readable(self.pipe, timeout)? {
            return Ok(None);
        }
        let mut piece = vec![0; 64 << 10];
        match descriptor::read(self.pipe, &mut piece) {
            Ok(length) => {
                piece.truncate(length);
                Ok(Some(piece))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Some(Vec::new())),
            Err(error) => Err(error),
        }
    }

    /// Waits for the child's end; gives its exit code, or `None` if a signal ended it.
    ///
    /// # Errors
    /// It was waited for already.
    pub fn wait(&mut self) -> io::Result<Option<i32>> {
        let ended = fork::wait_for(self.pid)?;
        self.waited = true;
        Ok(ended.exit_code)
    }

    /// Ends the child at once.
    pub fn kill(&mut self) {
        if !self.waited {
            fork::kill(self.pid);
        }
    }
}

/// Ends the child and waits for it, so that none is left behind.
impl Drop for Process {
    fn drop(&mut self) {
        descriptor::close(self.pipe);
        if !self.waited {
            fork::kill(self.pid);
            let _ = fork::wait_for(self.pid);
        }
    }
}

/// Our side and the child's side of a pipe.
pub(crate) fn pair(kind: PipeKind) -> io::Result<(RawFd, RawFd)> {
    match kind {
        PipeKind::Packets => packet::pair(256 << 10),
        PipeKind::Stream | PipeKind::Stdio => packet::stream_pair(),
    }
}

/// Makes the pipe the standard input and output of this process.
pub(crate) fn redirect_stdio(inner: RawFd) -> io::Result<()> {
    // Foreign code reads and writes it as it would a terminal.
    descriptor::set_nonblocking(inner, false)?;
    descriptor::duplicate_onto(inner, 0)?;
    descriptor::duplicate_onto(inner, 1)
}

fn run_child(pipe: PipeKind, inner: RawFd, run: impl FnOnce(&mut ProcessContext)) -> i32 {
    let prepared = inherit::close_all_but(&[inner])
        .and_then(|()| ProcessContext::alone(inner))
        .and_then(|context| {
            if pipe == PipeKind::Stdio {
                redirect_stdio(inner)?;
            }
            fork::unblock_signals()?;
            Ok(context)
        });
    let Ok(mut context) = prepared else { return 1 };
    match catch_unwind(AssertUnwindSafe(|| run(&mut context))) {
        Ok(()) => 0,
        Err(_) => 101,
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}
