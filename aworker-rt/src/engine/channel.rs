//! Packets with a descriptor or two over a `SOCK_SEQPACKET` socket, see unix(7) and cmsg(3), and memory that can be
//! sent as such a descriptor, see memfd_create(2).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recv, recvmsg, sendmsg};

/// Longest packet of either side.
pub const PACKET_BYTES: usize = 24 * 1024;

/// Most descriptors of a packet.
const MAX_FDS: usize = 2;

/// A received packet: its bytes, none at the end of the connection, and the descriptors it carried.
#[derive(Debug)]
pub struct Packet {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Sends a packet of these parts without waiting.
///
/// # Errors
/// As sendmsg(2); `WouldBlock` when the other end's queue is full.
pub fn send(socket: BorrowedFd<'_>, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let vector: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &vector, control, flags, None)?;
    Ok(())
}

/// Receives a packet without waiting. Room for it is made when its length is known: most are of a few bytes.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` when there is none; `InvalidData` for one that is longer than [`PACKET_BYTES`].
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Packet> {
    let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let length = recv(socket.as_raw_fd(), &mut [], look)?;
    let mut bytes = vec![0; length.min(PACKET_BYTES)];
    let mut vector = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
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
    let length = received.bytes;
    bytes.truncate(length);
    Ok(Packet { bytes, fds })
}

/// Whether there is room for more than what must be said: the kernel calls a Unix socket writable while at most a
/// quarter of its buffer is in use.
pub fn is_writable(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::POLLOUT)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
        && polled[0].revents().is_some_and(|found| found.contains(PollFlags::POLLOUT))
}

/// Memory with these bytes that nobody can change any more, to be sent.
///
/// # Errors
/// As memfd_create(2) and write(2).
pub fn sealed_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"message", flags)?);
    file.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// What [`sealed_memory`] holds, at most `limit` bytes.
///
/// # Errors
/// As pread(2); `InvalidData` if it is longer.
pub fn read_memory(memory: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::from(memory);
    let length = file.metadata()?.len();
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is longer than allowed"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
