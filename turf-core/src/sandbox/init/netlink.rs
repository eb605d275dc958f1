//! The little of rtnetlink(7) that moving a network device needs: requests, their answers, attributes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};

/// How long the kernel may take to answer: it answers at once, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest packet of answers; the kernel fills at most 32 KiB.
const PACKET_BYTES: usize = 32 << 10;

/// Most packets of one answer: far more addresses than a host has.
const PACKETS: usize = 1024;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
/// Asks for all objects of a kind.
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// The object must be a new one.
pub(super) const NLM_F_CREATE_NEW: u16 = 0x400 | 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;

/// A connection to the kernel, in the network namespace in which it was made.
pub(super) struct Connection {
    socket: OwnedFd,
    sequence: u32,
}

/// One message of an answer.
pub(super) struct Message {
    /// `RTM_*`.
    pub(super) kind: u16,
    /// What follows the header.
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) fn open() -> io::Result<Connection> {
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        let patience = nix::sys::time::TimeVal::new(PATIENCE.as_secs() as i64, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
        Ok(Connection { socket, sequence: 0 })
    }

    /// Sends a request and collects its answer, up to the end of the list or the acknowledgement.
    pub(super) fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.sequence += 1;
        // An acknowledgement behind a list would be one message too many.
        let acknowledge = if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        let request = encode(kind, flags | NLM_F_REQUEST | acknowledge, self.sequence, body);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = Vec::new();
        let mut packet = vec![0; PACKET_BYTES];
        for _ in 0..PACKETS {
            let length = recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty())?;
            if decode(&packet[..length], self.sequence, &mut answer)? == More::No {
                return Ok(answer);
            }
        }
        Err(io::Error::other("the kernel's answer does not end"))
    }
}

fn encode(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + body.len()) as u32;
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&sequence.to_ne_bytes());
    message.extend_from_slice(&0_u32.to_ne_bytes());
    message.extend_from_slice(body);
    message
}

/// Whether more packets belong to an answer.
#[derive(Debug, PartialEq, Eq)]
enum More {
    Yes,
    No,
}

fn decode(mut packet: &[u8], sequence: u32, answer: &mut Vec<Message>) -> io::Result<More> {
    let malformed = || io::Error::from_raw_os_error(libc::EBADMSG);
    while !packet.is_empty() {
        let length = number(packet, 0).ok_or_else(malformed)? as usize;
        let kind = short(packet, 4).ok_or_else(malformed)?;
        let answers = number(packet, 8).ok_or_else(malformed)?;
        let body = packet.get(HEADER_BYTES..length).ok_or_else(malformed)?;
        packet = packet.get(padded(length)..).unwrap_or_default();
        if answers != sequence {
            continue;
        }
        match kind {
            NLMSG_DONE => return Ok(More::No),
            NLMSG_ERROR => {
                let error = number(body, 0).ok_or_else(malformed)?.cast_signed();
                let failed = || io::Error::from_raw_os_error(error.wrapping_neg());
                return if error == 0 { Ok(More::No) } else { Err(failed()) };
            }
            kind => answer.push(Message { kind, body: body.to_vec() }),
        }
    }
    Ok(More::Yes)
}

/// Appends an attribute.
pub(super) fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(padded(body.len()), 0);
}

/// The attributes of a message, from `at` on.
pub(super) fn attributes(body: &[u8], at: usize) -> Vec<(u16, &[u8])> {
    let mut rest = body.get(at..).unwrap_or_default();
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (short(rest, 0), short(rest, 2)) {
        let Some(value) = rest.get(4..usize::from(length)) else { break };
        found.push((kind, value));
        rest = rest.get(padded(usize::from(length))..).unwrap_or_default();
    }
    found
}

/// The number (u32) at an offset.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut body = vec![1, 2, 3, 4];
        put(&mut body, 3, b"eth0\0");
        put(&mut body, 28, &7_u32.to_ne_bytes());
        let mut packet = encode(16, 0, 5, &body);
        packet.extend(encode(16, 0, 4, b"old!"));
        packet.extend(encode(NLMSG_DONE, 0, 5, &[]));
        let mut answer = Vec::new();
        assert_eq!(decode(&packet, 5, &mut answer).unwrap(), More::No);
        assert_eq!((answer.len(), answer[0].kind), (1, 16));
        let found = attributes(&answer[0].body, 4);
        assert_eq!(found, [(3, &b"eth0\0"[..]), (28, &7_u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn errors_are_errors_and_nonsense_is_no_panic() {
        let error = encode(NLMSG_ERROR, 0, 1, &(-libc::EEXIST).to_ne_bytes());
        let failed = decode(&error, 1, &mut Vec::new()).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::EEXIST));
        let whole = encode(16, 0, 1, &[9; 40]);
        for length in 0..whole.len() {
            let _ = decode(&whole[..length], 1, &mut Vec::new());
            let _ = attributes(&whole[..length], 3);
        }
        assert!(decode(&[0; 16], 1, &mut Vec::new()).is_err());
    }
}
