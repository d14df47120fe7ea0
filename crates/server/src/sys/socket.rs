//! TCP: listeners of worker slots, accepted connections, their options.

use super::descriptor;
use nix::errno::Errno;
use nix::sys::socket::{SockFlag, SockaddrStorage, accept4, getpeername, getsockname};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::net::{Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{FromRawFd, IntoRawFd, RawFd};
use std::time::Duration;

/// Whether nobody listens on an address: bound once without SO_REUSEPORT, since a second server of
/// the same user could bind the same port with it without an error.
pub(crate) fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))
}

/// A listener of one worker slot, non-blocking, sharing its port with the other slots'.
pub(crate) fn listen(address: SocketAddr, backlog: i32) -> io::Result<(RawFd, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it: a reply is one write, and must not wait for an acknowledgement.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(backlog)?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket.into_raw_fd(), bound))
}

/// Takes a connection from a listener, non-blocking. `None`: none is waiting.
pub(crate) fn accept(listener: RawFd) -> io::Result<Option<RawFd>> {
    match accept4(listener, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
        Ok(connection) => Ok(Some(connection)),
        // EINVAL: it does not listen any more.
        Err(Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR | Errno::EINVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Ends listening: who comes is refused, who waits in the queue is reset. The number stays open, and the
/// address taken.
pub(crate) fn stop_listening(listener: RawFd) {
    let _ = lend(listener).shutdown(Shutdown::Both);
}

/// The address of the other side; `None` if it is gone already.
pub(crate) fn peer(connection: RawFd) -> Option<SocketAddr> {
    as_address(&getpeername(connection).ok()?)
}

fn as_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::new(v4.ip(), v4.port()).into());
    }
    address.as_sockaddr_in6().map(|v6| SocketAddrV6::new(v6.ip(), v6.port(), 0, 0).into())
}

/// The local port of a TCP socket; `None` if the number is none.
pub(crate) fn local_port(number: RawFd) -> Option<u16> {
    local(number).map(|address| address.port())
}

/// The local address of a TCP socket; `None` if the number is none.
pub(crate) fn local(number: RawFd) -> Option<SocketAddr> {
    as_address(&getsockname(number).ok()?)
}

/// Ends a connection whose output is not acknowledged for so long; 0 leaves it to the kernel.
pub(crate) fn set_user_timeout(connection: RawFd, timeout_ms: u64) {
    if timeout_ms > 0 {
        // A kernel that does not take it tries longer, as without it.
        let _ = lend(connection).set_tcp_user_timeout(Some(Duration::from_millis(timeout_ms)));
    }
}

/// Reads from a connection.
pub(crate) fn read(connection: RawFd, into: &mut [u8]) -> io::Result<usize> {
    descriptor::read(connection, into)
}

/// Writes slices to a connection in one call.
pub(crate) fn write(connection: RawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let socket = lend(connection);
    match slices {
        [one] => socket.send(one),
        several => socket.send_vectored(several),
    }
}

/// Ends our half of a connection: the other side reads an end after what was sent.
pub(crate) fn end_output(connection: RawFd) {
    let _ = lend(connection).shutdown(Shutdown::Write);
}

/// Makes the coming close a reset: half a frame is out and must not look like an end.
pub(crate) fn reset_on_close(connection: RawFd) {
    let _ = lend(connection).set_linger(Some(Duration::ZERO));
}

fn lend(connection: RawFd) -> ManuallyDrop<Socket> {
    assert!(connection >= 0, "{connection} is no descriptor");
    // SAFETY: `ManuallyDrop` keeps the `Socket` from closing the number, so nothing is owned twice; a
    // number that is not a socket only makes the calls fail. It is not negative (checked above), which
    // is all that `Socket` requires of it.
    ManuallyDrop::new(unsafe { Socket::from_raw_fd(connection) })
}
