//! What becomes of logins while thousands of clients vanish at once.
//!
//! `cargo run --release --example mass_disconnect -- 127.0.0.1:9502 9000` against a running `dunlin serve`:
//! a process of its own opens so many sessions, logs them in and is killed; meanwhile this one logs in every
//! few milliseconds and says how long that took, before the kill and after it.
#![allow(clippy::disallowed_methods, reason = "it reads the clock to measure")]

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long logins are measured before the kill, and after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);
/// From the begin of one login to that of the next, if it takes no longer.
const EVERY: Duration = Duration::from_millis(3);
/// The argument of the process that is killed.
const CROWD: &str = "--crowd";
/// No login may take longer while the others vanish.
const AIM: Duration = Duration::from_millis(100);
const USAGE: &str = "mass_disconnect ADDRESS [CLIENTS]";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let crowd = env::args().any(|word| word == CROWD);
    let outcome = match (words.next().map(|word| word.parse()), words.next().map(|n| n.parse())) {
        (Some(Ok(server)), Some(Ok(clients))) if crowd => be_a_crowd(server, clients),
        (Some(Ok(server)), Some(Ok(clients))) => measure(server, clients),
        (Some(Ok(server)), None) => measure(server, 9_000),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(server: SocketAddr, clients: usize) -> Outcome<ExitCode> {
    let mut crowd = Command::new(env::current_exe()?)
        .args([&server.to_string(), &clients.to_string(), CROWD])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(crowd.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    if line.trim() != "open" {
        crowd.kill()?;
        return Err(format!("the crowd could not be opened: {line}").into());
    }
    let before = logins(server, BEFORE)?;
    crowd.kill()?;
    let after = logins(server, AFTER)?;
    crowd.wait()?;
    println!("{clients} sessions; logins meanwhile, ms:");
    report("before the kill", &before);
    let longest = report("after it", &after);
    Ok(if longest <= AIM { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Opens sessions and waits to be killed.
fn be_a_crowd(server: SocketAddr, clients: usize) -> Outcome<ExitCode> {
    let sessions: Result<Vec<TcpStream>, _> =
        (0..clients).map(|number| log_in(server, &format!("crowd{number}"))).collect();
    match sessions {
        Ok(_open) => {
            println!("open");
            thread::sleep(Duration::from_secs(3_600));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("{error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Logs in again and again; gives how long each login took from its connect to its answer.
fn logins(server: SocketAddr, time: Duration) -> Outcome<Vec<Duration>> {
    let began = Instant::now();
    let mut took = Vec::new();
    while began.elapsed() < time {
        let one = Instant::now();
        drop(log_in(server, "probe")?);
        took.push(one.elapsed());
        thread::sleep(EVERY.saturating_sub(one.elapsed()));
    }
    Ok(took)
}

fn report(when: &str, took: &[Duration]) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = |permille: usize| sorted[(sorted.len() - 1) * permille / 1_000];
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "  {when:16} {:5} logins   p50 {:6.2}   p99 {:6.2}   longest {:6.2}",
        sorted.len(),
        ms(at(500)),
        ms(at(990)),
        ms(at(1_000))
    );
    at(1_000)
}

/// Connect, upgrade, login, and its answer.
fn log_in(server: SocketAddr, user: &str) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(
        b"GET /ws HTTP/1.1\r\nHost: dunlin\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut heard = Vec::new();
    read_until(&mut stream, &mut heard, b"\"hello\"")?;
    let login = format!(
        "{{\"id\":1,\"method\":\"login\",\"params\":{{\"user\":\"{user}\",\"device\":{{\"id\":\"d\"}}}}}}"
    );
    let length = u8::try_from(login.len()).ok().filter(|length| *length < 126);
    let length = length.ok_or("a name that is too long")?;
    // A mask of zeros leaves the payload as it is.
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(login.as_bytes());
    stream.write_all(&frame)?;
    read_until(&mut stream, &mut heard, b"\"id\":1")?;
    Ok(stream)
}

fn read_until(stream: &mut TcpStream, heard: &mut Vec<u8>, what: &[u8]) -> Outcome<()> {
    let mut piece = [0; 4096];
    while !heard.windows(what.len()).any(|window| window == what) {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Err(format!("refused: {}", String::from_utf8_lossy(heard)).into());
        }
        heard.extend_from_slice(&piece[..length]);
    }
    Ok(())
}
