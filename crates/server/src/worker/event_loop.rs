//! The worker's loop: tokens to calls, no decisions.
//!
//! A turn, always in this order: poll → events → signals → pipe → answers → listeners → mailbox →
//! ready list → sweep → goodbyes → settle (mail out, output out, state words clean) → mail that waits →
//! scoreboard.

use super::core::{FIRST_CONNECTION, LISTENER, MAILBOX, PIPE, SIGNALS, STOOD_IN_MAILBOX};
use super::goodbye::Goodbyes;
use super::state::{Input, Leaving};
use super::{Worker, sweep};
use crate::app::App;
use crate::clock;
use crate::scoreboard::{Cell, Errand};
use crate::sys::signals;
use mio::event::Event;
use mio::{Events, Token};
use nix::libc::SIGTERM;
use std::io;
use std::time::Duration;

/// Events taken from the kernel at once.
const EVENTS_PER_TURN: usize = 1024;
/// How long connections are served in a turn before output, mail and the clock have theirs; the rest is
/// served first in the next turn.
const SERVE_MS: u64 = 20;
/// Connections whose peer has ended its half that are served in a turn, behind all others.
const ENDED_PER_TURN: usize = 128;
/// Connections served between two looks at the clock.
const SERVED_PER_LOOK: usize = 4;
/// So many connections are at most under way at once, beside the recipients of one message or packet: they
/// are what a death costs.
pub(super) const UNDER_WAY_MAX: usize = 64;
/// How soon a full mailbox of another worker, or a connection on its way, is looked at again.
const RETRY_MAIL_MS: u64 = 2;

impl<A: App> Worker<'_, A> {
    /// Turns until the worker leaves.
    pub(super) fn run(&mut self) -> io::Result<Leaving> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            self.poll(&mut events)?;
            self.core.begin_turn();
            self.core.tracing.look(&self.core.shared.traces);
            // The slot has one stamp: it is its owner's.
            let stamps = self.core.life.serving();
            if stamps {
                self.core.row.turn_begins(self.core.now);
            }
            for event in &events {
                match event.token() {
                    SIGNALS => self.act_on_signals(),
                    PIPE => self.core.pipe.retry(),
                    MAILBOX => self.core.mail_ready = true,
                    STOOD_IN_MAILBOX => self.core.note_stood_in_mail(),
                    LISTENER => self.core.accept_ready = true,
                    token => self.note_readiness(token, event),
                }
            }
            self.obey_pipe();
            self.stand_down_if_due();
            if self.core.life.serving() {
                self.give_answers();
                self.accept_ready();
                self.read_mailbox();
                self.read_stood_in_mailbox();
                self.serve_ready_list();
                self.sweep();
                self.say_goodbyes();
                self.settle();
                self.close_some();
                self.go_on_moving();
                if !self.core.touched.is_empty() {
                    // What was said when connections left.
                    self.settle();
                }
            } else {
                // Before it serves it has no connections, at rest they are the successor's already.
                self.core.post.flush();
            }
            if self.core.life.serving() {
                // Every turn: a busy client must not keep waiting mail from a mailbox that has room
                // again. Within the turn: what is opened for it is a living worker's.
                self.core.post.retry();
                self.core.unmark_in_transit();
            }
            self.look();
            self.core.send_traced();
            self.publish();
            self.core.end_turn();
            if stamps || self.core.life.serving() {
                self.core.row.turn_ends();
            }
            if let Some(leaving) = self.core.life.leaving() {
                return Ok(leaving);
            }
        }
    }

    fn poll(&mut self, events: &mut Events) -> io::Result<()> {
        let core = &mut self.core;
        let waits = core.life.serving()
            && (!core.ready.is_empty()
                || !core.ended.is_empty()
                || !core.answers.is_empty()
                || !core.parting.is_empty()
                || core.mail_ready && !core.routing.is_waiting()
                || core.has_stood_in_mail()
                || core.life.accepting() && core.accept_ready);
        let moves = core.life.serving()
            && (core.routing.is_waiting() || core.moving.is_busy() || core.stands_in_restlessly());
        let timeout_ms = if waits {
            0
        } else if moves || core.life.serving() && core.post.spilled_bytes() > 0 {
            RETRY_MAIL_MS
        } else {
            let wait_ms = |goodbyes: &Goodbyes| goodbyes.wait_ms(core.now);
            core.goodbyes.as_ref().map_or(sweep::SWEEP_EVERY_MS, wait_ms)
        };
        match core.poll.poll(events, Some(Duration::from_millis(timeout_ms))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn note_readiness(&mut self, token: Token, event: &Event) {
        let Some(key) = token.0.checked_sub(FIRST_CONNECTION) else { return };
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.peer_ended |= event.is_read_closed() || event.is_error();
            self.core.make_ready(key);
        }
        if event.is_writable() {
            let connection = &mut self.core.connections[key];
            let was_blocked = !connection.writable;
            connection.writable = true;
            if was_blocked && !connection.outbox.is_empty() {
                self.core.touch(key);
            }
        }
    }

    fn act_on_signals(&mut self) {
        // Everything else is the master's matter; Ctrl-C reaches the whole group of a terminal.
        if signals::drain(self.core.signals).has(SIGTERM) {
            self.decide(Input::Terminate);
        }
    }

    /// Serves what was ready when the turn began, for [`SERVE_MS`] at most; what becomes ready meanwhile
    /// waits for the next.
    fn serve_ready_list(&mut self) {
        if !self.core.life.serving() {
            return;
        }
        let until = self.core.now + SERVE_MS;
        let ready = self.core.ready.len();
        let ended = self.core.ended.len().min(ENDED_PER_TURN);
        for served in 1..=ready + ended {
            if served.is_multiple_of(SERVED_PER_LOOK) && clock::now() >= until {
                self.core.row.add(Cell::TurnsFull, 1);
                return;
            }
            let core = &mut self.core;
            let list = if served <= ready { &mut core.ready } else { &mut core.ended };
            let Some(key) = list.pop_front() else { return };
            self.serve_one(key);
            if self.core.touched.len() >= UNDER_WAY_MAX {
                self.settle();
            }
        }
    }

    fn serve_one(&mut self, key: usize) {
        if let Some(connection) = self.core.connections.get_mut(key) {
            connection.queued = false;
            self.core.row.note_errand(Errand::Serve, connection.conn());
            if self.serve_readable(key) == super::receive::Reading::More {
                self.core.make_ready(key);
            }
            self.send_early(key);
        }
    }

    fn look(&mut self) {
        let core = &mut self.core;
        let stops = core.life.serving() && !core.life.accepting();
        // What waits is a successor's once this worker rests: sent by both it would come twice.
        let unfinished = core.life.serving() && !core.post.retry()
            || !core.open_tasks.is_empty()
            // What is for them goes by here.
            || stops && core.anybody_away();
        let left = core.connections.len() + usize::from(unfinished);
        self.decide(Input::Look { left });
        self.decide(Input::Served { messages: self.core.served });
    }

    fn publish(&mut self) {
        let core = &self.core;
        if core.life.serving() {
            let open = u64::try_from(core.connections.len()).unwrap_or(0);
            core.row.set(Cell::Connections, open);
            core.row.set(Cell::HttpOpen, core.http_open);
            core.row.set(Cell::Sessions, core.sessions_open);
            let spilled = u64::try_from(core.post.spilled_bytes()).unwrap_or(0);
            core.row.set(Cell::SpilledBytes, spilled);
            let unsent = u64::try_from(core.load.bytes()).unwrap_or(0);
            core.row.set(Cell::UnsentBytes, unsent);
            core.row.end_errand();
        }
    }
}
