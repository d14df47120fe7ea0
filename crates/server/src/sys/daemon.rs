//! Becoming a daemon: the first process waits for the outcome of the start, then ends.

use super::descriptor;
use super::fork::{self, Descriptors, Forked};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Which side of the fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The first process; how the start went.
    First(Result<String, String>),
    /// The server to be, in a session of its own.
    Daemon(Report),
}

/// The daemon's line to the first process.
#[derive(Debug)]
pub(crate) struct Report(Option<UnixStream>);

impl Report {
    /// Tells how the start went, once.
    pub(crate) fn send(&mut self, outcome: &Result<String, String>) {
        let Some(mut stream) = self.0.take() else { return };
        let (mark, text) = match outcome {
            Ok(line) => ("+", line),
            Err(sentence) => ("-", sentence),
        };
        // The first process may be gone: the server runs all the same.
        let _ = stream.write_all(format!("{mark}{text}").as_bytes());
    }
}

/// Forks and detaches. The first process waits here for the daemon's report, or its end.
pub(crate) fn detach() -> io::Result<Side> {
    let (mut ours, theirs) = UnixStream::pair()?;
    match fork::fork(Descriptors::Own)? {
        Forked::Parent(_) => {
            drop(theirs);
            let mut said = String::new();
            ours.read_to_string(&mut said)?;
            Ok(Side::First(match said.split_at_checked(1) {
                Some(("+", line)) => Ok(line.to_owned()),
                Some((_, sentence)) => Err(sentence.to_owned()),
                None => Err("the server ended while it started; its log may say why".to_owned()),
            }))
        }
        Forked::Child => {
            drop(ours);
            fork::new_session()?;
            let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
            // Kept open, to /dev/null: a segment or socket must never get the number 0, 1 or 2.
            for standard in 0..=2 {
                descriptor::duplicate_onto(null.as_raw_fd(), standard)?;
            }
            fork::unblock_signals()?;
            Ok(Side::Daemon(Report(Some(theirs))))
        }
    }
}
