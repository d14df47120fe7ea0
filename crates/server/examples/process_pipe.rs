//! A process of your own beside this one, and the pipe between the two.
//!
//! `cargo run --release --example process_pipe`
//!
//! Two ways: a closure that reads and writes packets, and a program of somebody else's that knows only
//! its standard input and output. Processes of a server are made alike: `Server::add_process`.

use dunlin_server::{PipeKind, Process, ProcessContext, ProcessEvent};
use std::error::Error;
use std::process::Command;
use std::time::Duration;

/// How long an answer may take here; nothing ever waits without an end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs in the child: answers each packet with its length until nobody is left to ask.
fn measure(process: &mut ProcessContext) {
    while let ProcessEvent::Bytes(packet) = process.wait(None) {
        let answer = format!("{} bytes", packet.len());
        if process.write(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Runs in the child, whose standard input and output are the pipe: so are those of its own child.
fn shout(_process: &mut ProcessContext) {
    // It ends when its input does; where it is not there our end of the pipe tells it.
    let _ = Command::new("tr").args(["a-z", "A-Z"]).status();
}

fn main() -> Result<(), Box<dyn Error>> {
    // Packets: what is written at once is read at once.
    let mut child = Process::start(PipeKind::Packets, measure)?;
    for word in ["tea", "with", "lemon"] {
        child.write(word.as_bytes())?;
        let answer = child.read(PATIENCE)?.ok_or("the child did not answer")?;
        println!("{word}: {}", String::from_utf8_lossy(&answer));
    }
    child.end_input()?;
    println!("the child has ended with {:?}", child.wait()?);

    // A stream that is also the child's standard input and output.
    let mut child = Process::start(PipeKind::Stdio, shout)?;
    child.write(b"a cup of tea\n")?;
    // `tr` answers when its input has ended; its output stays open for us to read.
    child.end_input()?;
    let mut answer = Vec::new();
    while let Some(piece) = child.read(PATIENCE)?.filter(|piece| !piece.is_empty()) {
        answer.extend(piece);
    }
    print!("{}", String::from_utf8_lossy(&answer));
    println!("the child has ended with {:?}", child.wait()?);
    Ok(())
}
