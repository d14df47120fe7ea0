//! Processes beside the workers: a closure in a child with a pipe, as Swoole's `Process` and
//! `addProcess`.
//!
//! [`AddedProcess`] belongs to a server, which starts, supervises, reloads and stops it: give it to
//! [`Server::add_process`](crate::server::Server::add_process). [`Process`] stands alone. Both run the
//! closure with a [`ProcessContext`]. The timer process is the first user of this interface.

mod context;
mod standalone;

pub use context::{ProcessContext, ProcessEvent};
pub use standalone::{Process, ProcessError};

pub(crate) use context::Birth;
pub(crate) use standalone::{pair, redirect_stdio};

use std::fmt;

/// How a process is connected to those who started it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PipeKind {
    /// Packets: what is written at once is read at once, at most 64 KiB.
    #[default]
    Packets,
    /// A stream of bytes.
    Stream,
    /// A stream of bytes that is also the process's standard input and output.
    Stdio,
}

/// A process that a server runs beside its workers.
pub struct AddedProcess {
    pub(crate) name: String,
    pub(crate) pipe: PipeKind,
    pub(crate) run: Box<dyn FnMut(&mut ProcessContext)>,
    /// Whether it lives by `server.sandbox`.
    pub(crate) sandboxed: bool,
}

impl AddedProcess {
    /// A process of this name (unique in the server) that runs `run`; when it returns, or dies, it is
    /// started again, with growing delay if that happens often. It should watch
    /// [`ProcessContext::wait`] and return on [`ProcessEvent::Stop`].
    pub fn new(name: &str, run: impl FnMut(&mut ProcessContext) + 'static) -> Self {
        Self {
            name: name.to_owned(),
            pipe: PipeKind::default(),
            run: Box::new(run),
            sandboxed: false,
        }
    }

    /// The same with another kind of pipe.
    #[must_use]
    pub fn pipe(mut self, kind: PipeKind) -> Self {
        self.pipe = kind;
        self
    }
}

impl fmt::Debug for AddedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddedProcess")
            .field("name", &self.name)
            .field("pipe", &self.pipe)
            .finish_non_exhaustive()
    }
}
