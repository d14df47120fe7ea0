//! Resting and adopting: what a worker leaves to its successor, and how a successor takes over.
//!
//! Knows what lies where: rows, pool and listener need nothing; unsent output, HTTP connections and
//! mail that waits go through a memfd. Invariants: 1. A resting worker keeps its own state as it was,
//! so that it can go on if the successor fails. 2. After the commit it touches nothing.

use super::Worker;
use super::connection::{Closing, Connection, HttpStage, OpenStage, Stage};
use super::core::Core;
use super::leftover::{
    Blob, Blobs, ClosingHead, Head, HttpHead, Leftover, LeftoverError, LeftoverWriter, OpenHead,
};
use super::routing::Owed;
use crate::app::{Adoption, App, Closed, ClosedBy};
use crate::ids::{ConnId, SlotId};
use crate::ipc::mail::{ParcelHead, recipients_of};
use crate::ipc::post::Waiting;
use crate::ledger::DescriptorKind;
use crate::scoreboard::{Cell, End, Errand};
use crate::sessions::{Phase, STRIKES_MAX, Service};
use crate::sys::{descriptor, socket};
use crate::websocket::{FrameKind, encode_frame};
use std::fs::File;
use std::mem;
use std::os::fd::RawFd;
use tracing::{error, warn};

/// How an adoption went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Adopted {
    pub(super) adopted: u32,
    pub(super) lost: u32,
}

impl Core {
    /// Puts what is left into a memfd; gives its number, or none if nothing is left.
    pub(super) fn lay_down(&mut self) -> Result<Option<RawFd>, LeftoverError> {
        let mut writer = None;
        for (slot, waiting) in self.post.spilled() {
            let head = Head::Mail { slot, has_parcel: waiting.parcel.is_some() };
            let parcel = waiting.parcel.as_deref().unwrap_or_default();
            put(&mut writer, &head, [&[&waiting.packet], &[parcel], &[]])?;
        }
        for (_, connection) in &mut self.connections {
            lay_down_connection(&mut writer, connection)?;
        }
        self.rest = self.end_laying_down(writer)?;
        Ok(self.rest)
    }

    /// The same for one connection, which is given to another worker.
    pub(super) fn lay_down_one(&mut self, key: usize) -> Result<Option<RawFd>, LeftoverError> {
        let mut writer = None;
        lay_down_connection(&mut writer, &mut self.connections[key])?;
        self.end_laying_down(writer)
    }

    fn end_laying_down(
        &self,
        writer: Option<LeftoverWriter<File>>,
    ) -> Result<Option<RawFd>, LeftoverError> {
        let Some(writer) = writer else { return Ok(None) };
        let memfd = descriptor::release(writer.end()?.into());
        self.shared.ledger.note(memfd, DescriptorKind::Rest, self.holder);
        Ok(Some(memfd))
    }

    /// Closes what a connection came here with.
    pub(super) fn forget_left(&self, conn: ConnId) {
        if let Some(memfd) = self.shared.sessions.left(conn) {
            self.shared.sessions.set_left(conn, None);
            self.shared.ledger.clear(memfd);
            descriptor::close(memfd);
        }
    }

    /// Mail that was in a dead sender's hands may have arrived or not: those it was for are closed.
    pub(super) fn tell_in_doubt(&mut self, in_doubt: &[(usize, Waiting)]) {
        for (slot, waiting) in in_doubt {
            let ParcelHead { recipients, all } = recipients_of(&waiting.packet);
            let mut lost: Vec<ConnId> = recipients.into_iter().map(ConnId::from_bits).collect();
            if all {
                let at_home = |conn: &ConnId| {
                    self.shared.sessions.home(*conn).is_some_and(|home| home.index() == *slot)
                };
                lost.extend(self.shared.sessions.established().filter(at_home));
            }
            warn!(slot, connections = lost.len(), "mail was in the hands of a worker that died");
            lost.into_iter().for_each(|conn| self.routing.owe(Owed::Lost(conn)));
        }
    }

    /// Frees a row and closes its descriptor, unseen: no hook, no word to the client. For what kills
    /// whoever as much as closes it.
    fn drop_unseen(&mut self, conn: ConnId) {
        let sessions = &self.shared.sessions;
        let Some(descriptor) = sessions.descriptor(conn) else { return };
        crate::limited!(error, %conn, "a connection is dropped unseen: closing it killed workers");
        self.shared.pool.free(sessions.message_chain(conn.row()));
        self.shared.pool.free(sessions.cut_chain(conn.row()));
        sessions.free(conn);
        self.shared.ledger.clear(descriptor);
        descriptor::close(descriptor);
        self.row.add(Cell::Closed, 1);
        self.row.note_end(End::Code(1006));
    }

    /// Throws away what was laid down: the successor failed, this worker goes on.
    pub(super) fn forget_rest(&mut self) {
        if let Some(memfd) = self.rest.take() {
            self.shared.ledger.clear(memfd);
            descriptor::close(memfd);
        }
        self.post.leave_journals(false);
    }
}

impl<A: App> Worker<'_, A> {
    /// Takes over what belongs to the slot: first what the predecessor left in the memfd, then every
    /// row of the slot.
    pub(super) fn adopt(&mut self, rest: Option<RawFd>, why: Adoption, empty: bool) -> Adopted {
        self.core.shared.peers.clear(self.core.slot.index());
        let left = rest.map_or_else(Leftover::default, Leftover::read);
        // Before any hook: what waited goes before what is sent now.
        let in_doubt = self.core.post.take_over(self.core.slot);
        self.restore_mail(&left);
        self.core.take_up_routes(why == Adoption::Crash);
        self.core.tell_in_doubt(&in_doubt);
        let adopted = self.adopt_rows(self.core.slot, &left, why, empty);
        for (head, blobs) in &left.http {
            self.adopt_http(&left, head, *blobs);
        }
        if let Some(memfd) = rest {
            self.core.shared.ledger.clear(memfd);
            descriptor::close(memfd);
        }
        self.core.row.add(Cell::Adopted, u64::from(adopted.adopted));
        adopted
    }

    /// Mail that waited and was not written down.
    pub(super) fn restore_mail(&mut self, left: &Leftover) {
        for (slot, waiting) in left.mail() {
            match waiting {
                Ok(waiting) => self.core.post.restore(slot, waiting),
                Err(error) => error!(%error, slot, "mail that waited is lost"),
            }
        }
    }

    /// Takes up every row of a slot that is fit for it, and closes the others.
    pub(super) fn adopt_rows(
        &mut self,
        slot: SlotId,
        left: &Leftover,
        why: Adoption,
        empty: bool,
    ) -> Adopted {
        let mut adopted = Adopted::default();
        let sessions: Vec<ConnId> = self.core.shared.sessions.owned_by(slot).collect();
        for conn in sessions {
            let own = self.core.shared.sessions.left(conn).map(Leftover::read);
            // A file that does not tell of it leaves nothing.
            let output_left = own.as_ref().unwrap_or(left).open.contains_key(&conn);
            if empty || !self.fit_for_adoption(conn, output_left) {
                self.lose(conn);
                adopted.lost += 1;
            } else {
                self.adopt_session(conn, own.as_ref().unwrap_or(left), why);
                adopted.adopted += 1;
            }
            self.core.forget_left(conn);
        }
        adopted
    }

    fn fit_for_adoption(&self, conn: ConnId, output_left: bool) -> bool {
        let sessions = &self.core.shared.sessions;
        // One that is closing needs no hook to be taken up.
        let strikes_max = match sessions.phase(conn) {
            Some(Phase::Open | Phase::Leaving) => STRIKES_MAX,
            Some(Phase::Closing) => 2 * STRIKES_MAX,
            _ => return false,
        };
        let clean = output_left || sessions.service(conn) == Some(Service::Clean);
        clean && sessions.strikes(conn) < strikes_max
    }

    /// Closes a connection that cannot be adopted.
    fn lose(&mut self, conn: ConnId) {
        let strikes = self.core.shared.sessions.strikes(conn);
        if strikes >= STRIKES_MAX {
            self.core.row.add(Cell::Poisonous, 1);
        }
        self.core.row.note_errand(Errand::CloseLost, Some(conn));
        if strikes < 2 * STRIKES_MAX {
            self.close_lost(conn);
        } else {
            self.core.drop_unseen(conn);
        }
        self.core.row.end_errand();
    }

    pub(super) fn adopt_session(&mut self, conn: ConnId, left: &Leftover, why: Adoption) {
        self.core.row.note_errand(Errand::Adopt, Some(conn));
        self.adopt_noted(conn, left, why);
        self.core.row.end_errand();
    }

    fn adopt_noted(&mut self, conn: ConnId, left: &Leftover, why: Adoption) {
        let Some(key) = self.take_up_session(conn) else { return };
        let closing = self.core.shared.sessions.phase(conn) == Some(Phase::Closing);
        let now = self.core.now;
        let sessions = &self.core.shared.sessions;
        let (heartbeat_ms, progress) = (sessions.heartbeat(conn), sessions.progress(conn));
        let began = sessions.message_began(conn);
        let has_cut = self.core.shared.pool.len(sessions.cut_chain(conn.row())) > 0;
        if let Some(open) = self.core.connections[key].open_mut() {
            open.heartbeat_ms = heartbeat_ms;
            open.progress = progress;
            open.began = began;
            open.has_cut = has_cut;
            open.announced = true;
            if closing {
                open.closing.get_or_insert(Closing {
                    // A predecessor that died has told the client; the code died with it.
                    closed: Closed { code: 1006, reason: String::new(), by: ClosedBy::Server },
                    answered: false,
                    deaf: false,
                    half_closed: false,
                    until: now + super::core::CLOSE_GRACE_MS,
                });
            }
        }
        if let Some((head, blobs)) = left.open.get(&conn)
            && let Err(error) = self.restore_rest(key, left, head, *blobs)
        {
            crate::limited!(error, %error, "a connection is lost: what was left of it cannot be read");
            self.core.transport_lost(key);
        }
        if !closing {
            self.hook_for(Errand::Adopt, Some(conn), |app, context| app.adopt(context, conn, why));
        }
    }

    fn restore_rest(
        &mut self,
        key: usize,
        left: &Leftover,
        head: &OpenHead,
        [output, input, _]: Blobs,
    ) -> Result<(), LeftoverError> {
        self.core.connections[key].half_out = head.half_out;
        self.core.connections[key].held = left.bytes(input)?;
        // Nobody tells of input that is read already.
        self.core.make_ready(key);
        self.core.touch(key);
        let connection = &mut self.core.connections[key];
        restore_output(connection, left, output)?;
        if let Some(open) = connection.open_mut() {
            open.closing = head.closing.as_ref().map(Closing::from).or_else(|| open.closing.take());
        }
        Ok(())
    }

    /// A connection whose worker died serving it: told so by 1012, or reset where half a frame is out.
    fn close_lost(&mut self, conn: ConnId) {
        let half_a_frame = self.core.shared.sessions.service(conn) == Some(Service::Writing);
        let cell = if half_a_frame { Cell::LostWriting } else { Cell::LostHandling };
        self.core.row.add(cell, 1);
        let Some(key) = self.take_up_session(conn) else { return };
        if let Some(open) = self.core.connections[key].open_mut() {
            open.announced = true;
            open.lost = true;
        }
        let reason = "worker lost".to_owned();
        self.core.close_by_engine(key, Closed { code: 1012, reason, by: ClosedBy::WorkerLost });
        if half_a_frame {
            socket::reset_on_close(self.core.connections[key].descriptor);
            self.core.transport_lost(key);
        }
    }

    /// Makes a connection of a row: registered, noted in the ledger as this worker's.
    fn take_up_session(&mut self, conn: ConnId) -> Option<usize> {
        let core = &mut self.core;
        let descriptor = core.shared.sessions.descriptor(conn)?;
        let peer = core.shared.sessions.peer(conn)?;
        let mut connection = core.connection(descriptor, peer);
        let agreement = core.shared.sessions.agreement(conn);
        let home = core.shared.sessions.home(conn)?;
        let mut open = OpenStage::new(conn, home, agreement);
        open.moved = core.shared.sessions.route(conn).is_some() || home != core.slot;
        open.arriving = core.awaits_last_word(conn);
        connection.stage = Stage::Open(open);
        connection.last_read = core.shared.sessions.last_active(conn).unwrap_or(core.now);
        core.shared.ledger.note(descriptor, DescriptorKind::Session, core.holder);
        let key = core.connections.insert(connection);
        core.bind_row(conn, key);
        core.sessions_open += 1;
        if let Err(error) = core.watch(key) {
            crate::limited!(error, %error, "an adopted connection cannot be watched");
            core.transport_lost(key);
        }
        Some(key)
    }

    pub(super) fn adopt_http(
        &mut self,
        left: &Leftover,
        head: &HttpHead,
        [output, input, body]: Blobs,
    ) {
        let core = &mut self.core;
        let mut connection = core.connection(head.descriptor, head.peer);
        let mut pending = head.pending.clone();
        let mut restore = || {
            restore_output(&mut connection, left, output)?;
            if let Some(pending) = &mut pending {
                pending.request.body = left.bytes(body)?;
            }
            left.bytes(input)
        };
        let (input, whole) = match restore() {
            Ok(input) => (input, true),
            Err(error) => {
                crate::limited!(error, %error, "a connection is lost: what was left of it cannot be read");
                (Vec::new(), false)
            }
        };
        let waits_for = pending.as_ref().map(|pending| pending.id);
        connection.stage = Stage::Http(Box::new(HttpStage {
            // They may be whole.
            waits: !input.is_empty(),
            input,
            deadline: head.deadline,
            pending,
            ending: head.ending,
            told_to_go_on: head.told_to_go_on,
            begins: head.begins,
            // Whoever has sent nothing yet has the time of a kept connection.
            answered: true,
            ..HttpStage::default()
        }));
        core.shared.ledger.note(head.descriptor, DescriptorKind::Handshaking, core.holder);
        let key = core.connections.insert(connection);
        core.http_open += 1;
        if let Some(id) = waits_for {
            core.pending.insert(id, key);
        }
        if !whole {
            core.transport_lost(key);
        }
        if let Err(error) = core.watch(key) {
            crate::limited!(error, %error, "an adopted connection cannot be watched");
            core.transport_lost(key);
        }
        core.touch(key);
        // Requests that came whole and waited for their turn are told of by no edge.
        core.make_ready(key);
    }
}

/// Writes what is left of a connection, if anything is.
pub(super) fn lay_down_connection(
    writer: &mut Option<LeftoverWriter<File>>,
    connection: &mut Connection,
) -> Result<(), LeftoverError> {
    if let Some(pong) = connection.open_mut().and_then(|open| open.pong.take()) {
        // There is room: messages leave some for control frames.
        let _ =
            connection.outbox.push_with(|tail| encode_frame(tail, FrameKind::Pong, true, &pong));
    }
    let output: Vec<&[u8]> = connection.outbox.pieces().collect();
    match &mut connection.stage {
        Stage::Http(http) => {
            let request = http.pending.as_mut().map(|pending| &mut pending.request);
            let body = request.map(|request| mem::take(&mut request.body)).unwrap_or_default();
            let head = Head::Http(Box::new(HttpHead {
                descriptor: connection.descriptor,
                peer: connection.peer,
                deadline: http.deadline,
                pending: http.pending.clone(),
                ending: http.ending,
                told_to_go_on: http.told_to_go_on,
                begins: http.begins,
            }));
            let laid_down = put(writer, &head, [&output, &[&http.input], &[&body]]);
            if let Some(pending) = &mut http.pending {
                // This worker may have to go on with it.
                pending.request.body = body;
            }
            laid_down
        }
        Stage::Open(open)
            if output.is_empty() && connection.held.is_empty() && open.closing.is_none() =>
        {
            Ok(())
        }
        Stage::Open(open) => {
            let head = Head::Open(OpenHead {
                conn: open.conn,
                half_out: connection.half_out,
                closing: open.closing.as_ref().map(ClosingHead::from),
            });
            put(writer, &head, [&output, &[&connection.held], &[]])
        }
    }
}

/// Where nothing is left there is no file.
fn put(
    writer: &mut Option<LeftoverWriter<File>>,
    head: &Head,
    blobs: [&[&[u8]]; 3],
) -> Result<(), LeftoverError> {
    match writer {
        Some(writer) => writer.put(head, blobs),
        None => {
            let file = descriptor::empty_memfd().map_err(LeftoverError::Write)?;
            writer.insert(LeftoverWriter::begin(file)?).put(head, blobs)
        }
    }
}

/// Reads unsent output straight to where it is sent from.
fn restore_output(
    connection: &mut Connection,
    left: &Leftover,
    output: Blob,
) -> Result<(), LeftoverError> {
    // What was queued fits.
    connection.make_room_for(output.len());
    let mut read = Ok(());
    let _ = connection.outbox.push_with(|tail| read = left.read_onto(output, tail));
    read
}

impl From<&Closing> for ClosingHead {
    fn from(closing: &Closing) -> Self {
        Self {
            code: closing.closed.code,
            reason: closing.closed.reason.clone(),
            by: closing.closed.by,
            answered: closing.answered,
            deaf: closing.deaf,
            until: closing.until,
        }
    }
}

impl From<&ClosingHead> for Closing {
    fn from(head: &ClosingHead) -> Self {
        Self {
            closed: Closed { code: head.code, reason: head.reason.clone(), by: head.by },
            answered: head.answered,
            deaf: head.deaf,
            half_closed: false,
            until: head.until,
        }
    }
}
