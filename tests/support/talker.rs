//! `dunlin chat` as a line client: a child whose lines are written and read with deadlines.

use super::process;
use super::server::dunlin;
use super::wait;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

/// The exit code, and what was printed on standard output and standard error.
pub(crate) type Ending = (Option<i32>, Vec<String>, Vec<String>);

/// See the module. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Talker {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines,
    /// What it says of itself.
    said: Lines,
}

impl Talker {
    /// `dunlin chat WORDS…`.
    pub(crate) fn start(words: &[&str]) -> Self {
        Self::of(dunlin().arg("chat").args(words))
    }

    /// Any verb that goes on.
    pub(crate) fn of(command: &mut Command) -> Self {
        command.env("TZ", "UTC");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the client starts");
        let output = Lines::of(child.stdout.take().expect("piped above"));
        let said = Lines::of(child.stderr.take().expect("piped above"));
        Self { input: child.stdin.take(), child, output, said }
    }

    /// The same, and waits until it is logged in.
    pub(crate) fn connected(words: &[&str]) -> Self {
        let mut talker = Self::start(words);
        talker.wait_said("connected as");
        talker
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        process::signal(name, i64::from(self.child.id()));
    }

    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{line}").expect("it reads");
    }

    /// The next line it prints.
    pub(crate) fn line(&mut self) -> String {
        self.output.next("a line of output").unwrap_or_else(|| panic!("it ended: {:?}", self.said))
    }

    /// The same without the time before it.
    pub(crate) fn message(&mut self) -> String {
        let line = self.line();
        let (time, rest) = line.split_once(' ').expect("a time and a message");
        let digits = time.split(':').filter(|part| part.len() == 2 && part.parse::<u8>().is_ok());
        assert_eq!(digits.count(), 3, "{line}");
        rest.to_owned()
    }

    /// Waits for a line on standard error that has these words.
    pub(crate) fn wait_said(&mut self, words: &str) -> String {
        loop {
            let line = self.said.next(words).unwrap_or_else(|| panic!("it ended before {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Ends its input and waits for its end: the exit code, and all that it has printed that was not
    /// yet read.
    pub(crate) fn finish(mut self) -> Ending {
        drop(self.input.take());
        let status = process::wait_child("the client", &mut self.child);
        (status.code(), self.output.rest(), self.said.rest())
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Lines {
    told: Receiver<String>,
    /// The last that were read, for who asks what went wrong.
    seen: VecDeque<String>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Self { told, seen: VecDeque::new() }
    }

    /// None where the pipe has ended.
    fn next(&mut self, what: &str) -> Option<String> {
        let began = Instant::now();
        let line = match self.told.recv_timeout(wait::DEADLINE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("waited {:?} for {what}; before: {:?}", began.elapsed(), self.seen)
            }
        };
        self.seen.push_back(line.clone());
        if self.seen.len() > 20 {
            self.seen.pop_front();
        }
        Some(line)
    }

    fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next("the end of a pipe")).collect()
    }
}
