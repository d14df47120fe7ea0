//! The log's subscriber: an event becomes a line, for people or as JSON.
//!
//! Knows how a line looks. Where it goes, and up to which level, is `dunlin_server::logging`.
//! Invariant: nothing in an event can begin a line of its own or move a terminal's cursor.

use dunlin_server::config::LogFormat;
use dunlin_server::{clock, logging};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use std::fmt::{self, Write};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Makes this the subscriber of the process, and of all that are forked from it.
pub(crate) fn install() {
    // Fails only where there is one already, as in a test.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Lines));
}

struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.is_event() && *metadata.level() <= logging::level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(logging::level())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let head = Head {
            time: clock::rfc3339_ms(clock::unix_ms()),
            level: *event.metadata().level(),
            role: logging::role(),
            pid: std::process::id(),
            target: event.metadata().target(),
        };
        let mut line = match logging::format() {
            LogFormat::Text => text(&head, &parts),
            LogFormat::Json => object(&head, &parts),
        };
        if logging::to_journal() {
            line.insert_str(0, level_mark(head.level));
        }
        logging::write_line(line.as_bytes());
    }
}

/// How the journal of systemd is told a line's level: sd-daemon(3).
fn level_mark(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// What stands in every line.
struct Head<'a> {
    time: String,
    level: Level,
    role: String,
    pid: u32,
    target: &'a str,
}

/// What one event says.
#[derive(Default)]
struct Parts {
    what: String,
    fields: Vec<(&'static str, Json)>,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
}

impl Parts {
    fn add(&mut self, field: &Field, value: Json) {
        match (field.name(), value) {
            ("message", Json::String(text)) => self.what = text,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

/// `time level role pid target: what key=value`
fn text(head: &Head<'_>, parts: &Parts) -> String {
    let Head { time, level, role, pid, target } = head;
    let mut line = format!("{time} {level:<5} {role} {pid} {target}: ");
    push_harmless(&mut line, &parts.what);
    for (name, value) in &parts.fields {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        match value {
            Json::String(text) if is_plain(text) => line.push_str(text),
            Json::String(text) => {
                // Writing to a String cannot fail.
                let _ = write!(line, "{text:?}");
            }
            other => line.push_str(&other.to_string()),
        }
    }
    line.push('\n');
    line
}

/// One JSON object within the log's longest line, a mark of its level before it: where it is longer its fields go.
fn object(head: &Head<'_>, parts: &Parts) -> String {
    let whole = object_with(head, &parts.what, fields(parts));
    if level_mark(head.level).len() + whole.len() <= logging::LINE_MAX {
        return whole;
    }
    let start: String = parts.what.chars().take(CUT_CHARS).collect();
    object_with(head, &start, json!({ "truncated": true }))
}

/// So many characters fit a line even where each is written as two escapes of six bytes.
const CUT_CHARS: usize = 256;

fn object_with(head: &Head<'_>, what: &str, fields: Json) -> String {
    let line = JsonLine {
        time: &head.time,
        level: &head.level.as_str().to_lowercase(),
        role: &head.role,
        pid: head.pid,
        target: head.target,
        message: what,
        fields,
    };
    // Nothing in it can fail to be written: its keys are texts and its numbers finite or null.
    serde_json::to_string(&line).unwrap_or_default() + "\n"
}

/// The names of a JSON line, in their order.
#[derive(Serialize)]
struct JsonLine<'a> {
    time: &'a str,
    level: &'a str,
    role: &'a str,
    pid: u32,
    target: &'a str,
    message: &'a str,
    fields: Json,
}

fn fields(parts: &Parts) -> Json {
    let pairs = parts.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    Json::Object(pairs.collect::<Map<_, _>>())
}

/// Whether a value may stand without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"')
}

/// Appends a text, its control characters as escapes.
fn push_harmless(line: &mut String, text: &str) {
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head<'static> {
        Head {
            time: clock::rfc3339_ms(0),
            level: Level::WARN,
            role: "worker[0.3]".to_owned(),
            pid: 42,
            target: "dunlin_server::worker",
        }
    }

    fn parts(what: &str, fields: &[(&'static str, Json)]) -> Parts {
        Parts { what: what.to_owned(), fields: fields.to_vec() }
    }

    #[test]
    fn a_line_for_people_cannot_be_broken_by_what_a_peer_sent() {
        let fields =
            [("peer", json!("1.2.3.4:5")), ("n", json!(3)), ("why", json!("a b\n\u{1b}[2J"))];
        assert_eq!(
            text(&head(), &parts("bad\nframe", &fields)),
            "1970-01-01T00:00:00.000Z WARN  worker[0.3] 42 dunlin_server::worker: bad\\nframe \
             peer=1.2.3.4:5 n=3 why=\"a b\\n\\u{1b}[2J\"\n"
        );
    }

    #[test]
    fn a_json_line_is_an_object_however_long_the_event() {
        for (what, value) in [
            ("x".into(), "y".into()),
            ("x".repeat(9_000), "y".into()),
            ("\0".repeat(9_000), "\0".repeat(9_000)),
        ] {
            let what: String = what;
            let line = object(&head(), &parts(&what, &[("k", Json::String(value))]));
            assert!(line.len() <= logging::LINE_MAX && line.ends_with("}\n"), "{}", line.len());
            let read: Json = serde_json::from_str(&line).unwrap();
            assert_eq!(read["role"], "worker[0.3]");
            assert_eq!(read["fields"]["truncated"] == true, what.len() > 1_000);
        }
    }

    #[test]
    fn a_json_line_has_room_for_the_mark_of_its_level() {
        let longest = (logging::LINE_MAX - 300..logging::LINE_MAX)
            .map(|length| object(&head(), &parts("x", &[("k", "y".repeat(length).into())])).len())
            .max();
        assert_eq!(longest, Some(logging::LINE_MAX - level_mark(Level::WARN).len()));
    }
}
