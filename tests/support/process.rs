//! Other processes as the kernel shows them, and commands that end by a deadline.

use super::wait;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end; panics at the deadline.
pub(crate) fn run(command: &mut Command) -> Ended {
    let mut out = tempfile::tempfile().expect("a temporary file");
    let mut err = tempfile::tempfile().expect("a temporary file");
    let copy = |file: &File| file.try_clone().expect("a descriptor");
    command.stdin(Stdio::null()).stdout(copy(&out)).stderr(copy(&err));
    let name = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let status = wait_child(&name, &mut child);
    let text = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("what it wrote");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ended { code: status.code(), stdout: text(&mut out), stderr: text(&mut err) }
}

/// Waits for a child; kills it at the deadline and panics.
pub(crate) fn wait_child(name: &str, child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    wait::for_some("the end of a command", || {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Some(status);
        }
        if began.elapsed() > wait::DEADLINE / 10 * 9 {
            let _ = child.kill();
            panic!("{name} did not end");
        }
        None
    })
}

/// Sends a signal, named as `kill` names it (`TERM`, `34`), to a process; to its group if `pid` is negative.
pub(crate) fn signal(name: impl AsRef<OsStr>, pid: i64) {
    // 0 would be the group of this program: what a slot without a process has as its pid.
    assert!(pid.abs() > 1, "no process to send {:?} to", name.as_ref());
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$0\" -- \"$1\""])
        .arg(name)
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status();
    // A process that has just ended is no failure of the test; what it waits for next is.
    status.expect("sh is there");
}

/// Whether a process lives; one that is only not reaped does not.
pub(crate) fn is_alive(pid: i64) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The letter of `/proc/PID/stat`.
fn state(pid: i64) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// What a process has open, by kind, once that does not change: reading the status opens and closes
/// some for a moment.
pub(crate) fn descriptors(pid: i64) -> BTreeMap<String, usize> {
    let mut last = (open_now(pid), Instant::now());
    wait::for_some("a count of descriptors that stays", || {
        let now = open_now(pid);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() >= SETTLED).then(|| last.0.clone())
    })
}

/// Waits until a process has open what it had before; says what it has if it never does.
pub(crate) fn expect_descriptors(pid: i64, before: &BTreeMap<String, usize>) {
    let began = Instant::now();
    wait::until("as many descriptors as before", || {
        let now = descriptors(pid);
        if began.elapsed() > wait::DEADLINE / 2 {
            assert_eq!(&now, before, "what is open now, and what was");
        }
        now == *before
    });
}

/// How many of each kind; files by their path, all else without its number.
fn open_now(pid: i64) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    for target in open.filter_map(|entry| fs::read_link(entry.path()).ok()) {
        let target = target.display().to_string();
        let kind = target.split_once(":[").filter(|(kind, _)| *kind != "anon_inode");
        *kinds.entry(kind.map_or(target.as_str(), |(kind, _)| kind).to_owned()).or_default() += 1;
    }
    kinds
}

/// For how long a count must stay.
const SETTLED: Duration = Duration::from_millis(100);
