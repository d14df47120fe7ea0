//! The promises of the protocol, kept to clients that we did not write.

use crate::support::Server;
use crate::support::outside::{NODE, PYTHON};

const CHAT: &str = "[server]\nworkers = 2";
const SHORT: &str = "[server]\nworkers = 2\n[im]\nlogin_timeout = \"500ms\"\nheartbeat = \"700ms\"\n\
                     [websocket]\nping_interval = \"0s\"";
const FULL: &str = "[server]\nworkers = 2\n[table]\nmax_sessions = 2";

#[test]
fn python_chats_over_two_workers() {
    PYTHON.plays("chat", &Server::start(CHAT));
}

#[test]
fn node_chats_over_two_workers() {
    NODE.plays("chat", &Server::start(CHAT));
}

#[test]
fn python_is_timed_out_for_not_logging_in() {
    PYTHON.plays("login-timeout", &Server::start(SHORT));
}

#[test]
fn node_is_timed_out_for_not_logging_in() {
    NODE.plays("login-timeout", &Server::start(SHORT));
}

#[test]
fn python_is_timed_out_for_silence() {
    PYTHON.plays("silence", &Server::start(SHORT));
}

#[test]
fn node_is_timed_out_for_silence() {
    NODE.plays("silence", &Server::start(SHORT));
}

#[test]
fn python_stays_alive_by_pings() {
    PYTHON.plays("pings", &Server::start(SHORT));
}

#[test]
fn node_stays_alive_by_pings() {
    NODE.plays("pings", &Server::start(SHORT));
}

#[test]
fn python_is_refused_by_a_full_table_and_accepted_again() {
    PYTHON.plays("full", &Server::start(FULL));
}

#[test]
fn node_is_refused_by_a_full_table_and_accepted_again() {
    NODE.plays("full", &Server::start(FULL));
}
