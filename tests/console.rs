//! Commands in pages: each `console` block of a tutorial is run, in order, and says what the page says.

use crate::architecture::{read, root};
use crate::support::dir::Dir;
use crate::support::outside::NODE;
use crate::support::process::{self, Ended};
use crate::support::server::{DUNLIN, read_ready_line};
use crate::support::{Client, wait};
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// A reader of a page, who types what stands there.
struct Reader {
    dir: Dir,
    server: Option<(Child, SocketAddr)>,
}

impl Reader {
    fn new() -> Self {
        Self { dir: Dir::new(), server: None }
    }

    /// A shell line in a folder of one's own, with the program in the path.
    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        let ours = Path::new(DUNLIN).parent().expect("a folder").to_string_lossy().into_owned();
        let path = format!("{ours}:{}", std::env::var("PATH").unwrap_or_default());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DUNLIN_") {
                command.env_remove(name);
            }
        }
        command.args(["-c", line]).current_dir(self.dir.path());
        command.env("PATH", path).env("XDG_RUNTIME_DIR", self.dir.path());
        command.env_remove("RUNTIME_DIRECTORY").env("DUNLIN_SERVER__LISTEN", "127.0.0.1:0");
        command
    }

    /// Types a command; gives what it printed.
    fn types(&mut self, line: &str) -> String {
        if line.starts_with("dunlin serve") {
            return self.serves(line);
        }
        let port = self.server.as_ref().map_or(0, |(_, address)| address.port());
        let line = line.replace("9502", &port.to_string());
        let Ended { code, stdout, stderr } = process::run(&mut self.shell(&line));
        assert_eq!(code, Some(0), "{line}: {stdout}{stderr}");
        if line.starts_with("dunlin stop") {
            let (mut child, _) = self.server.take().expect("a server to stop");
            assert!(process::wait_child("the server", &mut child).success());
        }
        stdout
    }

    /// Starts a server as the page does; gives its first line.
    fn serves(&mut self, line: &str) -> String {
        let log = File::create(self.dir.log_file()).expect("the log file");
        let mut command = self.shell(&format!("exec {line}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut child = command.spawn().expect("bash is there");
        let out = child.stdout.take().expect("piped above");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let Ok(ready) = told.recv_timeout(wait::DEADLINE) else {
            process::signal("KILL", -i64::from(child.id()));
            panic!("{line}: no ready line: {}", self.dir.log());
        };
        let address = read_ready_line(&ready).0;
        assert!(self.server.replace((child, address)).is_none(), "one server at a time");
        ready
    }

    /// Somebody who is logged in by name.
    fn somebody(&self, name: &str) -> Client {
        let (_, address) = self.server.as_ref().expect("a server");
        Client::connect(*address).login(name)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.server {
            process::signal("KILL", -i64::from(child.id()));
            let _ = child.wait();
        }
    }
}

/// Commands of a page with the lines that follow each.
fn commands(page: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let blocks = page.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    for line in blocks.flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => found.push((command.to_owned(), Vec::new())),
            None => found.last_mut().expect("a command first").1.push(line.to_owned()),
        }
    }
    found
}

/// A line without what differs each time: numbers, ids and paths. It ends where the page leaves out a rest.
fn lasting(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let path = word.starts_with('/') || word.ends_with("-run)") || word.ends_with("/dunlin)");
        let word = if path { "PATH" } else { word };
        let mut plain = String::new();
        let parts = word.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric());
        for part in parts {
            let is_id = part.len() > 12 && part.starts_with(|first: char| first.is_ascii_digit());
            let mut last = ' ';
            for letter in part.chars().filter(|letter| !is_id || !letter.is_ascii_alphanumeric()) {
                let letter = if letter.is_ascii_digit() { '0' } else { letter };
                if letter != '0' || last != '0' {
                    plain.push(letter);
                }
                last = letter;
            }
        }
        words.push(plain);
    }
    words.join(" ")
}

/// The lines of the page come in this order among what was printed.
fn says(printed: &str, page: &[String]) -> bool {
    let mut printed = printed.lines();
    page.iter().all(|line| match line.strip_suffix('…') {
        Some(begin) => printed.any(|printed| lasting(printed).starts_with(&lasting(begin))),
        None => printed.any(|printed| lasting(printed) == lasting(line)),
    })
}

#[test]
fn what_differs_each_time_does_not_count() {
    let page = |line: &str| vec![line.to_owned()];
    let ready = "dunlin ready on 127.0.0.1:9502 (pid 12472, run dir chat-run)";
    assert!(says(
        "dunlin ready on 127.0.0.1:4711 (pid 3, run dir /somewhere/chat-run)",
        &page(ready)
    ));
    assert!(!says("dunlin ready at 127.0.0.1:4711 (pid 3, run dir /somewhere)", &page(ready)));
    let pushed = page("{\"id\":\"1a2157d41e100000\",\"sessions\":1}");
    assert!(says("{\"id\":\"1a2157e59f100000\",\"sessions\":2}", &pushed));
    assert!(!says("{\"id\":\"1a2157e59f100000\",\"session\":2}", &pushed));
    assert!(says("eyJabc", &page("eyJ…")) && !says("ey", &page("eyJ…")));
}

/// Types every command of a page; `meanwhile` is called before each.
fn reads(page: &str, mut meanwhile: impl FnMut(&Reader, &str)) {
    let page = read(&root().join("docs").join(page));
    let commands = commands(&page);
    assert!(commands.len() > 3, "the page has commands");
    let mut reader = Reader::new();
    for (command, shown) in commands {
        meanwhile(&reader, &command);
        let printed = reader.types(&command);
        assert!(says(&printed, &shown), "$ {command}\n{printed}\nand not:\n{}", shown.join("\n"));
    }
}

#[test]
fn five_minutes_are_as_the_page_has_them() {
    for page in ["start.md", "zh/start.md"] {
        let mut people: Option<(Client, Client)> = None;
        reads(page, |reader, command| {
            if command.starts_with("kill -9") {
                people = Some((reader.somebody("ann"), reader.somebody("bob")));
            }
            // Each deed is behind them: they are as connected as before.
            if let Some((ann, bob)) = people.as_mut().filter(|_| !command.starts_with("kill")) {
                assert_eq!(ann.send_to("bob", &json!(command))["sessions"], 1);
                assert_eq!(bob.message_body(), command);
            }
        });
    }
}

#[test]
fn the_chat_in_the_browser_is_as_the_page_has_it() {
    for page in ["browser-chat.md", "zh/browser-chat.md"] {
        let mut bob: Option<Client> = None;
        reads(page, |reader, command| {
            if command.contains("/api/push") {
                bob = Some(reader.somebody("bob"));
            } else if command.contains("/api/presence") {
                let bob = bob.as_mut().expect("he came before");
                assert_eq!(bob.message_body(), "the kettle is on");
            }
        });
    }
}

/// From a folder like that of the repository, but with the library of the tests.
#[test]
fn the_bot_answers() {
    NODE.must_be_there();
    let server = crate::support::Server::start("[server]\nworkers = 2");
    let here = server.dir().path();
    for file in ["examples/bot.mjs", "clients/dunlin.js"] {
        let copy = here.join(file);
        std::fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
        std::fs::copy(root().join("crates/im").join(file), copy).expect("a copy");
    }
    let library = root().join("tests/outside/node_modules");
    std::os::unix::fs::symlink(library, here.join("node_modules")).expect("a link");
    let mut node = Command::new("node");
    node.arg(here.join("examples/bot.mjs")).arg(format!("ws://{}/ws", server.address));
    let _bot = Gone(node.stdout(Stdio::null()).spawn().expect("Node is there"));

    let mut ann = server.client().login("ann");
    ann.result("join", json!({"room": "tea"}));
    wait::until("the bot is in its room", || {
        // In no order that is promised.
        let members = ann.result("members", json!({"room": "tea"}));
        members["members"].as_array().is_some_and(|all| all.contains(&json!("bot")))
    });
    ann.send_to("bot", &json!("hello"));
    assert_eq!(ann.message_body(), "ann, you said: hello");
    ann.result("send", json!({"to": {"room": "tea"}, "body": "nothing for it"}));
    ann.result("send", json!({"to": {"room": "tea"}, "body": "hey bot"}));
    assert_eq!(ann.message_body(), "ann, you said: hey bot");
}

/// A child that is gone with the test.
struct Gone(Child);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
