//! The task process's loop: one task at a time.

use super::queue::{self, Taken};
use super::{Core, TASK_BUFFER_BYTES, TaskProcess};
use crate::app::{App, StopReason, TaskFailure};
use crate::clock;
use crate::ids::TaskId;
use crate::ipc::codec;
use crate::ipc::mail::{Mail, TaskMail};
use crate::ipc::pipe::{Control, TERM_PATIENCE_MS};
use crate::logging;
use crate::scoreboard::Cell;
use crate::sys::signals;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::libc::SIGTERM;
use std::io;
use std::thread;
use std::time::Duration;
use tracing::error;

const CONTROL: Token = Token(0);
const QUEUE: Token = Token(1);
const SIGNALS: Token = Token(2);

/// How soon a full mailbox is tried again, and for how long in all.
const MAIL_RETRY_MS: u64 = 5;
const MAIL_RETRIES: u32 = 200;
/// How soon the queue is looked at again while another process is taking a task: that is a few
/// microseconds' work, unless it is stopped in the middle of it.
const OTHERS_TURN: Duration = Duration::from_micros(100);
/// An edge of the queue may be another task process's: it is looked at anyway this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl<A: App> TaskProcess<'_, A> {
    /// Works until it is told to stop. Where the server stops, what waits in the queue is done first; where
    /// a successor follows, it waits for that one, in the kernel.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let registry = poll.registry();
        let control = self.core.control.descriptor();
        registry.register(&mut SourceFd(&control), CONTROL, Interest::READABLE)?;
        registry.register(&mut SourceFd(&self.core.queue), QUEUE, Interest::READABLE)?;
        registry.register(&mut SourceFd(&self.signals), SIGNALS, Interest::READABLE)?;
        let mut events = Events::with_capacity(8);
        let mut buffer = vec![0; TASK_BUFFER_BYTES];
        loop {
            self.obey_control();
            while self.core.stop != Some(StopReason::Replaced) && self.take_task(&mut buffer)? {
                self.obey_control();
            }
            if self.core.stop.is_some() {
                return Ok(());
            }
            let until_ask =
                self.ask_at.map_or(LOOK_EVERY, |at| Duration::from_millis(at.since(clock::now())));
            if let Err(error) = poll.poll(&mut events, Some(until_ask.min(LOOK_EVERY)))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
        }
    }

    fn obey_control(&mut self) {
        if signals::drain(self.signals).has(SIGTERM) {
            self.ask_at.get_or_insert_with(|| clock::now() + TERM_PATIENCE_MS);
        }
        if self.ask_at.take_if(|at| clock::now() >= *at).is_some()
            && self.core.control.send(&Control::Recycle).is_err()
        {
            self.core.stop.get_or_insert(StopReason::Replaced);
        }
        while let Some(message) = self.core.control.receive() {
            match message {
                Control::Stop { .. } => self.core.stop = Some(StopReason::Shutdown),
                Control::Leave => self.core.stop = Some(StopReason::Replaced),
                Control::ReopenLog => {
                    if let Err(error) = logging::reopen() {
                        error!(%error, "the log cannot be opened anew");
                    }
                }
                other => error!(?other, "not for a task process"),
            }
        }
    }

    /// Takes a task from the queue and does it. False: none is there.
    fn take_task(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let Core { queue, place, shared, .. } = &self.core;
        match queue::take(*queue, shared.scoreboard, *place, clock::now(), buffer)? {
            Taken::Task(mail) => self.do_task(&mail),
            Taken::Unreadable => {}
            Taken::Busy => thread::sleep(OTHERS_TURN),
            Taken::Nothing => return Ok(false),
        }
        Ok(true)
    }

    fn do_task(&mut self, mail: &TaskMail) {
        let row = self.core.row;
        let task = TaskId(mail.task);
        let result = match codec::decode_value(&mail.work) {
            Ok(work) => match self.hook(|app, context| app.task(context, task, work)) {
                Some(Some(result)) => {
                    codec::encode_value(&result).map_err(|_| TaskFailure::Undecodable)
                }
                Some(None) => Err(TaskFailure::NoResult),
                None => Err(TaskFailure::Panicked),
            },
            Err(_) => Err(TaskFailure::Undecodable),
        };
        row.add(Cell::TasksDone, u64::from(result.is_ok()));
        row.add(Cell::TasksFailedInside, u64::from(result.is_err()));
        if self.core.post.put(usize::from(mail.asker), &Mail::finish(task, &result)).is_err() {
            error!("a task's result was not taken by its asker's mailbox");
        }
        self.core.deliver_mail();
        row.note_task(0);
    }
}

impl Core {
    /// Sends what is packed; waits, within bounds, for mailboxes that are full: a result is worth it.
    pub(super) fn deliver_mail(&mut self) {
        self.post.flush();
        for _ in 0..MAIL_RETRIES {
            if self.post.retry() {
                self.marks.set();
                return;
            }
            thread::sleep(Duration::from_millis(MAIL_RETRY_MS));
        }
        // Some of it still waits, and dies with this process.
        self.marks.forget();
    }
}
