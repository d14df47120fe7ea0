//! Starting children: what each kind of process is born with, and its first steps.
//!
//! The first steps of a child, in this order: forget the parent's signal pipe → (all but workers) close
//! everything but a written list → end with the master → title and log role → its own pipe for signals
//! → let signals in → work. It leaves by `exit_now` only.

use super::Master;
use super::children::Child;
use super::event_loop::{pidfd_token, pipe_token};
use super::seats::Seat;
use crate::app::App;
use crate::ids::{Generation, SlotId};
use crate::ipc::pipe::Pipe;
use crate::ledger::{DescriptorKind, Holder};
use crate::logging;
use crate::process::{self, PipeKind, ProcessContext};
use crate::sandbox;
use crate::sys::fork::{self, Descriptors, Forked};
use crate::sys::{descriptor, inherit, packet, signals};
use crate::worker::Sources;
use crate::{task, worker};
use mio::Interest;
use mio::unix::SourceFd;
use std::io;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Size of a control pipe's buffers: a few dozen small messages.
const CONTROL_BUFFER_BYTES: usize = 64 << 10;

impl<A: App> Master<A> {
    /// Starts a process in a seat. In the child this does not return.
    pub(super) fn spawn(&mut self, seat: Seat, generation: u32) -> io::Result<()> {
        let ledger = self.shared.ledger;
        let (ours, theirs) = packet::pair(CONTROL_BUFFER_BYTES)?;
        let sources = match seat {
            Seat::Worker(slot) => {
                let holder = Holder { slot, generation: Generation(generation) };
                // Noted before there is a child that could die with it.
                ledger.note(theirs, DescriptorKind::Private, holder);
                let sources = Sources::make(ledger, holder).inspect_err(|_| {
                    ledger.clear(theirs);
                    descriptor::close(ours);
                    descriptor::close(theirs);
                })?;
                Some(sources)
            }
            Seat::Task(_) | Seat::Process(_) => None,
        };
        let sharing = if seat.is_worker() { Descriptors::Shared } else { Descriptors::Own };
        let pid = match fork::fork(sharing) {
            Ok(Forked::Child) => self.be_child(seat, generation, theirs, sources),
            Ok(Forked::Parent(pid)) => pid,
            Err(error) => {
                ledger.clear(theirs);
                descriptor::close(ours);
                descriptor::close(theirs);
                if let Some(sources) = sources {
                    sources.close(ledger);
                }
                return Err(error);
            }
        };
        match sources {
            Some(sources) => sources.leave_to_child(),
            None => descriptor::close(theirs),
        }
        let taken = self.take_in_hand(seat, generation, pid, ours);
        if taken.is_err() {
            // Nobody would hear of it again: it must not live on.
            fork::kill(pid);
            let _ = fork::wait_for(pid);
            if let Seat::Worker(slot) = seat {
                self.close_private(slot, generation);
            }
        }
        taken
    }

    fn take_in_hand(
        &mut self,
        seat: Seat,
        generation: u32,
        pid: i32,
        pipe: RawFd,
    ) -> io::Result<()> {
        let pidfd = match descriptor::open_pidfd(pid) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                descriptor::close(pipe);
                return Err(error);
            }
        };
        for own in [pipe, pidfd] {
            self.shared.ledger.note(own, DescriptorKind::Master, Holder::MASTER);
        }
        let key = self.children.next_key();
        let registry = self.poll.registry();
        let both = Interest::READABLE | Interest::WRITABLE;
        let watched = registry
            .register(&mut SourceFd(&pidfd), pidfd_token(key), Interest::READABLE)
            .and_then(|()| registry.register(&mut SourceFd(&pipe), pipe_token(key), both));
        if let Err(error) = watched {
            for own in [pidfd, pipe] {
                // It fails only where it is not registered, which is what is wanted.
                let _ = registry.deregister(&mut SourceFd(&own));
                self.shared.ledger.clear(own);
                descriptor::close(own);
            }
            return Err(error);
        }
        self.children.insert(Child {
            seat,
            generation,
            pid,
            pidfd,
            pipe: Pipe::new(pipe),
            ended: false,
            ended_at: self.now,
            report: false,
            stuck: false,
            killed: false,
        });
        Ok(())
    }

    fn be_child(
        &mut self,
        seat: Seat,
        generation: u32,
        pipe: RawFd,
        sources: Option<Sources>,
    ) -> ! {
        signals::forget_pipe();
        if !seat.is_worker() && inherit::close_all_but(&self.kept_by(seat, pipe)).is_err() {
            fork::exit_now(1);
        }
        fork::die_with(self.wiring.master_pid);
        let (title, role) = match seat {
            Seat::Worker(slot) => {
                (format!("dunlin:worker{slot}"), format!("worker[{slot}.{generation}]"))
            }
            Seat::Task(place) => {
                (format!("dunlin:task{place}"), format!("task[{place}.{generation}]"))
            }
            Seat::Process(place) => {
                let name = &self.processes[usize::from(place)].name;
                (format!("dunlin:{name}"), format!("{name}[{generation}]"))
            }
        };
        self.shared.sessions.set_writer(seat.writer(generation));
        fork::set_title(&title);
        logging::set_role(&role);
        let lived = catch_unwind(AssertUnwindSafe(|| match seat {
            Seat::Worker(slot) => match sources {
                Some(sources) => self.be_worker(slot, generation, pipe, sources),
                None => 1,
            },
            Seat::Task(place) => self.be_task(place, pipe),
            Seat::Process(place) => self.be_process(place, pipe),
        }));
        fork::exit_now(lived.unwrap_or(101))
    }

    fn kept_by(&self, seat: Seat, pipe: RawFd) -> Vec<RawFd> {
        let mut keep = self.wiring.kept_by_others();
        keep.push(pipe);
        keep.extend(logging::descriptor());
        if let Seat::Process(place) = seat {
            keep.push(self.wiring.process_inner[usize::from(place)]);
        }
        keep
    }

    fn be_worker(&mut self, slot: u16, generation: u32, pipe: RawFd, sources: Sources) -> i32 {
        let birth = worker::Birth {
            slot: SlotId(slot),
            generation: Generation(generation),
            pipe,
            sources,
            shared: self.shared.clone(),
            config: self.config.clone(),
            wiring: self.wiring.clone(),
        };
        worker::run(&mut self.app, birth)
    }

    fn be_task(&mut self, place: u16, pipe: RawFd) -> i32 {
        let Some(queue) = self.wiring.tasks_out else { return 1 };
        let birth = task::Birth {
            place,
            control: pipe,
            queue,
            shared: self.shared.clone(),
            wiring: self.wiring.clone(),
        };
        task::run(&mut self.app, birth)
    }

    fn be_process(&mut self, place: u16, pipe: RawFd) -> i32 {
        let sandboxed = self.config.sandbox;
        let process = &mut self.processes[usize::from(place)];
        let inner = self.wiring.process_inner[usize::from(place)];
        let birth = process::Birth {
            place,
            control: pipe,
            inner,
            shared: self.shared.clone(),
            wiring: self.wiring.clone(),
        };
        let prepared = ProcessContext::in_server(birth).and_then(|context| {
            if process.pipe == PipeKind::Stdio {
                process::redirect_stdio(inner)?;
            }
            fork::unblock_signals()?;
            Ok(context)
        });
        match prepared {
            Ok(mut context) => {
                sandbox::enter(sandboxed && process.sandboxed, &context.row());
                context.say_prepared();
                (process.run)(&mut context);
                0
            }
            Err(error) => {
                tracing::error!(%error, "an added process cannot be prepared");
                1
            }
        }
    }
}
