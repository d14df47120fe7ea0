//! What settings must be together, beyond the bounds of each.

use super::{ConfigError, LISTEN_MAX, POOL_MESSAGES, TOTAL_OUTPUTS};
use crate::http::TrustedProxies;
use crate::settings::{Origin, Settings};
use std::net::SocketAddr;

/// The addresses to listen on, none twice.
pub(super) fn listen(settings: &Settings) -> Result<Vec<SocketAddr>, ConfigError> {
    if settings.list("server.listen").is_empty() {
        let origin = settings.origin("server.listen").to_string();
        return Err(ConfigError::NoListen { origin });
    }
    addresses(settings, "server.listen", &[])
}

/// The addresses for who runs the server, none of them for others, too.
pub(super) fn admin_listen(settings: &Settings) -> Result<Vec<SocketAddr>, ConfigError> {
    addresses(settings, "http.admin_listen", &listen(settings)?)
}

fn addresses(
    settings: &Settings,
    key: &'static str,
    others: &[SocketAddr],
) -> Result<Vec<SocketAddr>, ConfigError> {
    let origin = || settings.origin(key).to_string();
    let texts = settings.list(key);
    if texts.len() > LISTEN_MAX {
        return Err(ConfigError::TooManyListen { origin: origin(), key, got: texts.len() });
    }
    let mut addresses = Vec::with_capacity(texts.len());
    for text in texts {
        let bad = |_| ConfigError::BadListen { origin: origin(), key, text: text.clone() };
        let address: SocketAddr = text.parse().map_err(bad)?;
        let known = addresses.contains(&address) || others.contains(&address);
        if address.port() != 0 && known {
            return Err(ConfigError::ListenTwice { origin: origin(), key, address });
        }
        addresses.push(address);
    }
    Ok(addresses)
}

pub(super) fn trusted_proxies(settings: &Settings) -> Result<TrustedProxies, ConfigError> {
    TrustedProxies::parse(settings.list("http.trusted_proxies")).map_err(|text| {
        let origin = settings.origin("http.trusted_proxies").to_string();
        ConfigError::BadProxy { origin, text: text.to_owned() }
    })
}

/// A text that is not empty.
pub(super) fn named(settings: &Settings, key: &str) -> Option<String> {
    let text = settings.text(key);
    (!text.is_empty()).then(|| text.to_owned())
}

/// The group of the user that the server becomes.
pub(super) fn group(settings: &Settings) -> Result<Option<String>, ConfigError> {
    let group = named(settings, "server.group");
    if group.is_some() && named(settings, "server.user").is_none() {
        let origin = settings.origin("server.group").to_string();
        return Err(ConfigError::GroupAlone { origin });
    }
    Ok(group)
}

pub(super) fn check_pool(settings: &Settings) -> Result<(), ConfigError> {
    let pool = settings.size("table.receive_pool");
    let message = settings.size("websocket.max_message");
    if pool >= message.saturating_mul(POOL_MESSAGES) {
        return Ok(());
    }
    let origin = set_origin(settings, "table.receive_pool", "websocket.max_message");
    Err(ConfigError::PoolTooSmall { origin, pool, message })
}

pub(super) fn check_output(settings: &Settings) -> Result<(), ConfigError> {
    let total = settings.size("websocket.send_buffer_total");
    let one = settings.size("websocket.send_buffer");
    if total >= one.saturating_mul(TOTAL_OUTPUTS) {
        return Ok(());
    }
    let origin = set_origin(settings, "websocket.send_buffer_total", "websocket.send_buffer");
    Err(ConfigError::OutputTooSmall { origin, total, one })
}

/// Where the first key was set, else the second.
fn set_origin(settings: &Settings, first: &str, second: &str) -> String {
    let origin = match settings.origin(first) {
        Origin::Default => settings.origin(second),
        set => set,
    };
    origin.to_string()
}
