//! The shared memory of a server, made whole before the first fork.
//!
//! Knows the order of its areas and who reads them; knows no process. Everything that must outlive a
//! worker is here: sessions, half-received messages, counters, timers, the ledger of descriptors.

use crate::app::AreaRequest;
use crate::ledger::Ledger;
use crate::peers::Peers;
use crate::scoreboard::Scoreboard;
use crate::sessions::Sessions;
use crate::timer::TimerTable;
use dunlin_table::{Area, Column, LayoutError, Plan, Pool, Region, RegionError, Rows, SchemaError};
use std::sync::atomic::AtomicU64;

/// Bytes of a block of the receive pool.
pub const POOL_BLOCK_BYTES: usize = 1024;
/// Groups of client addresses that the receive pool tells apart; each has its share.
pub const POOL_GROUPS: u16 = 1024;

/// How large the shared memory is to be.
#[derive(Clone, Debug)]
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
    /// The application's areas.
    pub areas: Areas,
    /// The whole segment in bytes.
    pub bytes: usize,
}

impl Shared {
    /// Makes the segment and everything in it.
    ///
    /// # Errors
    /// See [`SharedError`]: each names the number that does not fit.
    pub fn create(
        sizes: &Sizes,
        app_columns: Vec<Column>,
        app_areas: &[AreaRequest],
    ) -> Result<Self, SharedError> {
        let schema = Sessions::schema(app_columns)?;
        let blocks =
            u32::try_from(sizes.receive_pool_bytes.div_ceil(POOL_BLOCK_BYTES)).unwrap_or(u32::MAX);
        let mut plan = Plan::new();
        let sessions = plan.reserve(Rows::words_needed(&schema, sizes.sessions)?);
        let pool = plan.reserve(Pool::words_needed(blocks, POOL_BLOCK_BYTES, POOL_GROUPS)?);
        let ledger = plan.reserve(sizes.descriptors);
        let scoreboard =
            plan.reserve(Scoreboard::words_needed(sizes.workers, sizes.tasks, sizes.processes));
        let timers = plan.reserve(TimerTable::words_needed(sizes.timers));
        let peers = plan.reserve(Peers::words_needed(sizes.workers, sizes.descriptors));
        let areas: Vec<(AreaRequest, Area)> =
            app_areas.iter().map(|request| (*request, plan.reserve(request.words))).collect();
        let region = Region::create(plan.words())?;
        Ok(Self {
            sessions: Sessions::new(schema, sizes.sessions, sessions.words(region))?,
            pool: Pool::new(blocks, POOL_BLOCK_BYTES, POOL_GROUPS, pool.words(region))?,
            ledger: Ledger::new(ledger.words(region)),
            scoreboard: Scoreboard::new(scoreboard.words(region), sizes.workers, sizes.tasks),
            timers: TimerTable::new(timers.words(region)),
            peers: Peers::new(
                peers.words(region),
                sizes.workers,
                sizes.descriptors,
                dunlin_table::random_seed(),
            ),
            areas: Areas {
                named: areas
                    .into_iter()
                    .map(|(request, area)| (request.name, area.words(region)))
                    .collect(),
            },
            bytes: plan.words() * 8,
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
