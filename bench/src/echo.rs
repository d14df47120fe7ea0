//! The closed loop: each connection has `depth` messages on their way, and every answer is compared
//! byte by byte.

use crate::connect::{self, Link, nanos};
use crate::frames::Frames;
use crate::process::Meter;
use hdrhistogram::Histogram;
use mio::{Events, Poll};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub connections: usize,
    pub depth: usize,
    pub payload_bytes: usize,
    pub binary: bool,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What came of it.
pub struct Outcome {
    pub messages: u64,
    pub took: Duration,
    pub server_cpu: Duration,
    pub client_cpu: Duration,
    /// Processors that others kept busy meanwhile.
    pub other_cpus: f64,
    pub latency: Histogram<u64>,
}

/// Runs a load against a server whose CPU time `meter` reads.
///
/// # Errors
/// A wrong byte, a lost connection, a refused one, or five seconds without an answer.
pub fn run(address: SocketAddr, load: &Load, meter: &Meter) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let opening = connect::open(&mut poll, address, load.connections, 128)?;
    if opening.refused > 0 {
        return Err(io::Error::other(format!("{} connections refused", opening.refused)));
    }
    let mut generator = Generator {
        links: opening.links,
        frames: Frames::new(load.payload_bytes, load.binary),
        depth: load.depth as u64,
        input: vec![0; 256 << 10],
        scratch: Vec::new(),
        messages: 0,
        latency: connect::histogram(),
    };
    let outcome = generator.measure(&mut poll, load, meter);
    generator.links.into_iter().for_each(Link::cut);
    outcome
}

struct Generator {
    links: Vec<Link>,
    frames: Frames,
    depth: u64,
    input: Vec<u8>,
    scratch: Vec<u8>,
    messages: u64,
    latency: Histogram<u64>,
}

impl Generator {
    fn measure(&mut self, poll: &mut Poll, load: &Load, meter: &Meter) -> io::Result<Outcome> {
        let mut events = Events::with_capacity(1024);
        for key in 0..self.links.len() {
            self.links[key].sent_at = vec![Instant::now(); load.depth];
            self.links[key].due = self.depth;
            self.links[key].send(key, &self.frames, &mut self.scratch)?;
        }
        let mut due = Instant::now() + load.warm_up;
        let mut start = None;
        let mut last_answer = Instant::now();
        loop {
            poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            for event in &events {
                let key = event.token().0;
                if event.is_writable() && self.links[key].due > 0 {
                    self.links[key].send(key, &self.frames, &mut self.scratch)?;
                }
                if event.is_readable() {
                    self.receive(key)?;
                    last_answer = Instant::now();
                }
            }
            let now = Instant::now();
            if now.duration_since(last_answer) > Duration::from_secs(5) {
                return Err(io::Error::other("no answer for five seconds"));
            }
            if now < due {
                continue;
            }
            match &start {
                None => {
                    self.messages = 0;
                    self.latency.reset();
                    start = Some(meter.read());
                    due = Instant::now() + load.measured;
                }
                Some(start) => {
                    let used = meter.read().since(start);
                    return Ok(Outcome {
                        messages: self.messages,
                        took: used.wall,
                        server_cpu: used.server,
                        client_cpu: used.client,
                        other_cpus: used.other_cpus(),
                        latency: self.latency.clone(),
                    });
                }
            }
        }
    }

    /// Reads what came, checks it, and sends a message for each that was answered.
    fn receive(&mut self, key: usize) -> io::Result<()> {
        loop {
            let link = &mut self.links[key];
            let length = match link.stream.read(&mut self.input) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            let mut came = &self.input[..length];
            while !came.is_empty() {
                let checked = self.frames.check(key, link.answered, link.in_bytes, came);
                let Some((taken, whole)) = checked else {
                    return Err(io::Error::other(format!(
                        "connection {key}: answer {} is not what was sent",
                        link.answered
                    )));
                };
                came = &came[taken..];
                link.in_bytes += taken;
                if whole {
                    let place = usize::try_from(link.answered % self.depth).unwrap_or(0);
                    self.latency.saturating_record(nanos(now - link.sent_at[place]));
                    link.in_bytes = 0;
                    link.answered += 1;
                    link.due += 1;
                    self.messages += 1;
                }
            }
            if link.due > 0 {
                link.send(key, &self.frames, &mut self.scratch)?;
            }
            if length < self.input.len() {
                return Ok(());
            }
        }
    }
}

/// One message on each connection, and its answer: what a connection costs that has spoken once.
///
/// # Errors
/// As [`run`].
pub fn once_each(poll: &mut Poll, links: &mut [Link]) -> io::Result<()> {
    let frames = Frames::new(20, false);
    let (mut events, mut scratch, mut input) = (Events::with_capacity(1024), Vec::new(), [0; 64]);
    for (key, link) in links.iter_mut().enumerate() {
        link.sent_at = vec![Instant::now()];
        link.due = 1;
        link.send(key, &frames, &mut scratch)?;
    }
    let end = Instant::now() + Duration::from_secs(20);
    let mut open = links.len();
    while open > 0 && Instant::now() < end {
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let key = event.token().0;
            if !event.is_readable() || links[key].answered > 0 {
                continue;
            }
            match links[key].stream.read(&mut input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                came => match frames.check(key, 0, 0, &input[..came?]) {
                    Some((_, true)) => {
                        links[key].answered = 1;
                        open -= 1;
                    }
                    _ => return Err(io::Error::other("an answer is not what was sent")),
                },
            }
        }
    }
    if open > 0 {
        Err(io::Error::other(format!("{open} connections got no answer")))
    } else {
        Ok(())
    }
}
