//! What the processes of the kill loop share, and what must be true of it.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use dunlin_table::{
    Chain, ColumnId, CounterId, Draft, HintIndex, OwnedKey, Plan, Pool, PoolError, PoolLimits,
    Region, Row, RowId, Rows, Schema, Table, TableError, WriteError, hash_key,
};

pub(crate) const SLOTS: usize = 3;
/// Keys that only one slot writes, per slot.
pub(crate) const OWN_KEYS: usize = 4;
/// Keys that all write.
pub(crate) const SHARED_KEYS: u64 = 4;
/// Two more, whose rows say a number and nothing else.
pub(crate) const HOT_KEY: u64 = 500;
/// Only ever added to.
pub(crate) const TOTAL_KEY: &str = "total";

/// All keys, and one row for each process that is just making one.
const CAPACITY: u32 = 3 * 4 + 4 + 2 + 1 + 8;
const SESSIONS: u32 = 12;
const POOL_BLOCKS: u32 = 40;
const POOL_BLOCK_BYTES: usize = 64;
const CHAIN_LIMIT: usize = 1000;
/// Groups of sessions, what each may hold, and what is kept for first blocks. All three are reached.
const GROUPS: u16 = 2;
const SHARE: u32 = 18;
const KEPT: u32 = 8;
const WINDOWS: u32 = 2;
/// Progress, additions begun, additions done, and two words for each own key.
const LEDGER_WORDS: usize = 3 + 2 * OWN_KEYS;

pub(crate) struct World {
    pub(crate) table: Table,
    pub(crate) sessions: Rows,
    pub(crate) pool: Pool,
    pub(crate) index: HintIndex,
    /// Additions of killed processes of which nobody knows whether they were made; the parent's.
    unknown: Cell<u64>,
    /// Who the process is.
    pub(crate) writer: u16,
    ledger: &'static [AtomicU64],
    columns: Columns,
    /// Ends and length of each chain of a session.
    chains: [[CounterId; 2]; 2],
}

/// Three columns that always say the same number.
#[derive(Clone, Copy)]
struct Columns {
    number: ColumnId,
    text: ColumnId,
    blob: ColumnId,
}

/// What a slot wants one of its own keys to be, and knows it to be: `version << 1 | present`.
#[derive(Clone, Copy)]
pub(crate) struct OwnKey {
    pub(crate) key: u64,
    pub(crate) wanted: &'static AtomicU64,
    pub(crate) known: &'static AtomicU64,
}

impl World {
    pub(crate) fn create() -> Self {
        let schema = Schema::builder().int("number").string("text", 40).bytes("blob", 70);
        let names = [["ends", "length"], ["short ends", "short length"]];
        let counters = names.as_flattened().iter();
        let schema = counters.fold(schema, |schema, name| schema.counter(name)).build().unwrap();
        let mut plan = Plan::new();
        let table = plan.reserve(Table::words_needed(&schema, CAPACITY).unwrap());
        let sessions = plan.reserve(Rows::words_needed(&schema, SESSIONS).unwrap());
        let pool = plan.reserve(Pool::words_needed(POOL_BLOCKS, POOL_BLOCK_BYTES, GROUPS).unwrap());
        let index = plan.reserve(HintIndex::words_needed(WINDOWS).unwrap());
        let ledger = plan.reserve(SLOTS * LEDGER_WORDS);
        let region = Region::create(plan.words()).unwrap();
        let column = |name| schema.column(name).unwrap();
        Self {
            table: Table::new(schema.clone(), CAPACITY, table.words(region)).unwrap(),
            sessions: Rows::new(schema.clone(), SESSIONS, sessions.words(region)).unwrap(),
            pool: Pool::new(POOL_BLOCKS, POOL_BLOCK_BYTES, GROUPS, pool.words(region)).unwrap(),
            index: HintIndex::new(WINDOWS, index.words(region)).unwrap(),
            unknown: Cell::new(0),
            writer: 0,
            ledger: ledger.words(region),
            columns: Columns {
                number: column("number"),
                text: column("text"),
                blob: column("blob"),
            },
            chains: names.map(|chain| chain.map(|name| schema.counter_column(name).unwrap())),
        }
    }

    pub(crate) fn clone_for(&self, writer: u16) -> Self {
        let (mut table, mut sessions) = (self.table.clone(), self.sessions.clone());
        table.set_writer(writer);
        sessions.set_writer(writer);
        let (pool, index) = (self.pool.clone(), self.index.clone());
        let unknown = Cell::new(0);
        Self { table, sessions, pool, index, unknown, writer, ..*self }
    }

    /// Makes all three columns say `number`.
    pub(crate) fn say(&self, draft: &mut Draft<'_>, number: i64) -> Result<(), WriteError> {
        draft.set(self.columns.number, number.into())?;
        draft.set(self.columns.text, text_of(number).as_str().into())?;
        draft.set(self.columns.blob, blob_of(number).as_slice().into())
    }

    /// What a row says, if it says one thing.
    pub(crate) fn heard(&self, row: &Row) -> i64 {
        let number = row.int(self.columns.number);
        let whole = number == 0 && row.str(self.columns.text).is_empty()
            || row.str(self.columns.text) == text_of(number)
                && row.bytes(self.columns.blob) == blob_of(number);
        assert!(whole, "a torn row: {row:?}");
        number
    }

    pub(crate) fn number(&self) -> ColumnId {
        self.columns.number
    }

    pub(crate) fn own_key(&self, slot: usize, number: usize) -> OwnKey {
        let at = slot * LEDGER_WORDS + 3 + 2 * number;
        let key = 1000 * (slot as u64 + 1) + number as u64;
        OwnKey { key, wanted: &self.ledger[at], known: &self.ledger[at + 1] }
    }

    /// What the table has for an own key: a version, or `None`.
    pub(crate) fn version(&self, own: OwnKey) -> Option<u64> {
        self.table.get(own.key).map(|row| self.heard(&row).cast_unsigned())
    }

    /// The two chains of a session: a long one, and one of at most a block.
    pub(crate) fn chains(&self, id: RowId) -> [Chain<'static>; 2] {
        self.chains.map(|[ends, length]| Chain {
            ends: self.sessions.counter(ends, id.index),
            length: self.sessions.counter(length, id.index),
        })
    }

    /// What the chains of a session may take.
    pub(crate) fn limits(&self, id: RowId, chain: usize) -> PoolLimits {
        let bytes = [CHAIN_LIMIT, POOL_BLOCK_BYTES][chain];
        PoolLimits::bytes(bytes).in_group(id.index, SHARE).keep_free(KEPT)
    }

    /// Whether the chains of a session hold what belongs there, as far as they go.
    pub(crate) fn check_chains(&self, id: RowId) {
        for chain in self.chains(id) {
            let mut content = Vec::new();
            self.pool.read_into(chain, &mut content);
            assert_eq!(content.len(), self.pool.len(chain), "the chain of {id:?} is cut off");
            let right = content.iter().enumerate().all(|(at, byte)| *byte == byte_of(id, at));
            assert!(right, "foreign bytes in a chain of {id:?}");
        }
    }

    pub(crate) fn free_chains(&self, id: RowId) {
        for chain in self.chains(id) {
            self.pool.free(chain);
        }
    }

    /// While nobody runs: what chains hold is counted.
    pub(crate) fn check_counts(&self) {
        let mut held = [0; GROUPS as usize];
        for id in self.sessions.iter() {
            let blocks =
                self.chains(id).map(|chain| self.pool.len(chain).div_ceil(POOL_BLOCK_BYTES));
            held[id.index as usize % held.len()] += blocks.iter().sum::<usize>();
        }
        for (group, held) in (0..).zip(held) {
            let counted = self.pool.group_blocks(group);
            assert!(counted as usize >= held, "group {group} holds {held} and counts {counted}");
            assert!(counted <= SHARE, "group {group} passed its share: {counted}");
        }
        assert!(self.pool.further_blocks() <= POOL_BLOCKS - KEPT);
    }

    pub(crate) fn step(&self, slot: usize) {
        let word = &self.ledger[slot * LEDGER_WORDS];
        word.store(word.load(Acquire) + 1, Release);
    }

    /// Notes around an addition to the total: before it (0) and after it (1).
    pub(crate) fn note_addition(&self, slot: usize, when: usize) {
        let word = &self.ledger[slot * LEDGER_WORDS + 1 + when];
        word.store(word.load(Acquire) + 1, Release);
    }

    fn additions(&self, slot: usize) -> [u64; 2] {
        [1, 2].map(|word| self.ledger[slot * LEDGER_WORDS + word].load(Acquire))
    }

    pub(crate) fn progress(&self, slot: usize) -> u64 {
        self.ledger[slot * LEDGER_WORDS].load(Acquire)
    }

    pub(crate) fn operations(&self) -> u64 {
        (0..SLOTS).map(|slot| self.progress(slot)).sum()
    }

    /// What a supervisor does after it reaped a process, and what must be true then. Every second
    /// session goes to an heir, if there is one. Returns rows, blocks and pool blocks found.
    pub(crate) fn clean_up(&self, slot: usize, dead: u16, heir: Option<u16>) -> (u32, u32, u32) {
        let keyed = self.table.recover(|writer| writer == dead);
        let plain = self.sessions.recover(|writer| writer == dead);
        let mut pool_blocks = 0;
        let left: Vec<RowId> = self.sessions.owned_by(dead).collect();
        pool_blocks += self.pool.reclaim(|owner| left.contains(&owner).then(|| self.chains(owner)));
        for (number, id) in left.into_iter().enumerate() {
            self.heard(&self.sessions.read(id).expect("nobody else frees it"));
            self.check_chains(id);
            if let Some(heir) = heir.filter(|_| number % 2 == 0) {
                // Its maker may have died right before it put the hint there.
                self.index.insert(hash_of(id), id.index).expect("there is a cell for every row");
                assert!(self.sessions.set_owner(id, heir));
                continue;
            }
            self.free_chains(id);
            self.index.remove(hash_of(id), id.index);
            assert!(self.sessions.free(id));
        }
        pool_blocks += self.pool.recover(|owner| {
            // The row of a living process may be made between its stamp and this look.
            self.sessions.is_live(owner)
        });
        for number in 0..OWN_KEYS {
            let own = self.own_key(slot, number);
            let (known, wanted) = (own.known.load(Acquire), own.wanted.load(Acquire));
            let found = self.version(own);
            let fits = |state: u64| found == (state & 1 == 1).then_some(state >> 1);
            assert!(
                fits(known) || fits(wanted),
                "key {}: {found:?}, {known:b}, {wanted:b}",
                own.key
            );
            let now = if fits(wanted) { wanted } else { known };
            own.known.store(now, Release);
        }
        // One that was under way may have been made or not.
        let [begun, done] = self.additions(slot);
        self.unknown.set(self.unknown.get() + begun - done);
        self.ledger[slot * LEDGER_WORDS + 1].store(done, Release);
        (keyed.rows + plain.rows, keyed.blocks + plain.blocks, pool_blocks)
    }

    /// While all others go on: whatever is read is whole, and no key is there twice.
    pub(crate) fn look_at_shared_rows(&self) {
        for key in 0..SHARED_KEYS {
            if let Some(row) = self.table.get(key) {
                self.heard(&row);
            }
        }
        for entry in self.table.iter() {
            let hot = [HOT_KEY, HOT_KEY + 1].map(OwnedKey::Number).contains(&entry.key);
            assert!(hot || self.heard(&entry.row) >= 0, "{entry:?}");
        }
    }

    /// Nobody else is left: no leak, nothing doubled, all capacity usable.
    pub(crate) fn check_at_the_end(&self) {
        let added: u64 = (0..SLOTS).map(|slot| self.additions(slot)[1]).sum();
        let total = self.table.get(TOTAL_KEY).map_or(0, |row| self.heard(&row)).cast_unsigned();
        let most = added + self.unknown.get();
        assert!((added..=most).contains(&total), "{added} to {most} additions, total {total}");
        let mut keys: Vec<_> = self.table.iter().map(|entry| entry.key).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "a key is there twice");
        keys.iter().for_each(|key| assert!(self.table.del(key)));

        for stats in [self.table.stats(), self.sessions.stats()] {
            assert_eq!((stats.live, stats.claiming, stats.dead), (0, 0, 0), "{stats:?}");
            assert_eq!(stats.blocks_linked + stats.blocks_free, stats.blocks, "{stats:?}");
        }
        for key in 0..u64::from(CAPACITY) {
            self.table.upsert(key, |draft| self.say(draft, 7)).expect("all capacity is usable");
        }
        assert!(matches!(self.table.set("one more", &[]), Err(TableError::Full { .. })));
        let claimed: Vec<_> = std::iter::from_fn(|| self.sessions.claim(0)).collect();
        assert_eq!(claimed.len(), SESSIONS as usize);

        assert_eq!(self.pool.free_blocks(), POOL_BLOCKS);
        let all = vec![1; POOL_BLOCKS as usize * POOL_BLOCK_BYTES];
        let counts =
            [self.pool.further_blocks(), self.pool.group_blocks(0), self.pool.group_blocks(1)];
        assert_eq!(counts, [0; 3], "further blocks and groups are counted that nobody holds");
        let [chain, _] = self.chains(claimed[0]);
        let limits = PoolLimits::bytes(usize::MAX).in_group(1, POOL_BLOCKS);
        self.pool.append(chain, claimed[0], &all, limits).expect("the whole pool is usable");
        let more = self.pool.append(chain, claimed[0], &[1], PoolLimits::bytes(usize::MAX));
        assert_eq!(more, Err(PoolError::PoolFull));
        let left: u32 = [0, u64::MAX].map(|hash| self.index.sweep(hash, |_, _| false)).iter().sum();
        assert_eq!(left, 0, "hints were left");
    }
}

pub(crate) fn hash_of(id: RowId) -> u64 {
    hash_key(&id.to_bits().to_le_bytes(), 5)
}

/// The byte that belongs at a place of a session's chain.
pub(crate) fn byte_of(id: RowId, at: usize) -> u8 {
    let mixed = (id.to_bits() ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()[0]
}

fn text_of(number: i64) -> String {
    format!("{number:0>width$}", width = 20 + usize::from(number.to_le_bytes()[0] % 20))
}

fn blob_of(number: i64) -> Vec<u8> {
    let byte = number.to_le_bytes()[0];
    vec![byte; usize::from(byte % 70)]
}

/// xorshift64*: the same numbers in every process that starts from the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(hash_key(&seed.to_le_bytes(), 1) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 32) % bound
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }
}
