//! Rows, keyed tables, pool and index over shared memory that somebody wrote into: whatever the words are, every call comes
//! back, within its bounds, and the structures can be used again.
#![no_main]

use std::sync::atomic::Ordering::Relaxed;

use dunlin_table::{
    Chain, HintIndex, Pool, PoolLimits, RowId, Rows, Schema, Table, WINDOW_CELLS, heap_words,
    sync::AtomicU64,
};
use libfuzzer_sys::fuzz_target;

const ROWS: u32 = 5;
const BLOCKS: u32 = 6;
const BLOCK_BYTES: usize = 16;
const GROUPS: u16 = 3;
const WINDOWS: u32 = 2;

fuzz_target!(|input: &[u8]| {
    thread_local!(static MEMORY: Memory = Memory::new());
    MEMORY.with(|memory| {
        let Some((kind, input)) = input.split_first() else { return };
        match kind % 4 {
            0 => use_rows(&memory.rows(input)),
            1 => use_pool(&memory.pool(input), memory.chain()),
            2 => use_index(&memory.index(input)),
            _ => use_table(&memory.table(input)),
        }
    });
});

/// Words that are given back to nobody, so that there is one set of them, formatted anew for each input.
struct Memory {
    rows: &'static [AtomicU64],
    pool: &'static [AtomicU64],
    index: &'static [AtomicU64],
    table: &'static [AtomicU64],
    chain: &'static [AtomicU64],
}

impl Memory {
    fn new() -> Self {
        let words = "there is room for a few";
        Self {
            rows: heap_words(Rows::words_needed(&schema(), ROWS).expect(words)),
            pool: heap_words(Pool::words_needed(BLOCKS, BLOCK_BYTES, GROUPS).expect(words)),
            index: heap_words(HintIndex::words_needed(WINDOWS).expect(words)),
            table: heap_words(Table::words_needed(&keyed_schema(), ROWS).expect(words)),
            chain: heap_words(2),
        }
    }

    fn rows(&self, input: &[u8]) -> Rows {
        clear(self.rows);
        let rows = Rows::new(schema(), ROWS, self.rows).expect("zeroed words are formatted");
        let used = [1, 2, 1].map(|owner| rows.claim(owner));
        if let Some(id) = used[0] {
            assert!(rows.free(id));
        }
        spoil(self.rows, input);
        rows
    }

    fn pool(&self, input: &[u8]) -> Pool {
        clear(self.pool);
        clear(self.chain);
        let pool =
            Pool::new(BLOCKS, BLOCK_BYTES, GROUPS, self.pool).expect("zeroed words are formatted");
        pool.append(self.chain(), OWNER, &[7; 40], LIMITS).expect("there is room");
        // The chain is at the end of what is spoilt.
        let (words, rest) = input.split_at(input.len() / 2);
        spoil(self.pool, words);
        spoil(self.chain, rest);
        pool
    }

    fn index(&self, input: &[u8]) -> HintIndex {
        clear(self.index);
        let index = HintIndex::new(WINDOWS, self.index).expect("zeroed words are formatted");
        for row in 0..4 {
            index.insert(u64::from(row) << 40, row).expect("there is room");
        }
        spoil(self.index, input);
        index
    }

    fn table(&self, input: &[u8]) -> Table {
        clear(self.table);
        let table =
            Table::new(keyed_schema(), ROWS, self.table).expect("zeroed words are formatted");
        for key in 0..4_u64 {
            table.set(key, &[]).expect("there is room");
        }
        assert!(table.del(2));
        spoil(self.table, input);
        table
    }

    fn chain(&self) -> Chain<'static> {
        Chain { ends: &self.chain[0], length: &self.chain[1] }
    }
}

const LIMITS: PoolLimits =
    PoolLimits::bytes(BLOCKS as usize * BLOCK_BYTES).in_group(1, 5).keep_free(1);

const OWNER: RowId = RowId { index: 3, generation: 9 };

fn schema() -> Schema {
    let schema = Schema::builder().int("number").string("name", 12).bytes("raw", 9).float("load");
    schema.counter("deadline").build().expect("a right schema")
}

fn keyed_schema() -> Schema {
    let schema = Schema::builder().int("number").string("name", 12).expires().key_limit(8);
    schema.build().expect("a right schema")
}

fn clear(words: &[AtomicU64]) {
    words.iter().for_each(|word| word.store(0, Relaxed));
}

/// Each ten bytes of input: which word, and what is in it then (two bytes choose, eight are the word).
fn spoil(words: &[AtomicU64], input: &[u8]) {
    let (writes, _) = input.as_chunks::<10>();
    for [low, high, word @ ..] in writes {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % words.len();
        words[at].store(u64::from_le_bytes(*word), Relaxed);
    }
}

fn use_rows(rows: &Rows) {
    let name = rows.schema().column("name").expect("it is in the schema");
    let number = rows.schema().column("number").expect("it is in the schema");
    let raw = rows.schema().column("raw").expect("it is in the schema");
    let mut bytes = Vec::new();
    for index in 0..ROWS + 2 {
        let Some(id) = rows.at(index) else { continue };
        if let Some(row) = rows.read(id) {
            assert!(row.str(name).len() <= 12 && row.bytes(raw).len() <= 9);
        }
        let _ = (rows.read_int(id, number), rows.read_column(id, name), rows.owner(id));
        bytes.clear();
        rows.read_bytes_into(id, name, &mut bytes);
        assert!(bytes.len() <= 12);
        let _ = rows.write(id, &[(name, "carla".into()), (number, 1.into())]);
        let _ = rows.update(id, |draft| draft.add_int(number, 1).map(|_| true));
    }
    assert!(rows.iter().count() <= ROWS as usize && rows.owned_by(1).count() <= ROWS as usize);
    let _ = (rows.count(), rows.stats());
    rows.recover(|writer| writer % 2 == 0);
    claim_and_free(rows, number);
    rows.recover(|_| true);
    let _ = rows.stats();
}

fn claim_and_free(rows: &Rows, number: dunlin_table::ColumnId) {
    let claimed: Vec<RowId> = (0..=ROWS).map_while(|_| rows.claim(3)).collect();
    assert!(claimed.len() <= ROWS as usize);
    for id in claimed {
        let _ = rows.write(id, &[(number, 2.into())]);
        rows.set_owner(id, 4);
        rows.free(id);
    }
}

fn use_pool(pool: &Pool, chain: Chain<'_>) {
    let most = BLOCKS as usize * BLOCK_BYTES;
    let mut content = Vec::new();
    let _ = pool.append(chain, OWNER, &[1; 3], LIMITS);
    assert_eq!(pool.read_into(chain, &mut content), content.len());
    assert!(content.len() <= most);
    pool.reclaim(|row| (row.index % 2 == 1).then_some([chain]));
    let _ = pool.append(chain, OWNER, &[2; 30], LIMITS);
    pool.free(chain);
    let _ = pool.append(chain, OWNER, &[2; 30], LIMITS);
    pool.free(chain);
    pool.recover(|_| false);
    assert_eq!(pool.free_blocks(), BLOCKS, "everything is free once every owner is gone");
    // A chain may only take what is free now; whatever it was, it is whole again.
    chain.ends.store(0, Relaxed);
    chain.length.store(0, Relaxed);
    pool.append(chain, OWNER, &vec![5; most], PoolLimits::bytes(most))
        .expect("all blocks are free");
    content.clear();
    pool.read_into(chain, &mut content);
    assert_eq!(content, vec![5; most]);
}

fn use_index(index: &HintIndex) {
    for row in 0..4_u32 {
        let hash = u64::from(row) << 40;
        let mut found = 0;
        index.find(hash, &mut |_| found += 1);
        index.sweep(hash, |row, _| row % 2 == 0);
        let _ = (index.insert(hash, row + 7), index.remove(hash, row + 7));
        assert!(found <= WINDOW_CELLS);
    }
}

fn use_table(table: &Table) {
    let name = table.schema().column("name").expect("it is in the schema");
    let number = table.schema().column("number").expect("it is in the schema");
    assert!(table.iter().count() <= ROWS as usize);
    for key in 0..6_u64 {
        if let Some(row) = table.get(key) {
            assert!(row.str(name).len() <= 12);
        }
        let _ = table.set(key, &[(name, "carla".into())]);
        let _ = (table.incr(key, number, 1), table.add(key, &[]).is_ok());
        let _ = table.set_until(key, &[(number, 1.into())], 9);
        let _ = table.compare_del(key, &[(number, 1.into())]);
        table.touch(key, 20);
    }
    let _ = (table.sweep(10, 0, ROWS), table.stats());
    table.recover(|writer| writer % 2 == 0);
    for key in 0..6_u64 {
        let _ = (table.set(key, &[]).is_ok(), table.get_del(key).is_some(), table.del(key));
    }
    table.recover(|_| true);
    assert!(table.count() <= ROWS);
}
