//! [`ImApp`]: hooks to calls, and nothing decided here.
//!
//! Invariant: between two hooks a worker keeps nothing but its settings and handles on shared memory,
//! so any worker may go on with any connection.

use crate::api::{self, Access, ApiKeyError};
use crate::auth::{KeyError, Keyring, Mode};
use crate::backend::{self, Backend, End};
use crate::close::{self, CloseReason};
use crate::config::{ConfigError, ImConfig, listen_addresses};
use crate::extension::{self, Extension, ExtensionError, Plain};
use crate::http;
use crate::methods;
use crate::online::desk::TICK;
use crate::online::{self, Online};
use crate::page;
use crate::protocol::notification::{self, Hello, Reconnect};
use crate::session;
use crate::tables::{self, AuthCount, Sizes, Tables};
use crate::tasks::{Outcome, Work};
use dunlin_server::clock;
use dunlin_server::settings::Settings;
use dunlin_server::{
    App, AreaRequest, Closed, ClosedBy, ConnId, Context, Handshake, MasterContext, Message, Reply,
    Request, RequestId, Role, StopReason, TaskFailure, TaskId, TimerDue, TimerId, UpgradeRequest,
};
use dunlin_table::Column;
use serde_json::{Value as Json, json};
use std::fmt;
use std::net::SocketAddr;

/// Of the IM's own columns, areas and tasks; see [`App::layout_version`].
const LAYOUT_VERSION: u32 = 0;

/// How clients are asked to come back after a close they did not want.
pub(crate) const RECONNECT: Reconnect = Reconnect { base_ms: 500, max_ms: 30_000, jitter: 0.5 };

/// The instant-messaging application.
pub struct ImApp {
    pub(crate) config: ImConfig,
    /// As the config says, read at the start and at each reload.
    pub(crate) keyring: Keyring,
    pub(crate) online: Online,
    pub(crate) sizes: Sizes,
    /// Who may call the API.
    pub(crate) access: Access,
    /// Random words for the node's id and the index's seed, drawn once for all processes.
    pub(crate) random: [u64; 2],
    /// There from `start` on, which runs before any other process is there.
    pub(crate) tables: Option<Tables>,
    pub(crate) backend: Backend,
    backend_queue_bytes: u64,
    /// The addresses that are listened on, from `start` on.
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) extension: Box<dyn Extension>,
    /// Which process this is, of all there were.
    pub(crate) life: u64,
}

/// The application could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The settings are not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key that tokens would be checked with is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key of the HTTP API is not usable.
    #[error(transparent)]
    ApiKey(#[from] ApiKeyError),
    /// The kernel gave no random bytes.
    #[error("no random bytes from the kernel: {0}")]
    Random(getrandom::Error),
    /// The extension cannot be had.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
}

/// As the sentence the operator reads.
impl From<NewError> for String {
    fn from(error: NewError) -> Self {
        error.to_string()
    }
}

impl ImApp {
    /// The application as its settings mean it; they must have [`crate::IM_KEYS`] and the server's
    /// keys among their specs.
    ///
    /// # Errors
    /// See [`NewError`].
    pub fn new(settings: &Settings) -> Result<Self, NewError> {
        let config = ImConfig::from_settings(settings)?;
        config.check_open_mode(&listen_addresses(settings))?;
        let keyring = load_keys(&config)?;
        let mut backend = Backend::default();
        backend.set_key(Backend::load(&config.backend)?);
        let online = Online { password: online::load_password(&config)?, ..Online::default() };
        let random = || getrandom::u64().map_err(NewError::Random);
        Ok(Self {
            config,
            keyring,
            online,
            access: Access::from_settings(settings)?,
            sizes: Sizes::from_settings(settings),
            random: [random()?, random()?],
            tables: None,
            backend,
            backend_queue_bytes: backend::queue_bytes(settings),
            listen: Vec::new(),
            extension: Box::new(Plain),
            life: 0,
        })
    }

    /// The same with what a program adds to it; in place of an extension that was given before.
    ///
    /// # Errors
    /// [`NewError::Extension`]: one of its names is taken, or is none.
    pub fn with_extension(mut self, extension: impl Extension) -> Result<Self, NewError> {
        extension::check(&extension)?;
        self.extension = Box::new(extension);
        Ok(self)
    }

    /// What is in shared memory.
    pub(crate) fn tables(&self) -> &Tables {
        self.tables.as_ref().expect("`start` ran in the master before any other hook")
    }

    /// Says `bye` and closes, after what is queued. False if the connection is not open.
    pub(crate) fn say_bye(
        context: &mut Context<'_, Self>,
        conn: ConnId,
        reason: CloseReason,
    ) -> bool {
        Self::say_bye_because(context, conn, reason, reason.text())
    }

    /// The same in other words, which must fit a close frame.
    pub(crate) fn say_bye_because(
        context: &mut Context<'_, Self>,
        conn: ConnId,
        reason: CloseReason,
        words: &str,
    ) -> bool {
        Self::say_bye_with(context, conn, reason.code(), words)
    }

    /// The same with any code, the engine's own or an extension's.
    pub(crate) fn say_bye_with(
        context: &mut Context<'_, Self>,
        conn: ConnId,
        code: u16,
        words: &str,
    ) -> bool {
        let bye = notification::encode(&close::bye(code, words.to_owned().into(), 1));
        context.disconnect_saying(conn, Message::Text(&bye), code, words)
    }

    /// The same for a connection that this worker serves: its login ends with it, not when its client has
    /// answered the close, which one that is dead never does.
    fn dismiss(&self, context: &mut Context<'_, Self>, conn: ConnId, reason: CloseReason) -> bool {
        let closed = Self::say_bye(context, conn, reason);
        let (code, text) = (reason.code(), reason.text().to_owned());
        let end = Closed { code, reason: text, by: ClosedBy::Server };
        self.depart(context, conn, End::Closed(&end));
        closed
    }

    /// Gives a session the time to log in that every new one has.
    pub(crate) fn await_login(&self, context: &mut Context<'_, Self>, conn: ConnId) {
        context.set_heartbeat(conn, None);
        context.set_deadline_limit(conn, None);
        let deadline = context.now() + self.config.login_timeout_ms;
        context.set_deadline(conn, Some(deadline));
    }

    fn hello(&self, conn: ConnId) -> Hello {
        Hello {
            session: conn.to_string(),
            node: self.tables().node.to_string(),
            login_timeout_ms: self.config.login_timeout_ms,
            heartbeat_ms: self.config.heartbeat_ms,
            max_message: self.config.max_message_bytes,
            reconnect: RECONNECT,
        }
    }
}

impl fmt::Debug for ImApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, keyring, sizes, .. } = self;
        let mut shown = f.debug_struct("ImApp");
        shown.field("config", config).field("keyring", keyring).field("sizes", sizes);
        shown.finish_non_exhaustive()
    }
}

/// The keys of the token mode; in the open mode none is read.
fn load_keys(config: &ImConfig) -> Result<Keyring, KeyError> {
    match config.auth.mode {
        Mode::Open => Ok(Keyring::default()),
        Mode::Token => Keyring::load(&config.auth.keys),
    }
}

impl App for ImApp {
    type PipeMessage = ();
    type Task = Work;
    type TaskResult = Outcome;

    fn columns(&self) -> Vec<Column> {
        let mut columns = tables::columns();
        columns.extend(backend::columns());
        columns.extend(self.extension.columns());
        columns
    }

    fn areas(&self) -> Vec<AreaRequest> {
        let mut areas = tables::areas(&self.sizes);
        areas.extend(backend::areas(self.backend_queue_bytes));
        areas.extend(self.extension.areas());
        areas
    }

    fn layout_version(&self) -> u32 {
        LAYOUT_VERSION << 16 | u32::from(self.extension.layout_version())
    }

    fn status(&self, master: &MasterContext<'_>) -> Json {
        let logged_in = self.tables().count_logged_in(master.sessions);
        json!({
            "sessions": {"logged_in": logged_in},
            "auth": {
                "mode": self.config.auth.mode.word(),
                "keys": self.keyring.len(),
                "logins": self.tables().counted(AuthCount::LoggedIn),
                "refused": self.tables().counted(AuthCount::Refused),
                "expired": self.tables().counted(AuthCount::Expired),
            },
            "rooms": self.room_figures(master.sessions),
            "limits": self.limits_status(),
            "idempotency": self.tables().idempotency.status(clock::unix_ms()),
            "api": self.tables().api.status(),
            "presence": self.tables().presence.status(),
            "backend": self.backend_status(),
            "redis": self.online_status(),
            "extension": self.extension.status(master),
        })
    }

    fn subject(&self, name: &str) -> Option<u64> {
        self.subject_named(name)
    }

    fn traced(&self, master: &MasterContext<'_>, name: &str) -> Json {
        self.traced_sessions(master, name)
    }

    fn start(&mut self, master: &mut MasterContext<'_>) {
        let [node, seed] = self.random;
        self.tables = Some(Tables::new(master.sessions, master.areas, &self.sizes, node, seed));
        self.backend.start(master, &self.config.backend);
        master.listen.clone_into(&mut self.listen);
        self.extension.start(master);
        self.access.start(master.run_dir);
    }

    fn before_reload(
        &mut self,
        master: &mut MasterContext<'_>,
        settings: &Settings,
    ) -> Result<(), String> {
        let sentence = |error: ConfigError| error.to_string();
        let config = ImConfig::from_settings(settings).map_err(sentence)?;
        config.check_open_mode(master.listen).map_err(sentence)?;
        let keyring = load_keys(&config).map_err(|error| error.to_string())?;
        let backend_key = Backend::load(&config.backend).map_err(|error| error.to_string())?;
        let password = online::load_password(&config).map_err(|error| error.to_string())?;
        let access = self.access.reloaded(master, settings).map_err(|error| error.to_string())?;
        // Last of what may refuse: it changes itself.
        self.extension.reload(settings)?;
        (self.keyring, self.access) = (keyring, access);
        self.online.password = password;
        self.backend.set_key(backend_key);
        let url = |config: &ImConfig| config.backend.target.as_ref().map(|to| to.url.clone());
        if url(&config) != url(&self.config) {
            self.backend.shared().retarget(&config.backend);
        }
        self.config = config;
        Ok(())
    }

    fn worker_start(&mut self, context: &mut Context<'_, Self>) -> Result<(), String> {
        self.access.check()?;
        self.begin_watching(context);
        if matches!(context.role(), Role::Worker(_)) {
            self.drain_soon(context);
            self.online_start(context)?;
        }
        Ok(())
    }

    fn worker_stop(&mut self, context: &mut Context<'_, Self>, reason: StopReason) {
        self.online_stop(context, reason);
        self.end_watching(context);
        self.drain_last(context);
    }

    fn close_codes() -> &'static [u16] {
        close::CLOSE_CODES
    }

    fn goodbye(code: u16, reason: &str, returning: u64) -> Option<String> {
        Some(notification::encode(&close::bye(code, reason.to_owned().into(), returning)))
    }

    fn refusal_body(target: &str, status: u16, reason: &str) -> Option<(&'static str, Vec<u8>)> {
        let path = target.split('?').next().unwrap_or_default();
        api::is_ours(path)
            .then(|| ("application/json", api::refusal(status, reason).to_string().into_bytes()))
    }

    fn handshake(
        &mut self,
        context: &mut Context<'_, Self>,
        id: RequestId,
        request: &UpgradeRequest<'_>,
    ) -> Handshake {
        if api::is_ours(&request.http.path) {
            let answer = api::answer(self, context, id, request.http);
            return answer.map_or(Handshake::Later, Handshake::Refuse);
        }
        if http::takes_upgrade(&request.http.path, request.http.arrival.door) {
            Handshake::accept()
        } else {
            Handshake::Refuse(http::no_such_path(request.http.arrival.door))
        }
    }

    fn open(&mut self, context: &mut Context<'_, Self>, conn: ConnId, _: &UpgradeRequest<'_>) {
        let hello = notification::encode(&self.hello(conn));
        // A connection that is gone already needs no hello; `close` follows.
        let _ = context.push(conn, Message::Text(&hello));
        self.await_login(context, conn);
    }

    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>) {
        match message {
            Message::Text(text) => {
                let told = self.trace_sent(context, conn, text);
                let answer = match self.admit_message(context, conn, text.len()) {
                    Ok(()) => methods::answer(self, context, conn, text),
                    Err(refused) => methods::refuse(text, refused),
                };
                if !told {
                    // A login: whose it is was not known before.
                    self.trace_sent(context, conn, text);
                }
                if let Some(text) = &answer.text {
                    // Gone or too slow: the framework closes it, and nothing is left to tell it.
                    let _ = context.push(conn, Message::Text(text));
                }
                if answer.arrived {
                    self.arrive(context, conn);
                }
                if let Some(reason) = answer.close {
                    self.dismiss(context, conn, reason);
                }
            }
            Message::Binary(_) => _ = self.dismiss(context, conn, CloseReason::BinaryNotTaken),
        }
    }

    fn request(
        &mut self,
        context: &mut Context<'_, Self>,
        id: RequestId,
        request: &Request,
    ) -> Reply {
        if api::is_ours(&request.path) {
            return api::answer(self, context, id, request).map_or(Reply::Later, Reply::Now);
        }
        Reply::Now(http::respond(
            &request.method,
            &request.path,
            request.arrival.door,
            context.is_stopping(),
            page::front(&self.config),
            self.access.admits_admins(request.arrival.door),
        ))
    }

    fn task(
        &mut self,
        context: &mut Context<'_, Self>,
        _task: TaskId,
        work: Work,
    ) -> Option<Outcome> {
        self.work(context, work)
    }

    fn finish(
        &mut self,
        context: &mut Context<'_, Self>,
        task: TaskId,
        result: Result<Outcome, TaskFailure>,
    ) {
        self.worked(context, task, result);
    }

    fn deadline(&mut self, context: &mut Context<'_, Self>, conn: ConnId) {
        let (table, now) = (context.table(), context.now());
        if table.deadline(conn).is_some_and(|at| at > now) {
            return; // It moved meanwhile.
        }
        let expired = table.deadline_limit(conn).is_some_and(|at| at <= now);
        let reason = session::overdue(self.tables().is_logged_in(table, conn), expired);
        if self.dismiss(context, conn, reason) && reason == CloseReason::TokenExpired {
            self.tables().count(AuthCount::Expired);
        }
    }

    fn close(&mut self, context: &mut Context<'_, Self>, conn: ConnId, closed: &Closed) {
        tracing::debug!(session = %conn, code = closed.code, "session closed");
        self.depart(context, conn, End::Closed(closed));
    }

    fn timer(&mut self, context: &mut Context<'_, Self>, timer: TimerId, due: &TimerDue<'_>) {
        match due.payload {
            backend::WAKE => self.woken(context),
            TICK => self.online_tick(context, timer),
            payload if self.tell_news(context, payload) => {}
            payload if self.guard_is_due(context, timer, payload) => {}
            other => self.look_again(context, other),
        }
    }
}
