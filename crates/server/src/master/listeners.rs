//! Binding: one listener per worker slot and address, made once, never closed.

use crate::sys::socket;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

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
/// the listeners by slot.
pub(crate) fn bind_all(
    addresses: &[SocketAddr],
    slots: u16,
    backlog: i32,
) -> Result<(Vec<SocketAddr>, Vec<Vec<RawFd>>), ListenError> {
    let mut bound = Vec::new();
    let mut listeners = vec![Vec::new(); usize::from(slots)];
    for address in addresses {
        if address.port() != 0 {
            socket::probe(*address).map_err(|source| explain(*address, source))?;
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
