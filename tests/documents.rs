//! What is written about the program against what the program is.

mod book;
mod quoted;
mod reference;
mod settings;
mod troubles;

use crate::architecture::{collect, read, root, shown};
use crate::lifecycle::STATUS_FIELDS;
use crate::support::process;
use crate::support::server::dunlin;
use dunlin_im::IM_KEYS;
use dunlin_im::close::CLOSE_REASONS;
use dunlin_im::protocol::METHODS;
use dunlin_im::protocol::code::CODES;
use dunlin_server::config::SERVER_KEYS;
use dunlin_server::exit::ExitCode;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn page(name: &str) -> String {
    read(&root().join("docs").join(name))
}

/// Whether a word stands in a page by itself, not as part of another.
fn names(page: &str, word: &str) -> bool {
    let is_part = |found: char| found.is_alphanumeric() || found == '_';
    page.match_indices(word).any(|(at, _)| {
        let before = page[..at].chars().next_back();
        let after = page[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[test]
fn a_word_is_found_by_itself_only() {
    assert!(names("a `pid`, b", "pid") && !names("rapid pids", "pid") && !names("", "pid"));
}

#[test]
fn signals_are_all_named() {
    let page = page("signals.md");
    let table = read(&root().join("crates/server/src/master/signals.rs"));
    let rows: Vec<&str> = table.lines().filter(|line| line.trim().starts_with("row(")).collect();
    assert!(rows.len() >= 8, "{rows:?}");
    for row in rows {
        let signal =
            row.trim().trim_start_matches("row(").split(", Meaning").next().expect("a word");
        let name = match signal {
            "real_time(0)" => "SIGRTMIN",
            "real_time(1)" => "SIGRTMIN+1",
            name => name,
        };
        assert!(names(&page, name), "docs/signals.md does not name {name}");
    }
}

#[test]
fn the_status_page_names_every_field_promised() {
    let page = page("status.md");
    for pointer in STATUS_FIELDS {
        let name = pointer.rsplit('/').next().expect("a name");
        assert!(names(&page, name), "docs/status.md does not name {pointer}");
    }
}

/// Also those that are more than the contract has.
#[test]
fn the_status_page_names_every_field_there_is() {
    let server = crate::support::Server::start("[server]\nworkers = 1\ntask_workers = 1");
    let page = page("status.md");
    let mut unknown = BTreeSet::new();
    fields(&server.status().0, &mut |name| {
        if !names(&page, name) {
            unknown.insert(name.to_owned());
        }
    });
    assert!(unknown.is_empty(), "docs/status.md does not name {unknown:?}");
}

fn fields(value: &serde_json::Value, each: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::Object(object) => object.iter().for_each(|(name, value)| {
            each(name);
            fields(value, each);
        }),
        serde_json::Value::Array(list) => list.iter().for_each(|value| fields(value, each)),
        _ => {}
    }
}

#[test]
fn commands_names_every_exit_code() {
    let page = page("commands.md");
    for code in [ExitCode::Ok, ExitCode::Failed, ExitCode::BadUsage, ExitCode::NotRunning] {
        let row = format!("\n| {} |", code as u8);
        assert!(page.contains(&row), "docs/commands.md has no row for exit code {code:?}");
    }
}

#[test]
fn commands_names_every_verb_and_its_flags() {
    let page = page("commands.md");
    let help = process::run(dunlin().arg("--help")).stdout;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs: Vec<&str> = verbs
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 8, "{help}");
    for verb in verbs {
        assert!(names(&page, verb), "docs/commands.md does not name {verb}");
        let help = process::run(dunlin().args([verb, "--help"])).stdout;
        let flags = help.split_whitespace().filter(|word| word.starts_with("--"));
        for flag in flags.map(|word| word.trim_end_matches(|end: char| !end.is_alphanumeric())) {
            if !["--help", "--listen", "--workers", "--task-workers", "--config", "--daemonize"]
                .contains(&flag)
            {
                assert!(page.contains(flag), "docs/commands.md does not name {flag} of {verb}");
            }
        }
    }
}

#[test]
fn protocol_names_every_method_error_and_close_code() {
    let page = page("protocol.md");
    for (name, _) in METHODS {
        assert!(page.contains(&format!("| `{name}` |")), "docs/protocol.md has no row for {name}");
    }
    for code in CODES {
        let row = format!("\n| {} |", code.number());
        assert!(page.contains(&row), "docs/protocol.md has no row for {code:?}");
        let reason = match code {
            dunlin_im::protocol::Code::Forbidden => "not_a_member",
            code => code.reason(),
        };
        assert!(page.contains(&format!("`{reason}`")), "docs/protocol.md does not name {reason}");
    }
    for reason in CLOSE_REASONS {
        let code = reason.code().to_string();
        assert!(names(&page, &code), "docs/protocol.md does not name close code {code}");
    }
}

#[test]
fn the_config_file_has_every_key_and_no_other() {
    let file = read(&root().join("config/dunlin.toml"));
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in file.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((name, _)) = line.split_once(" = ")
            && !line.starts_with('#')
        {
            found.insert(format!("{section}.{name}"));
        }
    }
    let known: BTreeSet<String> =
        SERVER_KEYS.iter().chain(IM_KEYS).map(|spec| spec.key.to_owned()).collect();
    assert_eq!(found, known);
}

/// Every page there is: README, docs, and the notes beside examples.
fn pages() -> Vec<(String, String)> {
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    for place in ["docs", "crates", "config", "tests"] {
        collect(&root().join(place), "md", &mut files);
        collect(&root().join(place), "toml", &mut files);
    }
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        files.extend(Some(root().join(name)).filter(|path| path.exists()));
    }
    assert!(files.len() > 8, "{files:?}");
    files.into_iter().map(|path| (shown(&path), read(&path))).collect()
}

#[test]
fn no_page_names_a_place_of_one_machine() {
    for (path, text) in pages() {
        for (number, line) in text.lines().enumerate() {
            // `/tmp/dunlin-$UID` is the server's own default.
            let line = line.replace("/tmp/dunlin-", "");
            for word in ["/work", "/tmp/", "/root/", "/home/"] {
                assert!(!line.contains(word), "{path}:{}: {line}", number + 1);
            }
            for host in line.split("://").skip(1) {
                let host = host.split(['/', ':', ')', '"', '`', ' ']).next().unwrap_or_default();
                assert!(is_public(host), "{path}:{}: the host {host:?}", number + 1);
            }
        }
    }
}

/// Hosts a reader can reach, or that stand for one.
fn is_public(host: &str) -> bool {
    const KNOWN: [&str; 10] = [
        "127.0.0.1",
        "[",
        "localhost",
        "HOST",
        "chat.example",
        "github.com",
        "docs.rs",
        "keepachangelog.com",
        "semver.org",
        "rustsec.org",
    ];
    KNOWN.contains(&host)
        || ["www.rfc-editor.org", "doc.rust-lang.org", "man7.org", "wiki.swoole.com"]
            .contains(&host)
        || host.ends_with(".example")
        || host.is_empty()
}
