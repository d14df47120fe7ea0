//! What the full screen shows: conversations, people, the connection; and what keys make of it.
//!
//! Pure: news, keys and `now` in, deeds out; drawn by `view`.
//! Invariants: 1. There is always a chosen conversation; the first is the program's own and stays. 2. A
//! conversation keeps [`ENTRIES_MAX`] entries, and there are at most [`TALKS_MAX`].

use super::input::Input;
use super::news::{Message, News};
use super::words::{HELP, Line, Target};
use crate::keys::Key;
use dunlin_server::clock::Millis;
use std::collections::{BTreeMap, VecDeque};

/// Entries of a conversation; the oldest goes.
pub(crate) const ENTRIES_MAX: usize = 1_000;
/// Conversations; what comes from others is shown in the first.
pub(crate) const TALKS_MAX: usize = 64;
/// For how long somebody is believed to type.
const TYPING_FOR_MS: u64 = 4_000;
/// How often is told that one types.
const TYPING_EVERY_MS: u64 = 2_000;

/// A line of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Unix milliseconds.
    pub(crate) time: u64,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Said {
        from: String,
        own: bool,
        text: String,
    },
    /// One's own: its number, until it is answered, and what became of it.
    Sending {
        number: u64,
        text: String,
        fate: Fate,
    },
    /// Of the program.
    Notice(String),
    Trouble(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    Waiting,
    Sent,
    NobodyThere,
    Failed(String),
}

/// A conversation.
#[derive(Debug)]
pub(crate) struct Talk {
    /// None: the program's own.
    pub(crate) target: Option<Target>,
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) unread: usize,
    /// People in the room.
    pub(crate) count: Option<u64>,
    typing: BTreeMap<String, Millis>,
}

/// The connection, for people.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    Connecting,
    Online,
    Waiting { why: String, until: Millis },
}

/// What the shell is to ask of the session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Deed {
    Send(Target, String),
    Typing(Target),
    Join(String),
    Leave(String),
    Members(String),
    Who(Vec<String>),
    Watch(Vec<String>),
    Redraw,
    /// End when what was typed is sent.
    Finish,
    Quit,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Talks {
    pub(crate) me: String,
    pub(crate) place: String,
    pub(crate) standing: Standing,
    pub(crate) talks: Vec<Talk>,
    pub(crate) chosen: usize,
    /// Who is online, of those who are watched.
    pub(crate) online: BTreeMap<String, bool>,
    pub(crate) input: Input,
    /// Rows above the newest.
    pub(crate) scrolled: usize,
    typing_told: Option<Millis>,
    /// A `/quit` was answered with what would be lost.
    warned: bool,
}

impl Talk {
    fn new(target: Option<Target>) -> Self {
        Self { target, entries: VecDeque::new(), unread: 0, count: None, typing: BTreeMap::new() }
    }

    fn add(&mut self, time: u64, what: What) {
        self.entries.push_back(Entry { time, what });
        if self.entries.len() > ENTRIES_MAX {
            self.entries.pop_front();
        }
    }

    /// Who is typing, as far as is known.
    pub(crate) fn typing(&self, now: Millis) -> Vec<&str> {
        let still = self.typing.iter().filter(|(_, until)| **until > now);
        still.map(|(user, _)| user.as_str()).collect()
    }
}

impl Talks {
    pub(crate) fn new(me: String, place: String) -> Self {
        let mut own = Talk::new(None);
        own.add(0, What::Notice("/join a room, or /msg somebody; /help tells more".to_owned()));
        Self {
            me,
            place,
            standing: Standing::Connecting,
            talks: vec![own],
            chosen: 0,
            online: BTreeMap::new(),
            input: Input::default(),
            scrolled: 0,
            typing_told: None,
            warned: false,
        }
    }

    /// The conversation on the screen.
    pub(crate) fn chosen(&self) -> &Talk {
        &self.talks[self.chosen]
    }

    /// Opens the conversation, and shows it.
    pub(crate) fn show(&mut self, target: &Target) -> Vec<Deed> {
        let (place, deeds) = self.find(target);
        self.choose(place);
        deeds
    }

    // News.

    pub(crate) fn hear(&mut self, news: &News, now: Millis, time: u64) -> Vec<Deed> {
        match news {
            News::Connecting => self.standing = Standing::Connecting,
            News::Online { user } => {
                self.me.clone_from(user);
                if self.standing != Standing::Online && self.chosen().entries.len() > 1 {
                    self.notice(time, format!("connected as {user}"));
                }
                self.standing = Standing::Online;
            }
            News::Offline { why, wait_ms } => {
                self.trouble(time, why.clone());
                self.standing = Standing::Waiting { why: why.clone(), until: now + *wait_ms };
            }
            News::Message(message) => return self.came(message),
            News::Typing { from, to, at } => {
                if let Some(place) = self.place_of(to) {
                    self.talks[place].typing.insert(from.clone(), *at + TYPING_FOR_MS);
                }
            }
            News::Presence { user, online, .. } => {
                let before = self.online.insert(user.clone(), *online);
                if before.is_some_and(|before| before != *online) {
                    let word = if *online { "is here" } else { "is gone" };
                    self.note_in(&Target::User(user.clone()), time, format!("{user} {word}"));
                }
            }
            News::Joined { room, count } => self.counted(room, *count),
            News::Count { room, count } => self.counted(room, *count),
            News::Moved { room, user, came, count } => {
                self.counted(room, *count);
                if *user != self.me {
                    let word = if *came { "came in" } else { "left" };
                    self.note_in(&Target::Room(room.clone()), time, format!("{user} {word}"));
                }
            }
            News::NotJoined { room, why } => {
                self.trouble(time, format!("cannot join #{room}: {why}"))
            }
            News::Members { room, members, more, told: true } => {
                let more = if *more { " and more" } else { "" };
                self.notice(time, format!("in #{room}: {}{more}", members.join(", ")));
            }
            News::Members { .. } => {}
            News::Who { states } => self.notice(time, who(states)),
            News::Sent { message, sessions, .. } => {
                let alone = *sessions == 0 && matches!(message.to, Target::User(_));
                let fate = if alone { Fate::NobodyThere } else { Fate::Sent };
                self.settle(message.number, fate);
            }
            News::NotSent { message, why } => {
                self.settle(message.number, Fate::Failed(why.clone()))
            }
            News::Refused { why } => self.trouble(time, why.clone()),
        }
        Vec::new()
    }

    fn came(&mut self, message: &Message) -> Vec<Deed> {
        let (place, deeds) = match &message.within {
            Some(target) => self.find(target),
            None => (0, Vec::new()),
        };
        let from = message.from.clone().unwrap_or_else(|| "the server".to_owned());
        let talk = &mut self.talks[place];
        talk.typing.remove(&from);
        let (own, text) = (message.own, message.text.clone());
        talk.add(message.time, What::Said { from, own, text });
        if place != self.chosen {
            self.talks[place].unread += 1;
        }
        deeds
    }

    fn counted(&mut self, room: &str, count: u64) {
        if let Some(place) = self.place_of(&Target::Room(room.to_owned())) {
            self.talks[place].count = Some(count);
        }
    }

    fn settle(&mut self, number: u64, fate: Fate) {
        for entry in self.talks.iter_mut().flat_map(|talk| talk.entries.iter_mut().rev()) {
            if let What::Sending { number: found, fate: old, .. } = &mut entry.what
                && *found == number
            {
                *old = fate;
                return;
            }
        }
    }

    // Keys.

    /// Does what a key asks for; `unsent` messages would be lost by an end.
    pub(crate) fn press(&mut self, key: &Key, now: Millis, time: u64, unsent: usize) -> Vec<Deed> {
        match key {
            Key::Enter => return self.enter(time, unsent),
            Key::Tab | Key::Control('n') => self.choose((self.chosen + 1) % self.talks.len()),
            Key::BackTab | Key::Control('p') => {
                self.choose((self.chosen + self.talks.len() - 1) % self.talks.len());
            }
            Key::PageUp => self.scrolled = self.scrolled.saturating_add(10),
            Key::PageDown => self.scrolled = self.scrolled.saturating_sub(10),
            Key::Control('c') => return vec![Deed::Quit],
            Key::Control('d') if self.input.is_empty() => return vec![Deed::Quit],
            Key::Control('l') => return vec![Deed::Redraw],
            key => {
                let changed = self.input.press(key);
                if changed && matches!(key, Key::Char(_)) {
                    return self.typed(now);
                }
            }
        }
        Vec::new()
    }

    /// Tells now and then that one is typing; not of a command.
    fn typed(&mut self, now: Millis) -> Vec<Deed> {
        let due = self.typing_told.is_none_or(|told| now >= told + TYPING_EVERY_MS);
        match &self.chosen().target {
            Some(target) if due && !self.input.text().starts_with('/') => {
                let deed = Deed::Typing(target.clone());
                self.typing_told = Some(now);
                vec![deed]
            }
            _ => Vec::new(),
        }
    }

    fn enter(&mut self, time: u64, unsent: usize) -> Vec<Deed> {
        let line = Line::read(&self.input.take());
        self.scrolled = 0;
        self.typing_told = None;
        let warned = std::mem::take(&mut self.warned);
        match line {
            Line::Nothing => {}
            Line::Text(text) => match self.chosen().target.clone() {
                Some(target) => return vec![Deed::Send(target, text)],
                None => self.trouble(
                    time,
                    "nobody to send it to: /join a room or /msg somebody".to_owned(),
                ),
            },
            Line::Message(target, text) => {
                let mut deeds = self.show(&target);
                deeds.extend(text.map(|text| Deed::Send(target, text)));
                return deeds;
            }
            Line::Join(room) => {
                self.show(&Target::Room(room.clone()));
                return vec![Deed::Join(room)];
            }
            Line::Leave(room) => return self.leave(room, time),
            Line::Who(names) => {
                let names =
                    if names.is_empty() { self.online.keys().cloned().collect() } else { names };
                if names.is_empty() {
                    self.notice(time, "nobody is in the list: /who NAME".to_owned());
                } else {
                    return vec![Deed::Who(names)];
                }
            }
            Line::Members(room) => match room.or_else(|| self.room()) {
                Some(room) => return vec![Deed::Members(room)],
                None => self.trouble(time, "no room is on the screen: /members ROOM".to_owned()),
            },
            Line::Help => HELP.iter().for_each(|line| self.notice(time, (*line).to_owned())),
            // A moment, mostly; a second one does not wait.
            Line::Quit if unsent > 0 && !warned && self.standing == Standing::Online => {
                self.warned = true;
                return vec![Deed::Finish];
            }
            Line::Quit if unsent > 0 && !warned => {
                self.warned = true;
                self.trouble(
                    time,
                    format!("{unsent} not yet sent: /quit again to leave all the same"),
                );
            }
            Line::Quit => return vec![Deed::Quit],
            Line::Wrong(why) => self.trouble(time, why),
        }
        Vec::new()
    }

    fn room(&self) -> Option<String> {
        match &self.chosen().target {
            Some(Target::Room(room)) => Some(room.clone()),
            _ => None,
        }
    }

    fn leave(&mut self, room: Option<String>, time: u64) -> Vec<Deed> {
        let target = room.map(Target::Room).or_else(|| self.chosen().target.clone());
        let Some(place) = target.as_ref().and_then(|target| self.place_of(target)) else {
            self.trouble(time, "there is no such conversation to leave".to_owned());
            return Vec::new();
        };
        self.talks.remove(place);
        self.choose(self.chosen.saturating_sub(usize::from(place <= self.chosen)));
        match target {
            Some(Target::Room(room)) => vec![Deed::Leave(room)],
            _ => Vec::new(),
        }
    }

    /// A message of one's own went out with this number; none if too many wait.
    pub(crate) fn sending(
        &mut self,
        target: &Target,
        text: String,
        number: Option<u64>,
        time: u64,
    ) {
        let (place, _) = self.find(target);
        let fate =
            number.map_or_else(|| Fate::Failed("too many wait".to_owned()), |_| Fate::Waiting);
        self.talks[place].add(time, What::Sending { number: number.unwrap_or(0), text, fate });
    }

    // Conversations.

    fn place_of(&self, target: &Target) -> Option<usize> {
        self.talks.iter().position(|talk| talk.target.as_ref() == Some(target))
    }

    /// The place of a conversation, which is opened if there is room for it; rooms stand before people.
    fn find(&mut self, target: &Target) -> (usize, Vec<Deed>) {
        if let Some(place) = self.place_of(target) {
            return (place, Vec::new());
        }
        if self.talks.len() >= TALKS_MAX {
            return (0, Vec::new());
        }
        let place = self.talks.partition_point(|talk| talk.target.as_ref() < Some(target));
        self.talks.insert(place, Talk::new(Some(target.clone())));
        if place <= self.chosen {
            self.chosen += 1;
        }
        let deeds = match target {
            Target::User(user) => vec![Deed::Watch(vec![user.clone()])],
            Target::Room(_) => Vec::new(),
        };
        (place, deeds)
    }

    fn choose(&mut self, place: usize) {
        self.chosen = place;
        self.talks[place].unread = 0;
        self.scrolled = 0;
        self.typing_told = None;
    }

    fn notice(&mut self, time: u64, text: String) {
        self.talks[self.chosen].add(time, What::Notice(text));
    }

    fn trouble(&mut self, time: u64, text: String) {
        self.talks[self.chosen].add(time, What::Trouble(text));
    }

    fn note_in(&mut self, target: &Target, time: u64, text: String) {
        if let Some(place) = self.place_of(target) {
            self.talks[place].add(time, What::Notice(text));
        }
    }
}

/// `online: ann, bob; not online: zoe`.
fn who(states: &[(String, bool)]) -> String {
    let named = |online: bool| {
        let names: Vec<&str> =
            states.iter().filter(|(_, is)| *is == online).map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    };
    match (named(true).as_str(), named(false).as_str()) {
        (online, "") => format!("online: {online}"),
        ("", offline) => format!("not online: {offline}"),
        (online, offline) => format!("online: {online}; not online: {offline}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::outgoing::Outgoing;
    use serde_json::json;

    fn room(name: &str) -> Target {
        Target::Room(name.to_owned())
    }

    fn user(name: &str) -> Target {
        Target::User(name.to_owned())
    }

    fn talks() -> Talks {
        let mut talks = Talks::new("ann".to_owned(), "ws://h/ws".to_owned());
        talks.hear(&News::Online { user: "ann".to_owned() }, Millis(0), 0);
        talks
    }

    fn type_line(talks: &mut Talks, line: &str) -> Vec<Deed> {
        talks.press(&Key::Paste(line.to_owned()), Millis(0), 0, 0);
        talks.press(&Key::Enter, Millis(0), 0, 0)
    }

    fn message(from: &str, to: serde_json::Value) -> News {
        let params =
            json!({"id": "1", "from": {"user": from}, "to": to, "body": "tea?", "time": 7});
        News::message(&params, Some("ann"))
    }

    fn names(talks: &Talks) -> Vec<String> {
        let name =
            |talk: &Talk| talk.target.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        talks.talks.iter().map(name).collect()
    }

    #[test]
    fn conversations_open_by_command_and_by_message_and_keep_the_chosen_one() {
        let mut talks = talks();
        assert_eq!(type_line(&mut talks, "/join tea"), [Deed::Join("tea".to_owned())]);
        assert_eq!(type_line(&mut talks, "milk?"), [Deed::Send(room("tea"), "milk?".to_owned())]);
        let deeds = talks.hear(&message("bob", json!({"user": "ann"})), Millis(0), 0);
        assert_eq!(deeds, [Deed::Watch(vec!["bob".to_owned()])]);
        talks.hear(&message("ann", json!({"user": "zoe"})), Millis(0), 0);
        talks.hear(&message("bob", json!({"room": "milk"})), Millis(0), 0);
        assert_eq!(names(&talks), ["-", "#milk", "#tea", "bob", "zoe"]);
        assert_eq!(talks.chosen().target, Some(room("tea")));
        let unread: Vec<usize> = talks.talks.iter().map(|talk| talk.unread).collect();
        assert_eq!(unread, [0, 1, 0, 1, 1]);
        talks.press(&Key::Tab, Millis(0), 0, 0);
        assert_eq!((talks.chosen().target.clone(), talks.chosen().unread), (Some(user("bob")), 0));
        assert_eq!(type_line(&mut talks, "/leave"), []);
        assert_eq!(type_line(&mut talks, "/leave #milk"), [Deed::Leave("milk".to_owned())]);
        assert_eq!(names(&talks), ["-", "#tea", "zoe"]);
        assert_eq!(talks.chosen().target, Some(room("tea")));
        assert_eq!(
            type_line(&mut talks, "/msg zoe hi"),
            [Deed::Send(user("zoe"), "hi".to_owned())]
        );
        assert_eq!(talks.chosen().target, Some(user("zoe")));
        talks.press(&Key::Tab, Millis(0), 0, 0);
        talks.press(&Key::BackTab, Millis(0), 0, 0);
        assert_eq!(talks.chosen().target, Some(user("zoe")), "round and back");
    }

    #[test]
    fn one_s_own_message_shows_what_became_of_it() {
        let mut talks = talks();
        let mut outgoing = Outgoing::new("k".to_owned());
        for (sessions, fate) in [(1, Fate::Sent), (0, Fate::NobodyThere)] {
            let number = outgoing.push(Millis(0), user("bob"), "x".to_owned());
            talks.sending(&user("bob"), "x".to_owned(), number, 5);
            let last = |talks: &Talks| talks.talks[1].entries.back().unwrap().what.clone();
            assert!(matches!(last(&talks), What::Sending { fate: Fate::Waiting, .. }));
            outgoing.asked(9);
            let message = outgoing.take(9).unwrap();
            talks.hear(&News::Sent { message, time: 5, sessions }, Millis(0), 0);
            assert!(matches!(last(&talks), What::Sending { fate: found, .. } if found == fate));
        }
    }

    #[test]
    fn typing_is_told_now_and_then_and_believed_for_a_while() {
        let mut talks = talks();
        talks.show(&user("bob"));
        let mut told = Vec::new();
        for at in 0..5 {
            told.push(talks.press(&Key::Char('x'), Millis(at * 1_000), 0, 0).len());
        }
        assert_eq!(told, [1, 0, 1, 0, 1]);
        let typing = News::Typing { from: "bob".to_owned(), to: user("bob"), at: Millis(100) };
        talks.hear(&typing, Millis(100), 0);
        assert_eq!(talks.chosen().typing(Millis(4_000)), ["bob"]);
        assert!(talks.chosen().typing(Millis(4_100)).is_empty());
        talks.hear(&typing, Millis(100), 0);
        talks.hear(&message("bob", json!({"user": "ann"})), Millis(200), 0);
        assert!(talks.chosen().typing(Millis(200)).is_empty(), "the message is what was typed");
        type_line(&mut talks, "/msg zoe");
        assert_eq!(talks.press(&Key::Char('/'), Millis(9_000), 0, 0), [], "not of a command");
    }

    #[test]
    fn an_end_waits_for_what_is_on_its_way_and_is_asked_for_twice_where_that_may_be_long() {
        let quit = |talks: &mut Talks, unsent: usize| {
            talks.press(&Key::Paste("/quit".to_owned()), Millis(0), 0, unsent);
            talks.press(&Key::Enter, Millis(0), 0, unsent)
        };
        let mut talks = talks();
        assert_eq!(quit(&mut talks, 0), [Deed::Quit]);
        assert_eq!(
            (quit(&mut talks, 2), quit(&mut talks, 2)),
            (vec![Deed::Finish], vec![Deed::Quit])
        );
        talks.hear(&News::Offline { why: "gone".to_owned(), wait_ms: 9 }, Millis(0), 0);
        assert_eq!((quit(&mut talks, 2), quit(&mut talks, 2)), (vec![], vec![Deed::Quit]));
        assert_eq!(talks.press(&Key::Control('c'), Millis(0), 0, 9), [Deed::Quit]);
    }

    #[test]
    fn conversations_and_their_entries_are_bounded() {
        let mut talks = talks();
        for number in 0..TALKS_MAX + 10 {
            talks.hear(&message(&format!("u{number}"), json!({"user": "ann"})), Millis(0), 0);
        }
        assert_eq!(talks.talks.len(), TALKS_MAX);
        assert!(
            talks.talks[0].entries.len() > 10,
            "what has no place of its own is shown in the first"
        );
        for _ in 0..ENTRIES_MAX + 5 {
            talks.hear(&message("u1", json!({"user": "ann"})), Millis(0), 0);
        }
        assert!(talks.talks.iter().all(|talk| talk.entries.len() <= ENTRIES_MAX));
    }

    #[test]
    fn who_and_members_need_somebody_to_ask_for() {
        let mut talks = talks();
        assert_eq!(type_line(&mut talks, "/who"), []);
        assert_eq!(type_line(&mut talks, "/members"), []);
        assert_eq!(type_line(&mut talks, "text to nobody"), []);
        talks.show(&room("tea"));
        assert_eq!(type_line(&mut talks, "/members"), [Deed::Members("tea".to_owned())]);
        assert_eq!(type_line(&mut talks, "/who bob"), [Deed::Who(vec!["bob".to_owned()])]);
        let states =
            vec![("ann".to_owned(), true), ("bob".to_owned(), false), ("zoe".to_owned(), true)];
        assert_eq!(who(&states), "online: ann, zoe; not online: bob");
    }
}
