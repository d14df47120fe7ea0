//! The new program's side of a rehearsal: it shows that it could take the server over, in a world of its
//! own.
//!
//! In this order: the settings were read, or this would not run → the layout is compared, fact by fact →
//! the segment is looked at → a whole server of one worker, with memory and a directory of its own, serves
//! one upgrade on a loopback port, lives for [`LIVES_MS`] and stops gracefully. Nothing of the running
//! server is touched. Processes the application adds are not started: they may hold what there is only
//! one of.

use super::hand_off::{HandOff, Verdict};
use crate::app::App;
use crate::clock;
use crate::config::LogConfig;
use crate::exit::ExitCode;
use crate::logging;
use crate::privileges::Privileges;
use crate::server::Server;
use crate::shared::Shared;
use crate::sys::fork::{self, Descriptors, Forked};
use crate::sys::{descriptor, exec};
use dunlin_table::Region;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How long the rehearsal's server lives after it has served.
const LIVES_MS: u64 = 1_000;
/// How long it may take to start, to answer, and to stop: each.
const STEP: Duration = Duration::from_secs(4);
/// What its stop may take.
const STOP_TIMEOUT_MS: u64 = 2_000;
/// How often is looked whether it has stopped.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The head of an upgrade as any client sends it (the example of RFC 6455).
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

impl<A: App> Server<A> {
    /// Rehearses, says how it went, and gives the exit code.
    pub(crate) fn rehearse(self, hand_off: &HandOff, report: RawFd, run_dir: &OsStr) -> ExitCode {
        for number in [report, hand_off.segment] {
            // Nobody who is started here has it.
            let _ = exec::close_on_exec(number);
        }
        // Whose start and end it is are no matter of the service manager's.
        exec::forget_variable(crate::master::NOTIFY_SOCKET);
        // A file with capabilities loses at the exec what was set before it.
        fork::die_with(std::os::unix::process::parent_id());
        logging::set_role("rehearsal");
        let log = LogConfig {
            level: "warn".to_owned(),
            format: self.config.log.format,
            // What is said here is read by the server that asked.
            file: None,
        };
        let _ = logging::apply(&log);
        let error = self.show(hand_off, run_dir).err();
        let code = if error.is_none() { ExitCode::Ok } else { ExitCode::Failed };
        let verdict = Verdict { error, version: env!("CARGO_PKG_VERSION").to_owned() };
        let said = serde_json::to_vec(&verdict).unwrap_or_default();
        match descriptor::write(report, &said) {
            Ok(written) if written == said.len() => code,
            // Without its whole word it has not passed.
            _ => ExitCode::Failed,
        }
    }

    fn show(mut self, hand_off: &HandOff, run_dir: &OsStr) -> Result<(), String> {
        let layout = self.layout(hand_off.sizes.descriptors).map_err(|error| error.to_string())?;
        let facts = layout.facts(&self.process_names());
        if let Some(difference) = hand_off.facts.difference(&facts) {
            return Err(format!("it lays the shared memory out differently; {difference}"));
        }
        let looked_at = Region::to_look_at(descriptor::own(hand_off.segment))
            .map_err(|error| error.to_string())?;
        Shared::over(&layout, looked_at, hand_off.seed)
            .map_err(|error| format!("it does not read the shared memory: {error}"))?;
        self.processes.truncate(1);
        self.config.listen = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        self.config.admin_listen = Vec::new();
        self.config.workers = 1;
        self.config.task_workers = self.config.task_workers.min(1);
        self.config.run_dir = PathBuf::from(run_dir);
        self.config.stop_timeout_ms = STOP_TIMEOUT_MS;
        self.rehearses = true;
        self.serve_once()
    }

    /// A process that is the server, and this one, which is its client.
    fn serve_once(self) -> Result<(), String> {
        let cannot = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let pair = UnixStream::pair().map_err(cannot("no pipe to the rehearsal's server"))?;
        let (mut ours, mut theirs) = pair;
        let parent = std::process::id();
        let forked = fork::fork(Descriptors::Own);
        let pid = match forked.map_err(cannot("the rehearsal's server cannot be started"))? {
            Forked::Parent(pid) => pid,
            Forked::Child => {
                fork::die_with(parent);
                let lived =
                    fork::unblock_signals().map_err(|error| error.to_string()).and_then(|()| {
                        let announce = Box::new(move |outcome: Result<String, String>| {
                            let (Ok(line) | Err(line)) = outcome;
                            // Whoever waits for it looks for the word `ready`.
                            let _ = theirs.write_all(format!("{line}\n").as_bytes());
                        });
                        // Who runs it has no privileges any more.
                        self.live(&Privileges::kept(), announce).map_err(|error| error.to_string())
                    });
                if let Err(sentence) = &lived {
                    let _ = writeln!(io::stderr(), "dunlin: {sentence}");
                }
                fork::exit_now(i32::from(lived.is_err()));
            }
        };
        drop(theirs);
        let address = read_address(&mut ours)?;
        ask_for_upgrade(address)?;
        thread::sleep(Duration::from_millis(LIVES_MS));
        fork::terminate(pid);
        let until = clock::now() + u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX);
        loop {
            match fork::reap_pid(pid) {
                Ok(None) if clock::now() < until => thread::sleep(LOOK_EVERY),
                Ok(None) => return Err("its server did not stop in time".to_owned()),
                Ok(Some(ended)) => {
                    return match (ended.exit_code, ended.signal) {
                        (Some(0), _) => Ok(()),
                        (_, Some(signal)) => {
                            Err(format!("its server was ended by signal {signal}"))
                        }
                        (code, _) => {
                            Err(format!("its server ended with exit code {}", code.unwrap_or(-1)))
                        }
                    };
                }
                Err(error) => return Err(format!("its server cannot be waited for: {error}")),
            }
        }
    }
}

/// The address in the ready line; the line itself where it is no ready line.
fn read_address(from: &mut UnixStream) -> Result<SocketAddr, String> {
    let read = from.set_read_timeout(Some(STEP)).and_then(|()| {
        let mut line = Vec::new();
        let mut byte = [0];
        while from.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    });
    let line = read.map_err(|error| format!("its server was not ready in time: {error}"))?;
    let address = line
        .strip_prefix("dunlin ready on ")
        .and_then(|rest| rest.split(' ').next().and_then(|word| word.parse().ok()));
    address.ok_or_else(|| match line.is_empty() {
        true => "its server ended while it started".to_owned(),
        false => format!("its server did not start: {line}"),
    })
}

/// An answer is an answer: an application may have its reasons to refuse a client without a name.
fn ask_for_upgrade(address: SocketAddr) -> Result<(), String> {
    let answer = TcpStream::connect_timeout(&address, STEP).and_then(|mut stream| {
        stream.set_read_timeout(Some(STEP))?;
        stream.write_all(UPGRADE.as_bytes())?;
        let mut head = [0; "HTTP/1.1 101".len()];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    });
    match answer {
        Ok(head) if matches!(head.strip_prefix("HTTP/1.1 "), Some(code) if code < "500") => Ok(()),
        Ok(head) => Err(format!("its server answered an upgrade with {head:?}")),
        Err(error) => Err(format!("its server did not answer an upgrade: {error}")),
    }
}
