//! Connections that still speak HTTP: requests, answers, and the upgrade that makes a WebSocket.
//!
//! Knows when a request is whole, who answers it and how long that may take; what a path means is the
//! application's. One request at a time is answered on a connection; what was pipelined waits.

use super::Worker;
use super::connection::{Answer, Connection, OpenStage, Pending, PendingUpgrade, Stage};
use super::receive::Reading;
use crate::app::{App, Handshake, Reply, Response, UpgradeRequest};
use crate::clock;
use crate::http::{
    Arrival, Headers, HttpLimits, ProxyHeader, Refusal, Request, awaits_continue, check_upgrade,
    encode_continue, encode_refusal, encode_response, encode_switching, parse_request,
    read_proxy_header, wants_upgrade,
};
use crate::ids::RequestId;
use crate::ledger::DescriptorKind;
use crate::outbox::Verdict;
use crate::scoreboard::{Cell, Errand};
use crate::sessions::{Phase, Service};
use std::mem;
use std::net::SocketAddr;

/// As much of a target as says whose it is.
const TARGET_SHOWN: usize = 256;
/// Most bytes of one HTTP read; a head is at most 8 KiB.
const READ_BYTES: usize = 16 << 10;

impl<A: App> Worker<'_, A> {
    fn http_limits(&self) -> HttpLimits {
        HttpLimits { max_body_bytes: self.core.config.http_max_body_bytes, ..HttpLimits::default() }
    }

    pub(super) fn read_http(&mut self, key: usize, buffer: &mut [u8]) -> Reading {
        let limits = self.http_limits();
        self.core.touch(key);
        let Some(http) = self.core.connections[key].http_mut() else { return Reading::Drained };
        if http.ending {
            // Only so that what was sent is not lost in a reset.
            return self.read_into(key, buffer).0;
        }
        if mem::take(&mut http.waits) {
            // Before anything is read: the end of the stream must not overtake them.
            self.take_requests(key);
            return Reading::More;
        }
        if http.input.len() > limits.max_head_bytes + limits.max_body_bytes {
            // A client that pipelines without end waits until its first request is answered.
            return Reading::Drained;
        }
        let (reading, length) = self.read_into(key, &mut buffer[..READ_BYTES]);
        let until = self.core.now + self.core.config.handshake_timeout_ms;
        if let Some(http) = self.core.connections[key].http_mut() {
            let begins = length > 0 && http.input.is_empty() && http.pending.is_none();
            if begins && http.answered {
                http.deadline = until;
            }
            http.input.extend_from_slice(&buffer[..length]);
            // Also where nothing came: a turn may have ended with whole requests left.
            self.take_requests(key);
        }
        reading
    }

    /// Serves the requests that are whole, up to one that waits for its answer, and no more than a turn
    /// takes.
    fn take_requests(&mut self, key: usize) {
        let limits = self.http_limits();
        let mut left = self.core.config.frames_per_turn;
        while let Some(http) = self.core.connections.get_mut(key).and_then(|c| c.http_mut()) {
            if http.ending || http.pending.is_some() {
                return;
            }
            if left == 0 && !http.input.is_empty() {
                http.waits = true;
                self.core.row.add(Cell::TurnsFull, 1);
                return self.core.make_ready(key);
            }
            left = left.saturating_sub(1);
            if http.begins && !self.take_proxy_header(key) {
                return;
            }
            let Some(http) = self.core.connections[key].http_mut() else { return };
            match parse_request(&http.input, &limits) {
                Ok(None) => {
                    // Nothing more comes behind the end of its half.
                    http.ending = http.gone;
                    if !http.told_to_go_on && awaits_continue(&http.input, &limits) {
                        http.told_to_go_on = true;
                        self.tell_to_go_on(key);
                    }
                    return;
                }
                Ok(Some((mut request, used))) => {
                    http.input.drain(..used);
                    http.told_to_go_on = false;
                    request.arrival = self.arrival(key, &request.headers);
                    self.core.row.add(Cell::Requests, 1);
                    self.serve_request(key, request);
                }
                Err(refusal) => {
                    let target = target_of(&http.input);
                    return self.refuse_request(key, &target, &refusal, false);
                }
            }
        }
        self.take_first_frames(key);
    }

    /// What a trusted proxy says of its client before the first request. False: nothing can be served yet,
    /// or ever.
    fn take_proxy_header(&mut self, key: usize) -> bool {
        let Some(http) = self.core.connections[key].http_mut() else { return false };
        let client = match read_proxy_header(&http.input) {
            ProxyHeader::Incomplete => {
                http.ending = http.gone;
                return false;
            }
            ProxyHeader::Malformed => {
                let proxy = self.core.connections[key].peer;
                crate::limited!(warn, %proxy, "a malformed header of the PROXY protocol");
                self.core.transport_lost(key);
                return false;
            }
            ProxyHeader::Absent => None,
            ProxyHeader::Present(used, client) => {
                http.input.drain(..used);
                client
            }
        };
        http.begins = false;
        client.is_none_or(|client| self.becomes(key, client, ""))
    }

    /// Counts a connection as the client's that a trusted proxy has named. False: it is refused.
    fn becomes(&mut self, key: usize, client: SocketAddr, target: &str) -> bool {
        let Err(full) = self.core.count_as(key, client) else { return true };
        crate::limited!(info, %client, why = full.text, "a proxy's connection is turned away");
        self.core.row.add(full.cell, 1);
        let refusal = Refusal::new(503, full.text).with("Retry-After", full.retry_after);
        self.refuse_request(key, target, &refusal, false);
        false
    }

    /// Whose a request is, and by which listener it came.
    fn arrival(&self, key: usize, headers: &Headers) -> Arrival {
        let Connection { peer, door, .. } = self.core.connections[key];
        Arrival { client: self.core.config.trusted_proxies.client(peer, headers), door }
    }

    /// The body is welcome: its sender has asked before sending it.
    fn tell_to_go_on(&mut self, key: usize) {
        self.core.touch(key);
        // Where it does not fit the client goes on by itself after a while.
        let _ = self.core.connections[key].outbox.push_with(encode_continue);
    }

    /// The request was an upgrade: what came behind it are frames already.
    fn take_first_frames(&mut self, key: usize) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        let mut held = mem::take(&mut connection.held);
        if !held.is_empty() {
            self.take_bytes(key, &mut held);
        }
    }

    fn serve_request(&mut self, key: usize, request: Request) {
        let id = RequestId(u64::from(self.core.slot.0) << 48 | self.core.row.next_serial());
        if wants_upgrade(&request) {
            return self.serve_upgrade(key, id, request);
        }
        self.note_pending(key, Pending { id, request: request.clone(), upgrade: None });
        match self
            .hook_for(Errand::Request, None, |app, context| app.request(context, id, &request))
        {
            Some(Reply::Now(response)) => self.answer(id, Answer::Response(response)),
            Some(Reply::Later) => {}
            None => self.answer(id, Answer::Response(internal_error::<A>(&request.target))),
        }
    }

    fn serve_upgrade(&mut self, key: usize, id: RequestId, request: Request) {
        let upgrade = match check_upgrade(&request) {
            Ok(upgrade) => PendingUpgrade::from(upgrade),
            Err(refusal) => {
                let head_only = request.method == "HEAD";
                return self.refuse_request(key, &request.target, &refusal, head_only);
            }
        };
        if !self.core.life.accepting() {
            return self.refuse_upgrade_while_stopping(key, &request.target);
        }
        let headers = &request.headers;
        if !self.origins.allows(headers.first("origin"), headers.first("host")) {
            let refusal = Refusal::new(403, "this origin is not in websocket.allowed_origins");
            return self.refuse_request(key, &request.target, &refusal, false);
        }
        let peer = request.arrival.client;
        let subprotocols = upgrade.subprotocols.clone();
        self.note_pending(key, Pending { id, request: request.clone(), upgrade: Some(upgrade) });
        let seen = UpgradeRequest { http: &request, peer, subprotocols: &subprotocols };
        match self
            .hook_for(Errand::Handshake, None, |app, context| app.handshake(context, id, &seen))
        {
            Some(Handshake::Later) => {}
            Some(answer) => self.answer(id, Answer::Handshake(answer)),
            None => self.answer(id, Answer::Response(internal_error::<A>(&request.target))),
        }
    }

    fn note_pending(&mut self, key: usize, pending: Pending) {
        let until = self.core.now + self.core.config.handshake_timeout_ms;
        self.core.pending.insert(pending.id, key);
        if let Some(http) = self.core.connections[key].http_mut() {
            http.deadline = until;
            http.pending = Some(pending);
        }
    }

    /// Answers that hooks gave by their context, in the order given.
    pub(super) fn give_answers(&mut self) {
        while let Some((id, answer)) = self.core.answers.pop_front() {
            let key = self.core.pending.get(&id).copied();
            self.answer(id, answer);
            if let Some(key) = key {
                // What was pipelined behind it has waited, read or not.
                self.take_requests(key);
                self.core.make_ready(key);
            }
        }
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        let Some(key) = self.core.pending.remove(&id) else { return };
        self.core.touch(key);
        let Some(http) = self.core.connections.get_mut(key).and_then(|c| c.http_mut()) else {
            return;
        };
        let Some(pending) = http.pending.take() else { return };
        match (answer, &pending.upgrade) {
            (Answer::Handshake(Handshake::Later), _) => {
                http.pending = Some(pending);
                self.core.pending.insert(id, key);
            }
            (Answer::Handshake(Handshake::Accept { subprotocol, headers }), Some(upgrade)) => {
                let upgrade = upgrade.clone();
                self.open(key, &pending.request, &upgrade, subprotocol.as_deref(), &headers);
            }
            (Answer::Handshake(Handshake::Accept { .. }), None) => {
                self.respond(key, &pending.request, &Response::text(500, "not an upgrade\n"));
            }
            (Answer::Handshake(Handshake::Refuse(response)) | Answer::Response(response), _) => {
                self.respond(key, &pending.request, &response);
            }
        }
    }

    /// Sends a response; the connection stays open for the next request where both sides may.
    fn respond(&mut self, key: usize, request: &Request, response: &Response) {
        let until = self.core.now + self.core.config.handshake_timeout_ms;
        // Who has ended its half may have asked more before: that is answered, too.
        let asks_on = self.core.connections[key]
            .http_mut()
            .is_some_and(|http| !http.gone || !http.input.is_empty());
        let keep = request.keep_alive && self.core.life.accepting() && asks_on;
        let head_only = request.method == "HEAD";
        let mut headers = response.headers.clone();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("date")) {
            headers.push(("Date".to_owned(), clock::http_date(clock::unix_ms())));
        }
        self.core.make_output_room(response.body.len());
        let connection = &mut self.core.connections[key];
        if connection.http_mut().is_some_and(|http| http.ending) {
            return; // it held most itself, and half an answer is out
        }
        let queued = connection.outbox.push_with(|tail| {
            encode_response(tail, response.status, &headers, &response.body, keep, head_only);
        });
        if let Some(http) = connection.http_mut() {
            http.deadline = until;
            http.answered = true;
            http.ending = !keep || queued == Verdict::Overflow;
        }
    }

    fn refuse_request(&mut self, key: usize, target: &str, refusal: &Refusal, head_only: bool) {
        let dated = refusal.clone().with("Date", clock::http_date(clock::unix_ms()));
        let body = A::refusal_body(target, refusal.status, refusal.reason);
        let connection = &mut self.core.connections[key];
        // It is the last thing said on this connection: where it does not fit, the close says it.
        let _ = connection.outbox.push_with(|tail| match &body {
            None => encode_refusal(tail, &dated, false, head_only),
            Some((media_type, body)) => {
                encode_response(
                    tail,
                    dated.status,
                    &headers_of(media_type, &dated),
                    body,
                    false,
                    head_only,
                );
            }
        });
        if let Some(http) = connection.http_mut() {
            http.ending = true;
        }
    }

    /// Who comes while the server stops had better ask another one, or this one when it is back.
    fn refuse_upgrade_while_stopping(&mut self, key: usize, target: &str) {
        let refusal = Refusal::new(503, "the server is stopping").with("Retry-After", "5");
        self.refuse_request(key, target, &refusal, false);
    }

    /// Makes a WebSocket of the connection: a row, the 101, the `open` hook.
    fn open(
        &mut self,
        key: usize,
        request: &Request,
        upgrade: &PendingUpgrade,
        subprotocol: Option<&str>,
        headers: &[(String, String)],
    ) {
        if !self.core.life.accepting() {
            return self.refuse_upgrade_while_stopping(key, &request.target);
        }
        let client = request.arrival.client;
        if client != self.core.connections[key].peer && !self.becomes(key, client, &request.target)
        {
            return;
        }
        let core = &mut self.core;
        let (descriptor, peer) = (core.connections[key].descriptor, core.connections[key].peer);
        let Some(conn) = core.shared.sessions.claim(core.slot, descriptor, peer) else {
            core.row.add(Cell::TableFull, 1);
            let refusal = Refusal::new(503, "the session table is full").with("Retry-After", "1");
            return self.refuse_request(key, &request.target, &refusal, false);
        };
        core.shared.ledger.note(descriptor, DescriptorKind::Session, core.holder);
        if let Some(chosen) = subprotocol
            && core.shared.sessions.set_subprotocol(conn, chosen).is_err()
        {
            core.shared.sessions.free(conn);
            core.shared.ledger.note(descriptor, DescriptorKind::Handshaking, core.holder);
            let refusal = Refusal::new(500, "the subprotocol's name is too long");
            return self.refuse_request(key, &request.target, &refusal, false);
        }
        let (agreement, extensions) = core.agree_on_compression(request).unzip();
        core.shared.sessions.set_agreement(conn, agreement);
        let connection = &mut core.connections[key];
        let opened = Stage::Open(OpenStage::new(conn, core.slot, agreement));
        let stage = mem::replace(&mut connection.stage, opened);
        if let Stage::Http(http) = stage {
            connection.held = http.input;
        }
        // A fresh outbox holds an answer: HTTP connections have nothing else queued.
        let _ = connection.outbox.push_with(|tail| {
            encode_switching(tail, &upgrade.key, subprotocol, extensions.as_deref(), headers)
        });
        core.bind_row(conn, key);
        core.note_place_free();
        core.sessions_open += 1;
        core.row.set(Cell::Sessions, core.sessions_open);
        core.shared.sessions.set_state(conn, Phase::Open, Service::Handling);
        core.shared.scoreboard.note_peak(core.shared.scoreboard.worker_sum(Cell::Sessions));
        if let Some(open) = core.connections[key].open_mut() {
            open.announced = true;
        }
        let seen = UpgradeRequest { http: request, peer, subprotocols: &upgrade.subprotocols };
        let called =
            self.hook_for(Errand::Open, Some(conn), |app, context| app.open(context, conn, &seen));
        if called.is_none() {
            self.close_after_panic(key);
        }
    }

    /// The time for a request or its answer is up.
    pub(super) fn http_too_late(&mut self, key: usize) {
        let Some(http) = self.core.connections[key].http_mut() else { return };
        let (waiting, begun) = (http.pending.take(), !http.input.is_empty());
        let target = target_of(&http.input);
        if http.ending {
            // It did not take its answer.
            return self.core.transport_lost(key);
        }
        http.ending = true;
        self.core.touch(key);
        if let Some(pending) = waiting {
            self.core.pending.remove(&pending.id);
            self.core.row.add(Cell::HttpTimeouts, 1);
            let refusal = Refusal::new(503, "no answer in time").with("Retry-After", "1");
            self.refuse_request(key, &pending.request.target, &refusal, false);
        } else if begun {
            self.core.row.add(Cell::HttpTimeouts, 1);
            let refusal = Refusal::new(408, "the request did not come in time");
            self.refuse_request(key, &target, &refusal, false);
        }
    }
}

/// A hook panicked.
fn internal_error<A: App>(target: &str) -> Response {
    match A::refusal_body(target, 500, "internal error") {
        Some((media_type, body)) => Response::with_type(500, media_type, body),
        None => Response::text(500, "internal error\n"),
    }
}

fn headers_of(media_type: &str, refusal: &Refusal) -> Vec<(String, String)> {
    let own = refusal.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    [("Content-Type".to_owned(), media_type.to_owned())].into_iter().chain(own).collect()
}

/// The target in the request line of a request that is not whole, or not right.
fn target_of(input: &[u8]) -> String {
    let line = input.split(|byte| *byte == b'\r').find(|line| line.trim_ascii() != b"");
    let mut words = line.unwrap_or_default().split(|byte| *byte == b' ');
    let target = words.nth(1).unwrap_or_default();
    String::from_utf8_lossy(&target[..target.len().min(TARGET_SHOWN)]).into_owned()
}
