//! One process of the kill loop: random operations until it is killed. What it finds wrong ends it by
//! SIGABRT, which the parent tells from its own SIGKILL.

use std::sync::atomic::Ordering::{Acquire, Release};

use dunlin_table::{PoolError, RowId, TableError};
use nix::sys::signal::Signal;

use crate::world::{HOT_KEY, OWN_KEYS, Random, SHARED_KEYS, TOTAL_KEY, World, byte_of, hash_of};

/// Sessions a worker has open at most.
const OPEN: usize = 3;

pub(crate) fn run(world: World, slot: usize, seed: u64) -> ! {
    // The parent may die of a failed assertion.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("the signal can be asked for");
    std::panic::set_hook(Box::new(|what| {
        eprintln!("worker {}: {what}", std::process::id());
        std::process::abort();
    }));
    // What the predecessor left.
    let sessions: Vec<RowId> = world.sessions.owned_by(world.writer).collect();
    sessions.iter().for_each(|id| world.check_chains(*id));
    let mut worker = Worker { world, slot, random: Random::new(seed), sessions };
    loop {
        match worker.random.below(9) {
            0 | 1 => worker.change_own_key(),
            2 => worker.set_shared(),
            3 => worker.delete_shared(),
            4 => worker.read_shared(),
            5 => worker.add(),
            6 => worker.hammer(),
            _ => worker.serve_session(),
        }
        worker.world.step(slot);
    }
}

struct Worker {
    world: World,
    slot: usize,
    random: Random,
    sessions: Vec<RowId>,
}

impl Worker {
    /// Notes what it wants, does it, notes that it is done.
    fn change_own_key(&mut self) {
        let number = self.random.index(OWN_KEYS);
        let own = self.world.own_key(self.slot, number);
        let known = own.known.load(Acquire);
        let there = known & 1 == 1;
        let found = self.world.version(own);
        assert_eq!(found, there.then_some(known >> 1), "an acknowledged change is lost");

        let version = (known >> 1) + 1;
        let wanted = version << 1 | u64::from(self.random.below(3) > 0);
        own.wanted.store(wanted, Release);
        if wanted & 1 == 1 {
            let say =
                |draft: &mut dunlin_table::Draft<'_>| self.world.say(draft, version.cast_signed());
            self.world.table.upsert(own.key, say).expect("there is a row for every key");
        } else {
            assert_eq!(self.world.table.del(own.key), there);
        }
        own.known.store(wanted, Release);
    }

    fn set_shared(&mut self) {
        let (key, number) = (self.random.below(SHARED_KEYS), self.random.next() >> 1);
        let world = &self.world;
        let set = world.table.upsert(key, |draft| world.say(draft, number.cast_signed()));
        set.expect("there is a row for every key");
    }

    /// Little but the protocol, so that more kills fall inside it.
    fn hammer(&mut self) {
        let world = &self.world;
        for _ in 0..30 {
            let key = HOT_KEY + self.random.below(2);
            match self.random.below(4) {
                0 => drop(world.table.del(key)),
                _ => drop(world.table.incr(key, world.number(), 1).expect("there is a row")),
            }
        }
    }

    fn delete_shared(&mut self) {
        self.world.table.del(self.random.below(SHARED_KEYS));
    }

    fn read_shared(&mut self) {
        if let Some(row) = self.world.table.get(self.random.below(SHARED_KEYS)) {
            self.world.heard(&row);
        }
    }

    fn add(&mut self) {
        let world = &self.world;
        world.note_addition(self.slot, 0);
        let added = world.table.upsert(TOTAL_KEY, |draft| {
            let sum = draft.add_int(world.number(), 1)?;
            world.say(draft, sum)
        });
        match added {
            Ok(_) => world.note_addition(self.slot, 1),
            Err(error @ (TableError::Full { .. } | TableError::Write(_))) => panic!("{error}"),
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Opens, feeds or closes a session.
    fn serve_session(&mut self) {
        if self.sessions.len() < OPEN && self.random.below(3) == 0 {
            // None if the dead of other slots, not yet cleaned up, have all of them.
            let Some(id) = self.world.sessions.claim(self.world.writer) else { return };
            let row = self.world.sessions.read(id).expect("just claimed");
            assert_eq!(self.world.heard(&row), 0, "a new row is vacant");
            let lengths = self.world.chains(id).map(|chain| self.world.pool.len(chain));
            assert_eq!(lengths, [0, 0], "its counters are zero");
            self.world.index.insert(hash_of(id), id.index).expect("there is a cell for every row");
            self.sessions.push(id);
            return;
        }
        let Some(at) = self.pick() else { return };
        let id = self.sessions[at];
        let world = &self.world;
        if self.random.below(6) == 0 {
            world.check_chains(id);
            world.free_chains(id);
            assert!(world.index.remove(hash_of(id), id.index));
            assert!(world.sessions.free(id));
            self.sessions.swap_remove(at);
            return;
        }
        let number = self.random.next().cast_signed();
        let said = world.sessions.update(id, |draft| world.say(draft, number).map(|()| true));
        assert_eq!(said, Ok(true));
        let which = self.random.index(2);
        let chain = world.chains(id)[which];
        let from = world.pool.len(chain);
        let len = self.random.index([200, 30][which]);
        let bytes: Vec<u8> = (from..from + len).map(|place| byte_of(id, place)).collect();
        match world.pool.append(chain, id, &bytes, world.limits(id, which)) {
            Ok(()) => assert_eq!(world.pool.len(chain), from + len),
            Err(error) => {
                let kept = matches!(error, PoolError::KeptForShort { .. });
                assert!(!kept || which == 0, "a chain of one block is never refused for others");
                assert_eq!(world.pool.len(chain), from);
                world.check_chains(id);
                world.pool.free(chain);
            }
        }
        let mut seen = false;
        world.index.find(hash_of(id), &mut |row| seen |= row == id.index);
        assert!(seen, "the hint of a living row is lost");
    }

    fn pick(&mut self) -> Option<usize> {
        let count = self.sessions.len();
        (count > 0).then(|| self.random.index(count))
    }
}
