//! A running server, as a test holds it: started, watched, killed at the end.
//!
//! Nothing here waits without an end: every wait is a loop with [`PATIENCE`].

use crate::client::Client;
use crate::place::Place;
use dunlin_server::control;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value as Json;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take; much longer than it does, since the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often is looked while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(4);
/// How long nothing may have changed for what is to be compared later.
const STEADY: Duration = Duration::from_millis(60);
/// Tells the test's binary that it is the server of this directory.
pub(crate) const SERVER_OF: &str = "HOOKS_SERVER_OF";

/// Looks again and again until there is something; panics after [`PATIENCE`].
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    wait_for(what, || so().then_some(()));
}

/// One hook, as the application wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) pid: i32,
    pub(crate) role: String,
    pub(crate) hook: String,
    pub(crate) arguments: String,
}

impl Line {
    fn read(line: &str) -> Self {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        Self {
            pid: word().parse().unwrap_or(0),
            role: word(),
            hook: word(),
            arguments: word().trim_end().to_owned(),
        }
    }

    /// The n-th of its arguments.
    pub(crate) fn word(&self, place: usize) -> &str {
        self.arguments.split(' ').nth(place).unwrap_or_default()
    }
}

/// See the module.
pub(crate) struct Server {
    pub(crate) place: Place,
    pub(crate) address: SocketAddr,
    child: Child,
    ended: bool,
    /// Gone with the last server of the place.
    dir: Option<TempDir>,
}

impl Server {
    /// A server with these settings.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::prepare(settings).start()
    }

    /// A place for a server, for tests that change more than settings.
    pub(crate) fn prepare(settings: &[(&str, &str)]) -> Prepared {
        let dir = tempfile::Builder::new().prefix("hooks-").tempdir().expect("a directory");
        let place = Place::existing(dir.path());
        let run_dir = place.run_dir();
        for (key, value) in [
            ("server.listen", "127.0.0.1:0"),
            ("server.workers", "1"),
            ("server.run_dir", run_dir.to_str().expect("a path of ours")),
            ("server.stop_timeout", "5s"),
            ("table.max_sessions", "512"),
        ] {
            place.set(key, value);
        }
        settings.iter().for_each(|(key, value)| place.set(key, value));
        Prepared { place, dir }
    }

    fn launch(place: Place, dir: Option<TempDir>) -> Self {
        let log = File::options().create(true).append(true).open(place.log()).expect("the log");
        let output = File::create(place.output()).expect("the output");
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .env(SERVER_OF, place.dir())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("the server's process starts");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { place, address, child, ended: false, dir };
        server.address = wait_for("the ready line", || {
            if let Some(status) = server.try_wait() {
                panic!("the server ended before it was ready: {status}");
            }
            let output = fs::read_to_string(server.place.output()).ok()?;
            let line = output.lines().find(|line| line.contains("ready on"))?;
            line.split(' ').find_map(|word| word.parse().ok())
        });
        server
    }

    /// The next server at the same place, after this one has ended.
    pub(crate) fn start_again(mut self) -> Self {
        assert!(self.ended, "one server at a time");
        let dir = self.dir.take();
        Self::launch(self.place.clone(), dir)
    }

    pub(crate) fn master(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.master()), signal).expect("the master lives");
    }

    /// Waits for the master's end.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        wait_for("the end of the server", || self.try_wait())
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("our own child");
        self.ended |= status.is_some();
        status
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_end()
    }

    /// The status object, from the FIFO.
    pub(crate) fn status(&self) -> Json {
        let text = control::read_status(&self.place.run_dir(), PATIENCE).expect("the status");
        serde_json::from_str(&text).expect("the status is JSON")
    }

    /// Waits for a status that is so, and gives it.
    pub(crate) fn wait_status(&self, what: &str, so: impl Fn(&Json) -> bool) -> Json {
        wait_for(what, || Some(self.status()).filter(|status| so(status)))
    }

    /// The pid of `workers/0`, `tasks/1`, `timer`, `processes/1`.
    pub(crate) fn pid(&self, of: &str) -> i32 {
        pid_in(&self.status(), of)
    }

    /// The pids of all children.
    pub(crate) fn children(&self) -> Vec<i32> {
        let status = self.status();
        ["workers", "tasks", "processes"]
            .iter()
            .flat_map(|kind| status[kind].as_array().cloned().unwrap_or_default())
            .map(|child| pid_in(&child, ""))
            .collect()
    }

    /// Kills a child and waits until another serves in its place.
    pub(crate) fn kill_and_wait(&self, of: &str) -> i32 {
        self.wait_quiet();
        let pid = self.pid(of);
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the child lives");
        let path = format!("/{of}/state");
        let status = self.wait_status("a successor", |status| {
            ![0, pid].contains(&pid_in(status, of))
                && status.pointer(&path) == Some(&"running".into())
        });
        pid_in(&status, of)
    }

    /// Waits until no worker is in the middle of a turn, for a moment: then every connection is CLEAN,
    /// and a kill costs none.
    pub(crate) fn wait_quiet(&self) {
        let mut quiet = 0;
        wait_until("quiet workers", || {
            let status = self.status();
            let workers = status["workers"].as_array().expect("the workers");
            let idle = workers.iter().all(|worker| worker["busy_ms"] == 0);
            quiet = if idle { quiet + 1 } else { 0 };
            quiet == 3
        });
    }

    /// SIGUSR1 (or 2), and the report of what came of it.
    pub(crate) fn reload(&self, signal: Signal) -> Json {
        let before = self.status()["last_reload"]["seq"].clone();
        self.signal(signal);
        let over = |status: &Json| status["last_reload"]["seq"] != before;
        self.wait_status("the end of the reload", over)["last_reload"].take()
    }

    /// What the master (and so every worker) has open, once it has been the same for a while: a
    /// status pipe that was just read is not yet followed by the next.
    pub(crate) fn descriptors(&self) -> Vec<String> {
        let (mut known, mut since) = (self.open_now(), Instant::now());
        wait_for("steady descriptors", || {
            let now = self.open_now();
            if now != known {
                (known, since) = (now, Instant::now());
            }
            (since.elapsed() >= STEADY).then(|| known.clone())
        })
    }

    /// Waits until as many descriptors are open as before.
    pub(crate) fn wait_descriptors(&self, before: &[String]) {
        let began = Instant::now();
        loop {
            let now = self.descriptors();
            if now.len() == before.len() {
                return;
            }
            let fresh: Vec<_> = now.iter().filter(|one| !before.contains(one)).collect();
            let (now, before) = (now.len(), before.len());
            assert!(began.elapsed() < PATIENCE, "{before} before, {now} now, new: {fresh:?}");
        }
    }

    /// Number and target of each.
    fn open_now(&self) -> Vec<String> {
        let dir = fs::read_dir(format!("/proc/{}/fd", self.master())).expect("the master lives");
        let shown = |entry: fs::DirEntry| {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            format!("{} {}", entry.file_name().display(), target.display())
        };
        dir.flatten().map(shown).collect()
    }

    /// What the application has written down so far.
    pub(crate) fn record(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.place.record()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(Line::read).collect()
    }

    /// The calls of one hook so far.
    pub(crate) fn calls(&self, hook: &str) -> Vec<Line> {
        self.record().into_iter().filter(|line| line.hook == hook).collect()
    }

    /// Waits for a call of a hook whose arguments contain this.
    pub(crate) fn wait_call(&self, hook: &str, containing: &str) -> Line {
        wait_for(&format!("{hook} with {containing:?}"), || {
            self.calls(hook).into_iter().find(|line| line.arguments.contains(containing))
        })
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address, "/", &[])
    }

    /// A client that a given worker serves; the kernel chooses, so it is tried until it is so.
    pub(crate) fn client_at(&self, slot: u16) -> Client {
        let mut others = Vec::new();
        for _ in 0..200 {
            let client = self.client();
            if client.slot == slot {
                // In order, so that the server has nothing more to do with them.
                others.into_iter().for_each(|other: Client| other.close(1000, ""));
                return client;
            }
            others.push(client);
        }
        panic!("the kernel gives worker {slot} no connection");
    }
}

/// What a server needs before its start.
pub(crate) struct Prepared {
    pub(crate) place: Place,
    dir: TempDir,
}

impl Prepared {
    pub(crate) fn start(self) -> Server {
        Server::launch(self.place, Some(self.dir))
    }
}

/// Kills the server with all its children; shows its log where the test has failed.
impl Drop for Server {
    fn drop(&mut self) {
        // What has ended cannot be killed, which is what is wanted.
        let _ = killpg(Pid::from_raw(self.master()), Signal::SIGKILL);
        if !self.ended {
            let _ = self.child.wait();
        }
        if thread::panicking() && self.dir.is_some() {
            let log = fs::read_to_string(self.place.log()).unwrap_or_default();
            let record = fs::read_to_string(self.place.record()).unwrap_or_default();
            eprintln!("---- log\n{}---- record\n{}----", tail(&log), tail(&record));
        }
    }
}

/// The pid in the status at a place such as `workers/0`.
pub(crate) fn pid_in(status: &Json, of: &str) -> i32 {
    let object = if of.is_empty() { Some(status) } else { status.pointer(&format!("/{of}")) };
    let pid = object.and_then(|object| object["pid"].as_i64()).expect("a child of the status");
    i32::try_from(pid).expect("a pid")
}

/// Whether there is such a process that has not ended.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].iter().map(|line| format!("{line}\n")).collect()
}
