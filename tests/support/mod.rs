//! What makes a test of the real binary five lines long.
//!
//! Invariants: 1. Every wait has a deadline ([`wait::DEADLINE`]) and says what it waited for. 2. Nobody
//! sleeps but in a wait's loop. 3. What a test started is gone when the test is. 4. Nothing forks but
//! through `Command`: this program has threads.

pub(crate) mod api;
pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod dir;
pub(crate) mod exposition;
pub(crate) mod full_screen;
pub(crate) mod http;
pub(crate) mod liar;
pub(crate) mod outside;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod server;
pub(crate) mod talker;
pub(crate) mod wait;

pub(crate) use client::Client;
pub(crate) use server::{Server, Status};
