//! The owner's backend: it is told what happens here, and asked what may.
//!
//! Workers put events into a ring in shared memory (`queue`) and never wait; one task process at a time
//! takes them out, in order, and calls the backend (`drain`, `client`). Knows no way of its own to
//! reach a process: tasks and timers are the engine's (`schedule`). Invariants: 1. An event is in the ring
//! until the backend has taken it, has refused it, or it was tried `backend.max_attempts` times; the ring has a
//! bound, and what does not fit is counted. 2. Every event has a number of its own, drawn before anything
//! else is done for it: what is lost on any way leaves a gap that the backend sees. 3. An event may be told
//! twice (a process may die between the answer and the note of it), never with two numbers. 4. After a loss
//! the backend is told who is online.

mod asked;
mod authorise;
pub(crate) mod circuit;
mod client;
pub mod config;
mod drain;
mod event;
mod queue;
mod schedule;
pub mod signature;
mod status;
mod tell;

pub(crate) use asked::{Asked, AskedId, What};
pub(crate) use authorise::{Asking, Authorised};
pub(crate) use drain::Drained;
pub(crate) use event::{DeviceOf, Login, Who};
pub(crate) use event::{question_of_join, question_of_login};
pub(crate) use schedule::WAKE;
pub(crate) use tell::{End, SentMessage, who};

use crate::auth::KeyError;
use circuit::Circuit;
use client::Client;
use config::BackendConfig;
use dunlin_server::settings::Settings;
use dunlin_server::{AreaRequest, Areas, MasterContext, Sessions};
use dunlin_table::{Column, ColumnKind, CounterId};
use queue::EventQueue;
use serde::{Deserialize, Serialize};
use signature::SigningKey;
use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which timer guards the question whether this session may log in; 0: none.
const ASKING: &str = "im_asking";
const QUEUE_AREA: &str = "im.backend_queue";
const WORDS_AREA: &str = "im.backend";

/// What task processes do for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Tell what waits.
    Drain,
    /// Ask.
    Authorise(authorise::Question),
}

/// The backend as this process knows it.
#[derive(Debug, Default)]
pub(crate) struct Backend {
    /// There where `backend.url` is.
    key: Option<SigningKey>,
    /// Made by the first task of a process.
    client: OnceCell<Client>,
    /// There from `start` on.
    shared: Option<Shared>,
}

impl Backend {
    /// Reads the secret.
    ///
    /// # Errors
    /// It cannot be used.
    pub(crate) fn load(config: &BackendConfig) -> Result<Option<SigningKey>, KeyError> {
        let Some(target) = &config.target else { return Ok(None) };
        let secret = target.secret.secret().map_err(|problem| target.secret.error(problem))?;
        Ok(Some(SigningKey::new(&secret)))
    }

    /// With this key from now on.
    pub(crate) fn set_key(&mut self, key: Option<SigningKey>) {
        self.key = key;
        self.client = OnceCell::new();
    }

    /// Finds the shared memory; in a new one a `boot` is due.
    pub(crate) fn start(&mut self, master: &MasterContext<'_>, config: &BackendConfig) {
        let shared = Shared::find(master.areas, master.sessions);
        shared.set(Word::BootTarget, config.target_hash());
        if shared.word(Word::Booted).swap(1, Ordering::Relaxed) == 0 {
            shared.boot_is_due(BootReason::Start);
        }
        self.shared = Some(shared);
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.shared.as_ref().expect("`start` ran in the master before any other hook")
    }

    /// What calls it; `None` without a URL.
    fn client(&self, config: &BackendConfig) -> Option<&Client> {
        let (target, key) = (config.target.as_ref()?, self.key.as_ref()?);
        Some(self.client.get_or_init(|| Client::new(target, key.clone(), config.timeout_ms)))
    }
}

/// The areas of shared memory this asks for.
pub(crate) fn areas(queue_bytes: u64) -> Vec<AreaRequest> {
    vec![
        AreaRequest { name: QUEUE_AREA, words: EventQueue::words_needed(queue_bytes) },
        AreaRequest { name: WORDS_AREA, words: WORDS },
    ]
}

/// The columns of the session table this asks for.
pub(crate) fn columns() -> Vec<Column> {
    vec![Column { name: ASKING.into(), kind: ColumnKind::Counter }]
}

/// `backend.queue`.
pub(crate) fn queue_bytes(settings: &Settings) -> u64 {
    settings.size("backend.queue")
}

/// Single words of shared memory. Times are of the monotonic clock, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Word {
    /// The number of the last event.
    Seq,
    /// Of the circuit.
    Failures,
    /// Of the circuit.
    Until,
    /// Until when nobody asks for another task that drains.
    AskedUntil,
    /// Which task was asked for.
    AskedTask,
    /// Until when a task process alone drains.
    DrainingUntil,
    /// Who that is: a number of its own.
    Drainer,
    /// When the next timer wakes us that we know of.
    WakeAt,
    /// At which position events are being tried, and how often that was.
    TriedPosition,
    Tried,
    /// Whether this memory has ever been started on.
    Booted,
    /// Why a `boot` is due ([`BootReason`]; 0: it is not), below how often one has been.
    BootDue,
    /// Behind which position of the queue.
    BootAfter,
    /// Of a `boot` under way the next row and page, and how often it was tried, each below which one it is;
    /// and its first number.
    BootRow,
    BootPage,
    BootTried,
    BootFirst,
    /// The hash of the URL that it is for.
    BootTarget,
    /// Whether an event was lost since the last `boot` began.
    Lossy,
    /// Messages that might have been told, for the sample.
    Messages,
    /// Counters.
    Sent,
    Retried,
    Refused,
    Dropped,
    Full,
    Allowed,
    Denied,
    Unasked,
    /// The last failure ([`client::Failure`]), and when, Unix milliseconds.
    LastError,
    LastErrorAt,
}

const WORDS: usize = Word::LastErrorAt as usize + 1;

/// Why a `boot` is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BootReason {
    /// The server was started.
    Start = 1,
    /// There is a backend at another URL.
    Reload,
    /// The backend answers again.
    Recovered,
    /// An event was lost.
    Lost,
}

impl BootReason {
    /// Of the word [`Word::BootDue`].
    fn from_word(word: u64) -> Option<Self> {
        let all = [Self::Start, Self::Reload, Self::Recovered, Self::Lost];
        all.into_iter().find(|reason| *reason as u64 == word & 0xff)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Recovered => "recovered",
            Self::Lost => "lost",
        }
    }
}

/// Handles on what is shared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    words: &'static [AtomicU64],
    asking: CounterId,
    pub(crate) queue: EventQueue,
    pub(crate) circuit: Circuit,
}

impl Shared {
    fn find(areas: &Areas, sessions: &Sessions) -> Self {
        let asked = "the server makes what `columns` and `areas` ask for";
        let asking = sessions.counter_column(ASKING).expect(asked);
        let words = areas.words(WORDS_AREA).expect(asked);
        let queue = EventQueue::new(areas.words(QUEUE_AREA).expect(asked));
        let circuit = Circuit::new(&words[Word::Failures as usize], &words[Word::Until as usize]);
        Self { words, asking, queue, circuit }
    }

    pub(crate) fn word(&self, word: Word) -> &'static AtomicU64 {
        &self.words[word as usize]
    }

    pub(crate) fn get(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, word: Word) {
        self.word(word).fetch_add(1, Ordering::Relaxed);
    }

    /// The number of the next event.
    pub(crate) fn next_seq(&self) -> u64 {
        self.word(Word::Seq).fetch_add(1, Ordering::Relaxed) + 1
    }

    /// There is a backend at another URL. Until its task processes are replaced, too, nobody tells it.
    pub(crate) fn retarget(&self, config: &BackendConfig) {
        self.set(Word::BootTarget, config.target_hash());
        self.boot_is_due(BootReason::Reload);
    }

    /// The backend is to be told who is online, once what is in the queue by now is told. One that is under
    /// way begins anew.
    pub(crate) fn boot_is_due(&self, reason: BootReason) {
        self.set(Word::BootAfter, self.queue.tail());
        // Release, with the acquire of who reads it: the word above goes before. Counted up, so that who
        // is done with an earlier one does not take this one for it.
        let next = |due: u64| Some(((due >> 8) + 1) << 8 | reason as u64);
        let due = self.word(Word::BootDue);
        let _ = due.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
    }

    /// Which `boot` is due, as a word; `None` if none is.
    pub(crate) fn boot_due(&self) -> Option<(u64, BootReason)> {
        let due = self.word(Word::BootDue).load(Ordering::Acquire);
        Some((due, BootReason::from_word(due)?))
    }

    /// The backend has been told: of this `boot`, if no other is due by now.
    pub(crate) fn boot_is_done(&self, due: u64) {
        let done = self.word(Word::BootDue).compare_exchange(
            due,
            due >> 8 << 8,
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        // Sequentially consistent, as in `event_is_lost`: of the two at least one sees the other.
        if done.is_ok() && self.word(Word::Lossy).load(Ordering::SeqCst) != 0 {
            self.boot_is_due(BootReason::Lost);
        }
    }

    /// An event is lost that telling who is online puts right. One `boot` follows another at most: a
    /// backend that is too slow has time to take each.
    pub(crate) fn event_is_lost(&self) {
        self.word(Word::Lossy).store(1, Ordering::SeqCst);
        if self.word(Word::BootDue).load(Ordering::SeqCst) & 0xff == 0 {
            self.boot_is_due(BootReason::Lost);
        }
    }

    /// Whether there is something to tell.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || self.boot_due().is_some()
    }
}
