//! How processes talk: pipes for control between master and child, mailboxes for everything else.
//!
//! Knows packets and envelopes, not what they lead to. A pipe is made anew at each start of a process;
//! a mailbox belongs to a slot and outlives every process in it. Neither end of anything stops reading
//! because it cannot write.

pub mod codec;
pub(crate) mod journal;
pub(crate) mod mail;
pub(crate) mod mailbox;
pub(crate) mod pipe;
pub(crate) mod post;

#[cfg(any(test, fuzzing))]
pub use mail::check_packet;
#[cfg(fuzzing)]
pub use pipe::check_control;
