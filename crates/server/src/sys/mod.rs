//! Thin, safe-signature wrappers around the kernel: the only room of this crate with unsafe code, and
//! the only one that calls `nix::unistd` or `libc`.
//!
//! Knows nothing of slots, sessions or envelopes. Descriptors are plain numbers here, because master
//! and workers share one table and the ledger, not Rust's ownership, says who may close which.
#![expect(
    unsafe_code,
    reason = "system calls that nix wraps as unsafe or not at all; each block proves itself"
)]

pub(crate) mod daemon;
pub(crate) mod descriptor;
pub(crate) mod exec;
pub(crate) mod fifo;
pub(crate) mod fork;
pub(crate) mod inherit;
pub(crate) mod limits;
pub(crate) mod packet;
pub(crate) mod privileges;
pub(crate) mod sandbox;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod unix_socket;
