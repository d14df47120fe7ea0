//! Packet sockets (`SOCK_SEQPACKET` pairs): pipes and mailboxes.
//!
//! A packet is whole or not there; several may write to one end. Never sends an empty packet: it
//! would look like the end.

use super::descriptor::{borrow, release};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    recv, recvmsg, send, sendmsg, setsockopt, shutdown, socketpair, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::time::Duration;

/// Two non-blocking ends of a packet socket whose buffers hold about `buffer_bytes`.
pub(crate) fn pair(buffer_bytes: usize) -> io::Result<(RawFd, RawFd)> {
    let (a, b) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )?;
    for end in [&a, &b] {
        // The kernel clamps it to net.core.wmem_max; what it gave is asked for by `send_buffer`.
        setsockopt(end, sockopt::SndBuf, &buffer_bytes)?;
    }
    Ok((release(a), release(b)))
}

/// Two non-blocking ends of a stream of bytes.
pub(crate) fn stream_pair() -> io::Result<(RawFd, RawFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (a, b) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    Ok((release(a), release(b)))
}

/// Waits until an end takes more; false: not in time.
pub(crate) fn wait_writable(end: RawFd, timeout: Duration) -> io::Result<bool> {
    wait(end, PollFlags::POLLOUT, timeout)
}

/// Waits until there is something to read, or an end; false: not in time.
pub(crate) fn wait_readable(end: RawFd, timeout: Duration) -> io::Result<bool> {
    wait(end, PollFlags::POLLIN, timeout)
}

fn wait(end: RawFd, what: PollFlags, timeout: Duration) -> io::Result<bool> {
    let mut watched = [PollFd::new(borrow(end), what)];
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(&mut watched, timeout) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The size of an end's send buffer as the kernel set it.
pub(crate) fn send_buffer(end: RawFd) -> io::Result<usize> {
    Ok(nix::sys::socket::getsockopt(&borrow(end), sockopt::SndBuf)?)
}

/// Says that nothing more will be sent from this end; what comes is still received.
pub(crate) fn end_output(end: RawFd) -> io::Result<()> {
    shutdown(end, Shutdown::Write)?;
    Ok(())
}

/// Reads a packet or a piece of a stream that is there, also where somebody has made the end a
/// blocking one.
pub(crate) fn read_now(end: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(end, buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// Sends a packet. `WouldBlock`: the other side's queue is full.
pub(crate) fn send_packet(end: RawFd, packet: &[u8]) -> io::Result<()> {
    debug_assert!(!packet.is_empty(), "an empty packet would look like the end");
    send(end, packet, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Whether a packet was refused for its length.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Sends a packet with a descriptor.
pub(crate) fn send_packet_with(end: RawFd, packet: &[u8], descriptor: RawFd) -> io::Result<()> {
    let descriptors = [descriptor];
    let control = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(end, &[IoSlice::new(packet)], &control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// What a receive gave.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet of so many bytes.
    Packet(usize),
    /// A packet longer than the buffer: it is cut.
    Cut,
    /// Nobody holds the other end any more.
    End,
    /// Nothing there now.
    Nothing,
}

/// Receives a packet.
pub(crate) fn receive(end: RawFd, into: &mut [u8]) -> io::Result<Received> {
    // MSG_TRUNC as a flag makes the kernel tell the packet's true length.
    outcome(recv(end, into, MsgFlags::MSG_TRUNC), into.len())
}

/// Looks at the next packet and leaves it there.
pub(crate) fn peek(end: RawFd, into: &mut [u8]) -> io::Result<Received> {
    outcome(recv(end, into, MsgFlags::MSG_TRUNC | MsgFlags::MSG_PEEK), into.len())
}

/// Takes the next packet away unseen, with the descriptor it carries, if it carries one.
pub(crate) fn take(end: RawFd) -> io::Result<Option<RawFd>> {
    let mut byte = [0_u8; 1];
    let mut slices = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message = recvmsg::<()>(end, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            return Ok(descriptors.first().copied());
        }
    }
    Ok(None)
}

/// Bytes waiting at an end, as the kernel accounts the next packets' data.
pub(crate) fn waiting_bytes(end: RawFd) -> u64 {
    count_bytes(end, libc::FIONREAD)
}

/// Whether a packet sent now would be taken: the kernel takes one as long as its buffer is not full. (To
/// `poll` such a socket is writable only below a quarter of it.)
pub(crate) fn has_room(end: RawFd) -> bool {
    let buffer = send_buffer(end).ok().and_then(|bytes| u64::try_from(bytes).ok());
    buffer.is_none_or(|buffer| count_bytes(end, libc::TIOCOUTQ) < buffer)
}

fn count_bytes(end: RawFd, which: libc::Ioctl) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD and TIOCOUTQ, the only requests asked for here, write one `c_int` through the
    // pointer, which points at a live local one.
    let result = unsafe { libc::ioctl(end, which, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

fn outcome(result: nix::Result<usize>, room: usize) -> io::Result<Received> {
    match result {
        Ok(0) => Ok(Received::End),
        Ok(length) if length > room => Ok(Received::Cut),
        Ok(length) => Ok(Received::Packet(length)),
        Err(Errno::EAGAIN) => Ok(Received::Nothing),
        Err(Errno::EINTR) => Ok(Received::Nothing),
        Err(Errno::ECONNRESET) => Ok(Received::End),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor;

    #[test]
    fn packets_stay_whole_and_a_peek_leaves_them() {
        let (a, b) = pair(1 << 16).expect("pair");
        send_packet(a, b"one").expect("send");
        send_packet(a, b"second").expect("send");
        let mut room = [0; 16];
        assert!(matches!(peek(b, &mut room).expect("peek"), Received::Packet(3)));
        assert!(take(b).expect("take").is_none());
        assert!(matches!(receive(b, &mut room[..4]).expect("receive"), Received::Cut));
        assert!(matches!(receive(b, &mut room).expect("receive"), Received::Nothing));
        descriptor::close(a);
        assert!(matches!(receive(b, &mut room).expect("receive"), Received::End));
        descriptor::close(b);
    }

    #[test]
    fn a_descriptor_travels_with_a_packet() {
        let (a, b) = pair(1 << 16).expect("pair");
        let memfd = descriptor::memfd_with(b"large").expect("memfd");
        send_packet_with(a, b"see the memfd", memfd).expect("send");
        descriptor::close(memfd);
        let got = take(b).expect("take").expect("a descriptor");
        assert_eq!(descriptor::read_memfd(got).expect("read"), b"large");
        for number in [got, a, b] {
            descriptor::close(number);
        }
    }
}
