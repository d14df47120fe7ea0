//! A house of parrots: what is said to one is said to all, and to a neighbour by a pipe message.

use super::*;
use crate::app::{Adoption, Closed, ClosedBy, Message, Sender, TimerDue};

/// Everything but the first letter of a message is pushed to everybody whose row is open; `!` is also
/// told the next worker by a pipe message, `t` by a timer; `b` closes everybody else, saying it; `a` is broadcast.
#[derive(Default)]
struct Parrot {
    closed: Vec<(ConnId, ClosedBy)>,
    adopted: Vec<Adoption>,
}

impl Parrot {
    fn tell_all(context: &mut Context<'_, Self>, text: &str) {
        let all: Vec<ConnId> = context.table().established().collect();
        // Who is too slow for it is closed.
        let _ = context.push_many(&all, Message::Text(text));
    }
}

impl App for Parrot {
    type PipeMessage = String;
    type Task = String;
    type TaskResult = String;

    fn message(&mut self, context: &mut Context<'_, Self>, conn: ConnId, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        match text.split_at(1) {
            ("!", rest) => context.send_pipe_message(SlotId(1), &rest.to_owned()).unwrap(),
            ("t", rest) => _ = context.after(500, rest.as_bytes()).unwrap(),
            ("b", rest) => {
                let others = context.table().established().filter(|other| *other != conn);
                for other in others.collect::<Vec<_>>() {
                    context.disconnect_saying(other, Message::Text(rest), 4510, "enough");
                }
            }
            ("a", rest) => context.broadcast(Message::Text(rest)),
            ("w", rest) => _ = context.task(&rest.to_owned()).unwrap(),
            (_, rest) => Self::tell_all(context, rest),
        }
    }

    fn pipe_message(&mut self, context: &mut Context<'_, Self>, _: Sender, message: String) {
        Self::tell_all(context, &message);
    }

    fn timer(&mut self, context: &mut Context<'_, Self>, _: TimerId, due: &TimerDue<'_>) {
        Self::tell_all(context, std::str::from_utf8(due.payload).unwrap());
    }

    fn task(&mut self, _: &mut Context<'_, Self>, _: TaskId, work: String) -> Option<String> {
        Some(work.to_uppercase())
    }

    fn finish(
        &mut self,
        context: &mut Context<'_, Self>,
        _: TaskId,
        result: Result<String, TaskFailure>,
    ) {
        Self::tell_all(context, &result.unwrap_or_else(|failure| failure.to_string()));
    }

    fn adopt(&mut self, _: &mut Context<'_, Self>, _: ConnId, why: Adoption) {
        self.adopted.push(why);
    }

    fn close(&mut self, _: &mut Context<'_, Self>, conn: ConnId, closed: &Closed) {
        self.closed.push((conn, closed.by));
    }
}

const BOUNDS: Bounds = Bounds { sessions: 8, timers: 4, mailbox: 100, send_buffer: 100, tasks: 4 };

fn house() -> (FakeServer<Parrot>, Dice, ConnId, ConnId) {
    let mut server = FakeServer::start(Box::new(Parrot::default), 2, BOUNDS);
    let peer = "192.0.2.1:5".parse().unwrap();
    let left = server.connect_plainly(SlotId(0), peer).unwrap();
    let right = server.connect_plainly(SlotId(1), peer).unwrap();
    (server, Dice::new(1), left, right)
}

fn say(server: &mut FakeServer<Parrot>, conn: ConnId, text: &str) {
    server.say(conn, Said::Text(text.into()));
}

fn texts(server: &mut FakeServer<Parrot>, conn: ConnId) -> Vec<String> {
    let heard = server.hear(conn).into_iter();
    heard
        .map(|heard| match heard {
            Heard::Text(text) => text,
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn what_crosses_comes_later_and_pipes_timers_and_tasks_come_too() {
    let (mut server, mut dice, left, right) = house();
    say(&mut server, left, ".one");
    assert!(server.turn(SlotId(0), &mut dice, Share::ALL, None));
    assert_eq!(texts(&mut server, left), ["one"]);
    assert!(texts(&mut server, right).is_empty(), "its worker has not worked");
    assert!(server.turn(SlotId(1), &mut dice, Share::ALL, None));
    assert_eq!(texts(&mut server, right), ["one"]);
    for text in ["!two", "tfour", "wthree"] {
        say(&mut server, left, text);
    }
    assert!(server.settle_down(&mut dice));
    server.pass(499);
    assert!(server.settle_down(&mut dice));
    let mut heard = texts(&mut server, right);
    heard.sort_unstable();
    assert_eq!(heard, ["THREE", "two"]);
    server.pass(1);
    assert!(server.settle_down(&mut dice));
    assert_eq!(texts(&mut server, right), ["four"]);
}

#[test]
fn last_words_come_with_the_close_or_not_at_all() {
    // Between the words and the close there is room for nothing: not for a full outbox, not in a mailbox.
    let close = r#"Close { code: 4510, reason: "enough" }"#;
    let (mut server, mut dice, left, right) = house();
    say(&mut server, left, "bfarewell");
    say(&mut server, left, &format!(".{}", "x".repeat(60)));
    assert!(server.settle_down(&mut dice));
    assert_eq!(texts(&mut server, right), ["farewell", close]);

    // Both of one turn, so that both come in one packet.
    let (mut server, mut dice, left, right) = house();
    say(&mut server, left, &format!(".{}", "x".repeat(60)));
    say(&mut server, left, "bfarewell");
    assert!(server.settle_down(&mut dice));
    let heard = texts(&mut server, right);
    assert_eq!(heard, ["x".repeat(60).as_str(), close], "above half of its outbox");

    let bounds = Bounds { mailbox: 1, ..BOUNDS };
    let mut server = FakeServer::start(Box::new(Parrot::default), 2, bounds);
    let peer = "192.0.2.1:5".parse().unwrap();
    let [left, right] = [0, 1].map(|slot| server.connect_plainly(SlotId(slot), peer).unwrap());
    say(&mut server, left, "bfarewell");
    assert!(server.settle_down(&mut dice));
    assert_eq!(
        texts(&mut server, right),
        ["farewell", close],
        "one place in the mailbox is enough"
    );
}

#[test]
fn a_death_leaves_what_was_done_and_who_was_served_is_told() {
    // However late it dies: the one who spoke is closed, or everybody has heard.
    let mut deaths = 0;
    for deeds in 0..60 {
        let (mut server, mut dice, left, right) = house();
        say(&mut server, left, ".one");
        let lives = server.turn(SlotId(0), &mut dice, Share::ALL, Some(deeds));
        deaths += usize::from(!lives);
        assert_eq!(server.lives(SlotId(0)), lives);
        assert!(server.settle_down(&mut dice));
        let (left_heard, right_heard) = (texts(&mut server, left), texts(&mut server, right));
        if server.table().is_established(left) {
            let heard = left_heard == ["one"] && right_heard == ["one"];
            assert!(heard || deeds == 0, "{deeds}: {left_heard:?} {right_heard:?}");
        } else {
            let end = r#"Close { code: 1012, reason: "worker lost" }"#;
            assert_eq!(left_heard.last().map(String::as_str), Some(end), "{deeds}");
        }
        assert!(server.table().is_established(right), "it was not served");
    }
    assert!((3..60).contains(&deaths), "{deaths}");
}

#[test]
fn who_is_moved_gets_everything_in_order() {
    let (mut server, mut dice, left, right) = house();
    for number in 0..20 {
        say(&mut server, right, &format!(".{number}"));
        server.turn(SlotId(1), &mut dice, Share::ALL, None);
        if number % 5 == 0 {
            let to = server.slots().find(|slot| Some(*slot) != server.table().owner(left));
            let moved = server.move_to(left, to.unwrap());
            assert!(moved || number > 0, "the first time nothing is in the way");
        }
        if number % 3 == 0 {
            server.turn(SlotId(0), &mut dice, Share::ALL, None);
        }
    }
    assert!(server.settle_down(&mut dice));
    let all: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(texts(&mut server, left), all);
    assert_eq!(texts(&mut server, right), all);
}

#[test]
fn a_broadcast_is_heard_once_by_who_was_moved_and_who_was_not() {
    let (mut server, mut dice, left, right) = house();
    let mate = server.connect_plainly(SlotId(0), "192.0.2.1:6".parse().unwrap()).unwrap();
    assert!(server.move_to(left, SlotId(1)), "from home");
    for (text, speaker) in [("aone", mate), ("atwo", right), ("athree", left)] {
        say(&mut server, speaker, text);
        assert!(server.settle_down(&mut dice));
    }
    assert!(server.move_to(left, SlotId(0)), "back home, where it still goes by the mailbox");
    say(&mut server, mate, "afour");
    assert!(server.settle_down(&mut dice));
    for conn in [left, right, mate] {
        assert_eq!(texts(&mut server, conn), ["one", "two", "three", "four"]);
    }
}

#[test]
fn a_slow_client_is_closed_and_a_replaced_worker_loses_nothing() {
    let (mut server, mut dice, left, right) = house();
    server.set_stalled(right, true);
    say(&mut server, left, &format!(".{}", "x".repeat(60)));
    assert!(server.settle_down(&mut dice));
    assert!(server.reload(SlotId(1), None));
    assert!(texts(&mut server, right).is_empty());
    server.set_stalled(right, false);
    assert!(server.settle_down(&mut dice));
    assert_eq!(texts(&mut server, right), ["x".repeat(60)]);
    server.set_stalled(right, true);
    for _ in 0..2 {
        say(&mut server, left, &format!(".{}", "x".repeat(60)));
        assert!(server.settle_down(&mut dice));
    }
    assert_eq!(server.table().phase(right), None, "closed, and its row is free");
    assert!(server.table().is_established(left));
    server.kill(SlotId(1));
    assert!(!server.lives(SlotId(1)) && server.start_again(SlotId(1), None));
    assert_eq!(server.table().used(), 1);
}
