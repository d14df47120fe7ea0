//! The rehearsal of an upgrade, as the master sees it: a child that runs the new file and says, through a
//! pipe, that it could take over.
//!
//! Knows the child, its pipes and its time; what it does is `upgrade::rehearsal`'s. Invariants: 1. A
//! child that says nothing has not passed, however it ends. 2. Whatever it started ends with it: it leads
//! a process group. 3. It shares no descriptor table with anybody, and has nothing open but what is
//! written here.

use crate::clock::Millis;
use crate::ledger::{DescriptorKind, Holder, Ledger};
use crate::sys::exec::{self, Program};
use crate::sys::fork::{self, Descriptors, Ended, Forked};
use crate::sys::{descriptor, inherit, packet, signals};
use crate::upgrade::Verdict;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

/// How long a rehearsal may take: it starts, serves for a second, and stops.
pub(super) const REHEARSAL_MS: u64 = 15_000;
/// What is kept of its output, the last of it.
const OUTPUT_MAX_BYTES: usize = 16 << 10;
/// What a verdict may be long.
const VERDICT_MAX_BYTES: usize = 64 << 10;
/// The exit code of a child that could not become the program.
const NOT_STARTED: i32 = 127;

/// Both ends of a pipe; the second is the child's.
type Ends = (RawFd, RawFd);

/// A rehearsal under way.
#[derive(Debug)]
pub(super) struct Rehearsing {
    pid: i32,
    pidfd: RawFd,
    report: RawFd,
    output: RawFd,
    said: Vec<u8>,
    verdict: Vec<u8>,
    /// Its own run directory, which it may leave behind.
    run_dir: PathBuf,
    until: Millis,
    late: bool,
    reaped: bool,
    ledger: Ledger,
}

/// What has been made for a child to be.
#[derive(Debug)]
pub(super) struct Stage {
    report: Ends,
    output: Ends,
    ledger: Ledger,
}

impl Stage {
    /// Pipes for a verdict and for what the child prints.
    pub(super) fn make(ledger: Ledger) -> io::Result<Self> {
        let report = packet::stream_pair()?;
        let output = packet::stream_pair().inspect_err(|_| close_both(report))?;
        // Standard error is written to by code that does not know of `WouldBlock`.
        let stage = Self { report, output, ledger };
        if let Err(error) = descriptor::set_nonblocking(output.1, false) {
            stage.close();
            return Err(error);
        }
        for number in [report.0, report.1, output.0, output.1] {
            ledger.note(number, DescriptorKind::Master, Holder::MASTER);
        }
        Ok(stage)
    }

    /// The child's end of the pipe for the verdict.
    pub(super) fn report(&self) -> RawFd {
        self.report.1
    }

    pub(super) fn close(self) {
        for number in [self.report.0, self.report.1, self.output.0, self.output.1] {
            self.ledger.clear(number);
            descriptor::close(number);
        }
    }

    /// Starts the child, which keeps `keep` and has `run_dir` for itself.
    pub(super) fn start(
        self,
        program: &Program,
        keep: &[RawFd],
        run_dir: PathBuf,
        now: Millis,
    ) -> io::Result<Rehearsing> {
        let started = File::open("/dev/null").and_then(|null| {
            let parent = std::process::id();
            match fork::fork(Descriptors::Own)? {
                Forked::Child => self.be_child(program, keep, &null, parent),
                Forked::Parent(pid) => match descriptor::open_pidfd(pid) {
                    Ok(pidfd) => Ok((pid, pidfd)),
                    Err(error) => {
                        // Nobody would hear of it again.
                        fork::kill(pid);
                        let _ = fork::wait_for(pid);
                        Err(error)
                    }
                },
            }
        });
        let (pid, pidfd) = match started {
            Ok(started) => started,
            Err(error) => {
                self.close();
                return Err(error);
            }
        };
        let Self { report, output, ledger } = self;
        ledger.note(pidfd, DescriptorKind::Master, Holder::MASTER);
        for theirs in [report.1, output.1] {
            ledger.clear(theirs);
            descriptor::close(theirs);
        }
        Ok(Rehearsing {
            pid,
            pidfd,
            report: report.0,
            output: output.0,
            said: Vec::new(),
            verdict: Vec::new(),
            run_dir,
            until: now + REHEARSAL_MS,
            late: false,
            reaped: false,
            ledger,
        })
    }

    fn be_child(&self, program: &Program, keep: &[RawFd], null: &File, parent: u32) -> ! {
        signals::forget_pipe();
        fork::die_with(parent);
        let mut kept = keep.to_vec();
        kept.push(self.report.1);
        let prepared = fork::lead_group()
            .and_then(|()| descriptor::duplicate_onto(null.as_raw_fd(), 0))
            .and_then(|()| descriptor::duplicate_onto(self.output.1, 1))
            .and_then(|()| descriptor::duplicate_onto(self.output.1, 2))
            .and_then(|()| inherit::close_all_but(&kept))
            .and_then(|()| exec::keep_over_exec(kept))
            .and_then(|()| fork::unblock_signals());
        let error = match prepared {
            Ok(()) => program.exec(),
            Err(error) => error,
        };
        let _ = descriptor::write(2, format!("{error}\n").as_bytes());
        fork::exit_now(NOT_STARTED)
    }
}

impl Rehearsing {
    /// What has come of it; `None`: it is under way. Gives the version of the program that passed, or a
    /// sentence.
    pub(super) fn look(&mut self, now: Millis) -> Option<Result<String, String>> {
        read_into(self.output, &mut self.said);
        let surplus = self.said.len().saturating_sub(OUTPUT_MAX_BYTES);
        self.said.drain(..surplus);
        read_into(self.report, &mut self.verdict);
        if now >= self.until || self.verdict.len() > VERDICT_MAX_BYTES {
            self.late = true;
            self.kill();
        }
        if !packet::wait_readable(self.pidfd, Duration::ZERO).unwrap_or(true) {
            return None;
        }
        // Before it is reaped, as long as the number of its group is its own.
        self.kill();
        let ended = match fork::reap(self.pidfd) {
            Ok(None) => return None,
            Ok(Some(ended)) => ended,
            Err(error) => return Some(Err(format!("its rehearsal cannot be waited for: {error}"))),
        };
        self.reaped = true;
        read_into(self.output, &mut self.said);
        read_into(self.report, &mut self.verdict);
        Some(self.judge(ended))
    }

    /// Whether nothing is left of it, after [`Self::kill`].
    pub(super) fn is_over(&mut self) -> bool {
        if !self.reaped && matches!(fork::reap(self.pidfd), Ok(None)) {
            return false;
        }
        self.reaped = true;
        for number in [self.pidfd, self.report, self.output] {
            self.ledger.clear(number);
            descriptor::close(number);
        }
        // It is there only where the child could not remove it.
        let _ = fs::remove_dir_all(&self.run_dir);
        true
    }

    /// Ends it and waits for that: at the end of the server.
    pub(super) fn end_now(mut self) {
        self.kill();
        while !self.is_over() {
            // What was killed is gone in a moment.
            let _ = packet::wait_readable(self.pidfd, Duration::from_secs(1));
        }
    }

    /// What it printed, for the log.
    pub(super) fn output(&self) -> String {
        String::from_utf8_lossy(&self.said).trim_end().to_owned()
    }

    /// Ends it and all it has started.
    pub(super) fn kill(&self) {
        if !self.reaped {
            fork::kill_group(self.pid);
        }
    }

    fn judge(&self, ended: Ended) -> Result<String, String> {
        let verdict: Option<Verdict> = serde_json::from_slice(&self.verdict).ok();
        let last = self.output().lines().last().unwrap_or_default().trim().to_owned();
        let last = last.strip_prefix("dunlin: ").unwrap_or(&last);
        let because = if last.is_empty() { String::new() } else { format!(": {last}") };
        match (verdict, ended) {
            _ if self.late => {
                Err(format!("its rehearsal took longer than {REHEARSAL_MS} ms{because}"))
            }
            (Some(Verdict { error: Some(error), .. }), _) => Err(error),
            (_, Ended { signal: Some(signal), .. }) => {
                Err(format!("its rehearsal was ended by signal {signal}{because}"))
            }
            (_, Ended { exit_code: Some(NOT_STARTED), .. }) => {
                Err(format!("it cannot be started{because}"))
            }
            (Some(verdict), Ended { exit_code: Some(0), .. }) => Ok(verdict.version),
            (None, Ended { exit_code: Some(0), .. }) => {
                Err("it ended without a word of the rehearsal: it is no program that can take over"
                    .to_owned())
            }
            (_, Ended { exit_code, .. }) => {
                let code = exit_code.unwrap_or(-1);
                Err(format!("its rehearsal ended with exit code {code}{because}"))
            }
        }
    }
}

/// Takes what is there.
fn read_into(number: RawFd, bytes: &mut Vec<u8>) {
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = descriptor::read(number, &mut piece) {
        bytes.extend_from_slice(&piece[..length]);
        if bytes.len() > VERDICT_MAX_BYTES {
            return;
        }
    }
}

fn close_both((one, other): Ends) {
    descriptor::close(one);
    descriptor::close(other);
}
