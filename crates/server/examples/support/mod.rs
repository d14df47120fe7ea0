//! The flags that every server example takes: those of `dunlin serve` that need no config file.

use clap::Parser;
use dunlin_server::config::{Config, SERVER_KEYS};
use dunlin_server::settings::{KeySpec, Layers, Settings};
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// See the module.
#[derive(Parser, Clone, Debug)]
pub(crate) struct Flags {
    /// Address to listen on; may be given several times.
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:9502")]
    pub(crate) listen: Vec<String>,
    /// Worker processes; 0: one per core.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub(crate) workers: u16,
    /// Task processes.
    #[arg(short = 't', long, value_name = "M")]
    pub(crate) task_workers: Option<u16>,
    /// Run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// The most connections at once.
    #[arg(long, value_name = "N")]
    pub(crate) max_sessions: Option<u32>,
    /// Any other key of the config, such as websocket.max_message=16MiB.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Detach; returns when the server is ready or has failed.
    #[arg(short, long)]
    pub(crate) daemonize: bool,
}

/// The config these flags make, with keys of the application's beside the server's; ends the program
/// with code 2 and one line where they make none.
pub(crate) fn config(flags: &Flags, keys: &'static [KeySpec]) -> Config {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .init();
    match try_config(flags, keys) {
        Ok(config) => config,
        Err(sentence) => {
            eprintln!("{sentence}");
            #[expect(clippy::exit, clippy::disallowed_methods, reason = "nothing was begun")]
            std::process::exit(2)
        }
    }
}

fn try_config(flags: &Flags, keys: &'static [KeySpec]) -> Result<Config, String> {
    let mut layers = Layers::default();
    layers.take_environment();
    layers.flag_words("server.listen", &flags.listen.join(","), "--listen");
    layers.flag_words("server.workers", &flags.workers.to_string(), "--workers");
    if let Some(tasks) = flags.task_workers {
        layers.flag_words("server.task_workers", &tasks.to_string(), "--task-workers");
    }
    if let Some(dir) = &flags.run_dir {
        layers.flag_words("server.run_dir", &dir.to_string_lossy(), "--run-dir");
    }
    if let Some(sessions) = flags.max_sessions {
        layers.flag_words("table.max_sessions", &sessions.to_string(), "--max-sessions");
    }
    if flags.daemonize {
        layers.flag_words("server.daemonize", "true", "--daemonize");
    }
    for pair in &flags.set {
        let (key, value) = pair.split_once('=').ok_or("--set wants KEY=VALUE")?;
        layers.flag_words(key, value, "--set");
    }
    let settings = Settings::resolve(&[SERVER_KEYS, keys], layers);
    let settings = settings.map_err(|error| error.to_string())?;
    Config::from_settings(settings).map_err(|error| error.to_string())
}
