//! `data:` URLs. <https://fetch.spec.whatwg.org/#data-url-processor>

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::web::mime_type::MimeType;

/// "Forgiving-base64 decode" of the Infra standard, once white space is gone.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The MIME type and the bytes of a serialised URL.
pub fn parse(url: &str) -> Option<(String, Vec<u8>)> {
    let url = url.split('#').next()?;
    let (kind, data) = url.strip_prefix("data:")?.split_once(',')?;
    let mut kind = kind.trim_matches([' ', '\t', '\n', '\r']);
    let mut bytes = percent_decode(data.as_bytes());
    if let Some(rest) = without_base64(kind) {
        kind = rest;
        bytes.retain(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c));
        if bytes.len() % 4 == 1 || (bytes.contains(&b'=') && !bytes.len().is_multiple_of(4)) {
            return None;
        }
        bytes = FORGIVING.decode(&bytes).ok()?;
    }
    let parsed = match kind.starts_with(';') {
        true => MimeType::parse(&format!("text/plain{kind}")),
        false => MimeType::parse(kind),
    };
    Some((parsed.map_or_else(|| "text/plain;charset=US-ASCII".to_owned(), |kind| kind.to_string()), bytes))
}

/// What stands before `;base64`, if the type ends so.
fn without_base64(kind: &str) -> Option<&str> {
    let at = kind.len().checked_sub("base64".len())?;
    let (rest, last) = (kind.get(..at)?, kind.get(at..)?);
    if !last.eq_ignore_ascii_case("base64") {
        return None;
    }
    rest.trim_end_matches(' ').strip_suffix(';')
}

/// Bytes of a URL's part with what is percent-encoded decoded. <https://url.spec.whatwg.org/#percent-decode>
pub fn percent_decode(data: &[u8]) -> Vec<u8> {
    let digit = |at: usize| data.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let mut bytes = Vec::with_capacity(data.len());
    let mut at = 0;
    while at < data.len() {
        match (data[at], digit(at + 1), digit(at + 2)) {
            #[allow(clippy::cast_possible_truncation)]
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, ..) => {
                bytes.push(byte);
                at += 1;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs as the standard's own examples and web-platform-tests have them.
    #[test]
    fn urls_give_their_type_and_bytes() {
        for (url, kind, bytes) in [
            ("data:,X", "text/plain;charset=US-ASCII", &b"X"[..]),
            ("data:,%FF%zz#x", "text/plain;charset=US-ASCII", b"\xff%zz"),
            ("data:text/html,X", "text/html", b"X"),
            ("data:;charset=x,X", "text/plain;charset=x", b"X"),
            ("data:Text/HTML ;Charset=\"a b\";charset=c,X", "text/html;charset=\"a b\"", b"X"),
            ("data:text/plain;a;b=;c=d ,X", "text/plain;c=d", b"X"),
            ("data:;base64,WA==", "text/plain;charset=US-ASCII", b"X"),
            ("data:a/b; BASE64,W%20A", "a/b", b"X"),
            ("data:;base64;,WA", "text/plain", b"WA"),
            ("data:x;base64x,WA", "text/plain;charset=US-ASCII", b"WA"),
        ] {
            let (its_kind, its_bytes) = parse(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!((its_kind.as_str(), its_bytes.as_slice()), (kind, bytes), "{url}");
        }
        for url in ["data:", "data:x", "data:;base64,W", "data:;base64,WA=", "data:;base64,W!==", "blob:,x"] {
            assert_eq!(parse(url), None, "{url}");
        }
    }
}
