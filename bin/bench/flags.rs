//! What may be typed behind `dunlin bench`. The comments are the help text.

use crate::cli::ServerFlags;
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

/// Load a running server, and verify what comes back.
#[derive(Debug, Args)]
#[command(after_help = "Example: dunlin bench survive --do reload --times 3")]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    Survive(Survive),
}

/// Prove that nothing is lost: verified clients talk to each other while the server is reloaded,
/// upgraded, balanced, or its processes are killed.
///
/// Every message has a number and known contents, every request must be answered, and each client
/// knows what it has to get. The server must run in the open login mode. Exit code 1 if a promise was
/// broken: each is named on a line.
#[derive(Debug, Args)]
#[command(after_help = "Example: dunlin bench survive --connections 1000 --rate 5000 \
                        --do reload,kill-worker --every 1s --times 20")]
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

/// A time as in the config: `250ms`, `10s`, `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no time such as 250ms"))?;
    let ms = match &text[digits.len()..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => return Err("a time has a unit: ms, s or m".to_owned()),
    };
    match ms {
        Some(ms @ 1..=TIME_MAX_MS) => Ok(Duration::from_millis(ms)),
        _ => Err("a time is from 1ms to 1440m".to_owned()),
    }
}

/// A day.
const TIME_MAX_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_bound() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "0s", "10", "1h", "-1s", "1441m", "99999999999999999999s", "é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(duration("18446744073709551615s").is_err());
    }

    #[test]
    fn deeds_are_named_as_they_are_typed() {
        for deed in Deed::value_variants() {
            let typed = deed.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), deed.name());
        }
    }
}
