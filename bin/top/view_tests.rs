//! Pictures of `top`, kept as text beside this file. `DUNLIN_PICTURES=1 cargo test --bin dunlin pictures`
//! draws them anew: look at what changed before it is committed.

use super::*;
use crate::keys::Key;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value as Json, json};
use std::path::Path;

fn status(second: u64, workers: u64) -> Json {
    let worker = |slot: u64| {
        let messages = second * second * 100 * (slot + 1);
        json!({"slot": slot, "pid": 4_100 + slot, "state": "running", "generation": 3,
        "restarts": slot, "connections": 600 - slot, "messages_in": messages,
        "messages_out": 2 * messages, "bytes_in": 100 * messages, "bytes_out": 400 * messages,
        "accepted": second * 3, "slow_closed": second / 6, "mailbox_depth": 700 * slot,
        "rss_bytes": 12_000_000, "cpu_ms": second * 130, "stood_in_by": null})
    };
    json!({
        "version": "0.1.0", "pid": 4_001, "state": "running", "uptime_ms": 60_000 + second * 1_000,
        "generation": 3, "workers": (0..workers).map(worker).collect::<Vec<_>>(),
        "sessions": {"used": 1_199, "capacity": 16_384, "logged_in": 1_180, "peak": 1_300,
                     "refused": 0},
        "timer": {"pid": 4_200, "state": "running", "restarts": 0, "armed": 1_180},
        "tasks": [{"slot": 0, "pid": 4_201, "state": "running", "restarts": 0, "queued": 2,
                   "done": 31, "failed": 1, "busy": true}],
        "last_reload": {"seq": second / 5, "took_ms": 36, "adopted": 1_199, "dropped": 0},
    })
}

fn watching(workers: u64) -> Model {
    let mut model = Model::new("/run/dunlin".to_owned());
    for second in 1..9 {
        let look = Look::parse(&status(second, workers).to_string());
        model.seen(&format!("12:00:0{second}"), look);
    }
    model
}

fn drawn(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| render(frame, model, Colours(true))).unwrap();
    let buffer = terminal.backend().buffer();
    let lines: Vec<String> = (0..height)
        .map(|row| {
            let line: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

fn compare(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/top/pictures").join(name);
    if std::env::var_os("DUNLIN_PICTURES").is_some() {
        std::fs::write(&path, drawn).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(drawn, kept, "not as in {}:\n{drawn}", path.display());
}

#[test]
fn pictures_are_as_they_are_kept() {
    let mut model = watching(2);
    compare("watching.txt", &drawn(&model, 80, 24));
    compare("wide.txt", &drawn(&model, 140, 24));
    model.press(&Key::Down);
    model.press(&Key::Char('d'));
    compare("asking.txt", &drawn(&model, 80, 24));
    model.press(&Key::Char('n'));
    model.press(&Key::Char('?'));
    compare("help.txt", &drawn(&model, 80, 24));
    model.press(&Key::Char('n'));
    model.seen("12:00:09", Err("no server is running in /run/dunlin".to_owned()));
    compare("away.txt", &drawn(&model, 80, 24));
    let mut nobody = Model::new("/run/dunlin".to_owned());
    nobody.seen("12:00:00", Err("no server is running in /run/dunlin".to_owned()));
    compare("nobody.txt", &drawn(&nobody, 80, 24));
}

#[test]
fn the_chosen_worker_is_seen_where_not_all_fit() {
    let mut model = watching(40);
    assert!(drawn(&model, 80, 24).contains("\n     0  running"));
    for _ in 0..39 {
        model.press(&Key::Down);
    }
    let text = drawn(&model, 80, 24);
    assert!(text.contains("WORKER") && text.contains("\n    39  running"), "{text}");
    assert!(text.contains("12:00:06"), "events keep their lines: {text}");
}

#[test]
fn any_size_of_terminal_will_do() {
    let mut model = watching(3);
    for help in [false, true] {
        model.help = help;
        for (width, height) in [(1, 1), (7, 3), (20, 5), (80, 8), (300, 100)] {
            drawn(&model, width, height);
        }
    }
}

#[test]
fn what_is_bad_is_red_and_without_colours_still_stands_out() {
    assert_eq!(Colours(true).of(Mark::Bad).fg, Some(Color::Red));
    let plain = Colours(false).of(Mark::Bad);
    assert_eq!((plain.fg, plain.add_modifier), (None, Modifier::BOLD));
}

#[test]
fn bars_are_as_high_as_the_highest_that_is_seen() {
    let values = VecDeque::from([800.0, 0.0, 1.0, 4.0, 8.0]);
    let few = VecDeque::from([2.0]);
    assert_eq!((most([&values, &few], 4), most([&few], 9), most([], 9)), (8.0, 2.0, 1.0));
    assert_eq!(bars(&values, 4, 8.0), " ▁▄█");
    assert_eq!(bars(&values, 7, 800.0), "  █ ▁▁▁");
    assert_eq!(bars(&VecDeque::from([0.0]), 2, 1.0), "  ");
    assert_eq!(tall_bars(&values, 4, 2, 8.0), ["   █", " ▂██"]);
}
