//! Processes that add, compare, take, touch and sweep rows are killed at random moments, while the parent
//! takes rows too. Afterwards: what was added is what was taken and what is left, a lock made of a row
//! had one holder at a time, and no row that was touched in time is gone.
//!
//! `DUNLIN_KILLS` says how many kills (default 500). Needs no harness: forks, and threads would make that
//! unsound.

#[cfg(dunlin_loom)]
fn main() {}

#[cfg(not(dunlin_loom))]
fn main() {
    let kills = std::env::var("DUNLIN_KILLS").ok().and_then(|text| text.parse().ok());
    processes::run(kills.unwrap_or(500));
}

#[cfg(not(dunlin_loom))]
mod processes {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::SeqCst;
    use std::thread::sleep;
    use std::time::Duration;

    use dunlin_table::{
        Added, ColumnId, Compared, Plan, Region, Row, Schema, Table, TableError, hash_key,
    };
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid};

    const SLOTS: u16 = 3;
    /// The sums, the lock, a session a slot, and a row for each process that is just making one.
    const CAPACITY: u32 = 2 + 1 + 3 + 4;
    const SUMS: [&str; 2] = ["left", "right"];
    const LOCK: &str = "lock";
    const FAR: u64 = 1 << 40;

    struct World {
        table: Table,
        n: ColumnId,
        /// Turned by everybody.
        clock: &'static AtomicU64,
        /// Who is between having the lock and giving it up.
        inside: &'static AtomicU64,
        /// Additions begun and done.
        wanted: &'static AtomicU64,
        done: &'static AtomicU64,
        steps: &'static AtomicU64,
        /// Sessions swept by somebody who lived to say so.
        swept: &'static AtomicU64,
    }

    impl World {
        fn create() -> Self {
            let schema = Schema::builder().int("n").bytes("twin", 200).expires().build().unwrap();
            let n = schema.column("n").unwrap();
            let mut plan = Plan::new();
            let area = plan.reserve(Table::words_needed(&schema, CAPACITY).unwrap());
            let words = plan.reserve(6);
            let region = Region::create(plan.words()).unwrap();
            let table = Table::new(schema, CAPACITY, area.words(region)).unwrap();
            let [clock, inside, wanted, done, steps, swept] = words.words(region) else {
                panic!("six words were reserved")
            };
            clock.store(1, SeqCst);
            Self { table, n, clock, inside, wanted, done, steps, swept }
        }

        /// Adds one to a sum in one of the ways there are.
        fn add_one(&self, key: &str, way: u64) {
            self.wanted.fetch_add(1, SeqCst);
            match way {
                0 => drop(self.table.incr(key, self.n, 1).unwrap()),
                1 => while !self.add_by_comparing(key) {},
                _ => {
                    let added = |draft: &mut dunlin_table::Draft<'_>| draft.add_int(self.n, 1);
                    let there = self.table.update_with(key, |draft| added(draft).map(|_| true));
                    if there.unwrap() == Compared::Absent {
                        self.table.upsert(key, |draft| added(draft).map(|_| ())).unwrap();
                    }
                }
            }
            self.done.fetch_add(1, SeqCst);
        }

        fn add_by_comparing(&self, key: &str) -> bool {
            let Some(row) = self.table.get(key) else {
                return matches!(self.table.add(key, &[(self.n, 1.into())]), Ok(Added::New(_)));
            };
            let (old, new) = (row.int(self.n), row.int(self.n) + 1);
            let set = self.table.compare_set(key, &[(self.n, old.into())], &[(self.n, new.into())]);
            matches!(set, Ok(Compared::Done(_)))
        }

        /// A lock made of a row: who adds it has it.
        fn lock_and_unlock(&self, me: u64) {
            let mine = [(self.n, me.cast_signed().into())];
            match self.table.add(LOCK, &mine) {
                Ok(Added::New(_)) => {}
                Ok(Added::There(_)) | Err(TableError::Full { .. }) => return,
                Err(error) => panic!("{error}"),
            }
            assert_eq!(self.inside.swap(me, SeqCst), 0, "two have the lock");
            let other = [(self.n, (-1).into())];
            assert_eq!(self.table.compare_del(LOCK, &other).unwrap(), Compared::Differs);
            assert_eq!(self.inside.swap(0, SeqCst), me, "two have the lock");
            let unlocked = self.table.compare_del(LOCK, &mine).unwrap();
            assert!(matches!(unlocked, Compared::Done(_)), "somebody took the lock away");
        }

        /// A session that only its slot makes and touches.
        fn live(&self, slot: u16) {
            let key = u64::from(slot);
            let now = self.clock.fetch_add(1, SeqCst);
            if self.table.touch(key, FAR + now) {
                let id = self.table.find(key).expect("its deadline is far");
                assert_eq!(self.table.rows().deadline(id), Some(FAR + now));
                assert!(self.table.rows().touch(id, now), "swept though it was not due");
            } else {
                let id = self.table.set_until(key, &[(self.n, 1.into())], FAR).unwrap();
                assert!(self.table.rows().is_live(id), "swept though it was not due");
            }
        }

        fn sweep(&self) {
            let found = self.table.sweep(self.clock.load(SeqCst), 0, CAPACITY).swept;
            self.swept.fetch_add(found.len() as u64, SeqCst);
        }

        /// What a supervisor does after it reaped a process.
        fn clean_up(&self, writer: u16) {
            self.table.recover(|dead| dead == writer);
            let me = u64::from(writer);
            let _ = self.inside.compare_exchange(me, 0, SeqCst, SeqCst);
            let held = [(self.n, me.cast_signed().into())];
            self.table.compare_del(LOCK, &held).unwrap();
        }
    }

    fn work(mut world: World, slot: u16, writer: u16) -> ! {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("the signal can be asked for");
        std::panic::set_hook(Box::new(|what| {
            eprintln!("worker: {what}");
            std::process::abort();
        }));
        world.table.set_writer(writer);
        for step in 0_u64.. {
            let random = hash_key(&step.to_le_bytes(), u64::from(writer));
            match random % 8 {
                way @ 0..3 => world.add_one(SUMS[usize::from(random & 8 == 0)], way),
                3 | 4 => world.lock_and_unlock(u64::from(writer)),
                5 | 6 => world.live(slot),
                _ => world.sweep(),
            }
            world.steps.fetch_add(1, SeqCst);
        }
        unreachable!("it is killed before it has counted so far")
    }

    #[expect(clippy::disallowed_methods, reason = "this test is about forked processes")]
    #[expect(unsafe_code, reason = "fork; the process has one thread")]
    fn start(world: &World, slot: u16, writer: u16) -> Pid {
        // SAFETY: there is no other thread whose locks the child could inherit, and the child ends by
        // a signal without ever returning from `work`.
        match unsafe { nix::unistd::fork() }.expect("a process can be forked") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => work(World { table: world.table.clone(), ..*world }, slot, writer),
        }
    }

    fn end(child: Pid) {
        kill(child, Signal::SIGKILL).expect("the child is there");
        match waitpid(child, None).expect("it is our child") {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => {}
            other => panic!("a worker found something wrong: {other:?}"),
        }
    }

    pub(crate) fn run(kills: u16) {
        let world = World::create();
        let mut row = Row::empty(world.table.schema());
        let mut taken = 0;
        let mut take = |world: &World, key: &str| {
            let id = world.table.find(key);
            if id.is_some_and(|id| world.table.remove_into(id, &mut row)) {
                taken += row.int(world.n);
            }
            taken
        };
        // Two that live at one time never share a number; 0 is the parent.
        let mut children: Vec<(Pid, u16)> =
            (0..SLOTS).map(|slot| (start(&world, slot, slot + 1), slot + 1)).collect();
        for number in 0..kills {
            let random = hash_key(&number.to_le_bytes(), 7);
            for turn in 0..random % 2000 {
                take(&world, SUMS[usize::from(turn % 2 == 0)]);
            }
            sleep(Duration::from_micros(random >> 32 & 1023));
            let slot = number % SLOTS;
            let (pid, writer) = children[usize::from(slot)];
            end(pid);
            world.clean_up(writer);
            let next = SLOTS + 1 + number;
            children[usize::from(slot)] = (start(&world, slot, next), next);
        }
        for (pid, writer) in children {
            end(pid);
            world.clean_up(writer);
        }
        let sum = SUMS.map(|key| take(&world, key))[1];
        let (wanted, done) = (world.wanted.load(SeqCst), world.done.load(SeqCst));
        let most = done.cast_signed()..=wanted.cast_signed();
        assert!(most.contains(&sum), "{sum} were taken, {done} to {wanted} were added");
        assert!(!world.table.exists(LOCK) && world.inside.load(SeqCst) == 0);
        world.table.sweep(u64::MAX, 0, CAPACITY);
        let stats = world.table.stats();
        assert_eq!((stats.live, stats.claiming, stats.dead), (0, 0, 0));
        assert_eq!(stats.blocks_linked + stats.blocks_free, stats.blocks);
        for key in 0..CAPACITY {
            world.table.add(key, &[]).expect("the whole capacity is usable again");
        }
        println!(
            "kill operations: {kills} kills, {} operations, {sum} taken of {done} to {wanted} added, {} swept",
            world.steps.load(SeqCst),
            world.swept.load(SeqCst),
        );
    }
}
