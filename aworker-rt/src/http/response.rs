//! Response heads, serialised (RFC 9112, sections 4 and 6; RFC 9110, sections
//! 6.4 and 15). Names and values are validated here once more, whatever the
//! built-ins let through: no response can be split.

use super::date::DATE_LEN;
use super::head::parse_length;

/// A name, a value or the block itself is not what a field may be.
#[derive(Debug, PartialEq, Eq)]
pub struct BadField;

/// Header fields as the built-ins hand them over: `name LF value LF` for each,
/// Latin-1, with their number. A value that smuggles an LF breaks the count.
#[derive(Clone, Copy, Debug)]
pub struct FieldBlock<'a> {
    /// The joined names and values.
    pub bytes: &'a [u8],
    /// How many pairs there must be.
    pub count: usize,
}

impl FieldBlock<'_> {
    /// No fields.
    pub const EMPTY: FieldBlock<'static> = FieldBlock { bytes: b"", count: 0 };
}

/// What is known of the body when the head is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySize {
    /// So many bytes; 0 also for a null body.
    Known(u64),
    /// A stream.
    Stream,
}

/// How the client will find the end of the response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing may be sent after the head.
    NoBody,
    /// Exactly so many bytes follow.
    Length(u64),
    /// Chunks follow.
    Chunked,
    /// Bytes follow until the connection is closed.
    UntilClose,
}

/// The request's properties a response depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTraits {
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// The method was HEAD.
    pub is_head: bool,
    /// The connection may be used again.
    pub keep_alive: bool,
}

/// What the head promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The framing that must be kept.
    pub framing: Framing,
    /// The connection stays open afterwards.
    pub keep_alive: bool,
}

/// The content types the built-ins give to a body without writing a header list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultType {
    /// No `content-type` field.
    None,
    /// A string.
    Text,
    /// `Response.json()`.
    Json,
}

impl DefaultType {
    fn line(self) -> &'static [u8] {
        match self {
            DefaultType::None => b"",
            DefaultType::Text => b"content-type: text/plain;charset=UTF-8\r\n",
            DefaultType::Json => b"content-type: application/json\r\n",
        }
    }
}

/// Everything a head is made of.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// 200 to 599.
    pub status: u16,
    /// The reason phrase; empty for the usual one.
    pub reason: &'a [u8],
    /// Fields of the handler.
    pub fields: FieldBlock<'a>,
    /// Content type besides `fields`.
    pub default_type: DefaultType,
    /// The body.
    pub body: BodySize,
}

/// Appends a head to `out`. Nothing is appended when the head is refused.
pub fn write_head(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    request: RequestTraits,
    date: &[u8; DATE_LEN],
) -> Result<Promise, BadField> {
    let start = out.len();
    let result = try_write_head(out, head, request, date);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn try_write_head(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    request: RequestTraits,
    date: &[u8; DATE_LEN],
) -> Result<Promise, BadField> {
    write_status_line(out, head.status, head.reason)?;
    out.extend_from_slice(head.default_type.line());
    let facts = write_fields(out, head.fields)?;
    if !facts.date {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    let framing = choose_framing(head, request, facts.content_length);
    match framing {
        Framing::Length(length) => write_length(out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::NoBody => {
            if let Some(length) = bodiless_length(head, facts.content_length) {
                write_length(out, length);
            }
        }
        Framing::UntilClose => {}
    }
    let keep_alive = request.keep_alive && !facts.close && framing != Framing::UntilClose;
    if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if request.minor == 0 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(Promise { framing, keep_alive })
}

/// The `content-length` of a response that has no body on the wire: that of
/// the body a GET would have got, where the status allows one.
fn bodiless_length(head: &ResponseHead<'_>, given: Option<u64>) -> Option<u64> {
    match (head.status, head.body) {
        (204, _) => None,
        (205, _) => Some(0),
        (304, _) => given,
        (_, BodySize::Known(0)) => Some(given.unwrap_or(0)),
        (_, BodySize::Known(length)) => Some(length),
        (_, BodySize::Stream) => given,
    }
}

fn choose_framing(head: &ResponseHead<'_>, request: RequestTraits, given: Option<u64>) -> Framing {
    if request.is_head || matches!(head.status, 204 | 205 | 304) {
        return Framing::NoBody;
    }
    match (head.body, given) {
        (BodySize::Known(length), _) => Framing::Length(length),
        (BodySize::Stream, Some(length)) => Framing::Length(length),
        (BodySize::Stream, None) if request.minor == 1 => Framing::Chunked,
        (BodySize::Stream, None) => Framing::UntilClose,
    }
}

fn write_status_line(out: &mut Vec<u8>, status: u16, reason: &[u8]) -> Result<(), BadField> {
    if status == 200 && reason.is_empty() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return Ok(());
    }
    if !(200..=599).contains(&status) || !reason.iter().all(|&b| is_value_byte(b)) {
        return Err(BadField);
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(if reason.is_empty() { reason_phrase(status).as_bytes() } else { reason });
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// What the handler's fields say about things the server decides.
#[derive(Default)]
struct Facts {
    content_length: Option<u64>,
    close: bool,
    date: bool,
}

fn write_fields(out: &mut Vec<u8>, block: FieldBlock<'_>) -> Result<Facts, BadField> {
    let mut facts = Facts::default();
    let mut rest = block.bytes;
    for _ in 0..block.count {
        let name = take_line(&mut rest)?;
        let value = take_line(&mut rest)?;
        if name.is_empty()
            || !name.iter().all(|&b| is_token_byte(b))
            || !value.iter().all(|&b| is_value_byte(b))
        {
            return Err(BadField);
        }
        if !is_servers(name, value, &mut facts) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
    if rest.is_empty() { Ok(facts) } else { Err(BadField) }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadField> {
    let end = memchr::memchr(b'\n', rest).ok_or(BadField)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Ok(line)
}

/// Fields of the connection and the framing are the server's: a handler's are
/// heard where they make sense and never copied.
fn is_servers(name: &[u8], value: &[u8], facts: &mut Facts) -> bool {
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"date") => {
            facts.date = true;
            false
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            facts.content_length = parse_length(value);
            true
        }
        10 if name.eq_ignore_ascii_case(b"connection") => {
            facts.close |= value.split(|&b| b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"close"));
            true
        }
        17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
        10 => name.eq_ignore_ascii_case(b"keep-alive"),
        16 => name.eq_ignore_ascii_case(b"proxy-connection"),
        7 => name.eq_ignore_ascii_case(b"trailer") || name.eq_ignore_ascii_case(b"upgrade"),
        _ => false,
    }
}

fn write_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    write_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

fn write_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends the size line of a chunk.
pub fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    let mut text = [0u8; 16];
    let mut at = text.len();
    let mut rest = size;
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
    out.extend_from_slice(b"\r\n");
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110, section 5.5: visible characters, blanks, obs-text.
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// The usual reason phrase (RFC 9110, section 15, and the IANA registry).
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8; DATE_LEN] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const GET: RequestTraits = RequestTraits { minor: 1, is_head: false, keep_alive: true };
    const HEAD: RequestTraits = RequestTraits { is_head: true, ..GET };

    fn head<'a>(status: u16, block: &'a str, count: usize, body: BodySize) -> ResponseHead<'a> {
        let fields = FieldBlock { bytes: block.as_bytes(), count };
        ResponseHead { status, reason: b"", fields, default_type: DefaultType::None, body }
    }

    fn text(head: &ResponseHead<'_>, request: RequestTraits) -> (String, Promise) {
        let mut out = Vec::new();
        let promise = write_head(&mut out, head, request, DATE).expect("a valid head");
        (String::from_utf8(out).unwrap(), promise)
    }

    #[test]
    fn a_simple_response_is_written_whole() {
        let simple = ResponseHead { default_type: DefaultType::Text, ..head(200, "", 0, BodySize::Known(5)) };
        let (text, promise) = text(&simple, GET);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain;charset=UTF-8\r\n\
             date: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 5\r\n\r\n"
        );
        assert_eq!(promise, Promise { framing: Framing::Length(5), keep_alive: true });
    }

    #[test]
    fn framing_depends_on_status_method_and_version() {
        use BodySize::{Known, Stream};
        let old = RequestTraits { minor: 0, ..GET };
        let length = "content-length\n7\n";
        let table: &[(u16, &str, BodySize, RequestTraits, Framing, bool, &str)] = &[
            (200, "", Known(0), GET, Framing::Length(0), true, "content-length: 0\r\n"),
            (200, length, Known(3), GET, Framing::Length(3), true, "content-length: 3\r\n"),
            (200, "", Stream, GET, Framing::Chunked, true, "transfer-encoding: chunked\r\n"),
            (200, length, Stream, GET, Framing::Length(7), true, "content-length: 7\r\n"),
            (200, "", Stream, old, Framing::UntilClose, false, "connection: close\r\n"),
            (200, length, Stream, old, Framing::Length(7), true, "connection: keep-alive\r\n"),
            (200, "", Known(3), HEAD, Framing::NoBody, true, "content-length: 3\r\n"),
            (200, length, Known(0), HEAD, Framing::NoBody, true, "content-length: 7\r\n"),
            (205, "", Known(0), GET, Framing::NoBody, true, "content-length: 0\r\n"),
            (304, length, Known(0), GET, Framing::NoBody, true, "content-length: 7\r\n"),
            (200, "connection\nClose\n", Known(0), GET, Framing::Length(0), false, "connection: close\r\n"),
        ];
        for (status, block, body, request, framing, keep_alive, line) in table {
            let count = usize::from(!block.is_empty());
            let (text, promise) = text(&head(*status, block, count, *body), *request);
            assert_eq!(promise, Promise { framing: *framing, keep_alive: *keep_alive }, "{status} {block:?}");
            assert!(text.contains(line), "{text}");
        }
        for status in [204, 304] {
            let (text, _) = text(&head(status, "", 0, Known(0)), GET);
            assert!(!text.contains("content-length") && !text.contains("transfer-encoding"), "{text}");
        }
    }

    #[test]
    fn a_response_cannot_be_split() {
        for (block, count) in [
            ("a\nb\r\nset-cookie: x\n", 1),
            ("a\nb\nc\n", 1),
            ("a\nb\nc\nd\n", 1),
            ("a\nb\n", 2),
            ("a\nb", 1),
            ("\nb\n", 1),
            ("a b\nc\n", 1),
            ("a:\nc\n", 1),
            ("a\nb\0c\n", 1),
            ("a\nb\u{7f}\n", 1),
            ("a\nb\rc\n", 1),
            ("a\u{e9}\nb\n", 1),
        ] {
            let mut out = b"before".to_vec();
            let refused = write_head(&mut out, &head(200, block, count, BodySize::Known(0)), GET, DATE);
            assert_eq!((refused, &out[..]), (Err(BadField), &b"before"[..]), "{block:?}");
        }
        for reason in [&b"a\r\nb"[..], b"a\nb", b"\0"] {
            let bad = ResponseHead { reason, ..head(200, "", 0, BodySize::Known(0)) };
            assert_eq!(write_head(&mut Vec::new(), &bad, GET, DATE), Err(BadField));
        }
        for status in [0, 101, 199, 600] {
            assert!(
                write_head(&mut Vec::new(), &head(status, "", 0, BodySize::Known(0)), GET, DATE).is_err()
            );
        }
    }

    #[test]
    fn fields_of_the_connection_are_the_servers() {
        let block = "transfer-encoding\ngzip\nkeep-alive\n1\nupgrade\nh2c\nX-Y\nz\ndate\ntoday\n";
        let (text, _) = text(&head(404, block, 5, BodySize::Known(1)), GET);
        assert_eq!(text, "HTTP/1.1 404 Not Found\r\nX-Y: z\r\ndate: today\r\ncontent-length: 1\r\n\r\n");
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for (size, expected) in
            [(1, "1\r\n"), (16, "10\r\n"), (65_536, "10000\r\n"), (0xabcdef, "abcdef\r\n")]
        {
            let mut out = Vec::new();
            write_chunk_size(&mut out, size);
            assert_eq!(out, expected.as_bytes());
        }
    }
}
