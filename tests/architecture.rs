//! The house rules that a compiler does not check: arrows between crates, who may use what, where unsafe
//! code lives, how long a file may be. Reads manifests and sources, runs nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates of ours that each may use: the arrows never turn back.
const ARROWS: [(&str, &str, &[&str]); 4] = [
    ("crates/table", "dunlin-table", &[]),
    ("crates/server", "dunlin-server", &["dunlin-table"]),
    ("crates/im", "dunlin-im", &["dunlin-server", "dunlin-table"]),
    (".", "dunlin", &["dunlin-im", "dunlin-server"]),
];

/// Who may use which crates of others; what is not here nobody may.
const FENCE: [(&[&str], &[&str]); 8] = [
    // `nix` and `loom`: the table maps its kept descriptor, and checks its protocols.
    (&["dunlin-table"], &["shared_memory", "nix", "loom"]),
    (
        &["dunlin-server"],
        &[
            "nix",
            "libc",
            "mio",
            "tungstenite",
            "signal-hook",
            "bincode",
            "slab",
            "httparse",
            "flate2",
            "simdutf8",
            "socket2",
            "strsim",
            "seccompiler",
        ],
    ),
    (&["dunlin-im"], &["redis", "jsonwebtoken", "ureq", "rustls", "aws-lc-rs"]),
    (&["dunlin"], &["clap", "clap_complete", "clap_mangen", "toml", "tracing-subscriber"]),
    (&["dunlin"], &["ratatui", "indicatif", "hdrhistogram"]),
    // What `bench` loads a server with: sockets of its own, and signals to the server's processes.
    (&["dunlin"], &["mio", "nix", "socket2"]),
    // What `chat` speaks with, tests as a client and as the server that is made to lie, too.
    (&["dunlin"], &["tungstenite", "rustls", "rustls-native-certs", "jiff", "unicode-width"]),
    (
        &["dunlin-table", "dunlin-server", "dunlin-im", "dunlin"],
        &["serde", "serde_json", "thiserror", "tracing", "getrandom"],
    ),
];

/// What tests alone may use, beside what their crate does.
const IN_TESTS: [(&str, &[&str]); 4] = [
    ("dunlin-table", &["proptest"]),
    ("dunlin-server", &["proptest", "tempfile", "clap", "tracing-subscriber"]),
    ("dunlin-im", &["proptest", "tempfile", "clap", "tracing-subscriber"]),
    ("dunlin", &["proptest", "tempfile"]),
];

/// The two rooms where unsafe code lives; and what shows and tests the table between processes, which
/// has to fork and has no server to do it.
const UNSAFE_ROOMS: [&str; 4] = [
    "crates/table/src/region.rs",
    "crates/server/src/sys/",
    "crates/table/examples/",
    "crates/table/tests/",
];

const FILE_LINES_MAX: usize = 800;
const CODE_LINES_MAX: usize = 500;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Dependencies of a manifest: (section, name).
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            // `[dependencies.x]` is a dependency in a section of its own.
            let (kind, dependency) = match name.rsplit_once("dependencies.") {
                Some((before, dependency)) => (format!("{before}dependencies"), Some(dependency)),
                None => (name.to_owned(), None),
            };
            section = kind;
            found.extend(dependency.map(|name| (section.clone(), name.to_owned())));
        } else if section.ends_with("dependencies")
            && let Some(name) = line.split(['=', '.', ' ']).next()
            && !name.is_empty()
            && !name.starts_with('#')
        {
            found.push((section.clone(), name.to_owned()));
        }
    }
    found.retain(|(section, _)| !section.starts_with("workspace"));
    found
}

fn manifest(place: &str) -> String {
    fs::read_to_string(root().join(place).join("Cargo.toml")).expect("a manifest")
}

#[test]
fn arrows_between_crates_never_turn_back() {
    for (place, name, allowed) in ARROWS {
        let manifest = manifest(place);
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{place}");
        for (section, dependency) in dependencies(&manifest) {
            if dependency.starts_with("dunlin") {
                assert!(
                    allowed.contains(&dependency.as_str()),
                    "{name} may not use {dependency} ([{section}])"
                );
            }
        }
    }
    let crates = fs::read_dir(root().join("crates")).expect("the crates").flatten();
    assert_eq!(crates.count(), ARROWS.len() - 1, "a new crate needs its row in ARROWS");
}

#[test]
fn crates_of_others_stay_behind_their_fence() {
    let mut seen = 0;
    for (place, name, _) in ARROWS {
        for (section, dependency) in dependencies(&manifest(place)) {
            if dependency.starts_with("dunlin") {
                continue;
            }
            seen += 1;
            let by_fence = FENCE.iter().any(|(users, crates)| {
                users.contains(&name) && crates.contains(&dependency.as_str())
            });
            let by_tests = section == "dev-dependencies"
                && IN_TESTS
                    .iter()
                    .any(|(user, crates)| *user == name && crates.contains(&dependency.as_str()));
            assert!(by_fence || by_tests, "{name} may not use {dependency} ([{section}])");
        }
    }
    assert!(seen > 20, "only {seen} dependencies were found");
}

#[test]
fn manifests_are_read_as_cargo_reads_them() {
    let text = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\nb = \"1\"\n# c\n\
                [target.'cfg(x)'.dependencies]\nd = { path = \"e\" }\n[dependencies.f]\nversion = \"1\"\n\
                [workspace.dependencies]\ng = \"1\"\n";
    let names: Vec<String> = dependencies(text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(
        names,
        ["a", "b", "d", "f", "version"],
        "a version is no crate of the fence: it fails loudly"
    );
}

#[test]
fn unsafe_code_lives_in_two_rooms() {
    let mut outside = Vec::new();
    for (path, text) in sources() {
        let is_room = UNSAFE_ROOMS.iter().any(|room| path.starts_with(room));
        let word = |line: &&str| {
            let code = line.split("//").next().unwrap_or_default();
            [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "unsafe extern",
                "allow(unsafe",
                "expect(unsafe",
            ]
            .iter()
            .any(|word| code.contains(word))
                && !code.contains('"')
        };
        if !is_room && path != THIS_FILE {
            outside
                .extend(text.lines().filter(word).map(|line| format!("{path}: {}", line.trim())));
        }
    }
    assert!(outside.is_empty(), "unsafe code outside its rooms:\n{}", outside.join("\n"));
}

const THIS_FILE: &str = "tests/architecture.rs";

#[test]
fn crates_that_need_no_unsafe_code_forbid_it() {
    for (file, what) in [("crates/im/src/lib.rs", "im"), ("bin/main.rs", "bin")] {
        let text = fs::read_to_string(root().join(file)).expect("it is there");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{what} forbids unsafe code in {file}");
    }
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let code = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        let all = text.lines().count();
        // Of tests only the whole counts.
        if all > FILE_LINES_MAX || (!is_test(&path) && code > CODE_LINES_MAX) {
            long.push(format!("{path}: {all} lines, {code} before its tests"));
        }
    }
    assert!(long.is_empty(), "split what has two ideas:\n{}", long.join("\n"));
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests") || path.ends_with("tests.rs")
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no module header: {silent:?}");
}

#[test]
fn knowledge_flows_one_way() {
    // Words of a room above, as identifiers in code; comments may name them.
    for (room, words) in [
        (
            "crates/table/src",
            &["mio::", "tungstenite", "WebSocket", "dunlin_server", "dunlin_im"][..],
        ),
        ("crates/server/src", &["dunlin_im", "UserId", "RoomId", "DeviceId", "jsonrpc", "redis"]),
        (
            "crates/im/src",
            &["nix::", "mio::", "libc", "RawFd", "fork(", "signal_hook", "mio::Token"],
        ),
    ] {
        for (path, text) in sources() {
            if !path.starts_with(room) || is_test(&path) {
                continue;
            }
            for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
                let code = line.split("//").next().unwrap_or_default();
                for word in words {
                    assert!(!knows(code, word), "{path} knows {word:?}: {}", line.trim());
                }
            }
        }
    }
}

/// Whether a word stands in code, and not as the end of another, as `nix::` does in `unix::`.
fn knows(code: &str, word: &str) -> bool {
    let is_part = |before: char| before.is_alphanumeric() || before == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].chars().next_back().is_some_and(is_part))
}

/// Every Rust source of the project: path from the root, text.
fn sources() -> Vec<(String, String)> {
    let mut files = BTreeSet::new();
    for place in ["bin", "crates", "tests"] {
        collect(&root().join(place), "rs", &mut files);
    }
    assert!(files.len() > 80, "only {} sources were found", files.len());
    files.into_iter().map(|path| (shown(&path), read(&path))).collect()
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The files of a folder with this ending, not those that tools put there.
pub(crate) fn collect(folder: &Path, ending: &str, into: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && name != ".git" {
                collect(&path, ending, into);
            }
        } else if path.extension().is_some_and(|found| found == ending) {
            into.insert(path);
        }
    }
}
