//! A process whose closure is an event loop: it watches its pipe, keeps time, and stops when told to.
//!
//! `cargo run --release --example process_event_loop`
//!
//! `ProcessContext::wait` is the whole loop: it gives what happens first of bytes in the pipe, the end
//! of the pipe, a stop, and the time. The timer process of a server is such a loop.

use dunlin_server::{PipeKind, Process, ProcessContext, ProcessEvent};
use std::error::Error;
use std::time::{Duration, Instant};

/// The child does something by itself this often.
const BEAT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs in the child: a word that comes is kept, and every beat it is told what has come by then.
fn keep(process: &mut ProcessContext) {
    let mut words = Vec::new();
    let mut next = now() + BEAT;
    loop {
        let left = next.saturating_duration_since(now());
        match process.wait(Some(left)) {
            ProcessEvent::Bytes(word) => words.push(String::from_utf8_lossy(&word).into_owned()),
            ProcessEvent::Timeout => {
                // From when it was due, not from now: late beats do not drift.
                next += BEAT;
                let told = format!("{} so far: {}", words.len(), words.join(" "));
                if process.write(told.as_bytes()).is_err() {
                    return;
                }
            }
            // The other side is gone, or the process is asked to go (SIGTERM).
            ProcessEvent::PipeEnded | ProcessEvent::Stop => return,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an example's loop is a shell: it reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut child = Process::start(PipeKind::Packets, keep)?;
    for word in ["a", "cup", "of", "tea"] {
        child.write(word.as_bytes())?;
        let told = child.read(PATIENCE)?.ok_or("the child does not beat")?;
        println!("{}", String::from_utf8_lossy(&told));
    }
    // Its loop sees the end of the pipe and returns: an exit code of 0.
    child.end_input()?;
    println!("the child has ended with {:?}", child.wait()?);
    Ok(())
}
