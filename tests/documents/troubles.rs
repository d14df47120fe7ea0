//! What pages say of log lines, keys and fields: all that are needed, and none that are not there.

use super::{page, pages};
use crate::architecture::{collect, read, root, shown};
use dunlin_im::IM_KEYS;
use dunlin_server::config::SERVER_KEYS;
use std::collections::BTreeSet;

/// What a program logs by these macros: the words of each line.
fn lines_of_the_log(source: &str) -> Vec<String> {
    let program = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let calls = ["error!(", "warn!(", "limited!("]
        .into_iter()
        .flat_map(|name| program.match_indices(name).map(move |(at, _)| (at, at + name.len())));
    // Not `some_error!(`, and not in a comment that explains one.
    let by_itself = |at: usize| {
        let before = &program[program[..at].rfind('\n').map_or(0, |end| end + 1)..at];
        !before.contains("//")
            && !before.ends_with(|last: char| last.is_alphanumeric() || last == '_')
    };
    let calls = calls.filter(|(at, _)| by_itself(*at));
    calls.filter_map(|(_, begin)| last_text(&program[begin..])).collect()
}

/// The last literal text of a macro's arguments: what it says. The others are names and values.
fn last_text(arguments: &str) -> Option<String> {
    let (mut depth, mut text, mut last) = (1, None::<String>, None);
    let mut letters = arguments.chars();
    while let Some(letter) = letters.next() {
        match (&mut text, letter) {
            (Some(_), '"') => last = text.take(),
            (Some(text), '\\') => text.extend(letters.next()),
            (Some(text), letter) => text.push(letter),
            (None, '"') => text = Some(String::new()),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
        if depth == 0 {
            break;
        }
    }
    last
}

#[test]
fn words_of_a_line_are_found() {
    let source =
        "error!(%a, b = f(\"x\"), \"it \\\"broke\\\" {c}\");\n// warn!(\"no\")\nwarn!(\"so\");";
    assert_eq!(lines_of_the_log(source), ["it \"broke\" {c}", "so"]);
}

#[test]
fn every_line_of_the_log_is_explained() {
    let page = page("troubleshooting.md");
    let mut files = BTreeSet::new();
    for place in ["crates/server/src", "crates/im/src", "bin"] {
        collect(&root().join(place), "rs", &mut files);
    }
    let mut found = 0;
    for path in files {
        for words in lines_of_the_log(&read(&path)) {
            let path = shown(&path);
            // A value in it ends what is compared.
            let explained = match words.split_once('{') {
                Some((begin, _)) => page.contains(&format!("`{begin}")),
                None => page.contains(&format!("`{words}`")),
            };
            assert!(explained, "{path}: docs/troubleshooting.md does not have `{words}`");
            found += 1;
        }
    }
    assert!(found > 70, "only {found} lines were found");
}

/// A key that pages name in code font is one of the config, or a field of the status: a reader looks for it.
#[test]
fn keys_that_pages_name_are_there() {
    let server = crate::support::Server::start("[server]\nworkers = 1\ntask_workers = 1");
    let status = server.status().0;
    let keys: BTreeSet<&str> = SERVER_KEYS.iter().chain(IM_KEYS).map(|spec| spec.key).collect();
    let sections: BTreeSet<&str> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    let mut named = 0;
    for (path, text) in pages().into_iter().filter(|(path, _)| path.starts_with("docs/")) {
        let words = text
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|word| word.split(['=', ' ']).next().unwrap_or_default());
        for word in words {
            let Some((section, name)) = word.split_once('.') else { continue };
            let is_name = name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
            if !sections.contains(section) || !is_name || ["", "toml", "rs", "md"].contains(&name) {
                continue;
            }
            let field = format!("/{section}/{name}");
            let there = keys.contains(word) || status.pointer(&field).is_some();
            assert!(there, "{path} names `{word}`, which is no key and no field of the status");
            named += 1;
        }
    }
    assert!(named > 200, "only {named} keys are named");
}
