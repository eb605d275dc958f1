//! The channel to a worker: packets of a tag byte, what belongs to it, and at most one descriptor.
//!
//! The worker's side, `aworker-rt/src/worker/supervised.rs`, has the table of messages.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::sys::socket;

/// Longest packet of a worker.
const PACKET_BYTES: usize = 64;

/// The tags.
pub mod tag {
    /// Serve this connection.
    pub const CONNECTION: u8 = b'C';
    /// Serve this connection and nothing else.
    pub const LAST: u8 = b'X';
    /// Accept on this listener, too.
    pub const LISTEN: u8 = b'L';
    /// No longer accept on a listener.
    pub const UNLISTEN: u8 = b'U';
    /// Drain.
    pub const DRAIN: u8 = b'D';
    /// Drain where nobody takes connections.
    pub const FINISH: u8 = b'F';
    /// Look at the listeners.
    pub const POKE: u8 = b'P';
    /// Give connections back.
    pub const SHED: u8 = b'S';
    /// The worker serves.
    pub const READY: u8 = b'r';
    /// A request came after a quiet time.
    pub const ACTIVE: u8 = b'a';
    /// No further connections.
    pub const FULL: u8 = b'f';
    /// Connections again.
    pub const VACANT: u8 = b'v';
    /// A connection is given back.
    pub const GIVEN_BACK: u8 = b'c';
    /// The worker drains by itself.
    pub const DRAINS: u8 = b'd';
}

/// What a worker says.
#[derive(Debug)]
pub enum Said {
    /// It serves.
    Ready,
    /// A request came after a quiet time, or the limit of concurrency was reached or left.
    Active,
    /// This connection is somebody else's now.
    GivenBack(OwnedFd),
    /// It drains by itself.
    Drains,
    /// Something that this version does not know.
    Unknown,
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Makes a channel: this end, and the worker's.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = socket::seqpacket_pair()?;
        Ok((Channel::of(ours)?, theirs))
    }

    /// The channel of a descriptor that was found again.
    pub fn of(socket: OwnedFd) -> io::Result<Channel> {
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Channel { socket })
    }

    /// Sends without waiting; `WouldBlock` when the worker does not read.
    pub fn send(&self, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        socket::send_packet(self.socket.as_fd(), packet, &fds)
    }

    /// Sends a tag and a number.
    pub fn send_number(&self, tag: u8, number: u32, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let [a, b, c, d] = number.to_le_bytes();
        self.send(&[tag, a, b, c, d], fd)
    }

    /// The next message, if there is one.
    pub fn receive(&self) -> io::Result<Option<Said>> {
        let mut buffer = [0; PACKET_BYTES];
        let mut packet = match socket::recv_packet(self.socket.as_fd(), &mut buffer) {
            Ok(packet) => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(match (&buffer[..packet.len], packet.fds.pop()) {
            ([], None) => None,
            ([tag::READY], None) => Some(Said::Ready),
            ([tag::ACTIVE | tag::FULL | tag::VACANT], None) => Some(Said::Active),
            ([tag::GIVEN_BACK], Some(connection)) => Some(Said::GivenBack(connection)),
            ([tag::DRAINS], None) => Some(Said::Drains),
            _ => Some(Said::Unknown),
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
