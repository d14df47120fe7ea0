//! What the IM keeps in shared memory, in one place: columns of the session table, the index from
//! users to sessions, the last message id, the last login; [`presence`] has its own file.
//!
//! Knows rows and no connection's traffic. Cells of the index are hints: whoever finds one verifies it
//! against the row. Invariants: 1. A session is logged in exactly while its `im_login` is not 0; that
//! word is written last on the way in and first on the way out. 2. While a hint of a session is in the
//! index, the row names its user, so whoever closes the row, also after a crash, can remove the hint.
//! 3. No two logins have the same number, whichever workers they came to, and the number of a login is
//! not above that of one that is begun after it is done. 4. Of two sessions of a user at least the one
//! whose login is done last finds the other.

mod api;
mod cells;
mod idempotency;
#[cfg(test)]
mod inspection;
mod online;
pub(crate) mod presence;
mod rates;
pub(crate) mod rooms;

pub(crate) use self::api::{ApiCount, ApiCounts};
pub(crate) use self::idempotency::{Begun, Claim, Idempotency, SendKey};
pub(crate) use self::online::{OnlineBoard, OnlineCount};
use self::presence::{PresenceSizes, PresenceTables};
pub(crate) use self::rates::{Bucket, Limit, Rates};
use self::rooms::{RoomSizes, Rooms};
use crate::ids::NodeId;
use crate::message_id::{self, MessageId};
use crate::protocol::params::{Device, KIND_MAX, MODEL_MAX};
use dunlin_server::settings::Settings;
use dunlin_server::{AreaRequest, Areas, ConnId, Sessions};
use dunlin_table::{
    Column, ColumnId, ColumnKind, CounterId, HintIndex, Row, ValueRef, WINDOW_CELLS, WriteError,
    hash_key,
};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const USER: &str = "im_user";
const DEVICE: &str = "im_device";
const MODEL: &str = "im_device_model";
const KIND: &str = "im_device_kind";
const LOGIN: &str = "im_login";
const REFUSED: &str = "im_refused_tokens";

const USERS_AREA: &str = "im.users";
const MESSAGE_ID_AREA: &str = "im.message_id";
const LAST_LOGIN_AREA: &str = "im.last_login";
const AUTH_AREA: &str = "im.auth";
const NODE_AREA: &str = "im.node";
const IDEMPOTENCY_AREA: &str = "im.idempotency";
const RATES_AREA: &str = "im.rates";
const SEED_AREA: &str = "im.seed";

/// Cells of the user index per row of the session table. All sessions of a user share one window of
/// [`WINDOW_CELLS`] cells with those of the users that hash beside them. At 4 the mean window is a
/// quarter full when the session table is full: with one session a user a window overflows in less
/// than one of 10^15 cases, and it still holds four users of 16 sessions each.
const CELLS_PER_SESSION: usize = 4;

/// The columns the IM adds to the session table.
pub(crate) fn columns() -> Vec<Column> {
    let text = |name: &str, limit| Column { name: name.into(), kind: ColumnKind::Str(limit) };
    let mut columns = vec![
        text(USER, crate::ids::NAME_MAX),
        text(DEVICE, crate::ids::NAME_MAX),
        text(MODEL, MODEL_MAX),
        text(KIND, KIND_MAX),
        Column { name: LOGIN.into(), kind: ColumnKind::Counter },
        Column { name: REFUSED.into(), kind: ColumnKind::Counter },
    ];
    columns.extend(rooms::columns());
    columns.extend(Rates::columns());
    columns.extend(PresenceTables::columns());
    columns
}

/// How much there is to be room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// `table.max_sessions`.
    pub(crate) sessions: u32,
    pub(crate) rooms: RoomSizes,
    /// `im.idempotency_entries`.
    pub(crate) idempotency_entries: usize,
    /// `im.rate_entries`.
    pub(crate) rate_entries: usize,
    /// Of presence.
    pub(crate) presence: PresenceSizes,
}

impl Sizes {
    /// As the settings say, which must have the server's keys and the IM's among their specs.
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        let count = |key| u32::try_from(settings.count(key)).unwrap_or(u32::MAX);
        let entries = |key| usize::try_from(settings.count(key)).unwrap_or(usize::MAX);
        Self {
            sessions: count("table.max_sessions"),
            rooms: RoomSizes::from_settings(settings),
            idempotency_entries: entries("im.idempotency_entries"),
            rate_entries: entries("im.rate_entries"),
            presence: PresenceSizes {
                watches: count("table.watches"),
                last_seen: count("table.last_seen"),
            },
        }
    }
}

/// The areas of shared memory the IM asks for.
pub(crate) fn areas(sizes: &Sizes) -> Vec<AreaRequest> {
    let users = HintIndex::words_needed(windows(sizes.sessions))
        .expect("`windows` is at least 1 and far below what can be addressed");
    let mut areas = vec![
        AreaRequest { name: USERS_AREA, words: users },
        AreaRequest { name: MESSAGE_ID_AREA, words: 1 },
        AreaRequest { name: LAST_LOGIN_AREA, words: 1 },
        AreaRequest { name: AUTH_AREA, words: AUTH_COUNTS },
        AreaRequest { name: NODE_AREA, words: 1 },
        AreaRequest { name: SEED_AREA, words: 1 },
        AreaRequest {
            name: IDEMPOTENCY_AREA,
            words: Idempotency::words_needed(sizes.idempotency_entries),
        },
        api::AREA,
        AreaRequest { name: RATES_AREA, words: Rates::words_needed(sizes.rate_entries) },
    ];
    areas.extend(rooms::areas(&sizes.rooms));
    areas.extend(online::areas(sizes.sessions));
    areas.extend(PresenceTables::areas(sizes.presence));
    areas
}

/// Who is logged in on a session, and on what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// The user.
    pub(crate) user: String,
    /// The device's id.
    pub(crate) device: String,
    /// Its model, empty if not told.
    pub(crate) model: String,
    /// Its kind, empty if not told.
    pub(crate) kind: String,
    /// The number of the login: a later login has a larger one. Never 0.
    pub(crate) login: u64,
}

/// What is counted of logins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AuthCount {
    /// A login that succeeded.
    LoggedIn,
    /// A token that was refused, by `login` or `refresh`.
    Refused,
    /// A session that was closed because its token had expired.
    Expired,
}

const AUTH_COUNTS: usize = 3;

/// A session that is open and logged in.
#[derive(Clone, Debug)]
pub(crate) struct LiveSession {
    /// Its connection.
    pub(crate) conn: ConnId,
    /// Who it is.
    pub(crate) account: Account,
}

/// A session could not be logged in; it is as if it had not been tried.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnterError {
    /// The user's window of the index has no free cell.
    #[error("the user index has no room for this user")]
    IndexFull,
    /// The row is gone, or there was no spare block to write it.
    #[error("the session's row was not written: {0}")]
    Write(#[from] WriteError),
}

/// Handles on what is shared. Sessions are always given by the caller, since only the process's own
/// handle on them may write.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    user: ColumnId,
    device: ColumnId,
    model: ColumnId,
    kind: ColumnId,
    login: CounterId,
    refused: CounterId,
    users: HintIndex,
    seed: u64,
    /// Where rows are copied out to, so that none is allocated for each call. Nobody reads in it what he
    /// has not put there himself.
    row: RefCell<Row>,
    last_message: &'static AtomicU64,
    last_login: &'static AtomicU64,
    auth: &'static [AtomicU64],
    /// Who has done how much lately.
    pub(crate) rates: Rates,
    /// Sends that had a key.
    pub(crate) idempotency: Idempotency,
    /// What all processes know of Redis.
    pub(crate) online: OnlineBoard,
    /// Counts of the API.
    pub(crate) api: ApiCounts,
    /// What presence keeps.
    pub(crate) presence: PresenceTables,
    /// This server among others.
    pub(crate) node: NodeId,
    /// Who is in which room.
    pub(crate) rooms: Rooms,
}

impl Tables {
    /// Finds everything by name. `node` and `seed` are taken over only where none stands yet, so that
    /// they stay the same for the life of the memory.
    ///
    /// # Panics
    /// When the memory was not made from [`columns`] and [`areas`].
    pub(crate) fn new(
        sessions: &Sessions,
        areas: &Areas,
        sizes: &Sizes,
        node: u64,
        seed: u64,
    ) -> Self {
        let asked = "the server makes what `columns` and `areas` ask for";
        let column = |name| sessions.column(name).expect(asked);
        let word = |name| areas.words(name).and_then(|words| words.first()).expect(asked);
        let users = areas.words(USERS_AREA).expect(asked);
        let seed = settle(word(SEED_AREA), seed);
        Self {
            user: column(USER),
            device: column(DEVICE),
            model: column(MODEL),
            kind: column(KIND),
            login: sessions.counter_column(LOGIN).expect(asked),
            refused: sessions.counter_column(REFUSED).expect(asked),
            users: HintIndex::new(windows(sessions.capacity()), users).expect(asked),
            seed,
            row: RefCell::new(sessions.empty_row()),
            last_message: word(MESSAGE_ID_AREA),
            last_login: word(LAST_LOGIN_AREA),
            auth: areas.words(AUTH_AREA).expect(asked),
            rates: Rates::new(
                sessions,
                sizes.rate_entries,
                areas.words(RATES_AREA).expect(asked),
                seed,
            )
            .expect(asked),
            idempotency: Idempotency::new(areas.words(IDEMPOTENCY_AREA).expect(asked)),
            online: OnlineBoard::new(areas),
            api: ApiCounts::new(areas),
            presence: PresenceTables::new(sessions, areas, sizes.presence),
            node: NodeId(settle(word(NODE_AREA), node)),
            rooms: Rooms::new(sessions, areas, &sizes.rooms, seed),
        }
    }

    /// What makes a send with a key the same as another. `content`: to whom and what.
    pub(crate) fn send_key(&self, account: &Account, key: &str, content: &[&[u8]]) -> SendKey {
        SendKey::new(self.seed, &account.user, &account.device, key, content)
    }

    /// The next message id.
    pub(crate) fn next_message_id(&self, unix_ms: u64) -> MessageId {
        MessageId::next(self.last_message, unix_ms)
    }

    /// Logs a session in that is not. Only the worker that serves it may.
    ///
    /// # Errors
    /// See [`EnterError`].
    pub(crate) fn enter(
        &self,
        sessions: &Sessions,
        conn: ConnId,
        user: &str,
        device: &Device<'_>,
        unix_ms: u64,
    ) -> Result<(), EnterError> {
        self.note_names(sessions, conn, user, device)?;
        if let Err(full) = self.insert(sessions, conn, user) {
            self.clear_row(sessions, conn);
            return Err(full);
        }
        self.set_login(sessions, conn, message_id::draw(self.last_login, unix_ms));
        sessions.set_subject(conn, self.subject(user));
        // Two logins at one time, on two workers, each write their own word and then look for the
        // other's: without the fence both might look before the other's write is seen (invariant 4).
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Notes who wants to log in on a session that is not, without a login. Only the worker that serves it
    /// may.
    pub(crate) fn note_names(
        &self,
        sessions: &Sessions,
        conn: ConnId,
        user: &str,
        device: &Device<'_>,
    ) -> Result<(), EnterError> {
        let names = [
            (self.user, ValueRef::Str(user)),
            (self.device, ValueRef::Str(device.id.as_str())),
            (self.model, ValueRef::Str(&device.model)),
            (self.kind, ValueRef::Str(&device.kind)),
        ];
        Ok(sessions.write(conn, &names)?)
    }

    /// Who was noted; the number of the login is 0.
    pub(crate) fn noted_names(&self, sessions: &Sessions, conn: ConnId) -> Option<Account> {
        let account = self.account_of(&sessions.read(conn)?, 0);
        (!account.user.is_empty()).then_some(account)
    }

    /// Nobody is noted any more.
    pub(crate) fn forget_names(&self, sessions: &Sessions, conn: ConnId) {
        if !self.is_logged_in(sessions, conn) {
            self.clear_row(sessions, conn);
        }
    }

    /// Logs a session out, and gives who was logged in; does nothing to one that is not logged in. Also
    /// called when the row is about to be freed, whatever became of its worker.
    pub(crate) fn leave(&self, sessions: &Sessions, conn: ConnId) -> Option<Account> {
        let account = self.account(sessions, conn);
        self.set_login(sessions, conn, 0);
        sessions.set_subject(conn, 0);
        let row = sessions.read(conn)?;
        // Named also where a login was not done when its worker died.
        let user = row.str(self.user);
        if !user.is_empty() {
            self.users.remove(self.hash(user), conn.row().index);
            self.clear_row(sessions, conn);
        }
        account
    }

    /// Whether a session is logged in, in whichever phase its connection is.
    pub(crate) fn is_logged_in(&self, sessions: &Sessions, conn: ConnId) -> bool {
        self.login(sessions, conn) != 0
    }

    /// Who is logged in on a session; `None` if nobody is.
    pub(crate) fn account(&self, sessions: &Sessions, conn: ConnId) -> Option<Account> {
        let login = self.login(sessions, conn);
        let mut row = self.row.borrow_mut();
        (login != 0 && sessions.read_into(conn, &mut row)).then(|| self.account_of(&row, login))
    }

    /// The open sessions a user is logged in on, oldest login first.
    pub(crate) fn live_sessions(&self, sessions: &Sessions, user: &str) -> Vec<LiveSession> {
        let mut live: Vec<LiveSession> = Vec::new();
        self.users.find(self.hash(user), &mut |row_index| {
            let Some(conn) = sessions.established_at(row_index) else { return };
            // The account is read after the hint was found and names the user itself, so a hint that
            // is stale, or of a user with the same tag, is not believed.
            let account = self.account(sessions, conn).filter(|account| account.user == user);
            if let Some(account) = account
                && live.iter().all(|known| known.conn != conn)
            {
                live.push(LiveSession { conn, account });
            }
        });
        live.sort_unstable_by_key(|session| session.account.login);
        live
    }

    /// The user whom a session's row names, also in the middle of a login or of its end.
    pub(crate) fn named_user(&self, sessions: &Sessions, conn: ConnId) -> Option<String> {
        let row = sessions.read(conn)?;
        Some(row.str(self.user)).filter(|user| !user.is_empty()).map(str::to_owned)
    }

    /// Whether another session of a user than this one is in a room, as `is_in` says of each.
    pub(crate) fn has_other_in(
        &self,
        sessions: &Sessions,
        user: &str,
        conn: ConnId,
        is_in: impl Fn(ConnId) -> bool,
    ) -> bool {
        let hash = self.hash(user);
        let mut has_other = false;
        self.users.find(hash, &mut |row_index| {
            has_other = has_other
                || sessions.established_at(row_index).is_some_and(|other| {
                    other != conn && is_in(other) && self.rooms.is_user(sessions, other, hash)
                });
        });
        has_other
    }

    /// The connections of [`Tables::live_sessions`], in no order: for each message, so that nothing is
    /// copied of their rows.
    pub(crate) fn live_conns(&self, sessions: &Sessions, user: &str) -> Vec<ConnId> {
        let mut live: Vec<ConnId> = Vec::new();
        self.users.find(self.hash(user), &mut |row_index| {
            // As above: the row is looked at after the hint was found.
            let conn = sessions.established_at(row_index).filter(|conn| {
                self.is_logged_in(sessions, *conn) && sessions.str_is(*conn, self.user, user)
            });
            live.extend(conn.filter(|conn| !live.contains(conn)));
        });
        live
    }

    /// How many open sessions are logged in, by a scan.
    pub(crate) fn count_logged_in(&self, sessions: &Sessions) -> usize {
        sessions.established().filter(|conn| self.is_logged_in(sessions, *conn)).count()
    }

    /// Counts a token that a session brought in vain; gives how many in a row it brought.
    pub(crate) fn note_refused(&self, sessions: &Sessions, conn: ConnId) -> u64 {
        self.count(AuthCount::Refused);
        let word = sessions.counter(conn, self.refused);
        word.map_or(0, |word| word.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A session brought a right token.
    pub(crate) fn forget_refused(&self, sessions: &Sessions, conn: ConnId) {
        if let Some(word) = sessions.counter(conn, self.refused) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Counts one more.
    pub(crate) fn count(&self, what: AuthCount) {
        self.auth[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted since the start.
    pub(crate) fn counted(&self, what: AuthCount) -> u64 {
        self.auth[what as usize].load(Ordering::Relaxed)
    }

    fn insert(&self, sessions: &Sessions, conn: ConnId, user: &str) -> Result<(), EnterError> {
        let hash = self.hash(user);
        if self.users.insert(hash, conn.row().index).is_ok() {
            return Ok(());
        }
        let swept =
            self.users.sweep(hash, |tag, row_index| self.is_hinted(sessions, tag, row_index));
        match swept {
            0 => Err(EnterError::IndexFull),
            _ => self.users.insert(hash, conn.row().index).map_err(|_| EnterError::IndexFull),
        }
    }

    /// Whether a hint stands rightly in the index, though its session may be on its way in or out.
    fn is_hinted(&self, sessions: &Sessions, tag: u32, row_index: u32) -> bool {
        let row = sessions.at(row_index).and_then(|conn| sessions.read(conn));
        row.is_some_and(|row| {
            let user = row.str(self.user);
            !user.is_empty() && HintIndex::tag(self.hash(user)) == tag
        })
    }

    fn clear_row(&self, sessions: &Sessions, conn: ConnId) {
        let empty =
            [self.user, self.device, self.model, self.kind].map(|id| (id, ValueRef::Str("")));
        if let Err(error) = sessions.write(conn, &empty) {
            // The names stay behind in a row that is not logged in: nobody believes them.
            tracing::debug!(session = %conn, %error, "the names of a session were not cleared");
        }
    }

    fn account_of(&self, row: &Row, login: u64) -> Account {
        Account {
            user: row.str(self.user).to_owned(),
            device: row.str(self.device).to_owned(),
            model: row.str(self.model).to_owned(),
            kind: row.str(self.kind).to_owned(),
            login,
        }
    }

    fn login(&self, sessions: &Sessions, conn: ConnId) -> u64 {
        // Acquire: with the release below, whoever sees the login sees the row and the hint too.
        let word = sessions.counter(conn, self.login);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set_login(&self, sessions: &Sessions, conn: ConnId, login: u64) {
        if let Some(word) = sessions.counter(conn, self.login) {
            word.store(login, Ordering::Release);
        }
    }

    /// By which number who traces a user finds his sessions; not 0, which is nobody's.
    pub(crate) fn subject(&self, user: &str) -> u64 {
        self.hash(user).max(1)
    }

    /// What stands for a user in shared tables where his name would be too long.
    pub(crate) fn hash(&self, user: &str) -> u64 {
        hash_key(user.as_bytes(), self.seed)
    }
}

/// Windows of the user index for so many sessions.
fn windows(max_sessions: u32) -> u32 {
    let rows_per_window = WINDOW_CELLS / CELLS_PER_SESSION;
    max_sessions / u32::try_from(rows_per_window).unwrap_or(1) + 1
}

/// Puts `value` into a word where none stands yet, and gives what stands there.
fn settle(word: &AtomicU64, value: u64) -> u64 {
    match word.compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => value,
        Err(earlier) => earlier,
    }
}

/// Puts a time into a word in which another stands, for one of all who try at once.
fn settle_time(word: &AtomicU64, seen: u64, now: u64) -> bool {
    now != seen && word.compare_exchange(seen, now, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ImApp;
    use crate::config::{DevicePolicy, IM_KEYS};
    use dunlin_server::config::SERVER_KEYS;
    use dunlin_server::settings::Layers;
    use dunlin_server::simulation::{Deed, FakeWorker};
    use dunlin_server::{App, Closed, ClosedBy, Message};

    fn house(capacity: u32) -> (ImApp, FakeWorker) {
        let mut layers = Layers::default();
        layers.flag_words("table.max_sessions", &capacity.to_string(), "--set");
        let settings = Settings::resolve(&[SERVER_KEYS, IM_KEYS], layers).unwrap();
        let mut app = ImApp::new(&settings).unwrap();
        let worker = FakeWorker::start(&mut app, capacity);
        (app, worker)
    }

    fn login(app: &mut ImApp, worker: &mut FakeWorker, conn: ConnId, user: &str) -> String {
        let text = format!(
            r#"{{"id":1,"method":"login","params":{{"user":"{user}","device":{{"id":"d"}}}}}}"#
        );
        app.message(&mut worker.context(), conn, Message::Text(&text));
        match worker.take_deeds().pop() {
            Some(Deed::Push { payload, .. }) => String::from_utf8(payload).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_window_refuses_a_login_until_somebody_goes() {
        let (mut app, mut worker) = house(100);
        let tables = app.tables().clone();
        let in_first_window =
            |user: &String| (u128::from(tables.hash(user)) * u128::from(windows(100))) >> 64 == 0;
        let mut users = (0..).map(|n| format!("user{n}")).filter(in_first_window);
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut live = Vec::new();
        for user in users.by_ref().take(WINDOW_CELLS) {
            let conn = worker.open(&mut app, peer, "/ws");
            let answer = login(&mut app, &mut worker, conn, &user);
            assert!(answer.contains("result"), "{answer}");
            live.push(conn);
        }
        let late = users.next().unwrap();
        let conn = worker.open(&mut app, peer, "/ws");
        let answer = login(&mut app, &mut worker, conn, &late);
        assert!(answer.contains("-32007") && answer.contains("table_full"), "{answer}");
        assert!(tables.account(worker.table(), conn).is_none());

        let closed = Closed { code: 1000, reason: String::new(), by: ClosedBy::Client };
        worker.end(&mut app, live[7], &closed);
        let answer = login(&mut app, &mut worker, conn, &late);
        assert!(answer.contains("result"), "{answer}");
        assert_eq!(tables.live_sessions(worker.table(), &late)[0].conn, conn);
    }

    /// As where a login on another worker drew its number later and was done sooner: nobody but the
    /// one that was overtaken can see both.
    #[test]
    fn a_login_that_was_overtaken_is_answered_and_goes_itself() {
        let (mut app, mut worker) = house(8);
        app.config.devices = DevicePolicy::One;
        let peer = "127.0.0.1:1".parse().unwrap();
        let [other, newer, older] = [(); 3].map(|()| worker.open(&mut app, peer, "/ws"));
        login(&mut app, &mut worker, other, "bob");
        login(&mut app, &mut worker, newer, "ann");
        app.tables().last_login.store(0, Ordering::Relaxed);
        let text = r#"{"id":1,"method":"login","params":{"user":"ann","device":{"id":"e"}}}"#;
        app.message(&mut worker.context(), older, Message::Text(text));
        let deeds = worker.take_deeds();
        assert_eq!(deeds.len(), 3, "{deeds:?}");
        assert!(matches!(&deeds[0], Deed::Push { conn, payload, .. }
            if *conn == older && payload.windows(8).any(|word| word == b"\"result\"")));
        assert!(matches!(deeds[2], Deed::Disconnect { conn, code: 4510, .. } if conn == older));
        let live = app.tables().live_sessions(worker.table(), "ann");
        assert_eq!(live.iter().map(|session| session.conn).collect::<Vec<_>>(), [newer]);
    }

    #[test]
    fn stale_hints_are_swept_where_room_is_needed() {
        let (mut app, mut worker) = house(8);
        let tables = app.tables().clone();
        for row_index in 0..64 {
            tables.users.insert(u64::from(row_index) << 8, row_index).unwrap();
        }
        let conn = worker.open(&mut app, "127.0.0.1:1".parse().unwrap(), "/ws");
        let answer = login(&mut app, &mut worker, conn, "ann");
        assert!(answer.contains("result"), "{answer}");
        assert_eq!(tables.live_sessions(worker.table(), "ann").len(), 1);
        assert_eq!(tables.count_logged_in(worker.table()), 1);
    }

    #[test]
    fn node_and_seed_stay_for_the_life_of_the_memory() {
        let (mut app, worker) = house(8);
        let (node, hash) = (app.tables().node, app.tables().hash("ann"));
        worker.in_master(|master| {
            let again = Tables::new(master.sessions, master.areas, &app.sizes, 1, 2);
            assert_eq!((again.node, again.hash("ann")), (node, hash));
            app.start(master);
        });
        assert_eq!(app.tables().node, node);
    }
}
