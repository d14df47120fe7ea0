//! The line that is being typed: its text, the place of the cursor, and the lines before it.
//!
//! Pure. Invariants: 1. The cursor is between two letters. 2. The text has at most [`INPUT_MAX`] letters
//! and no control character; at most [`HISTORY_MAX`] lines are kept.

use crate::keys::Key;
use std::collections::VecDeque;

/// Letters of a line.
pub(crate) const INPUT_MAX: usize = 8_000;
/// Lines that are kept.
pub(crate) const HISTORY_MAX: usize = 200;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Input {
    letters: Vec<char>,
    cursor: usize,
    history: VecDeque<String>,
    /// The line of the history that is shown, and what was being typed before.
    recalled: Option<(usize, String)>,
}

impl Input {
    pub(crate) fn text(&self) -> String {
        self.letters.iter().collect()
    }

    /// The text before the cursor.
    pub(crate) fn before_cursor(&self) -> String {
        self.letters[..self.cursor].iter().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Takes the line, which goes into the history.
    pub(crate) fn take(&mut self) -> String {
        let text = self.text();
        if !text.trim().is_empty() && self.history.back() != Some(&text) {
            self.history.push_back(text.clone());
            if self.history.len() > HISTORY_MAX {
                self.history.pop_front();
            }
        }
        self.set("");
        self.recalled = None;
        text
    }

    /// Does what a key asks for; whether it was one for the line.
    pub(crate) fn press(&mut self, key: &Key) -> bool {
        match key {
            Key::Char(letter) => self.insert(*letter),
            // A message is one line.
            Key::Paste(text) => {
                for letter in text.replace("\r\n", " ").chars() {
                    self.insert(if letter.is_control() { ' ' } else { letter });
                }
            }
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(self.letters.len()),
            Key::WordLeft => self.cursor = self.word_start(),
            Key::WordRight => self.cursor = self.word_end(),
            Key::Home | Key::Control('a') => self.cursor = 0,
            Key::End | Key::Control('e') => self.cursor = self.letters.len(),
            Key::Backspace => self.erase(self.cursor.saturating_sub(1), self.cursor),
            Key::Delete => self.erase(self.cursor, (self.cursor + 1).min(self.letters.len())),
            Key::Control('w') => self.erase(self.word_start(), self.cursor),
            Key::Control('u') => self.erase(0, self.cursor),
            Key::Control('k') => self.erase(self.cursor, self.letters.len()),
            Key::Up => self.recall_before(),
            Key::Down => self.recall_after(),
            _ => return false,
        }
        true
    }

    fn insert(&mut self, letter: char) {
        if self.letters.len() < INPUT_MAX {
            self.letters.insert(self.cursor, letter);
            self.cursor += 1;
        }
    }

    fn erase(&mut self, from: usize, to: usize) {
        self.letters.drain(from..to);
        self.cursor = from;
    }

    fn word_start(&self) -> usize {
        let before = &self.letters[..self.cursor];
        let word = before.iter().rposition(|letter| !letter.is_whitespace()).map_or(0, |at| at + 1);
        before[..word].iter().rposition(|letter| letter.is_whitespace()).map_or(0, |at| at + 1)
    }

    fn word_end(&self) -> usize {
        let behind = &self.letters[self.cursor..];
        let word = behind.iter().position(|letter| !letter.is_whitespace()).unwrap_or(behind.len());
        let end = behind[word..].iter().position(|letter| letter.is_whitespace());
        self.cursor + word + end.unwrap_or(behind.len() - word)
    }

    fn set(&mut self, text: &str) {
        self.letters = text.chars().take(INPUT_MAX).collect();
        self.cursor = self.letters.len();
    }

    fn recall_before(&mut self) {
        let at = match &self.recalled {
            Some((at, _)) => at.checked_sub(1),
            None => self.history.len().checked_sub(1),
        };
        let Some(at) = at else { return };
        let typed = self.recalled.take().map_or_else(|| self.text(), |(_, typed)| typed);
        let line = self.history[at].clone();
        self.set(&line);
        self.recalled = Some((at, typed));
    }

    fn recall_after(&mut self) {
        let Some((at, typed)) = self.recalled.take() else { return };
        match self.history.get(at + 1).cloned() {
            Some(line) => {
                self.set(&line);
                self.recalled = Some((at + 1, typed));
            }
            None => self.set(&typed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Input {
        let mut input = Input::default();
        text.chars().for_each(|letter| assert!(input.press(&Key::Char(letter))));
        input
    }

    #[test]
    fn keys_edit_the_line_where_the_cursor_is() {
        let mut input = typed("one two  three");
        for (keys, text, before) in [
            (vec![Key::WordLeft], "one two  three", "one two  "),
            (vec![Key::Backspace], "one two three", "one two "),
            (vec![Key::Control('w')], "one three", "one "),
            (vec![Key::Char('茶'), Key::Left, Key::Delete], "one three", "one "),
            (vec![Key::Home, Key::Left, Key::WordRight], "one three", "one"),
            (vec![Key::Control('k')], "one", "one"),
            (vec![Key::Right, Key::Delete, Key::WordRight], "one", "one"),
            (vec![Key::Paste("\r\na\tb\n".to_owned())], "one a b ", "one a b "),
            (vec![Key::Left, Key::Control('u'), Key::Backspace], " ", ""),
        ] {
            for key in &keys {
                assert!(input.press(key));
            }
            assert_eq!(
                (input.text().as_str(), input.before_cursor().as_str()),
                (text, before),
                "{keys:?}"
            );
        }
        assert!(!input.press(&Key::Tab) && !input.press(&Key::Control('c')));
    }

    #[test]
    fn lines_come_back_and_what_was_being_typed_too() {
        let mut input = Input::default();
        for line in ["first", "second", "second", " "] {
            input.set(line);
            assert_eq!(input.take(), line);
        }
        input.set("draft");
        for (key, shown) in [
            (Key::Up, "second"),
            (Key::Up, "first"),
            (Key::Up, "first"),
            (Key::Down, "second"),
            (Key::Down, "draft"),
            (Key::Down, "draft"),
        ] {
            input.press(&key);
            assert_eq!(input.text(), shown);
        }
    }

    #[test]
    fn line_and_history_are_bounded() {
        let mut input = Input::default();
        for number in 0..HISTORY_MAX + 7 {
            input.set(&number.to_string());
            input.take();
        }
        assert_eq!((input.history.len(), input.history[0].as_str()), (HISTORY_MAX, "7"));
        input.press(&Key::Paste("x".repeat(INPUT_MAX + 5)));
        assert_eq!(input.text().len(), INPUT_MAX);
    }
}
