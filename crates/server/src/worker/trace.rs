//! What a worker tells who traces: lines of JSON, gathered over a turn and sent as datagrams at its end.
//!
//! Decides what fits; never waits. What a slow reader does not take is dropped and counted, and so is what
//! a worker had gathered in the turn in which it died.

use super::core::Core;
use crate::app::TraceWay;
use crate::clock;
use crate::ids::{ConnId, SlotId};
use crate::sys::unix_socket;
use crate::traces::{Counts, Trace, Traces};
use crate::websocket::Opcode;
use serde_json::json;
use std::os::fd::RawFd;

/// Bytes of a text that are told; the rest of a longer one is cut off.
pub(crate) const TRACED_TEXT_MAX: usize = 4 << 10;
/// Bytes of lines that are gathered before they leave: a few fit what the kernel keeps for one sender.
const GATHERED_MAX: usize = 16 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tracing {
    traces: Vec<Gathered>,
}

#[derive(Debug)]
struct Gathered {
    trace: Trace,
    lines: Vec<u8>,
    count: u64,
}

impl Tracing {
    /// Once a turn: what is traced in it.
    pub(super) fn look(&mut self, traces: &Traces) {
        if traces.active() == 0 && self.traces.is_empty() {
            return;
        }
        let begun = |trace| Gathered { trace, lines: Vec::new(), count: 0 };
        self.traces = traces.read().into_iter().map(begun).collect();
    }

    /// Whether anybody traces.
    pub(super) fn is_on(&self) -> bool {
        !self.traces.is_empty()
    }

    /// Whether somebody traces this subject.
    pub(super) fn follows(&self, subject: u64) -> bool {
        subject != 0 && self.traces.iter().any(|one| one.trace.subject == subject)
    }

    /// Gathers a line for whoever traces the subject; gives the datagrams that are full.
    fn add(&mut self, subject: u64, line: &[u8]) -> Vec<Datagram> {
        let mut full = Vec::new();
        for one in self.traces.iter_mut().filter(|one| one.trace.subject == subject) {
            if one.lines.len() + line.len() > GATHERED_MAX {
                full.extend(one.take());
            }
            one.lines.extend_from_slice(line);
            one.count += 1;
        }
        full
    }
}

impl Gathered {
    fn take(&mut self) -> Option<Datagram> {
        let lines = std::mem::take(&mut self.lines);
        let count = std::mem::take(&mut self.count);
        (count > 0).then(|| Datagram { trace: self.trace.clone(), lines, count })
    }
}

struct Datagram {
    trace: Trace,
    lines: Vec<u8>,
    count: u64,
}

impl Datagram {
    fn send(&self, tracer: Option<RawFd>, traces: &Traces) {
        let sent = tracer
            .is_some_and(|tracer| unix_socket::tell(tracer, &self.trace.path, &self.lines).is_ok());
        let counts = match sent {
            true => Counts { sent: self.count, dropped: 0 },
            false => Counts { sent: 0, dropped: self.count },
        };
        traces.count(self.trace.place, counts);
    }
}

impl Core {
    /// A message of whatever kind was queued to a connection.
    pub(super) fn trace_out(&mut self, key: usize, opcode: Opcode, payload: &[u8]) {
        let Some(conn) = self.connections.get(key).and_then(super::connection::Connection::conn)
        else {
            return;
        };
        match std::str::from_utf8(payload) {
            Ok(text) if opcode == Opcode::Text => self.trace_line(conn, TraceWay::Out, text),
            _ => {
                let text = format!("{} bytes", payload.len());
                self.trace_line(conn, TraceWay::OutBinary, &text);
            }
        }
    }

    /// Something was seen of a connection.
    pub(super) fn trace_line(&mut self, conn: ConnId, way: TraceWay, text: &str) {
        let subject = self.shared.sessions.subject(conn);
        if !self.tracing.follows(subject) {
            return;
        }
        let line = line(self.slot, conn, way, text, clock::unix_ms());
        for datagram in self.tracing.add(subject, &line) {
            datagram.send(self.wiring.tracer, &self.shared.traces);
        }
    }

    /// Mail leaves; before it what is traced, so that a cause is told before what another worker makes of it.
    pub(super) fn flush_mail(&mut self) {
        self.send_traced();
        self.post.flush();
    }

    /// What was gathered leaves: before mail does, and at the end of a turn.
    pub(super) fn send_traced(&mut self) {
        for one in &mut self.tracing.traces {
            if let Some(datagram) = one.take() {
                datagram.send(self.wiring.tracer, &self.shared.traces);
            }
        }
    }
}

/// A line for who traces: what, when, where, and how much there was if not all of it is told.
fn line(slot: SlotId, conn: ConnId, way: TraceWay, text: &str, unix_ms: u64) -> Vec<u8> {
    let told = &text[..text.floor_char_boundary(TRACED_TEXT_MAX)];
    let mut object = json!({
        "time": unix_ms,
        "worker": slot.0,
        "session": conn.to_string(),
        "way": way.word(),
        "text": told,
    });
    if told.len() < text.len() {
        object["bytes"] = json!(text.len());
    }
    let mut line = object.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;
    use std::path::Path;
    use std::sync::atomic::AtomicU64;

    fn traces() -> Traces {
        Traces::new(Box::leak((0..Traces::WORDS).map(|_| AtomicU64::new(0)).collect()))
    }

    #[test]
    fn lines_are_gathered_for_who_traces_the_subject_and_leave_when_full() {
        let traces = traces();
        let mut tracing = Tracing::default();
        tracing.look(&traces);
        assert!(!tracing.is_on() && !tracing.follows(0));
        traces.begin(0, 7, Path::new("a"));
        traces.begin(1, 8, Path::new("b"));
        traces.begin(2, 7, Path::new("c"));
        tracing.look(&traces);
        assert!(
            tracing.is_on() && tracing.follows(8) && !tracing.follows(9) && !tracing.follows(0)
        );
        let line = vec![b'x'; GATHERED_MAX / 2];
        assert!(tracing.add(7, &line).is_empty() && tracing.add(7, &line).is_empty());
        let full = tracing.add(7, &line);
        let sizes: Vec<(usize, u64, usize)> =
            full.iter().map(|one| (one.lines.len(), one.count, one.trace.place)).collect();
        assert_eq!(sizes, [(GATHERED_MAX, 2, 0), (GATHERED_MAX, 2, 2)]);
        assert!(tracing.traces[1].lines.is_empty(), "nothing was said of the other");
        traces.end_all();
        tracing.look(&traces);
        assert!(!tracing.is_on());
    }

    #[test]
    fn what_nobody_takes_is_counted() {
        let traces = traces();
        traces.begin(0, 7, Path::new("nowhere"));
        let mut tracing = Tracing::default();
        tracing.look(&traces);
        tracing.add(7, b"a\n");
        tracing.add(7, b"b\n");
        tracing.traces[0].take().unwrap().send(None, &traces);
        assert_eq!(traces.counts(), Counts { sent: 0, dropped: 2 });
    }

    #[test]
    fn a_long_text_is_cut_at_a_letter_and_says_how_long_it_was() {
        let text = "é".repeat(TRACED_TEXT_MAX);
        let conn = ConnId::from_bits(1 << 32);
        let line = line(SlotId(3), conn, TraceWay::In, &text, 5);
        let object: Json = serde_json::from_slice(&line).unwrap();
        assert_eq!((object["way"].as_str(), object["worker"].as_u64()), (Some("in"), Some(3)));
        assert_eq!(object["text"].as_str().unwrap().len(), TRACED_TEXT_MAX);
        assert_eq!(object["bytes"], 2 * TRACED_TEXT_MAX);
        assert!(line.len() < GATHERED_MAX, "a line fits a datagram");
    }
}
