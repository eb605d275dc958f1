//! WebSocket frames, pure: bytes in, messages out, and the reverse. RFC 6455, section 5; compressed messages: RFC 7692.

use super::super::limits::MAX_MESSAGE_BYTES;
use super::deflate::{deflate, inflate};

/// The bit of a frame's first byte that says that a message is compressed.
const RSV1: u8 = 0x40;

/// Longest payload of a control frame.
const MAX_CONTROL_BYTES: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end of the sender's messages.
    Close = 8,
    /// To be answered with the same payload; we send none.
    #[cfg(test)]
    Ping = 9,
    /// An answer to a ping.
    Pong = 10,
}

/// Which end of the connection we are: clients mask what they send, servers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Our frames are masked, the peer's must not be.
    Client,
    /// The peer's frames must be masked.
    Server,
}

/// Something that came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// To be answered.
    Ping(Vec<u8>),
    /// Of no interest.
    Pong,
    /// The peer's last frame, its code and reason if it gives them.
    Close(Option<(u16, String)>),
}

/// The peer breaks the protocol: the connection is closed with this code (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The code that the peer is told.
    pub code: u16,
    /// Why.
    pub reason: &'static str,
}

const fn protocol(reason: &'static str) -> Violation {
    Violation { code: 1002, reason }
}

const NOT_UTF8: Violation = Violation { code: 1007, reason: "a text message is not UTF-8" };
pub(super) const TOO_LONG: Violation = Violation { code: 1009, reason: "a message is longer than 64 MiB" };

/// Makes messages of what a peer sends.
#[derive(Debug)]
pub struct Parser {
    end: End,
    /// What has come and is not understood yet begins at `at`.
    input: Vec<u8>,
    at: usize,
    /// Messages may be compressed.
    deflates: bool,
    /// A message of several frames that has begun.
    message: Option<Message>,
}

/// A message as its frames come.
#[derive(Debug)]
struct Message {
    opcode: Opcode,
    is_compressed: bool,
    bytes: Vec<u8>,
}

/// The head of a frame.
struct Head {
    is_last: bool,
    is_compressed: bool,
    opcode: u8,
    length: usize,
    mask: Option<[u8; 4]>,
    head_bytes: usize,
}

impl Parser {
    /// For what comes to this end; `deflates`: permessage-deflate has been agreed on.
    pub fn new(end: End, deflates: bool) -> Parser {
        Parser { end, input: Vec::new(), at: 0, deflates, message: None }
    }

    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// The next message or control frame; `None` if it is not complete.
    ///
    /// # Errors
    /// The peer breaks the protocol; nothing more can be understood.
    pub fn next(&mut self) -> Result<Option<Incoming>, Violation> {
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            let start = self.at + head.head_bytes;
            let Some(payload) = self.input.get(start..start + head.length) else { return Ok(None) };
            let mut payload = payload.to_vec();
            if let Some(mask) = head.mask {
                apply_mask(&mut payload, mask);
            }
            self.at = start + head.length;
            if self.at == self.input.len() {
                // An idle connection keeps no buffer.
                self.input = Vec::new();
                self.at = 0;
            }
            if let Some(incoming) = self.take_frame(&head, payload)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// The head of the next frame, checked before its payload has come.
    fn head(&self) -> Result<Option<Head>, Violation> {
        let bytes = &self.input[self.at..];
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (is_last, is_compressed, opcode) = (first & 0x80 != 0, first & RSV1 != 0, first & 0x0f);
        let may_be_compressed = self.deflates && matches!(opcode, 1 | 2);
        if first & 0x30 != 0 || (is_compressed && !may_be_compressed) {
            return Err(protocol("a reserved bit is set"));
        }
        let is_control = opcode & 8 != 0;
        if !matches!(opcode, 0..=2 | 8..=10) {
            return Err(protocol("an opcode is unknown"));
        }
        match (self.end, second & 0x80 != 0) {
            (End::Client, true) => return Err(protocol("a frame of the server is masked")),
            (End::Server, false) => return Err(protocol("a frame of the client is not masked")),
            (End::Client, false) | (End::Server, true) => {}
        }
        let (length, length_bytes) = match second & 0x7f {
            126 => {
                let Some(bytes) = rest.first_chunk::<2>() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*bytes)), 2)
            }
            127 => {
                let Some(bytes) = rest.first_chunk::<8>() else { return Ok(None) };
                (u64::from_be_bytes(*bytes), 8)
            }
            short => (u64::from(short), 0),
        };
        let is_minimal = match length_bytes {
            0 => true,
            2 => length > 125,
            _ => length > 0xffff && length < 1 << 63,
        };
        if !is_minimal {
            return Err(protocol("a length is not written in the shortest way"));
        }
        if is_control && (!is_last || length > MAX_CONTROL_BYTES as u64) {
            return Err(protocol("a control frame is too long or fragmented"));
        }
        let before = self.message.as_ref().map_or(0, |message| message.bytes.len());
        if !is_control && length.saturating_add(before as u64) > MAX_MESSAGE_BYTES as u64 {
            return Err(TOO_LONG);
        }
        match (opcode, &self.message) {
            (0, None) => return Err(protocol("a continuation continues nothing")),
            (1 | 2, Some(_)) => return Err(protocol("a message begins within another")),
            _ => {}
        }
        let mask = match self.end {
            End::Client => None,
            End::Server => match rest.get(length_bytes..).and_then(|rest| rest.first_chunk::<4>()) {
                Some(mask) => Some(*mask),
                None => return Ok(None),
            },
        };
        let head_bytes = 2 + length_bytes + if mask.is_some() { 4 } else { 0 };
        let length = usize::try_from(length).map_err(|_| TOO_LONG)?;
        Ok(Some(Head { is_last, is_compressed, opcode, length, mask, head_bytes }))
    }

    fn take_frame(&mut self, head: &Head, payload: Vec<u8>) -> Result<Option<Incoming>, Violation> {
        match head.opcode {
            8 => return close_frame(&payload).map(|close| Some(Incoming::Close(close))),
            9 => return Ok(Some(Incoming::Ping(payload))),
            10 => return Ok(Some(Incoming::Pong)),
            1 | 2 => {
                let opcode = if head.opcode == 1 { Opcode::Text } else { Opcode::Binary };
                self.message = Some(Message { opcode, is_compressed: head.is_compressed, bytes: payload });
            }
            _ => {
                if let Some(message) = &mut self.message {
                    message.bytes.extend_from_slice(&payload);
                }
            }
        }
        if !head.is_last {
            return Ok(None);
        }
        let Some(message) = self.message.take() else { return Ok(None) };
        let bytes = if message.is_compressed { inflate(&message.bytes)? } else { message.bytes };
        Ok(Some(match message.opcode {
            Opcode::Text => Incoming::Text(String::from_utf8(bytes).map_err(|_| NOT_UTF8)?),
            _ => Incoming::Binary(bytes),
        }))
    }
}

/// RFC 6455, sections 5.5.1 and 7.4.
fn close_frame(payload: &[u8]) -> Result<Option<(u16, String)>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(protocol("a closing frame has half a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol("a closing frame has a code that nobody may send"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
    Ok(Some((code, reason.to_owned())))
}

fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends a whole message, compressed if that makes it shorter; `mask` is drawn by a client.
pub fn encode_deflated(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    match deflate(payload) {
        Some(shorter) => encode_frame(out, 0x80 | RSV1 | opcode as u8, &shorter, mask),
        None => encode(out, opcode, payload, mask),
    }
}

/// Appends a whole message or control frame; `mask` is drawn by a client.
pub fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    encode_frame(out, 0x80 | opcode as u8, payload, mask);
}

fn encode_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(first);
    match payload.len() {
        #[allow(clippy::cast_possible_truncation)]
        length @ 0..=125 => out.push(masked | length as u8),
        #[allow(clippy::cast_possible_truncation)]
        length @ 126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask.unwrap_or_default()[..if mask.is_some() { 4 } else { 0 }]);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// Appends a closing frame.
pub fn encode_close(out: &mut Vec<u8>, close: Option<(u16, &str)>, mask: Option<[u8; 4]>) {
    let mut payload = Vec::new();
    if let Some((code, reason)) = close {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
        payload.truncate(MAX_CONTROL_BYTES);
    }
    encode(out, Opcode::Close, &payload, mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn parse_all(end: End, bytes: &[u8], piece: usize) -> Result<Vec<Incoming>, Violation> {
        parse_with(Parser::new(end, false), bytes, piece)
    }

    fn parse_with(mut parser: Parser, bytes: &[u8], piece: usize) -> Result<Vec<Incoming>, Violation> {
        let mut all = Vec::new();
        for piece in bytes.chunks(piece) {
            parser.push(piece);
            while let Some(incoming) = parser.next()? {
                all.push(incoming);
            }
        }
        Ok(all)
    }

    #[test]
    fn what_is_encoded_is_understood_in_any_pieces() {
        for length in [0, 1, 125, 126, 127, 65535, 65536, 70000] {
            for (mask, end) in [(None, End::Client), (Some(MASK), End::Server)] {
                let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
                let mut wire = Vec::new();
                encode(&mut wire, Opcode::Binary, &bytes, mask);
                encode(&mut wire, Opcode::Ping, b"p", mask);
                encode(&mut wire, Opcode::Text, "ä".repeat(length / 2).as_bytes(), mask);
                encode_close(&mut wire, Some((1000, "bye")), mask);
                let expected = [
                    Incoming::Binary(bytes),
                    Incoming::Ping(b"p".to_vec()),
                    Incoming::Text("ä".repeat(length / 2)),
                    Incoming::Close(Some((1000, "bye".to_owned()))),
                ];
                for piece in [7, 4096, wire.len()] {
                    assert_eq!(parse_all(end, &wire, piece).expect("valid"), expected, "{length}");
                }
            }
        }
    }

    #[test]
    fn fragments_are_joined_and_control_frames_come_between() {
        let wire = [&[0x01, 2, b'a', 0xc3][..], &[0x89, 0], &[0x00, 1, 0xa4], &[0x80, 1, b'b']].concat();
        let expected = [Incoming::Ping(vec![]), Incoming::Text("aäb".to_owned())];
        assert_eq!(parse_all(End::Client, &wire, 1).expect("valid"), expected);
    }

    #[test]
    fn compressed_messages_are_understood_where_they_were_agreed_on() {
        for (mask, end) in [(None, End::Client), (Some(MASK), End::Server)] {
            let long = "so much to say ".repeat(1000);
            let mut wire = Vec::new();
            encode_deflated(&mut wire, Opcode::Text, long.as_bytes(), mask);
            assert!(wire.len() < 1000 && wire[0] == 0xc1, "{}", wire.len());
            encode_deflated(&mut wire, Opcode::Binary, b"short", mask);
            let expected = [Incoming::Text(long), Incoming::Binary(b"short".to_vec())];
            assert_eq!(parse_with(Parser::new(end, true), &wire, 5).expect("valid"), expected);
            assert_eq!(parse_all(end, &wire, 5).expect_err("not agreed on").code, 1002);
        }
        // "Hello" of RFC 7692, section 7.2.3.1, in two frames with a ping between them.
        let wire =
            [&[0x41, 3, 0xf2, 0x48, 0xcd][..], &[0x89, 0], &[0x80, 4, 0xc9, 0xc9, 0x07, 0x00]].concat();
        let expected = [Incoming::Ping(vec![]), Incoming::Text("Hello".to_owned())];
        assert_eq!(parse_with(Parser::new(End::Client, true), &wire, 1).expect("valid"), expected);
        for wire in [&[0xc9, 0][..], &[0x01, 0, 0xc0, 0], &[0xa1, 0], &[0xc1, 2, 0xff, 0xff]] {
            assert!(parse_with(Parser::new(End::Client, true), wire, wire.len()).is_err(), "{wire:02x?}");
        }
    }

    #[test]
    fn violations_are_refused_with_their_code() {
        for (wire, code) in [
            (&[0xc1, 0][..], 1002),
            (&[0x83, 0], 1002),
            (&[0x8b, 0], 1002),
            (&[0x81, 0x80, 0, 0, 0, 0], 1002),
            (&[0x80, 0], 1002),
            (&[0x01, 0, 0x01, 0], 1002),
            (&[0x09, 0], 1002),
            (&[0x89, 126, 0, 126], 1002),
            (&[0x82, 126, 0, 125], 1002),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], 1002),
            (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
            (&[0x82, 127, 0, 0, 0, 0, 4, 0, 0, 1], 1009),
            (&[0x81, 1, 0xff], 1007),
            (&[0x88, 1, 3], 1002),
            (&[0x88, 2, 3, 0xed], 1002),
            (&[0x88, 2, 0, 0], 1002),
            (&[0x88, 3, 3, 0xe8, 0xff], 1007),
        ] {
            let refused = parse_all(End::Client, wire, wire.len()).expect_err("refused");
            assert_eq!(refused.code, code, "{wire:02x?}: {}", refused.reason);
        }
        assert!(parse_all(End::Server, &[0x81, 0], 2).is_err(), "a client must mask");
    }

    #[test]
    fn no_garbage_panics_or_grows() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for round in 0..50_000 {
            let end = if round % 2 == 0 { End::Client } else { End::Server };
            let mask = (end == End::Server).then_some(MASK);
            let mut wire = Vec::new();
            encode(&mut wire, Opcode::Text, &vec![b'x'; random() % 200], mask);
            encode(&mut wire, Opcode::Ping, b"ping", mask);
            for _ in 0..random() % 4 {
                let at = random() % wire.len();
                wire[at] = random() as u8;
            }
            let _ = parse_all(end, &wire, 1 + random() % 50);
        }
    }
}
