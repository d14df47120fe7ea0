//! Values of settings: what stands in a file, a variable or a flag ([`Literal`]), and what it means
//! for a key ([`Value`]).
//!
//! Knows no key and no file. Invariants: 1. Reading never panics, whatever is given. 2. What a
//! [`Value`] displays reads back as the same value.

use super::spec::KeyKind;
use std::fmt;

/// What was written for a key, before it is known what the key wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Self>),
    /// A table, given as a section without any key in it.
    Section,
    /// Something no setting takes, by what it is called: `a float`.
    Other(&'static str),
    /// A bare word of the command line or the environment, whose type the key decides.
    Word(String),
}

impl Literal {
    /// Reads the value of a flag or an environment variable: a TOML string or array of strings, or
    /// a bare word.
    #[must_use]
    pub fn from_words(text: &str) -> Self {
        let trimmed = text.trim();
        match trimmed.chars().next() {
            Some('"' | '\'') => quoted(trimmed)
                .filter(|(_, rest)| rest.is_empty())
                .map(|(text, _)| Self::Text(text))
                .unwrap_or(Self::Other("an unfinished string")),
            Some('[') if !is_address(trimmed) => {
                array(trimmed).map_or(Self::Other("an unfinished list"), Self::List)
            }
            _ => Self::Word(trimmed.to_owned()),
        }
    }
}

/// As people should see it in an error.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Word(text) => write!(f, "{text:?}"),
            Self::Integer(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::List(_) => f.write_str("a list"),
            Self::Section => f.write_str("a section"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// What a setting holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a [`KeyKind::Bool`].
    Bool(bool),
    /// Of a [`KeyKind::Count`].
    Count(u64),
    /// Of a [`KeyKind::Duration`], in milliseconds.
    DurationMs(u64),
    /// Of a [`KeyKind::Size`], in bytes.
    SizeBytes(u64),
    /// Of a [`KeyKind::Text`], [`KeyKind::Path`] or [`KeyKind::Choice`].
    Text(String),
    /// Of a [`KeyKind::List`].
    List(Vec<String>),
}

impl Value {
    /// What `literal` means for a key of this kind.
    ///
    /// # Errors
    /// It is of another type, or beyond the kind's bounds.
    pub fn read(kind: &KeyKind, literal: &Literal) -> Result<Self, ValueError> {
        let value = match kind {
            KeyKind::Bool => boolean(literal).map(Self::Bool),
            KeyKind::Count { .. } => count(literal).map(Self::Count),
            KeyKind::Duration { .. } => duration_ms(literal).map(Self::DurationMs),
            KeyKind::Size { .. } => size_bytes(literal).map(Self::SizeBytes),
            KeyKind::Text | KeyKind::Path | KeyKind::Choice(_) => text(literal).map(Self::Text),
            KeyKind::List => list(literal).map(Self::List),
        };
        let wrong = || ValueError::Kind { wanted: kind.to_string(), got: literal.to_string() };
        let value = value.ok_or_else(wrong)?;
        match (kind, &value) {
            (KeyKind::Choice(words), Self::Text(word)) if !words.contains(&word.as_str()) => {
                Err(wrong())
            }
            _ => value.within(kind),
        }
    }

    fn within(self, kind: &KeyKind) -> Result<Self, ValueError> {
        let (number, min, max, write): (u64, u64, u64, fn(u64) -> String) = match (kind, &self) {
            (KeyKind::Count { min, max }, Self::Count(n)) => (*n, *min, *max, |n| n.to_string()),
            (KeyKind::Duration { min_ms, max_ms }, Self::DurationMs(n)) => {
                (*n, *min_ms, *max_ms, duration_text)
            }
            (KeyKind::Size { min, max }, Self::SizeBytes(n)) => (*n, *min, *max, size_text),
            _ => return Ok(self),
        };
        if number < min {
            return Err(ValueError::TooSmall { got: write(number), least: write(min) });
        }
        if number > max {
            return Err(ValueError::TooLarge { got: write(number), most: write(max) });
        }
        Ok(self)
    }
}

/// As a TOML literal.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(truth) => truth.fmt(f),
            Self::Count(number) => number.fmt(f),
            Self::DurationMs(ms) => write!(f, "\"{}\"", duration_text(*ms)),
            Self::SizeBytes(bytes) => write!(f, "\"{}\"", size_text(*bytes)),
            Self::Text(text) => f.write_str(&quote(text)),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quote(item)).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// A literal does not fit its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It is of another type, or none of the words that are allowed.
    #[error("wants {wanted}, not {got}")]
    Kind {
        /// What the key wants.
        wanted: String,
        /// What was written.
        got: String,
    },
    /// It is below the bound.
    #[error("is {got}, but must be at least {least}")]
    TooSmall {
        /// What was written.
        got: String,
        /// The bound.
        least: String,
    },
    /// It is above the bound.
    #[error("is {got}, but must be at most {most}")]
    TooLarge {
        /// What was written.
        got: String,
        /// The bound.
        most: String,
    },
}

/// A duration as it is written in a config file, in the largest unit that divides it.
#[must_use]
pub fn duration_text(ms: u64) -> String {
    in_largest_unit(ms, &DURATION_UNITS)
}

/// A size as it is written in a config file, in the largest unit that divides it.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    in_largest_unit(bytes, &SIZE_UNITS)
}

/// Units of time in milliseconds, smallest first.
const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Units of size in bytes, smallest first.
const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn in_largest_unit(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |unit: &&(&str, u64)| number != 0 && number.is_multiple_of(unit.1);
    let (name, factor) = units.iter().rev().find(fits).copied().unwrap_or(units[0]);
    format!("{}{name}", number / factor)
}

/// `"10s"` by its unit; only zero may stand without one.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    if unit.is_empty() && number == 0 {
        return Some(0);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*factor)
}

fn boolean(literal: &Literal) -> Option<bool> {
    match literal {
        Literal::Bool(truth) => Some(*truth),
        Literal::Word(word) if word == "true" => Some(true),
        Literal::Word(word) if word == "false" => Some(false),
        _ => None,
    }
}

fn count(literal: &Literal) -> Option<u64> {
    match literal {
        Literal::Integer(number) => u64::try_from(*number).ok(),
        Literal::Word(word) if word.starts_with(|c: char| c.is_ascii_digit()) => {
            word.replace('_', "").parse().ok()
        }
        _ => None,
    }
}

fn duration_ms(literal: &Literal) -> Option<u64> {
    match literal {
        Literal::Integer(0) => Some(0),
        Literal::Text(text) | Literal::Word(text) => with_unit(text, &DURATION_UNITS),
        _ => None,
    }
}

fn size_bytes(literal: &Literal) -> Option<u64> {
    match literal {
        Literal::Text(text) => with_unit(text, &SIZE_UNITS),
        Literal::Word(text) => count(literal).or_else(|| with_unit(text, &SIZE_UNITS)),
        _ => count(literal),
    }
}

fn text(literal: &Literal) -> Option<String> {
    match literal {
        Literal::Text(text) | Literal::Word(text) => Some(text.clone()),
        _ => None,
    }
}

fn list(literal: &Literal) -> Option<Vec<String>> {
    match literal {
        Literal::List(items) => items.iter().map(text).collect(),
        Literal::Word(words) if words.is_empty() => Some(Vec::new()),
        Literal::Word(words) => Some(words.split(',').map(|word| word.trim().to_owned()).collect()),
        _ => None,
    }
}

/// A text as a TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The string `text` begins with, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mark = text.chars().next()?;
    let mut found = String::new();
    let mut rest = text[mark.len_utf8()..].chars();
    loop {
        match rest.next()? {
            c if c == mark => return Some((found, rest.as_str())),
            '\\' if mark == '"' => found.push(escaped(&mut rest)?),
            c => found.push(c),
        }
    }
}

fn escaped(rest: &mut std::str::Chars<'_>) -> Option<char> {
    Some(match rest.next()? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let digits = rest.as_str().get(..4)?;
            *rest = rest.as_str()[4..].chars();
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
        }
        c @ ('"' | '\\') => c,
        _ => return None,
    })
}

/// Whether what begins with a bracket is `[::1]:9502` and no array, whose items have quotes.
fn is_address(text: &str) -> bool {
    text[1..].trim_start().starts_with(|c: char| c.is_ascii_hexdigit() || c == ':')
}

/// The items of `["a", 'b']`, the whole of `text`.
fn array(text: &str) -> Option<Vec<Literal>> {
    let mut rest = text.strip_prefix('[')?.trim_start();
    let mut items = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(']') {
            return end.trim().is_empty().then_some(items);
        }
        let (item, after) = match rest.chars().next()? {
            '"' | '\'' => quoted(rest)?,
            _ => return None,
        };
        items.push(Literal::Text(item));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None if rest.starts_with(']') => {}
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY_DURATION: KeyKind = KeyKind::Duration { min_ms: 0, max_ms: u64::MAX };
    const ANY_SIZE: KeyKind = KeyKind::Size { min: 0, max: u64::MAX };

    fn word(kind: &KeyKind, text: &str) -> Result<Value, ValueError> {
        Value::read(kind, &Literal::from_words(text))
    }

    #[test]
    fn durations_want_a_unit() {
        for (text, ms) in [("10s", 10_000), ("250ms", 250), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(word(&ANY_DURATION, text), Ok(Value::DurationMs(ms)), "{text}");
        }
        assert_eq!(word(&ANY_DURATION, "0"), Ok(Value::DurationMs(0)));
        for wrong in ["10", "s", "", "10 years", "-1s", "1.5s", "99999999999999999h", "१s"] {
            assert!(word(&ANY_DURATION, wrong).is_err(), "{wrong}");
        }
        assert!(Value::read(&ANY_DURATION, &Literal::Integer(10)).is_err());
    }

    #[test]
    fn sizes_take_units_of_1024_and_plain_bytes() {
        for (text, bytes) in [("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("12B", 12)]
        {
            assert_eq!(word(&ANY_SIZE, text), Ok(Value::SizeBytes(bytes)), "{text}");
        }
        assert_eq!(word(&ANY_SIZE, "1_000"), Ok(Value::SizeBytes(1_000)));
        assert_eq!(Value::read(&ANY_SIZE, &Literal::Integer(7)), Ok(Value::SizeBytes(7)));
        assert!(word(&ANY_SIZE, "64KB").is_err());
    }

    #[test]
    fn lists_come_as_arrays_or_with_commas() {
        let both = Value::List(vec!["a".into(), "b".into()]);
        assert_eq!(word(&KeyKind::List, "a, b"), Ok(both.clone()));
        assert_eq!(word(&KeyKind::List, "[\"a\", 'b',]"), Ok(both));
        assert_eq!(word(&KeyKind::List, ""), Ok(Value::List(vec![])));
        assert_eq!(word(&KeyKind::List, "[]"), Ok(Value::List(vec![])));
        let addresses = Value::List(vec!["[::1]:80".into(), "1.2.3.4:80".into()]);
        assert_eq!(word(&KeyKind::List, "[::1]:80,1.2.3.4:80"), Ok(addresses));
        for wrong in ["[\"a\"", "[x]", "[\"a\" \"b\"]", "[\"a\"] x"] {
            assert!(word(&KeyKind::List, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bound_is_named_when_it_is_passed() {
        let kind = KeyKind::Count { min: 1, max: 1024 };
        assert_eq!(word(&kind, "1024"), Ok(Value::Count(1024)));
        let line = word(&kind, "1025").unwrap_err().to_string();
        assert_eq!(line, "is 1025, but must be at most 1024");
        let line = word(&kind, "0").unwrap_err().to_string();
        assert_eq!(line, "is 0, but must be at least 1");
    }

    #[test]
    fn a_type_of_the_file_is_not_bent_into_another() {
        let kind = KeyKind::Count { min: 0, max: 9 };
        assert!(Value::read(&kind, &Literal::Text("4".into())).is_err());
        assert!(Value::read(&KeyKind::Text, &Literal::Integer(4)).is_err());
        assert!(Value::read(&KeyKind::Bool, &Literal::Text("true".into())).is_err());
        assert!(Value::read(&KeyKind::List, &Literal::Text("a".into())).is_err());
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,40}|[\"'\\[\\],\\\\u0-9a-f]{0,20}") {
            for kind in [
                KeyKind::Bool, KeyKind::Count { min: 0, max: 7 }, ANY_DURATION, ANY_SIZE,
                KeyKind::Text, KeyKind::List, KeyKind::Choice(&["a"]),
            ] {
                let _ = word(&kind, &text);
                let _ = Value::read(&kind, &Literal::Text(text.clone()));
            }
        }

        #[test]
        fn durations_and_sizes_read_back_what_they_wrote(number: u64) {
            let duration = Value::DurationMs(number);
            prop_assert_eq!(word(&ANY_DURATION, &duration.to_string()), Ok(duration));
            let size = Value::SizeBytes(number);
            prop_assert_eq!(word(&ANY_SIZE, &size.to_string()), Ok(size));
        }

        #[test]
        fn texts_and_lists_read_back_what_they_wrote(items in prop::collection::vec(any::<String>(), 0..4)) {
            let text = Value::Text(items.concat());
            prop_assert_eq!(word(&KeyKind::Text, &text.to_string()), Ok(text));
            let list = Value::List(items);
            prop_assert_eq!(word(&KeyKind::List, &list.to_string()), Ok(list));
        }
    }
}
