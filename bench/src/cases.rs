//! The cases, and what of them a quick run does.

use crate::echo::Load;
use std::time::Duration;

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub title: &'static str,
    pub what: What,
    /// Part of `--quick`.
    pub quick: bool,
}

/// What is done in a case.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// `workers` 1: server and client each have a processor; else nobody is pinned.
    Echo {
        connections: usize,
        depth: usize,
        payload_bytes: usize,
        workers: usize,
    },
    Connect {
        count: usize,
        in_flight: usize,
    },
    Idle {
        connections: usize,
    },
}

const fn echo(connections: usize, depth: usize, payload_bytes: usize, workers: usize) -> What {
    What::Echo { connections, depth, payload_bytes, workers }
}

pub const CASES: [Case; 13] = [
    case("20b-100", "20 B, 100 connections, depth 1", echo(100, 1, 20, 1), true),
    case("20b-500", "20 B, 500 connections, depth 1", echo(500, 1, 20, 1), false),
    case("1k-100", "1 KiB, 100 connections, depth 1", echo(100, 1, 1 << 10, 1), false),
    case("1k-500", "1 KiB, 500 connections, depth 1", echo(500, 1, 1 << 10, 1), false),
    case("16k-100", "16 KiB, 100 connections, depth 1", echo(100, 1, 16 << 10, 1), true),
    case("16k-500", "16 KiB, 500 connections, depth 1", echo(500, 1, 16 << 10, 1), false),
    case("20b-16", "20 B, 100 connections, depth 16", echo(100, 16, 20, 1), true),
    case("1m-10", "1 MiB, 10 connections, depth 1", echo(10, 1, 1 << 20, 1), true),
    case("2w-20b", "two workers: 20 B, 100 connections, depth 1", echo(100, 1, 20, 2), true),
    case(
        "2w-16k",
        "two workers: 16 KiB, 100 connections, depth 1",
        echo(100, 1, 16 << 10, 2),
        false,
    ),
    case("connect", "5,000 connects, 256 at a time", connect(256), true),
    case("burst", "5,000 connects at once", connect(5_000), true),
    case("idle", "memory of idle connections", What::Idle { connections: 10_000 }, true),
];

const fn case(name: &'static str, title: &'static str, what: What, quick: bool) -> Case {
    Case { name, title, what, quick }
}

const fn connect(in_flight: usize) -> What {
    What::Connect { count: 5_000, in_flight }
}

/// How much time a run takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub rounds: usize,
    pub warm_up: Duration,
    pub measured: Duration,
}

impl Pace {
    /// About two minutes, or about ten, with all peers.
    pub fn new(quick: bool, rounds: Option<usize>) -> Self {
        let (usual, warm_up_ms, measured_ms) = if quick { (2, 100, 300) } else { (5, 200, 600) };
        Self {
            rounds: rounds.unwrap_or(usual),
            warm_up: Duration::from_millis(warm_up_ms),
            measured: Duration::from_millis(measured_ms),
        }
    }

    pub fn load(
        &self,
        connections: usize,
        depth: usize,
        payload_bytes: usize,
        binary: bool,
    ) -> Load {
        let Self { warm_up, measured, .. } = *self;
        Load { connections, depth, payload_bytes, binary, warm_up, measured }
    }
}
