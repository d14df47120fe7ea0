//! The promises of the protocol, kept to clients that we did not write.

use crate::support::Server;
use crate::support::outside::{NODE, OURS, PYTHON, PYTHON_HTTP};
use crate::support::process;
use crate::support::server::Starter;
use std::process::Command;

const CHAT: &str = "[server]\nworkers = 2";
const SHORT: &str = "[server]\nworkers = 2\n[im]\nlogin_timeout = \"500ms\"\nheartbeat = \"700ms\"\n\
                     [websocket]\nping_interval = \"0s\"";
const COMPRESSED: &str =
    "[server]\nworkers = 2\n[websocket]\ncompression = true\ncompression_threshold = 0";
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
fn python_chats_compressed() {
    PYTHON.plays("chat", &Server::start(COMPRESSED));
    PYTHON.plays("deflate", &Server::start(COMPRESSED));
}

#[test]
fn node_chats_compressed() {
    NODE.plays("chat", &Server::start(COMPRESSED));
    NODE.plays("deflate", &Server::start(COMPRESSED));
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

/// A server whose clients mint their tokens themselves.
fn with_a_key() -> Server {
    let line = "kid=h alg=HS256 file=token.key";
    let auth = format!("keys = [\"{line}\"]\nleeway = \"0s\"\nexpiry_grace = \"200ms\"");
    with_a_key_file(Server::configure(&format!("[auth]\nmode = \"token\"\n{auth}\n"))).start()
}

/// The same server with the file `token.key` beside its config.
pub(crate) fn with_a_key_file(starter: Starter) -> Starter {
    starter.dir().write_key("token.key", "5c0e7a31d9b84f62a7e31b0c95d4f802\n", 0o600);
    starter
}

#[test]
fn python_comes_in_by_a_token_and_goes_when_it_ends() {
    PYTHON.plays("token", &with_a_key());
}

#[test]
fn our_client_calls_and_hears() {
    OURS.plays("calls", &Server::start(CHAT));
}

#[test]
fn our_client_outlives_its_tokens() {
    OURS.plays("token", &with_a_key());
}

#[test]
fn our_client_does_not_notice_a_reload() {
    OURS.plays("reload", &Server::start(CHAT));
}

#[test]
fn our_client_sends_once_while_workers_are_killed() {
    OURS.plays("kill", &Server::start(CHAT));
}

#[test]
fn our_client_comes_back_when_the_server_is_started_again() {
    // When some attempts have found nobody.
    OURS.plays_over_a_restart("restart", Server::start(CHAT), "online", "tried");
}

#[test]
fn our_client_waits_for_nothing_forever() {
    OURS.plays("silence", &Server::start(CHAT));
    let short = "[server]\nworkers = 2\nstuck_after = \"60s\"\n[im]\nheartbeat = \"1200ms\"";
    OURS.plays("frozen", &Server::start(short));
}

#[test]
fn node_comes_in_by_tokens_of_three_algorithms() {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/im/tests/keys");
    let line =
        |alg: &str| format!("\"kid={alg} alg={alg} file={keys}/{}.pub.pem\"", alg.to_lowercase());
    let lines = ["RS256", "ES256", "EdDSA"].map(line).join(", ");
    let auth = format!("keys = [{lines}]\nissuer = \"node\"\naudience = \"dunlin\"");
    NODE.plays("token", &Server::start(&format!("[auth]\nmode = \"token\"\n{auth}\n")));
}

#[test]
fn python_sends_all_kinds_of_requests_on_one_connection() {
    PYTHON_HTTP.plays("kept", &Server::start(CHAT));
}

#[test]
fn python_reads_why_it_is_refused() {
    PYTHON_HTTP.plays("refused", &Server::start(CHAT));
}

/// What curl prints for these arguments, the address of the server in place of `@`.
fn curl(server: &Server, arguments: &[&str]) -> String {
    let address = format!("http://{}", server.address);
    let arguments = arguments.iter().map(|argument| argument.replace('@', &address));
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "15", "--noproxy", "*"])
        .args(arguments);
    let ended = process::run(&mut command);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

#[test]
fn curl_keeps_its_connection_and_is_told_to_go_on() {
    let server = Server::start("[server]\nworkers = 2\n[http]\nmax_body = \"4MiB\"");
    let seen = "%{http_code} %{num_connects}\n";
    let many = ["-o", "/dev/null", "-w", seen, "@/healthz", "-o", "/dev/null", "@/nope"];
    assert_eq!(curl(&server, &many), "200 1\n404 0\n", "one connection for both");
    assert!(curl(&server, &["--head", "@/healthz"]).starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(curl(&server, &["--http1.0", "@/healthz"]), "ok\n");
    // A connection that asks for HTTP/2 goes on with HTTP/1.1.
    assert_eq!(curl(&server, &["--http2", "@/healthz"]), "ok\n");
    let dir = tempfile::tempdir().expect("a directory");
    let body = dir.path().join("body");
    std::fs::write(&body, vec![b'x'; 2 << 20]).expect("a file");
    let body = body.display().to_string();
    let told = curl(&server, &["-T", &body, "-H", "Expect: 100-continue", "-D-", "@/nope"]);
    assert!(told.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n"), "{told}");
}
