//! The shared memory of a server, made whole before the first fork.
//!
//! Knows its structures and who reads them; knows no process. Where each lies is `layout`'s. Everything that must outlive a
//! worker is here: sessions, half-received messages, counters, timers, the ledger of descriptors.

use crate::app::AreaRequest;
use crate::bulletin::Bulletin;
use crate::layout::Layout;
use crate::ledger::Ledger;
use crate::peers::Peers;
use crate::scoreboard::Scoreboard;
use crate::sessions::Sessions;
use crate::sys::descriptor;
use crate::timer::TimerTable;
use crate::traces::Traces;
use dunlin_table::{LayoutError, Pool, Region, RegionError, SchemaError};
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU64;

/// Bytes of a block of the receive pool.
pub const POOL_BLOCK_BYTES: usize = 1024;
/// Groups of client addresses that the receive pool tells apart; each has its share.
pub const POOL_GROUPS: u16 = 1024;

/// How large the shared memory is to be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sizes {
    /// `table.max_sessions`.
    pub sessions: u32,
    /// `table.receive_pool` in bytes.
    pub receive_pool_bytes: usize,
    /// Worker slots.
    pub workers: usize,
    /// Task processes.
    pub tasks: usize,
    /// Added processes, the timer process among them.
    pub processes: usize,
    /// `server.max_timers`.
    pub timers: usize,
    /// Descriptor numbers the ledger covers.
    pub descriptors: usize,
}

/// The shared memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The application's columns do not make a schema.
    #[error("the application's columns are not usable: {0}")]
    Schema(#[from] SchemaError),
    /// A size is out of range.
    #[error("the shared memory cannot be laid out: {0}")]
    Layout(#[from] LayoutError),
    /// The segment could not be made or reserved.
    #[error(transparent)]
    Region(#[from] RegionError),
}

/// The shared memory of a server; the same in all its processes.
#[derive(Clone, Debug)]
pub struct Shared {
    /// One row per connection.
    pub sessions: Sessions,
    /// Half-received messages.
    pub pool: Pool,
    /// What each descriptor number is.
    pub ledger: Ledger,
    /// A row of figures per process.
    pub scoreboard: Scoreboard,
    /// Armed timers.
    pub timers: TimerTable,
    /// Connections by client address.
    pub peers: Peers,
    /// What the master last said of itself.
    pub(crate) bulletin: Bulletin,
    /// What is traced.
    pub(crate) traces: Traces,
    /// The application's areas.
    pub areas: Areas,
    /// The whole segment in bytes.
    pub bytes: usize,
    /// The descriptor of the segment, for the program that follows by an upgrade.
    pub(crate) segment: RawFd,
    /// What the counts by address are hashed with.
    pub(crate) seed: u64,
}

impl Shared {
    /// Makes the segment and everything in it.
    ///
    /// # Errors
    /// See [`SharedError`]: each names the number that does not fit.
    pub(crate) fn create(layout: &Layout) -> Result<Self, SharedError> {
        Self::over(layout, Region::create(layout.words())?, dunlin_table::random_seed())
    }

    /// The same for a server that only rehearses: nothing is taken of `/dev/shm`, where the running
    /// server may have left little, and no page before it is used.
    ///
    /// # Errors
    /// As [`Shared::create`].
    pub(crate) fn create_unreserved(layout: &Layout) -> Result<Self, SharedError> {
        let bytes = u64::try_from(layout.words() * 8).unwrap_or(u64::MAX);
        let file = descriptor::empty_memfd().and_then(|file| file.set_len(bytes).map(|()| file));
        let file = file.map_err(RegionError::Descriptor)?;
        Self::over(layout, Region::from_descriptor(file.into())?, dunlin_table::random_seed())
    }

    /// Lays the structures over a segment: one that is zeroed is formatted, one that was made for
    /// this layout is taken as it is. `seed` is that of the process that made it.
    ///
    /// # Errors
    /// The segment was made for another layout.
    pub(crate) fn over(
        layout: &Layout,
        region: &'static Region,
        seed: u64,
    ) -> Result<Self, SharedError> {
        let Sizes { sessions, workers, tasks, descriptors, .. } = layout.sizes;
        let (needed, given) = (layout.words(), region.len_words());
        if given < needed {
            return Err(LayoutError::TooFewWords { given, needed }.into());
        }
        let at = &layout.areas;
        Ok(Self {
            sessions: Sessions::new(layout.schema.clone(), sessions, at.sessions.words(region))?,
            pool: Pool::new(layout.blocks, POOL_BLOCK_BYTES, POOL_GROUPS, at.pool.words(region))?,
            ledger: Ledger::new(at.ledger.words(region)),
            scoreboard: Scoreboard::new(
                at.scoreboard.words(region),
                workers,
                tasks,
                layout.close_codes,
            ),
            timers: TimerTable::new(at.timers.words(region)),
            peers: Peers::new(at.peers.words(region), workers, descriptors, seed),
            bulletin: Bulletin::new(at.bulletin.words(region)),
            traces: Traces::new(at.traces.words(region)),
            areas: Areas {
                named: at
                    .named
                    .iter()
                    .map(|(request, area)| (request.name, area.words(region)))
                    .collect(),
            },
            bytes: layout.words() * 8,
            segment: region.descriptor(),
            seed,
        })
    }
}

/// The application's areas of shared memory, by name.
#[derive(Clone, Debug, Default)]
pub struct Areas {
    named: Vec<(&'static str, &'static [AtomicU64])>,
}

impl Areas {
    /// Areas on the heap of one process, for testing an application without a server.
    #[must_use]
    pub fn on_heap(requests: &[AreaRequest]) -> Self {
        let words = |count: usize| -> &'static [AtomicU64] {
            Box::leak((0..count).map(|_| AtomicU64::new(0)).collect())
        };
        Self { named: requests.iter().map(|area| (area.name, words(area.words))).collect() }
    }

    /// The words of an area; `None` if the application did not ask for it.
    #[must_use]
    pub fn words(&self, name: &str) -> Option<&'static [AtomicU64]> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, words)| *words)
    }
}
