//! Fixed-capacity, typed, crash-proof storage in shared memory for forked processes.

mod blocks;
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
mod stats;
pub mod sync;
mod table;
mod value;
mod word;

pub use blocks::SPARE_BLOCKS;
pub use hash::{hash_key, random_seed};
pub use index::{HintIndex, IndexFull, WINDOW_CELLS};
pub use key::{Key, OwnedKey};
pub use layout::{LayoutError, MAX_ROWS};
pub use pool::{Chain, MAX_POOL_BLOCK_BYTES, MAX_POOL_BLOCKS, Pool, PoolError};
pub use recover::Recovered;
#[cfg(not(dunlin_loom))]
pub use region::{Area, Plan, Region, RegionError};
pub use rows::{RowId, Rows};
pub use schema::{
    Column, ColumnId, ColumnKind, CounterId, DEFAULT_KEY_BYTES, MAX_COLUMN_BYTES, MAX_COLUMNS,
    MAX_KEY_BYTES, Schema, SchemaBuilder, SchemaError,
};
pub use stats::Stats;
pub use sync::heap_words;
pub use table::{Entry, Table, TableError};
pub use value::{Draft, Row, Value, ValueRef, WriteError};
