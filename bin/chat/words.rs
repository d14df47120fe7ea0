//! What is typed, and how what came is written: commands, targets, and texts safe for a terminal.
//!
//! Knows no session and no screen.

use serde_json::{Value as Json, json};
use std::fmt;

/// Who a message is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Room(String),
    User(String),
}

impl Target {
    /// As the protocol writes it.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Room(room) => json!({"room": room}),
            Self::User(user) => json!({"user": user}),
        }
    }

    pub(crate) fn from_json(to: &Json) -> Option<Self> {
        let named = |name: &str| to[name].as_str().map(str::to_owned);
        named("room").map(Self::Room).or_else(|| named("user").map(Self::User))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(room) => write!(f, "#{}", plain(room)),
            Self::User(user) => f.write_str(&plain(user)),
        }
    }
}

/// A line of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Nothing,
    /// For whoever is being talked to.
    Text(String),
    Join(String),
    /// The room named, or the one on the screen.
    Leave(Option<String>),
    /// Opens the conversation; sends, where there is a text.
    Message(Target, Option<String>),
    Who(Vec<String>),
    Members(Option<String>),
    Help,
    Quit,
    /// Not understood: a sentence for who typed it.
    Wrong(String),
}

/// What `/help` tells.
pub(crate) const HELP: &[&str] = &[
    "/join ROOM            join a room and show it",
    "/leave [ROOM]         leave it, or close the conversation on the screen",
    "/msg NAME [TEXT]      talk to a person, or to a #room",
    "/who [NAME…]          who is online of those in the list, or of these",
    "/members [ROOM]       who is in the room",
    "/quit                 leave (Ctrl-C, too)",
    "//TEXT                a text that begins with a slash",
    "Tab, Shift-Tab        the next conversation, the one before",
    "PgUp PgDn, Up Down    older and newer messages, lines typed before",
];

impl Line {
    pub(crate) fn read(line: &str) -> Self {
        let Some(rest) = line.strip_prefix('/') else {
            return if line.trim().is_empty() {
                Self::Nothing
            } else {
                Self::Text(line.to_owned())
            };
        };
        if rest.starts_with('/') {
            return Self::Text(rest.to_owned());
        }
        let (verb, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let rest = rest.trim();
        let name = || Some(rest.trim_start_matches('#').to_owned()).filter(|name| !name.is_empty());
        match verb {
            "join" | "j" => name().map_or_else(
                || Self::Wrong("/join needs the name of a room".to_owned()),
                Self::Join,
            ),
            "leave" | "part" => Self::Leave(name()),
            "msg" | "m" => Self::read_message(rest),
            "who" | "w" => Self::Who(rest.split_whitespace().map(str::to_owned).collect()),
            "members" | "names" => Self::Members(name()),
            "help" | "h" | "?" => Self::Help,
            "quit" | "q" | "exit" => Self::Quit,
            _ => Self::Wrong(format!("there is no /{}: /help names what there is", plain(verb))),
        }
    }

    fn read_message(rest: &str) -> Self {
        let (name, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let text = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        match name.strip_prefix('#') {
            Some("") => Self::Wrong("/msg needs the name of a room behind #".to_owned()),
            Some(room) => Self::Message(Target::Room(room.to_owned()), text),
            None if name.is_empty() => Self::Wrong("/msg needs a name and a text".to_owned()),
            None => Self::Message(Target::User(name.to_owned()), text),
        }
    }
}

/// The text of a body: that of `{"text": …}`, a string, or else its JSON.
pub(crate) fn text_of(body: &Json) -> String {
    match body.as_str().or_else(|| body["text"].as_str()) {
        Some(text) => text.to_owned(),
        None => body.to_string(),
    }
}

/// A text in which nothing steers a terminal: a line end is shown as `\n`, other control characters
/// and those that turn the direction of writing as `\u{…}`.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("    "),
            letter if steers(letter) => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Control characters, and those of Unicode that make a line read otherwise than it is.
fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_help_tells() {
        let user = |name: &str| Target::User(name.to_owned());
        let room = |name: &str| Target::Room(name.to_owned());
        for (line, meant) in [
            ("", Line::Nothing),
            ("   ", Line::Nothing),
            (" tea? ", Line::Text(" tea? ".to_owned())),
            ("//join", Line::Text("/join".to_owned())),
            ("/join tea", Line::Join("tea".to_owned())),
            ("/join  #tea ", Line::Join("tea".to_owned())),
            ("/leave", Line::Leave(None)),
            ("/leave tea", Line::Leave(Some("tea".to_owned()))),
            ("/msg bob", Line::Message(user("bob"), None)),
            ("/msg bob  a  b ", Line::Message(user("bob"), Some("a  b".to_owned()))),
            ("/msg #tea milk?", Line::Message(room("tea"), Some("milk?".to_owned()))),
            ("/who", Line::Who(vec![])),
            ("/who ann bob", Line::Who(vec!["ann".to_owned(), "bob".to_owned()])),
            ("/members", Line::Members(None)),
            ("/help", Line::Help),
            ("/quit", Line::Quit),
        ] {
            assert_eq!(Line::read(line), meant, "{line:?}");
        }
        for line in ["/join", "/join #", "/msg", "/msg #", "/dance", "/"] {
            assert!(matches!(Line::read(line), Line::Wrong(_)), "{line:?}");
        }
    }

    #[test]
    fn every_command_of_help_is_one() {
        for line in HELP.iter().filter(|line| line.starts_with('/')) {
            let line = line.split("  ").next().unwrap_or_default();
            let typed: String = line.chars().filter(|letter| !"[]…".contains(*letter)).collect();
            assert!(!matches!(Line::read(&typed), Line::Wrong(_) | Line::Nothing), "{typed:?}");
        }
    }

    #[test]
    fn nothing_that_came_steers_the_terminal() {
        let said = plain("a\u{1b}[2Jb\nc\u{7}\u{9b}1m\u{202e}d\u{7f}");
        assert_eq!(said, "a\\u{1b}[2Jb\\nc\\u{7}\\u{9b}1m\\u{202e}d\\u{7f}");
        assert_eq!(plain("茶? 🍵 é"), "茶? 🍵 é");
    }

    #[test]
    fn the_text_of_a_body_is_found_or_shown_as_it_is() {
        assert_eq!(text_of(&json!({"text": "tea?"})), "tea?");
        assert_eq!(text_of(&json!("tea?")), "tea?");
        assert_eq!(text_of(&json!({"text": 7})), "{\"text\":7}");
        assert_eq!(text_of(&json!(null)), "null");
    }
}
