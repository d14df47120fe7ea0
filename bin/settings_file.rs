//! From what was typed to [`Settings`]: finds the config file, reads its TOML, and lays flags and
//! environment over it. The same again at each reload.
//!
//! Knows no key but those that have a flag of their own.

use crate::cli::{ServerFlags, SettingsFlags};
use crate::failure::Failure;
use dunlin_im::IM_KEYS;
use dunlin_server::config::{Config, SERVER_KEYS};
use dunlin_server::run_dir::RunDir;
use dunlin_server::settings::{FileEntry, FileLayer, KeySpec, Layers, Literal, Settings};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The keys of everything in this binary.
const KEYS: &[&[KeySpec]] = &[SERVER_KEYS, IM_KEYS];

/// Where the config file is looked for when none is named.
const PLACES: [&str; 2] = ["dunlin.toml", "/etc/dunlin/dunlin.toml"];

/// A config file is at most so many bytes.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Where settings come from. Flags, environment and the file's place are those of the start; only
/// the file's content is read anew.
#[derive(Debug)]
pub(crate) struct Sources {
    layers: Layers,
    file: Option<NamedFile>,
}

#[derive(Debug)]
struct NamedFile {
    /// As people named it.
    shown: PathBuf,
    /// As it is found from any working directory.
    absolute: PathBuf,
}

impl Sources {
    /// Takes flags and environment, and finds the file.
    ///
    /// # Errors
    /// `--set` without `=`.
    pub(crate) fn new(flags: &SettingsFlags) -> Result<Self, Failure> {
        let mut layers = Layers::default();
        layers.take_environment();
        let words = [
            (&flags.workers, "server.workers", "-w"),
            (&flags.task_workers, "server.task_workers", "-t"),
            (&flags.max_sessions, "table.max_sessions", "--max-sessions"),
        ];
        // First, so that a flag of its own goes before a --set of the same key.
        for assignment in &flags.set {
            let Some((key, value)) = assignment.split_once('=') else {
                return Err(Failure::bad_usage(format!(
                    "--set wants KEY=VALUE, such as --set log.level=debug, not {assignment:?}"
                )));
            };
            layers.flag_words(key.trim(), value, "--set");
        }
        for (value, key, flag) in words {
            if let Some(value) = value {
                layers.flag_words(key, value, flag);
            }
        }
        if !flags.listen.is_empty() {
            let addresses = flags.listen.iter().cloned().map(Literal::Text).collect();
            layers.flag("server.listen", Literal::List(addresses), "-l");
        }
        if let Some(path) = &flags.run_dir {
            let path = path.to_string_lossy().into_owned();
            layers.flag("server.run_dir", Literal::Text(path), "--run-dir");
        }
        Ok(Self { layers, file: find(flags.config.as_deref()) })
    }

    /// The same with the daemon flag.
    pub(crate) fn daemonize(mut self) -> Self {
        self.layers.flag("server.daemonize", Literal::Bool(true), "-d");
        self
    }

    /// Reads the file and resolves everything.
    ///
    /// # Errors
    /// The file cannot be read, or something in file, environment or flags is wrong.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let mut layers = self.layers.clone();
        layers.file = self.file.as_ref().map(read).transpose()?;
        Ok(Settings::resolve(KEYS, layers)?)
    }
}

/// The run directory a verb means: the flag, else what `dunlin serve` would take here. Settings that
/// are wrong do not keep anybody from stopping a server.
pub(crate) fn run_dir(flags: &ServerFlags) -> PathBuf {
    if let Some(given) = &flags.run_dir {
        return RunDir::locate(Some(given)).path().to_owned();
    }
    Sources::new(&SettingsFlags::default())
        .and_then(|sources| sources.settings())
        .and_then(|settings| Ok(Config::from_settings(settings)?))
        .map_or_else(|_| RunDir::locate(None).path().to_owned(), |config| config.run_dir)
}

fn find(named: Option<&Path>) -> Option<NamedFile> {
    let shown = match named {
        Some(path) => path.to_owned(),
        None => PLACES.iter().map(PathBuf::from).find(|place| place.exists())?,
    };
    let absolute = std::path::absolute(&shown).unwrap_or_else(|_| shown.clone());
    Some(NamedFile { shown, absolute })
}

fn read(file: &NamedFile) -> Result<FileLayer, Failure> {
    let shown = file.shown.display();
    let mut text = String::new();
    File::open(&file.absolute)
        .and_then(|opened| opened.take(FILE_MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| Failure::bad_usage(format!("cannot read {shown}: {error}")))?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(Failure::bad_usage(format!("{shown} is longer than {FILE_MAX_BYTES} bytes")));
    }
    let entries = entries(&text)
        .map_err(|(line, problem)| Failure::bad_usage(format!("{shown}:{line}: {problem}")))?;
    Ok(FileLayer { path: file.shown.clone(), entries })
}

/// The keys of a TOML text in the order of their lines, or the line that is no TOML and why.
fn entries(text: &str) -> Result<Vec<FileEntry>, (usize, String)> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let problem: Vec<&str> = error.message().split_whitespace().collect();
        (line_of(text, at), problem.join(" "))
    })?;
    let mut entries = Vec::new();
    flatten(text, "", table.get_ref(), &mut entries);
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn flatten(text: &str, section: &str, table: &DeTable<'_>, into: &mut Vec<FileEntry>) {
    for (name, value) in table {
        // A quoted name with a dot is one name, and none of ours.
        let part = match name.get_ref().contains('.') {
            true => format!("{:?}", name.get_ref()),
            false => name.get_ref().to_string(),
        };
        let key = if section.is_empty() { part } else { format!("{section}.{part}") };
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(text, &key, inner, into),
            value => into.push(FileEntry {
                key,
                value: literal(value),
                line: line_of(text, name.span().start),
            }),
        }
    }
}

fn literal(value: &DeValue<'_>) -> Literal {
    match value {
        DeValue::String(text) => Literal::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Literal::Other("a number of more than 64 bits"), Literal::Integer),
        DeValue::Boolean(truth) => Literal::Bool(*truth),
        DeValue::Float(_) => Literal::Other("a float"),
        DeValue::Datetime(_) => Literal::Other("a date"),
        DeValue::Array(items) => {
            Literal::List(items.iter().map(|item| literal(item.get_ref())).collect())
        }
        DeValue::Table(_) => Literal::Section,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_entries(text: &str) -> Vec<(String, Literal, usize)> {
        let entries = entries(text).unwrap();
        entries.into_iter().map(|entry| (entry.key, entry.value, entry.line)).collect()
    }

    #[test]
    fn keys_have_their_section_and_line_whatever_the_notation() {
        let text = "# a comment\n[server]\nworkers = 0x1F\nlisten = [\n  'a',\n]\n\n[table]\n\n[log]\nlevel = \"info\"\nfile.x = 1.5\n";
        assert_eq!(
            read_entries(text),
            [
                ("server.workers".into(), Literal::Integer(31), 3),
                ("server.listen".into(), Literal::List(vec![Literal::Text("a".into())]), 4),
                ("table".into(), Literal::Section, 8),
                ("log.level".into(), Literal::Text("info".into()), 11),
                ("log.file.x".into(), Literal::Other("a float"), 12),
            ]
        );
        assert_eq!(read_entries("a.b = -1\n"), [("a.b".into(), Literal::Integer(-1), 1)]);
        assert_eq!(read_entries("\"a.b\" = true"), [("\"a.b\"".into(), Literal::Bool(true), 1)]);
        assert_eq!(read_entries(""), []);
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line() {
        for (text, line) in [("a = \n", 1), ("[a]\nb = 1\nb = 2\n", 3), ("x = 1\n\n[[\n", 3)] {
            let (found, problem) = entries(text).unwrap_err();
            assert_eq!(found, line, "{text:?}: {problem}");
            assert!(!problem.contains('\n') && !problem.is_empty());
        }
    }
}
