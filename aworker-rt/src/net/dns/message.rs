//! DNS messages, as far as a stub resolver needs them: one question out, addresses in.
//! RFC 1035 section 4, RFC 3596 (AAAA), RFC 6891 (EDNS).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name, with its length bytes (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 255;
/// Longest label.
const MAX_LABEL_BYTES: usize = 63;
/// Records of an answer that are looked at.
const MAX_RECORDS: usize = 256;
/// Aliases that are followed within one answer.
const MAX_ALIASES: usize = 16;
/// What we can receive in one datagram when EDNS is asked for (the value of the DNS flag day 2020).
pub const EDNS_PAYLOAD_BYTES: u16 = 1232;

const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_OPT: u16 = 41;
const HEADER_BYTES: usize = 12;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl RecordType {
    fn code(self) -> u16 {
        match self {
            RecordType::A => 1,
            RecordType::Aaaa => 28,
        }
    }
}

/// Whether the question carries an EDNS record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edns {
    /// Answers are at most 512 bytes over UDP.
    Off,
    /// Answers may have [`EDNS_PAYLOAD_BYTES`].
    On,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name exists; its addresses, maybe none.
    Addresses(Vec<IpAddr>),
    /// The name does not exist.
    NoSuchName,
    /// The server cannot tell (its response code).
    Failed(u8),
    /// The answer does not fit into a datagram: ask by TCP.
    Truncated,
}

/// The bytes are no answer to the question: another packet, or a forged or broken one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTheAnswer;

/// A name in wire format; `None` if it cannot be one.
pub fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let bytes = label.as_bytes();
        if bytes.is_empty() || bytes.len() > MAX_LABEL_BYTES || !label.is_ascii() {
            return None;
        }
        wire.push(u8::try_from(bytes.len()).ok()?);
        wire.extend_from_slice(bytes);
    }
    wire.push(0);
    (wire.len() <= MAX_NAME_BYTES).then_some(wire)
}

/// A question for one name, which must be in wire format.
pub fn encode_query(id: u16, name: &[u8], record: RecordType, edns: Edns) -> Vec<u8> {
    const RECURSION_DESIRED: u16 = 0x0100;
    let additional = u16::from(edns == Edns::On);
    let mut message = Vec::with_capacity(HEADER_BYTES + name.len() + 15);
    for word in [id, RECURSION_DESIRED, 1, 0, 0, additional] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(name);
    message.extend_from_slice(&record.code().to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    if edns == Edns::On {
        message.push(0);
        message.extend_from_slice(&TYPE_OPT.to_be_bytes());
        message.extend_from_slice(&EDNS_PAYLOAD_BYTES.to_be_bytes());
        message.extend_from_slice(&[0; 6]);
    }
    message
}

/// Reads big-endian numbers and names.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], NotTheAnswer> {
        let end = self.at.checked_add(count).ok_or(NotTheAnswer)?;
        let bytes = self.message.get(self.at..end).ok_or(NotTheAnswer)?;
        self.at = end;
        Ok(bytes)
    }

    fn u16(&mut self) -> Result<u16, NotTheAnswer> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name, decompressed, in lower case. Pointers must lead backwards, so they end.
    fn name(&mut self) -> Result<Vec<u8>, NotTheAnswer> {
        let mut name = Vec::new();
        let mut at = self.at;
        let mut lowest = self.at;
        let mut has_jumped = false;
        loop {
            let length = *self.message.get(at).ok_or(NotTheAnswer)?;
            at += 1;
            match length >> 6 {
                0 => {
                    let label = self.message.get(at..at + usize::from(length)).ok_or(NotTheAnswer)?;
                    name.push(length);
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    at += usize::from(length);
                    if name.len() > MAX_NAME_BYTES {
                        return Err(NotTheAnswer);
                    }
                }
                3 => {
                    let low = *self.message.get(at).ok_or(NotTheAnswer)?;
                    if !has_jumped {
                        self.at = at + 1;
                    }
                    has_jumped = true;
                    at = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if at >= lowest {
                        return Err(NotTheAnswer);
                    }
                    lowest = at;
                    continue;
                }
                _ => return Err(NotTheAnswer),
            }
            if length == 0 {
                if !has_jumped {
                    self.at = at;
                }
                return Ok(name);
            }
        }
    }
}

/// The data of a record that matters.
enum Data {
    Address(IpAddr),
    Alias(Vec<u8>),
    Other,
}

/// Understands an answer to the question `id`, `name` (in wire format), `record`.
///
/// # Errors
/// The message does not answer that question, or is malformed: the caller goes on waiting.
pub fn decode(message: &[u8], id: u16, name: &[u8], record: RecordType) -> Result<Answer, NotTheAnswer> {
    let mut reader = Reader { message, at: 0 };
    let (its_id, flags) = (reader.u16()?, reader.u16()?);
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    reader.take(4)?;
    let is_response = flags & 0x8000 != 0;
    let is_standard_query = flags & 0x7800 == 0;
    if its_id != id || !is_response || !is_standard_query {
        return Err(NotTheAnswer);
    }
    let code = (flags & 0xf) as u8;
    if questions == 0 && code != 0 {
        // Some servers refuse without an echo of the question.
        return Ok(Answer::Failed(code));
    }
    let asked = name.to_ascii_lowercase();
    if questions != 1
        || reader.name()? != asked
        || reader.u16()? != record.code()
        || reader.u16()? != CLASS_IN
    {
        return Err(NotTheAnswer);
    }
    if flags & 0x0200 != 0 {
        return Ok(Answer::Truncated);
    }
    match code {
        0 => {}
        3 => return Ok(Answer::NoSuchName),
        code => return Ok(Answer::Failed(code)),
    }
    let records = usize::from(answers).min(MAX_RECORDS);
    let records: Vec<_> =
        (0..records).map(|_| read_record(&mut reader, record)).collect::<Result<_, NotTheAnswer>>()?;
    Ok(Answer::Addresses(follow(asked, &records)))
}

fn read_record(reader: &mut Reader<'_>, wanted: RecordType) -> Result<(Vec<u8>, Data), NotTheAnswer> {
    let owner = reader.name()?;
    let (kind, class) = (reader.u16()?, reader.u16()?);
    reader.take(4)?;
    let length = usize::from(reader.u16()?);
    let start = reader.at;
    let data = reader.take(length)?;
    let data = match (kind, class) {
        (TYPE_CNAME, CLASS_IN) => {
            let mut alias = Reader { message: reader.message, at: start };
            Data::Alias(alias.name()?)
        }
        (kind, CLASS_IN) if kind == wanted.code() => match wanted {
            RecordType::A => {
                let bytes: [u8; 4] = data.try_into().map_err(|_| NotTheAnswer)?;
                Data::Address(Ipv4Addr::from(bytes).into())
            }
            RecordType::Aaaa => {
                let bytes: [u8; 16] = data.try_into().map_err(|_| NotTheAnswer)?;
                Data::Address(Ipv6Addr::from(bytes).into())
            }
        },
        _ => Data::Other,
    };
    Ok((owner, data))
}

/// The addresses of a name, through its aliases; records of other names are of no interest.
fn follow(mut name: Vec<u8>, records: &[(Vec<u8>, Data)]) -> Vec<IpAddr> {
    for _ in 0..=MAX_ALIASES {
        let of_name = || records.iter().filter(|(owner, _)| *owner == name).map(|(_, data)| data);
        let addresses: Vec<IpAddr> = of_name()
            .filter_map(|data| match data {
                Data::Address(address) => Some(*address),
                Data::Alias(_) | Data::Other => None,
            })
            .collect();
        let alias = of_name().find_map(|data| match data {
            Data::Alias(alias) => Some(alias.clone()),
            Data::Address(_) | Data::Other => None,
        });
        match alias {
            Some(alias) if addresses.is_empty() => name = alias,
            _ => return addresses,
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u16 = 0x1234;

    fn answer(name: &[u8], flags: u16, records: &[u8], count: u16) -> Vec<u8> {
        let mut message = encode_query(ID, name, RecordType::A, Edns::Off);
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&count.to_be_bytes());
        message.extend_from_slice(records);
        message
    }

    fn address_record(owner: &[u8], address: [u8; 4]) -> Vec<u8> {
        [owner, &[0, 1, 0, 1, 0, 0, 0, 60, 0, 4], &address].concat()
    }

    #[test]
    fn names_have_labels_of_at_most_63_bytes_and_255_in_all() {
        assert_eq!(encode_name("a.bc.").expect("valid"), b"\x01a\x02bc\0");
        for bad in ["", ".", "a..b", ".a", &"x".repeat(64), &["x".repeat(60).as_str(); 5].join("."), "ä"] {
            assert_eq!(encode_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn aliases_are_followed_and_other_names_ignored() {
        let name = encode_name("A.example").expect("valid");
        let alias = encode_name("b.example").expect("valid");
        let mut records = vec![0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 11];
        records.extend(&alias);
        records.extend(address_record(&encode_name("evil.example").expect("valid"), [6, 6, 6, 6]));
        records.extend(address_record(&alias, [1, 2, 3, 4]));
        let message = answer(&name, 0x8180, &records, 3);
        let expected = Answer::Addresses(vec![IpAddr::from([1, 2, 3, 4])]);
        assert_eq!(decode(&message, ID, &name, RecordType::A), Ok(expected));
        // A chain that leads round in a circle ends.
        let mut circle = Vec::new();
        for (owner, target) in [(&name, &alias), (&alias, &name)] {
            circle.extend([owner.as_slice(), &[0, 5, 0, 1, 0, 0, 0, 1, 0, 11], target].concat());
        }
        let message = answer(&name, 0x8180, &circle, 2);
        assert_eq!(decode(&message, ID, &name, RecordType::A), Ok(Answer::Addresses(vec![])));
    }

    #[test]
    fn what_answers_another_question_is_no_answer() {
        let name = encode_name("a.example").expect("valid");
        let good = answer(&name, 0x8180, &address_record(&[0xc0, 12], [1, 2, 3, 4]), 1);
        assert!(decode(&good, ID, &name, RecordType::A).is_ok());
        assert_eq!(decode(&good, ID + 1, &name, RecordType::A), Err(NotTheAnswer));
        assert_eq!(decode(&good, ID, &name, RecordType::Aaaa), Err(NotTheAnswer));
        let other = encode_name("b.example").expect("valid");
        assert_eq!(decode(&good, ID, &other, RecordType::A), Err(NotTheAnswer));
        assert_eq!(decode(&answer(&name, 0x0100, &[], 0), ID, &name, RecordType::A), Err(NotTheAnswer));
    }

    #[test]
    fn response_codes_and_truncation_are_told_apart() {
        let name = encode_name("a.example").expect("valid");
        for (flags, expected) in [
            (0x8183, Answer::NoSuchName),
            (0x8182, Answer::Failed(2)),
            (0x8185, Answer::Failed(5)),
            (0x8380, Answer::Truncated),
            (0x8180, Answer::Addresses(vec![])),
        ] {
            assert_eq!(decode(&answer(&name, flags, &[], 0), ID, &name, RecordType::A), Ok(expected));
        }
    }

    #[test]
    fn a_name_that_points_at_itself_or_forward_is_refused() {
        let name = encode_name("a.example").expect("valid");
        let at = u8::try_from(HEADER_BYTES + name.len() + 4).expect("short");
        for pointer in [at, at + 2, 0xff] {
            let message = answer(&name, 0x8180, &address_record(&[0xc0, pointer], [1, 2, 3, 4]), 1);
            assert_eq!(decode(&message, ID, &name, RecordType::A), Err(NotTheAnswer));
        }
    }

    #[test]
    fn no_garbage_panics_or_runs_for_ever() {
        let name = encode_name("a.example").expect("valid");
        let good = answer(&name, 0x8180, &address_record(&[0xc0, 12], [1, 2, 3, 4]), 1);
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..200_000 {
            let mut message = good.clone();
            for _ in 0..=random() % 4 {
                let at = random() % message.len();
                message[at] = random() as u8;
            }
            message.truncate(random() % (message.len() + 8));
            message.extend(std::iter::repeat_n(random() as u8, random() % 16));
            if let Ok(Answer::Addresses(addresses)) = decode(&message, ID, &name, RecordType::A) {
                assert!(addresses.len() <= MAX_RECORDS);
            }
        }
    }
}
