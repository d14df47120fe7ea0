//! A running server, as a test holds it: started, watched, gone at the end.

use super::client::Client;
use super::dir::Dir;
use super::process::{self, Ended};
use super::wait;
use serde_json::{Value as Json, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The program under test.
pub(crate) const DUNLIN: &str = env!("CARGO_BIN_EXE_dunlin");

/// See the module.
#[derive(Debug)]
pub(crate) struct Server {
    dir: Dir,
    child: Child,
    ended: bool,
    /// Of the first listener.
    pub(crate) address: SocketAddr,
    /// The master's.
    pub(crate) pid: i64,
    /// As it was printed.
    pub(crate) ready_line: String,
}

/// A server that is about to be started: more flags, another environment, a shell around it.
#[derive(Debug)]
pub(crate) struct Starter {
    dir: Dir,
    args: Vec<String>,
    env: Vec<(String, String)>,
    shell: Option<String>,
    /// An example in place of the program.
    example: Option<PathBuf>,
    listen: String,
}

impl Server {
    /// A server with this config file.
    pub(crate) fn start(toml: &str) -> Self {
        Self::configure(toml).start()
    }

    /// The same, not yet started.
    pub(crate) fn configure(toml: &str) -> Starter {
        let dir = Dir::new();
        dir.write_config(toml);
        let listen = "127.0.0.1:0".to_owned();
        Starter { dir, args: Vec::new(), env: Vec::new(), shell: None, example: None, listen }
    }

    /// An example of this workspace in place of the program, built before; it takes flags, and no file.
    pub(crate) fn example(name: &str) -> Starter {
        Starter { example: Some(build_example(name)), ..Self::configure("") }
    }

    /// A new connection, greeted.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// A new connection on another worker than these.
    pub(crate) fn client_apart_from(&self, others: &mut [&mut Client]) -> Client {
        let taken: Vec<usize> = others.iter_mut().map(|other| self.worker_of(other)).collect();
        let mut surplus = Vec::new();
        wait::for_some("a connection on another worker", || {
            let mut client = self.client();
            if taken.contains(&self.worker_of(&mut client)) {
                surplus.push(client);
                return None;
            }
            Some(client)
        })
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.run_dir()
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The status, by a plain read of the pipe, under the lock that verbs take for theirs: of two plain
    /// reads in the same instant one may get nothing.
    pub(crate) fn status(&self) -> Status {
        let run_dir = self.run_dir();
        let (tell, told) = mpsc::channel();
        // Neither the lock nor a read of a FIFO has a deadline of its own.
        thread::spawn(move || {
            let read = || {
                let directory = File::open(&run_dir)?;
                directory.lock()?;
                fs::read_to_string(run_dir.join("status.pipe"))
            };
            tell.send(read())
        });
        let text = told.recv_timeout(wait::DEADLINE).expect("the status in time").expect("a read");
        let object = serde_json::from_str(&text);
        Status(object.unwrap_or_else(|error| panic!("the status is no JSON: {error}: {text:?}")))
    }

    /// Reads the status until it is so.
    pub(crate) fn wait_until(&self, what: &str, so: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        wait::for_some(what, || {
            let status = self.status();
            if so(&status) {
                return Some(status);
            }
            last = Some(status);
            None
        })
    }

    /// Which worker serves a connection: the one whose count of messages grows as it asks.
    pub(crate) fn worker_of(&self, client: &mut Client) -> usize {
        const ASKED: u64 = 3;
        wait::for_some("one worker that counts the messages of one connection", || {
            let before = self.status().messages_in();
            for _ in 0..ASKED {
                client.result("ping", json!({}));
            }
            let grown = || -> Vec<u64> {
                let now = self.status().messages_in();
                now.iter().zip(&before).map(|(now, before)| now.saturating_sub(*before)).collect()
            };
            let counts = wait::for_some("the counts of messages", || {
                Some(grown()).filter(|counts| counts.iter().sum::<u64>() >= ASKED)
            });
            let busy: Vec<usize> = (0..counts.len()).filter(|slot| counts[*slot] > 0).collect();
            (busy.len() == 1).then(|| busy[0])
        })
    }

    /// Kills the worker of a connection with SIGKILL; gives its slot.
    pub(crate) fn kill_worker_of(&self, client: &mut Client) -> usize {
        let slot = self.worker_of(client);
        process::signal("KILL", self.status().worker_pid(slot));
        slot
    }

    /// Sends the master a signal.
    pub(crate) fn signal(&self, name: &str) {
        process::signal(name, self.pid);
    }

    /// Runs `dunlin VERB… --run-dir` of this server.
    pub(crate) fn verb(&self, words: &[&str]) -> Ended {
        process::run(&mut self.verb_command(words))
    }

    pub(crate) fn verb_command(&self, words: &[&str]) -> Command {
        let mut command = dunlin();
        command.args(words).arg("--run-dir").arg(self.run_dir());
        command
    }

    /// Waits for the end of the master.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let status = process::wait_child("the server", &mut self.child);
        self.ended = true;
        status
    }

    /// Starts the next server at the same place, after this one has ended.
    pub(crate) fn start_again(self) -> Self {
        self.start_again_at("127.0.0.1:0".to_owned())
    }

    /// The same on the same address, where clients look for it.
    pub(crate) fn start_again_for_its_clients(self) -> Self {
        let listen = self.address.to_string();
        self.start_again_at(listen)
    }

    fn start_again_at(mut self, listen: String) -> Self {
        assert!(self.ended, "one server at a time");
        let dir = std::mem::replace(&mut self.dir, Dir::new());
        Starter { dir, args: Vec::new(), env: Vec::new(), shell: None, example: None, listen }
            .start()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended {
            // The children of the master die with it; the group is for what a shell around it started.
            process::signal("KILL", -i64::from(self.child.id()));
            let _ = self.child.wait();
        }
        let log = self.dir.log();
        if thread::panicking() {
            eprintln!("--- log of the server with pid {} ---\n{log}---", self.pid);
        } else {
            assert!(!log.contains("panicked at"), "the server panicked:\n{log}");
        }
    }
}

impl Starter {
    /// One more flag, or two words of one.
    pub(crate) fn args(mut self, words: &[&str]) -> Self {
        self.args.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// Puts a shell line before the program, such as `ulimit -n 300`.
    pub(crate) fn after(mut self, shell: &str) -> Self {
        self.shell = Some(shell.to_owned());
        self
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// The command that starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = match (&self.example, &self.shell) {
            (Some(example), _) => clean(Command::new(example)),
            (None, None) => dunlin(),
            (None, Some(line)) => {
                let mut shell = clean(Command::new("sh"));
                shell.arg("-c").arg(format!("{line} && exec \"$0\" \"$@\"")).arg(DUNLIN);
                shell
            }
        };
        if self.example.is_none() {
            command.arg("serve").arg("-c").arg(self.dir.config_file());
        }
        command.args(["-l", &self.listen]);
        command.arg("--run-dir").arg(self.dir.run_dir());
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir.path());
        command
    }

    /// Starts it and waits for its ready line.
    pub(crate) fn start(self) -> Server {
        let log = File::options().create(true).append(true).open(self.dir.log_file());
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("the log file"))
            .process_group(0)
            .spawn()
            .expect("the server's process starts");
        let out = child.stdout.take().expect("piped above");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // Nobody listens after the first; the pipe is emptied all the same.
                let _ = tell.send(line);
            }
        });
        let line = told.recv_timeout(wait::DEADLINE).unwrap_or_else(|_| {
            process::signal("KILL", -i64::from(child.id()));
            panic!("no ready line; the log says:\n{}", self.dir.log())
        });
        let (address, pid) = read_ready_line(&line);
        Server { dir: self.dir, child, ended: false, address, pid, ready_line: line }
    }

    /// Runs a start that must fail, to its end.
    pub(crate) fn run(&self) -> Ended {
        process::run(&mut self.command())
    }

    /// The same, and asserts what every failed start promises: the exit code, one line on standard
    /// error that has these words, nothing on standard output, nothing left behind.
    pub(crate) fn fails(&self, code: i32, words: &[&str]) -> String {
        let ended = self.run();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(ended.stdout, "", "{ended:?}");
        let line = ended.stderr.lines().find(|line| line.starts_with("dunlin: "));
        let line = line.unwrap_or_else(|| panic!("no line for people: {ended:?}")).to_owned();
        for word in words {
            assert!(line.contains(word), "{word:?} is not in {line:?}");
        }
        line
    }
}

/// The program in an environment without variables of ours.
pub(crate) fn dunlin() -> Command {
    clean(Command::new(DUNLIN))
}

/// Has cargo build an example, as this test is built, and gives its path.
fn build_example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let built = this.ancestors().nth(2).expect("PROFILE/deps/THIS");
    let mut cargo = Command::new(env!("CARGO"));
    // All of the workspace, as tests are built, so that nothing is built with other features.
    cargo.args(["build", "--quiet", "--workspace", "--example", name]);
    if built.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().expect("cargo is there").success(), "{name} is built");
    built.join("examples").join(name)
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DUNLIN_") {
            command.env_remove(name);
        }
    }
    command
}

/// The first address and the pid of `dunlin ready on ADDR… (pid P, run dir D)`.
pub(crate) fn read_ready_line(line: &str) -> (SocketAddr, i64) {
    let read = || {
        let rest = line.strip_prefix("dunlin ready on ")?;
        let (addresses, rest) = rest.split_once(" (pid ")?;
        let (pid, _) = rest.split_once(", run dir ")?;
        let address = addresses.split([' ', ',']).next()?.parse().ok()?;
        Some((address, pid.parse().ok()?))
    };
    read().unwrap_or_else(|| panic!("not a ready line: {line:?}"))
}

/// The object of the status pipe.
#[derive(Debug, Clone)]
pub(crate) struct Status(pub(crate) Json);

impl Status {
    /// A number by its JSON pointer.
    pub(crate) fn number(&self, pointer: &str) -> u64 {
        let value = self.0.pointer(pointer).and_then(Json::as_u64);
        value.unwrap_or_else(|| panic!("no number at {pointer}: {}", self.0))
    }

    pub(crate) fn text(&self, pointer: &str) -> &str {
        let value = self.0.pointer(pointer).and_then(Json::as_str);
        value.unwrap_or_else(|| panic!("no text at {pointer}: {}", self.0))
    }

    pub(crate) fn workers(&self) -> &[Json] {
        self.0["workers"].as_array().expect("a list of workers")
    }

    pub(crate) fn ready_workers(&self) -> usize {
        self.workers().iter().filter(|worker| worker["state"] == "running").count()
    }

    pub(crate) fn worker_pid(&self, slot: usize) -> i64 {
        self.workers()[slot]["pid"].as_i64().expect("a pid")
    }

    pub(crate) fn worker_pids(&self) -> Vec<i64> {
        (0..self.workers().len()).map(|slot| self.worker_pid(slot)).collect()
    }

    /// Every process but the master.
    pub(crate) fn child_pids(&self) -> Vec<i64> {
        let lists = ["workers", "tasks", "processes"].map(|name| self.0[name].as_array());
        let all = lists.into_iter().flatten().flatten();
        all.filter_map(|child| child["pid"].as_i64()).collect()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.workers().iter().filter_map(|worker| worker["connections"].as_u64()).sum()
    }

    /// Of all workers; counted at the end of the turn in which they were sent.
    pub(crate) fn messages_out(&self) -> u64 {
        self.workers().iter().filter_map(|worker| worker["messages_out"].as_u64()).sum()
    }

    fn messages_in(&self) -> Vec<u64> {
        self.workers().iter().map(|worker| worker["messages_in"].as_u64().unwrap_or(0)).collect()
    }
}

/// A short time, for what must not happen.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);
