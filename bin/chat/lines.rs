//! The line client: for scripts, and wherever there is no terminal.
//!
//! One line in is one message, one message is one line out; what else there is to say goes to standard
//! error. Invariant: at most [`READ_AHEAD`] lines are read that are not yet answered, so a long input
//! waits in its pipe.

use super::link::Link;
use super::news::{Ending, Message, News};
use super::words::Target;
use crate::failure::Failure;
use crate::local_time::clock_time;
use crate::terminal;
use dunlin_server::clock;
use dunlin_server::exit::ExitCode;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

/// Lines that are read and not yet answered.
const READ_AHEAD: usize = 64;
/// The longest line: what servers take as a message out of the box.
const LINE_MAX_BYTES: usize = 1 << 20;

/// See the module.
pub(crate) fn run(
    link: &mut Link,
    target: Option<Target>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let input = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let input = input.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
    let mut talk = Talk { target, json, lines: Lines::default(), unsent: 0, ended: false };
    loop {
        let wants = talk.wants_input(link);
        let ready = {
            let others: &[_] = if wants { &[input.as_fd()] } else { &[] };
            link.wait(others)?
        };
        if ready.first() == Some(&true) {
            talk.read(&input)?;
        }
        talk.send(link);
        for news in link.turn() {
            if !talk.show(&news)? {
                return Ok(ExitCode::Ok);
            }
        }
        if let Some(ending) = link.take_ending() {
            return talk.end(ending);
        }
    }
}

#[derive(Debug)]
struct Talk {
    /// Nobody: it only listens.
    target: Option<Target>,
    json: bool,
    lines: Lines,
    /// Lines that did not go out.
    unsent: u64,
    /// The input has.
    ended: bool,
}

impl Talk {
    fn wants_input(&self, link: &Link) -> bool {
        self.target.is_some() && !self.ended && link.state.unsent() < READ_AHEAD
    }

    fn read(&mut self, mut input: &File) -> Result<(), Failure> {
        let mut bytes = [0; 16 << 10];
        match input.read(&mut bytes) {
            Ok(0) => {
                self.ended = true;
                self.lines.end();
            }
            Ok(read) => self.lines.push(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::failed(format!("standard input: {error}"))),
        }
        Ok(())
    }

    fn send(&mut self, link: &mut Link) {
        let Some(target) = &self.target else { return };
        while link.state.unsent() < READ_AHEAD {
            let Some((number, line)) = self.lines.next() else {
                if self.ended {
                    link.state.finish();
                }
                return;
            };
            let refused = match line {
                Ok(text) if text.trim().is_empty() => None,
                Ok(text) => match link.state.send(clock::now(), target.clone(), text) {
                    Some(_) => None,
                    None => Some("too many wait"),
                },
                Err(why) => Some(why),
            };
            if let Some(why) = refused {
                self.unsent += 1;
                terminal::complain(&format!("line {number} was not sent: {why}"));
            }
        }
    }

    /// Shows what was told; false where nobody reads it any more.
    fn show(&mut self, news: &News) -> Result<bool, Failure> {
        match news {
            News::Message(message) => return terminal::print_to_reader(&self.line_of(message)),
            News::Online { user } => terminal::complain(&format!("connected as {user}")),
            News::Offline { why, wait_ms } => {
                let line =
                    format!("{why}; coming back in {}.{} s", wait_ms / 1_000, wait_ms / 100 % 10);
                terminal::complain(&line);
            }
            News::NotSent { message, why } => {
                self.unsent += 1;
                terminal::complain(&format!("{:?} was not sent: {why}", message.text));
            }
            News::NotJoined { room, why } => {
                terminal::complain(&format!("cannot join {room}: {why}"));
            }
            _ => {}
        }
        Ok(true)
    }

    fn line_of(&self, message: &Message) -> String {
        if self.json {
            return format!("{}\n", message.params);
        }
        format!("{} {message}\n", clock_time(message.time))
    }

    fn end(&self, ending: Ending) -> Result<ExitCode, Failure> {
        match ending.line {
            Some(line) => Err(Failure::with_code(ending.code, line)),
            None if self.unsent > 0 => {
                let lines = if self.unsent == 1 { "line was" } else { "lines were" };
                Err(Failure::failed(format!("{} {lines} not sent", self.unsent)))
            }
            None => Ok(ending.code),
        }
    }
}

/// Lines of what comes in pieces.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// How much of `bytes` is known to have no line end.
    looked: usize,
    number: u64,
    /// The rest of a line that is too long is passed over.
    skipping: bool,
    ended: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What is left is a line, too.
    fn end(&mut self) {
        self.ended = true;
    }

    /// The next line and its number, or why it is none.
    fn next(&mut self) -> Option<(u64, Result<String, &'static str>)> {
        loop {
            let found = self.bytes[self.looked..].iter().position(|byte| *byte == b'\n');
            let (end, next) = match found {
                Some(at) => (self.looked + at, self.looked + at + 1),
                None if self.ended && !self.bytes.is_empty() => {
                    (self.bytes.len(), self.bytes.len())
                }
                None if self.bytes.len() > LINE_MAX_BYTES => {
                    self.bytes.clear();
                    self.looked = 0;
                    if self.skipping {
                        return None;
                    }
                    self.skipping = true;
                    return Some((self.number + 1, Err("it is longer than 1 MiB")));
                }
                None => {
                    self.looked = self.bytes.len();
                    return None;
                }
            };
            self.number += 1;
            self.looked = 0;
            let mut line: Vec<u8> = self.bytes.drain(..next).take(end).collect();
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let text = String::from_utf8(line).map_err(|_| "it is not UTF-8");
            return Some((self.number, text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<(u64, Result<String, &'static str>)> {
        std::iter::from_fn(|| lines.next()).collect()
    }

    #[test]
    fn lines_are_found_however_they_are_cut() {
        let text = "a\nb\r\n\n茶\nlast".as_bytes();
        let whole = ["a", "b", "", "茶", "last"];
        for step in 1..=text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in text.chunks(step) {
                lines.push(piece);
                found.extend(all(&mut lines));
            }
            lines.end();
            found.extend(all(&mut lines));
            let expected: Vec<_> =
                (1..).zip(whole).map(|(number, line)| (number, Ok(line.to_owned()))).collect();
            assert_eq!(found, expected, "in steps of {step}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_or_no_text_is_named_and_passed_over() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for _ in 0..40 {
            lines.push(&[b'x'; 64 << 10]);
            found.extend(all(&mut lines));
        }
        lines.push(b"end of it\nnext\n\xff\nafter\n");
        found.extend(all(&mut lines));
        assert_eq!(
            found,
            [
                (1, Err("it is longer than 1 MiB")),
                (2, Ok("next".to_owned())),
                (3, Err("it is not UTF-8")),
                (4, Ok("after".to_owned())),
            ]
        );
        assert!(lines.bytes.is_empty());
    }
}
