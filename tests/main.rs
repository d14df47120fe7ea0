//! Tests of the built binary from the outside: real processes, real sockets, one server for each test.
//!
//! Knows the binary, its files and the protocol; of the crates only what documents are compared with.
//! A test starts its own server on port 0 with its own run directory, so all of them run in parallel.
#![allow(clippy::disallowed_methods, reason = "a test is a shell: it reads clocks")]
#![allow(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

mod api;
mod architecture;
mod authorise;
mod backend;
mod balance;
mod bench;
mod browser;
mod chat;
mod chat_screen;
mod command_line;
mod config;
mod config_file;
mod console;
mod control;
mod crash;
mod dashboard;
mod documents;
mod hostile;
mod http;
mod http_framing;
mod im;
mod library;
mod lifecycle;
mod limits;
mod metrics;
mod once;
mod order;
mod outside;
mod presence;
mod privileges;
mod protocol_table;
mod proxies;
mod redis;
mod reload;
mod rooms;
mod signals;
mod stop;
mod supervised;
mod support;
mod survive;
mod timeouts;
mod tokens;
mod top;
mod trace;
mod tutorials;
mod upgrade;
