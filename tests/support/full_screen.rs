//! A verb on a terminal of its own: `terminal.py` holds it, keys go in, and what is shown comes out.

use super::process;
use super::wait;
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// See the module. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct FullScreen {
    bridge: Child,
    keys: Option<ChildStdin>,
    shown: Receiver<Vec<u8>>,
    told: Receiver<Json>,
    /// All that was shown, and as text from where it was last looked at.
    pub(crate) bytes: Vec<u8>,
    looked: usize,
    /// Of the verb.
    pub(crate) pid: i64,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Left {
    /// Negative for a signal.
    pub(crate) code: i64,
    /// Whether the terminal is set as it was before.
    pub(crate) restored: bool,
    /// What was shown from the beginning: as it came, and as text.
    pub(crate) bytes: Vec<u8>,
    pub(crate) text: String,
}

impl FullScreen {
    /// Starts a command on a terminal of 24 rows and 80 columns. It needs python3.
    pub(crate) fn start(command: &Command) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/terminal.py");
        let mut bridge = Command::new("python3");
        bridge.arg(script).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => bridge.env(name, value),
                None => bridge.env_remove(name),
            };
        }
        bridge.env("TERM", "xterm-256color").env("TZ", "UTC");
        bridge.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut bridge = bridge.spawn().expect("python3 is there");
        let (tell, shown) = mpsc::channel();
        let mut out = bridge.stdout.take().expect("piped above");
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(read @ 1..) = out.read(&mut bytes) {
                let _ = tell.send(bytes[..read].to_vec());
            }
        });
        let (tell, told) = mpsc::channel();
        let said = BufReader::new(bridge.stderr.take().expect("piped above"));
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap_or_else(|_| line.into()));
            }
        });
        let first: Json = told.recv_timeout(wait::DEADLINE).expect("the terminal is there");
        let pid = first["pid"].as_i64().unwrap_or_else(|| panic!("no pid: {first}"));
        let keys = bridge.stdin.take();
        Self { bridge, keys, shown, told, bytes: Vec::new(), looked: 0, pid }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        let input = self.keys.as_mut().expect("it is open");
        input.write_all(keys.as_bytes()).and_then(|()| input.flush()).expect("it reads");
    }

    /// Waits until these words are drawn, behind what was waited for before.
    pub(crate) fn wait_for(&mut self, words: &str) {
        wait::for_some(words, || {
            self.bytes.extend(self.shown.try_iter().flatten());
            let text = as_text(&self.bytes);
            let found = text[self.looked..].find(words)?;
            self.looked += found + words.len();
            Some(())
        });
    }

    /// The same of words that are drawn over others, of which only the letters that differ would be shown:
    /// Ctrl-L has it draw everything anew.
    pub(crate) fn wait_for_redrawn(&mut self, words: &str) {
        wait::for_some(words, || {
            self.press("\u{c}");
            self.bytes.extend(self.shown.try_iter().flatten());
            let text = as_text(&self.bytes);
            let found = text[self.looked..].find(words)?;
            self.looked += found + words.len();
            Some(())
        });
    }

    /// What was shown until it was last waited for, as text.
    pub(crate) fn text(&self) -> String {
        as_text(&self.bytes)
    }

    /// Waits for its end.
    pub(crate) fn wait_end(mut self) -> Left {
        let last = self.told.recv_timeout(wait::DEADLINE);
        let last = last.unwrap_or_else(|_| panic!("no end: {}", as_text(&self.bytes)));
        process::wait_child("the terminal", &mut self.bridge);
        self.bytes.extend(self.shown.iter().flatten());
        let code = last["code"].as_i64().unwrap_or_else(|| panic!("no code: {last}"));
        let (restored, bytes) = (last["restored"] == true, std::mem::take(&mut self.bytes));
        Left { code, restored, text: as_text(&bytes), bytes }
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        if self.bridge.try_wait().is_ok_and(|ended| ended.is_none()) {
            process::signal("KILL", self.pid);
            let _ = self.bridge.kill();
            let _ = self.bridge.wait();
        }
    }
}

/// What was drawn, in the order in which it was, without what steers the terminal; where the cursor
/// jumps there is a space.
fn as_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            shown.push(letter);
            continue;
        }
        if letters.next() == Some('[') {
            let last = letters.find(|letter| ('@'..='~').contains(letter));
            if last == Some('H') {
                shown.push(' ');
            }
        }
    }
    shown
}
