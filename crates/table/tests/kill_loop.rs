//! Several processes do random operations on few rows and are killed at random moments. Afterwards:
//! no torn row, no acknowledged change lost, nothing done twice, nothing leaked, nobody ever waited,
//! and the whole capacity is usable again.
//!
//! `DUNLIN_KILLS` says how many kills (default 1,000, about ten seconds), `DUNLIN_SEED` repeats the
//! schedule of operations; both are printed. Needs no harness: forks, and threads would make that
//! unsound.

#[cfg(not(dunlin_loom))]
#[path = "kill_loop/world.rs"]
mod world;

#[cfg(not(dunlin_loom))]
#[path = "kill_loop/worker.rs"]
mod worker;

#[cfg(dunlin_loom)]
fn main() {}

#[cfg(not(dunlin_loom))]
fn main() {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("DUNLIN_KILLS").unwrap_or(1000);
    let seed =
        number("DUNLIN_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 16);
    println!("kill loop: DUNLIN_KILLS={kills} DUNLIN_SEED={seed}");
    parent::run(kills, seed);
}

#[cfg(not(dunlin_loom))]
mod parent {
    use std::thread::sleep;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid};

    use crate::worker;
    use crate::world::{Random, SLOTS, World};

    /// A worker that shows no progress for so long while another is stopped is waiting for it.
    const PATIENCE: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(1);

    #[derive(Clone, Copy)]
    struct Child {
        pid: Pid,
        /// Fresh for each process: two that live at one time never share a number.
        writer: u16,
    }

    pub(crate) fn run(kills: u64, seed: u64) {
        let mut random = Random::new(seed);
        let world = World::create();
        let mut next_writer = 1;
        let mut children = Vec::new();
        for slot in 0..SLOTS {
            children.push(start(&world, slot, &mut next_writer, &mut random));
        }
        let mut recovered = (0, 0, 0);
        for number in 0..kills {
            sleep(Duration::from_micros(random.below(3000)));
            let slot = random.index(SLOTS);
            if number % 50 == 49 {
                stop_and_watch(&world, &children, slot);
            }
            if number % 20 == 19 {
                stop_all_and_count(&world, &children);
            }
            end(children[slot], Signal::SIGKILL);
            let found = world.clean_up(slot, children[slot].writer, Some(next_writer));
            recovered = (recovered.0 + found.0, recovered.1 + found.1, recovered.2 + found.2);
            world.look_at_shared_rows();
            children[slot] = start(&world, slot, &mut next_writer, &mut random);
        }
        for (slot, child) in children.iter().enumerate() {
            end(*child, Signal::SIGKILL);
            world.clean_up(slot, child.writer, None);
        }
        world.check_at_the_end();
        println!(
            "kill loop: {kills} kills, {} operations; recovered {} rows, {} blocks, {} pool blocks; \
             nothing torn, lost, doubled or leaked",
            world.operations(),
            recovered.0,
            recovered.1,
            recovered.2
        );
    }

    #[expect(clippy::disallowed_methods, reason = "this test is about forked processes")]
    #[expect(unsafe_code, reason = "fork; the process has one thread")]
    fn start(world: &World, slot: usize, next_writer: &mut u16, random: &mut Random) -> Child {
        let (writer, seed) = (*next_writer, random.next());
        *next_writer += 1;
        // SAFETY: there is no other thread whose locks the child could inherit, and the child ends by
        // a signal without ever returning from `worker::run`.
        match unsafe { nix::unistd::fork() }.expect("a process can be forked") {
            ForkResult::Parent { child } => Child { pid: child, writer },
            ForkResult::Child => worker::run(world.clone_for(writer), slot, seed),
        }
    }

    /// Ends a child by a signal and checks that nothing else ended it before.
    fn end(child: Child, signal: Signal) {
        kill(child.pid, signal).expect("the child is there");
        match waitpid(child.pid, None).expect("it is our child") {
            WaitStatus::Signaled(_, by, _) if by == signal => {}
            other => panic!("a worker found something wrong: {other:?}"),
        }
    }

    /// Stops all workers at random instants: nothing that a chain holds may be missing in the counts.
    fn stop_all_and_count(world: &World, children: &[Child]) {
        for child in children {
            kill(child.pid, Signal::SIGSTOP).expect("the child is there");
            let status = waitpid(child.pid, Some(WaitPidFlag::WUNTRACED)).expect("it is our child");
            assert!(matches!(status, WaitStatus::Stopped(..)), "a worker found something wrong");
        }
        world.check_counts();
        for child in children {
            kill(child.pid, Signal::SIGCONT).expect("the child is there");
        }
    }

    /// Stops one worker at a random instant; all others must go on although nobody is recovered.
    fn stop_and_watch(world: &World, children: &[Child], stopped: usize) {
        kill(children[stopped].pid, Signal::SIGSTOP).expect("the child is there");
        let before: Vec<u64> = (0..SLOTS).map(|slot| world.progress(slot)).collect();
        for slot in (0..SLOTS).filter(|slot| *slot != stopped) {
            let mut waited = Duration::ZERO;
            while world.progress(slot) < before[slot] + 200 {
                assert!(waited < PATIENCE, "slot {slot} waits for stopped slot {stopped}");
                let pid = children[slot].pid;
                let status = waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("it is our child");
                assert_eq!(status, WaitStatus::StillAlive, "a worker found something wrong");
                sleep(STEP);
                waited += STEP;
            }
        }
    }
}
