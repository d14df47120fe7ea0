//! What one session, user or address may do in a time: settings, and what happens beyond them.
//!
//! The arithmetic is `rate`'s, where buckets lie is `tables`'. Invariants: 1. Who is refused is told so, with
//! when to try again, and nothing was done. 2. Who goes on regardless is closed with 1008: each refusal is
//! counted, [`FORGIVEN_PER_SECOND`] are forgotten again, and `im.max_refused` is the most.

use crate::app::ImApp;
use crate::close::CloseReason;
use crate::protocol::{CallError, Code};
use crate::rate::{Patience, Rate, TooSoon};
use crate::tables::{Bucket, Limit};
use dunlin_server::settings::Settings;
use dunlin_server::{ConnId, Context, limited};
use serde_json::{Value as Json, json};
use std::net::IpAddr;

/// Refusals of a session that are forgotten in a second: who keeps a little over its limit is slowed down
/// and no more.
const FORGIVEN_PER_SECOND: u64 = 10;

/// What is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimits {
    /// Messages of one session.
    pub requests: Rate,
    /// Their bytes.
    pub bytes: Rate,
    /// Sends and signals of one user.
    pub sends: Rate,
    /// Logins from one address.
    pub logins: Rate,
    /// Failed logins from one address.
    pub failures: Patience,
    /// Refusals of one session, lately, before it is closed; 0 is any number.
    pub max_refused: u64,
}

/// A limit was met.
#[derive(Debug)]
pub(crate) struct Refused {
    error: CallError,
    /// Whether it was one too many of its session.
    too_many: bool,
}

impl RateLimits {
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        let count = |key| settings.count(key);
        let rate = |rate, burst| Rate { per_second: count(rate), burst: count(burst) };
        Self {
            requests: rate("im.request_rate", "im.request_burst"),
            bytes: Rate {
                per_second: settings.size("im.byte_rate"),
                burst: settings.size("im.byte_burst"),
            },
            sends: rate("im.send_rate", "im.send_burst"),
            logins: rate("im.login_rate", "im.login_burst"),
            failures: Patience {
                free: count("im.login_failures"),
                first_ms: settings.duration_ms("im.login_delay"),
                most_ms: settings.duration_ms("im.login_delay_max"),
                forgotten_ms: settings.duration_ms("im.login_forget"),
            },
            max_refused: count("im.max_refused"),
        }
    }
}

impl Refused {
    /// The error to answer with; the connection is closed after it if this was one too many.
    pub(crate) fn answer(self, close: &mut Option<CloseReason>) -> CallError {
        if self.too_many {
            *close = Some(CloseReason::TooManyRequests);
        }
        self.error
    }
}

impl ImApp {
    /// Whether a session may say this much more now; if so, it has.
    pub(crate) fn admit_message(
        &self,
        context: &Context<'_, Self>,
        conn: ConnId,
        bytes: usize,
    ) -> Result<(), Refused> {
        let limits = &self.config.limits;
        let (rates, table, now) = (&self.tables().rates, context.table(), context.now());
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        for (bucket, rate, cost, limit) in [
            (Bucket::Requests, limits.requests, 1, Limit::Requests),
            (Bucket::Bytes, limits.bytes, bytes, Limit::Bytes),
        ] {
            rates
                .take_of_session(table, conn, bucket, rate, now, cost)
                .map_err(|soon| self.refuse(context, conn, limit, soon))?;
        }
        Ok(())
    }

    /// Whether a user may send now, by this session; if so, it counts as sent.
    pub(crate) fn admit_send(
        &self,
        context: &Context<'_, Self>,
        conn: ConnId,
        user: &str,
    ) -> Result<(), Refused> {
        let taken = self.tables().rates.take_of_user(user, self.config.limits.sends, context.now());
        taken.map_err(|soon| self.refuse(context, conn, Limit::Sends, soon))
    }

    /// Whether a login may be tried now from where this session comes; if so, it counts as tried.
    pub(crate) fn admit_login(
        &self,
        context: &Context<'_, Self>,
        conn: ConnId,
    ) -> Result<(), Refused> {
        let Some(ip) = peer_ip(context, conn) else { return Ok(()) };
        self.admit_token(context, conn)?;
        let taken = self.tables().rates.take_login(ip, self.config.limits.logins, context.now());
        taken.map_err(|soon| self.refuse(context, conn, Limit::Logins, soon))
    }

    /// Whether a token is looked at that comes now from where this session comes.
    pub(crate) fn admit_token(
        &self,
        context: &Context<'_, Self>,
        conn: ConnId,
    ) -> Result<(), Refused> {
        let Some(ip) = peer_ip(context, conn) else { return Ok(()) };
        let may = self.tables().rates.may_try(ip, self.config.limits.failures, context.now());
        may.map_err(|soon| self.refuse(context, conn, Limit::Failures, soon))
    }

    /// A token of this session was refused: the next from its address may have to wait.
    pub(crate) fn note_failed_login(&self, context: &Context<'_, Self>, conn: ConnId) {
        if let Some(ip) = peer_ip(context, conn) {
            self.tables().rates.note_failed(ip, self.config.limits.failures, context.now());
        }
    }

    /// What was refused, as the status shows it.
    pub(crate) fn limits_status(&self) -> Json {
        let rates = &self.tables().rates;
        let [users_evicted, addresses_evicted] = rates.evicted();
        json!({
            "requests": rates.counted(Limit::Requests),
            "bytes": rates.counted(Limit::Bytes),
            "sends": rates.counted(Limit::Sends),
            "logins": rates.counted(Limit::Logins),
            "failed_logins": rates.counted(Limit::Failures),
            "closed": rates.counted(Limit::Closed),
            "users_evicted": users_evicted,
            "addresses_evicted": addresses_evicted,
        })
    }

    fn refuse(
        &self,
        context: &Context<'_, Self>,
        conn: ConnId,
        limit: Limit,
        soon: TooSoon,
    ) -> Refused {
        let rates = &self.tables().rates;
        rates.count(limit);
        let most = self.config.limits.max_refused;
        let per_second = if most == 0 { 0 } else { FORGIVEN_PER_SECOND };
        let rate = Rate { per_second, burst: most };
        let (table, now) = (context.table(), context.now());
        let left = rates.take_of_session(table, conn, Bucket::Refusals, rate, now, 1);
        if left.is_err() {
            rates.count(Limit::Closed);
            let ip = peer_ip(context, conn);
            limited!(info, session = %conn, ?ip, ?limit, "closed: it goes on far over its limits");
        }
        let message = match limit {
            Limit::Requests => "too many requests by this session",
            Limit::Bytes => "too many bytes by this session",
            Limit::Sends => "too many messages by this user",
            Limit::Logins => "too many logins from this address",
            Limit::Failures | Limit::Closed => "too many failed logins from this address",
        };
        let error = CallError::new(Code::RateLimited, message).retry_after(soon.wait_ms);
        Refused { error, too_many: left.is_err() }
    }
}

fn peer_ip(context: &Context<'_, ImApp>, conn: ConnId) -> Option<IpAddr> {
    context.table().peer(conn).map(|peer| peer.ip())
}
