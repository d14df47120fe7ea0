//! Draws what [`Talks`] holds. Decides nothing.
//!
//! Whatever came from others goes through [`plain`]: nothing of it steers the terminal.

use super::talks::{Entry, Fate, Standing, Talk, Talks, What};
use super::words::{Target, plain};
use crate::local_time::clock_time;
use dunlin_server::clock::Millis;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of the list of conversations, and how wide the screen must be to have one.
const LIST_COLUMNS: u16 = 22;
const LIST_FROM_COLUMNS: u16 = 60;
/// Columns of a time and the space behind it.
const TIME_COLUMNS: usize = 9;

/// Colours, or none where the user wants none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    pub(crate) colours: bool,
}

impl Paint {
    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The same colour for the same name.
    fn name(self, name: &str) -> Style {
        const COLOURS: [Color; 5] =
            [Color::Cyan, Color::Magenta, Color::Yellow, Color::Blue, Color::Green];
        let sum = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
        self.colour(COLOURS[sum % COLOURS.len()]).add_modifier(Modifier::BOLD)
    }
}

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, talks: &Talks, now: Millis, paint: Paint) {
    let rows =
        [Constraint::Min(1), Constraint::Length(1), Constraint::Length(1), Constraint::Length(1)];
    let [main, hints, input, standing] = Layout::vertical(rows).areas(frame.area());
    let messages = if main.width >= LIST_FROM_COLUMNS {
        let columns = [Constraint::Length(LIST_COLUMNS), Constraint::Min(1)];
        let [list, messages] = Layout::horizontal(columns).areas(main);
        draw_list(frame, list, talks, paint);
        messages
    } else {
        main
    };
    draw_messages(frame, messages, talks, paint);
    frame.render_widget(Paragraph::new(hint(talks, now)).style(paint.faint()), hints);
    draw_input(frame, input, talks, paint);
    draw_standing(frame, standing, talks, now, paint);
}

fn name_of(talk: &Talk) -> String {
    talk.target.as_ref().map_or_else(|| "dunlin".to_owned(), ToString::to_string)
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, talks: &Talks, paint: Paint) {
    let block = Block::new().borders(Borders::RIGHT).border_style(paint.faint());
    let inside = block.inner(area);
    let width = usize::from(inside.width);
    let height = usize::from(inside.height).max(1);
    let first = (talks.chosen + 1).saturating_sub(height);
    let line = |(place, talk): (usize, &Talk)| {
        let online = match &talk.target {
            Some(Target::User(user)) => Some(talks.online.get(user).copied().unwrap_or(false)),
            _ => None,
        };
        let (mark, style) = match online {
            Some(true) => ("● ", paint.colour(Color::Green)),
            Some(false) => ("○ ", paint.faint()),
            None => ("  ", Style::new()),
        };
        let unread =
            if talk.unread > 0 { format!(" {}", talk.unread.min(999)) } else { String::new() };
        let room = width.saturating_sub(mark.width() + unread.width());
        let name = fitted(&name_of(talk), room);
        let name_style = match (place == talks.chosen, talk.unread > 0) {
            (true, _) => Style::new().add_modifier(Modifier::REVERSED),
            (_, true) => Style::new().add_modifier(Modifier::BOLD),
            _ => Style::new(),
        };
        let count = Span::styled(unread, paint.colour(Color::Yellow).add_modifier(Modifier::BOLD));
        Line::from(vec![Span::styled(mark, style), Span::styled(name, name_style), count])
    };
    let shown = talks.talks.iter().enumerate().skip(first).take(height);
    let lines: Vec<Line<'_>> = shown.map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_messages(frame: &mut Frame<'_>, area: Rect, talks: &Talks, paint: Paint) {
    let talk = talks.chosen();
    let block = Block::new().borders(Borders::TOP).title(title(talks)).border_style(paint.faint());
    let inside = block.inner(area);
    let width = usize::from(inside.width);
    let height = usize::from(inside.height);
    // From the newest back, until the screen is full and what is scrolled over is behind it.
    let mut lines: Vec<Line<'_>> = Vec::new();
    for entry in talk.entries.iter().rev() {
        if lines.len() >= height.saturating_add(talks.scrolled) {
            break;
        }
        lines.extend(entry_lines(entry, width, paint).into_iter().rev());
    }
    let scrolled = talks.scrolled.min(lines.len().saturating_sub(height));
    let mut shown: Vec<Line<'_>> = lines.into_iter().skip(scrolled).take(height).collect();
    shown.reverse();
    frame.render_widget(Paragraph::new(shown).block(block), area);
}

fn title(talks: &Talks) -> String {
    let talk = talks.chosen();
    let name = name_of(talk);
    let state = match (&talk.target, talk.count) {
        (Some(Target::Room(_)), Some(1)) => " · nobody else is here".to_owned(),
        (Some(Target::Room(_)), Some(count)) => format!(" · {count} people"),
        (Some(Target::User(user)), _) => match talks.online.get(user) {
            Some(true) => " · online".to_owned(),
            Some(false) => " · not online".to_owned(),
            None => String::new(),
        },
        _ => String::new(),
    };
    let unread: usize = talks.talks.iter().map(|talk| talk.unread).sum();
    let elsewhere =
        if unread > 0 { format!(" · {unread} unread elsewhere (Tab)") } else { String::new() };
    format!(" {name}{state}{elsewhere} ")
}

/// An entry, cut into rows of this width.
fn entry_lines(entry: &Entry, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let own = Style::new().add_modifier(Modifier::BOLD);
    let (name, name_style, text, style, mark) = match &entry.what {
        What::Said { from, own: true, text } => {
            (plain(from), own, text, Style::new(), String::new())
        }
        What::Said { from, text, .. } => {
            (plain(from), paint.name(from), text, Style::new(), String::new())
        }
        What::Sending { text, fate, .. } => {
            let (style, mark) = match fate {
                Fate::Waiting => (paint.faint(), " …".to_owned()),
                Fate::Sent => (Style::new(), String::new()),
                Fate::NobodyThere => (Style::new(), " (nobody is there)".to_owned()),
                Fate::Failed(why) => {
                    (paint.colour(Color::Red), format!(" (not sent: {})", plain(why)))
                }
            };
            ("me".to_owned(), own, text, style, mark)
        }
        What::Notice(text) => (String::new(), Style::new(), text, paint.faint(), String::new()),
        What::Trouble(text) => (
            "!".to_owned(),
            paint.colour(Color::Red),
            text,
            paint.colour(Color::Red),
            String::new(),
        ),
    };
    let time = if entry.time == 0 { String::new() } else { clock_time(entry.time) };
    let before = TIME_COLUMNS + if name.is_empty() { 0 } else { name.width() + 1 };
    // A name that fills the row has its text below it.
    let indent = if before + 10 > width { TIME_COLUMNS.min(width / 2) } else { before };
    let mut rows = wrapped(&format!("{}{mark}", plain(text)), width.saturating_sub(indent));
    let mut lines = Vec::new();
    let mut head = vec![Span::styled(format!("{time:<TIME_COLUMNS$}"), paint.faint())];
    if !name.is_empty() {
        head.push(Span::styled(format!("{name} "), name_style));
    }
    if indent == before && !rows.is_empty() {
        head.push(Span::styled(rows.remove(0), style));
    }
    lines.push(Line::from(head));
    let margin = " ".repeat(indent);
    lines.extend(
        rows.into_iter()
            .map(|row| Line::from(vec![Span::raw(margin.clone()), Span::styled(row, style)])),
    );
    lines
}

/// Rows of at most this width, cut between words where that goes.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut rows = vec![String::new()];
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        if used > 0 && used + word.trim_end().width() > width {
            rows.push(String::new());
            used = 0;
        }
        for letter in word.chars() {
            let columns = letter.width().unwrap_or(0);
            if used + columns > width {
                if letter == ' ' {
                    continue;
                }
                rows.push(String::new());
                used = 0;
            }
            used += columns;
            if let Some(row) = rows.last_mut() {
                row.push(letter);
            }
        }
    }
    rows
}

/// At most this width; what is cut ends with a mark.
fn fitted(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 1;
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used > width {
            break;
        }
        shown.push(letter);
    }
    shown.push('…');
    shown
}

fn hint(talks: &Talks, now: Millis) -> String {
    if talks.scrolled > 0 {
        return "older messages: PgDn for newer ones".to_owned();
    }
    let typing = talks.chosen().typing(now);
    match typing.as_slice() {
        [] => String::new(),
        [one] => format!("{} is typing…", plain(one)),
        [one, two] => format!("{} and {} are typing…", plain(one), plain(two)),
        _ => "several people are typing…".to_owned(),
    }
}

/// The line being typed; what does not fit before the cursor is left out.
fn draw_input(frame: &mut Frame<'_>, area: Rect, talks: &Talks, paint: Paint) {
    let prompt = "> ";
    let room = usize::from(area.width).saturating_sub(prompt.width() + 1);
    let before = talks.input.before_cursor();
    let mut hidden = 0;
    let mut columns = before.width();
    for letter in before.chars() {
        if columns <= room {
            break;
        }
        columns -= letter.width().unwrap_or(0);
        hidden += 1;
    }
    let text: String = talks.input.text().chars().skip(hidden).collect();
    let prompt_style = paint.colour(Color::Cyan);
    let line = Line::from(vec![Span::styled(prompt, prompt_style), Span::raw(text)]);
    frame.render_widget(Paragraph::new(line), area);
    let column = u16::try_from(prompt.width() + columns).unwrap_or(0);
    frame.set_cursor_position(Position::new(area.x.saturating_add(column), area.y));
}

fn draw_standing(frame: &mut Frame<'_>, area: Rect, talks: &Talks, now: Millis, paint: Paint) {
    let (state, style) = match &talks.standing {
        Standing::Online => ("online".to_owned(), paint.colour(Color::Green)),
        Standing::Connecting => ("connecting…".to_owned(), paint.colour(Color::Yellow)),
        Standing::Waiting { why, until } => {
            let seconds = until.since(now).div_ceil(1_000);
            (format!("{}; again in {seconds} s", plain(why)), paint.colour(Color::Yellow))
        }
    };
    let line = Line::from(vec![
        Span::raw(format!(" {} ", plain(&talks.me))).bold(),
        Span::raw("· "),
        Span::styled(state, style.add_modifier(Modifier::BOLD)),
        Span::styled(format!(" · {} ", plain(&talks.place)), paint.faint()),
    ]);
    frame.render_widget(
        Paragraph::new(line).style(Style::new().add_modifier(Modifier::UNDERLINED)),
        area,
    );
    let help = Line::styled(" /help ", paint.faint()).right_aligned();
    if usize::from(area.width) > 60 {
        frame.render_widget(Paragraph::new(help), area);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::news::News;
    use crate::keys::Key;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    /// The rows of a screen of this size.
    fn rows(talks: &Talks, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let paint = Paint { colours: false };
        terminal.draw(|frame| draw(frame, talks, Millis(5_000), paint)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| row(y).trim_end().to_owned()).collect()
    }

    fn hear(talks: &mut Talks, from: &str, to: serde_json::Value, text: &str) {
        let params = json!({"id": "1", "from": {"user": from}, "to": to, "body": text, "time": 0});
        talks.hear(&News::message(&params, Some("ann")), Millis(5_000), 0);
    }

    fn talks() -> Talks {
        let mut talks = Talks::new("ann".to_owned(), "ws://h/ws".to_owned());
        talks.hear(&News::Online { user: "ann".to_owned() }, Millis(0), 0);
        talks.show(&Target::Room("tea".to_owned()));
        talks.hear(&News::Joined { room: "tea".to_owned(), count: 3 }, Millis(0), 0);
        talks
    }

    #[test]
    fn a_screen_has_people_messages_typing_input_and_the_connection() {
        let mut talks = talks();
        hear(&mut talks, "bob", json!({"room": "tea"}), "milk or lemon?");
        hear(&mut talks, "zoe", json!({"user": "ann"}), "psst");
        let presence =
            |user: &str| News::Presence { user: user.to_owned(), online: true, devices: vec![] };
        talks.hear(&presence("zoe"), Millis(0), 0);
        let to = Target::Room("tea".to_owned());
        talks.hear(&News::Typing { from: "bob".to_owned(), to, at: Millis(4_000) }, Millis(0), 0);
        talks.press(&Key::Paste("lemon".to_owned()), Millis(0), 0, 0);
        let rows = rows(&talks, 70, 8);
        assert_eq!(
            rows,
            [
                "  dunlin             │ #tea · 3 people · 1 unread elsewhere (Tab) ────",
                "  #tea               │         bob milk or lemon?",
                "● zoe 1              │",
                "                     │",
                "                     │",
                "bob is typing…",
                "> lemon",
                " ann · online · ws://h/ws                                       /help",
            ]
        );
    }

    #[test]
    fn nothing_that_came_reaches_the_terminal_as_a_command() {
        let mut talks = talks();
        hear(&mut talks, "e\u{1b}[2Jve", json!({"room": "tea"}), "a\u{1b}]0;x\u{7}\nb");
        let all = rows(&talks, 90, 8).join("\n");
        assert!(!all.contains('\u{1b}') && !all.contains('\u{7}'), "{all:?}");
        assert!(all.contains("e\\u{1b}[2Jve a\\u{1b}]0;x\\u{7}\\nb"), "{all}");
    }

    #[test]
    fn every_size_can_be_drawn() {
        let mut talks = talks();
        let long = "word 茶茶茶茶茶茶 ".repeat(40);
        for from in ["bob", &"n".repeat(64)] {
            hear(&mut talks, from, json!({"room": "tea"}), &long);
        }
        talks.press(&Key::Paste(long), Millis(0), 0, 0);
        for width in [1, 2, 3, 10, 20, 59, 60, 61, 200] {
            for height in [1, 2, 3, 4, 5, 30] {
                let rows = rows(&talks, width, height);
                assert_eq!(rows.len(), usize::from(height));
            }
        }
    }

    #[test]
    fn the_newest_is_at_the_end_and_older_ones_are_scrolled_to() {
        let mut talks = talks();
        for number in 0..30 {
            hear(&mut talks, "bob", json!({"room": "tea"}), &format!("line {number}"));
        }
        let shown = rows(&talks, 50, 10);
        assert!(shown[6].ends_with("line 29") && shown[1].ends_with("line 24"), "{shown:?}");
        talks.press(&Key::PageUp, Millis(0), 0, 0);
        let shown = rows(&talks, 50, 10);
        assert!(shown[6].ends_with("line 19"), "{shown:?}");
        assert!(shown[7].contains("PgDn"), "{shown:?}");
        for _ in 0..9 {
            talks.press(&Key::PageUp, Millis(0), 0, 0);
        }
        assert!(rows(&talks, 50, 10)[1].ends_with("line 0"));
    }

    #[test]
    fn the_cursor_is_behind_what_is_typed_however_long() {
        let mut talks = talks();
        talks.press(&Key::Paste("abcdefghijklmnopqrstuvwxyz".to_owned()), Millis(0), 0, 0);
        let shown = rows(&talks, 20, 6);
        assert_eq!(shown[4], "> jklmnopqrstuvwxyz");
    }

    #[test]
    fn words_are_wrapped_and_what_has_no_gap_is_cut() {
        for (text, width, rows) in [
            ("one two three", 8, vec!["one two ", "three"]),
            ("one two three", 7, vec!["one two", "three"]),
            ("abcdefghij", 4, vec!["abcd", "efgh", "ij"]),
            ("a 茶茶茶", 5, vec!["a ", "茶茶", "茶"]),
            ("", 5, vec![""]),
        ] {
            assert_eq!(wrapped(text, width), rows, "{text:?} in {width}");
        }
        assert_eq!(
            (fitted("abcdef", 4), fitted("abcd", 4)),
            ("abc…".to_owned(), "abcd".to_owned())
        );
    }

    #[test]
    fn a_lost_connection_says_why_and_when_it_comes_back() {
        let mut talks = talks();
        let why = "the server is stopping (1001)".to_owned();
        talks.hear(&News::Offline { why, wait_ms: 1_500 }, Millis(4_000), 0);
        let shown = rows(&talks, 90, 6);
        assert!(shown[5].contains("the server is stopping (1001); again in 1 s"), "{shown:?}");
        assert!(shown[1].contains("! the server is stopping (1001)"), "{shown:?}");
    }
}
