//! Why a deed of a hook was not done.

use crate::ids::SlotId;

/// A message was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PushError {
    /// No such connection, or it is closing.
    #[error("the connection is not open")]
    NotOpen,
    /// The receiver's outbox (`websocket.send_buffer`) is full: it is being closed with 1013, or the
    /// droppable message was dropped.
    #[error("the receiver is too slow: its outbox is full")]
    OutboxFull,
    /// The way to the receiver's worker is full; the message was not taken.
    #[error("the mailbox of the receiver's worker is full")]
    MailboxFull,
    /// The message is larger than one that may be sent.
    #[error("the message is larger than what may be sent")]
    TooLarge,
}

/// A pipe message or task was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no such slot.
    #[error("there is no slot {0}")]
    NoSuchSlot(SlotId),
    /// There is no added process of this name.
    #[error("there is no added process of this name")]
    NoSuchProcess,
    /// There are no task processes (`server.task_workers` is 0).
    #[error("there is no task process: server.task_workers is 0")]
    NoTaskProcess,
    /// Only a worker may ask for a task.
    #[error("only a worker may ask for a task")]
    NotAWorker,
    /// The receiver's mailbox and the spill list behind it are full.
    #[error("the receiver's mailbox is full")]
    MailboxFull,
    /// It is larger than a mailbox takes.
    #[error("{0} bytes are more than a mailbox takes")]
    TooLarge(usize),
    /// It does not encode.
    #[error("it does not encode")]
    Encode(#[source] crate::ipc::codec::CodecError),
}

/// A timer was not armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TimerError {
    /// `server.max_timers` are armed.
    #[error("all server.max_timers timers are armed")]
    TableFull,
    /// The payload is longer than [`crate::timer::PAYLOAD_MAX`].
    #[error("a timer's payload holds at most {} bytes", crate::timer::PAYLOAD_MAX)]
    PayloadTooLarge,
    /// A tick needs a period.
    #[error("a tick needs a period of at least 1 ms")]
    ZeroPeriod,
    /// Only a worker may arm a timer.
    #[error("only a worker may arm a timer")]
    NotAWorker,
}
