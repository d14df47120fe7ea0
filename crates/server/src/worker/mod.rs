//! A worker: serves the connections of one slot, in a process that shares the master's descriptor
//! table.
//!
//! Knows the hooks of the application and when each is due. It is a cache: what must outlive it lies in
//! shared memory, in the slot's mailbox and listeners, or, at rest, in a memfd.

mod accept;
mod clients;
mod compression;
mod connection;
mod core;
mod deliver;
mod effects;
mod event_loop;
mod gather;
mod goodbye;
mod handover;
mod http_exchange;
mod leftover;
mod moving;
mod open_tasks;
mod pace;
mod pong;
mod pool_limits;
mod receive;
mod routing;
mod settle;
mod shed;
mod sources;
mod standing_in;
mod state;
mod sweep;
mod times;
mod trace;

use self::core::Core;
pub(crate) use self::leftover::MARK as REST_MARK;
use self::routing::Speaking;
pub(crate) use self::sources::Sources;
use self::state::{Action, Input, Leaving};
use crate::app::{App, StopReason};
use crate::config::Config;
use crate::context::Context;
use crate::http::OriginPolicy;
use crate::ids::{ConnId, Generation, SlotId};
use crate::ipc::pipe::{Control, WireAdoption, cut_sentence};
use crate::sandbox;
use crate::scoreboard::Errand;
use crate::shared::Shared;
use crate::wiring::Wiring;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use tracing::{error, info};

/// What a worker is born with.
pub(crate) struct Birth {
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
    pub(crate) pipe: RawFd,
    pub(crate) sources: Sources,
    pub(crate) shared: Shared,
    pub(crate) config: Rc<Config>,
    pub(crate) wiring: Wiring,
}

/// A worker with its application.
pub(crate) struct Worker<'a, A: App> {
    app: &'a mut A,
    core: Core,
    origins: OriginPolicy,
}

/// The whole life of a worker process; gives its exit code.
pub(crate) fn run<A: App>(app: &mut A, birth: Birth) -> i32 {
    match live(app, birth) {
        Ok(()) => 0,
        Err(error) => {
            error!(%error, "the worker cannot go on");
            1
        }
    }
}

fn live<A: App>(app: &mut A, birth: Birth) -> io::Result<()> {
    birth.sources.take_signals();
    crate::sys::fork::unblock_signals()?;
    let origins = OriginPolicy::from_allowed(&birth.config.allowed_origins);
    let core = Core::new(birth, A::goodbye)?;
    // Never dropped: the drop would close the epoll, whose ledger entry the master still goes by when
    // it reaps this process; by then the number may be a neighbour's.
    let mut worker = ManuallyDrop::new(Worker { app, core, origins });
    worker.core.watch_control()?;
    if !worker.start() {
        return Ok(());
    }
    let leaving = worker.run()?;
    if leaving == Leaving::Stopped {
        worker.cut_off();
    } else {
        // They are the successor's: what the hook still sends them goes by mail.
        worker.core.forget_connections();
        worker.core.post.forget_spilled();
        worker.hook(|app, context| app.worker_stop(context, StopReason::Replaced));
    }
    worker.core.post.flush();
    Ok(())
}

impl<A: App> Worker<'_, A> {
    fn start(&mut self) -> bool {
        let started = self.hook(|app, context| app.worker_start(context));
        let sentence = match started {
            Some(Ok(())) => {
                // What starts it may still need what nothing does that a client can bring about.
                sandbox::enter(self.core.config.sandbox, &self.core.row);
                // A master that does not read its pipe is gone, and so will this process be.
                let _ = self.core.pipe.send(&Control::Prepared);
                return true;
            }
            Some(Err(sentence)) => sentence,
            None => "worker_start panicked".to_owned(),
        };
        error!(%sentence, "worker_start failed");
        let _ = self.core.pipe.send(&Control::PrepareFailed { sentence: cut_sentence(&sentence) });
        false
    }

    /// Calls a hook. A panic in it is counted and logged; the worker lives.
    fn hook<R>(&mut self, call: impl FnOnce(&mut A, &mut Context<'_, A>) -> R) -> Option<R> {
        let Self { app, core, .. } = self;
        let app: &mut A = app;
        // The application may be left in the middle of something; it is told so in its documentation,
        // and the alternative is to lose every connection of the worker.
        let called = catch_unwind(AssertUnwindSafe(|| call(app, &mut Context::new(core))));
        if called.is_err() {
            self.core.row.add(crate::scoreboard::Cell::HookPanics, 1);
            crate::limited!(error, "a hook panicked");
        }
        called.ok()
    }

    /// Calls a hook for a connection, or for none; what is about to be done is noted first, for the case
    /// that the worker dies of it or never comes out of it.
    fn hook_for<R>(
        &mut self,
        errand: Errand,
        conn: Option<ConnId>,
        call: impl FnOnce(&mut A, &mut Context<'_, A>) -> R,
    ) -> Option<R> {
        // The slot has one row of figures: it is its owner's.
        let owns = self.core.life.serving();
        if owns {
            self.core.row.note_errand(errand, conn);
        }
        let speaks = conn.map_or(Speaking::Nobody, Speaking::Of);
        let before = std::mem::replace(&mut self.core.speaking, speaks);
        let called = self.hook(call);
        self.core.speaking = before;
        if owns {
            self.core.row.end_errand();
        }
        called
    }

    fn obey_pipe(&mut self) {
        while let Some(message) = self.core.pipe.receive() {
            match message {
                Control::Commit { rest, why, empty } => {
                    if self.decide(Input::Commit) == Some(Action::Serve) {
                        self.serve(rest, why, empty);
                    }
                }
                Control::StandIn { slot, rest, why } => {
                    self.stand_in(SlotId(slot), rest, why.into());
                }
                Control::StandDown { slot } => self.begin_standing_down(SlotId(slot)),
                Control::Rest { successor } => {
                    // What is not its own is given back first.
                    self.stand_down();
                    self.finish_what_is_begun();
                    // The scoreboard's row is a successor's from then on.
                    self.core.end_turn();
                    if self.decide(Input::Rest) == Some(Action::LayDown) {
                        self.rest(successor);
                    }
                }
                Control::Resume => {
                    if self.decide(Input::Resume) == Some(Action::TakeUp) {
                        self.take_up();
                    }
                }
                Control::Stop { timeout_ms, tell_ms } => {
                    if self.decide(Input::Stop { timeout_ms }) == Some(Action::SayGoodbye) {
                        self.begin_goodbyes(tell_ms, timeout_ms);
                    }
                }
                Control::Move { id, to, count, within_ms } => {
                    self.begin_moving(id, SlotId(to), count, within_ms);
                }
                Control::Leave => drop(self.decide(Input::Leave)),
                other => error!(?other, "not for a worker"),
            }
        }
    }

    /// What this turn has begun, and what hooks have answered, goes out before the worker rests.
    fn finish_what_is_begun(&mut self) {
        loop {
            self.give_answers();
            self.pay_owed();
            self.settle();
            if self.core.answers.is_empty() && self.core.touched.is_empty() {
                return;
            }
        }
    }

    fn decide(&mut self, input: Input) -> Option<Action> {
        let action = self.core.life.input(self.core.now, input);
        if action == Some(Action::AskForSuccessor) {
            let _ = self.core.pipe.send(&Control::Recycle);
        }
        action
    }

    fn serve(&mut self, rest: Option<RawFd>, why: WireAdoption, empty: bool) {
        // The slot's stamp is this worker's from here on, in the middle of a turn.
        self.core.row.turn_begins(self.core.now);
        if let Err(error) = self.core.watch_service() {
            error!(%error, "the mailbox or a listener cannot be watched");
        }
        let adopted = self.adopt(rest, why.into(), empty);
        if why == WireAdoption::GivenBack {
            // What the slot's connections said to each other meanwhile lies there, before what they say
            // next.
            self.read_mailbox_out();
        }
        let _ =
            self.core.pipe.send(&Control::Ready { adopted: adopted.adopted, lost: adopted.lost });
        info!(adopted = adopted.adopted, lost = adopted.lost, "serving");
    }

    fn rest(&mut self, successor: u32) {
        // Who is on the way goes on by the successor.
        self.give_up_moving();
        self.core.swap_polls();
        self.core.gatherings.clear();
        match self.core.lay_down() {
            Ok(rest) => {
                self.core.post.leave_journals(true);
                let connections = u32::try_from(self.core.connections.len()).unwrap_or(u32::MAX);
                let _ = self.core.pipe.send(&Control::Rested { successor, rest, connections });
            }
            Err(error) => {
                // The master gives the successor up, and sends `Resume`.
                error!(%error, "what is left cannot be laid down: no rest");
                let sentence = cut_sentence(&error.to_string());
                let _ = self.core.pipe.send(&Control::RestFailed { successor, sentence });
            }
        }
    }

    fn take_up(&mut self) {
        self.core.forget_rest();
        // What happened meanwhile is pending there.
        self.core.swap_polls();
        self.core.mail_ready = true;
        self.core.accept_ready = true;
        info!("serving again: the successor failed");
    }
}
