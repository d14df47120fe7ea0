//! Where a server is: a URL read, or the server of a run directory.

use crate::bench::client::target;
use crate::cli::ServerFlags;
use crate::failure::Failure;
use crate::settings_file::run_dir;
use std::fmt;

/// Where `dunlin serve` listens out of the box.
const USUAL: &str = "ws://127.0.0.1:9502/ws";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What a client asks for, with its scheme.
    pub(crate) url: String,
}

impl Place {
    /// The place that was named; else that of the server that runs here; else the usual one.
    pub(crate) fn find(url: Option<&str>, server: &ServerFlags) -> Result<Self, Failure> {
        match url {
            Some(url) => Self::read(url),
            None => match target::read_status(&run_dir(server)) {
                Ok(status) => {
                    let found = target::listens(&status)?;
                    Self::read(&format!("ws://{}{}", found.address, found.path))
                }
                // A directory that was named must have a server.
                Err(failure) if server.run_dir.is_some() => Err(failure),
                Err(_) => Self::read(USUAL),
            },
        }
    }

    /// Reads a URL; without a path it is `/ws`.
    pub(crate) fn read(url: &str) -> Result<Self, Failure> {
        let wrong = || Failure::bad_usage(format!("{url:?} is no URL such as {USUAL}"));
        let (tls, rest) = match (url.strip_prefix("wss://"), url.strip_prefix("ws://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let usual_port = if tls { 443 } else { 80 };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
            None if port.is_empty() => usual_port,
            None => return Err(wrong()),
        };
        if host.is_empty() || host.contains(['@', ' ']) || path.contains([' ', '#']) {
            return Err(wrong());
        }
        let path = match path {
            "" | "/" => "/ws".to_owned(),
            path if path.starts_with('?') => format!("/ws{path}"),
            path => path.to_owned(),
        };
        let scheme = if tls { "wss" } else { "ws" };
        let url = format!("{scheme}://{authority}{path}");
        Ok(Self { tls, host: host.to_owned(), port, url })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_their_defaults() {
        for (url, tls, host, port, whole) in [
            ("ws://127.0.0.1:9502", false, "127.0.0.1", 9502, "ws://127.0.0.1:9502/ws"),
            ("ws://[::1]:9502/", false, "::1", 9502, "ws://[::1]:9502/ws"),
            ("ws://[::1]", false, "::1", 80, "ws://[::1]/ws"),
            ("wss://chat.example", true, "chat.example", 443, "wss://chat.example/ws"),
            ("wss://chat.example/im?a=b", true, "chat.example", 443, "wss://chat.example/im?a=b"),
            ("ws://h?x", false, "h", 80, "ws://h/ws?x"),
        ] {
            let place = Place::read(url).unwrap();
            assert_eq!((place.tls, place.host.as_str(), place.port), (tls, host, port), "{url}");
            assert_eq!(place.to_string(), whole);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_by_name() {
        for url in [
            "",
            "ws://",
            "http://h",
            "h:9502",
            "ws://:1",
            "ws://h:0",
            "ws://h:x",
            "ws://h:99999",
            "ws://[::1",
            "ws://[::1]x",
            "ws://a@b",
            "ws://h/ x",
            "ws://h/#x",
        ] {
            let failure = Place::read(url).unwrap_err();
            assert!(failure.to_string().contains(&format!("{url:?}")), "{failure}");
        }
    }
}
