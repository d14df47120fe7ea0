//! What may be typed behind `dunlin bench`. The comments are the help text.

use crate::cli::ServerFlags;
use crate::duration::duration;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Load a running server, and verify what comes back.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin bench im                  # a server that runs here
  dunlin bench survive --do reload --times 3
  dunlin help bench rate           # what a mode takes")]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    Echo(Echo),
    Rate(Rate),
    Fanout(Fanout),
    Connect(Connect),
    Im(Im),
    Survive(Survive),
}

/// Which server is loaded, and how its figures are printed: of all modes but `survive`.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// Where the server is [default: the first address in its status]. Without its run directory the
    /// processor time of its workers is not known
    #[arg(long, value_name = "ws://ADDR/PATH")]
    pub(crate) url: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Messages that an echo server sends back, each connection's next behind its last.
///
/// Every byte is compared. Exit code 1 if a promise was broken: each is named on a line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin bench echo --url ws://127.0.0.1:9502 --connections 500
  dunlin bench echo --url ws://127.0.0.1:9502 --depth 16 --json | jq .parts")]
pub(crate) struct Echo {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Messages of a connection that are under way at once
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) depth: u32,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// Messages that an echo server sends back, so many a second.
///
/// The time of each begins when it was due, whether or not the ones before it were answered.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin bench rate --url ws://127.0.0.1:9502 --rate 50000
  dunlin bench rate --url ws://127.0.0.1:9502 --rate 1000 --size 4096 --duration 30s")]
pub(crate) struct Rate {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Messages a second of all connections together
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: u32,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// Messages that a broadcasting server (the example `ws_broadcast`) sends to every connection.
///
/// One connection sends, the next behind the last delivery of the one before. Each connection must get
/// each message once, in order.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin bench fanout --url ws://127.0.0.1:9502 --connections 1000")]
pub(crate) struct Fanout {
    /// Connections that get each message
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) connections: u32,
    #[command(flatten)]
    pub(crate) message: Message,
    /// Messages that are under way at once
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) depth: u32,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// Connects and upgrades, so many at once, again and again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin bench connect --url ws://127.0.0.1:9502 --connections 5000")]
pub(crate) struct Connect {
    /// Connections of a round; then all are closed
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) connections: u32,
    /// Handshakes under way at once
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) under_way: u32,
    /// How long rounds are begun
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) duration: Duration,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// What a mode with messages that come back sends.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Connections that send
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) connections: u32,
    #[command(flatten)]
    pub(crate) message: Message,
}

/// Messages of one size, for some time.
#[derive(Debug, Args)]
pub(crate) struct Message {
    /// Bytes of a message's body
    #[arg(long, value_name = "BYTES", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub(crate) size: u32,
    /// How long it takes; the first second, or fifth, is not measured
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) duration: Duration,
}

/// The IM server: logins, messages from user to user, the same at a fixed rate, and a room.
///
/// Every answer and every message is checked: ids, senders, bodies to the last byte, order, counts.
/// Exit code 1 if a promise was broken: each is named on a line. The server's rate limits must allow
/// what is sent: docs/performance.md names the keys.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin bench im
  dunlin bench im --connections 100 --only send --depth 16
  dunlin bench im --only rate --rate 5000 --secret-file /etc/dunlin/secret")]
pub(crate) struct Im {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Messages of a user that are under way at once, in the part send
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) depth: u32,
    /// Messages a second of all users together, in the part rate
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: u32,
    /// Members of the room, in the part room
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(2..=200_000))]
    pub(crate) members: u32,
    /// Measure these parts alone
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub(crate) only: Vec<ImPart>,
    /// Rounds of each part; with a server beside it, they take turns
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// The run directory of a `ws_echo` to compare messages with
    #[arg(long, value_name = "DIR")]
    pub(crate) echo: Option<PathBuf>,
    /// The run directory of a `ws_broadcast` to compare the room with
    #[arg(long, value_name = "DIR")]
    pub(crate) broadcast: Option<PathBuf>,
    /// The server's HS256 secret, where it asks for tokens: they are minted here
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Where,
}

/// What `bench im` measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ImPart {
    /// Logins on open connections
    Login,
    /// Messages from user to user, each behind the last
    Send,
    /// The same at --rate
    Rate,
    /// Messages to a room
    Room,
}

/// Prove that nothing is lost: verified clients talk to each other while the server is reloaded,
/// upgraded, balanced, or its processes are killed.
///
/// Every message has a number and known contents, every request must be answered, and each client
/// knows what it has to get. The server must run in the open login mode. Exit code 1 if a promise was
/// broken: each is named on a line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dunlin bench survive --do reload
  dunlin bench survive --connections 1000 --rate 5000 --do reload,kill-worker --times 20
  dunlin bench survive --do upgrade,balance,drain --every 500ms --max-stall 2s")]
pub(crate) struct Survive {
    /// Clients
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) connections: u32,
    /// Messages a second that all of them send together
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// How long they send; longer if --times is not reached by then
    #[arg(long, value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// What is done to the server meanwhile; several: one of them each time, chosen at random
    #[arg(long = "do", value_name = "DEED", value_delimiter = ',')]
    pub(crate) deeds: Vec<Deed>,
    /// From one deed to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) every: Duration,
    /// So many deeds [default: as fit into --seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) times: Option<u32>,
    /// Begin a deed though the one before is not done: a kill may fall into a reload.
    /// A verb may then fail because of another deed
    #[arg(long)]
    pub(crate) overlap: bool,
    /// Repeats the choices of a run: who writes to whom, how it is cut, which deed. Not the moments
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Clients that read slowly [default: one in twenty]
    #[arg(long, value_name = "N")]
    pub(crate) slow: Option<u32>,
    /// Connections a second that come, log in and go, beside the clients
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) storm: u32,
    /// A promise, too: no answer may take longer
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) max_stall: Option<Duration>,
    /// Where the server is [default: the first address in its status]
    #[arg(long, value_name = "ws://ADDR/ws")]
    pub(crate) url: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
}

/// Something done to a server that serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Deed {
    /// `dunlin reload`
    Reload,
    /// `dunlin upgrade`, to the binary that runs
    Upgrade,
    /// `dunlin balance`
    Balance,
    /// `dunlin drain` of one worker: its connections move to the others
    Drain,
    /// SIGKILL to one worker
    KillWorker,
    /// SIGKILL to the timer process
    KillTimer,
    /// SIGKILL to one task process
    KillTask,
}

impl Deed {
    /// Whether it ends a process.
    pub(crate) fn is_kill(self) -> bool {
        matches!(self, Self::KillWorker | Self::KillTimer | Self::KillTask)
    }

    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
            Self::Balance => "balance",
            Self::Drain => "drain",
            Self::KillWorker => "kill-worker",
            Self::KillTimer => "kill-timer",
            Self::KillTask => "kill-task",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_are_named_as_they_are_typed() {
        for deed in Deed::value_variants() {
            let typed = deed.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), deed.name());
        }
    }
}
