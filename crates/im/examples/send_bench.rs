//! What a `send` from user to user costs the processor, without sockets: the whole hook (JSON, session
//! table, user index, message, answer), and a fake worker's copies of what goes out.
//!
//! ```sh
//! cargo run --release -p dunlin-im --example send_bench
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*measured*' \
//!     target/release/examples/send_bench 20000
//! ```
//!
//! Counts processor time of its one process. What callgrind counts, instructions and calls of `malloc`,
//! repeats whatever else the machine does.

use dunlin_im::{IM_KEYS, ImApp};
use dunlin_server::clock::cpu_ms;
use dunlin_server::config::SERVER_KEYS;
use dunlin_server::settings::{Layers, Settings};
use dunlin_server::simulation::FakeWorker;
use dunlin_server::{App, ConnId, Message};
use serde_json::json;

const SENDS: usize = 1_000_000;
const USERS: usize = 1_000;

fn main() {
    let sends = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(SENDS);
    let mut layers = Layers::default();
    layers.flag_words("table.max_sessions", &USERS.to_string(), "--set");
    let settings =
        Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).expect("they are well formed");
    let mut app = ImApp::new(&settings).expect("the settings go together");
    let capacity = u32::try_from(USERS).expect("it is small");
    let mut worker = FakeWorker::start(&mut app, capacity);
    let peer = "127.0.0.1:1".parse().expect("an address");
    let conns: Vec<ConnId> = (0..USERS).map(|_| worker.open(&mut app, peer, "/ws")).collect();
    for (user, conn) in conns.iter().enumerate() {
        let device = json!({"id": "phone-1", "model": "bench", "kind": "phone"});
        let params = json!({"user": format!("user-{user}"), "device": device});
        let login = json!({"jsonrpc": "2.0", "id": 1, "method": "login", "params": params});
        app.message(&mut worker.context(), *conn, Message::Text(&login.to_string()));
    }
    let status = worker.in_master(|master| app.status(master));
    assert_eq!(status["sessions"]["logged_in"], USERS, "everybody is logged in");

    let texts: Vec<String> = (0..USERS)
        .map(|user| {
            let to = format!("user-{}", (user + 1) % USERS);
            let params = json!({"to": {"user": to}, "body": "twenty bytes of text"});
            json!({"jsonrpc": "2.0", "id": user, "method": "send", "params": params}).to_string()
        })
        .collect();
    worker.take_deeds();
    let began = cpu_ms();
    let done = measured_sends(&mut app, &mut worker, &conns, &texts, sends);
    let took_ms = cpu_ms() - began;
    let as_float = |number: usize| f64::from(u32::try_from(number).expect("it is small"));
    let took_ms = f64::from(u32::try_from(took_ms.max(1)).expect("it takes no days"));
    println!(
        "{done} sends: {:.0} a second of one core, {:.3} µs each",
        as_float(done) / took_ms * 1_000.0,
        took_ms * 1_000.0 / as_float(done)
    );
}

/// Each user in turn sends to the next one; gives how many did.
#[inline(never)]
fn measured_sends(
    app: &mut ImApp,
    worker: &mut FakeWorker,
    conns: &[ConnId],
    texts: &[String],
    sends: usize,
) -> usize {
    let mut done = 0;
    while done < sends {
        for (conn, text) in conns.iter().zip(texts) {
            app.message(&mut worker.context(), *conn, Message::Text(text));
        }
        worker.pass(1_000);
        assert_eq!(worker.take_deeds().len(), 2 * USERS, "each is delivered and answered");
        done += USERS;
    }
    done
}
