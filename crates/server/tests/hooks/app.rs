//! The server's side: an application that writes down every hook it is called for, and does what its
//! clients tell it.
//!
//! A record is one line, `PID ROLE HOOK ARGUMENTS`, appended by one `write`, so that lines of several
//! processes never mix. The file is opened for each line: a descriptor that a worker kept would be one
//! that nobody closes when it is killed.

use crate::commands::{Work, attempt, bound_memory, connection, die, mark, obey};
use crate::place::Place;
use dunlin_server::app::Closed;
use dunlin_server::clock::Millis;
use dunlin_server::config::{Config, SERVER_KEYS};
use dunlin_server::settings::{Layers, Settings};
use dunlin_server::{
    AddedProcess, Adoption, App, AreaRequest, ConnId, Context, Handshake, MasterContext, Message,
    PipeKind, ProcessContext, ProcessEvent, ReloadReport, Reply, Request, RequestId, Response,
    Role, Sender, Server, SlotId, StopReason, TaskFailure, TaskId, TimerDue, TimerId,
    UpgradeRequest, WorkerError,
};
use dunlin_table::{Column, ColumnKind};
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// The whole life of the server process.
pub(crate) fn serve(place: Place) -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let config = settings(&place)
        .and_then(|settings| Config::from_settings(settings).map_err(|error| error.to_string()));
    let config = match config {
        Ok(config) => config,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::from(2);
        }
    };
    let reread = place.clone();
    let quiet = place.is_marked("quiet");
    let mut server = Server::new(RecordingApp { place: place.clone(), quiet }, config)
        .config_source(Box::new(move || settings(&reread)));
    if place.is_marked("with_helper") {
        let stdio = place.is_marked("helper_with_stdio");
        let helper = AddedProcess::new("helper", move |process| help(&place, process));
        let pipe = if stdio { PipeKind::Stdio } else { PipeKind::Packets };
        server = server.add_process(helper.pipe(pipe));
    }
    server.run().into()
}

fn settings(place: &Place) -> Result<Settings, String> {
    let mut layers = Layers::default();
    for (key, value) in place.settings() {
        layers.flag_words(&key, &value, "--set");
    }
    Settings::resolve(&[SERVER_KEYS], layers).map_err(|error| error.to_string())
}

/// The added process: greets worker 0, and waits to be stopped.
fn help(place: &Place, process: &mut ProcessContext) {
    note(place, "helper", "process", "begins");
    let told = process.send_pipe_message(SlotId(0), &"hello from the helper".to_owned());
    note(place, "helper", "told", told);
    let event = process.wait(None);
    let stopped = event == ProcessEvent::Stop;
    note(place, "helper", "process", if stopped { "stops" } else { "ends" });
}

/// Appends a line to the record.
fn note(place: &Place, role: &str, hook: &str, arguments: impl Display) {
    let line = format!("{} {role} {hook} {arguments}\n", std::process::id());
    let opened = OpenOptions::new().create(true).append(true).open(place.record());
    opened.and_then(|mut file| file.write_all(line.as_bytes())).expect("the record can be written");
}

pub(crate) struct RecordingApp {
    place: Place,
    /// Nothing is recorded outside the master: no hook opens anything.
    quiet: bool,
}

impl RecordingApp {
    fn in_master(&self, hook: &str, arguments: impl Display) {
        note(&self.place, "master", hook, arguments);
    }

    fn at(&self, context: &Context<'_, Self>, hook: &str, arguments: impl Display) {
        if self.quiet {
            return;
        }
        let role = match context.role() {
            Role::Worker(slot) => format!("worker{slot}"),
            Role::Task(place) => format!("task{place}"),
        };
        note(&self.place, &role, hook, arguments);
    }
}

impl App for RecordingApp {
    type PipeMessage = String;
    type Task = Work;
    type TaskResult = String;

    fn columns(&self) -> Vec<Column> {
        self.in_master("columns", "");
        let mut columns = vec![Column { name: "counted".into(), kind: ColumnKind::Counter }];
        if self.place.is_marked("one_more_column") {
            columns.push(Column { name: "more".into(), kind: ColumnKind::Counter });
        }
        columns
    }

    fn layout_version(&self) -> u32 {
        u32::from(self.place.is_marked("another_meaning"))
    }

    fn areas(&self) -> Vec<AreaRequest> {
        self.in_master("areas", "");
        vec![AreaRequest { name: "messages", words: 8 }, AreaRequest { name: "marks", words: 2 }]
    }

    fn status(&self, master: &MasterContext<'_>) -> serde_json::Value {
        let messages = master
            .areas
            .words("messages")
            .map_or(0, |area| area.iter().map(|word| word.load(Ordering::Relaxed)).sum::<u64>());
        serde_json::json!({ "recording": { "messages": messages } })
    }

    fn start(&mut self, master: &mut MasterContext<'_>) {
        self.in_master("start", master.listen[0]);
    }

    fn manager_start(&mut self, _master: &mut MasterContext<'_>) {
        self.in_master("manager_start", "");
    }

    fn worker_error(&mut self, _master: &mut MasterContext<'_>, error: &WorkerError) {
        self.in_master(
            "worker_error",
            format_args!(
                "{} {} {} {:?} {:?}",
                error.role, error.slot, error.pid, error.exit_code, error.signal
            ),
        );
    }

    fn before_reload(
        &mut self,
        _master: &mut MasterContext<'_>,
        settings: &Settings,
    ) -> Result<(), String> {
        self.in_master("before_reload", settings.count("server.max_request"));
        match self.place.is_marked("refuse_reload") {
            true => Err("the application refuses".into()),
            false => Ok(()),
        }
    }

    fn after_reload(&mut self, _master: &mut MasterContext<'_>, report: &ReloadReport) {
        self.in_master("after_reload", format_args!("{} {:?}", report.seq, report.ok));
    }

    fn shutdown(&mut self, _master: &mut MasterContext<'_>) {
        self.in_master("shutdown", "");
    }

    fn worker_start(&mut self, context: &mut Context<'_, Self>) -> Result<(), String> {
        self.at(context, "worker_start", "");
        if self.place.is_marked("little_memory") {
            bound_memory();
        }
        if context.role() == Role::Worker(SlotId(0)) {
            if self.place.is_marked("slow_worker_start_in_slot_0") {
                thread::sleep(Duration::from_millis(2_000));
            }
            if self.place.is_marked("fail_worker_start_in_slot_0") {
                return Err("as the test wants it".into());
            }
        }
        let in_slot_1 = context.role() == Role::Worker(SlotId(1));
        let fails = self.place.is_marked("fail_worker_start")
            || in_slot_1 && self.place.is_marked("fail_worker_start_in_slot_1");
        if fails { Err("as the test wants it".into()) } else { Ok(()) }
    }

    fn worker_stop(&mut self, context: &mut Context<'_, Self>, reason: StopReason) {
        self.at(context, "worker_stop", format_args!("{reason:?}"));
        if reason == StopReason::Shutdown {
            for conn in context.connections() {
                // A connection that is going has heard it all.
                let _ = context.push(conn, Message::Text("last words"));
            }
        }
    }

    fn connect(&mut self, context: &mut Context<'_, Self>, peer: SocketAddr) {
        self.at(context, "connect", peer);
    }

    fn handshake(
        &mut self,
        context: &mut Context<'_, Self>,
        id: RequestId,
        request: &UpgradeRequest<'_>,
    ) -> Handshake {
        self.at(context, "handshake", format_args!("{} {}", id.0, request.http.path));
        match request.http.path.as_str() {
            "/refuse" => Handshake::Refuse(Response::text(403, "no").header("X-Why", "closed")),
            "/later" => Handshake::Later,
            "/panic" => panic!("in handshake"),
            "/protocol" => Handshake::Accept {
                subprotocol: request.subprotocols.last().cloned(),
                headers: Vec::new(),
            },
            _ => Handshake::accept(),
        }
    }

    fn open(
        &mut self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        request: &UpgradeRequest<'_>,
    ) {
        let http = request.http;
        let query = http.query.as_deref().unwrap_or("-");
        let header = http.headers.first("x-tea").unwrap_or("-");
        let line = format!(
            "{conn} {} {query} {header} {:?} {} {:?}",
            http.path,
            http.cookies(),
            request.peer,
            request.subprotocols
        );
        self.at(context, "open", line);
        assert!(http.path != "/panic_in_open", "in open");
    }

    fn adopt(&mut self, context: &mut Context<'_, Self>, conn: ConnId, why: Adoption) {
        self.at(context, "adopt", format_args!("{conn} {why:?}"));
        if self.place.is_marked(&format!("poison_{conn}")) {
            std::process::abort();
        }
    }

    fn moved_away(&mut self, context: &mut Context<'_, Self>, conn: ConnId) {
        self.at(context, "moved_away", conn);
    }

    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>) {
        if let (Some(area), Role::Worker(slot)) = (context.area("messages"), context.role()) {
            area[slot.index()].fetch_add(1, Ordering::Relaxed);
        }
        match message {
            Message::Text(text) => {
                let shown: String = text.chars().take(60).collect();
                self.at(context, "message", format_args!("{conn} {shown}"));
                let answer = obey(context, conn, text);
                if !answer.is_empty() {
                    // Whoever is gone or too slow gets no answer.
                    let _ = context.push(conn, Message::Text(&answer));
                }
            }
            // 16 bytes: to whom; the rest goes there as it is.
            Message::Binary(bytes) => {
                let (to, payload) = bytes.split_at(16.min(bytes.len()));
                let to = connection(&String::from_utf8_lossy(to));
                let _ = context.push(to, Message::Binary(payload));
            }
        }
    }

    fn request(
        &mut self,
        context: &mut Context<'_, Self>,
        id: RequestId,
        request: &Request,
    ) -> Reply {
        self.at(context, "request", format_args!("{} {} {}", id.0, request.method, request.path));
        match request.path.as_str() {
            "/now" => Reply::Now(Response::text(200, "at once").header("X-App", "yes")),
            "/later" => Reply::Later,
            "/panic" => panic!("in request"),
            _ => Reply::Now(Response::text(404, "nothing here")),
        }
    }

    fn deadline(&mut self, context: &mut Context<'_, Self>, conn: ConnId) {
        self.at(context, "deadline", format_args!("{conn} {}", context.now().0));
    }

    fn buffer_full(&mut self, context: &mut Context<'_, Self>, conn: ConnId) {
        self.at(context, "buffer_full", conn);
    }

    fn buffer_empty(&mut self, context: &mut Context<'_, Self>, conn: ConnId) {
        self.at(context, "buffer_empty", conn);
    }

    fn close(&mut self, context: &mut Context<'_, Self>, conn: ConnId, closed: &Closed) {
        let line = format!("{conn} {} {:?} {:?}", closed.code, closed.reason, closed.by);
        self.at(context, "close", line);
        if self.place.is_marked(&format!("poison_close_{conn}")) {
            std::process::abort();
        }
    }

    fn pipe_message(&mut self, context: &mut Context<'_, Self>, from: Sender, message: String) {
        self.at(context, "pipe_message", format_args!("{from:?} {message}"));
        if message == "die" {
            die();
        }
    }

    fn task(
        &mut self,
        context: &mut Context<'_, Self>,
        task: TaskId,
        work: Work,
    ) -> Option<String> {
        self.at(context, "task", format_args!("{} {work:?}", task.0));
        match work {
            Work::Say(what) => return Some(what),
            Work::Sleep(ms) => thread::sleep(Duration::from_millis(ms)),
            Work::Panic => panic!("in task"),
            Work::Nothing => return None,
            Work::Die => die(),
            Work::Mark => mark(context),
            Work::Try(what) => return Some(attempt(&what)),
            Work::Push(to, what) => {
                let pushed = context.push(ConnId::from_bits(to), Message::Text(&what));
                return Some(format!("{pushed:?}"));
            }
            Work::Farewell(to, code, words) => {
                let (to, words) = (ConnId::from_bits(to), Message::Text(&words));
                return Some(context.disconnect_saying(to, words, code, "enough").to_string());
            }
            Work::Tell(slot, what) => {
                return Some(format!("{}", context.send_pipe_message(SlotId(slot), &what).is_ok()));
            }
        }
        Some("slept".into())
    }

    fn finish(
        &mut self,
        context: &mut Context<'_, Self>,
        task: TaskId,
        result: Result<String, TaskFailure>,
    ) {
        self.at(context, "finish", format_args!("{} {result:?}", task.0));
    }

    fn timer(&mut self, context: &mut Context<'_, Self>, timer: TimerId, due: &TimerDue<'_>) {
        let Millis(now) = context.now();
        let payload = String::from_utf8_lossy(due.payload).into_owned();
        let line = format!("{} {payload} {} {} {now}", timer.0, due.ticks, due.due.0);
        self.at(context, "timer", line);
    }
}
