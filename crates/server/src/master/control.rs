//! The control socket: one JSON request, one JSON answer, then the end.
//!
//! Knows lines and who may ask (this user, or root); what a request means is the loop's. At most
//! [`ASKERS_MAX`] at once; each has a bounded time to ask.

use crate::clock::Millis;
use crate::control::{ControlAnswer, ControlRequest, REQUEST_MAX_BYTES};
use crate::ledger::{DescriptorKind, Holder, Ledger};
use crate::run_dir::RunDir;
use crate::sys::{descriptor, unix_socket};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;

/// The token of the listening socket.
pub(super) const CONTROL: Token = Token(3);
/// Askers at once; more wait in the socket's queue.
const ASKERS_MAX: usize = 64;
/// How long an asker may take to ask, and to take its answer.
const ASK_MS: u64 = 5_000;

/// Somebody who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Waiting(RawFd);

/// The socket and who is on it, for the program that follows by an upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ControlHandOff {
    listener: RawFd,
    askers: Vec<(RawFd, Asker)>,
}

impl ControlHandOff {
    /// Every descriptor of it.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.askers.iter().map(|(number, _)| *number).chain([self.listener])
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Asker {
    line: Vec<u8>,
    answer: Vec<u8>,
    asked: bool,
    until: Millis,
}

/// The socket and who is on it.
#[derive(Debug)]
pub(super) struct ControlSocket {
    listener: RawFd,
    askers: HashMap<RawFd, Asker>,
    ledger: Ledger,
}

impl ControlSocket {
    /// Binds the socket, for this user only.
    pub(super) fn make(dir: &RunDir, poll: &Poll, ledger: Ledger) -> io::Result<Self> {
        let listener = unix_socket::listen(&dir.control_socket())?;
        ledger.note(listener, DescriptorKind::Master, Holder::MASTER);
        poll.registry().register(&mut SourceFd(&listener), CONTROL, Interest::READABLE)?;
        Ok(Self { listener, askers: HashMap::new(), ledger })
    }

    /// The socket of the program before this one.
    pub(super) fn take_over(
        handed: ControlHandOff,
        poll: &Poll,
        ledger: Ledger,
    ) -> io::Result<Self> {
        for number in handed.descriptors() {
            ledger.note(number, DescriptorKind::Master, Holder::MASTER);
        }
        let ControlHandOff { listener, askers } = handed;
        poll.registry().register(&mut SourceFd(&listener), CONTROL, Interest::READABLE)?;
        Ok(Self { listener, askers: askers.into_iter().collect(), ledger })
    }

    /// What the next program has to know.
    pub(super) fn hand_off(&self) -> ControlHandOff {
        let askers = self.askers.iter().map(|(number, asker)| (*number, asker.clone()));
        ControlHandOff { listener: self.listener, askers: askers.collect() }
    }

    /// Whether somebody is in the middle of asking or of being answered.
    pub(super) fn is_busy(&self) -> bool {
        !self.askers.is_empty()
    }

    /// Takes in who waits, reads what is there, and gives the requests that are whole.
    pub(super) fn requests(
        &mut self,
        now: Millis,
    ) -> Vec<(Waiting, Result<ControlRequest, String>)> {
        while self.askers.len() < ASKERS_MAX
            && let Ok(Some(asker)) = unix_socket::accept(self.listener)
        {
            self.ledger.note(asker, DescriptorKind::Master, Holder::MASTER);
            let until = now + ASK_MS;
            let fresh = Asker { line: Vec::new(), answer: Vec::new(), asked: false, until };
            self.askers.insert(asker, fresh);
        }
        let mut requests = Vec::new();
        for (number, asker) in self.askers.iter_mut().filter(|(_, asker)| !asker.asked) {
            match read_line(*number, &mut asker.line) {
                Line::Whole => {
                    asker.asked = true;
                    let request = match unix_socket::may_command(*number) {
                        true => ControlRequest::from_line(&asker.line),
                        false => Err(
                            "only the user who runs the server, or root, may ask, and no worker"
                                .into(),
                        ),
                    };
                    requests.push((Waiting(*number), request));
                }
                Line::Partial if now >= asker.until => {
                    asker.asked = true;
                    requests.push((Waiting(*number), Err("no request came in time".into())));
                }
                Line::Partial => {}
                Line::Broken => {
                    asker.asked = true;
                    requests.push((Waiting(*number), Err("not a request line".into())));
                }
            }
        }
        requests
    }

    /// User and process of somebody who waits.
    pub(super) fn peer(&self, who: Waiting) -> Option<(u32, i32)> {
        self.askers.contains_key(&who.0).then(|| unix_socket::peer(who.0))?
    }

    /// Answers somebody, and hangs up once it is sent.
    pub(super) fn answer(&mut self, to: Waiting, answer: &ControlAnswer) {
        if let Some(asker) = self.askers.get_mut(&to.0) {
            asker.answer = answer.to_line();
        }
        self.send_answers(None);
    }

    /// Goes on sending answers; who does not take one in time is hung up on.
    pub(super) fn send_answers(&mut self, now: Option<Millis>) {
        let mut done = Vec::new();
        for (number, asker) in &mut self.askers {
            if asker.answer.is_empty() {
                continue;
            }
            let over = loop {
                match descriptor::write(*number, &asker.answer) {
                    Ok(written) if written == asker.answer.len() => break true,
                    Ok(written) => drop(asker.answer.drain(..written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break true,
                }
            };
            // A verb may wait for its outcome longer than for the asking: the time for the answer
            // begins when there is one.
            if over || now.is_some_and(|now| now >= asker.until + ASK_MS * 60) {
                done.push(*number);
            }
        }
        for number in done {
            self.askers.remove(&number);
            self.ledger.clear(number);
            descriptor::close(number);
        }
    }
}

enum Line {
    Whole,
    Partial,
    Broken,
}

fn read_line(number: RawFd, line: &mut Vec<u8>) -> Line {
    let mut piece = [0; 1024];
    loop {
        match descriptor::read(number, &mut piece) {
            // An asker that ends its half has said all it has to say.
            Ok(0) if line.is_empty() => return Line::Broken,
            Ok(0) => return Line::Whole,
            Ok(length) => {
                line.extend_from_slice(&piece[..length]);
                if line.ends_with(b"\n") {
                    return Line::Whole;
                }
                if line.len() > REQUEST_MAX_BYTES {
                    return Line::Broken;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Line::Partial,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Line::Broken,
        }
    }
}
