//! `config/dunlin.toml` documents every key, equal to its default: what `dunlin check` makes of it is
//! what it makes of nothing, but for the origins. Keys, section order and values are compared.

use std::path::Path;
use std::process::{Command, Output};

#[test]
fn the_documented_config_holds_every_key_at_its_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/dunlin.toml");
    let documented = settings(&check(&["-c", file.to_str().expect("a path in UTF-8")]));
    let defaults = settings(&check(&[]));
    assert_eq!(values(&documented), values(&defaults));
    for (key, _, origin) in &defaults {
        assert_eq!(origin, "default", "{key} has no other source in an empty directory");
    }
    for (key, _, origin) in &documented {
        assert!(
            origin.contains("dunlin.toml:"),
            "{key} stands in config/dunlin.toml, not {origin}"
        );
    }
}

#[test]
fn every_documented_key_says_whether_a_reload_takes_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/dunlin.toml");
    let text = std::fs::read_to_string(file).expect("the file is in the repository");
    let (mut comment, mut keys) = (String::new(), 0);
    for line in text.lines() {
        match line.strip_prefix('#') {
            Some(words) => comment.push_str(words),
            None if line.contains(" = ") => {
                let said = comment.ends_with("Reload.") || comment.ends_with("Restart.");
                assert!(said, "the comment of `{line}` ends with Reload. or Restart.");
                comment.clear();
                keys += 1;
            }
            None => comment.clear(),
        }
    }
    assert!(keys > 20, "only {keys} keys were found");
}

/// `dunlin check` where no config file and no variable of ours is.
fn check(flags: &[&str]) -> String {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.arg("check").args(flags).current_dir(empty.path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DUNLIN_") {
            command.env_remove(name);
        }
    }
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("UTF-8")
}

/// (dotted key, value, origin) of each line.
fn settings(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((setting, origin)) = line.rsplit_once(" # ") {
            let (name, value) = setting.split_once(" = ").expect("NAME = VALUE # ORIGIN");
            found.push((format!("{section}.{name}"), value.trim().to_owned(), origin.to_owned()));
        }
    }
    found
}

fn values(settings: &[(String, String, String)]) -> Vec<(&str, &str)> {
    settings.iter().map(|(key, value, _)| (key.as_str(), value.as_str())).collect()
}
