//! D-Bus messages: written, and read as far as the answers of systemd need it.
//!
//! Everything is little-endian as we write it; a peer may answer in its own order, which its first byte tells. Not a
//! general library: no file descriptors, no introspection. D-Bus Specification, "Marshaling (Wire Format)",
//! "Message Protocol".

use crate::error::{Error, Result};
use crate::limits;

/// A value that can be put into a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `d`, by its bits.
    Double(u64),
    /// `o`
    Path(String),
    /// `g`: at most 255 bytes.
    Signature(String),
    /// An array whose elements all have this signature.
    List {
        /// The elements' signature.
        of: String,
        /// The elements.
        items: Vec<Value>,
    },
    /// `t`
    U64(u64),
    /// `s`
    Text(String),
    /// `ay`
    Bytes(Vec<u8>),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Numbers(Vec<u32>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
    /// `a(sv)`: properties of a unit.
    Properties(Vec<(String, Value)>),
    /// `a(sa(sv))`: further units, of which we have none.
    NoUnits,
}

impl Value {
    /// Its type, in the letters of D-Bus.
    pub fn signature(&self) -> String {
        let letters = match self {
            Value::List { of, .. } => return format!("a{of}"),
            Value::Bool(_) => "b",
            Value::Byte(_) => "y",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::Double(_) => "d",
            Value::Path(_) => "o",
            Value::Signature(_) => "g",
            Value::U64(_) => "t",
            Value::Text(_) => "s",
            Value::Bytes(_) => "ay",
            Value::Texts(_) => "as",
            Value::Numbers(_) => "au",
            Value::Pairs(_) => "a(ss)",
            Value::Properties(_) => "a(sv)",
            Value::NoUnits => "a(sa(sv))",
        };
        letters.to_owned()
    }
}

/// The kind of a message (its second byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something is asked for.
    Call = 1,
    /// The answer.
    Return = 2,
    /// Another answer.
    Error = 3,
    /// Something has happened.
    Signal = 4,
}

/// A call of a method.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Who is asked.
    pub destination: &'a str,
    /// Which object of it.
    pub path: &'a str,
    /// The method's interface.
    pub interface: &'a str,
    /// The method.
    pub member: &'a str,
    /// Its arguments.
    pub arguments: &'a [Value],
}

/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

const PROTOCOL_VERSION: u8 = 1;

/// The bytes of a call.
pub fn encode(call: &Call<'_>, serial: u32) -> Vec<u8> {
    let mut body = Writer::default();
    call.arguments.iter().for_each(|argument| body.value(argument));
    let signature: String = call.arguments.iter().map(Value::signature).collect();
    let mut all = Writer { bytes: vec![b'l', Kind::Call as u8, 0, PROTOCOL_VERSION] };
    all.u32(length(body.bytes.len()));
    all.u32(serial);
    all.array(8, |fields| {
        let texts = [
            (PATH, "o", call.path),
            (DESTINATION, "s", call.destination),
            (INTERFACE, "s", call.interface),
            (MEMBER, "s", call.member),
        ];
        for (code, kind, text) in texts {
            fields.align(8);
            fields.bytes.push(code);
            fields.signature(kind);
            fields.text(text);
        }
        if !signature.is_empty() {
            fields.align(8);
            fields.bytes.push(SIGNATURE);
            fields.signature("g");
            fields.signature(&signature);
        }
    });
    all.align(8);
    all.bytes.extend(body.bytes);
    all.bytes
}

/// Lengths are bounded far below this by [`limits::BUS_MESSAGE_BYTES`].
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.number(value.to_le_bytes());
    }

    /// Numbers are aligned to their size.
    fn number<const SIZE: usize>(&mut self, bytes: [u8; SIZE]) {
        self.align(SIZE);
        self.bytes.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        // Ours are a few letters long.
        self.bytes.push(text.len() as u8);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array: the length of its elements, which begin at their own alignment.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let place = self.bytes.len() - 4;
        self.align(alignment);
        let begin = self.bytes.len();
        fill(self);
        let size = length(self.bytes.len() - begin);
        self.bytes[place..place + 4].copy_from_slice(&size.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::Byte(value) => self.bytes.push(*value),
            Value::I16(value) => self.number(value.to_le_bytes()),
            Value::U16(value) => self.number(value.to_le_bytes()),
            Value::I32(value) => self.number(value.to_le_bytes()),
            Value::U32(value) => self.u32(*value),
            Value::I64(value) => self.number(value.to_le_bytes()),
            Value::U64(value) | Value::Double(value) => self.number(value.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => self.signature(text),
            Value::List { of, items } => {
                let alignment = match of.as_bytes().first() {
                    Some(b'y' | b'g') => 1,
                    Some(b'n' | b'q') => 2,
                    Some(b'x' | b't' | b'd') => 8,
                    Some(_) | None => 4,
                };
                self.array(alignment, |array| items.iter().for_each(|item| array.value(item)));
            }
            Value::Bytes(bytes) => self.array(1, |array| array.bytes.extend(bytes)),
            Value::Texts(texts) => self.array(4, |array| texts.iter().for_each(|text| array.text(text))),
            Value::Numbers(numbers) => {
                self.array(4, |array| numbers.iter().for_each(|number| array.u32(*number)));
            }
            Value::Pairs(pairs) => self.array(8, |array| {
                for (first, second) in pairs {
                    array.align(8);
                    array.text(first);
                    array.text(second);
                }
            }),
            Value::Properties(properties) => self.array(8, |array| {
                for (name, value) in properties {
                    array.align(8);
                    array.text(name);
                    array.signature(&value.signature());
                    array.value(value);
                }
            }),
            Value::NoUnits => self.array(8, |_| {}),
        }
    }
}

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub kind: Kind,
    /// Which call it answers; zero: none.
    pub reply_serial: u32,
    /// The member of a signal.
    pub member: String,
    /// The name of an error.
    pub error_name: String,
    /// The arguments that are strings, object paths or numbers, as text, in order, also one inside a variant.
    pub arguments: Vec<String>,
}

/// The first bytes of a message, from which its length is known.
pub const FIXED_HEADER: usize = 16;

/// How long the whole message is, of which `header` are the first [`FIXED_HEADER`] bytes.
pub fn total_length(header: &[u8; FIXED_HEADER]) -> Result<usize> {
    let mut reader = Reader { bytes: header, at: 4, big: header[0] == b'B' };
    let body = reader.u32()? as usize;
    reader.at = 12;
    let fields = reader.u32()? as usize;
    let all = (FIXED_HEADER.saturating_add(fields)).next_multiple_of(8).saturating_add(body);
    if all > limits::BUS_MESSAGE_BYTES {
        return Err(malformed("too long"));
    }
    Ok(all)
}

fn malformed(what: &str) -> Error {
    Error::invalid("answer of the D-Bus", format!("is malformed: {what}"))
}

/// Reads one whole message.
pub fn decode(bytes: &[u8]) -> Result<Message> {
    let mut reader = Reader { bytes, at: 0, big: bytes.first() == Some(&b'B') };
    let kind = match bytes.get(1) {
        Some(1) => Kind::Call,
        Some(2) => Kind::Return,
        Some(3) => Kind::Error,
        Some(4) => Kind::Signal,
        Some(_) | None => return Err(malformed("unknown kind")),
    };
    let mut message = Message {
        kind,
        reply_serial: 0,
        member: String::new(),
        error_name: String::new(),
        arguments: Vec::new(),
    };
    let mut signature = String::new();
    reader.at = 12;
    let end = FIXED_HEADER + reader.u32()? as usize;
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind.as_str()) {
            (MEMBER, "s") => message.member = reader.text()?,
            (ERROR_NAME, "s") => message.error_name = reader.text()?,
            (REPLY_SERIAL, "u") => message.reply_serial = reader.u32()?,
            (SIGNATURE, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            (_, _) => return Err(malformed("unknown header field")),
        }
    }
    reader.align(8);
    message.arguments = reader.arguments(&signature)?;
    Ok(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| malformed("ends early"))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4);
        let big = self.big;
        let bytes = self.take(4)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        Ok(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.byte()?;
        Ok(text)
    }

    fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.byte()?);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.byte()?;
        Ok(text)
    }

    /// What is read stops before the first type that no answer of systemd to us has.
    fn arguments(&mut self, signature: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for kind in signature.chars() {
            match kind {
                's' | 'o' => all.push(self.text()?),
                'u' => all.push(self.u32()?.to_string()),
                'v' => {
                    let inner = self.signature()?;
                    // A variant in a variant ends it: nothing we ask for has one.
                    if !matches!(inner.as_str(), "s" | "o" | "u") {
                        return Ok(all);
                    }
                    all.extend(self.arguments(&inner)?);
                }
                _ => return Ok(all),
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The bytes of a message of another kind than a call, for tests.
    pub fn encode_answer(kind: Kind, reply_to: u32, name: &str, arguments: &[Value]) -> Vec<u8> {
        let mut body = Writer::default();
        arguments.iter().for_each(|argument| body.value(argument));
        let signature: String = arguments.iter().map(Value::signature).collect();
        let mut all = Writer { bytes: vec![b'l', kind as u8, 0, PROTOCOL_VERSION] };
        all.u32(length(body.bytes.len()));
        all.u32(7);
        all.array(8, |fields| {
            fields.bytes.push(REPLY_SERIAL);
            fields.signature("u");
            fields.u32(reply_to);
            fields.align(8);
            fields.bytes.push(if kind == Kind::Error { ERROR_NAME } else { MEMBER });
            fields.signature("s");
            fields.text(name);
            fields.align(8);
            fields.bytes.push(SIGNATURE);
            fields.signature("g");
            fields.signature(&signature);
        });
        all.align(8);
        all.bytes.extend(body.bytes);
        all.bytes
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let call = Call {
            destination: "a.b",
            path: "/p",
            interface: "i.f",
            member: "M",
            arguments: &[Value::Text("x".into()), Value::U64(5)],
        };
        let bytes = encode(&call, 3);
        assert_eq!(&bytes[..16], b"l\x01\x00\x01\x10\0\0\0\x03\0\0\0\x48\0\0\0");
        assert_eq!(&bytes[16..24], b"\x01\x01o\0\x02\0\0\0");
        assert_eq!(&bytes[16 + 0x48..], b"\x01\0\0\0x\0\0\0\x05\0\0\0\0\0\0\0");
        let header: [u8; FIXED_HEADER] = bytes[..16].try_into().unwrap();
        assert_eq!(total_length(&header).unwrap(), bytes.len());
        let back = decode(&bytes).unwrap();
        assert_eq!((back.kind, back.member.as_str()), (Kind::Call, "M"));
        assert_eq!(back.arguments, ["x"]);
    }

    #[test]
    fn containers_are_aligned() {
        let mut writer = Writer::default();
        writer.value(&Value::Bool(true));
        writer.value(&Value::Properties(vec![
            ("PIDs".into(), Value::Numbers(vec![9])),
            ("MemoryMax".into(), Value::U64(1)),
            ("AllowedCPUs".into(), Value::Bytes(vec![3])),
            ("DeviceAllow".into(), Value::Pairs(vec![("/dev/null".into(), "rwm".into())])),
            ("Wants".into(), Value::Texts(vec!["a.slice".into()])),
        ]));
        let expected = [
            b"\x01\0\0\0".as_slice(),
            b"\xb0\0\0\0",
            b"\x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0\x09\0\0\0",
            b"\x09\0\0\0MemoryMax\0\x01t\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
            b"\x0b\0\0\0AllowedCPUs\0\x02ay\0\x01\0\0\0\x03\0\0\0\0\0\0\0",
            b"\x0b\0\0\0DeviceAllow\0\x05a(ss)\0\0\x18\0\0\0\0\0\0\0",
            b"\x09\0\0\0/dev/null\0\0\0\x03\0\0\0rwm\0",
            b"\x05\0\0\0Wants\0\x02as\0\0\0\x0c\0\0\0\x07\0\0\0a.slice\0",
        ]
        .concat();
        assert_eq!(writer.bytes, expected);
    }

    #[test]
    fn answers_are_read() {
        let bytes = encode_answer(Kind::Return, 2, "", &[Value::Text("/job/1".into())]);
        let answer = decode(&bytes).unwrap();
        assert_eq!((answer.kind, answer.reply_serial), (Kind::Return, 2));
        assert_eq!(answer.arguments, ["/job/1"]);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = encode_answer(Kind::Signal, 2, "JobRemoved", &[Value::Text("done".into())]);
        let mut state = 17u64;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let place = (state >> 33) as usize % bytes.len();
                bytes[place] = (state >> 25) as u8;
            }
            bytes.truncate(1 + (state >> 40) as usize % good.len());
            // Either a message or an error.
            let _ = decode(&bytes);
            if let Ok(header) = bytes[..FIXED_HEADER.min(bytes.len())].try_into() {
                let _ = total_length(&header);
            }
        }
    }
}
