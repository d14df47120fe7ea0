//! How clients come to be connected: all at the start, and each again that lost its connection.

use super::load::{Due, Load};
use crate::bench::client::connection::Connection;
use crate::bench::client::faults::Fault;
use crate::bench::client::moment::Moment;
use crate::failure::Failure;
use mio::{Interest, Token};
use std::io;

/// Handshakes and logins under way at once.
const OPENING_MAX: usize = 64;
/// What it may take from a connect to the login.
const OPEN_WITHIN_MS: u64 = 15_000;
/// How long a client that was refused waits.
const RETRY_MS: u64 = 100;

impl Load {
    /// Connects all clients; false: not all were in time.
    ///
    /// # Errors
    /// The system gives no more sockets, or polling fails.
    pub(super) fn open_all(&mut self) -> Result<bool, Failure> {
        let (mut next, mut progress) = (0, Moment::now());
        while self.open.len() < self.clients.len() {
            let now = Moment::now();
            while next < self.clients.len() && self.opening < OPENING_MAX {
                self.connect(next, now)?;
                next += 1;
            }
            let open = self.open.len();
            self.turn(&[], now.plus_ms(100))?;
            if self.open.len() != open {
                progress = now;
            }
            if now.ms_since(progress) > OPEN_WITHIN_MS || self.faults.broken().next().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says that not all clients could connect, if nothing else says so.
    pub(super) fn never_opened(&mut self) {
        if self.faults.broken().next().is_none() {
            let (open, all) = (self.open.len(), self.clients.len());
            self.faults
                .add(Fault::Refused, || format!("only {open} of {all} clients could log in"));
        }
    }

    pub(super) fn connect(&mut self, client: usize, now: Moment) -> Result<(), Failure> {
        let life = self.ledger.begin();
        // Fewer than 200,000 clients.
        let number = u32::try_from(client).unwrap_or(0);
        let outcome =
            Connection::begin(&self.plan.target, number, life, now).and_then(|mut connection| {
                let both = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut connection.stream, Token(client), both)?;
                Ok(connection)
            });
        match outcome {
            Ok(connection) => {
                self.clients[client].connection = Some(connection);
                self.opening += 1;
                self.connects += 1;
                self.later(now.plus_ms(OPEN_WITHIN_MS), client, Due::LogIn(life.0));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.ledger.close(life);
                self.faults.add(Fault::Refused, || error.to_string());
                self.later(now.plus_ms(RETRY_MS), client, Due::Connect);
            }
            Err(error) => {
                let open = self.open.len();
                let line = format!("no socket for one more client beside {open}: {error}");
                return Err(Failure::failed(line));
            }
        }
        Ok(())
    }
}
