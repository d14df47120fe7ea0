//! Binding: one listener per worker slot and address, made once, never closed.

use crate::clock::{self, Millis};
use crate::sys::socket;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

/// How soon an address that a dead server's processes may hold is tried again.
const PROBE_AGAIN: Duration = Duration::from_millis(5);

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// Somebody else listens there.
    #[error("{address} is in use{}", by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default())]
    InUse { address: SocketAddr, by: Option<String> },
    /// The address is not this machine's, or the port needs privileges.
    #[error("{address} cannot be listened on: {source}")]
    Bind { address: SocketAddr, source: io::Error },
}

/// Binds every address once per slot. Gives the addresses as bound (port 0 is chosen by the first) and
/// the listeners by slot. An address in use is waited for until `orphans_until`, where the processes of
/// a dead server may still hold it.
pub(crate) fn bind_all(
    addresses: &[SocketAddr],
    slots: u16,
    backlog: i32,
    orphans_until: Option<Millis>,
) -> Result<(Vec<SocketAddr>, Vec<Vec<RawFd>>), ListenError> {
    let mut bound = Vec::new();
    let mut listeners = vec![Vec::new(); usize::from(slots)];
    for address in addresses {
        if address.port() != 0 {
            probe(*address, orphans_until).map_err(|source| explain(*address, source))?;
        }
        let mut actual = *address;
        for slot in &mut listeners {
            let (listener, address) =
                socket::listen(actual, backlog).map_err(|source| explain(actual, source))?;
            actual = address;
            slot.push(listener);
        }
        bound.push(actual);
    }
    Ok((bound, listeners))
}

fn probe(address: SocketAddr, orphans_until: Option<Millis>) -> io::Result<()> {
    loop {
        match socket::probe(address) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && orphans_until.is_some_and(|until| clock::now() < until) =>
            {
                thread::sleep(PROBE_AGAIN);
            }
            outcome => return outcome,
        }
    }
}

fn explain(address: SocketAddr, source: io::Error) -> ListenError {
    if source.kind() == io::ErrorKind::AddrInUse {
        ListenError::InUse { address, by: who_listens(address.port()) }
    } else {
        ListenError::Bind { address, source }
    }
}

/// The process that listens on a port, where `/proc` lets us see it: `pid 12 (name)`.
fn who_listens(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table.lines().filter_map(|line| listening_inode(line, port)).collect::<Vec<_>>()
        })
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(
            |target| {
                let target = target.to_string_lossy().into_owned();
                inodes.iter().any(|inode| target == format!("socket:[{inode}]"))
            },
        );
        if holds {
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("pid {name} ({})", comm.trim()));
        }
    }
    None
}

/// The inode of a line of `/proc/net/tcp`, if it is a listener on the port.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = fields.get(1)?.rsplit_once(':')?.1;
    let listens = *fields.get(3)? == "0A";
    (listens && u16::from_str_radix(local, 16) == Ok(port))
        .then(|| fields.get(9).map(|inode| (*inode).to_owned()))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::mpsc;

    fn held() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn close(listeners: Vec<Vec<RawFd>>) {
        listeners.into_iter().flatten().for_each(crate::sys::descriptor::close);
    }

    #[test]
    fn a_strangers_address_is_refused_without_a_wait() {
        let (_stranger, address) = held();
        let begun = clock::now();
        // Over already: as where nothing was taken over.
        for orphans_until in [None, Some(begun)] {
            let refused = bind_all(&[address], 1, 8, orphans_until).unwrap_err();
            assert!(refused.to_string().starts_with(&format!("{address} is in use")), "{refused}");
        }
    }

    #[test]
    fn an_address_of_orphans_is_waited_for() {
        let (orphan, address) = held();
        let (tried, wait_for_try) = mpsc::channel::<()>();
        let end = thread::spawn(move || {
            wait_for_try.recv().unwrap();
            drop(orphan);
        });
        assert!(socket::probe(address).is_err(), "it is held");
        tried.send(()).unwrap();
        let (_, listeners) =
            bind_all(&[address], 2, 8, Some(clock::now() + 60_000)).expect("it is free in time");
        end.join().unwrap();
        assert_eq!(listeners.len(), 2);
        close(listeners);
    }

    #[test]
    fn one_that_stays_held_is_refused_when_the_time_is_over() {
        let (_stranger, address) = held();
        let until = clock::now() + 60;
        let refused = bind_all(&[address], 1, 8, Some(until)).unwrap_err();
        assert!(clock::now() >= until);
        assert!(matches!(refused, ListenError::InUse { .. }), "{refused}");
    }
}
