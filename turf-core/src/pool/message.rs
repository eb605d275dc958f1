//! A message between workers: its form in a packet. What it says only the receiving worker reads.
//!
//! ```text
//!  u8      kind: to (or from) a channel's name, a worker, the supervisor
//!  u8      form: how the worker is to read the body; the supervisor does not look at it
//!  u8, ..  length and bytes of a worker's id: the one it goes to, or, on its way to a worker, the one it comes from
//!  u16, .. length and bytes of the name of a BroadcastChannel
//!  ..      the body; in a sealed memfd that comes with the packet if it is longer than INLINE_BYTES
//! ```

use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::stat::fstat;

/// Longest body in the packet itself: two of them are less than the quarter of a socket's default buffer that
/// messages may use.
pub const INLINE_BYTES: usize = 16 * 1024;

/// Longest body.
pub const MESSAGE_BYTES: u64 = 16 << 20;

/// Longest name of a channel, in UTF-8.
pub const NAME_BYTES: usize = 4096;

/// Where a message goes, or where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The channels of a name, in all other workers.
    Broadcast,
    /// One worker.
    Worker,
    /// The supervisor; its body is JSON.
    Supervisor,
}

impl Kind {
    /// Its number in a packet.
    pub fn number(self) -> u8 {
        match self {
            Kind::Broadcast => 1,
            Kind::Worker => 2,
            Kind::Supervisor => 3,
        }
    }

    fn of(number: u8) -> Option<Kind> {
        [Kind::Broadcast, Kind::Worker, Kind::Supervisor].into_iter().find(|kind| kind.number() == number)
    }
}

/// A message in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Where it goes or comes from.
    pub kind: Kind,
    /// How its receiver reads the body.
    pub form: u8,
    /// A worker's id; empty where there is none.
    pub who: &'a [u8],
    /// A channel's name; empty where there is none.
    pub name: &'a [u8],
    /// The body; empty if it is in a file.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message of a packet, behind its tag. None for what is no message.
    pub fn decode(packet: &'a [u8]) -> Option<Message<'a>> {
        let [kind, form, who_length, rest @ ..] = packet else { return None };
        let (who, rest) = rest.split_at_checked(usize::from(*who_length))?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (name, body) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let fits = name.len() <= NAME_BYTES && body.len() <= INLINE_BYTES;
        let kind = Kind::of(*kind)?;
        fits.then_some(Message { kind, form: *form, who, name, body })
    }

    /// The packet behind its tag. None if a part is too long for it.
    pub fn encode(&self, tag: u8) -> Option<Vec<u8>> {
        if self.name.len() > NAME_BYTES || self.body.len() > INLINE_BYTES {
            return None;
        }
        let mut packet = Vec::with_capacity(6 + self.who.len() + self.name.len() + self.body.len());
        packet.extend_from_slice(&[tag, self.kind.number(), self.form, u8::try_from(self.who.len()).ok()?]);
        packet.extend_from_slice(self.who);
        packet.extend_from_slice(&u16::try_from(self.name.len()).ok()?.to_le_bytes());
        packet.extend_from_slice(self.name);
        packet.extend_from_slice(self.body);
        Some(packet)
    }
}

/// Whether a descriptor is what a body may be in: memory whose length and bytes nobody can change any more, so that a
/// reader neither waits nor reads anything else. Only memfds have seals (fcntl(2), `F_GET_SEALS`).
pub fn is_sealed(file: BorrowedFd<'_>) -> bool {
    let wanted =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    let seals = fcntl(file.as_fd(), FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    let length = fstat(file).map(|status| u64::try_from(status.st_size).unwrap_or(u64::MAX));
    seals.is_ok_and(|seals| seals.contains(wanted)) && length.is_ok_and(|length| length <= MESSAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let long = vec![7; INLINE_BYTES];
        for (who, name, body) in
            [(&b"p.1.2"[..], &b""[..], &b"x"[..]), (b"", b"news", b""), (b"", b"", &long)]
        {
            let message = Message { kind: Kind::Broadcast, form: 1, who, name, body };
            let packet = message.encode(b'm').unwrap();
            assert_eq!((packet[0], Message::decode(&packet[1..])), (b'm', Some(message)));
            assert!(packet.len() <= super::super::channel::PACKET_BYTES);
        }
    }

    #[test]
    fn no_packet_is_read_beyond_its_end_and_what_is_too_long_is_refused() {
        let message = Message { kind: Kind::Worker, form: 0, who: b"abc", name: b"de", body: b"fgh" };
        let packet = message.encode(b'm').unwrap();
        // Every beginning is a shorter body or nothing.
        for end in 1..packet.len() {
            let read = Message::decode(&packet[1..end]);
            assert!(read.is_none_or(|read| read.who == b"abc" && read.name == b"de" && read.body.len() < 3));
        }
        for byte in 0..=255 {
            let mut changed = packet.clone();
            for place in 1..7 {
                changed[place] = byte;
                let _ = Message::decode(&changed[1..]);
            }
        }
        let too_long = vec![0; INLINE_BYTES + 1];
        assert_eq!(Message { body: &too_long, ..message }.encode(b'm'), None);
        assert_eq!(Message { name: &too_long, ..message }.encode(b'm'), None);
        assert_eq!(Message { who: &too_long, ..message }.encode(b'm'), None);
        assert_eq!(Message::decode(&[9, 0, 0, 0, 0]), None, "an unknown kind");
    }

    #[test]
    fn only_sealed_memory_is_a_body() {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert!(!is_sealed(pipe.as_fd()));
        assert!(!is_sealed(tempfile::tempfile().unwrap().as_fd()));
        let memory = memfd_create("body", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert!(!is_sealed(memory.as_fd()));
        let seals =
            SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        assert!(is_sealed(memory.as_fd()));
        let longer = memfd_create("body", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&longer, (MESSAGE_BYTES + 1).cast_signed()).unwrap();
        fcntl(&longer, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        assert!(!is_sealed(longer.as_fd()));
    }
}
