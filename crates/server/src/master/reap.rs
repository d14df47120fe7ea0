//! After a death: first what readers must see, later what costs time.
//!
//! At once, before anything else reads the rows: the rows the dead worker was serving become `Lost`.
//! In a quiet moment: the process is reaped and what was private to it is closed, since both can take
//! milliseconds with thousands of connections.

use super::Master;
use super::seats::Seat;
use crate::app::{App, TaskFailure, WorkerError};
use crate::ids::{ConnId, Generation, SlotId, TaskId};
use crate::ipc::mail::Mail;
use crate::ipc::post::Post;
use crate::ledger::{DescriptorKind, Holder};
use crate::scoreboard::{Cell, ChildState};
use crate::sessions::{Phase, Service};
use crate::sys::{descriptor, fork};
use crate::task;
use mio::unix::SourceFd;
use nix::libc::SIGKILL;
use std::collections::HashSet;
use std::os::fd::RawFd;
use tracing::{info, warn};

/// After this time a successor has closed what its predecessor's death lost.
const LOST_ROWS_ARE_GONE_MS: u64 = 5_000;

impl<A: App> Master<A> {
    /// The owner of a slot died: rows that are not CLEAN are lost, for every reader at once; the
    /// connections without a row died with it.
    pub(super) fn mark_lost(&mut self, slot: u16, generation: u32) {
        let sessions = &self.shared.sessions;
        let rows: Vec<ConnId> = sessions.owned_by(SlotId(slot)).collect();
        for conn in rows {
            let phase = sessions.phase(conn);
            // Lost already: a successor died before it had closed it.
            let opened = phase.is_some_and(|phase| phase != Phase::Opening);
            if !opened {
                // Claimed, and never shown to the application.
                sessions.free(conn);
                continue;
            }
            let service = sessions.service(conn).unwrap_or(Service::Handling);
            if service != Service::Clean {
                sessions.set_state(conn, Phase::Lost, service);
            }
        }
        self.close_left(SlotId(slot));
        self.close_unclaimed(slot, generation);
        self.shared.timers.recover(SlotId(slot));
        self.shared.timers.rearm(SlotId(slot));
        self.recover_pool();
        // What an append had claimed for a row that is lost is free when the row is.
        self.recover_pool_at = Some(self.now + LOST_ROWS_ARE_GONE_MS);
        let row = self.shared.scoreboard.worker(usize::from(slot));
        for gauge in [
            Cell::Connections,
            Cell::HttpOpen,
            Cell::Sessions,
            Cell::SpilledBytes,
            Cell::UnsentBytes,
        ] {
            row.set(gauge, 0);
        }
        row.turn_ends();
    }

    /// Frees blocks of the receive pool whose rows are gone.
    fn recover_pool(&self) {
        self.shared.pool.recover(|row| self.shared.sessions.rows().is_live(row));
    }

    /// The same once more when the lost rows of a dead worker are closed.
    pub(super) fn recover_pool_later(&mut self) {
        if self.recover_pool_at.is_some_and(|at| self.now >= at) {
            self.recover_pool_at = None;
            self.recover_pool();
        }
    }

    /// Closes connections of a dead worker that no row names, and what was left for it.
    fn close_unclaimed(&self, slot: u16, generation: u32) {
        let ledger = self.shared.ledger;
        let mut orphaned = Vec::new();
        for number in 0..ledger.len() {
            let Ok(number) = RawFd::try_from(number) else { break };
            let Some(entry) = ledger.entry(number) else { continue };
            if entry.holder.slot != slot || entry.holder.generation.0 > generation {
                continue;
            }
            match entry.kind {
                // Rest: what a predecessor left for the one that died now.
                DescriptorKind::Handshaking | DescriptorKind::Session | DescriptorKind::Rest => {
                    orphaned.push(number);
                }
                DescriptorKind::Spill => {
                    // Whoever serves the slot next sends it.
                    let left = Holder { slot, generation: Generation(0) };
                    ledger.note(number, DescriptorKind::Spill, left);
                }
                DescriptorKind::Master | DescriptorKind::Private => {}
            }
        }
        // After the ledger: who gives the dead one a connection names its numbers in the row first.
        let claimed = self.claimed_by_rows();
        let row = self.shared.scoreboard.worker(usize::from(slot));
        for number in orphaned.into_iter().filter(|number| !claimed.contains(number)) {
            let kind = ledger.entry(number).map(|entry| entry.kind);
            if kind != Some(DescriptorKind::Rest) {
                row.add(Cell::ClosedForDead, 1);
            }
            ledger.clear(number);
            descriptor::close(number);
        }
    }

    /// Closes what connections of a dead worker came with, which it had not taken up yet: they are lost.
    fn close_left(&self, slot: SlotId) {
        let sessions = &self.shared.sessions;
        for conn in sessions.owned_by(slot) {
            if let Some(memfd) = sessions.left(conn) {
                sessions.set_left(conn, None);
                self.shared.ledger.clear(memfd);
                descriptor::close(memfd);
            }
        }
    }

    /// Numbers that rows name. Of all slots: the ledger names a connection's next owner before its row
    /// does, so a number of the dead may belong to a row that is still another's.
    fn claimed_by_rows(&self) -> HashSet<RawFd> {
        let sessions = &self.shared.sessions;
        let named = |conn| sessions.descriptor(conn).into_iter().chain(sessions.left(conn));
        sessions.all().flat_map(named).collect()
    }

    /// Reaps children that have ended, when nobody waits for the master.
    pub(super) fn reap_quietly(&mut self) {
        for key in self.children.ended() {
            let Some(child) = self.children.at(key) else { continue };
            let ended = match fork::reap(child.pidfd) {
                Ok(Some(ended)) => ended,
                Ok(None) => continue,
                Err(_) => fork::Ended { exit_code: None, signal: None },
            };
            let child = self.children.remove(key);
            let registry = self.poll.registry();
            for own in [child.pidfd, child.pipe.descriptor()] {
                // It fails only where it is not registered, which is what is wanted.
                let _ = registry.deregister(&mut SourceFd(&own));
                self.shared.ledger.clear(own);
                descriptor::close(own);
            }
            if let Seat::Worker(slot) = child.seat {
                self.close_private(slot, child.generation);
                self.sweep.begin(&self.shared, &self.wiring);
            }
            // What has nothing left to do ends so while the server stops, told or not.
            let at_its_end = self.state.is_stopping()
                && !matches!(child.seat, Seat::Worker(_))
                && ended.exit_code == Some(0);
            if child.report && !at_its_end {
                self.count_death(child.seat, child.killed, ended);
                self.report(child.seat, child.pid, ended);
            } else {
                info!(seat = %child.seat, pid = child.pid, "ended");
            }
        }
    }

    pub(super) fn close_private(&self, slot: u16, generation: u32) {
        let holder = Holder { slot, generation: Generation(generation) };
        let held: Vec<(RawFd, DescriptorKind)> = self.shared.ledger.held_by(holder).collect();
        for (number, kind) in held {
            if matches!(kind, DescriptorKind::Private | DescriptorKind::Spill) {
                self.shared.ledger.clear(number);
                descriptor::close(number);
            }
        }
    }

    /// By what a process died that should not have.
    fn count_death(&self, seat: Seat, by_master: bool, ended: fork::Ended) {
        let cell = match ended.signal {
            Some(SIGKILL) if by_master => Cell::DeathsStuck,
            Some(SIGKILL) => Cell::DeathsKilled,
            Some(_) => Cell::DeathsCrashed,
            None => Cell::DeathsExited,
        };
        seat.row(&self.shared.scoreboard).add(cell, 1);
    }

    fn report(&mut self, seat: Seat, pid: i32, ended: fork::Ended) {
        let role = match seat {
            Seat::Worker(_) => "worker".to_owned(),
            Seat::Task(_) => "task".to_owned(),
            Seat::Process(place) => self.processes[usize::from(place)].name.clone(),
        };
        let signal = ended.signal.map(fork::signal_name);
        warn!(%seat, pid, exit_code = ended.exit_code, signal, "died");
        let error = WorkerError {
            role,
            slot: seat.place(),
            pid,
            exit_code: ended.exit_code,
            signal: ended.signal,
        };
        self.hook(|app, master| app.worker_error(master, &error));
    }

    /// A task process died: whoever asked for the task it had in hand is told.
    pub(super) fn fail_task_in_hand(&mut self, place: u16, timed_out: bool) {
        let row = self.shared.scoreboard.task(usize::from(place));
        if let Some(queue) = self.wiring.tasks_out {
            task::recover_queue(queue, self.shared.scoreboard, place);
        }
        let task = row.task_in_hand();
        if task == 0 {
            return;
        }
        row.note_task(0);
        row.add(Cell::TasksFailed, 1);
        let asker = usize::try_from(row.value(Cell::TaskAsker)).unwrap_or(0);
        let failed = Err(if timed_out { TaskFailure::TimedOut } else { TaskFailure::ProcessLost });
        let mut post = Post::new(&self.wiring.post);
        if post.put(asker, &Mail::finish(TaskId(task), &failed)).is_err() {
            warn!(task, "the asker of a lost task cannot be told");
        }
        post.flush();
        if post.spilled_bytes() > 0 {
            warn!(task, "the asker of a lost task cannot be told: its mailbox is full");
        }
    }

    /// Notes in the scoreboard what the state knows of each seat.
    pub(super) fn publish_seats(&self) {
        for (seat, state) in &self.state.seats {
            let row = seat.row(&self.shared.scoreboard);
            row.set_state(state.shown(self.state.is_stopping()));
            row.set(Cell::Restarts, state.restarts);
            let sibling = state.sibling.map_or(0, |sibling| u64::from(sibling.seat.place()) + 1);
            row.set(Cell::StoodInBy, sibling);
            if state.current.is_none() && state.successor.is_none() {
                row.set(Cell::Pid, 0);
            }
        }
    }
}

impl super::seats::SeatState {
    /// What the status says of the seat.
    fn shown(&self, stopping: bool) -> ChildState {
        use super::seats::Phase as P;
        match self.current.as_ref().map(|life| life.phase) {
            Some(P::Starting | P::Prepared | P::Adopting) => ChildState::Starting,
            Some(P::Running) => ChildState::Running,
            Some(P::AskedToRest) => ChildState::Resting,
            Some(P::Leaving) => ChildState::Stopped,
            None if stopping => ChildState::Stopped,
            None if self.is_crash_looping() => ChildState::CrashLooping,
            None if self.restarts > 0 && self.successor.is_none() => ChildState::Crashed,
            None => ChildState::Starting,
        }
    }
}
