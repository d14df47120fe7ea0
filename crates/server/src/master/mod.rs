//! The master: one thread that makes what all processes share, starts them, and supervises them.
//!
//! Knows seats, pids, descriptors and the outside's commands; is never in the way of a message and
//! never blocks. It decides by [`state`]; here and beside is what carries it out. The status pipe, the
//! control socket and signals are its ears.

mod balance;
mod children;
mod control;
mod event_loop;
mod hand_over;
mod listeners;
mod moving;
mod reap;
mod rehearsing;
mod reload;
mod seats;
mod signals;
mod spawn;
mod state;
mod status_pipe;
mod stop;
mod strikes;
mod stuck;
mod stuck_report;
mod supervisor;
mod sweep;
mod telling;
mod traces;
mod upgrade;

pub(crate) use supervisor::NOTIFY_SOCKET;
pub(crate) use traces::remove_sockets as remove_trace_sockets;

pub(crate) use hand_over::Succession;
pub(crate) use listeners::{ListenError, bind_all};
pub(crate) use signals::all as all_signals;

use self::balance::Balancer;
use self::children::Children;
use self::control::ControlSocket;
use self::seats::Seat;
use self::state::{Input, Patience, State};
use self::status_pipe::StatusPipe;
use self::stuck::Stuck;
use self::sweep::Sweep;
use self::upgrade::Upgrades;
use crate::app::App;
use crate::clock::{self, Millis};
use crate::config::Config;
use crate::context::{MasterContext, MasterDeed};
use crate::layout::Facts;
use crate::ledger::{DescriptorKind, Holder};
use crate::process::AddedProcess;
use crate::run_dir::OccupiedRunDir;
use crate::settings::Settings;
use crate::shared::{Shared, Sizes};
use crate::status::{ReloadCounts, ReloadReport, ServerState};
use crate::sys::signals as sys_signals;
use crate::upgrade::Start;
use crate::wiring::Wiring;
use mio::Poll;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Where the config comes from at a reload.
pub(crate) type ConfigSource = Box<dyn FnMut() -> Result<Settings, String>>;

/// What the master is made of.
pub(crate) struct Parts<A: App> {
    pub(crate) app: A,
    pub(crate) config: Config,
    pub(crate) source: ConfigSource,
    pub(crate) processes: Vec<AddedProcess>,
    pub(crate) shared: Shared,
    pub(crate) wiring: Wiring,
    pub(crate) run_dir: OccupiedRunDir,
    /// How this program was started, and how it reads the shared memory, for the next one.
    pub(crate) start: Start,
    pub(crate) facts: Facts,
    pub(crate) sizes: Sizes,
    /// What the program before this one was in the middle of; `None` in the first.
    pub(crate) succession: Option<Box<Succession>>,
    /// Where a daemon's first process waits for the outcome of the start.
    pub(crate) announce: Box<dyn FnMut(Result<String, String>)>,
}

/// The master.
pub(crate) struct Master<A: App> {
    app: A,
    config: Rc<Config>,
    source: ConfigSource,
    processes: Vec<AddedProcess>,
    shared: Shared,
    wiring: Wiring,
    run_dir: OccupiedRunDir,
    announce: Box<dyn FnMut(Result<String, String>)>,
    poll: Poll,
    signals: RawFd,
    children: Children,
    state: State,
    status_pipe: StatusPipe,
    control: ControlSocket,
    sweep: Sweep,
    stuck: Stuck,
    /// When the receive pool is to be looked through once more after a death.
    recover_pool_at: Option<Millis>,
    /// Places of added processes whose pipes may hold something.
    saying: BTreeSet<usize>,
    asked: Vec<MasterDeed>,
    started_at_ms: u64,
    generation: u64,
    upgrades: Upgrades,
    reloads: ReloadCounts,
    last_reload: ReloadReport,
    pending_reload: Option<reload::Pending>,
    balancer: Balancer,
    balance_figures: moving::BalanceFigures,
    /// Who asked for the job of the balancer.
    job_waiting: Option<control::Waiting>,
    /// Who traces.
    leases: traces::Leases,
    /// Who asked for a reload while one was under way.
    next_waiting: Vec<control::Waiting>,
    stopping: Option<stop::Stopping>,
    exit: Option<Result<(), String>>,
    /// What the bulletin says.
    told: Option<telling::Told>,
    now: Millis,
}

impl<A: App> Master<A> {
    /// A master that has started nothing yet.
    ///
    /// # Errors
    /// The run directory does not take the FIFO or the socket, or descriptors are short.
    pub(crate) fn new(parts: Parts<A>) -> io::Result<Self> {
        let Parts { app, config, source, processes, shared, wiring, run_dir, announce, .. } = parts;
        // Those of the program before, which nobody here renews.
        shared.traces.end_all();
        let upgrades = Upgrades::new(parts.start, parts.facts, parts.sizes);
        let poll = Poll::new()?;
        let (signals, signals_in) = sys_signals::own_pipe()?;
        let (ledger, dir) = (shared.ledger, run_dir.dir());
        let (status_pipe, control) = match &parts.succession {
            None => {
                (StatusPipe::make(dir, &poll, ledger)?, ControlSocket::make(dir, &poll, ledger)?)
            }
            Some(handed) => (
                StatusPipe::take_over(handed.status_pipe.clone(), dir, &poll, ledger)?,
                ControlSocket::take_over(handed.control.clone(), &poll, ledger)?,
            ),
        };
        let mut own = vec![0, 1, 2, poll.as_raw_fd(), signals, signals_in];
        own.extend(wiring.all());
        for descriptor in own {
            shared.ledger.note(descriptor, DescriptorKind::Master, Holder::MASTER);
        }
        let seats = (0..config.workers)
            .map(Seat::Worker)
            .chain((0..config.task_workers).map(Seat::Task))
            .chain((0..u16::try_from(processes.len()).unwrap_or(u16::MAX)).map(Seat::Process));
        let state = State::new(seats, patience(&config));
        let mut master = Self {
            app,
            config: Rc::new(config),
            source,
            processes,
            sweep: Sweep::new(shared.ledger),
            stuck: Stuck::default(),
            recover_pool_at: None,
            saying: BTreeSet::new(),
            leases: traces::Leases::after(shared.traces.begun()),
            shared,
            wiring,
            run_dir,
            announce,
            poll,
            signals,
            children: Children::default(),
            state,
            status_pipe,
            control,
            asked: Vec::new(),
            started_at_ms: clock::unix_ms(),
            generation: 1,
            upgrades,
            reloads: ReloadCounts::default(),
            last_reload: ReloadReport::default(),
            pending_reload: None,
            balancer: Balancer::default(),
            balance_figures: moving::BalanceFigures::default(),
            job_waiting: None,
            next_waiting: Vec::new(),
            stopping: None,
            exit: None,
            told: None,
            now: clock::now(),
        };
        if let Some(handed) = parts.succession {
            master.take_over(*handed);
        }
        Ok(master)
    }

    /// Starts everything, supervises until the end, and cleans up.
    ///
    /// # Errors
    /// A sentence: why nothing could be started.
    pub(crate) fn run(mut self) -> Result<(), String> {
        self.hook(|app, master| app.start(master));
        self.note_inherited();
        self.publish_changes();
        self.state.start(self.now);
        self.act();
        self.hook(|app, master| app.manager_start(master));
        let ended = self.run_loop();
        self.upgrades.end_rehearsals();
        self.hook(|app, master| app.shutdown(master));
        if let Err(error) = self.run_dir.remove_all() {
            tracing::error!(%error, "something is left in the run directory");
        }
        ended
    }

    fn input(&mut self, input: Input) {
        self.state.input(self.now, input);
        self.act();
    }

    /// Calls a hook. A panic in it is logged; the master lives.
    fn hook<R>(&mut self, call: impl FnOnce(&mut A, &mut MasterContext<'_>) -> R) -> Option<R> {
        let mut context = MasterContext::new(
            &self.shared.sessions,
            &self.shared.areas,
            &self.wiring.addresses,
            self.run_dir.dir().path(),
            &mut self.asked,
        );
        let app = &mut self.app;
        let called = catch_unwind(AssertUnwindSafe(|| call(app, &mut context)));
        if called.is_err() {
            tracing::error!("a hook panicked in the master");
        }
        called.ok()
    }

    /// Whatever is open by now is the master's: log, pid file, what it was started with.
    fn note_inherited(&self) {
        for descriptor in crate::sys::descriptor::open_numbers().unwrap_or_default() {
            if self.shared.ledger.entry(descriptor).is_none() {
                self.shared.ledger.note(descriptor, DescriptorKind::Master, Holder::MASTER);
            }
        }
    }

    fn server_state(&self) -> ServerState {
        if self.state.is_stopping() {
            ServerState::Stopping
        } else if !self.state.was_ready() {
            ServerState::Starting
        } else if self.upgrades.is_under_way() {
            ServerState::Upgrading
        } else if self.state.is_reloading() {
            ServerState::Reloading
        } else {
            ServerState::Running
        }
    }
}

fn patience(config: &Config) -> Patience {
    Patience {
        handover_ms: config.handover_timeout_ms,
        stop_ms: config.stop_timeout_ms,
        task_ms: config.task_timeout_ms,
    }
}
