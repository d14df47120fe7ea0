//! The children that have not been reaped, and the master's hands on them.
//!
//! Knows descriptors and pids of children; decides nothing.

use super::seats::Seat;
use crate::clock::Millis;
use crate::ipc::pipe::Pipe;
use crate::sys::fork;
use slab::Slab;
use std::os::fd::RawFd;

/// A child and what the master holds of it.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) seat: Seat,
    pub(super) generation: u32,
    pub(super) pid: i32,
    pub(super) pidfd: RawFd,
    pub(super) pipe: Pipe,
    /// Its handle told of its end; it is reaped in a quiet moment.
    pub(super) ended: bool,
    /// When it did.
    pub(super) ended_at: Millis,
    /// Its end is to be reported to the application.
    pub(super) report: bool,
    pub(super) stuck: bool,
    /// The master has killed it.
    pub(super) killed: bool,
}

impl Child {
    /// Kills it, unless it is dead already.
    pub(super) fn kill(&mut self) {
        if !self.ended {
            self.killed = true;
            fork::kill(self.pid);
        }
    }
}

/// All of them, by a key that also makes their tokens.
#[derive(Debug, Default)]
pub(super) struct Children {
    slab: Slab<Child>,
}

impl Children {
    pub(super) fn next_key(&mut self) -> usize {
        self.slab.vacant_key()
    }

    pub(super) fn insert(&mut self, child: Child) -> usize {
        self.slab.insert(child)
    }

    pub(super) fn at(&mut self, key: usize) -> Option<&mut Child> {
        self.slab.get_mut(key)
    }

    pub(super) fn remove(&mut self, key: usize) -> Child {
        self.slab.remove(key)
    }

    pub(super) fn of(&mut self, seat: Seat, generation: u32) -> Option<&mut Child> {
        self.slab
            .iter_mut()
            .map(|(_, child)| child)
            .find(|child| child.seat == seat && child.generation == generation)
    }

    pub(super) fn keys(&self) -> Vec<usize> {
        self.slab.iter().map(|(key, _)| key).collect()
    }

    pub(super) fn ended(&self) -> Vec<usize> {
        self.slab.iter().filter(|(_, child)| child.ended).map(|(key, _)| key).collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.slab.iter_mut().map(|(_, child)| child)
    }
}
