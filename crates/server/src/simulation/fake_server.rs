//! A whole server in one process and one thread: workers, a task process, mail between them, timers,
//! clients; and deaths at any moment. What happens, and when, is up to who drives it.
//!
//! Knows no application but by its hooks, and no chance but the dice it is given. What a worker does to
//! rows, mail and connections is done here as there; where the engine leaves an order open (which
//! mailbox's sender comes first, who is read from first) the dice choose.
//! Invariants: 1. With the same dice and the same calls everything happens again. 2. A turn that a death
//! ends leaves what was written to shared memory, the mail that was posted and the output that was sent,
//! and nothing else.

use super::dice::Dice;
use super::get;
use super::hands::Desk;
use super::seat::Seat;
use super::world::{Bounds, Heard, Mail, Packet, Said, Wire, World};
use crate::app::{
    Adoption, App, Handshake, Reply, Response, StopReason, TaskFailure, UpgradeRequest,
};
use crate::clock::Millis;
use crate::context::{MasterContext, Role};
use crate::http::Request;
use crate::ids::{ConnId, RequestId, SlotId};
use crate::ipc::codec;
use crate::scoreboard::Scoreboard;
use crate::sessions::{Phase, Service, Sessions};
use crate::shared::Areas;
use crate::timer::TimerTable;
use dunlin_table::{Rows, death, heap_words};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// How much a turn does at most.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Packets taken out of the mailbox.
    pub packets: usize,
    /// Messages read from clients.
    pub messages: usize,
    /// Connections that are over and get their last hook.
    pub closes: usize,
}

impl Share {
    /// More than there is.
    pub const ALL: Self = Self { packets: 1_000, messages: 1_000, closes: 1_000 };
}

/// A server whose processes are values.
pub struct FakeServer<A: App> {
    world: World,
    workers: Vec<Seat<A>>,
    task: Seat<A>,
    master: A,
    make: Box<dyn Fn() -> A>,
}

impl<A: App> FakeServer<A> {
    /// A server of so many workers. `make` makes the application as each process has it when it is
    /// forked, before [`App::start`].
    ///
    /// # Panics
    /// When the application's columns make no schema, or its hooks `start` or `worker_start` fail.
    #[must_use]
    pub fn start(make: Box<dyn Fn() -> A>, workers: u16, bounds: Bounds) -> Self {
        let app = make();
        let schema = Sessions::schema(app.columns()).expect("the columns make a schema");
        let words =
            Rows::words_needed(&schema, bounds.sessions).expect("there is room for a session");
        let sessions = Sessions::new(schema, bounds.sessions, heap_words(words))
            .expect("the words are as many as needed");
        let slots = usize::from(workers);
        let world = World {
            sessions,
            areas: Areas::on_heap(&app.areas()),
            timers: TimerTable::new(heap_words(TimerTable::words_needed(bounds.timers))),
            now: Millis(1_000_000),
            unix_ms: 1_800_000_000_000,
            bounds,
            slots,
            wires: BTreeMap::new(),
            post: vec![vec![VecDeque::new(); slots + 2]; slots],
            tasks: VecDeque::new(),
            responses: Vec::new(),
            asked: Vec::new(),
            next_id: 0,
            scoreboard: Scoreboard::new(
                heap_words(Scoreboard::words_needed(slots, 0, 0)),
                slots,
                0,
                A::close_codes(),
            ),
        };
        let seat = |role| Seat { app: make(), desk: Desk::new(&world, role, 0), lives: false };
        let mut server = Self {
            workers: (0..workers).map(|slot| seat(Role::Worker(SlotId(slot)))).collect(),
            task: seat(Role::Task(0)),
            world,
            master: app,
            make,
        };
        server.in_master(|app, master| app.start(master));
        for slot in (0..workers).map(SlotId) {
            server.start_again(slot, None);
        }
        server.start_task_process();
        server
    }

    /// Calls a hook of the master.
    pub fn in_master<R>(&mut self, hook: impl FnOnce(&mut A, &mut MasterContext<'_>) -> R) -> R {
        self.world.in_master(&mut self.master, hook)
    }

    /// The application as the master has it.
    pub fn master(&self) -> &A {
        &self.master
    }

    /// The session table.
    #[must_use]
    pub fn table(&self) -> &Sessions {
        &self.world.sessions
    }

    /// The slots of the workers.
    pub fn slots(&self) -> impl Iterator<Item = SlotId> + use<A> {
        (0..).map(SlotId).take(self.workers.len())
    }

    /// Whether the worker of a slot lives.
    #[must_use]
    pub fn lives(&self, slot: SlotId) -> bool {
        self.workers[slot.index()].lives
    }

    /// The time of the server.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        self.world.unix_ms
    }

    /// A client connects to the worker of a slot, which may die of it. `None`: it was not let in.
    pub fn connect(
        &mut self,
        slot: SlotId,
        peer: SocketAddr,
        request: &Request,
        deeds: Option<u32>,
    ) -> Option<ConnId> {
        if !self.lives(slot) {
            return None;
        }
        let conn = self.world.sessions.claim(slot, -1, peer)?;
        self.world.wires.insert(conn, Wire::default());
        let mut let_in = false;
        let survived = self.mortal(slot, deeds, |seat, world| {
            seat.desk.sessions.touch(conn, world.now, None);
            let upgrade = UpgradeRequest { http: request, peer, subprotocols: &[] };
            let id = RequestId(world.next_id());
            let answer =
                seat.hook(world, None, |app, context| app.handshake(context, id, &upgrade));
            let_in = matches!(answer, Handshake::Accept { .. });
            if !let_in {
                seat.desk.sessions.free(conn);
                return;
            }
            seat.desk.sessions.set_state(conn, Phase::Open, Service::Handling);
            seat.desk.known.insert(conn);
            seat.desk.touched.insert(conn);
            seat.hook(world, Some(conn), |app, context| app.open(context, conn, &upgrade));
            seat.hands(world).settle();
        });
        (!survived || let_in).then_some(conn)
    }

    /// A client connects as one that asks for `/ws` and nothing else.
    pub fn connect_plainly(&mut self, slot: SlotId, peer: SocketAddr) -> Option<ConnId> {
        self.connect(slot, peer, &get("/ws"), None)
    }

    /// A client says something; its worker reads it in one of its turns.
    pub fn say(&mut self, conn: ConnId, said: Said) {
        if let Some(wire) = self.world.wires.get_mut(&conn) {
            if matches!(said, Said::End(_)) {
                // Whoever ends the connection hears nothing more.
                wire.over = true;
            }
            wire.said.push_back(said);
        }
    }

    /// What a client has heard since it was last asked.
    pub fn hear(&mut self, conn: ConnId) -> Vec<Heard> {
        self.world
            .wires
            .get_mut(&conn)
            .map_or_else(Vec::new, |wire| std::mem::take(&mut wire.heard))
    }

    /// The client reads nothing from now on, or reads again.
    pub fn set_stalled(&mut self, conn: ConnId, stalled: bool) {
        let Some(wire) = self.world.wires.get_mut(&conn) else { return };
        wire.stalled = stalled;
        let owner = self.world.sessions.owner(conn);
        if !stalled
            && let Some(seat) = owner.and_then(|slot| self.workers.get_mut(slot.index()))
            && seat.lives
            && seat.desk.known.contains(&conn)
        {
            // Its worker is told that it may send.
            seat.desk.touched.insert(conn);
        }
    }

    /// Time goes on; the timer process sweeps.
    pub fn pass(&mut self, ms: u64) {
        self.world.now = self.world.now + ms;
        self.world.unix_ms += ms;
        self.world.sweep();
    }

    /// The timer process says that a deadline has passed, which may not be true.
    pub fn tell_overdue(&mut self, conn: ConnId) {
        self.world.tell_overdue(conn);
    }

    /// A turn of a worker. Dies, if it does not end before, at its deed number `deeds`
    /// ([`death::die_after`]); false if it did.
    pub fn turn(
        &mut self,
        slot: SlotId,
        dice: &mut Dice,
        share: Share,
        deeds: Option<u32>,
    ) -> bool {
        self.mortal(slot, deeds, |seat, world| {
            for _ in 0..share.packets {
                if !seat.read_mailbox(world, slot, dice) {
                    break;
                }
            }
            for _ in 0..share.messages {
                if !seat.read_client(world, dice) {
                    break;
                }
            }
            seat.hands(world).settle();
            for _ in 0..share.closes {
                let Some(conn) = seat.desk.parting.pop_front() else { break };
                seat.finish(world, conn);
            }
            seat.hands(world).settle();
        })
    }

    /// The worker of a slot is killed between two turns.
    pub fn kill(&mut self, slot: SlotId) {
        self.mortal(slot, Some(0), |_, _| death::deed());
    }

    /// A successor starts in the slot of a dead worker and takes up what is left; it may die, too.
    pub fn start_again(&mut self, slot: SlotId, deeds: Option<u32>) -> bool {
        if self.lives(slot) {
            return true;
        }
        self.sit_down(slot);
        self.mortal(slot, deeds, |seat, world| seat.adopt_all(world, slot, Adoption::Crash))
    }

    /// The worker of a slot is replaced in order.
    pub fn reload(&mut self, slot: SlotId, deeds: Option<u32>) -> bool {
        if !self.lives(slot) {
            return true;
        }
        let seat = &mut self.workers[slot.index()];
        seat.hands(&mut self.world).settle();
        let unsent = std::mem::take(&mut seat.desk.touched);
        let seat = self.sit_down(slot);
        if let Some(mut old) = seat {
            old.hook(&mut self.world, None, |app, context| {
                app.worker_stop(context, StopReason::Replaced);
            });
            old.hands(&mut self.world).settle();
        }
        self.mortal(slot, deeds, |seat, world| {
            seat.adopt_all(world, slot, Adoption::Reload);
            seat.desk.touched.extend(unsent);
            seat.hands(world).settle();
        })
    }

    /// Gives a connection to another worker, if its own may let it go. True if it did.
    pub fn move_to(&mut self, conn: ConnId, to: SlotId) -> bool {
        let Some((from, home)) =
            self.world.sessions.owner(conn).zip(self.world.sessions.home(conn))
        else {
            return false;
        };
        let world = &mut self.world;
        let seat = &mut self.workers[from.index()];
        let clean = world.sessions.is_established(conn)
            && world.sessions.service(conn) == Some(Service::Clean);
        let known = seat.desk.known.contains(&conn) && !seat.desk.arriving.contains(&conn);
        if from == to || !seat.lives || !clean || !known || !world.may_go(conn, [from, home, to]) {
            return false;
        }
        if let Some(wire) = world.wires.get_mut(&conn) {
            wire.moved = true;
        }
        seat.desk.known.remove(&conn);
        seat.desk.touched.remove(&conn);
        world.sessions.set_route(conn, to);
        world.sessions.set_owner(conn, to);
        world.post[to.index()][from.index()].push_back(vec![Mail::Moved(conn)]);
        seat.hook(world, None, |app, context| app.moved_away(context, conn));
        seat.hands(world).settle();
        true
    }

    /// A plain request to the worker of a slot. `None`: it died, or answers later
    /// ([`FakeServer::responses`]).
    pub fn request(
        &mut self,
        slot: SlotId,
        request: &Request,
        deeds: Option<u32>,
    ) -> (RequestId, Option<Response>) {
        let id = RequestId(self.world.next_id());
        let mut response = None;
        self.mortal(slot, deeds, |seat, world| {
            let reply = seat.hook(world, None, |app, context| app.request(context, id, request));
            seat.hands(world).settle();
            if let Reply::Now(now) = reply {
                response = Some(now);
            }
        });
        (id, response)
    }

    /// Responses that came later, since this was last asked.
    pub fn responses(&mut self) -> Vec<(RequestId, Response)> {
        std::mem::take(&mut self.world.responses)
    }

    /// The task process does the first task that waits, if there is one; it may die of it, which is told.
    pub fn run_task(&mut self, deeds: Option<u32>) -> bool {
        let Some(work) = self.world.tasks.pop_front() else { return true };
        let decoded = codec::decode_value::<A::Task>(&work.work);
        let (seat, world) = (&mut self.task, &mut self.world);
        let mut result = Err(TaskFailure::NoResult);
        let survived = mortal(deeds, || {
            let done = decoded.ok().and_then(|decoded| {
                seat.hook(world, None, |app, context| app.task(context, work.task, decoded))
            });
            seat.hands(world).settle();
            if let Some(done) = done {
                result = codec::encode_value(&done).map_err(|_| TaskFailure::Undecodable);
            }
        });
        if !survived {
            result = Err(TaskFailure::ProcessLost);
            self.world.sessions.recover(self.task.desk.writer());
            self.start_task_process();
        }
        self.world.post_as_master(work.asker, Mail::Finish { task: work.task, result });
        survived
    }

    /// Starts the dead again and lets everybody work until there is nothing to do. False if that does
    /// not end.
    pub fn settle_down(&mut self, dice: &mut Dice) -> bool {
        for _ in 0..10_000 {
            let slots: Vec<SlotId> = self.slots().collect();
            for slot in slots {
                self.start_again(slot, None);
                self.turn(slot, dice, Share::ALL, None);
            }
            while !self.world.tasks.is_empty() {
                self.run_task(None);
            }
            if self.is_idle() {
                return true;
            }
        }
        false
    }

    fn is_idle(&self) -> bool {
        let mail = self.world.post.iter().flatten().all(VecDeque::is_empty);
        let read = |(conn, wire): (&ConnId, &Wire)| {
            wire.said.is_empty() || self.world.sessions.phase(*conn).is_none()
        };
        let desks = self.workers.iter().all(|seat| seat.lives && seat.desk.parting.is_empty());
        mail && desks && self.world.tasks.is_empty() && self.world.wires.iter().all(read)
    }

    /// Puts a new process into a slot, and gives the one that was there.
    fn sit_down(&mut self, slot: SlotId) -> Option<Seat<A>> {
        let generation = self.workers[slot.index()].desk.generation + 1;
        let role = Role::Worker(slot);
        let seat = self.new_seat(role, generation);
        let old = std::mem::replace(&mut self.workers[slot.index()], seat);
        old.lives.then_some(old)
    }

    fn start_task_process(&mut self) {
        let generation = self.task.desk.generation + 1;
        self.task = self.new_seat(Role::Task(0), generation);
    }

    fn new_seat(&mut self, role: Role, generation: u32) -> Seat<A> {
        let mut app = (self.make)();
        // The fork has what `start` has made in the master.
        self.world.in_master(&mut app, |app, master| app.start(master));
        let mut seat = Seat { app, desk: Desk::new(&self.world, role, generation), lives: true };
        seat.hook(&mut self.world, None, |app, context| app.worker_start(context))
            .expect("the worker starts");
        seat
    }

    /// Lets the worker of a slot do something, and die of it.
    fn mortal(
        &mut self,
        slot: SlotId,
        deeds: Option<u32>,
        work: impl FnOnce(&mut Seat<A>, &mut World),
    ) -> bool {
        let (seat, world) = (&mut self.workers[slot.index()], &mut self.world);
        if !seat.lives {
            return true;
        }
        let row = world.scoreboard.worker(slot.index());
        row.turn_begins(world.now);
        let survived = mortal(deeds, || work(seat, world));
        if !survived {
            seat.lives = false;
            seat.desk.marks.forget();
            world.mark_lost(slot, seat.desk.writer());
            for conn in std::mem::take(&mut seat.desk.in_transit) {
                if let Some(owner) = world.sessions.owner(conn) {
                    world.post_as_master(owner, Mail::Lost(conn));
                }
            }
        }
        row.turn_ends();
        survived
    }
}

impl World {
    fn in_master<A: App, R>(
        &mut self,
        app: &mut A,
        hook: impl FnOnce(&mut A, &mut MasterContext<'_>) -> R,
    ) -> R {
        let (listen, run_dir) =
            ([SocketAddr::from(([127, 0, 0, 1], 9502))], Path::new("/dev/null"));
        let asked = &mut self.asked;
        hook(app, &mut MasterContext::new(&self.sessions, &self.areas, &listen, run_dir, asked))
    }

    /// Whether a connection may go from one worker to another: nothing that it has said, and nothing that
    /// is for it, may be overtaken.
    fn may_go(&self, conn: ConnId, [from, home, to]: [SlotId; 3]) -> bool {
        let said_is_read = (0..self.slots)
            .all(|slot| slot == to.index() || self.post[slot][from.index()].is_empty());
        let is_for = |packet: &Packet| packet.iter().any(|mail| mail.recipients().contains(&conn));
        let on_its_way = from != home && self.post[from.index()][home.index()].iter().any(is_for);
        said_is_read && !on_its_way
    }
}

/// Does something that may die of it; false if it did.
fn mortal(deeds: Option<u32>, work: impl FnOnce()) -> bool {
    let Some(deeds) = deeds else {
        work();
        return true;
    };
    death::die_after(deeds);
    let end = catch_unwind(AssertUnwindSafe(work));
    death::spare();
    match end {
        Ok(()) => true,
        Err(killed) if killed.is::<death::Killed>() => false,
        Err(panic) => resume_unwind(panic),
    }
}

impl<A: App> fmt::Debug for FakeServer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeServer").field("world", &self.world).finish_non_exhaustive()
    }
}
