//! How `top` looks.
//!
//! Pure: a model in, letters in a frame out. Knows no terminal.

use super::model::{Footer, Model};
use crate::look::{Between, Look};
use crate::readable::{byte_rate, duration, or_missing, plain, rate, word};
use crate::table::{self, Cell, GAP};
use crate::terminal::Mark;
use crate::worker_table::{WORKERS, state, workers};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use std::collections::VecDeque;

/// Columns of the narrowest picture of a worker's rates.
const SPARK_MIN: usize = 6;
/// Lines of the picture of all rates.
const CHART: u16 = 2;
/// Events are shown on at least so many lines, where there are so many workers that not all fit.
const EVENTS_MIN: u16 = 4;

/// Whether colours are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Colours(pub(super) bool);

impl Colours {
    fn of(self, mark: Mark) -> Style {
        let colour = |colour| if self.0 { Style::new().fg(colour) } else { Style::new() };
        match mark {
            Mark::None => Style::new(),
            Mark::Title => Style::new().add_modifier(Modifier::BOLD),
            Mark::Notable => colour(Color::Yellow),
            Mark::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    fn chart(self) -> Style {
        if self.0 { Style::new().fg(Color::Cyan) } else { Style::new() }
    }
}

/// Draws all of it.
pub(super) fn render(frame: &mut Frame<'_>, model: &Model, colours: Colours) {
    let area = frame.area();
    let Some(look) = model.look.as_ref() else {
        return render_nobody(frame, model, colours);
    };
    let heads = head(look, model.between.as_ref());
    let heads_height = height(heads.len());
    let width = usize::from(area.width);
    let table = worker_lines(model, look, width, colours);
    let [title, top, chart, _, middle, _, others, _, events, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(heads_height),
        Constraint::Length(CHART),
        Constraint::Length(1),
        Constraint::Max(height(table.len())),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(EVENTS_MIN),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(title_line(look, model, colours)), title);
    frame.render_widget(Paragraph::new(heads), top);
    let picture =
        tall_bars(&model.history, width, usize::from(CHART), most([&model.history], width));
    let picture: Vec<Line<'_>> = picture.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(picture).style(colours.chart()), chart);
    let shown = scrolled(table, model.selected, usize::from(middle.height));
    frame.render_widget(Paragraph::new(shown), middle);
    frame.render_widget(Paragraph::new(others_line(look)), others);
    frame.render_widget(Paragraph::new(event_lines(model, colours)), events);
    frame.render_widget(Paragraph::new(footer_line(model, colours)), footer);
    if model.help {
        render_help(frame);
    }
}

fn render_nobody(frame: &mut Frame<'_>, model: &Model, colours: Colours) {
    let words = match &model.away {
        Some(why) => vec![
            Line::styled(plain(why), colours.of(Mark::Bad)),
            Line::from("Looking again every time; q leaves."),
        ],
        None => vec![Line::from(format!("Looking at {} …", plain(&model.run_dir)))],
    };
    frame.render_widget(Paragraph::new(words), frame.area());
}

fn title_line(look: &Look, model: &Model, colours: Colours) -> Line<'static> {
    let version = format!("dunlin {}", word(look.at("/version")));
    let mut spans = vec![Span::styled(version, colours.of(Mark::Title)), Span::raw("  ")];
    if let Some(why) = &model.away {
        let words = format!("{}; looking again", plain(why));
        spans.push(Span::styled(words, colours.of(Mark::Bad)));
        return Line::from(spans);
    }
    let Cell { text, mark } = state(look.at("/state"));
    spans.push(Span::styled(text, colours.of(mark)));
    spans.push(Span::raw(format!(
        "  pid {}  up {}  generation {}",
        word(look.at("/pid")),
        or_missing(look.number("/uptime_ms"), duration),
        word(look.at("/generation")),
    )));
    Line::from(spans)
}

fn head(look: &Look, between: Option<&Between>) -> Vec<Line<'static>> {
    let total = between.map(|between| between.total).unwrap_or_default();
    let slow = look.sum("slow_closed");
    vec![
        Line::from(format!(
            "sessions {} of {}  logged in {}  peak {}  refused {}  slow closed {}",
            word(look.at("/sessions/used")),
            word(look.at("/sessions/capacity")),
            word(look.at("/sessions/logged_in")),
            word(look.at("/sessions/peak")),
            word(look.at("/sessions/refused")),
            or_missing(slow, |slow| slow.to_string()),
        )),
        Line::from(format!(
            "per second: {} messages in, {} out; {} in, {} out; {} accepted",
            or_missing(total.messages_in, rate),
            or_missing(total.messages_out, rate),
            or_missing(total.bytes_in, byte_rate),
            or_missing(total.bytes_out, byte_rate),
            or_missing(total.accepted, rate),
        )),
    ]
}

/// The titles, a line for each worker, and one for all.
fn worker_lines(model: &Model, look: &Look, width: usize, colours: Colours) -> Vec<Line<'static>> {
    let rows = workers(look, model.between.as_ref());
    let narrow = width.saturating_sub(SPARK_MIN + GAP);
    let arranged = table::arranged(&WORKERS, &rows, Some(narrow));
    let used = |row: &[Cell]| {
        let cells: usize = row.iter().map(|cell| cell.text.chars().count()).sum();
        cells + GAP * row.len()
    };
    let count = look.workers().len();
    let left = width.saturating_sub(arranged.first().map_or(0, |row| used(row)));
    // One measure for all, so that they can be compared.
    let most = most(&model.worker_history, left);
    let line = |(place, row): (usize, &Vec<Cell>)| {
        let spark = match place {
            0 => "MSGS/S".chars().take(left).collect(),
            place if place <= count => {
                let rates = model.worker_history.get(place - 1);
                rates.map(|rates| bars(rates, left, most)).unwrap_or_default()
            }

            _ => String::new(),
        };
        let mut spans: Vec<Span<'_>> = Vec::new();
        for cell in row {
            spans.push(Span::styled(cell.text.clone(), colours.of(cell.mark)));
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        let style = if place == 0 { colours.of(Mark::Title) } else { colours.chart() };
        spans.push(Span::styled(spark, style));
        let line = Line::from(spans);
        if place == model.selected + 1 && place <= count {
            line.style(Style::new().add_modifier(Modifier::REVERSED))
        } else {
            line
        }
    };
    let titles = arranged.iter().enumerate().map(line).collect::<Vec<_>>();
    debug_assert_eq!(titles.len(), rows.len() + 1, "titles and rows");
    titles
}

/// As many lines as fit, the titles first, so that the chosen worker is among them.
fn scrolled(mut lines: Vec<Line<'static>>, selected: usize, height: usize) -> Vec<Line<'static>> {
    if lines.len() > height && height > 1 {
        let first = (selected + 2).saturating_sub(height).min(lines.len() - height);
        lines.drain(1..=first);
    }
    lines
}

fn others_line(look: &Look) -> String {
    let tasks = look.list("tasks");
    let sum = |name: &str| tasks.iter().filter_map(|task| task[name].as_u64()).sum::<u64>();
    let busy = tasks.iter().filter(|task| task["busy"] == true).count();
    let mut words = vec![
        format!("timer {}, {} armed", word(look.at("/timer/state")), word(look.at("/timer/armed"))),
        format!(
            "{busy} of {} tasks busy, {} queued, {} done, {} failed",
            tasks.len(),
            // One queue, which each of them names.
            tasks.first().map_or(0, |task| task["queued"].as_u64().unwrap_or(0)),
            sum("done"),
            sum("failed"),
        ),
    ];
    if look.at("/redis/configured") == true {
        let on = look.at("/redis/connected") == true;
        words.push(if on { "redis connected" } else { "redis away" }.to_owned());
    }
    words.join("; ")
}

fn event_lines(model: &Model, colours: Colours) -> Vec<Line<'static>> {
    if model.events.is_empty() {
        return vec![Line::from("Nothing has happened since top was started.")];
    }
    let lines = model.events.iter().map(|event| {
        Line::from(vec![
            Span::raw(format!("{}  ", event.at)),
            Span::styled(event.words.clone(), colours.of(event.mark)),
        ])
    });
    lines.collect()
}

fn footer_line(model: &Model, colours: Colours) -> Line<'static> {
    match model.footer {
        Footer::Keys => Line::styled(
            "↑↓ worker  w replace it  d drain it  r reload all  b balance  ? help  q quit",
            Style::new().add_modifier(Modifier::DIM),
        ),
        Footer::Asking(deed) => {
            let words = format!("{} y: yes, any other key: no", deed.question());
            Line::styled(words, colours.of(Mark::Notable).add_modifier(Modifier::BOLD))
        }
        Footer::Doing(deed) => {
            let words = format!("asked: {}", deed.question().trim_end_matches('?'));
            Line::styled(words, colours.of(Mark::Notable))
        }
    }
}

const HELP: [&str; 14] = [
    "up, down, k, j   choose a worker",
    "w                replace its process; connections stay",
    "d                move its connections to the others",
    "r                re-read the config, replace every process",
    "b                even the connections out",
    "Ctrl-L           draw everything again",
    "q, Ctrl-C        leave; the server goes on",
    "",
    "IN/S, OUT/S      messages a second",
    "MAILBOX          bytes from other workers not taken yet",
    "MEM, CPU         resident memory; of one core",
    "MSGS/S           in and out, the latest to the right",
    "",
    "Any key goes on.",
];

fn render_help(frame: &mut Frame<'_>) {
    let longest = HELP.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let (width, height) = (height(longest + 4), height(HELP.len() + 2));
    let area = frame.area();
    let (width, height) = (width.min(area.width), height.min(area.height));
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, place);
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" top ")), place);
}

/// A length in cells of a terminal, which has no more than a u16 of them.
fn height(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// The highest of the latest values of several histories.
fn most<'a>(histories: impl IntoIterator<Item = &'a VecDeque<f64>>, width: usize) -> f64 {
    let latest = histories.into_iter().flat_map(|history| history.iter().rev().take(width));
    latest.copied().fold(1.0, f64::max)
}

/// The latest of these as bars beside each other; `most` is a whole cell high.
fn bars(values: &VecDeque<f64>, width: usize, most: f64) -> String {
    tall_bars(values, width, 1, most).pop().unwrap_or_default()
}

/// The same, so many cells high; lines from the top.
fn tall_bars(values: &VecDeque<f64>, width: usize, height: usize, most: f64) -> Vec<String> {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown: Vec<f64> = values.iter().copied().skip(values.len().saturating_sub(width)).collect();
    let indent = " ".repeat(width.saturating_sub(shown.len()));
    let eighths = |value: &f64| {
        // Between nothing and `height` whole cells; what is not quite nothing is seen.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let eighths = (value.max(0.0) / most * (8 * height) as f64).ceil() as usize;
        eighths
    };
    (0..height)
        .rev()
        .map(|below| {
            let bar = |value| EIGHTHS[eighths(value).saturating_sub(8 * below).min(8)];
            indent.clone() + &shown.iter().map(bar).collect::<String>()
        })
        .collect()
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
