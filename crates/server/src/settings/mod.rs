//! Settings: from files, variables and flags to one resolved list of values, each with its origin.
//!
//! Data-driven: whoever reads settings exports a `&[KeySpec]`, and everything else (defaults, bounds,
//! environment names, `dunlin check`, what a reload may change, suggestions for misspelt keys)
//! follows from it. Knows no particular key, no TOML grammar (the binary turns a file into
//! [`FileLayer`]) and nothing of what the values are for: `config` and the application give them
//! their types.
//!
//! Invariants: 1. A [`Settings`] holds exactly the keys of its specs, each within its bounds.
//! 2. The value of a secret stands in no error and in no `Display`.
//!
//! ```
//! use dunlin_server::settings::{KeyKind, KeySpec, Layers, Settings};
//!
//! const KEYS: &[KeySpec] = &[KeySpec {
//!     key: "nest.eggs",
//!     kind: KeyKind::Count { min: 0, max: 4 },
//!     default: "4",
//!     reloadable: true,
//!     secret: false,
//!     doc: "Eggs in the nest.",
//! }];
//!
//! let mut layers = Layers::default();
//! layers.flag_words("nest.eggs", "3", "--set");
//! let settings = Settings::resolve(&[KEYS], layers).unwrap();
//! assert_eq!(settings.count("nest.eggs"), 3);
//! assert_eq!(settings.origin("nest.eggs").to_string(), "--set");
//! ```

mod resolve;
mod spec;
mod suggest;
mod value;

pub use resolve::{FileEntry, FileLayer, FlagEntry, Layers, SettingsError};
pub use spec::{ENVIRONMENT_PREFIX, KeyKind, KeySpec, Origin, one_line};
pub use value::{Literal, Value, ValueError, duration_text, size_text};

use std::path::{Path, PathBuf};

/// Every known key with its value and where it came from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// In the order of the specs.
    settings: Vec<Setting>,
    file: Option<PathBuf>,
}

/// One key with its value and where it came from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What is known of the key.
    pub spec: &'static KeySpec,
    /// What it holds.
    pub value: Value,
    /// Where that came from.
    pub origin: Origin,
}

impl Setting {
    /// The value as a TOML literal, `***` for a secret that is set.
    #[must_use]
    pub fn shown(&self) -> String {
        let empty = self.value == Value::Text(String::new());
        if self.spec.secret && !empty { "***".to_owned() } else { self.value.to_string() }
    }
}

/// What differs between two settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that a reload takes over.
    pub applied: Vec<&'static str>,
    /// Keys that keep their old value until a restart.
    pub needs_restart: Vec<&'static str>,
}

/// The getters take a key that is known by construction: that of a spec which was given to
/// [`Settings::resolve`], with the getter of its kind. Anything else is a mistake in the program and
/// panics.
impl Settings {
    /// Resolves the layers: flag before environment before file before default.
    ///
    /// # Errors
    /// The first thing that is wrong in file, environment or flags, as one line.
    pub fn resolve(specs: &[&'static [KeySpec]], layers: Layers) -> Result<Self, SettingsError> {
        resolve::resolve(specs, layers)
    }

    /// The number of a `Count` key.
    ///
    /// # Panics
    /// The key is unknown or of another kind.
    #[must_use]
    pub fn count(&self, key: &str) -> u64 {
        match &self.setting(key).value {
            Value::Count(number) => *number,
            other => wrong_kind(key, other),
        }
    }

    /// The milliseconds of a `Duration` key.
    ///
    /// # Panics
    /// The key is unknown or of another kind.
    #[must_use]
    pub fn duration_ms(&self, key: &str) -> u64 {
        match &self.setting(key).value {
            Value::DurationMs(ms) => *ms,
            other => wrong_kind(key, other),
        }
    }

    /// The bytes of a `Size` key.
    ///
    /// # Panics
    /// The key is unknown or of another kind.
    #[must_use]
    pub fn size(&self, key: &str) -> u64 {
        match &self.setting(key).value {
            Value::SizeBytes(bytes) => *bytes,
            other => wrong_kind(key, other),
        }
    }

    /// The truth of a `Bool` key.
    ///
    /// # Panics
    /// The key is unknown or of another kind.
    #[must_use]
    pub fn bool(&self, key: &str) -> bool {
        match &self.setting(key).value {
            Value::Bool(truth) => *truth,
            other => wrong_kind(key, other),
        }
    }

    /// The text of a `Text`, `Choice` or `Path` key.
    ///
    /// # Panics
    /// The key is unknown or of another kind.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        match &self.setting(key).value {
            Value::Text(text) => text,
            other => wrong_kind(key, other),
        }
    }

    /// The path of a `Path` key; `None` if it is empty.
    ///
    /// # Panics
    /// The key is unknown or of another kind.
    #[must_use]
    pub fn path(&self, key: &str) -> Option<&Path> {
        let text = self.text(key);
        (!text.is_empty()).then(|| Path::new(text))
    }

    /// The texts of a `List` key.
    ///
    /// # Panics
    /// The key is unknown or of another kind.
    #[must_use]
    pub fn list(&self, key: &str) -> &[String] {
        match &self.setting(key).value {
            Value::List(items) => items,
            other => wrong_kind(key, other),
        }
    }

    /// Where a key's value came from.
    ///
    /// # Panics
    /// The key is unknown.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        &self.setting(key).origin
    }

    /// All settings, in the order of the specs.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter()
    }

    /// The config file that was read, as it was named.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The keys whose values differ in `newer`.
    #[must_use]
    pub fn diff(&self, newer: &Self) -> Changes {
        let mut changes = Changes::default();
        for (old, new) in self.settings.iter().zip(&newer.settings) {
            debug_assert_eq!(old.spec.key, new.spec.key, "both were resolved by the same specs");
            if old.value != new.value {
                let list = match old.spec.reloadable {
                    true => &mut changes.applied,
                    false => &mut changes.needs_restart,
                };
                list.push(old.spec.key);
            }
        }
        changes
    }

    /// What a reload makes of these settings and newly read ones: the new values, but the old ones
    /// where the key needs a restart; and what changed.
    #[must_use]
    pub fn reloaded(&self, newer: &Self) -> (Self, Changes) {
        let mut merged = newer.clone();
        for (old, new) in self.settings.iter().zip(&mut merged.settings) {
            if !old.spec.reloadable {
                new.clone_from(old);
            }
        }
        (merged, self.diff(newer))
    }

    /// What a program that takes the place of a running one makes of its settings and the `running`
    /// ones, which are pairs of key and TOML literal: as [`Settings::reloaded`].
    pub(crate) fn over_running(
        mut self,
        running: &[(String, String)],
    ) -> Result<(Self, Changes), String> {
        let mut changes = Changes::default();
        for setting in &mut self.settings {
            let spec = setting.spec;
            // A key that what runs did not know.
            let Some((_, literal)) = running.iter().find(|(key, _)| key == spec.key) else {
                continue;
            };
            let kept = Value::read(&spec.kind, &Literal::from_words(literal));
            match kept {
                Ok(kept) if kept == setting.value => {}
                _ if spec.reloadable => changes.applied.push(spec.key),
                Ok(kept) => {
                    changes.needs_restart.push(spec.key);
                    setting.value = kept;
                }
                Err(error) => {
                    let key = spec.key;
                    return Err(format!("the running value of {key} cannot be kept: {error}"));
                }
            }
        }
        Ok((self, changes))
    }

    fn setting(&self, key: &str) -> &Setting {
        self.settings
            .iter()
            .find(|setting| setting.spec.key == key)
            .unwrap_or_else(|| panic!("{key} stands in no spec these settings were resolved by"))
    }
}

fn wrong_kind(key: &str, value: &Value) -> ! {
    panic!("{key} holds {value:?}, which another getter reads")
}

#[cfg(test)]
mod tests;
