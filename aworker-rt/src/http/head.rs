//! The head of an HTTP/1.x request: request line and header fields, parsed in
//! place into offsets (RFC 9112, sections 2 to 5 and 7.1; RFC 9110, section 5).
//!
//! `httparse` does the tokens. It is more lenient than a server behind proxies
//! may be, so everything two parsers could read differently is refused here:
//! see the table in [`super`].

use std::mem::MaybeUninit;

use super::limits::{MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES};

/// A range of bytes inside a head. Heads are shorter than 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    start: u16,
    len: u16,
}

const _: () = assert!(MAX_HEAD_BYTES <= u16::MAX as usize);

impl Span {
    fn of(part: &[u8], head: &[u8]) -> Span {
        let start = part.as_ptr().addr() - head.as_ptr().addr();
        Span { start: start as u16, len: part.len() as u16 }
    }

    /// The bytes this span names in `head`.
    pub fn get(self, head: &[u8]) -> &[u8] {
        &head[self.start as usize..self.start as usize + self.len as usize]
    }

    /// The same, to be changed.
    pub fn get_mut(self, head: &mut [u8]) -> &mut [u8] {
        &mut head[self.start as usize..self.start as usize + self.len as usize]
    }
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body.
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
}

/// A valid request head. Spans are offsets into the bytes it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, the empty line included.
    pub len: usize,
    /// The method, a token.
    pub method: Span,
    /// The request target as sent.
    pub target: Span,
    /// The `Host` field's value, absent only with HTTP/1.0.
    pub host: Option<Span>,
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// The method is HEAD: the response has no body.
    pub is_head: bool,
    /// The client wants the connection kept after this request.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client's key, if it asks for a WebSocket.
    pub websocket_key: Option<Span>,
    /// How the body is delimited.
    pub framing: BodyFraming,
}

/// Name and value of every header field, in the order received.
pub type HeaderSpans = Vec<(Span, Span)>;

/// What [`parse`] made of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head is not complete yet.
    Partial,
    /// A complete, valid head.
    Complete(Head),
    /// The request must be refused with this status and the connection closed.
    Refused(u16),
}

/// Parses the head at the start of `data`; `headers` is filled anew.
///
/// A head that is longer than [`MAX_HEAD_BYTES`] is refused with 431 (414 when
/// it is the target that is too long), complete or not.
pub fn parse(data: &[u8], headers: &mut HeaderSpans) -> Parsed {
    headers.clear();
    let mut fields = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let status = match request.parse_with_uninit_headers(data, &mut fields) {
        Ok(status) => status,
        Err(httparse::Error::Version) => return Parsed::Refused(505),
        Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(431),
        Err(_) => return Parsed::Refused(400),
    };
    let len = match status {
        httparse::Status::Complete(len) if len <= MAX_HEAD_BYTES => len,
        httparse::Status::Complete(_) => return Parsed::Refused(too_long(data)),
        httparse::Status::Partial if data.len() < MAX_HEAD_BYTES => return Parsed::Partial,
        httparse::Status::Partial => return Parsed::Refused(too_long(data)),
    };
    let data = &data[..len];
    if !lines_end_with_crlf(data) {
        return Parsed::Refused(400);
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Parsed::Refused(400);
    };
    if target.len() > MAX_TARGET_BYTES {
        return Parsed::Refused(414);
    }
    let mut head = Head {
        len,
        method: Span::of(method.as_bytes(), data),
        target: Span::of(target.as_bytes(), data),
        host: None,
        minor,
        is_head: method == "HEAD",
        keep_alive: minor == 1,
        expects_continue: false,
        websocket_key: None,
        framing: BodyFraming::None,
    };
    if let Err(status) = check_request_line(method, target) {
        return Parsed::Refused(status);
    }
    let mut fold = FieldFold::default();
    for field in request.headers.iter() {
        let name = field.name.as_bytes();
        headers.push((Span::of(name, data), Span::of(field.value, data)));
        if let Err(status) = fold.add(name, field.value, &mut head, data) {
            return Parsed::Refused(status);
        }
    }
    match fold.finish(&mut head) {
        Ok(()) => Parsed::Complete(head),
        Err(status) => Parsed::Refused(status),
    }
}

fn too_long(data: &[u8]) -> u16 {
    let line = memchr::memchr(b'\n', data).unwrap_or(data.len());
    if line > MAX_TARGET_BYTES { 414 } else { 431 }
}

/// Every line ends with CRLF; a lone LF is never a line end (httparse takes
/// it as one) and a lone CR has been refused by httparse.
fn lines_end_with_crlf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

fn check_request_line(method: &str, target: &str) -> Result<(), u16> {
    // CONNECT asks for a tunnel and TRACE for an echo of credentials: neither
    // is a request a fetch handler may see (Fetch, "forbidden method").
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(501);
    }
    let bytes = target.as_bytes();
    if !bytes.iter().all(|&b| b.is_ascii_graphic() && b != b'#') {
        return Err(400);
    }
    match bytes.first() {
        Some(b'/') => Ok(()),
        Some(b'*') if bytes.len() == 1 && method == "OPTIONS" => Ok(()),
        _ => match absolute_authority(target) {
            Some(authority) if is_authority(authority.as_bytes()) => Ok(()),
            _ => Err(400),
        },
    }
}

/// The authority of an absolute-form target with the scheme http.
pub fn absolute_authority(target: &str) -> Option<&str> {
    let scheme = target.get(..7)?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return None;
    }
    let rest = &target[7..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// `host [":" port]` without user information: characters of reg-name, IPv4
/// or a bracketed IPv6 address (RFC 3986, section 3.2.2).
fn is_authority(bytes: &[u8]) -> bool {
    let (host, rest) = match bytes.first() {
        None => return false,
        Some(b'[') => {
            let Some(end) = bytes.iter().position(|&b| b == b']') else { return false };
            if !bytes[1..end].iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
                return false;
            }
            bytes.split_at(end + 1)
        }
        Some(_) => bytes.split_at(bytes.iter().position(|&b| b == b':').unwrap_or(bytes.len())),
    };
    let host_ok = host.first() == Some(&b'[')
        || host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(b));
    let port_ok = match rest {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !host.is_empty() && host_ok && port_ok
}

/// What the fields of one head say together about framing and connection.
#[derive(Default)]
struct FieldFold {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl FieldFold {
    fn add(&mut self, name: &[u8], value: &[u8], head: &mut Head, data: &[u8]) -> Result<(), u16> {
        // The length tells most names apart before any byte is compared.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if head.host.is_some() || !is_authority(value) {
                    return Err(400);
                }
                head.host = Some(Span::of(value, data));
            }
            6 if name.eq_ignore_ascii_case(b"expect") && head.minor == 1 => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(417);
                }
                head.expects_continue = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for token in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                    self.close |= token.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse_length(value).ok_or(400u16)?;
                if self.content_length.replace(length).is_some() {
                    return Err(400);
                }
            }
            17 if name.eq_ignore_ascii_case(b"sec-websocket-key") => {
                head.websocket_key = Some(Span::of(value, data));
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || head.minor == 0 {
                    return Err(400);
                }
                check_transfer_encoding(value)?;
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, head: &mut Head) -> Result<(), u16> {
        if head.host.is_none() && head.minor == 1 {
            return Err(400);
        }
        head.keep_alive = !self.close && (head.minor == 1 || self.keep_alive);
        head.framing = match (self.content_length, self.chunked) {
            (Some(_), true) => return Err(400),
            (None, true) => BodyFraming::Chunked,
            (None | Some(0), false) => BodyFraming::None,
            (Some(length), false) => BodyFraming::Length(length),
        };
        head.expects_continue &= head.framing != BodyFraming::None;
        Ok(())
    }
}

/// `1*DIGIT` that fits; no sign, no blank, no list.
pub fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Only `chunked`. A list that ends with chunked names a coding the server
/// does not have (501); anything else cannot be framed (400).
fn check_transfer_encoding(value: &[u8]) -> Result<(), u16> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let codings: Vec<&[u8]> = value.split(|&b| b == b',').map(<[u8]>::trim_ascii).collect();
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let known = |coding: &&[u8]| {
        [b"gzip".as_slice(), b"deflate", b"compress", b"x-gzip", b"br"]
            .iter()
            .any(|k| coding.eq_ignore_ascii_case(k))
    };
    match codings.split_last() {
        Some((last, others)) if is_chunked(last) && !others.is_empty() && others.iter().all(known) => {
            Err(501)
        }
        _ => Err(400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(head: &str) -> Parsed {
        parse(head.as_bytes(), &mut Vec::new())
    }

    fn complete(head: &str) -> Head {
        match outcome(head) {
            Parsed::Complete(head) => head,
            other => panic!("{head:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_plain_request_is_read() {
        let text = "GET /a?b HTTP/1.1\r\nHost: x:80\r\nAccept: */*\r\n\r\nrest";
        let mut headers = Vec::new();
        let Parsed::Complete(head) = parse(text.as_bytes(), &mut headers) else { panic!() };
        assert_eq!(head.len, text.len() - 4);
        assert_eq!(head.method.get(text.as_bytes()), b"GET");
        assert_eq!(head.target.get(text.as_bytes()), b"/a?b");
        assert_eq!(head.host.unwrap().get(text.as_bytes()), b"x:80");
        assert!(head.keep_alive && !head.is_head && head.framing == BodyFraming::None);
        let (name, value) = headers[1];
        assert_eq!((name.get(text.as_bytes()), value.get(text.as_bytes())), (&b"Accept"[..], &b"*/*"[..]));
    }

    #[test]
    fn ambiguous_heads_get_the_documented_answer() {
        let table: &[(&str, u16)] = &[
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nno-colon\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
            ("GET /\r\n\r\n", 400),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                400,
            ),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: tea\r\n\r\n", 417),
        ];
        for (head, status) in table {
            assert_eq!(outcome(head), Parsed::Refused(*status), "{head:?}");
        }
    }

    #[test]
    fn framing_and_persistence_follow_the_version() {
        let old = complete("GET / HTTP/1.0\r\n\r\n");
        assert!(!old.keep_alive && old.host.is_none());
        assert!(complete("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(!complete("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").keep_alive);
        let chunked = complete("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n");
        assert_eq!(chunked.framing, BodyFraming::Chunked);
        let length =
            complete("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 07\r\nExpect: 100-Continue\r\n\r\n");
        assert_eq!((length.framing, length.expects_continue), (BodyFraming::Length(7), true));
        assert!(!complete("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").expects_continue);
        assert!(
            !complete("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
                .expects_continue
        );
    }

    #[test]
    fn other_target_forms_are_read() {
        complete("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
        complete("GET http://b.example:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n");
        complete("GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n");
        complete("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n");
        complete("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(absolute_authority("http://b:1?x/y"), Some("b:1"));
    }

    #[test]
    fn long_heads_are_refused_whether_complete_or_not() {
        let long = "x".repeat(MAX_HEAD_BYTES);
        assert_eq!(outcome(&format!("GET /{long}")), Parsed::Refused(414));
        let target = "x".repeat(MAX_TARGET_BYTES + 1);
        assert_eq!(outcome(&format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n")), Parsed::Refused(414));
        assert_eq!(outcome(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}")), Parsed::Refused(431));
        let closed = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
        assert_eq!(outcome(&closed), Parsed::Refused(431));
        let many = "X: y\r\n".repeat(MAX_HEADERS);
        assert_eq!(outcome(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), Parsed::Refused(431));
    }
}
