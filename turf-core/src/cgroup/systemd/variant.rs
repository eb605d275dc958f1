//! Annotations `org.systemd.property.NAME`: further properties of a container's unit, with the value in the text form of
//! GVariant, as runc takes them.
//!
//! ```text
//! value   = [type] literal              type    = uint64 ... or @SIGNATURE
//! literal = true | -1 | 0x1f | 1.5 | 'text' | "text" | b'bytes' | [value, ...]
//! ```
//!
//! Without a type a number is an `int32`, one with a point a `double`. Dictionaries, tuples and variants are refused: no
//! property that a transient unit takes has such a type. GLib, "GVariant Text Format"; org.freedesktop.systemd1(5).

use std::collections::BTreeMap;

use super::message::Value;
use crate::error::{Error, Result};

/// What the annotations' names begin with.
const PREFIX: &str = "org.systemd.property.";

/// How deep a value may be nested: arrays of arrays of a basic type are more than any property has.
const DEPTH: usize = 4;

/// The annotations that are properties, by the name of the property; checked.
pub fn select(annotations: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (annotation, value) in annotations {
        let Some(name) = annotation.strip_prefix(PREFIX) else { continue };
        property(name, value).map_err(|reason| {
            Error::invalid(format!("config.json: $.annotations[{annotation:?}]"), reason)
        })?;
        all.insert(name.to_owned(), value.clone());
    }
    Ok(all)
}

/// The properties that [`select`] has found.
pub fn properties(selected: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>> {
    let parse = |(name, value): (&String, &String)| {
        property(name, value).map_err(|reason| Error::invalid(format!("property {name}"), reason))
    };
    selected.iter().map(parse).collect()
}

/// A property by its name and text. A time in seconds becomes one in microseconds, which is what systemd takes: users
/// know `TimeoutStopSec`, the property is `TimeoutStopUSec`.
fn property(name: &str, text: &str) -> std::result::Result<(String, Value), String> {
    if name.len() < 3 || !name.bytes().all(|letter| letter.is_ascii_alphabetic()) {
        return Err(format!("{name:?} is not the name of a property: at least three letters"));
    }
    let value = parse(text).map_err(|reason| format!("{text:?}: {reason}"))?;
    match name.strip_suffix("Sec").filter(|stem| !stem.is_empty() && !stem.ends_with('U')) {
        None => Ok((name.to_owned(), value)),
        Some(stem) => {
            let seconds = match value {
                Value::Byte(seconds) => f64::from(seconds),
                Value::U16(seconds) => f64::from(seconds),
                Value::I16(seconds) => f64::from(seconds),
                Value::U32(seconds) => f64::from(seconds),
                Value::I32(seconds) => f64::from(seconds),
                Value::U64(seconds) => seconds as f64,
                Value::I64(seconds) => seconds as f64,
                Value::Double(bits) => f64::from_bits(bits),
                _ => return Err(format!("{text:?}: {name} is a number of seconds")),
            };
            let microseconds = seconds * 1e6;
            if !(0.0..=u64::MAX as f64).contains(&microseconds) {
                return Err(format!("{text:?}: is no length of time"));
            }
            Ok((format!("{stem}USec"), Value::U64(microseconds as u64)))
        }
    }
}

/// A value by its text.
fn parse(text: &str) -> std::result::Result<Value, String> {
    let mut parser = Parser { rest: text };
    let node = parser.node(DEPTH)?;
    parser.skip_space();
    if !parser.rest.is_empty() {
        return Err(format!("{:?} is too much", parser.rest));
    }
    node.resolve(None)
}

/// A value before its type is known.
enum Node {
    Number(String),
    Text(String),
    Bool(bool),
    Bytes(Vec<u8>),
    List(Vec<Node>),
    Typed(String, Box<Node>),
}

struct Parser<'a> {
    rest: &'a str,
}

/// The words for types, and their signatures.
const TYPES: [(&str, &str); 13] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("handle", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// The next letters for which `part` is true.
    fn take(&mut self, part: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|letter| !part(letter)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken.to_owned()
    }

    fn node(&mut self, depth: usize) -> std::result::Result<Node, String> {
        let depth = depth.checked_sub(1).ok_or("is nested too deep")?;
        self.skip_space();
        let Some(first) = self.rest.chars().next() else { return Err("a value is missing".to_owned()) };
        match first {
            '@' => {
                self.rest = &self.rest[1..];
                let signature = self.take(|letter| letter.is_ascii_alphabetic());
                Ok(Node::Typed(signature, Box::new(self.node(depth)?)))
            }
            '[' => self.list(depth),
            '\'' | '"' => self.quoted().map(Node::Text),
            'b' if self.rest[1..].starts_with(['\'', '"']) => {
                self.rest = &self.rest[1..];
                // A byte string ends with a zero.
                self.quoted().map(|text| Node::Bytes([text.as_bytes(), b"\0"].concat()))
            }
            '0'..='9' | '+' | '-' | '.' => {
                Ok(Node::Number(self.take(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))))
            }
            _ => {
                let word = self.take(|letter| letter.is_ascii_alphanumeric());
                match word.as_str() {
                    "true" => Ok(Node::Bool(true)),
                    "false" => Ok(Node::Bool(false)),
                    "inf" | "nan" => Ok(Node::Number(word)),
                    _ => match TYPES.iter().find(|(name, _)| *name == word) {
                        Some((_, signature)) => {
                            Ok(Node::Typed((*signature).to_owned(), Box::new(self.node(depth)?)))
                        }
                        None => Err(format!("{:?} is no value", format!("{word}{}", self.rest))),
                    },
                }
            }
        }
    }

    fn list(&mut self, depth: usize) -> std::result::Result<Node, String> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        loop {
            self.skip_space();
            if let Some(rest) = self.rest.strip_prefix(']').filter(|_| items.is_empty()) {
                self.rest = rest;
                return Ok(Node::List(items));
            }
            items.push(self.node(depth)?);
            self.skip_space();
            match self.rest.chars().next() {
                Some(',') => self.rest = &self.rest[1..],
                Some(']') => {
                    self.rest = &self.rest[1..];
                    return Ok(Node::List(items));
                }
                Some(_) | None => return Err("a list has no end".to_owned()),
            }
        }
    }

    fn quoted(&mut self) -> std::result::Result<String, String> {
        let mut letters = self.rest.chars();
        let quote = letters.next();
        let mut text = String::new();
        while let Some(letter) = letters.next() {
            match letter {
                letter if Some(letter) == quote => {
                    self.rest = letters.as_str();
                    return Ok(text);
                }
                '\\' => match letters.next() {
                    Some('a') => text.push('\u{7}'),
                    Some('b') => text.push('\u{8}'),
                    Some('f') => text.push('\u{c}'),
                    Some('n') => text.push('\n'),
                    Some('r') => text.push('\r'),
                    Some('t') => text.push('\t'),
                    Some('v') => text.push('\u{b}'),
                    Some(kind @ ('u' | 'U')) => {
                        let digits: String = letters.by_ref().take(if kind == 'u' { 4 } else { 8 }).collect();
                        let known = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        text.push(known.ok_or_else(|| format!("\\{kind}{digits} is no letter"))?);
                    }
                    Some(other) => text.push(other),
                    None => break,
                },
                letter => text.push(letter),
            }
        }
        Err("a text has no end".to_owned())
    }
}

impl Node {
    /// Finds the type: what is asked for, else what stands there, else the usual one.
    fn resolve(&self, asked: Option<&str>) -> std::result::Result<Value, String> {
        match (self, asked) {
            (Node::Typed(signature, _), Some(asked)) if signature != asked => {
                Err(format!("one is of type {signature}, another of type {asked}"))
            }
            (Node::Typed(signature, node), _) => node.resolve(Some(signature)),
            (Node::Bool(value), None | Some("b")) => Ok(Value::Bool(*value)),
            (Node::Text(text), None | Some("s")) => Ok(Value::Text(text.clone())),
            (Node::Text(text), Some("o")) => Ok(Value::Path(text.clone())),
            (Node::Text(text), Some("g")) if text.len() < 256 => Ok(Value::Signature(text.clone())),
            (Node::Bytes(bytes), None | Some("ay")) => Ok(Value::Bytes(bytes.clone())),
            (Node::Number(text), asked) => number(text, asked),
            (Node::List(items), asked) => list(items, asked),
            (Node::Bool(_) | Node::Text(_) | Node::Bytes(_), Some(asked)) => {
                Err(format!("is not of type {asked}"))
            }
        }
    }

    /// The type that stands there, if one does.
    fn named(&self) -> Option<&str> {
        match self {
            Node::Typed(signature, _) => Some(signature),
            Node::Number(_) | Node::Text(_) | Node::Bool(_) | Node::Bytes(_) | Node::List(_) => None,
        }
    }
}

fn number(text: &str, asked: Option<&str>) -> std::result::Result<Value, String> {
    let bad = |kind: &str| format!("{text:?} is no {kind}");
    let hexadecimal = text.trim_start_matches(['+', '-']).starts_with("0x");
    let fraction = !hexadecimal && text.contains(['.', 'e', 'E', 'n']);
    let kind = asked.unwrap_or(if fraction { "d" } else { "i" });
    if kind == "d" {
        let value: f64 = text.parse().map_err(|_| bad("number"))?;
        return Ok(Value::Double(value.to_bits()));
    }
    let value = integer(text).ok_or_else(|| bad("whole number"))?;
    let value = match kind {
        "y" => u8::try_from(value).ok().map(Value::Byte),
        "n" => i16::try_from(value).ok().map(Value::I16),
        "q" => u16::try_from(value).ok().map(Value::U16),
        "i" => i32::try_from(value).ok().map(Value::I32),
        "u" => u32::try_from(value).ok().map(Value::U32),
        "x" => i64::try_from(value).ok().map(Value::I64),
        "t" => u64::try_from(value).ok().map(Value::U64),
        _ => None,
    };
    value.ok_or_else(|| bad(&format!("value of type {kind}")))
}

/// Decimal, hexadecimal with `0x`, octal with `0`.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match digits.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    let plain =
        !digits.is_empty() && digits.len() <= 24 && digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    Some(sign * i128::from_str_radix(digits, base).ok().filter(|_| plain)?)
}

fn list(items: &[Node], asked: Option<&str>) -> std::result::Result<Value, String> {
    let asked = match asked {
        Some(signature) => {
            Some(signature.strip_prefix('a').ok_or_else(|| format!("is not of type {signature}"))?)
        }
        None => items.iter().find_map(Node::named),
    };
    let values: Vec<Value> =
        items.iter().map(|item| item.resolve(asked)).collect::<std::result::Result<_, _>>()?;
    let of = match (asked, values.first()) {
        (_, Some(value)) => value.signature(),
        (Some(signature), None) => signature.to_owned(),
        (None, None) => return Err("an empty list needs a type, like @as []".to_owned()),
    };
    let basic = TYPES.iter().any(|(_, signature)| *signature == of.trim_start_matches('a'));
    match values.iter().find(|value| value.signature() != of) {
        Some(other) => Err(format!("one is of type {of}, another of type {}", other.signature())),
        None if !basic => Err(format!("a list of {of:?} is not possible")),
        None => Ok(Value::List { of, items: values }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_text_of_gvariant() {
        let list = |of: &str, items: Vec<Value>| Value::List { of: of.into(), items };
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("boolean false", Value::Bool(false)),
            ("1", Value::I32(1)),
            (" -0x10 ", Value::I32(-16)),
            ("uint64 123456789", Value::U64(123_456_789)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 010", Value::U64(8)),
            ("byte 255", Value::Byte(255)),
            ("int16 -3", Value::I16(-3)),
            ("uint16 3", Value::U16(3)),
            ("uint32 3", Value::U32(3)),
            ("handle 3", Value::I32(3)),
            ("int64 -3", Value::I64(-3)),
            ("1.5", Value::Double(1.5f64.to_bits())),
            ("double 2", Value::Double(2f64.to_bits())),
            ("'inactive-or-failed'", Value::Text("inactive-or-failed".into())),
            (r#""a\n\"\u00e4\'""#, Value::Text("a\n\"ä'".into())),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("signature 'as'", Value::Signature("as".into())),
            ("b'ab'", Value::Bytes(b"ab\0".to_vec())),
            ("['a', 'b']", list("s", vec![Value::Text("a".into()), Value::Text("b".into())])),
            ("[uint32 1, 2]", list("u", vec![Value::U32(1), Value::U32(2)])),
            ("[1, uint32 2]", list("u", vec![Value::U32(1), Value::U32(2)])),
            ("@as []", list("s", vec![])),
            ("@aay [[0x1]]", list("ay", vec![list("y", vec![Value::Byte(1)])])),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "  ",
            "inactive",
            "uint64",
            "uint64 -1",
            "byte 256",
            "1 2",
            "'a",
            "[1",
            "[1,]",
            "[]",
            "[1, 'a']",
            "[uint32 1, int32 2]",
            "@as 'a'",
            "@i 'a'",
            "string 1",
            "true 1",
            "{'a': 1}",
            "<1>",
            "(1, 2)",
            "0x",
            "-",
            "1e",
            "08",
            "int32 1.5",
            "'\\ud800'",
            "'\\",
            "[[[[[1]]]]]",
            "@as [1]",
            "@a [ ]",
            "uint64 uint32 1",
            "@v 1",
        ] {
            assert!(parse(text).is_err(), "{text:?} became {:?}", parse(text));
        }
    }

    #[test]
    fn properties_are_found_among_the_annotations() {
        let annotations = |entries: &[(&str, &str)]| {
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let given = annotations(&[
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
            ("org.systemd.property.TimeoutStopSec", "12.5"),
            ("org.systemd.property.RuntimeMaxUSec", "uint64 7"),
            ("io.other", "nonsense ["),
        ]);
        let selected = select(&given).unwrap();
        let expected = [
            ("CollectMode".to_owned(), Value::Text("inactive-or-failed".into())),
            ("RuntimeMaxUSec".to_owned(), Value::U64(7)),
            ("TimeoutStopUSec".to_owned(), Value::U64(12_500_000)),
        ];
        assert_eq!(properties(&selected).unwrap(), expected);
        for (name, value) in
            [("Ab", "1"), ("A-b", "1"), ("", "1"), ("Abc", "x"), ("ASec", "'a'"), ("ASec", "-1")]
        {
            let name = format!("org.systemd.property.{name}");
            let error = select(&annotations(&[(&name, value)])).unwrap_err().to_string();
            assert!(error.contains(&format!("$.annotations[{name:?}]")), "{error}");
        }
    }

    #[test]
    fn no_text_panics() {
        let pieces = [
            "uint64 ", "@", "as", "[", "]", ",", "'", "\"", "\\", "u00", "0x", "1", "-", ".", "b'", "é", "\0",
        ];
        let mut state = 5u64;
        for _ in 0..50_000 {
            let mut text = String::new();
            for _ in 0..6 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let _ = parse(&text);
        }
    }
}
