//! The single entry: an application and a config in, an exit code out.
//!
//! Knows the order in which a server comes into being: check → act as its user → daemonize → run
//! directory → listeners → privileges dropped → shared memory → master. What fails, fails before anything is forked, and leaves nothing behind.

use crate::app::App;
use crate::clock::Millis;
use crate::config::Config;
use crate::exit::ExitCode;
use crate::layout::Layout;
use crate::master::{self, ConfigSource, Master, Parts};
use crate::privileges::{PreparationError, Privileges, PrivilegesError};
use crate::process::{self, AddedProcess};
use crate::run_dir::RunDir;
use crate::settings::{Settings, one_line};
use crate::shared::{Shared, Sizes};
use crate::sys::{daemon, descriptor, exec, limits, packet, signals, unix_socket};
use crate::timer;
use crate::upgrade::{self, Purpose, Start};
use crate::wiring::Wiring;
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// Bytes a mailbox holds, where the kernel lets us (`net.core.wmem_max`).
const MAILBOX_BYTES: usize = 4 << 20;
/// Descriptors the master and each process need beside connections.
const SPARE_DESCRIPTORS: u64 = 64;
const DESCRIPTORS_PER_PROCESS: u64 = 12;
/// Descriptors for what connections on their way bring with them, where the limit allows as many.
const HANDOVER_DESCRIPTORS: u64 = 1_024;

/// A server that is about to run.
pub struct Server<A: App> {
    pub(crate) app: A,
    pub(crate) config: Config,
    source: Option<ConfigSource>,
    pub(crate) processes: Vec<AddedProcess>,
    /// It only shows that it could run: its memory is its own, and nobody else's to see.
    pub(crate) rehearses: bool,
}

/// The server could not start. Each is one line an operator can act on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(
        "table.max_sessions {wanted} does not fit the limit of {limit} open descriptors, which also \
         has to hold {others} others: {fits} is the most that fits"
    )]
    DescriptorLimit { wanted: u32, limit: u64, others: u64, fits: u64 },
    #[error(
        "the limit of {limit} open descriptors leaves none for connections, {others} are needed beside \
         them: raise RLIMIT_NOFILE, or lower http.max_connections or the number of processes"
    )]
    NoDescriptors { limit: u64, others: u64 },
    #[error("{0}")]
    Privileges(#[from] PrivilegesError),
    #[error("{0}")]
    RunDir(#[from] crate::run_dir::RunDirError),
    #[error("{0}")]
    Listen(#[from] master::ListenError),
    #[error("{0}")]
    Shared(#[from] crate::shared::SharedError),
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("{0}")]
    Children(String),
}

/// What is listened on.
struct Bound {
    addresses: Vec<SocketAddr>,
    admin_addresses: Vec<SocketAddr>,
    /// By slot.
    listeners: Vec<Vec<RawFd>>,
}

/// Preparing is no deed of its own to who reads the line.
impl From<PreparationError> for StartError {
    fn from(error: PreparationError) -> Self {
        match error {
            PreparationError::Privileges(error) => error.into(),
            PreparationError::RunDir(error) => error.into(),
        }
    }
}

impl<A: App> Server<A> {
    /// A server for an application.
    pub fn new(app: A, config: Config) -> Self {
        Self {
            app,
            config,
            source: None,
            processes: vec![timer::added_process()],
            rehearses: false,
        }
    }

    /// Where a reload reads the settings anew; without it a reload keeps those of the start.
    #[must_use]
    pub fn config_source(mut self, source: Box<dyn FnMut() -> Result<Settings, String>>) -> Self {
        self.source = Some(source);
        self
    }

    /// Runs a process of the application's beside the workers.
    #[must_use]
    pub fn add_process(mut self, process: AddedProcess) -> Self {
        self.processes.push(process);
        self
    }

    /// Runs the server until it stops. Prints one ready line on standard output; errors go to standard
    /// error, one line each. With `server.daemonize` it returns in the first process when the server is
    /// ready or has failed.
    ///
    /// Must be called while the program has one thread: it forks.
    /// A program that is started by `dunlin upgrade` in the place of a running one (the environment tells)
    /// takes that one over here, or rehearses to do so.
    pub fn run(self) -> ExitCode {
        log_panics();
        let inherited = upgrade::inherited();
        exec::forget_variable(upgrade::VARIABLE);
        let hand_off = match inherited {
            Ok(None) => return self.start(),
            Ok(Some(hand_off)) => hand_off,
            Err(sentence) => {
                print_outcome(Err(sentence));
                return ExitCode::Failed;
            }
        };
        let succession = match &hand_off.purpose {
            Purpose::Rehearsal { report, run_dir } => {
                return self.rehearse(hand_off, *report, run_dir);
            }
            Purpose::Succession(succession) => succession,
        };
        match self.succeed(hand_off, succession) {
            Ok(()) => ExitCode::Ok,
            Err(error) => {
                tracing::error!(%error, "the server is not taken over, and dies");
                print_outcome(Err(error.to_string()));
                ExitCode::Failed
            }
        }
    }

    fn start(self) -> ExitCode {
        let privileges = match Privileges::enter(&self.config) {
            Ok(privileges) => privileges,
            Err(error) => {
                let code = error.exit_code();
                print_outcome(Err(error.to_string()));
                return code;
            }
        };
        let daemonize = self.config.daemonize;
        // Where the log is standard error too, the one line for people is enough.
        let logs_elsewhere = self.config.log.file.is_some();
        let mut announce: Box<dyn FnMut(Result<String, String>)> = Box::new(print_outcome);
        if daemonize {
            match daemon::detach() {
                Ok(daemon::Side::First(outcome)) => {
                    let ok = outcome.is_ok();
                    print_outcome(outcome);
                    return if ok { ExitCode::Ok } else { ExitCode::Failed };
                }
                Ok(daemon::Side::Daemon(mut report)) => {
                    announce = Box::new(move |outcome| report.send(&outcome));
                }
                Err(error) => {
                    print_outcome(Err(format!("the server cannot be detached: {error}")));
                    return ExitCode::Failed;
                }
            }
        }
        let announce = std::rc::Rc::new(std::cell::RefCell::new(announce));
        let told = announce.clone();
        let ended = self.live(&privileges, Box::new(move |outcome| (told.borrow_mut())(outcome)));
        match ended {
            Ok(()) => ExitCode::Ok,
            Err(StartError::Children(_)) => ExitCode::Failed,
            Err(error) => {
                if logs_elsewhere {
                    tracing::error!(%error, "the server did not start");
                }
                (announce.borrow_mut())(Err(error.to_string()));
                ExitCode::Failed
            }
        }
    }

    pub(crate) fn live(
        self,
        privileges: &Privileges,
        announce: Box<dyn FnMut(Result<String, String>)>,
    ) -> Result<(), StartError> {
        let system = |what| move |source| StartError::System { what, source };
        let start = Start::of_this_process();
        descriptor::hold_standard_numbers()
            .map_err(system("standard input, output and error cannot be held open"))?;
        // First of all: a signal that comes while the server starts is acted on when it has.
        signals::register(&master::all_signals())
            .map_err(system("the signal handlers cannot be set"))?;
        let descriptors = self.check_descriptors()?;
        let run_dir = RunDir::locate(Some(self.config.run_dir.as_path()));
        privileges.prepare(&run_dir)?;
        let run_dir = run_dir.occupy()?;
        let made = self.layout(descriptors).and_then(|layout| {
            let bound = privileges.with_root(|| self.bind(run_dir.orphans_until()))??;
            privileges.give_up()?;
            let (shared, wiring) = self.make_shared(&layout, bound)?;
            Ok((layout, shared, wiring))
        });
        let (layout, shared, wiring) = match made {
            Ok(made) => made,
            Err(error) => {
                // Nothing is left behind of a start that failed.
                let _ = run_dir.remove_all();
                return Err(error);
            }
        };
        let highest = i32::try_from(descriptors).unwrap_or(i32::MAX).saturating_sub(1);
        descriptor::reserve_table(highest)
            .map_err(system("the descriptor table cannot be reserved"))?;
        let facts = layout.facts(&self.process_names());
        let (source, this) = self.take_source();
        let parts = Parts {
            app: this.app,
            config: this.config,
            source,
            processes: this.processes,
            shared,
            wiring,
            run_dir,
            start,
            facts,
            sizes: layout.sizes,
            succession: None,
            announce,
        };
        let master = Master::new(parts)
            .map_err(system("the status pipe or the control socket cannot be made"))?;
        master.run().map_err(StartError::Children)
    }

    /// How many descriptors there may be; that `max_sessions` fits is checked.
    fn check_descriptors(&self) -> Result<usize, StartError> {
        let (was, limit) = limits::raise_descriptor_limit().map_err(|source| {
            StartError::System { what: "the limit of open descriptors cannot be asked for", source }
        })?;
        if was < limit {
            tracing::info!(was, limit, "the limit of open descriptors is raised");
        }
        let config = &self.config;
        let slots = u64::from(config.workers);
        let processes = slots * 2
            + u64::from(config.task_workers)
            + u64::try_from(self.processes.len()).unwrap_or(0);
        let listeners =
            slots * u64::try_from(config.listen.len() + config.admin_listen.len()).unwrap_or(1);
        let others = SPARE_DESCRIPTORS
            + processes * DESCRIPTORS_PER_PROCESS
            + listeners
            + u64::from(config.http_max_connections);
        let fits = limit.saturating_sub(others);
        if fits == 0 {
            return Err(StartError::NoDescriptors { limit, others });
        }
        let wanted = config.max_sessions;
        if u64::from(wanted) > fits {
            return Err(StartError::DescriptorLimit { wanted, limit, others, fits });
        }
        let needed = (u64::from(wanted) + others + HANDOVER_DESCRIPTORS).min(limit);
        // No number beyond those that the ledger knows is ever given out.
        limits::hold_descriptor_limit(needed).map_err(|source| StartError::System {
            what: "the limit of open descriptors cannot be set",
            source,
        })?;
        usize::try_from(needed).map_err(|_| StartError::NoDescriptors { limit, others })
    }

    /// Where a reload reads the settings, and the rest.
    pub(crate) fn take_source(mut self) -> (ConfigSource, Self) {
        let keep = self.config.settings.clone();
        let source = self.source.take().unwrap_or_else(|| Box::new(move || Ok(keep.clone())));
        (source, self)
    }

    /// The names of the added processes.
    pub(crate) fn process_names(&self) -> Vec<String> {
        self.processes.iter().map(|process| process.name.clone()).collect()
    }

    /// The plan of the shared memory, for so many descriptors.
    pub(crate) fn layout(&self, descriptors: usize) -> Result<Layout, StartError> {
        let config = &self.config;
        let sizes = Sizes {
            sessions: config.max_sessions,
            receive_pool_bytes: config.receive_pool_bytes,
            workers: usize::from(config.workers),
            tasks: usize::from(config.task_workers),
            processes: self.processes.len(),
            timers: usize::try_from(config.max_timers).unwrap_or(usize::MAX),
            descriptors,
        };
        let (columns, areas) = (self.app.columns(), self.app.areas());
        let layout = Layout::new(sizes, columns, &areas, self.app.layout_version())?;
        Ok(layout.telling_apart(A::close_codes()))
    }

    /// The listeners of every slot, and where they are.
    fn bind(&self, orphans_until: Option<Millis>) -> Result<Bound, StartError> {
        let config = &self.config;
        let bind = |at| master::bind_all(at, config.workers, config.backlog, orphans_until);
        let (addresses, mut listeners) = bind(&config.listen)?;
        let (admin_addresses, for_admins) = bind(&config.admin_listen)?;
        for (slot, more) in listeners.iter_mut().zip(for_admins) {
            slot.extend(more);
        }
        Ok(Bound { addresses, admin_addresses, listeners })
    }

    fn make_shared(&self, layout: &Layout, bound: Bound) -> Result<(Shared, Wiring), StartError> {
        let Bound { addresses, admin_addresses, listeners } = bound;
        let shared = match self.rehearses {
            true => Shared::create_unreserved(layout)?,
            false => Shared::create(layout)?,
        };
        let wiring = self.wire(listeners).map_err(|source| StartError::System {
            what: "the mailboxes and pipes cannot be made",
            source,
        })?;
        Ok((shared, Wiring { addresses, admin_addresses, ..wiring }))
    }

    fn wire(&self, listeners: Vec<Vec<i32>>) -> io::Result<Wiring> {
        let mut wiring = Wiring { listeners, master_pid: std::process::id(), ..Wiring::default() };
        for _ in 0..self.config.workers {
            let (write, read) = packet::pair(MAILBOX_BYTES)?;
            wiring.post.push(write);
            wiring.mailboxes.push(read);
        }
        if self.config.task_workers > 0 {
            let (write, read) = packet::pair(MAILBOX_BYTES)?;
            wiring.tasks_in = Some(write);
            wiring.tasks_out = Some(read);
        }
        for process in &self.processes {
            let (outer, inner) = process::pair(process.pipe)?;
            wiring.process_names.push(process.name.clone());
            wiring.process_outer.push(outer);
            wiring.process_inner.push(inner);
        }
        wiring.tracer = Some(unix_socket::datagrams()?);
        Ok(wiring)
    }
}

impl<A: App> fmt::Debug for Server<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.config)
            .field("processes", &self.processes)
            .finish_non_exhaustive()
    }
}

/// A panic is a line of the log, in whichever process.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let what = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        // In a hook it may be a client's doing.
        crate::limited!(error, place, what, "panicked");
    }));
}

/// The outcome of a start, where people look for it.
fn print_outcome(outcome: Result<String, String>) {
    // A terminal that is gone is no reason not to run.
    let _ = match outcome {
        Ok(line) => writeln!(io::stdout(), "{line}"),
        Err(sentence) => writeln!(io::stderr(), "dunlin: {}", one_line(&sentence)),
    };
    let _ = io::stdout().flush();
}
