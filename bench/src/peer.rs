//! The servers: how each is started, found ready and ended.

use crate::process;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of this program: `limit` and the Rust peers lie beside it.
    pub binaries: PathBuf,
    /// The `ws_echo` example of dunlin.
    pub ws_echo: PathBuf,
    /// The folder with `server.js` and its `node_modules`.
    pub ws: PathBuf,
    /// A Python that has `websockets`.
    pub python: PathBuf,
    /// `server.py`.
    pub websockets: PathBuf,
}

/// A server that can be started.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Dunlin(PathBuf),
    Limit,
    Tungstenite { read_buffer: Option<usize> },
    Fastwebsockets,
    Ws,
    Websockets,
}

/// A started server; killed with all its processes when dropped.
#[derive(Debug)]
pub struct Running {
    pub name: String,
    pub address: SocketAddr,
    child: Child,
    run_dir: PathBuf,
}

impl Peer {
    /// All there are: dunlin, the limit, then the others.
    pub fn all(places: &Places) -> Vec<Self> {
        let peer = |name: &str, kind| Self { name: name.to_owned(), kind };
        vec![
            peer("dunlin", Kind::Dunlin(places.ws_echo.clone())),
            peer("limit", Kind::Limit),
            peer("tungstenite-4k", Kind::Tungstenite { read_buffer: Some(4 << 10) }),
            peer("tungstenite", Kind::Tungstenite { read_buffer: None }),
            peer("fastwebsockets", Kind::Fastwebsockets),
            peer("ws", Kind::Ws),
            peer("websockets", Kind::Websockets),
        ]
    }

    /// Another build of `ws_echo`, from `NAME=PATH`.
    pub fn also(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("--also wants NAME=PATH")?;
        Ok(Self { name: name.to_owned(), kind: Kind::Dunlin(path.into()) })
    }

    /// Whether it is a server to compare with, not dunlin and not the limit.
    pub fn is_rival(name: &str) -> bool {
        ["tungstenite-4k", "tungstenite", "fastwebsockets", "ws", "websockets"].contains(&name)
    }

    /// Whether it can run on several processors.
    pub fn scales(&self) -> bool {
        !matches!(self.kind, Kind::Fastwebsockets | Kind::Websockets)
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// What its program is not there for, or that it is not ready within ten seconds.
    pub fn start(&self, places: &Places, workers: usize) -> io::Result<Running> {
        // Free a moment ago; another program may take it, then the start fails and says so.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let run_dir = std::env::temp_dir().join(format!(
            "dunlin-bench-{}-{}",
            std::process::id(),
            address.port()
        ));
        let mut command = self.command(places, address, workers, &run_dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut running = Running { name: self.name.clone(), address, child, run_dir };
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = running.child.try_wait()? {
                return Err(io::Error::other(format!("it ended at once: {status}")));
            }
            if Instant::now() > end {
                return Err(io::Error::other("not ready within ten seconds"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    fn command(
        &self,
        places: &Places,
        address: SocketAddr,
        workers: usize,
        run_dir: &std::path::Path,
    ) -> Command {
        let beside = |name: &str| Command::new(places.binaries.join(name));
        let (workers, port) = (workers.to_string(), address.port().to_string());
        let listen = address.to_string();
        match &self.kind {
            Kind::Dunlin(path) => {
                let mut command = Command::new(path);
                command
                    .args(["--listen", &listen, "--workers", &workers, "--run-dir"])
                    .arg(run_dir);
                command
            }
            Kind::Limit => {
                let mut command = beside("limit");
                command.args(["--listen", &listen, "--threads", &workers]);
                command
            }
            Kind::Tungstenite { read_buffer } => {
                let mut command = beside("tokio_tungstenite");
                command.args(["--listen", &listen, "--threads", &workers]);
                if let Some(bytes) = read_buffer {
                    command.args(["--read-buffer", &bytes.to_string()]);
                }
                command
            }
            Kind::Fastwebsockets => {
                let mut command = beside("fastwebsockets");
                command.args(["--listen", &listen]);
                command
            }
            Kind::Ws => {
                let mut command = Command::new("node");
                command.arg(places.ws.join("server.js")).args([&port, &workers]);
                command
            }
            Kind::Websockets => {
                let mut command = Command::new(&places.python);
                command.arg(&places.websockets).arg(&port);
                command
            }
        }
    }
}

impl Running {
    pub fn root(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let family = process::tree(self.root());
        // Ours, and their ids are taken as long as `child` is not waited for.
        for pid in family.iter().filter_map(|pid| i32::try_from(*pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.run_dir);
    }
}

/// Puts this process, and what it starts from now on, on one processor, or on all of `count`.
///
/// # Errors
/// The kernel refuses: no such processor.
pub fn pin(cpu: Option<usize>, count: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    match cpu {
        Some(cpu) => set.set(cpu)?,
        None => (0..count).try_for_each(|cpu| set.set(cpu))?,
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
