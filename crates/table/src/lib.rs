//! Fixed-capacity, typed, crash-proof storage in shared memory for forked processes.
//!
//! ```
//! use dunlin_table::{Schema, Table};
//!
//! let schema = Schema::builder().string("name", 32).int("score").build()?;
//! let score = schema.column("score").ok_or("no such column")?;
//! let table = Table::create(schema, 1000)?; // before the first fork; children share it
//! table.incr("ann", score, 3)?;
//! assert_eq!(table.get("ann").map(|row| row.int(score)), Some(3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | call | its instant |
//! | --- | --- | --- |
//! | read | [`get`](Table::get), [`get_into`](Table::get_into), [`get_column`](Table::get_column), [`exists`](Table::exists), [`iter`](Table::iter) | one value of one row |
//! | write | [`set`](Table::set), [`upsert`](Table::upsert), [`incr`](Table::incr), [`decr`](Table::decr) | all columns or none |
//! | write if absent, if there | [`add`](Table::add), [`get_or_insert`](Table::get_or_insert), [`update`](Table::update) | one of many makes the row |
//! | compare first | [`compare_set`](Table::compare_set), [`compare_del`](Table::compare_del), [`update_with`](Table::update_with) | of the value that was compared |
//! | delete | [`del`](Table::del), [`get_del`](Table::get_del), [`remove`](Table::remove) | one of many does it, with the last value |
//! | count without waiting | [`counter`](Table::counter) | one instruction |
//! | expire | [`set_until`](Table::set_until), [`touch`](Table::touch), [`sweep`](Table::sweep) | touched in time or swept, never both |
//! | look | [`describe`](Table::describe), [`stats`](Table::stats), [`count`](Table::count), [`export`](Table::export), [`import`](Table::import) | a scan |
//!
//! A row that may go by itself has a deadline, in milliseconds of a clock of yours:
//!
//! ```
//! # use dunlin_table::{Compared, Schema, Table};
//! let schema = Schema::builder().int("holder").expires().build()?;
//! let holder = schema.column("holder").ok_or("no such column")?;
//! println!("{} bytes", Table::memory_needed(&schema, 100)?); // before anything is made
//! let leases = Table::create(schema, 100)?;
//! let now = 1_000;
//! leases.set_until("printer", &[(holder, 7.into())], now + 500)?;
//! assert!(leases.touch("printer", now + 900)); // the holder lives
//! // Only who holds it gives it up.
//! assert_eq!(leases.compare_del("printer", &[(holder, 8.into())])?, Compared::Differs);
//! let sweep = leases.sweep(now + 900, 0, leases.capacity());
//! assert_eq!(sweep.swept[0].row.int(holder), 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Table`]: rows by key. [`Rows`]: rows by handle ([`RowId`], index and generation; a stale one is
//!   noticed), with `counter` columns that are one word each outside the rows ([`Counter`]),
//!   and deadlines.
//! - [`Pool`]: equal blocks that rows chain up to hold bytes of any length.
//! - [`HintIndex`]: from a hash to the rows that may have it; [`SetIndex`]: to sets of rows of any size.
//! - [`Region`] and [`Plan`]: the segment, and how it is cut into areas for all of these.
//!
//! The crate knows no process, no socket, no user and no clock; whoever uses it says which writers are
//! dead ([`Rows::recover`]) and what time it is. One file has unsafe code, `region.rs`. The feature
//! `serde` (on by default) is for [`Table::export`] and [`Description`] as data.
//!
//! ```text
//!  row i:   head  generation · owner · state          blocks (capacity + 128)
//!           current  tag · vacant · block ───────►  stamp  tag · writer · taken
//!                                                   previous   the block it replaced
//!  counter columns: a word a row, dense             row
//!                                                   columns    never changed while linked,
//!                                                              but by the maker of a vacant row
//! ```
//!
//! Invariants: 1. A write is one swap of one word, so it is there as a whole or not at all, whenever
//! its process is killed. 2. Nobody waits for anybody: there is no lock and no flag to spin on.
//! 3. What the dead held is at most one row and one block each, and a scan finds it. 4. Exactly
//! `capacity` rows fit. 5. What is read from the memory is not trusted.
//!
//! `docs/table.md` in the repository has the bytes, and what a kill between any two steps leaves.

mod blocks;
mod counter;
pub mod death;
mod describe;
#[cfg(feature = "serde")]
mod export;
mod free_hints;
mod hash;
mod index;
mod key;
mod layout;
mod list;
mod pool;
mod recover;
#[cfg(not(dunlin_loom))]
mod region;
mod rows;
mod schema;
mod set_index;
mod stats;
pub mod sync;
mod table;
mod value;
mod word;

pub use blocks::SPARE_BLOCKS;
pub use counter::Counter;
pub use describe::{AreaDescription, ColumnDescription, Description};
#[cfg(feature = "serde")]
pub use export::ImportError;
pub use hash::{hash_key, random_seed};
pub use index::{HintIndex, IndexFull, WINDOW_CELLS};
pub use key::{Key, OwnedKey};
pub use layout::{LayoutError, MAX_ROWS};
pub use pool::{
    Chain, MAX_POOL_BLOCK_BYTES, MAX_POOL_BLOCKS, MAX_POOL_GROUPS, Pool, PoolError, PoolLimits,
    PoolShare,
};
pub use recover::Recovered;
#[cfg(not(dunlin_loom))]
pub use region::{Area, Plan, Region, RegionError};
pub use rows::{RowId, Rows, Sweep, Swept};
pub use schema::{
    Column, ColumnId, ColumnKind, CounterId, DEFAULT_KEY_BYTES, MAX_COLUMN_BYTES, MAX_COLUMNS,
    MAX_KEY_BYTES, Schema, SchemaBuilder, SchemaError,
};
pub use set_index::{STEPS_MAX, SetIndex};
pub use stats::Stats;
pub use sync::heap_words;
pub use table::{Added, Compared, Entry, Table, TableError};
pub use value::{Draft, Row, Value, ValueRef, WriteError};
pub use word::MAX_DEADLINE;
