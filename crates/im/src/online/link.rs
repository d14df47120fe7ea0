//! The connection of a task process to Redis.
//!
//! Decides nothing but that a connection which failed is not used again: after a timeout an answer could be
//! taken for that of a later call. Invariant: no call waits longer than the timeout for a byte, and none is
//! made before Redis may be tried again.

use super::config::{RedisConfig, parse};
use crate::auth::config::Secret;
use crate::tables::OnlineBoard;
use dunlin_server::clock;
use redis::{Client, Connection, RedisError, RedisResult};
use std::fmt;
use std::time::Duration;

/// See the module.
#[derive(Default)]
pub(crate) struct Link {
    connection: Option<Connection>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("connected", &self.connection.is_some()).finish()
    }
}

/// Redis did not do it; the board says why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Away;

impl Link {
    /// Makes a call, over a new connection if there is none.
    pub(crate) fn call<R>(
        &mut self,
        config: &RedisConfig,
        password: Option<&Secret>,
        board: OnlineBoard,
        call: impl FnOnce(&mut Connection) -> RedisResult<R>,
    ) -> Result<R, Away> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None if clock::now() < board.retry_at() => return Err(Away),
            None => {
                let connection = connect(config, password);
                let connection = connection.map_err(|error| failed(config, board, &error))?;
                board.note_connected();
                connection
            }
        };
        match call(&mut connection) {
            Ok(result) => {
                board.note_success();
                self.connection = Some(connection);
                Ok(result)
            }
            Err(error) => Err(failed(config, board, &error)),
        }
    }
}

fn connect(config: &RedisConfig, password: Option<&Secret>) -> RedisResult<Connection> {
    let url = config.url.as_deref().unwrap_or_default();
    let info = parse(url).map_err(|_| {
        // Not where the config was checked.
        RedisError::from((redis::ErrorKind::InvalidClientConfig, "redis.url is no URL of a Redis"))
    })?;
    // Old servers do not know what a library would tell of itself.
    let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
    if let Some(Secret(password)) = password {
        settings = settings.set_password(String::from_utf8_lossy(password));
    }
    let timeout = Duration::from_millis(config.timeout_ms);
    let client = Client::open(info.set_redis_settings(settings))?;
    let mut connection = client.get_connection_with_timeout(timeout)?;
    connection.set_read_timeout(Some(timeout))?;
    connection.set_write_timeout(Some(timeout))?;
    // The kernel takes connections for a Redis that is frozen, and one that loads or wants a password takes
    // them, too: it is there when it answers.
    redis::cmd("PING").query::<()>(&mut connection)?;
    Ok(connection)
}

fn failed(config: &RedisConfig, board: OnlineBoard, error: &RedisError) -> Away {
    let was_connected = board.is_connected();
    let random = getrandom::u64().unwrap_or(0);
    let reason = sentence(error);
    board.note_failure(clock::now(), clock::unix_ms(), config.lease_ms, random, &reason);
    if was_connected {
        tracing::warn!(%reason, "Redis is away: users are looked for on this node alone");
    } else {
        tracing::debug!(%reason, "Redis is still away");
    }
    Away
}

/// One line, whatever the server said.
fn sentence(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer within redis.timeout".into();
    }
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
