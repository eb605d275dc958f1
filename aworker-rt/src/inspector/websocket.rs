//! The server's half of a WebSocket that carries text, as an inspector's client uses it. RFC 6455.

use base64::Engine as _;
use sha1::{Digest, Sha1};

/// Longest message; heap snapshots go the other way.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What a handshake's key is answered with (RFC 6455, section 4.2.2).
const HANDSHAKE_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub(super) fn accept_key(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(HANDSHAKE_SUFFIX).finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// What a peer has sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Text(String),
    Ping(Vec<u8>),
    Close,
}

/// Puts frames together.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: Vec<u8>,
    /// Fragments of a message that has not ended.
    fragments: Option<Vec<u8>>,
}

/// The peer does not keep to the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation;

impl Decoder {
    /// Takes what was received.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next thing the peer says, if it has come whole.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Violation> {
        while let Some((is_final, opcode, payload)) = self.frame()? {
            match (opcode, &mut self.fragments) {
                (8, _) => return Ok(Some(Incoming::Close)),
                (9, _) => return Ok(Some(Incoming::Ping(payload))),
                (10, _) => continue,
                (0, Some(fragments)) => fragments.extend_from_slice(&payload),
                (1, fragments @ None) => *fragments = Some(payload),
                _ => return Err(Violation),
            }
            if self.fragments.as_ref().is_some_and(|fragments| fragments.len() > MAX_MESSAGE_BYTES) {
                return Err(Violation);
            }
            if is_final {
                let message = self.fragments.take().unwrap_or_default();
                return String::from_utf8(message)
                    .map(|text| Some(Incoming::Text(text)))
                    .map_err(|_| Violation);
            }
        }
        Ok(None)
    }

    /// One frame: whether it is a message's last, its opcode, its payload.
    fn frame(&mut self) -> Result<Option<(bool, u8, Vec<u8>)>, Violation> {
        let [first, second, rest @ ..] = &self.bytes[..] else {
            return Ok(None);
        };
        let (is_final, opcode) = (first & 0x80 != 0, first & 0x0f);
        // Extensions were not agreed on; a client's frames are masked.
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(Violation);
        }
        let (length, header) = match second & 0x7f {
            126 => match rest.first_chunk::<2>() {
                Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (usize::try_from(u64::from_be_bytes(*length)).map_err(|_| Violation)?, 10),
                None => return Ok(None),
            },
            length => (usize::from(length), 2),
        };
        let is_control = opcode >= 8;
        if length > MAX_MESSAGE_BYTES || (is_control && (length > 125 || !is_final)) {
            return Err(Violation);
        }
        let Some(frame) = self.bytes.get(header..header + 4 + length) else {
            return Ok(None);
        };
        let (mask, payload) = frame.split_at(4);
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        self.bytes.drain(..header + 4 + length);
        Ok(Some((is_final, opcode, payload)))
    }
}

/// A whole message as one frame; `opcode` 1 is text, 8 close, 10 pong.
pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(0, payload);
        bytes[0] = first;
        bytes[1] |= 0x80;
        let start = bytes.len() - payload.len();
        let mask = [1, 2, 3, 4];
        let coded: Vec<u8> =
            payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        bytes.truncate(start);
        bytes.extend_from_slice(&mask);
        bytes.extend_from_slice(&coded);
        bytes
    }

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn messages_are_put_together_however_they_are_cut() {
        let long = "x".repeat(70_000);
        let stream = [
            masked(0x81, b"one"),
            masked(0x01, b"t"),
            masked(0x89, b"ping"),
            masked(0x00, b"w"),
            masked(0x80, b"o"),
            masked(0x81, long.as_bytes()),
            masked(0x81, "ä".repeat(100).as_bytes()),
            masked(0x88, b""),
        ]
        .concat();
        for step in [1, 3, 1000, stream.len()] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                while let Some(incoming) = decoder.next().expect("keeps to the protocol") {
                    seen.push(incoming);
                }
            }
            let expected = [
                Incoming::Text("one".to_owned()),
                Incoming::Ping(b"ping".to_vec()),
                Incoming::Text("two".to_owned()),
                Incoming::Text(long.clone()),
                Incoming::Text("ä".repeat(100)),
                Incoming::Close,
            ];
            assert_eq!(seen, expected, "in steps of {step}");
        }
    }

    #[test]
    fn violations_are_refused() {
        for bytes in [
            frame(1, b"not masked"),
            masked(0xc1, b"reserved bit"),
            masked(0x80, b"continues nothing"),
            masked(0x82, b"binary"),
            masked(0x09, b"a ping in pieces"),
            masked(0x81, &[0xff]),
            vec![0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert_eq!(decoder.next(), Err(Violation), "{bytes:?}");
        }
    }
}
