//! A task process: takes work from the one task queue and runs the application's `task` hook, which
//! may block.
//!
//! All task processes read the same queue: the kernel gives a task to an idle one. It notes the task
//! in its scoreboard row first, so that the master can tell the asker if it dies with it (see
//! `queue`). Knows no connection; what its hook pushes goes by mail.

mod effects;
mod event_loop;
mod queue;

pub(crate) use queue::recover as recover_queue;

use crate::app::{App, StopReason};
use crate::clock::Millis;
use crate::context::Context;
use crate::ipc::pipe::{Control, Pipe, cut_sentence};
use crate::ipc::post::Post;
use crate::marks::Marks;
use crate::scoreboard::{Cell, ProcessRow};
use crate::shared::Shared;
use crate::sys::signals;
use crate::wiring::Wiring;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tracing::error;

/// Longest encoded task, in bytes.
pub const TASK_MAX_BYTES: usize = 128 << 10;
/// Room for the longest task with its envelope.
const TASK_BUFFER_BYTES: usize = TASK_MAX_BYTES + (1 << 10);

/// What a task process is born with.
pub(crate) struct Birth {
    pub(crate) place: u16,
    pub(crate) control: RawFd,
    pub(crate) queue: RawFd,
    pub(crate) shared: Shared,
    pub(crate) wiring: Wiring,
}

/// What a task process has in hand, without the application.
pub(crate) struct Core {
    place: u16,
    control: Pipe,
    queue: RawFd,
    shared: Shared,
    post: Post,
    marks: Marks,
    wiring: Wiring,
    row: ProcessRow,
    /// It was told to stop, and why.
    stop: Option<StopReason>,
}

struct TaskProcess<'a, A: App> {
    app: &'a mut A,
    core: Core,
    signals: RawFd,
    /// When it asks to be replaced, since it got SIGTERM.
    ask_at: Option<Millis>,
}

/// The whole life of a task process; gives its exit code.
pub(crate) fn run<A: App>(app: &mut A, birth: Birth) -> i32 {
    match live(app, birth) {
        Ok(code) => code,
        Err(error) => {
            error!(%error, "the task process cannot go on");
            1
        }
    }
}

fn live<A: App>(app: &mut A, birth: Birth) -> io::Result<i32> {
    let (signals, _) = signals::own_pipe()?;
    crate::sys::fork::unblock_signals()?;
    let row = birth.shared.scoreboard.task(usize::from(birth.place));
    let core = Core {
        place: birth.place,
        control: Pipe::new(birth.control),
        queue: birth.queue,
        post: Post::new(&birth.wiring.post),
        marks: Marks::default(),
        wiring: birth.wiring,
        shared: birth.shared,
        row,
        stop: None,
    };
    let mut process = TaskProcess { app, core, signals, ask_at: None };
    let started = process.hook(|app, context| app.worker_start(context));
    let failed = match started {
        Some(Ok(())) => None,
        Some(Err(sentence)) => Some(sentence),
        None => Some("worker_start panicked".to_owned()),
    };
    if let Some(sentence) = failed {
        error!(%sentence, "worker_start failed");
        let _ = process
            .core
            .control
            .send(&Control::PrepareFailed { sentence: cut_sentence(&sentence) });
        return Ok(1);
    }
    let _ = process.core.control.send(&Control::Prepared);
    process.run()?;
    let reason = process.core.stop.unwrap_or(StopReason::Replaced);
    process.hook(|app, context| app.worker_stop(context, reason));
    process.core.deliver_mail();
    Ok(0)
}

impl<A: App> TaskProcess<'_, A> {
    fn hook<R>(&mut self, call: impl FnOnce(&mut A, &mut Context<'_, A>) -> R) -> Option<R> {
        let Self { app, core, .. } = self;
        let app: &mut A = app;
        let called = catch_unwind(AssertUnwindSafe(|| call(app, &mut Context::new(core))));
        if called.is_err() {
            self.core.row.add(Cell::HookPanics, 1);
            error!("a hook panicked");
        }
        called.ok()
    }
}
