//! Whether presence is right after the kill of a worker, and since when.
//!
//! Pure: `now` is passed in. For a while after a kill some users are asked about again and again: those
//! whose connection ended since must be offline, those whose connection is open, online. What is wrong
//! just after the kill, or just after the close came, is timed; what is wrong later is a broken promise.
//! Who is said to be offline may have been closed by a frame that is still on its way: whether that
//! was wrong is known at the end.

use crate::bench::client::connection::LifeId;
use crate::bench::client::moment::Moment;
use std::collections::HashMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Presence {
    watch: Option<Watch>,
    asked: u64,
    wrong: u64,
    longest_wrong_us: u64,
    /// Said to be offline, and not closed so far.
    suspects: Vec<Suspect>,
}

/// An open connection whose user was said to be offline.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    life: LifeId,
    killed: Moment,
    asked: Moment,
    answered: Moment,
}

/// The time after a kill.
#[derive(Debug)]
struct Watch {
    killed: Moment,
    next: Moment,
    /// Users whose connections ended since, and when.
    closed: Vec<(LifeId, Moment)>,
    questions: HashMap<(LifeId, u64), Question>,
    told: bool,
}

/// Who was asked about: those open, then those closed.
#[derive(Debug)]
struct Question {
    asked: Moment,
    open: Vec<LifeId>,
    closed: Vec<(LifeId, Moment)>,
}

/// From one question to the next.
const ASK_EVERY_US: u64 = 5_000;
/// So long after a kill questions are asked.
const WATCH_US: u64 = 400_000;
/// Presence that is asked for so long after the kill is right.
const RIGHT_AFTER_US: u64 = 100_000;
/// Of users whose connections ended, so many are asked about.
const CLOSED_MAX: usize = 40;

impl Presence {
    /// A worker is about to be killed.
    pub(super) fn kill(&mut self, now: Moment) {
        let next = now.plus_us(ASK_EVERY_US / 5);
        let (closed, questions) = (Vec::new(), HashMap::new());
        self.watch = Some(Watch { killed: now, next, closed, questions, told: false });
    }

    /// A connection ended that was logged in.
    pub(super) fn closed(&mut self, life: LifeId, now: Moment) {
        self.suspects.retain(|suspect| suspect.life != life);
        if let Some(watch) = &mut self.watch {
            watch.closed.push((life, now));
        }
    }

    /// When the next question is due.
    pub(super) fn due(&self) -> Option<Moment> {
        let watch = self.watch.as_ref()?;
        (watch.next.us_since(watch.killed) <= WATCH_US).then_some(watch.next)
    }

    /// Nobody can be asked now.
    pub(super) fn postpone(&mut self, now: Moment) {
        if let Some(watch) = &mut self.watch {
            watch.next = now.plus_us(ASK_EVERY_US);
        }
    }

    /// A question is asked: by whom, with which id; about these that are open and some that ended.
    pub(super) fn ask(
        &mut self,
        asker: LifeId,
        id: u64,
        open: Vec<LifeId>,
        now: Moment,
    ) -> Vec<LifeId> {
        self.postpone(now);
        let Some(watch) = &mut self.watch else { return open };
        let first = watch.closed.len().saturating_sub(CLOSED_MAX);
        let closed = watch.closed[first..].to_vec();
        let about = open.iter().copied().chain(closed.iter().map(|(life, _)| *life)).collect();
        watch.questions.insert((asker, id), Question { asked: now, open, closed });
        self.asked += 1;
        about
    }

    /// The answer: what it says of a user, and who is still open. Gives who stayed wrong, once a kill.
    pub(super) fn answer(
        &mut self,
        asker: LifeId,
        id: u64,
        says: impl Fn(LifeId) -> Option<bool>,
        is_open: impl Fn(LifeId) -> bool,
        now: Moment,
    ) -> Option<String> {
        let watch = self.watch.as_mut()?;
        let question = watch.questions.remove(&(asker, id))?;
        let open =
            question.open.iter().filter(|life| is_open(**life) && says(**life) != Some(true));
        let (killed, asked) = (watch.killed, question.asked);
        self.suspects.extend(open.map(|life| Suspect {
            life: *life,
            killed,
            asked,
            answered: now,
        }));
        let mut stayed = None;
        for (life, closed) in &question.closed {
            let since = killed.max(*closed);
            if says(*life) == Some(false) {
                continue;
            }
            self.wrong += 1;
            self.longest_wrong_us = self.longest_wrong_us.max(now.us_since(since));
            if asked.us_since(since) > RIGHT_AFTER_US && !watch.told {
                watch.told = true;
                let ms = asked.ms_since(since);
                stayed = Some(format!("life {} is not offline {ms} ms after its close", life.0));
            }
        }
        stayed
    }

    /// The end: who was said to be offline and is open was online. Gives who was so for too long.
    pub(super) fn settle(&mut self) -> Vec<String> {
        let mut stayed = Vec::new();
        for suspect in std::mem::take(&mut self.suspects) {
            self.wrong += 1;
            let wrong_us = suspect.answered.us_since(suspect.killed);
            self.longest_wrong_us = self.longest_wrong_us.max(wrong_us);
            if suspect.asked.us_since(suspect.killed) > RIGHT_AFTER_US {
                let ms = suspect.asked.ms_since(suspect.killed);
                let life = suspect.life.0;
                stayed.push(format!("life {life} was said to be offline {ms} ms after a kill"));
            }
        }
        stayed
    }

    /// Questions, wrong answers of one user, and the longest time to the arrival of a wrong one.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.asked, self.wrong, self.longest_wrong_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: LifeId = LifeId(9);
    const OPEN: LifeId = LifeId(1);
    const CLOSED: LifeId = LifeId(2);

    fn at(ms: u64) -> Moment {
        Moment::default().plus_ms(ms)
    }

    /// A kill at 0, a connection that ended at 50; a question at `asked`, answered 10 ms later with these.
    fn answer(asked: u64, open_online: bool, closed_online: bool) -> (Option<String>, u64, u64) {
        let mut presence = Presence::default();
        presence.kill(at(0));
        presence.closed(CLOSED, at(50));
        let about = presence.ask(ASKER, 5, vec![OPEN], at(asked));
        assert_eq!(about, [OPEN, CLOSED]);
        let says = |life| Some(if life == OPEN { open_online } else { closed_online });
        let mut stayed = presence.answer(ASKER, 5, says, |life| life == OPEN, at(asked + 10));
        assert!(presence.answer(ASKER, 5, says, |_| true, at(asked)).is_none(), "answered once");
        stayed = stayed.or_else(|| presence.settle().pop());
        let (questions, wrong, longest_us) = presence.counts();
        assert_eq!(questions, 1);
        (stayed, wrong, longest_us / 1_000)
    }

    #[test]
    fn right_answers_are_right() {
        assert_eq!(answer(200, true, false), (None, 0, 0));
    }

    #[test]
    fn what_is_wrong_is_timed_and_if_it_stays_so_told() {
        assert_eq!(answer(60, true, true), (None, 1, 20));
        assert_eq!(answer(60, false, false), (None, 1, 70));
        let (told, wrong, ms) = answer(151, true, true);
        assert_eq!(
            (told.as_deref(), wrong, ms),
            (Some("life 2 is not offline 101 ms after its close"), 1, 111)
        );
        let (told, ..) = answer(101, false, false);
        assert_eq!(told.as_deref(), Some("life 1 was said to be offline 101 ms after a kill"));
    }

    #[test]
    fn questions_are_asked_for_a_while_after_a_kill() {
        let mut presence = Presence::default();
        assert_eq!(presence.due(), None);
        presence.kill(at(1_000));
        assert_eq!(presence.due(), Some(at(1_001)));
        presence.postpone(at(1_001));
        assert_eq!(presence.due(), Some(at(1_006)));
        presence.postpone(at(1_398));
        assert_eq!(presence.due(), None);
    }

    #[test]
    fn who_closed_since_the_question_is_not_judged() {
        let mut presence = Presence::default();
        presence.kill(at(0));
        presence.ask(ASKER, 1, vec![OPEN], at(200));
        assert_eq!(presence.answer(ASKER, 1, |_| Some(false), |_| false, at(201)), None);
        // Or whose close comes behind the answer.
        presence.ask(ASKER, 2, vec![OPEN], at(200));
        assert_eq!(presence.answer(ASKER, 2, |_| Some(false), |_| true, at(201)), None);
        presence.closed(OPEN, at(202));
        assert!(presence.settle().is_empty());
        assert_eq!(presence.counts(), (2, 0, 0));
    }
}
