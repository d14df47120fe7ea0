//! Every order in which sessions that come and go can meet, with and without a death.
//!
//! Each deed runs in a thread of its own, and one thread runs at a time: where the code says `step` the thread
//! stops, and a schedule says who goes on. All schedules with at most [`CHANGES_MAX`] changes of hands
//! before a deed is done are tried, and of each deed the deaths at each of its steps: it never goes on.
//! Memory is seen in one order here; what weaker orders could show is argued in `life` and `coming`.

use super::tests::House;
use super::{Join, Limits, ROOMS_BOUND, Room, Rooms};
use dunlin_server::{ConnId, Sessions};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Changes of hands from one that could have gone on; where one may die, too, there is one less, or it would take
/// a minute.
const CHANGES_MAX: usize = 3;

thread_local! {
    static ACTOR: RefCell<Option<(Arc<Baton>, usize)>> = const { RefCell::new(None) };
}

/// Another process may come in between here.
pub(super) fn step() {
    let actor = ACTOR.with_borrow(Clone::clone);
    if let Some((baton, index)) = actor {
        baton.stop(index);
    }
}

/// Who runs.
#[derive(Debug, Default)]
struct Baton {
    turn: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    runs: Option<usize>,
    done: Vec<bool>,
    dies: bool,
}

struct Died;

impl Baton {
    /// Gives the turn back and waits for the next.
    fn stop(&self, index: usize) {
        let mut turn = self.turn.lock().unwrap();
        turn.runs = None;
        self.changed.notify_all();
        drop(turn);
        self.wait(index);
    }

    fn wait(&self, index: usize) {
        let turn = self.turn.lock().unwrap();
        let turn = self.changed.wait_while(turn, |turn| turn.runs != Some(index)).unwrap();
        if turn.dies {
            drop(turn);
            // Without the hook: nothing is printed.
            resume_unwind(Box::new(Died));
        }
    }

    fn end(&self, index: usize) {
        let mut turn = self.turn.lock().unwrap();
        (turn.runs, turn.done[index]) = (None, true);
        self.changed.notify_all();
    }

    /// Lets one go on to its next stop, or die there.
    fn run(&self, index: usize, dies: bool) {
        let mut turn = self.turn.lock().unwrap();
        (turn.runs, turn.dies) = (Some(index), dies);
        self.changed.notify_all();
        let mut turn = self.changed.wait_while(turn, |turn| turn.runs.is_some()).unwrap();
        turn.dies = false;
    }

    fn waiting(&self) -> Vec<usize> {
        let turn = self.turn.lock().unwrap();
        (0..turn.done.len()).filter(|index| !turn.done[*index]).collect()
    }
}

/// The choices of one run, and how many there were at each: the next run differs in the last that can.
#[derive(Debug, Default)]
struct Schedule {
    choices: Vec<(usize, usize)>,
    at: usize,
}

impl Schedule {
    fn choose(&mut self, of: usize) -> usize {
        if self.at == self.choices.len() {
            self.choices.push((0, of));
        }
        let (choice, known) = self.choices[self.at];
        assert_eq!(known, of, "the same choices lead to the same place");
        self.at += 1;
        choice
    }

    fn next(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, of)) = self.choices.pop() {
            if choice + 1 < of {
                self.choices.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Join,
    Leave,
    JoinAndLeave,
}

/// How a deed ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It is in, and whether it was the first of its user.
    In(Room, bool),
    /// It is out, and whether it was the last of its user, if it was in before.
    Out(Option<bool>),
    Died,
}

/// What one process has of the shared memory.
struct Process {
    rooms: Rooms,
    sessions: Sessions,
    conn: ConnId,
    others: Vec<ConnId>,
}

impl Process {
    fn join(&self) -> (Room, bool) {
        let has_other = |room| {
            self.others.iter().any(|other| self.rooms.is_member(&self.sessions, *other, room))
        };
        let join = Join {
            conn: self.conn,
            user: 7,
            has_other: &has_other,
            limits: Limits { rooms: ROOMS_BOUND, members: 100 },
            unix_ms: 0,
        };
        let newcomer = self.rooms.enter(&self.sessions, "tea", &join);
        let newcomer = newcomer.expect("there is room for it");
        (newcomer.room, newcomer.is_first)
    }

    fn leave(&self) -> Option<bool> {
        let room = self.rooms.rooms_of(&self.sessions, self.conn).next()?;
        let leaving = self.rooms.begin_leaving(&self.sessions, self.conn, room)?;
        let has_other =
            self.others.iter().any(|other| self.rooms.is_coming(&self.sessions, *other, room));
        self.rooms.end_leaving(&self.sessions, self.conn, leaving);
        Some(!has_other)
    }

    fn run(&self, deed: Deed) -> End {
        match deed {
            Deed::Join => {
                let (room, is_first) = self.join();
                End::In(room, is_first)
            }
            Deed::Leave => End::Out(self.leave()),
            Deed::JoinAndLeave => {
                self.join();
                End::Out(self.leave())
            }
        }
    }
}

/// Runs deeds by one schedule; gives how each ended.
fn run(processes: &[Process], deeds: &[Deed], deaths: bool, schedule: &mut Schedule) -> Vec<End> {
    let baton = Arc::new(Baton::default());
    baton.turn.lock().unwrap().done = vec![false; deeds.len()];
    thread::scope(|scope| {
        let threads: Vec<_> = processes
            .iter()
            .zip(deeds)
            .enumerate()
            .map(|(index, (process, deed))| {
                let baton = baton.clone();
                // A handle of its own, as another process has.
                let process = Process {
                    rooms: process.rooms.clone(),
                    sessions: process.sessions.clone(),
                    conn: process.conn,
                    others: process.others.clone(),
                };
                scope.spawn(move || {
                    ACTOR.set(Some((baton.clone(), index)));
                    let end = catch_unwind(AssertUnwindSafe(|| {
                        baton.wait(index);
                        process.run(*deed)
                    }));
                    baton.end(index);
                    end
                })
            })
            .collect();
        let (mut current, mut changes, mut dead) = (None, usize::from(deaths), !deaths);
        loop {
            let waiting = baton.waiting();
            let goes_on = current.filter(|current| waiting.contains(current));
            let Some(first) = goes_on.or_else(|| waiting.first().copied()) else { break };
            let mut options = vec![(first, false)];
            if goes_on.is_none() || changes < CHANGES_MAX {
                let others = waiting.iter().filter(|other| **other != first);
                options.extend(others.map(|other| (*other, false)));
            }
            if !dead && let Some(current) = goes_on {
                options.push((current, true));
            }
            let (index, dies) = options[schedule.choose(options.len())];
            changes += usize::from(goes_on.is_some_and(|current| current != index));
            dead |= dies;
            current = Some(index);
            baton.run(index, dies);
        }
        let ends = threads.into_iter().map(|thread| thread.join().expect("panics are caught"));
        ends.map(|end| match end {
            Ok(end) => end,
            Err(panic) if panic.is::<Died>() => End::Died,
            Err(panic) => resume_unwind(panic),
        })
        .collect()
    })
}

/// Tries every schedule of these deeds, those of `first` being in the room before; gives how many there were.
fn try_all(first: &[usize], deeds: &[Deed], deaths: bool) -> usize {
    let mut house = House::new(4, &[("table.rooms", "4"), ("table.room_members", "8")]);
    let mut schedule = Schedule::default();
    let mut tried = 0;
    loop {
        let conns: Vec<ConnId> = house.conns[..deeds.len()].to_vec();
        let processes: Vec<Process> = conns
            .iter()
            .map(|conn| Process {
                rooms: house.rooms().clone(),
                sessions: house.sessions().clone(),
                conn: *conn,
                others: conns.iter().copied().filter(|other| other != conn).collect(),
            })
            .collect();
        for index in first {
            processes[*index].join();
        }
        let ends = run(&processes, deeds, deaths, &mut schedule);
        check(&house, &processes, deeds, &ends);
        clear(&mut house, &processes, &ends);
        tried += 1;
        if !schedule.next() {
            return tried;
        }
    }
}

fn check(house: &House, processes: &[Process], deeds: &[Deed], ends: &[End]) {
    let (rooms, sessions) = (house.rooms(), house.sessions());
    for (process, end) in processes.iter().zip(ends) {
        match end {
            End::In(room, _) => {
                assert_eq!(rooms.find("tea"), Some(*room), "who is in is in the room of that name");
                let members = rooms.members(sessions, *room);
                assert!(members.iter().any(|member| member.conn == process.conn), "{ends:?}");
            }
            End::Out(_) => assert_eq!(rooms.rooms_of(sessions, process.conn).count(), 0),
            End::Died => {}
        }
    }
    if ends.contains(&End::Died) {
        return;
    }
    // All are sessions of one user. `true`: somebody told it.
    let joined = ends.iter().any(|end| matches!(end, End::In(_, true)));
    let left = ends.iter().any(|end| matches!(end, End::Out(Some(true))));
    let is_in = ends.iter().any(|end| matches!(end, End::In(..)));
    match deeds {
        [Deed::Join, Deed::Join] => assert!(joined, "nobody told that the user came: {ends:?}"),
        [Deed::Leave, Deed::Leave] => assert!(left, "nobody told that the user went: {ends:?}"),
        [Deed::Leave, Deed::Join] => {
            assert!(is_in && (joined || !left), "the user is in, and was told to be out: {ends:?}");
        }
        _ => {}
    }
}

/// Everybody goes, the dead by who closes their rows: nothing is left.
fn clear(house: &mut House, processes: &[Process], ends: &[End]) {
    for process in processes {
        while process.leave().is_some() {}
    }
    if ends.contains(&End::Died) {
        // One who made a room and died before he entered it has left it to the sweep.
        let rooms = house.rooms();
        for index in 0..rooms.names.capacity() {
            if let Some(id) = rooms.names.rows().at(index) {
                assert!(rooms.members(house.sessions(), Room(id)).is_empty());
                rooms.reclaim(house.sessions(), Room(id));
            }
        }
    }
    assert_eq!(house.rooms().used(), 0, "{ends:?}");
}

#[test]
fn of_two_that_come_or_go_none_is_in_a_dead_room() {
    for deaths in [false, true] {
        for (first, deeds) in [
            (&[][..], [Deed::Join, Deed::Join]),
            (&[0], [Deed::Leave, Deed::Join]),
            (&[0, 1], [Deed::Leave, Deed::Leave]),
            (&[], [Deed::JoinAndLeave, Deed::JoinAndLeave]),
            (&[], [Deed::JoinAndLeave, Deed::Join]),
        ] {
            let tried = try_all(first, &deeds, deaths);
            println!("{deeds:?}, deaths {deaths}: {tried} schedules");
            assert!(tried > 100, "{tried}");
        }
    }
}
