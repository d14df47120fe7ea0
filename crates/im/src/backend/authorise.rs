//! Asking the backend before something is done: the request is answered when the answer is there.
//!
//! Invariants: 1. Every question is guarded by a timer of the slot that asks: whichever of outcome and
//! timer comes first takes the timer away, and it alone answers; so each request is answered once, also when
//! a task process or the worker dies. 2. Until then nothing has been done: who is logging in stands in the
//! row without a login. 3. A session asks one login at a time. 4. A yes counts for who was asked about: a
//! login that has ended meanwhile, or a session that another worker serves by now, gets none.

use super::asked::{Asked, AskedId, Verdict, What};
use super::client::{Answer, Failure};
use super::{Word, Work};
use crate::app::ImApp;
use crate::methods;
use crate::protocol::{CallError, Code, Id, reply};
use crate::tasks;
use dunlin_server::timer::PAYLOAD_MAX;
use dunlin_server::{ConnId, Context, Message, Role, TimerId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::atomic::Ordering;

/// How much longer than one request an answer is waited for: the task may have to wait for its turn.
const GUARD_MARGIN_MS: u64 = 2_000;
/// When to try again where the backend cannot be asked, in milliseconds, at least.
const RETRY_MS: u64 = 1_000;
/// Longest text of a question; a task takes little more.
pub(crate) const QUESTION_MAX: usize = 96 << 10;

/// What a task process asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    asked: Asked,
    timer: u64,
    body: String,
    /// Of a login: what rooms its token names.
    token_rooms: Option<Vec<String>>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authorised {
    asked: Asked,
    timer: u64,
    verdict: Verdict,
    token_rooms: Option<Vec<String>>,
}

/// Where a request stands that may have to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asking {
    /// It may be done now: the backend cannot be asked, and the config allows it.
    Go,
    /// It is answered later, with this timer on guard.
    Later(TimerId),
}

impl ImApp {
    /// Asks the backend. `body`: the question.
    ///
    /// # Errors
    /// It cannot be asked, and the config does not allow what it would be asked.
    pub(crate) fn ask(
        &self,
        context: &mut Context<'_, Self>,
        asked: Asked,
        body: String,
        token_rooms: Option<Vec<String>>,
    ) -> Result<Asking, CallError> {
        if body.len() > QUESTION_MAX {
            return Err(CallError::new(
                Code::TooLarge,
                "the parameters are too large to be checked",
            ));
        }
        let timeout_ms = self.config.backend.timeout_ms;
        let may_ask = self.backend.shared().circuit.may_ask(context.now().0, timeout_ms);
        let guard = || asked.to_payload(PAYLOAD_MAX);
        let timer = may_ask.then(|| context.after(timeout_ms + GUARD_MARGIN_MS, &guard()));
        let Some(Ok(timer)) = timer else { return self.unasked(context).map(|()| Asking::Go) };
        let question = Question { asked, timer: timer.0, body, token_rooms };
        if context.task(&tasks::Work::Backend(Work::Authorise(question))).is_err() {
            context.clear_timer(timer);
            return self.unasked(context).map(|()| Asking::Go);
        }
        Ok(Asking::Later(timer))
    }

    /// What the config says to what cannot be asked.
    fn unasked(&self, context: &Context<'_, Self>) -> Result<(), CallError> {
        let shared = self.backend.shared();
        shared.count(Word::Unasked);
        if self.config.backend.allow_unasked {
            return Ok(());
        }
        let wait = shared.circuit.wait_ms(context.now().0).max(RETRY_MS);
        let message = "whether this may be cannot be found out now";
        Err(CallError::new(Code::Busy, message).because("backend_unavailable").retry_after(wait))
    }

    /// In a task process: asks. Blocks.
    pub(super) fn authorise(&self, context: &Context<'_, Self>, question: Question) -> Authorised {
        let Question { asked, timer, body, token_rooms } = question;
        let answer = self
            .backend
            .client(&self.config.backend)
            .map(|client| client.post(None, context.unix_ms(), body.as_bytes()));
        let shared = self.backend.shared();
        let failed = |failure| {
            self.note_failure(failure);
            let random = getrandom::u64().unwrap_or(timer);
            shared.circuit.failed(context.now().0, random);
            Verdict::Unasked
        };
        let verdict = match answer {
            None => Verdict::Unasked,
            Some(Answer::Taken(body)) => {
                self.backend_answers();
                Verdict::read(&body)
            }
            // It answers, but not to this.
            Some(Answer::Unwanted(status)) => {
                self.backend_answers();
                self.note_failure(Failure::Status(status));
                Verdict::Unasked
            }
            Some(Answer::Failed(failure)) => failed(failure),
        };
        Authorised { asked, timer, verdict, token_rooms }
    }

    /// In the worker that asked: the answer is there.
    pub(crate) fn authorised(&self, context: &mut Context<'_, Self>, authorised: Authorised) {
        let Authorised { asked, timer, verdict, token_rooms } = authorised;
        if context.clear_timer(TimerId(timer)) {
            self.answer_asked(context, &asked, TimerId(timer), verdict, token_rooms.as_deref());
        }
        // Where it answers again there may be something to tell it.
        self.drain_soon(context);
    }

    /// A timer is due. False: it guards no question.
    pub(crate) fn guard_is_due(
        &self,
        context: &mut Context<'_, Self>,
        timer: TimerId,
        payload: &[u8],
    ) -> bool {
        let Some(asked) = Asked::from_payload(payload) else { return false };
        // The names of a token's rooms are gone with the task. It may join no others, since that stands in
        // the row, and joins them by itself.
        self.answer_asked(context, &asked, timer, Verdict::Unasked, None);
        true
    }

    fn answer_asked(
        &self,
        context: &mut Context<'_, Self>,
        asked: &Asked,
        timer: TimerId,
        verdict: Verdict,
        token_rooms: Option<&[String]>,
    ) {
        let conn = asked.conn;
        let is_login = matches!(asked.what, What::Login { .. });
        // A login that was asked for is noted in the row, and no longer if the session has ended.
        if is_login && !self.stop_asking(context, conn, timer) {
            return;
        }
        let verdict = self.judge(context, conn, verdict);
        let outcome = match (&asked.what, verdict) {
            (What::Login { expires_ms }, Ok(Granted { user, rooms })) => {
                let login =
                    methods::LateLogin { user, expires_ms: *expires_ms, token_rooms, rooms };
                methods::finish_login(self, context, conn, login)
            }
            (What::Join { room, login }, Ok(_)) => {
                methods::finish_join(self, context, conn, room, *login)
            }
            (What::Login { .. }, Err(error)) => {
                self.tables().forget_names(context.table(), conn);
                Err(error).into()
            }
            (What::Join { .. }, Err(error)) => Err(error).into(),
        };
        self.say_late(context, conn, &asked.id, outcome);
    }

    /// What a verdict means here: a grant, or the error to answer with.
    fn judge(
        &self,
        context: &Context<'_, Self>,
        conn: ConnId,
        verdict: Verdict,
    ) -> Result<Granted, CallError> {
        let owner = context.session_info(conn).map(|info| Role::Worker(info.slot));
        if owner.is_some_and(|owner| owner != context.role()) {
            // It was moved while it waited: its row is another worker's to write.
            let error = CallError::new(Code::Busy, "the session was moved meanwhile: ask again");
            return Err(error.because("moved").retry_after(1));
        }
        let shared = self.backend.shared();
        match verdict {
            Verdict::Allowed { user, rooms } => {
                shared.count(Word::Allowed);
                Ok(Granted { user, rooms })
            }
            Verdict::Denied(reason) => {
                shared.count(Word::Denied);
                let message = reason.unwrap_or_else(|| "the backend does not allow it".to_owned());
                Err(CallError::new(Code::Forbidden, message).because("denied"))
            }
            Verdict::Unasked => self.unasked(context).map(|()| Granted::default()),
        }
    }

    /// Gives an answer that was waited for.
    fn say_late(
        &self,
        context: &mut Context<'_, Self>,
        conn: ConnId,
        id: &AskedId,
        late: methods::Late,
    ) {
        match id {
            AskedId::None => {}
            AskedId::Json(id) => {
                let raw = serde_json::from_str::<&RawValue>(id).ok();
                let id = raw.and_then(Id::from_raw);
                let text = match (&late.result, id) {
                    (Ok(result), Some(id)) => reply::result(id, result),
                    (Err(error), id) => reply::error(id, error),
                    (Ok(_), None) => return, // No request has such an id.
                };
                // Gone or too slow: the framework closes it, and nothing is left to tell it.
                let _ = context.push(conn, Message::Text(&text));
            }
            AskedId::Forgotten => {
                // Nobody can be told, and it must not wait for ever: it may come again.
                Self::say_bye_with(context, conn, 1013, "no answer in time");
                return;
            }
        }
        if late.arrived {
            self.arrive(context, conn);
            methods::join_granted(self, context, conn, &late.rooms);
        }
        if let Some(reason) = late.close {
            Self::say_bye(context, conn, reason);
        }
    }

    /// Whether the backend is being asked whether this session may log in.
    pub(crate) fn is_asking(&self, context: &Context<'_, Self>, conn: ConnId) -> bool {
        let word = context.table().counter(conn, self.backend.shared().asking);
        word.is_some_and(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// It is, with this timer on guard.
    pub(crate) fn start_asking(&self, context: &Context<'_, Self>, conn: ConnId, timer: TimerId) {
        if let Some(word) = context.table().counter(conn, self.backend.shared().asking) {
            word.store(timer.0, Ordering::Relaxed);
        }
    }

    fn stop_asking(&self, context: &Context<'_, Self>, conn: ConnId, timer: TimerId) -> bool {
        let word = context.table().counter(conn, self.backend.shared().asking);
        let stop = |word: &std::sync::atomic::AtomicU64| {
            word.compare_exchange(timer.0, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        context.is_established(conn) && word.is_some_and(stop)
    }
}

/// What a yes brings.
#[derive(Debug, Default)]
struct Granted {
    user: Option<String>,
    rooms: Vec<String>,
}
