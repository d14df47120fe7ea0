//! Lines of a server's trace as people and programs read them.
//!
//! Pure. What came from clients is shown so that nothing of it steers a terminal.
//! Invariant: of at most [`DEVICES_MAX`] sessions the device is remembered.

use crate::chat::words::plain;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Sessions whose device is remembered.
const DEVICES_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Lines {
    user: String,
    json: bool,
    colours: bool,
    /// By session.
    devices: BTreeMap<String, String>,
}

impl Lines {
    pub(crate) fn new(user: String, json: bool, colours: bool) -> Self {
        Self { user, json, colours, devices: BTreeMap::new() }
    }

    /// Notes the sessions that there are.
    pub(crate) fn know(&mut self, sessions: &Json) {
        for session in sessions.as_array().into_iter().flatten() {
            if let (Some(id), Some(device)) =
                (session["session"].as_str(), session["device"].as_str())
            {
                self.note(id, device);
            }
        }
    }

    fn note(&mut self, session: &str, device: &str) {
        if self.devices.len() >= DEVICES_MAX {
            self.devices.pop_first();
        }
        self.devices.insert(session.to_owned(), device.to_owned());
    }

    /// A line of the server as one that is printed; none where it makes no sense.
    pub(crate) fn show(&mut self, line: &str) -> Option<String> {
        let told: Json = serde_json::from_str(line).ok()?;
        let (session, way) = (told["session"].as_str()?, told["way"].as_str()?);
        let text = told["text"].as_str()?;
        let frame: Option<Json> = serde_json::from_str(text).ok();
        if let Some(device) = frame.as_ref().and_then(|frame| device_of(frame, way, session)) {
            self.note(session, &device);
        }
        let device = self.devices.get(session).cloned();
        let shown = match self.json {
            true => self.as_json(&told, frame, device.as_deref()),
            false => self.as_text(&told, text, device.as_deref().unwrap_or(session)),
        };
        if way == "closed" {
            self.devices.remove(session);
        }
        Some(shown)
    }

    fn as_json(&self, told: &Json, frame: Option<Json>, device: Option<&str>) -> String {
        let mut object = json!({
            "time": told["time"],
            "user": self.user,
            "device": device,
            "session": told["session"],
            "worker": told["worker"],
            "way": told["way"],
        });
        match frame {
            Some(frame) => object["frame"] = frame,
            None => object["text"] = told["text"].clone(),
        }
        if !told["bytes"].is_null() {
            object["bytes"] = told["bytes"].clone();
        }
        format!("{object}\n")
    }

    /// `12:01:02.345 → ann/phone  {"method":"send",…}`.
    fn as_text(&self, told: &Json, text: &str, device: &str) -> String {
        let time = dunlin_server::clock::rfc3339_ms(told["time"].as_u64().unwrap_or(0));
        let time = time.get(11..23).unwrap_or_default();
        let (arrow, colour) = match told["way"].as_str() {
            Some("in") => ("→", "32"),
            Some("out") => ("←", "36"),
            Some("binary") => ("← binary", "36"),
            _ => ("× closed", "31"),
        };
        let cut = match told["bytes"].as_u64() {
            Some(bytes) => format!("… ({bytes} bytes)"),
            None => String::new(),
        };
        let (who, text) = (format!("{}/{}", plain(&self.user), plain(device)), plain(text));
        if self.colours {
            format!(
                "\x1b[2m{time}\x1b[0m \x1b[{colour}m{arrow}\x1b[0m \x1b[1m{who}\x1b[0m  {text}{cut}\n"
            )
        } else {
            format!("{time} {arrow} {who}  {text}{cut}\n")
        }
    }
}

/// The device that a login names: its answer, which has the session, too.
fn device_of(frame: &Json, way: &str, session: &str) -> Option<String> {
    let result = &frame["result"];
    let ours = way == "out" && result["session"] == session;
    ours.then(|| result["device"].as_str().map(str::to_owned)).flatten().or_else(|| {
        let login = way == "in" && frame["method"] == "login";
        login.then(|| frame["params"]["device"]["id"].as_str().map(str::to_owned)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(way: &str, text: &str) -> String {
        json!({"time": 1_795_420_862_123_u64, "worker": 1, "session": "s1", "way": way, "text": text}).to_string()
    }

    #[test]
    fn people_see_time_way_device_and_text() {
        let mut lines = Lines::new("ann".to_owned(), false, false);
        let login =
            "{\"method\":\"login\",\"params\":{\"token\":\"***\",\"device\":{\"id\":\"phone\"}}}";
        assert_eq!(
            lines.show(&line("in", login)).unwrap(),
            format!("08:01:02.123 → ann/phone  {login}\n")
        );
        assert_eq!(
            lines.show(&line("out", "x\u{1b}[2J\n")).unwrap(),
            "08:01:02.123 ← ann/phone  x\\u{1b}[2J\\n\n"
        );
        let closed = "{\"code\":1001}";
        assert_eq!(
            lines.show(&line("closed", closed)).unwrap(),
            "08:01:02.123 × closed ann/phone  {\"code\":1001}\n"
        );
        assert!(
            lines.show(&line("in", "{}")).unwrap().contains("ann/s1"),
            "another login may follow"
        );
        lines.know(&json!([{"session": "s1", "device": "tablet"}]));
        assert!(lines.show(&line("in", "{}")).unwrap().contains("ann/tablet"));
        let mut cut: Json = serde_json::from_str(&line("in", "{\"a\":")).unwrap();
        cut["bytes"] = json!(9_000);
        assert!(lines.show(&cut.to_string()).unwrap().ends_with("{\"a\":… (9000 bytes)\n"));
        let mut coloured = Lines::new("ann".to_owned(), false, true);
        assert!(coloured.show(&line("in", "{}")).unwrap().contains("\x1b[32m→\x1b[0m"));
    }

    #[test]
    fn programs_get_the_frame_as_json() {
        let mut lines = Lines::new("ann".to_owned(), true, true);
        let login = "{\"result\":{\"session\":\"s1\",\"device\":\"d\"}}";
        let shown: Json = serde_json::from_str(&lines.show(&line("out", login)).unwrap()).unwrap();
        assert_eq!((&shown["device"], &shown["worker"]), (&json!("d"), &json!(1)));
        assert_eq!(shown["frame"]["result"]["session"], "s1");
        let shown: Json =
            serde_json::from_str(&lines.show(&line("binary", "7 bytes")).unwrap()).unwrap();
        assert_eq!((&shown["text"], shown.get("frame")), (&json!("7 bytes"), None));
    }

    #[test]
    fn what_makes_no_sense_is_no_line() {
        let mut lines = Lines::new("ann".to_owned(), false, false);
        for text in ["", "{}", "[1]", "{\"session\":1,\"way\":\"in\",\"text\":\"\"}", "\u{1b}"] {
            assert_eq!(lines.show(text), None, "{text:?}");
        }
    }

    #[test]
    fn devices_are_bounded() {
        let mut lines = Lines::new("ann".to_owned(), false, false);
        for number in 0..DEVICES_MAX + 9 {
            lines.note(&format!("s{number}"), "d");
        }
        assert_eq!(lines.devices.len(), DEVICES_MAX);
    }
}
