//! From layers to [`Settings`]: flag before environment before file before default.
//!
//! Reads nothing itself but, where it is asked to, the environment; the layers are given.

use super::spec::{ENVIRONMENT_PREFIX, KeySpec, Origin, environment_name, one_line};
use super::suggest::{Nearest, nearest_key};
use super::value::{Literal, Value, ValueError};
use super::{Setting, Settings};
use std::path::PathBuf;

/// What was said about settings, and where.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The config file, if there is one.
    pub file: Option<FileLayer>,
    /// Environment variables; names that are not ours are ignored.
    pub environment: Vec<(String, String)>,
    /// The command line, in its order: a later flag wins.
    pub flags: Vec<FlagEntry>,
}

impl Layers {
    /// Takes the variables of this process that begin with [`ENVIRONMENT_PREFIX`].
    pub fn take_environment(&mut self) {
        self.environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let value = value.to_string_lossy().into_owned();
                name.starts_with(ENVIRONMENT_PREFIX).then_some((name, value))
            })
            .collect();
    }

    /// Adds a flag whose value is a TOML literal or a bare word.
    pub fn flag_words(&mut self, key: &str, value: &str, flag: &str) {
        self.flag(key, Literal::from_words(value), flag);
    }

    /// Adds a flag with its value.
    pub fn flag(&mut self, key: &str, value: Literal, flag: &str) {
        self.flags.push(FlagEntry { key: key.to_owned(), value, flag: flag.to_owned() });
    }
}

/// The content of a config file.
#[derive(Clone, Debug)]
pub struct FileLayer {
    /// Its path, as people named it.
    pub path: PathBuf,
    /// What stands in it.
    pub entries: Vec<FileEntry>,
}

/// One key of a config file.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// The dotted key.
    pub key: String,
    /// What stands behind it.
    pub value: Literal,
    /// The line, counted from 1.
    pub line: usize,
}

/// One flag that sets a key.
#[derive(Clone, Debug)]
pub struct FlagEntry {
    /// The dotted key.
    pub key: String,
    /// Its value.
    pub value: Literal,
    /// The flag, as it was written: `-w`, `--set`.
    pub flag: String,
}

/// What is wrong with the settings, as one line that begins with the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nobody reads this key.
    #[error("{origin}: unknown key {}{}", one_line(.key), suggestion(.nearest, *.alike))]
    UnknownKey {
        /// Where it was written.
        origin: Origin,
        /// The key.
        key: String,
        /// The nearest known one, in the notation of that place; `None`: there are no keys.
        nearest: Option<String>,
        /// Whether that was probably meant.
        alike: bool,
    },
    /// The value does not fit the key.
    #[error("{origin}: {key} {problem}")]
    BadValue {
        /// Where it was written.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What does not fit.
        problem: ValueError,
    },
    /// A secret was given as a flag, where every user of the machine can read it.
    #[error("{origin}: {key} is a secret and is not taken from the command line; {instead}")]
    SecretFlag {
        /// The flag.
        origin: Origin,
        /// The key.
        key: &'static str,
        /// What to do instead.
        instead: String,
    },
}

fn suggestion(nearest: &Option<String>, alike: bool) -> String {
    match nearest {
        Some(key) if alike => format!("; did you mean {key}?"),
        Some(key) => format!("; the nearest known key is {key}"),
        None => String::new(),
    }
}

/// See [`Settings::resolve`].
pub(super) fn resolve(
    specs: &[&'static [KeySpec]],
    layers: Layers,
) -> Result<Settings, SettingsError> {
    let mut resolver = Resolver { settings: Vec::new() };
    for spec in specs.iter().copied().flatten() {
        resolver.add_default(spec)?;
    }
    let file = layers.file.as_ref().map(|file| file.path.clone());
    for (key, literal, origin) in layers.file.into_iter().flat_map(file_entries) {
        resolver.set(&key, &literal, origin)?;
    }
    for (name, text) in layers.environment {
        if let Some(key) = key_of_variable(&name) {
            resolver.set(&key, &Literal::from_words(&text), Origin::Environment(name))?;
        }
    }
    for FlagEntry { key, value, flag } in layers.flags {
        resolver.set(&key, &value, Origin::Flag(flag))?;
    }
    Ok(Settings { settings: resolver.settings, file })
}

fn file_entries(file: FileLayer) -> impl Iterator<Item = (String, Literal, Origin)> {
    let path = file.path;
    file.entries.into_iter().map(move |entry| {
        (entry.key, entry.value, Origin::File { path: path.clone(), line: entry.line })
    })
}

/// `server.workers` of `DUNLIN_SERVER__WORKERS`; `None` if the name is not one of ours.
fn key_of_variable(name: &str) -> Option<String> {
    let key = name.strip_prefix(ENVIRONMENT_PREFIX)?;
    key.contains("__").then(|| key.replace("__", ".").to_lowercase())
}

struct Resolver {
    settings: Vec<Setting>,
}

impl Resolver {
    fn add_default(&mut self, spec: &'static KeySpec) -> Result<(), SettingsError> {
        debug_assert!(self.find(spec.key).is_none(), "{} stands in two specs", spec.key);
        let value = read(spec, &Literal::from_words(spec.default), &Origin::Default)?;
        self.settings.push(Setting { spec, value, origin: Origin::Default });
        Ok(())
    }

    fn set(&mut self, key: &str, literal: &Literal, origin: Origin) -> Result<(), SettingsError> {
        let Some(index) = self.find(key) else {
            if *literal == Literal::Section && self.is_section(key) {
                return Ok(());
            }
            return Err(self.unknown(key, origin));
        };
        let spec = self.settings[index].spec;
        if spec.secret && matches!(origin, Origin::Flag(_)) {
            return Err(SettingsError::SecretFlag {
                origin,
                key: spec.key,
                instead: self.road_of_secret(spec),
            });
        }
        let value = read(spec, literal, &origin)?;
        self.settings[index] = Setting { spec, value, origin };
        Ok(())
    }

    fn find(&self, key: &str) -> Option<usize> {
        self.settings.iter().position(|setting| setting.spec.key == key)
    }

    fn is_section(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| {
            setting.spec.key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
        })
    }

    fn unknown(&self, key: &str, origin: Origin) -> SettingsError {
        // What would be refused where it was written is no advice.
        let is_flag = matches!(origin, Origin::Flag(_));
        let known = self.settings.iter().map(|setting| setting.spec);
        let known: Vec<&str> =
            known.filter(|spec| !(is_flag && spec.secret)).map(|spec| spec.key).collect();
        let found = nearest_key(key, &known);
        let alike = found.is_some_and(|Nearest { alike, .. }| alike);
        let nearest = found.map(|Nearest { key: known, .. }| match &origin {
            Origin::Environment(_) => environment_name(known),
            _ => known.to_owned(),
        });
        SettingsError::UnknownKey { origin, key: key.to_owned(), nearest, alike }
    }

    fn road_of_secret(&self, spec: &KeySpec) -> String {
        let file_key = format!("{}_file", spec.key);
        match self.find(&file_key) {
            Some(_) => format!("set {file_key} to a file that holds it"),
            None => format!("use the config file or {}", spec.environment_name()),
        }
    }
}

fn read(
    spec: &'static KeySpec,
    literal: &Literal,
    origin: &Origin,
) -> Result<Value, SettingsError> {
    Value::read(&spec.kind, literal).map_err(|problem| SettingsError::BadValue {
        origin: origin.clone(),
        key: spec.key,
        problem: if spec.secret { hidden(problem) } else { problem },
    })
}

/// The same error without what was written.
fn hidden(error: ValueError) -> ValueError {
    let got = "***".to_owned();
    match error {
        ValueError::Kind { wanted, .. } => ValueError::Kind { wanted, got },
        ValueError::TooSmall { least, .. } => ValueError::TooSmall { got, least },
        ValueError::TooLarge { most, .. } => ValueError::TooLarge { got, most },
    }
}
