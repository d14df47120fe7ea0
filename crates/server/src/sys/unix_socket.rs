//! The local socket of the control verbs.

use super::descriptor::{borrow, release};
use super::sandbox;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt,
    listen as start, sendto, socket, sockopt,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Uid;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

/// A listening socket at a path, for its owner only.
pub(crate) fn listen(path: &Path) -> io::Result<RawFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // One thread: nobody else makes a file meanwhile.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = bind(listener.as_raw_fd(), &UnixAddr::new(path)?);
    umask(before);
    bound?;
    start(&listener, Backlog::new(64)?)?;
    Ok(release(listener))
}

/// Takes in somebody who connected. `None`: nobody waits.
pub(crate) fn accept(listener: RawFd) -> io::Result<Option<RawFd>> {
    match accept4(listener, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
        Ok(asker) => Ok(Some(asker)),
        Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A socket that sends datagrams to any name, and never waits for who reads them.
pub(crate) fn datagrams() -> io::Result<RawFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(release(socket(AddressFamily::Unix, SockType::Datagram, flags, None)?))
}

/// Sends a datagram to who listens at a path. `WouldBlock`: he does not read fast enough.
pub(crate) fn tell(from: RawFd, to: &Path, bytes: &[u8]) -> io::Result<()> {
    sendto(from, bytes, &UnixAddr::new(to)?, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

/// Who is on the other side: user and process.
pub(crate) fn peer(asker: RawFd) -> Option<(u32, i32)> {
    let peer = getsockopt(&borrow(asker), sockopt::PeerCredentials).ok()?;
    Some((peer.uid(), peer.pid()))
}

/// Whether the other side is this user, or root, and no process of ours that is locked in: a worker that
/// was taken over could otherwise have the master start any program.
pub(crate) fn may_command(asker: RawFd) -> bool {
    let Ok(peer) = getsockopt(&borrow(asker), sockopt::PeerCredentials) else { return false };
    let ours = Uid::effective();
    if peer.uid() != ours.as_raw() {
        return peer.uid() == 0;
    }
    // 0: somebody whom this namespace does not see, and who is nobody it has started.
    peer.pid() == 0 || !sandbox::is_locked_in(peer.pid())
}
