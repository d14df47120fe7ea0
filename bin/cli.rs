//! What may be typed: one struct per verb. The comments are the help text, and behind it stand examples
//! (`examples` checks that each can be typed).

use crate::bench::flags::Bench;
use crate::chat::flags::Chat;
use crate::duration::duration;
use crate::trace::flags::Trace;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;

/// An instant-messaging server over WebSocket: a master, its workers, a timer process and task
/// processes. Connections outlive the worker that serves them.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, after_help = FIRST_STEPS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const FIRST_STEPS: &str = "Examples:
  dunlin serve                     # on 127.0.0.1:9502, a worker for each core
  dunlin status                    # how it is doing
  dunlin top                       # the same, live
  dunlin reload                    # the config has changed
  dunlin upgrade                   # the program has changed
  dunlin stop
  dunlin help serve                # what a verb takes; also: dunlin serve --help

Exit codes: 0 done, 1 failed, 2 wrong flags or config, 3 no server is running.";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Serve(Serve),
    Check(Check),
    Status(Status),
    Top(Top),
    Reload(Reload),
    Stop(Stop),
    Upgrade(Upgrade),
    Balance(Balance),
    Drain(Drain),
    Trace(Trace),
    Chat(Chat),
    Bench(Bench),
    Token(Token),
    Completions(Completions),
    Man(Man),
}

/// Run the server.
///
/// Each flag has a key in the config file and a variable in the environment
/// (DUNLIN_SERVER__WORKERS=4). A flag goes before the environment, the environment before the file,
/// the file before the default.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin serve
  dunlin serve -w 4 -l 127.0.0.1:9502 --set log.level=debug
  dunlin serve -c /etc/dunlin/dunlin.toml --daemonize")]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) settings: SettingsFlags,
    /// Leave the terminal; returns when the server is ready or has failed [server.daemonize]
    #[arg(short, long)]
    pub(crate) daemonize: bool,
}

/// Print the settings a server would start with, and where each comes from.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin check
  dunlin check -c /etc/dunlin/dunlin.toml -w 8
  dunlin check --json | jq -r '.result.settings[\"server.listen\"].value[]'")]
pub(crate) struct Check {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsFlags,
}

/// Flags that set settings. They take any text: whether it fits is said in one voice with the file
/// and the environment.
#[derive(Debug, Default, Args)]
pub(crate) struct SettingsFlags {
    /// Read this config file [default: ./dunlin.toml, else /etc/dunlin/dunlin.toml, if there is one]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Worker processes; 0 is one per core [server.workers]
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) workers: Option<String>,
    /// Listen here; may be given again [server.listen]
    #[arg(short, long, value_name = "ADDR", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    /// Task processes [server.task_workers]
    #[arg(short, long, value_name = "M", allow_hyphen_values = true)]
    pub(crate) task_workers: Option<String>,
    /// Where pid file, status pipe and control socket are [server.run_dir]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Rows of the session table [table.max_sessions]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) max_sessions: Option<String>,
    /// Set any key; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Show how the server is doing.
///
/// Rates are those of half a second, for which it looks twice; with --watch, those since the last look.
/// Works while a worker is stuck. `cat RUN_DIR/status.pipe` prints the same as --json.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin status
  dunlin status --watch --every 5s
  dunlin status --json | jq .sessions.used")]
pub(crate) struct Status {
    /// Print the JSON of the status pipe as it is
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again and again, until Ctrl-C: in place on a terminal, else one behind the other
    #[arg(long)]
    pub(crate) watch: bool,
    /// With --watch: how often
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "watch",
          value_parser = duration)]
    pub(crate) every: Duration,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Watch the server live, on the whole terminal.
///
/// Rates of each worker as bars, what happened as lines, and keys that reload, replace or drain a worker
/// after they have asked. Goes on while no server runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin top
  dunlin top --every 250ms --run-dir /run/dunlin")]
pub(crate) struct Top {
    /// How often it looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) every: Duration,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Re-read the config and replace every process; connections stay open.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin reload
  dunlin reload --tasks
  dunlin reload --worker 2
  dunlin reload --json | jq .result.applied")]
pub(crate) struct Reload {
    /// Replace the task processes only; the config is not read
    #[arg(long)]
    pub(crate) tasks: bool,
    /// Replace the worker in this slot only; the config is not read
    #[arg(long, value_name = "WORKER", conflicts_with = "tasks")]
    pub(crate) worker: Option<u16>,
    /// Print the outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Stop the server gracefully.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin stop
  dunlin stop --timeout 10 --json")]
pub(crate) struct Stop {
    /// Wait so many seconds for the server to be gone; the server bounds itself by server.stop_timeout
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub(crate) timeout: u32,
    /// Print the outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Start the binary again, in place; connections stay open.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin upgrade
  dunlin upgrade /usr/local/bin/dunlin
  dunlin upgrade --json | jq .result.stall_ms")]
pub(crate) struct Upgrade {
    /// Start this file instead of the one that runs
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print the outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Even the connections out over the workers.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin balance
  dunlin balance --json | jq .result.connections")]
pub(crate) struct Balance {
    /// Print the outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Move the connections of one worker to the others.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin drain 2
  dunlin drain 2 --json | jq .result.left")]
pub(crate) struct Drain {
    /// The worker's slot, as `dunlin status` names it
    #[arg(value_name = "WORKER")]
    pub(crate) worker: u16,
    /// Print the outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Mint a login token, by the first key of the config that can sign.
///
/// An HS256 key signs by itself, another where auth.keys names its private key (sign=FILE). No server
/// needs to run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin token --user ann
  dunlin token --user ann --ttl 600 --rooms team,lunch
  dunlin token -c /etc/dunlin/dunlin.toml --user ann --device phone")]
pub(crate) struct Token {
    /// Read this config file [default: as `dunlin serve` finds it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set any key; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Who the token is for
    #[arg(long, value_name = "U")]
    pub(crate) user: String,
    /// How many seconds it holds
    #[arg(long, value_name = "S", default_value_t = 3_600)]
    pub(crate) ttl: u64,
    /// The only device it is for; any if it is not given
    #[arg(long, value_name = "D")]
    pub(crate) device: Option<String>,
    /// Sign by the key of this name
    #[arg(long, value_name = "K")]
    pub(crate) kid: Option<String>,
    /// Rooms the user belongs to
    #[arg(long, value_name = "R,…", value_delimiter = ',')]
    pub(crate) rooms: Vec<String>,
}

/// Print what makes a shell complete verbs and flags.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(dunlin completions bash)
  dunlin completions bash > /usr/share/bash-completion/completions/dunlin
  dunlin completions zsh > /usr/local/share/zsh/site-functions/_dunlin
  dunlin completions fish > /etc/fish/completions/dunlin.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Print the manual page, of the program or of a verb.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin man > /usr/share/man/man1/dunlin.1
  dunlin man reload > /usr/share/man/man1/dunlin-reload.1
  dunlin man bench survive | man -l -")]
pub(crate) struct Man {
    /// A verb, and a mode of it
    #[arg(value_name = "VERB")]
    pub(crate) verb: Vec<String>,
}

/// Which server is meant.
#[derive(Debug, Args)]
pub(crate) struct ServerFlags {
    /// The server's run directory [default: as `dunlin serve` finds it]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_serve_are_those_of_the_contract() {
        let words = "dunlin serve -c a.toml -w 2 -l 127.0.0.1:1 -l [::1]:2 -t 3 --run-dir /r \
                     --max-sessions 9 --set a.b=c --set d.e=f -d";
        let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
        let Verb::Serve(serve) = cli.verb else { panic!("another verb") };
        assert_eq!(serve.settings.listen, ["127.0.0.1:1", "[::1]:2"]);
        assert_eq!(serve.settings.set, ["a.b=c", "d.e=f"]);
        assert_eq!(serve.settings.task_workers.as_deref(), Some("3"));
        assert!(serve.daemonize);
    }
}
