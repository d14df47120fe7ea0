//! Where the server is, and whether this process may have so many sockets.

use super::connection::Target;
use crate::failure::Failure;
use dunlin_server::control;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value as Json;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// How long the server may take to write its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the server is. Its status is asked for where it is needed: without an address, or where it
/// `must_run` here.
pub(crate) fn find_target(
    url: Option<&str>,
    run_dir: &Path,
    must_run: bool,
) -> Result<Target, Failure> {
    let wrong =
        |url: &str| Failure::bad_usage(format!("{url:?} is no URL such as ws://127.0.0.1:9502/ws"));
    let named = match url {
        Some(url) => {
            let rest = url.strip_prefix("ws://").ok_or_else(|| wrong(url))?;
            let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let mut found = address.to_socket_addrs().map_err(|_| wrong(url))?;
            let address = found.next().ok_or_else(|| wrong(url))?;
            let path = if path.is_empty() { "/ws" } else { path };
            Some(Target { address, path: path.to_owned() })
        }
        None => None,
    };
    match named {
        Some(target) if !must_run => Ok(target),
        named => {
            let status = read_status(run_dir)?;
            named.map_or_else(|| listens(&status), Ok)
        }
    }
}

/// The status of the server of this run directory.
///
/// # Errors
/// None is running, or it does not write.
pub(crate) fn read_status(run_dir: &Path) -> Result<String, Failure> {
    Ok(control::read_status(run_dir, STATUS_TIMEOUT)?)
}

/// The first address that a status names.
pub(crate) fn listens(status: &str) -> Result<Target, Failure> {
    let status: Json = serde_json::from_str(status)
        .map_err(|error| Failure::failed(format!("the status cannot be read: {error}")))?;
    let mut address = status["listen"][0].as_str().and_then(|text| text.parse().ok());
    if let Some(address) =
        address.as_mut().filter(|address: &&mut SocketAddr| address.ip().is_unspecified())
    {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    let address = address.ok_or_else(|| Failure::failed("the status names no address"))?;
    Ok(Target { address, path: "/ws".to_owned() })
}

/// Beside the sockets: standard streams, epoll, the status, and what the system's libraries open.
const OTHER_DESCRIPTORS: u64 = 32;

/// Lets this process have so many connections.
///
/// # Errors
/// The hard limit is lower.
pub(crate) fn raise_limit(connections: u64) -> Result<(), Failure> {
    let needed = connections + OTHER_DESCRIPTORS;
    let failed = |errno| Failure::failed(format!("the limit of descriptors: {errno}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if needed > hard {
        let line = format!(
            "{connections} connections need {needed} descriptors; `ulimit -Hn` allows {hard}"
        );
        return Err(Failure::bad_usage(line));
    }
    if needed > soft {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(failed)?;
    }
    Ok(())
}
