//! The master's loop: tokens to calls, and actions of the state to deeds.
//!
//! A turn, always in this order: poll → deaths → pipes → signals → control socket → status readers →
//! what hooks asked for → time → moves of connections → quiet work.

use super::balance::{Done, Job, Left};
use super::children::Child;
use super::seats::{Phase, Seat};
use super::signals::{Meaning, meanings};
use super::state::{Action, Input};
use super::status_pipe::{STATUS_READERS, TICK_MS};
use super::{Master, control, supervisor};
use crate::app::App;
use crate::clock;
use crate::context::MasterDeed;
use crate::control::{ControlAnswer, ControlRequest};
use crate::ids::SlotId;
use crate::ipc::pipe::{Control, WireDeed};
use crate::logging;
use crate::scoreboard::Cell;
use crate::sys::{descriptor, signals as sys_signals};
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use std::io;
use std::time::Duration;
use tracing::{error, info, warn};

const SIGNALS: Token = Token(1);
/// Tokens from here on are the outer ends of added processes' pipes.
const FIRST_PROCESS: usize = 16;
/// Tokens from here on are children's: handle and pipe in turn.
const FIRST_CHILD: usize = 1 << 20;
/// Pieces taken from an added process's pipe in one turn.
const PIECES_PER_TURN: usize = 16;
/// Longest piece taken at once.
const PIECE_MAX: usize = 64 << 10;

/// The longest an ended child waits to be reaped.
const REAP_AFTER_MS: u64 = 1_000;
/// The place of the timer process among the added ones.
const TIMER: u16 = 0;

/// How often time passes for the state while something is under way, and while nothing is.
const BUSY_TICK_MS: u64 = 10;
const IDLE_TICK_MS: u64 = 250;

pub(super) fn pidfd_token(key: usize) -> Token {
    Token(FIRST_CHILD + key * 2)
}

pub(super) fn pipe_token(key: usize) -> Token {
    Token(FIRST_CHILD + key * 2 + 1)
}

impl<A: App> Master<A> {
    pub(super) fn run_loop(&mut self) -> Result<(), String> {
        let signals = self.signals;
        let registered =
            self.poll.registry().register(&mut SourceFd(&signals), SIGNALS, Interest::READABLE);
        registered.map_err(|error| format!("the master cannot watch its signals: {error}"))?;
        self.watch_process_pipes()?;
        let mut events = Events::with_capacity(256);
        loop {
            let timeout = Duration::from_millis(self.next_tick_ms());
            if let Err(error) = self.poll.poll(&mut events, Some(timeout)) {
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(format!("the master cannot wait for events: {error}"));
                }
                events.clear();
            }
            self.now = clock::now();
            let mut came = sys_signals::Came::default();
            let (mut deaths, mut pipes) = (Vec::new(), Vec::new());
            for event in &events {
                match event.token() {
                    SIGNALS => came = sys_signals::drain(signals),
                    STATUS_READERS | control::CONTROL => {}
                    Token(token) if (FIRST_PROCESS..FIRST_CHILD).contains(&token) => {
                        self.saying.insert(token - FIRST_PROCESS);
                    }
                    Token(token) if token >= FIRST_CHILD => {
                        let key = (token - FIRST_CHILD) / 2;
                        if (token - FIRST_CHILD).is_multiple_of(2) {
                            deaths.push(key);
                        } else {
                            pipes.push(key);
                        }
                    }
                    _ => {}
                }
            }
            // Signals first: nobody is replaced any more where the server is to stop.
            self.act_on_signals(came);
            deaths.into_iter().for_each(|key| self.note_death(key));
            pipes.into_iter().for_each(|key| self.read_pipe(key));
            self.hear_processes();
            self.serve_control();
            self.serve_status();
            self.do_what_hooks_asked();
            self.end_stale_traces();
            self.input(Input::Tick);
            self.move_connections();
            self.go_on_stopping();
            self.go_on_with_upgrade();
            self.work_quietly();
            self.publish_changes();
            if let Some(exit) = self.exit.take() {
                return exit;
            }
        }
    }

    fn next_tick_ms(&self) -> u64 {
        let moving = self.state.seats.values().any(|seat| {
            seat.successor.is_some()
                || !seat.leaving.is_empty()
                || seat.current.as_ref().is_none_or(|life| life.phase != Phase::Running)
        });
        if !self.saying.is_empty() {
            0
        } else if moving
            || self.balancer.is_busy()
            || self.upgrades.need_ticks()
            || self.status_pipe.has_slow_readers()
            || self.control.is_busy()
        {
            BUSY_TICK_MS
        } else if self.sweep.is_under_way() || self.status_pipe.needs_ticks() {
            TICK_MS
        } else {
            IDLE_TICK_MS
        }
    }

    fn watch_process_pipes(&mut self) -> Result<(), String> {
        for (place, outer) in self.wiring.process_outer.iter().enumerate() {
            let token = Token(FIRST_PROCESS + place);
            self.poll
                .registry()
                .register(&mut SourceFd(outer), token, Interest::READABLE)
                .map_err(|error| format!("the master cannot watch a process's pipe: {error}"))?;
        }
        Ok(())
    }

    /// What added processes wrote into their pipes, a bounded share per turn.
    fn hear_processes(&mut self) {
        for place in std::mem::take(&mut self.saying) {
            let outer = self.wiring.process_outer[place];
            let name = self.wiring.process_names[place].clone();
            let mut piece = vec![0; PIECE_MAX];
            for turn in 0..=PIECES_PER_TURN {
                if turn == PIECES_PER_TURN {
                    self.saying.insert(place);
                    break;
                }
                match descriptor::read(outer, &mut piece) {
                    Ok(length) if length > 0 => {
                        let said = piece[..length].to_vec();
                        self.hook(|app, master| app.process_output(master, &name, &said));
                    }
                    _ => break,
                }
            }
        }
    }

    fn note_death(&mut self, key: usize) {
        // What it said before it died is heard first.
        self.read_pipe(key);
        let Some(child) = self.children.at(key) else { return };
        if std::mem::replace(&mut child.ended, true) {
            return;
        }
        child.ended_at = self.now;
        let (seat, generation) = (child.seat, child.generation);
        let timed_out = child.stuck;
        self.shared.sessions.recover(seat.writer(generation));
        match seat {
            Seat::Task(place) => self.fail_task_in_hand(place, timed_out),
            Seat::Process(TIMER) => {
                // What it had reported may have died in its hands; told twice, it runs once.
                let timers = self.shared.timers;
                (0..self.config.workers).for_each(|slot| timers.rearm(SlotId(slot)));
            }
            Seat::Worker(slot) => self.strike(slot, generation),
            Seat::Process(_) => {}
        }
        if let Seat::Worker(slot) = seat {
            self.note_unserved();
            self.note_orphans(slot);
            for other in self.state.stood_in_by(seat) {
                self.note_orphans(other);
            }
        }
        self.input(Input::Ended(seat, generation));
    }

    fn read_pipe(&mut self, key: usize) {
        loop {
            let Some(child) = self.children.at(key) else { return };
            child.pipe.retry();
            let Some(message) = child.pipe.receive() else { return };
            let (seat, generation) = (child.seat, child.generation);
            match message {
                Control::Prepared => self.input(Input::Prepared(seat, generation)),
                Control::PrepareFailed { sentence } => {
                    self.input(Input::PrepareFailed(seat, generation, sentence));
                }
                Control::Rested { successor, rest, connections } => {
                    info!(%seat, connections, "rests");
                    self.input(Input::Rested(seat, generation, successor, rest));
                }
                Control::RestFailed { successor, sentence } => {
                    self.input(Input::RestFailed(seat, generation, successor, sentence));
                }
                Control::Ready { adopted, lost } => {
                    self.input(Input::Ready(seat, generation, adopted, lost));
                }
                Control::MoveDone { id, moved, pending, http, unsent, other } => {
                    let left = Left { http, unsent, other };
                    self.moves_done(seat, Done { id, moved, pending, left });
                }
                Control::StoodIn { slot, adopted, lost } => {
                    warn!(%seat, slot, adopted, lost, "stands in for a slot without a worker");
                }
                Control::StoodDown { slot, rest } => {
                    info!(%seat, slot, "stands in no more");
                    self.input(Input::StoodDown(seat, generation, slot, rest));
                }
                Control::Recycle => self.input(Input::Recycle(seat, generation)),
                Control::Ask(WireDeed::Reload) => self.begin_reload(false, None),
                Control::Ask(WireDeed::Shutdown) => self.begin_stop(),
                other => error!(?other, "not for the master"),
            }
        }
    }

    fn act_on_signals(&mut self, came: sys_signals::Came) {
        for meaning in meanings(came) {
            match meaning {
                // The second time at once.
                Meaning::Stop if self.state.is_stopping() || self.state.stop_is_asked() => {
                    self.input(Input::StopNow);
                }
                Meaning::Stop => self.begin_stop(),
                Meaning::StopNow => self.input(Input::StopNow),
                Meaning::Reload => self.begin_reload(false, None),
                Meaning::ReloadTasks => self.begin_reload(true, None),
                Meaning::ReopenLog => self.reopen_log(),
                Meaning::Upgrade => self.begin_upgrade(None, None),
                Meaning::Ignore => {}
            }
        }
    }

    fn reopen_log(&mut self) {
        // Workers write to the same number; the others have tables of their own.
        if let Err(error) = logging::reopen() {
            error!(%error, "the log cannot be opened anew");
        }
        for child in self.children.iter_mut().filter(|child| !child.seat.is_worker()) {
            child.stuck |= child.pipe.send(&Control::ReopenLog).is_err();
        }
    }

    fn serve_control(&mut self) {
        self.control.send_answers(Some(self.now));
        for (who, request) in self.control.requests(self.now) {
            let answer = match request {
                Ok(ControlRequest::Status) => ControlAnswer::done(self.status()),
                Ok(ControlRequest::Reload { tasks: false, worker: Some(slot) }) => {
                    match self.begin_worker_reload(slot, who) {
                        Ok(()) => continue,
                        Err(sentence) => ControlAnswer::refused(sentence),
                    }
                }
                Ok(ControlRequest::Reload { tasks: true, worker: Some(_) }) => {
                    ControlAnswer::refused("one worker or the task processes, not both")
                }
                Ok(ControlRequest::Reload { tasks, worker: None }) => {
                    self.begin_reload(tasks, Some(who));
                    continue;
                }
                Ok(ControlRequest::Stop) => {
                    self.begin_stop();
                    ControlAnswer::done(serde_json::json!({ "state": "stopping" }))
                }
                Ok(ControlRequest::Upgrade { file }) => {
                    self.begin_upgrade(file, Some(who));
                    continue;
                }
                Ok(ControlRequest::Balance) => {
                    self.begin_job(Job::Balance, who);
                    continue;
                }
                Ok(ControlRequest::Drain { worker }) => {
                    self.begin_job(Job::Drain(worker), who);
                    continue;
                }
                Ok(ControlRequest::Trace { user, socket }) => self.begin_trace(who, &user, &socket),
                Ok(ControlRequest::RenewTrace { trace }) => self.renew_trace(trace),
                Ok(ControlRequest::EndTrace { trace }) => self.end_trace(trace),
                Err(sentence) => ControlAnswer::refused(sentence),
            };
            self.control.answer(who, &answer);
        }
    }

    fn serve_status(&mut self) {
        self.status_pipe.go_on(self.now);
        if !self.status_pipe.reader_came() && !self.status_pipe.needs_ticks() {
            return;
        }
        self.publish_seats();
        let mut object = self.status().to_string().into_bytes();
        object.push(b'\n');
        if let Err(error) = self.status_pipe.serve(&object, self.now) {
            error!(%error, "the status pipe cannot be served");
        }
    }

    fn do_what_hooks_asked(&mut self) {
        for deed in std::mem::take(&mut self.asked) {
            match deed {
                MasterDeed::Reload => self.begin_reload(false, None),
                MasterDeed::Shutdown => self.begin_stop(),
            }
        }
    }

    fn work_quietly(&mut self) {
        self.kill_late_tasks();
        self.kill_stuck_worker();
        self.publish_seats();
        let settled = self.state.seats.values().all(|seat| {
            seat.current.as_ref().is_some_and(|life| life.phase != Phase::Adopting)
                && seat.respawn_at.is_none()
        });
        // Where no quiet moment comes, since a seat cannot come up, they are reaped all the same.
        let now = self.now;
        let waits = |child: &Child| child.ended && now.since(child.ended_at) >= REAP_AFTER_MS;
        if settled || self.state.is_stopping() || self.children.iter_mut().any(|child| waits(child))
        {
            self.reap_quietly();
        }
        self.sweep.go_on(&self.shared, self.now);
        self.recover_pool_later();
        self.children.iter_mut().filter(|child| child.stuck).for_each(Child::kill);
    }

    /// A worker that has been in one turn for `server.stuck_after` is killed; its slot is taken over.
    fn kill_stuck_worker(&mut self) {
        let board = self.shared.scoreboard;
        let stamps: Vec<u64> =
            (0..board.workers()).map(|slot| board.worker(slot).stamp()).collect();
        let Some(slot) = self.stuck.look(self.now, &stamps, self.config.stuck_after_ms) else {
            return;
        };
        let row = board.worker(slot);
        if let Ok(pid) = i32::try_from(row.value(Cell::Pid))
            && pid > 0
        {
            super::stuck_report::log(slot, pid, row, &self.shared.sessions);
            row.add(Cell::StuckKilled, 1);
            self.children.iter_mut().filter(|child| child.pid == pid).for_each(Child::kill);
        }
    }

    /// A task that takes longer than `server.task_timeout` ends its process; its asker is told.
    fn kill_late_tasks(&mut self) {
        for child in self.children.iter_mut() {
            let Seat::Task(place) = child.seat else { continue };
            let row = self.shared.scoreboard.task(usize::from(place));
            let task = row.task_in_hand();
            let began = clock::Millis(row.value(Cell::TaskBegan));
            let late = self.now.since(began) >= self.config.task_timeout_ms;
            // Read again: another task's beginning must not be held against this one.
            if task != 0 && late && row.task_in_hand() == task && !child.stuck {
                warn!(place, task, "a task is over server.task_timeout");
                child.stuck = true;
            }
        }
    }

    /// Does what the state decided.
    pub(super) fn act(&mut self) {
        loop {
            let actions = self.state.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.do_one(action);
            }
        }
    }

    fn do_one(&mut self, action: Action) {
        match action {
            Action::Spawn(seat, generation) => {
                if let Err(error) = self.spawn(seat, generation) {
                    error!(%seat, %error, "a process cannot be started");
                    let sentence = error.to_string();
                    self.state.input(self.now, Input::SpawnFailed(seat, generation, sentence));
                }
            }
            Action::Tell(seat, generation, message) => {
                if let Some(child) = self.children.of(seat, generation) {
                    child.stuck |= child.pipe.send(&message).is_err();
                }
            }
            Action::Kill(seat, generation) => {
                if let Some(child) = self.children.of(seat, generation) {
                    child.kill();
                }
            }
            Action::Commit(seat, generation) => self.commit(seat, generation),
            Action::MarkLost(seat, generation) => self.mark_lost(seat.place(), generation),
            Action::ReportDeath(seat, generation) => {
                if let Some(child) = self.children.of(seat, generation) {
                    child.report = true;
                }
            }
            Action::Exec => self.exec_next(),
            Action::BeginStop => self.begin_stop(),
            Action::UpgradeFailed(sentence) => self.upgrade_failed(&sentence),
            Action::Arrived(arrival) => self.arrived(arrival),
            Action::AllReady => self.announce_ready(),
            Action::ReloadDone(outcome) => self.end_reload(outcome),
            Action::AllGone => {
                self.reap_quietly();
                let gone = self.children.keys().is_empty();
                if gone && self.exit.is_none() {
                    self.exit = Some(Ok(()));
                }
            }
            Action::GiveUp(sentence) => self.give_up(sentence),
        }
    }

    fn commit(&mut self, seat: Seat, generation: u32) {
        let pid = self.children.of(seat, generation).map_or(0, |child| child.pid);
        let row = seat.row(&self.shared.scoreboard);
        row.set(Cell::Pid, u64::try_from(pid).unwrap_or(0));
        row.commit(u64::from(generation));
    }

    fn announce_ready(&mut self) {
        let addresses: Vec<String> =
            self.wiring.addresses.iter().map(ToString::to_string).collect();
        let line = format!(
            "dunlin ready on {} (pid {}, run dir {})",
            addresses.join(" "),
            std::process::id(),
            self.run_dir.dir().path().display()
        );
        info!("{line}");
        supervisor::tell(supervisor::Word::Ready, &line);
        (self.announce)(Ok(line));
    }

    fn give_up(&mut self, sentence: String) {
        if self.exit.is_none() {
            (self.announce)(Err(sentence.clone()));
            self.exit = Some(Err(sentence));
            self.state.input(self.now, Input::StopNow);
        }
    }
}
