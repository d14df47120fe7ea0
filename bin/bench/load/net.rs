//! Many connections to one server, and their one event loop.
//!
//! Knows bytes, texts and moments; what they mean knows a [`Talk`]. Invariants: 1. What is said in a
//! turn leaves when the turn ends, in one write for each connection. 2. Every turn ends, at the latest
//! when it was asked to.

use crate::bench::client::connection::{Connection, End, LifeId, Over, Stage, Target};
use crate::bench::client::faults::{Fault, Faults};
use crate::bench::client::moment::Moment;
use crate::bench::client::wire::{self, Heard};
use crate::bench::progress::Progress;
use crate::failure::Failure;
use crate::random::Random;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::SockRef;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// What a mode does with what happens.
pub(super) trait Talk {
    /// A connection is upgraded.
    fn upgraded(&mut self, _net: &mut Net, _link: usize) {}
    /// A text came.
    fn heard(&mut self, net: &mut Net, link: usize, text: &str);
}

/// See the module.
#[derive(Debug)]
pub(super) struct Net {
    poll: Poll,
    /// Ends a turn to the microsecond: the timeout of a poll counts whole milliseconds.
    timer: TimerFd,
    events: Events,
    target: Target,
    links: Vec<Option<Connection>>,
    /// Connections with something to write.
    unsent: Vec<usize>,
    input: Vec<u8>,
    frame: Vec<u8>,
    random: Random,
    /// Connections that are upgraded.
    upgraded: usize,
    /// Connections that are begun and not upgraded.
    opening: usize,
    pub(super) faults: Faults,
    pub(super) progress: Progress,
    /// When this turn's events came: the one reading of the clock for all of them.
    pub(super) now: Moment,
    /// The last time anything came.
    pub(super) heard_at: Moment,
}

const TIMER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 1_024;
const INPUT_BYTES: usize = 256 << 10;
/// The longest wait of a turn.
const TURN: Duration = Duration::from_millis(50);
/// Without one more upgraded connection for so long, opening has failed.
const OPEN_WITHIN_MS: u64 = 10_000;

impl Net {
    /// No connection yet.
    ///
    /// # Errors
    /// The system has no epoll.
    pub(super) fn new(target: Target, progress: Progress) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(|error| Failure::failed(format!("no epoll: {error}")))?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK);
        let timer = timer.map_err(|error| Failure::failed(format!("no timer: {error}")))?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)
            .map_err(|error| Failure::failed(format!("the timer is not polled: {error}")))?;
        let now = Moment::now();
        Ok(Self {
            poll,
            timer,
            events: Events::with_capacity(EVENTS_PER_TURN),
            target,
            links: Vec::new(),
            unsent: Vec::new(),
            input: vec![0; INPUT_BYTES],
            frame: Vec::new(),
            random: Random::new(now.us_since(Moment::default())),
            upgraded: 0,
            opening: 0,
            faults: Faults::default(),
            progress,
            now,
            heard_at: now,
        })
    }

    /// Has so many connections, upgraded, `under_way` of them begun at once. False where not all came
    /// about: a fault says why.
    ///
    /// # Errors
    /// The system gives no more sockets, or polling fails.
    pub(super) fn open(
        &mut self,
        connections: usize,
        under_way: usize,
        talk: &mut impl Talk,
    ) -> Result<bool, Failure> {
        let (mut progress, mut upgraded) = (Moment::now(), self.upgraded);
        while self.upgraded < connections {
            self.now = Moment::now();
            while self.links.len() < connections && self.opening < under_way {
                self.begin()?;
            }
            let until = self.now.plus_ms(10);
            self.turn(until, talk)?;
            if self.upgraded != upgraded {
                (progress, upgraded) = (self.now, self.upgraded);
            }
            if self.now.ms_since(progress) > OPEN_WITHIN_MS {
                self.faults.add(Fault::Refused, || {
                    format!("only {upgraded} of {connections} connections were upgraded")
                });
            }
            if self.is_broken() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let link = self.links.len();
        // Fewer than 200,000 connections.
        let number = u32::try_from(link).unwrap_or(0);
        let begun = Connection::begin(&self.target, number, LifeId(number), self.now);
        let begun = begun.and_then(|mut connection| {
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut connection.stream, Token(link), both)?;
            Ok(connection)
        });
        match begun {
            Ok(connection) => {
                self.opening += 1;
                self.links.push(Some(connection));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.links.push(None);
                self.faults.add(Fault::Refused, || error.to_string());
            }
            Err(error) => {
                let line = format!("no socket for one more connection beside {link}: {error}");
                return Err(Failure::failed(line));
            }
        }
        Ok(())
    }

    /// Whether a promise was broken.
    pub(super) fn is_broken(&self) -> bool {
        self.faults.broken().next().is_some()
    }

    /// One turn, that ends at `until` if nothing happens.
    ///
    /// # Errors
    /// Polling fails.
    pub(super) fn turn(&mut self, until: Moment, talk: &mut impl Talk) -> Result<(), Failure> {
        self.flush();
        let wait = Moment::now().until(until).min(TURN);
        if wait > Duration::ZERO && wait < TURN {
            // Set anew it is not read: its next expiration is an event again.
            let _ = self.timer.set(Expiration::OneShot(wait.into()), TimerSetTimeFlags::empty());
        }
        let most = if wait == Duration::ZERO { wait } else { TURN };
        match self.poll.poll(&mut self.events, Some(most)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Failure::failed(format!("cannot wait for sockets: {error}")));
            }
            _ => {}
        }
        self.now = Moment::now();
        self.progress.turn(self.now);
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let link = event.token().0;
            let Some(connection) = self.links.get_mut(link).and_then(Option::as_mut) else {
                continue;
            };
            connection.readable |=
                event.is_readable() || event.is_read_closed() || event.is_error();
            if event.is_writable() && !connection.writable {
                connection.writable = true;
                self.unsent.push(link);
            }
            self.serve(link, talk);
        }
        self.events = events;
        self.flush();
        Ok(())
    }

    /// Says a text.
    pub(super) fn say(&mut self, link: usize, text: &str) {
        let Some(connection) = self.links.get_mut(link).and_then(Option::as_mut) else { return };
        self.frame.clear();
        wire::write_text(text, 1, &mut self.random, &mut self.frame);
        connection.outbound.push(&self.frame, self.now);
        self.unsent.push(link);
    }

    /// When a connection was begun.
    pub(super) fn began(&self, link: usize) -> Moment {
        self.links.get(link).and_then(Option::as_ref).map_or(self.now, |link| link.began)
    }

    /// Ends all connections at once, without a close frame, and forgets them.
    pub(super) fn close_all(&mut self) {
        for connection in self.links.iter().flatten() {
            // Reset: no port waits for what may still be on its way.
            let _ = SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO));
        }
        self.links.clear();
        self.unsent.clear();
        (self.upgraded, self.opening) = (0, 0);
    }

    /// Writes what was said, as far as the kernel takes it.
    fn flush(&mut self) {
        for link in self.unsent.drain(..) {
            if let Some(connection) = &mut self.links[link] {
                connection.write(self.now);
            }
        }
    }

    /// Reads what has come on a connection, to the end.
    fn serve(&mut self, link: usize, talk: &mut impl Talk) {
        loop {
            let Some(connection) = self.links[link].as_mut() else { return };
            if !connection.readable {
                return;
            }
            if connection.stage == Stage::Connecting {
                connection.write(self.now);
            }
            let was_upgrading = connection.stage == Stage::Upgrading;
            let over = connection.read(&mut self.input).err();
            if was_upgrading && connection.stage == Stage::Greeting {
                connection.stage = Stage::Open;
                self.upgraded += 1;
                self.opening -= 1;
                talk.upgraded(self, link);
            }
            // A close frame says more than the end behind it.
            if let Some(over) = self.hear(link, talk).or(over) {
                self.over(link, &over);
            }
        }
    }

    /// Hands on what has wholly come; gives why nothing more can.
    fn hear(&mut self, link: usize, talk: &mut impl Talk) -> Option<Over> {
        self.heard_at = self.now;
        let mut inbound = std::mem::take(&mut self.links[link].as_mut()?.inbound);
        let over = loop {
            match inbound.hear() {
                Ok(None) => break None,
                Ok(Some(Heard::Text(text))) => talk.heard(self, link, text),
                Ok(Some(Heard::Ping(content))) => self.answer_ping(link, content),
                Ok(Some(Heard::Pong(_))) => {}
                Ok(Some(Heard::Close(code))) => break Some(Over::Ended(End::Closed(code))),
                Err(error) => break Some(Over::Damaged(error)),
            }
        };
        if let Some(connection) = &mut self.links[link] {
            connection.inbound = inbound;
        }
        over
    }

    fn answer_ping(&mut self, link: usize, content: &[u8]) {
        let Some(connection) = &mut self.links[link] else { return };
        self.frame.clear();
        wire::write_pong(content, &mut self.random, &mut self.frame);
        connection.outbound.push(&self.frame, self.now);
        self.unsent.push(link);
    }

    /// A connection is over, which none should be before it is closed here.
    fn over(&mut self, link: usize, over: &Over) {
        let Some(connection) = self.links[link].take() else { return };
        if connection.stage == Stage::Open {
            self.upgraded -= 1;
        } else {
            self.opening -= 1;
        }
        let (fault, case) = match over {
            Over::Ended(end) if connection.stage == Stage::Open => {
                (Fault::Disconnected, format!("connection {link} was {end}"))
            }
            Over::Ended(end) => {
                (Fault::Refused, format!("connection {link} was {end} before its upgrade"))
            }
            Over::TurnedAway(line) => {
                (Fault::Refused, format!("connection {link} was answered {line:?}"))
            }
            Over::Damaged(error) => (Fault::Damaged, format!("connection {link}: {error}")),
        };
        self.faults.add(fault, || case);
    }
}
