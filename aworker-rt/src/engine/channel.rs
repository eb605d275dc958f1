//! Packets with at most one descriptor over a `SOCK_SEQPACKET` socket, see unix(7) and cmsg(3).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// A received packet: its length, and the descriptor it carried.
#[derive(Debug)]
pub struct Packet {
    /// Bytes in the caller's buffer; 0 at the end of the connection.
    pub length: usize,
    /// The descriptor, close-on-exec.
    pub fd: Option<OwnedFd>,
}

/// Sends a packet of these parts without waiting.
///
/// # Errors
/// As sendmsg(2); `WouldBlock` when the other end's queue is full.
pub fn send(socket: BorrowedFd<'_>, parts: &[&[u8]], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let vector: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let number: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&number)];
    let control = if number.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &vector, control, flags, None)?;
    Ok(())
}

/// Receives a packet without waiting.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` when there is none; `InvalidData` for one that does not fit.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut vector = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut vector, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            // SAFETY: the kernel has just made these descriptors for this process.
            fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the packet is longer than allowed"));
    }
    Ok(Packet { length: received.bytes, fd: fds.pop() })
}
