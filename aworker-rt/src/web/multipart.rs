//! multipart/form-data as `formData()` reads it: the content type, and the parts of
//! a body that is all there. Encoding is in `51_form_data.js`.
//!
//! Strict where senders agree: a part needs `Content-Disposition: form-data` with a
//! name, and what follows a delimiter must be its end. A preamble and an epilogue
//! are ignored, as RFC 2046 says; nested multiparts do not exist (RFC 7578, 4.3).
//! <https://fetch.spec.whatwg.org/#dom-body-formdata>, RFC 7578, RFC 2046 section 5.1

use std::ops::Range;

use super::{bytes, encoding};

/// Most entries of a form that is read from a body: an entry costs far more memory
/// than the two bytes it may take on the wire.
pub const MAX_PARTS: usize = 16_384;

/// Most bytes of one part's header fields; browsers send a few hundred.
pub const MAX_PART_HEAD_BYTES: usize = 16 * 1024;

/// Most characters of a boundary (RFC 2046 section 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// What a body with this content type holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    UrlEncoded,
    /// With the boundary.
    Multipart(String),
}

/// Reads a content type; `None` if it is not that of a form. When the header was
/// sent several times, the last value that is a MIME type counts ("extract a MIME type").
pub(crate) fn form_of(content_type: &str) -> Option<Form> {
    let essences = split_outside_quotes(content_type, b',');
    let last = essences.into_iter().rev().find(|value| {
        let (essence, _) = value.split_once(';').unwrap_or((value, ""));
        let essence = essence.trim_matches(is_http_space);
        essence != "*/*"
            && essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
    })?;
    let mut pieces = split_outside_quotes(last, b';').into_iter();
    let essence = pieces.next()?.trim_matches(is_http_space).to_ascii_lowercase();
    match essence.as_str() {
        "application/x-www-form-urlencoded" => Some(Form::UrlEncoded),
        "multipart/form-data" => {
            let boundary = pieces.find_map(|piece| {
                let (name, value) = piece.split_once('=')?;
                name.trim_matches(is_http_space)
                    .eq_ignore_ascii_case("boundary")
                    .then(|| unquoted(value.trim_matches(is_http_space)))
            })?;
            (!boundary.is_empty() && boundary.len() <= MAX_BOUNDARY_BYTES && !boundary.contains(['\r', '\n']))
                .then_some(Form::Multipart(boundary))
        }
        _ => None,
    }
}

fn is_http_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The pieces of a text between separators that are not inside quotes.
fn split_outside_quotes(text: &str, separator: u8) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

/// The value of a token or of a quoted string.
fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => text.extend(characters.next()),
            _ => text.push(character),
        }
    }
    text
}

/// One part of a form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// UTF-8, not yet checked.
    name: Vec<u8>,
    /// There for a file.
    filename: Option<Vec<u8>>,
    content_type: Option<Vec<u8>>,
    pub(crate) body: Range<usize>,
}

/// Cuts a body into its parts.
///
/// # Errors
/// What is wrong with the body, for a person.
pub(crate) fn parse(body: &[u8], boundary: &str) -> Result<Vec<Part>, &'static str> {
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    let finder = memchr::memmem::Finder::new(&delimiter);
    let mut parts = Vec::new();
    // The first delimiter may lack the line break before it.
    let mut at = match body.starts_with(&delimiter[2..]) {
        true => delimiter.len() - 2,
        false => finder.find(body).ok_or("the multipart body has no boundary")? + delimiter.len(),
    };
    loop {
        if body[at..].starts_with(b"--") {
            return Ok(parts);
        }
        // "Transport padding" may follow a boundary.
        let padding = body[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        at += padding;
        if !body[at..].starts_with(b"\r\n") {
            return Err("a multipart boundary is not followed by a line break");
        }
        if parts.len() == MAX_PARTS {
            return Err("the form has too many entries");
        }
        let (mut part, start) = parse_head(body, at + 2)?;
        // A part without content may end with the line break that ends its head.
        let end = start - 2 + finder.find(&body[start - 2..]).ok_or("the multipart body is cut off")?;
        part.body = start..end.max(start);
        at = end + delimiter.len();
        parts.push(part);
    }
}

/// Reads the header fields that begin at `at`; also where the part's content begins.
fn parse_head(body: &[u8], mut at: usize) -> Result<(Part, usize), &'static str> {
    let limit = body.len().min(at + MAX_PART_HEAD_BYTES);
    let mut disposition = None;
    let mut content_type = None;
    loop {
        let Some(length) = memchr::memmem::find(&body[at..limit], b"\r\n") else {
            return Err(if limit < body.len() {
                "a part's head is too long"
            } else {
                "the multipart body is cut off"
            });
        };
        let line = &body[at..at + length];
        at += length + 2;
        if line.is_empty() {
            break;
        }
        let colon = memchr::memchr(b':', line).ok_or("a part's header has no colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-disposition") {
            disposition = Some(parse_disposition(value)?);
        } else if name.eq_ignore_ascii_case(b"content-type") {
            content_type = Some(value.to_vec());
        }
    }
    let (name, filename) = disposition.ok_or("a part has no Content-Disposition")?;
    Ok((Part { name, filename, content_type, body: 0..0 }, at))
}

/// Name and file name of `form-data; name="..."; filename="..."`.
fn parse_disposition(value: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), &'static str> {
    const BROKEN: &str = "a part's Content-Disposition is malformed";
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    if !value[..end].trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err("a part's Content-Disposition is not form-data");
    }
    let mut rest = &value[end..];
    let (mut name, mut filename) = (None, None);
    while let Some(parameter) = rest.strip_prefix(b";") {
        let parameter = parameter.trim_ascii_start();
        if parameter.is_empty() {
            break;
        }
        let equals = memchr::memchr(b'=', parameter).ok_or(BROKEN)?;
        let key = parameter[..equals].trim_ascii();
        let raw = parameter[equals + 1..].trim_ascii_start();
        let (text, after) = match raw.strip_prefix(b"\"") {
            Some(quoted) => {
                let close = memchr::memchr(b'"', quoted).ok_or(BROKEN)?;
                (unescape(&quoted[..close]), &quoted[close + 1..])
            }
            None => {
                let close = memchr::memchr(b';', raw).unwrap_or(raw.len());
                (raw[..close].trim_ascii_end().to_vec(), &raw[close..])
            }
        };
        rest = after.trim_ascii_start();
        if key.eq_ignore_ascii_case(b"name") {
            name.get_or_insert(text);
        } else if key.eq_ignore_ascii_case(b"filename") {
            filename.get_or_insert(text);
        }
    }
    if !rest.is_empty() && !rest.starts_with(b";") {
        return Err(BROKEN);
    }
    Ok((name.ok_or("a part has no name")?, filename))
}

/// Undoes the three escapes of the HTML standard; other percent signs are themselves.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [b'0', b'A' | b'a', ..]) => Some(b'\n'),
            (b'%', [b'0', b'D' | b'd', ..]) => Some(b'\r'),
            (b'%', [b'2', b'2', ..]) => Some(b'"'),
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    out
}

/// `ops.form_boundary(content_type)`: the boundary of multipart/form-data, null for
/// application/x-www-form-urlencoded, undefined for anything else.
pub(crate) fn form_boundary(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    match form_of(&arguments.get(0).to_rust_string_lossy(scope)) {
        Some(Form::UrlEncoded) => result.set_null(),
        Some(Form::Multipart(boundary)) => {
            if let Some(boundary) = v8::String::new(scope, &boundary) {
                result.set(boundary.into());
            }
        }
        None => {}
    }
}

/// `ops.multipart_parse(view, boundary)`: an array of five values for each part, or
/// a string that says what is wrong. They are: name; file name or undefined; text, or
/// content type of a file; first and last position of a file's bytes in the view.
pub(crate) fn multipart_parse(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let boundary = arguments.get(1).to_rust_string_lossy(scope);
    let values = bytes::read(arguments.get(0), |body| {
        let parts = parse(body, &boundary)?;
        part_values(scope, body, &parts).ok_or("a text of the form is too long")
    });
    match values {
        Some(Ok(values)) => result.set(v8::Array::new_with_elements(scope, &values).into()),
        Some(Err(message)) => result.set(crate::engine::conversions::string(scope, message).into()),
        None => {}
    }
}

fn part_values<'s>(
    scope: &v8::PinScope<'s, '_>,
    body: &[u8],
    parts: &[Part],
) -> Option<Vec<v8::Local<'s, v8::Value>>> {
    let text = |bytes: &[u8]| encoding::decode_utf8(scope, bytes, false, true);
    let mut values: Vec<v8::Local<v8::Value>> = Vec::with_capacity(5 * parts.len());
    for part in parts {
        values.push(text(&part.name)?.into());
        match &part.filename {
            Some(filename) => {
                values.push(text(filename)?.into());
                values.push(text(part.content_type.as_deref().unwrap_or(b"text/plain"))?.into());
            }
            None => {
                values.push(v8::undefined(scope).into());
                values.push(text(&body[part.body.clone()])?.into());
            }
        }
        for position in [part.body.start, part.body.end] {
            #[allow(clippy::cast_precision_loss)]
            values.push(v8::Number::new(scope, position as f64).into());
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::{Form, MAX_PART_HEAD_BYTES, MAX_PARTS, Part, form_of, parse};

    fn multipart(boundary: &str) -> Option<Form> {
        Some(Form::Multipart(boundary.to_owned()))
    }

    #[test]
    fn the_content_type_tells_the_kind_of_form() {
        for (text, form) in [
            ("multipart/form-data; boundary=abc", multipart("abc")),
            ("Multipart/Form-Data;charset=x; BOUNDARY=\"a b\\\"c;,\" ; y", multipart("a b\"c;,")),
            ("text/plain, multipart/form-data;boundary=1", multipart("1")),
            ("multipart/form-data;boundary=1, nonsense", multipart("1")),
            ("application/x-www-form-urlencoded;charset=UTF-8", Some(Form::UrlEncoded)),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=a, text/plain", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(form_of(text), form, "{text}");
        }
        assert_eq!(form_of(&format!("multipart/form-data; boundary={}", "x".repeat(71))), None);
    }

    /// (name, file name, content type, content) of each part.
    type Shown = Vec<(String, Option<String>, Option<String>, String)>;

    fn show(body: &[u8], parts: &[Part]) -> Shown {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = parts.iter().map(|part| {
            (
                text(&part.name),
                part.filename.as_deref().map(text),
                part.content_type.as_deref().map(text),
                text(&body[part.body.clone()]),
            )
        });
        shown.collect()
    }

    #[test]
    fn parts_are_found_with_their_names_types_and_contents() {
        let body = b"preamble\r\n--b\r\nContent-Disposition: form-data; name=\"a%22%0d%0A%41\"\r\n\r\nx\r\n--c\r\n--b \t\r\n\
            content-type: image/png\r\nX: y\r\nCONTENT-DISPOSITION:form-data;filename=\"f;=.png\" ; name=n\r\n\r\n\r\n--b\r\n\
            Content-Disposition: form-data; name=\"\"; filename*=x; filename=\"\"\r\n\r\n\r\n\r\n--b--\r\nepilogue\r\n--b";
        let parts = parse(body, "b").expect("a form");
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(
            show(body, &parts),
            [
                ("a\"\r\n%41".into(), None, None, "x\r\n--c".into()),
                ("n".into(), owned("f;=.png"), owned("image/png"), String::new()),
                (String::new(), owned(""), None, "\r\n".into()),
            ]
        );
        assert_eq!(parse(b"--b--", "b"), Ok(vec![]));
        assert_eq!(parse(b"\r\n--b--\r\n", "b"), Ok(vec![]));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let head = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n";
        for body in [
            "",
            "x",
            "--b",
            "--bx\r\n",
            "--b\r\n",
            "--b\r\n\r\nx\r\n--b--",
            "--b\r\nno colon\r\n\r\nx\r\n--b--",
            "--b\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--b--",
            "--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
            "--b\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--b--",
            "--b\r\nContent-Disposition: form-data; name=\"a\"b\r\n\r\nx\r\n--b--",
            &format!("{head}x"),
            &format!("{head}x\r\n--b"),
            &format!("{head}x\r\n--bx"),
            &format!("--b\r\nX: {}\r\n\r\n\r\n--b--", "x".repeat(MAX_PART_HEAD_BYTES)),
        ] {
            assert!(parse(body.as_bytes(), "b").is_err(), "{body:?}");
        }
    }

    #[test]
    fn the_number_of_parts_is_limited() {
        let part = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n";
        let whole = |count| format!("{}--b--", part.repeat(count));
        assert_eq!(parse(whole(MAX_PARTS).as_bytes(), "b").map(|parts| parts.len()), Ok(MAX_PARTS));
        assert!(parse(whole(MAX_PARTS + 1).as_bytes(), "b").is_err());
    }

    /// xorshift64: the runs are the same every time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % limit as u64).expect("below the limit")
        }
    }

    #[test]
    fn random_bodies_never_panic_and_parts_lie_in_order_within_them() {
        const PIECES: [&[u8]; 16] = [
            b"--b",
            b"\r\n",
            b"--",
            b"\r",
            b"\n",
            b"Content-Disposition: form-data",
            b"; name=",
            b"; filename=",
            b"\"",
            b"%22",
            b"a",
            b":",
            b"Content-Type: x/y",
            b" ",
            b"\xff",
            b"\r\n--b\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\n",
        ];
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut body = Vec::new();
            for _ in 0..random.below(24) {
                body.extend_from_slice(PIECES[random.below(PIECES.len())]);
            }
            let Ok(parts) = parse(&body, "b") else { continue };
            accepted += usize::from(!parts.is_empty());
            let mut last = 0;
            for part in parts {
                assert!(
                    last <= part.body.start
                        && part.body.start <= part.body.end
                        && part.body.end <= body.len()
                );
                last = part.body.end;
            }
        }
        assert!(accepted > 1000, "only {accepted} bodies were forms");
    }
}
