//! The session table as workers and applications see it: one row per WebSocket connection.
//!
//! Knows the framework's columns and how a row moves through its phases; knows no socket and no
//! process. A worker is a cache of these rows: what must outlive it stands here.
//! Invariants: 1. While a connection is open only its owner's process writes its row. 2. The state
//! word is HANDLING from before the worker reads from the connection or queues to it until its output
//! is in the kernel and its leftover input in the pool. 3. A row that is `Lost` is offline for every
//! reader at once, though it is freed later.

mod moves;
mod phase;
mod subject;
mod writer;

pub(crate) use self::moves::{Passage, STRIKES_MAX};
pub use self::phase::{Phase, Service, SessionInfo};
pub(crate) use self::writer::Writer;
use crate::clock::{self, Millis};
use crate::ids::{ConnId, SlotId};
use crate::websocket::{Agreement, Progress};
use dunlin_table::{
    Chain, Column, ColumnId, ColumnKind, CounterId, LayoutError, Row, RowId, Rows, Schema,
    ValueRef, WriteError,
};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug)]
struct Columns {
    state: CounterId,
    descriptor: CounterId,
    home: CounterId,
    deadline: CounterId,
    deadline_limit: CounterId,
    heartbeat: CounterId,
    last_active: CounterId,
    connected_at: CounterId,
    peer: [CounterId; 3],
    progress: [CounterId; 3],
    message_began: CounterId,
    message: [CounterId; 2],
    cut: [CounterId; 2],
    compression: CounterId,
    route: CounterId,
    in_transit: CounterId,
    passage: CounterId,
    strikes: CounterId,
    left: CounterId,
    subject: CounterId,
    subprotocol: ColumnId,
}

const COUNTERS: [&str; 26] = [
    "state",
    "descriptor",
    "home",
    "deadline",
    "deadline_limit",
    "heartbeat",
    "last_active",
    "connected_at",
    "peer_high",
    "peer_low",
    "peer_port",
    "progress_0",
    "progress_1",
    "progress_2",
    "message_began",
    "message_ends",
    "message_length",
    "cut_ends",
    "cut_length",
    "compression",
    "route",
    "in_transit",
    "passage",
    "strikes",
    "left",
    "subject",
];

/// Longest subprotocol a row keeps, in bytes.
pub const SUBPROTOCOL_MAX: usize = 64;

/// The session table. Cheap to clone; every process has the same rows.
#[derive(Clone, Debug)]
pub struct Sessions {
    rows: Rows,
    schema: Schema,
    columns: Columns,
}

impl Sessions {
    /// The schema of a session table with the application's columns behind the framework's.
    ///
    /// # Errors
    /// As [`Schema::new`]: the application named a column twice, or as the framework's own.
    pub fn schema(app_columns: Vec<Column>) -> Result<Schema, dunlin_table::SchemaError> {
        let mut columns =
            vec![Column { name: "subprotocol".into(), kind: ColumnKind::Str(SUBPROTOCOL_MAX) }];
        columns.extend(
            COUNTERS.iter().map(|name| Column { name: (*name).into(), kind: ColumnKind::Counter }),
        );
        columns.extend(app_columns);
        Schema::new(columns)
    }

    /// A session table over an area of shared memory of [`Rows::words_needed`] words.
    ///
    /// # Errors
    /// As [`Rows::new`].
    pub fn new(
        schema: Schema,
        capacity: u32,
        words: &'static [AtomicU64],
    ) -> Result<Self, LayoutError> {
        let counter = |name: &str| {
            schema.counter_column(name).expect("`schema` adds every framework column by this name")
        };
        let columns = Columns {
            state: counter("state"),
            descriptor: counter("descriptor"),
            home: counter("home"),
            deadline: counter("deadline"),
            deadline_limit: counter("deadline_limit"),
            heartbeat: counter("heartbeat"),
            last_active: counter("last_active"),
            connected_at: counter("connected_at"),
            peer: [counter("peer_high"), counter("peer_low"), counter("peer_port")],
            progress: [counter("progress_0"), counter("progress_1"), counter("progress_2")],
            message_began: counter("message_began"),
            message: [counter("message_ends"), counter("message_length")],
            cut: [counter("cut_ends"), counter("cut_length")],
            compression: counter("compression"),
            route: counter("route"),
            in_transit: counter("in_transit"),
            passage: counter("passage"),
            strikes: counter("strikes"),
            left: counter("left"),
            subject: counter("subject"),
            subprotocol: schema
                .column("subprotocol")
                .expect("`schema` adds every framework column by this name"),
        };
        Ok(Self { rows: Rows::new(schema.clone(), capacity, words)?, schema, columns })
    }

    /// The most sessions there can be.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.rows.capacity()
    }

    /// The id of an application's (or the framework's) column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<ColumnId> {
        self.schema.column(name)
    }

    /// The id of an application's (or the framework's) counter column.
    #[must_use]
    pub fn counter_column(&self, name: &str) -> Option<CounterId> {
        self.schema.counter_column(name)
    }

    /// A copy of a connection's row; `None` if it is gone.
    #[must_use]
    pub fn read(&self, conn: ConnId) -> Option<Row> {
        self.rows.read(conn.row())
    }

    /// [`Sessions::read`] into a row that is there, which saves an allocation. If the connection is gone,
    /// false, and `row` has no meaning.
    pub fn read_into(&self, conn: ConnId, row: &mut Row) -> bool {
        self.rows.read_into(conn.row(), row)
    }

    /// A row of zeros and empty texts, for [`Sessions::read_into`].
    #[must_use]
    pub fn empty_row(&self) -> Row {
        Row::empty(&self.schema)
    }

    /// Whether a text column of a connection's row has this text; false if the connection is gone.
    /// Copies nothing.
    #[must_use]
    pub fn str_is(&self, conn: ConnId, column: ColumnId, text: &str) -> bool {
        self.rows.str_is(conn.row(), column, text)
    }

    /// Writes columns of a connection's row, all or nothing. Only the worker that serves it may.
    ///
    /// # Errors
    /// As [`Rows::write`].
    pub fn write(
        &self,
        conn: ConnId,
        values: &[(ColumnId, ValueRef<'_>)],
    ) -> Result<(), WriteError> {
        self.rows.write(conn.row(), values)
    }

    /// A counter word of a connection's row; `None` if it is gone.
    #[must_use]
    pub fn counter(&self, conn: ConnId, column: CounterId) -> Option<&'static AtomicU64> {
        self.rows.is_live(conn.row()).then(|| self.rows.counter(column, conn.row().index))
    }

    /// Whether the connection is open.
    #[must_use]
    pub fn is_established(&self, conn: ConnId) -> bool {
        self.phase(conn) == Some(Phase::Open)
    }

    /// The open connection in the row of this index, if there is one.
    #[must_use]
    pub fn established_at(&self, index: u32) -> Option<ConnId> {
        let conn = ConnId::from_row(self.rows.at(index)?);
        self.is_established(conn).then_some(conn)
    }

    /// All open connections of all workers.
    pub fn established(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.rows.iter().map(ConnId::from_row).filter(|conn| self.is_established(*conn))
    }

    /// How many rows are taken.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.rows.count()
    }

    /// The client's address; `None` if the connection is gone.
    #[must_use]
    pub fn peer(&self, conn: ConnId) -> Option<SocketAddr> {
        let [high, low, port] = self.columns.peer.map(|column| self.word(conn, column));
        let address = Ipv6Addr::from(u128::from(high?) << 64 | u128::from(low?));
        let ip = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        Some(SocketAddr::new(ip, u16::try_from(port? & 0xffff).unwrap_or(0)))
    }

    /// Sets when the application is to be told that the deadline passed, at the latest at the limit of
    /// [`Sessions::set_deadline_limit`]; `None`: never.
    pub fn set_deadline(&self, conn: ConnId, at: Option<Millis>) {
        let at = at.map_or(0, |at| self.limited(conn, at).0.max(1));
        self.store(conn, self.columns.deadline, at);
    }

    /// Sets a moment that no deadline is set and no heartbeat moves it beyond; a deadline that is later,
    /// or not set, is at the limit from now on. `None`: no limit, and the deadline stays as it is.
    pub fn set_deadline_limit(&self, conn: ConnId, at: Option<Millis>) {
        self.store(conn, self.columns.deadline_limit, at.map_or(0, |at| at.0.max(1)));
        if let Some(limit) = at {
            self.set_deadline(conn, Some(self.deadline(conn).unwrap_or(limit)));
        }
    }

    /// The limit of a connection's deadlines; `None` if it has none or is gone.
    #[must_use]
    pub fn deadline_limit(&self, conn: ConnId) -> Option<Millis> {
        self.word(conn, self.columns.deadline_limit).filter(|at| *at != 0).map(Millis)
    }

    /// The deadline of a connection; `None` if it has none or is gone.
    #[must_use]
    pub fn deadline(&self, conn: ConnId) -> Option<Millis> {
        self.word(conn, self.columns.deadline).filter(|at| *at != 0).map(Millis)
    }

    /// The whole deadline column, a word per row, 0 for none: what the timer process sweeps.
    #[must_use]
    pub fn deadlines(&self) -> &'static [AtomicU64] {
        self.rows.counters(self.columns.deadline)
    }

    /// The connection whose row has this index, in whatever phase.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<ConnId> {
        self.rows.at(index).map(ConnId::from_row)
    }

    /// The slot whose mailbox takes what is for this connection.
    #[must_use]
    pub fn home(&self, conn: ConnId) -> Option<SlotId> {
        let home = self.word(conn, self.columns.home)?;
        u16::try_from(home).ok().map(SlotId)
    }

    /// The phase of a connection; `None` if it is gone.
    #[must_use]
    pub fn phase(&self, conn: ConnId) -> Option<Phase> {
        match self.word(conn, self.columns.state)? >> 8 {
            1 => Some(Phase::Opening),
            2 => Some(Phase::Open),
            3 => Some(Phase::Closing),
            4 => Some(Phase::Lost),
            5 => Some(Phase::Leaving),
            _ => None,
        }
    }

    fn limited(&self, conn: ConnId, at: Millis) -> Millis {
        self.deadline_limit(conn).map_or(at, |limit| at.min(limit))
    }

    fn word(&self, conn: ConnId, column: CounterId) -> Option<u64> {
        let value = self.counter(conn, column)?.load(Ordering::Acquire);
        // Read first, checked after: a row that was freed and taken again meanwhile is not ours.
        self.rows.is_live(conn.row()).then_some(value)
    }

    fn store(&self, conn: ConnId, column: CounterId, value: u64) {
        if let Some(word) = self.counter(conn, column) {
            word.store(value, Ordering::Release);
        }
    }
}

/// What only workers and the master do with rows.
impl Sessions {
    pub(crate) fn set_writer(&mut self, writer: Writer) {
        self.rows.set_writer(writer.number());
    }

    /// Gives back what a dead process held in the middle of a write.
    pub(crate) fn recover(&self, dead: Writer) {
        let dead = dead.number();
        self.rows.recover(|writer| writer == dead);
    }

    /// Claims a row for a connection of `slot`, in phase Opening, state Handling. `None`: full.
    pub(crate) fn claim(
        &self,
        slot: SlotId,
        descriptor: RawFd,
        peer: SocketAddr,
    ) -> Option<ConnId> {
        let row = self.rows.claim(slot.0)?;
        let conn = ConnId::from_row(row);
        let ip = match peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let [high, low] = halves(u128::from(ip));
        for (column, value) in [
            (self.columns.descriptor, u64::try_from(descriptor).unwrap_or(u64::MAX)),
            (self.columns.home, u64::from(slot.0)),
            (self.columns.last_active, clock::now().0),
            (self.columns.connected_at, clock::unix_ms()),
            (self.columns.peer[0], high),
            (self.columns.peer[1], low),
            (self.columns.peer[2], u64::from(peer.port())),
        ] {
            self.store(conn, column, value);
        }
        self.set_state(conn, Phase::Opening, Service::Handling);
        Some(conn)
    }

    pub(crate) fn set_subprotocol(
        &self,
        conn: ConnId,
        subprotocol: &str,
    ) -> Result<(), WriteError> {
        self.write(conn, &[(self.columns.subprotocol, ValueRef::Str(subprotocol))])
    }

    /// How the connection's messages may be compressed, if at all.
    pub(crate) fn agreement(&self, conn: ConnId) -> Option<Agreement> {
        Agreement::from_word(self.word(conn, self.columns.compression)?)
    }

    pub(crate) fn set_agreement(&self, conn: ConnId, agreement: Option<Agreement>) {
        self.store(conn, self.columns.compression, Agreement::to_word(agreement));
    }

    pub(crate) fn free(&self, conn: ConnId) -> bool {
        // The timer process sweeps the column whether rows are live or not.
        self.set_deadline(conn, None);
        self.rows.free(conn.row())
    }

    pub(crate) fn set_state(&self, conn: ConnId, phase: Phase, service: Service) {
        let phase = match phase {
            Phase::Opening => 1,
            Phase::Open => 2,
            Phase::Closing => 3,
            Phase::Lost => 4,
            Phase::Leaving => 5,
        };
        let service = match service {
            Service::Clean => 0,
            Service::Handling => 1,
            Service::Writing => 2,
        };
        self.store(conn, self.columns.state, phase << 8 | service);
    }

    pub(crate) fn service(&self, conn: ConnId) -> Option<Service> {
        match self.word(conn, self.columns.state)? & 0xff {
            0 => Some(Service::Clean),
            2 => Some(Service::Writing),
            _ => Some(Service::Handling),
        }
    }

    pub(crate) fn touch(&self, conn: ConnId, now: Millis, heartbeat_ms: Option<u64>) {
        self.store(conn, self.columns.last_active, now.0);
        if let Some(after) = heartbeat_ms {
            self.set_deadline(conn, Some(now + after));
        }
    }

    pub(crate) fn last_active(&self, conn: ConnId) -> Option<Millis> {
        self.word(conn, self.columns.last_active).map(Millis)
    }

    pub(crate) fn set_heartbeat(&self, conn: ConnId, after_ms: Option<u64>) {
        self.store(conn, self.columns.heartbeat, after_ms.unwrap_or(0));
    }

    pub(crate) fn heartbeat(&self, conn: ConnId) -> Option<u64> {
        self.word(conn, self.columns.heartbeat).filter(|after| *after != 0)
    }

    pub(crate) fn descriptor(&self, conn: ConnId) -> Option<RawFd> {
        RawFd::try_from(self.word(conn, self.columns.descriptor)?).ok()
    }

    pub(crate) fn progress(&self, conn: ConnId) -> Progress {
        let words = self.columns.progress.map(|column| self.word(conn, column).unwrap_or(0));
        Progress::from_words(words)
    }

    pub(crate) fn set_progress(&self, conn: ConnId, progress: Progress) {
        for (column, value) in self.columns.progress.into_iter().zip(progress.words()) {
            self.store(conn, column, value);
        }
    }

    /// When the first byte of the message came that is half received; `None` if none is.
    pub(crate) fn message_began(&self, conn: ConnId) -> Option<Millis> {
        self.word(conn, self.columns.message_began).filter(|at| *at != 0).map(Millis)
    }

    pub(crate) fn set_message_began(&self, conn: ConnId, at: Option<Millis>) {
        self.store(conn, self.columns.message_began, at.map_or(0, |at| at.0.max(1)));
    }

    /// The chain of the message half received.
    pub(crate) fn message_chain(&self, row: RowId) -> Chain<'static> {
        self.chain(row, self.columns.message)
    }

    /// The chain of the bytes of a cut frame header or control frame.
    pub(crate) fn cut_chain(&self, row: RowId) -> Chain<'static> {
        self.chain(row, self.columns.cut)
    }

    pub(crate) fn owned_by(&self, slot: SlotId) -> impl Iterator<Item = ConnId> + '_ {
        self.rows.owned_by(slot.0).map(ConnId::from_row)
    }

    /// Every connection with a row, in whatever phase, of whatever slot.
    pub(crate) fn all(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.rows.iter().map(ConnId::from_row)
    }

    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    fn chain(&self, row: RowId, [ends, length]: [CounterId; 2]) -> Chain<'static> {
        Chain {
            ends: self.rows.counter(ends, row.index),
            length: self.rows.counter(length, row.index),
        }
    }
}

fn halves(value: u128) -> [u64; 2] {
    let bytes = value.to_be_bytes();
    let (high, low) = bytes.split_at(8);
    [high, low].map(|half| half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_heartbeat_moves_a_deadline_beyond_its_limit() {
        let schema = Sessions::schema(Vec::new()).unwrap();
        let words = Rows::words_needed(&schema, 2).unwrap();
        let sessions = Sessions::new(schema, 2, dunlin_table::heap_words(words)).unwrap();
        let peer = "127.0.0.1:1".parse().unwrap();
        let conn = sessions.claim(SlotId(0), -1, peer).unwrap();
        let deadline = || sessions.deadline(conn).map(|at| at.0);
        sessions.touch(conn, Millis(100), Some(60));
        assert_eq!((deadline(), sessions.deadline_limit(conn)), (Some(160), None));
        sessions.set_deadline_limit(conn, Some(Millis(200)));
        assert_eq!(deadline(), Some(160), "what is earlier stays");
        sessions.touch(conn, Millis(150), Some(60));
        assert_eq!(deadline(), Some(200));
        sessions.set_deadline(conn, Some(Millis(900)));
        assert_eq!(deadline(), Some(200));
        sessions.set_deadline_limit(conn, Some(Millis(180)));
        assert_eq!(deadline(), Some(180), "what is later is at the limit");
        sessions.set_deadline(conn, None);
        assert_eq!(deadline(), None);
        sessions.set_deadline_limit(conn, Some(Millis(170)));
        assert_eq!(deadline(), Some(170), "what was not set is");
        sessions.set_deadline_limit(conn, None);
        sessions.touch(conn, Millis(150), Some(60));
        assert_eq!(deadline(), Some(210));
        // Another connection in the same row has no limit.
        sessions.set_deadline_limit(conn, Some(Millis(1)));
        sessions.free(conn);
        let next = sessions.claim(SlotId(0), -1, peer).unwrap();
        assert_eq!(next.row().index, conn.row().index);
        assert_eq!((sessions.deadline_limit(next), sessions.deadline(next)), (None, None));
        sessions.set_deadline_limit(conn, Some(Millis(1)));
        assert_eq!(sessions.deadline_limit(next), None, "a stale id writes nothing");
    }
}
