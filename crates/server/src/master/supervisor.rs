//! What the service manager that started the server is told: the datagrams of sd_notify(3).
//!
//! Knows its socket from `NOTIFY_SOCKET` and no other; says nothing where there is none. Never blocks: what
//! does not fit its queue is left out, and a word of the log says so. One socket for each word: this happens
//! a few times a reload, and a descriptor that is kept would have to be handed on by an upgrade.

use crate::clock;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use tracing::warn;

/// The variable that names its socket.
pub(crate) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A change of the whole server's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// It serves; also after a reload, however that went.
    Ready,
    /// A reload begins.
    Reloading,
    /// A stop begins.
    Stopping,
    /// It serves as it did; only the line for people is another. During a reload `Ready` would end it.
    Unchanged,
}

impl Word {
    fn text(self, status: &str) -> String {
        let state = match self {
            Self::Unchanged => return format!("STATUS={status}\n"),
            Self::Ready => "READY=1".to_owned(),
            // The time tells this reload from an earlier one: `Type=notify-reload` insists on it.
            Self::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", clock::now_us()),
            Self::Stopping => "STOPPING=1".to_owned(),
        };
        format!("{state}\nSTATUS={status}\n")
    }
}

/// Tells the service manager, if there is one. `status` is for people.
pub(super) fn tell(word: Word, status: &str) {
    let Some(socket) = env::var_os(NOTIFY_SOCKET) else { return };
    // One line, whatever is in it: a second would be read as another word.
    let status = status.replace('\n', " ");
    if let Err(error) = send(socket, &word.text(&status)) {
        warn!(%error, ?word, "the service manager was not told");
    }
}

fn send(socket: OsString, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_hears_and_a_full_one_blocks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let text = Word::Reloading.text("reloading");
        send(path.clone().into(), &text).unwrap();
        let mut heard = [0; 256];
        let length = manager.recv(&mut heard).unwrap();
        let heard = std::str::from_utf8(&heard[..length]).unwrap();
        assert!(heard.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{heard}");
        assert!(heard.ends_with("\nSTATUS=reloading\n"), "{heard}");
        let refused = (0..10_000).find_map(|_| send(path.clone().into(), &text).err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        assert!(send("/nowhere/at/all".into(), &text).is_err());
        assert!(send("@dunlin-nobody-listens-here".into(), &text).is_err());
    }
}
