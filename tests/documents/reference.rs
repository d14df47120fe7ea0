//! Reference pages name nothing that is not there; that they name all there is, the module above asks.

use super::{fields, names, page};
use crate::architecture::{collect, read, root};
use crate::support::Server;
use crate::support::process;
use crate::support::server::dunlin;
use dunlin_im::close::CLOSE_REASONS;
use dunlin_im::protocol::METHODS;
use dunlin_im::protocol::code::CODES;
use std::collections::BTreeSet;

/// The rows of each table of a page whose head begins with this cell, as cells.
fn rows(page: &str, head: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            inside = false;
            continue;
        };
        let row = row.replace("\\|", "¦");
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        if cells[0] == head {
            inside = true;
        } else if inside && !row.starts_with("---") {
            found.push(cells);
        }
    }
    assert!(!found.is_empty(), "a table of {head:?}");
    found
}

/// What stands in code font.
fn code_words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The program text of a folder, without its tests.
fn program(folder: &str) -> String {
    let mut files = BTreeSet::new();
    collect(&root().join(folder), "rs", &mut files);
    let texts = files.iter().map(|path| {
        let text = read(path);
        text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// Literal texts that follow each of these words in a program.
fn literals_after<'p>(program: &'p str, word: &str) -> BTreeSet<&'p str> {
    let pieces = program.split(word).skip(1);
    pieces.filter_map(|rest| rest.strip_prefix('"')?.split('"').next()).collect()
}

#[test]
fn tables_are_read_by_their_head() {
    let page =
        "| a | b |\n| --- | --- |\n| `x`, `y` | z \\| w |\n\n| c | d |\n| --- | --- |\n| 1 | 2 |\n";
    assert_eq!(rows(page, "a"), [["`x`, `y`", "z ¦ w", ""]]);
    assert_eq!(code_words("`x`, `y` z").collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(literals_after("f.because(\"one\") g.because(two)", "because("), ["one"].into());
}

#[test]
fn signals_names_no_signal_that_is_not_obeyed() {
    let table = read(&root().join("crates/server/src/master/signals.rs"));
    for row in rows(&page("signals.md"), "signal") {
        for signal in row[0].split(", ") {
            let known = match signal {
                "SIGRTMIN" => table.contains("row(real_time(0),"),
                "SIGRTMIN+1" => table.contains("row(real_time(1),"),
                signal => table.contains(&format!("row({signal},")),
            };
            assert!(known, "docs/signals.md has {signal}, the table of signals has not");
        }
    }
}

#[test]
fn the_status_page_has_no_field_that_is_not_there() {
    let server = Server::start("[server]\nworkers = 1\ntask_workers = 1");
    let mut there = BTreeSet::new();
    fields(&server.status().0, &mut |name| {
        there.insert(name.to_owned());
    });
    for row in rows(&page("status.md"), "field") {
        for word in code_words(&row[0]) {
            let name = word.trim_end_matches("[]").rsplit('.').next().unwrap_or_default();
            assert!(there.contains(name), "docs/status.md has `{word}`, the status has not");
        }
    }
}

#[test]
fn commands_has_no_flag_that_no_verb_takes() {
    let help = |words: &[&str]| process::run(dunlin().args(words).arg("--help")).stdout;
    let verbs = help(&[]);
    let verbs = verbs.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.take_while(|line| !line.is_empty());
    let mut known = String::new();
    for verb in verbs.filter_map(|line| line.split_whitespace().next()) {
        known += &help(&[verb]);
        if verb == "bench" {
            let modes = ["im", "survive", "echo", "rate", "fanout", "connect"];
            modes.iter().for_each(|mode| known += &help(&["bench", mode]));
        }
    }
    for row in rows(&page("commands.md"), "command") {
        let words = row[0].split(['`', ' ', '[', ']', '(', ')', ',', '…']);
        for flag in words.filter(|word| word.starts_with("--")) {
            assert!(names(&known, flag), "docs/commands.md has {flag}, no verb takes it");
        }
    }
}

#[test]
fn protocol_names_no_method_error_or_close_code_that_is_not_there() {
    let (page, im) = (page("protocol.md"), program("crates/im/src"));
    let methods: BTreeSet<String> = rows(&page, "method")
        .iter()
        .flat_map(|row| code_words(&row[0]).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let notifications = literals_after(&im, "notification(");
    for name in &methods {
        let known = METHODS.iter().any(|(method, _)| method == name)
            || notifications.contains(&**name)
            || im.contains(&format!("\"{name}\""));
        assert!(known, "docs/protocol.md has {name}");
    }
    for row in rows(&page, "code").iter().filter(|row| row[0].starts_with("-32")) {
        assert!(CODES.iter().any(|code| code.number().to_string() == row[0]), "{row:?}");
        for reason in code_words(&row[1]) {
            assert!(im.contains(&format!("\"{reason}\"")), "docs/protocol.md has {reason}");
        }
    }
    let engine = program("crates/server/src");
    for row in rows(&page, "code").iter().filter(|row| !row[0].starts_with('-')) {
        for code in row[0].split(", ") {
            let ours = CLOSE_REASONS.iter().any(|reason| reason.code().to_string() == code);
            assert!(
                ours || names(&engine, code) || names(&im, code),
                "docs/protocol.md has {code}"
            );
        }
    }
}

/// What an error is because of is a word that clients look at.
#[test]
fn protocol_names_every_reason_of_an_error() {
    let (page, im) = (page("protocol.md"), program("crates/im/src"));
    let reasons = literals_after(&im, "because(");
    assert!(reasons.len() > 10, "{reasons:?}");
    for reason in reasons {
        assert!(page.contains(&format!("`{reason}`")), "docs/protocol.md does not name {reason}");
    }
}

#[test]
fn api_names_every_error_and_no_other() {
    let (page, api) = (page("api.md"), program("crates/im/src/api"));
    let table = rows(&page, "status");
    let named: BTreeSet<&str> = table.iter().flat_map(|row| code_words(&row[1])).collect();
    for word in &named {
        assert!(api.contains(&format!("\"{word}\"")), "docs/api.md has {word}");
    }
    let made = api.split("ApiError::new(").skip(1).filter_map(|rest| {
        let (status, rest) = rest.split_once(", \"")?;
        Some((status.to_owned(), rest.split('"').next()?.to_owned()))
    });
    let made: BTreeSet<(String, String)> = made.filter(|(status, _)| status.len() == 3).collect();
    assert!(made.len() > 5, "{made:?}");
    for (status, word) in made {
        let row =
            table.iter().any(|row| row[0] == status && code_words(&row[1]).any(|it| it == word));
        assert!(row, "docs/api.md has no row for {status} {word}");
    }
}
