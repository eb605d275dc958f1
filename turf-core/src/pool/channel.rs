//! The channel to a worker: packets of a tag byte, what belongs to it, and at most two descriptors.
//!
//! The worker's side, `aworker-rt/src/worker/supervised.rs`, has the table of messages.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::socket;

/// Longest packet of either side: a message with its names, a little more than
/// [`INLINE_BYTES`](super::message::INLINE_BYTES).
pub const PACKET_BYTES: usize = 24 * 1024;

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
    /// Which worker this is: the first packet of all.
    pub const IDENTITY: u8 = b'I';
    /// A message, in either direction.
    pub const MESSAGE: u8 = b'm';
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
    /// A request is slow.
    pub const SLOW: u8 = b's';
    /// A request is to go to another worker.
    pub const HAND_OVER: u8 = b'h';
    /// A request comes from another worker.
    pub const TAKE_OVER: u8 = b'H';
    /// Whether it is taken.
    pub const TAKEN: u8 = b't';
    /// What became of a request that was to be handed over.
    pub const HANDED_OVER: u8 = b'A';
    /// A listener is to go to another worker.
    pub const HAND_LISTENER: u8 = b'l';
    /// What became of it.
    pub const LISTENER_HANDED: u8 = b'B';
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
    /// A message, as `super::message` reads it.
    Message {
        /// The packet behind its tag.
        packet: Vec<u8>,
        /// Its body, if that is long.
        file: Option<OwnedFd>,
    },
    /// A request is slow: what follows the tag, as `super::slow` reads it.
    Slow(Vec<u8>),
    /// A request is to go to another worker: what follows the tag, as `super::handover` reads it, and its connection.
    HandOver {
        /// The packet behind its tag.
        packet: Vec<u8>,
        /// The connection, and what was read of it, if that is long.
        fds: Vec<OwnedFd>,
    },
    /// A listener is to go to another worker, as `super::listeners` reads it.
    HandListener(Vec<u8>),
    /// Whether a request that was offered is taken, as `super::handover` reads it.
    Taken(Vec<u8>),
    /// Nothing any more: the worker has ended, or is about to.
    Closed,
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
        Ok((Channel::of(ours), theirs))
    }

    /// The channel of a descriptor that was found again.
    pub fn of(socket: OwnedFd) -> Channel {
        Channel { socket }
    }

    /// Sends without waiting; `WouldBlock` when the worker does not read.
    pub fn send(&self, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_all(packet, fd.as_slice())
    }

    /// As [`Channel::send`], with these descriptors.
    pub fn send_all(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send_packet_now(self.socket.as_fd(), packet, fds)
    }

    /// Whether there is room for a message: at most a quarter of the socket's buffer is in use (`unix_writable` in the
    /// kernel). The rest is left to what the worker must be told.
    pub fn has_room_for_messages(&self) -> bool {
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
            && polled[0].revents().is_some_and(|found| found.contains(PollFlags::POLLOUT))
    }

    /// Sends a tag and a number.
    pub fn send_number(&self, tag: u8, number: u32, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let [a, b, c, d] = number.to_le_bytes();
        self.send(&[tag, a, b, c, d], fd)
    }

    /// The next packet, if there is one. `buffer` is of [`PACKET_BYTES`].
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Said>> {
        let mut packet = match socket::recv_packet_now(self.socket.as_fd(), buffer) {
            Ok(packet) => packet,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if packet.truncated || packet.fds_truncated {
            return Ok(Some(Said::Unknown));
        }
        if let [tag::HAND_OVER, rest @ ..] = &buffer[..packet.len] {
            return Ok(Some(Said::HandOver { packet: rest.to_vec(), fds: packet.fds }));
        }
        if packet.fds.len() > 1 {
            return Ok(Some(Said::Unknown));
        }
        Ok(match (&buffer[..packet.len], packet.fds.pop()) {
            ([], None) => Some(Said::Closed),
            ([tag::READY], None) => Some(Said::Ready),
            ([tag::ACTIVE | tag::FULL | tag::VACANT], None) => Some(Said::Active),
            ([tag::GIVEN_BACK], Some(connection)) => Some(Said::GivenBack(connection)),
            ([tag::DRAINS], None) => Some(Said::Drains),
            ([tag::TAKEN, rest @ ..], None) => Some(Said::Taken(rest.to_vec())),
            ([tag::HAND_LISTENER, rest @ ..], None) => Some(Said::HandListener(rest.to_vec())),
            ([tag::SLOW, rest @ ..], None) => Some(Said::Slow(rest.to_vec())),
            ([tag::MESSAGE, rest @ ..], file) => Some(Said::Message { packet: rest.to_vec(), file }),
            _ => Some(Said::Unknown),
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_room_for_commands_and_nothing_waits() {
        let (channel, theirs) = Channel::pair().unwrap();
        let mut buffer = vec![0; PACKET_BYTES];
        // As a copy of the same socket in a worker could: the flags are everybody's.
        let copy = channel.as_fd().try_clone_to_owned().unwrap();
        nix::fcntl::fcntl(&copy, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        assert!(channel.receive(&mut buffer).unwrap().is_none());
        let mut sent = 0;
        while channel.has_room_for_messages() {
            channel.send(&[tag::MESSAGE; 16 * 1024], None).unwrap();
            sent += 1;
            assert!(sent < 1000, "room without end");
        }
        for _ in 0..16 {
            channel.send(&[tag::POKE], None).unwrap();
        }
        while channel.send(&[tag::POKE; PACKET_BYTES], None).is_ok() {}
        drop(theirs);
    }

    #[test]
    fn a_packet_that_is_too_long_is_unknown_and_the_next_one_is_read() {
        let (channel, theirs) = Channel::pair().unwrap();
        let mut buffer = vec![0; PACKET_BYTES];
        socket::send_packet(theirs.as_fd(), &[tag::READY; PACKET_BYTES + 1], &[]).unwrap();
        socket::send_packet(theirs.as_fd(), &[tag::READY], &[theirs.as_fd(), theirs.as_fd()]).unwrap();
        socket::send_packet(theirs.as_fd(), &[tag::READY], &[]).unwrap();
        assert!(matches!(channel.receive(&mut buffer).unwrap(), Some(Said::Unknown)));
        assert!(matches!(channel.receive(&mut buffer).unwrap(), Some(Said::Unknown)));
        assert!(matches!(channel.receive(&mut buffer).unwrap(), Some(Said::Ready)));
    }
}
