//! The opening handshake, pure. RFC 6455, section 4.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::super::error::NetError;
use super::super::limits::MAX_RESPONSE_HEADERS;
use super::deflate;

/// Appended to the key before it is hashed.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a server answers to a key.
pub fn accept_value(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// A key: 16 bytes in base64.
pub fn is_key(key: &[u8]) -> bool {
    STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// A key that nobody else has.
pub fn new_key() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("getrandom(2) works");
    STANDARD.encode(bytes)
}

/// A client's request, with what it proves itself with, if anything.
pub fn request(
    target: &str,
    host: &str,
    key: &str,
    protocols: &[String],
    authorization: Option<&str>,
    user_agent: &str,
) -> Vec<u8> {
    let mut text = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nUser-Agent: {user_agent}\r\n\
         Sec-WebSocket-Extensions: {}\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n",
        deflate::AGREED
    );
    if let Some(authorization) = authorization {
        text.push_str(&format!("Authorization: {authorization}\r\n"));
    }
    if !protocols.is_empty() {
        text.push_str(&format!("Sec-WebSocket-Protocol: {}\r\n", protocols.join(", ")));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// What a server's answer is.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// More is to come.
    Partial,
    /// It agrees to talk, in this protocol of ours or none; how long its head is.
    Agreed {
        /// One of the protocols that were offered.
        protocol: String,
        /// Messages may be compressed.
        deflates: bool,
        /// Frames follow.
        head_bytes: usize,
    },
}

/// Understands a server's answer to a request with `key`.
///
/// # Errors
/// It does not agree, or is no HTTP.
pub fn reply(bytes: &[u8], key: &str, offered: &[String]) -> Result<Reply, NetError> {
    let refused = |text: String| Err(NetError::new("ERR_WEBSOCKET", text));
    let mut fields = vec![httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(Reply::Partial),
        Err(error) => return refused(format!("the answer is no HTTP: {error}")),
    };
    if response.code != Some(101) {
        return refused(format!("the server answered with status {}, not 101", response.code.unwrap_or(0)));
    }
    let values = |name: &'static str| {
        response
            .headers
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    let has_token = |name, token: &str| {
        values(name).any(|value| {
            value
                .split(|byte| *byte == b',')
                .any(|word| word.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        })
    };
    if !has_token("upgrade", "websocket") || !has_token("connection", "upgrade") {
        return refused("the server does not change to the WebSocket protocol".to_owned());
    }
    let accepts: Vec<&[u8]> = values("sec-websocket-accept").collect();
    if accepts.len() != 1 || accepts[0].trim_ascii() != accept_value(key.as_bytes()).as_bytes() {
        return refused("the server has not understood the handshake".to_owned());
    }
    let extensions: Vec<&[u8]> =
        values("sec-websocket-extensions").filter(|value| !value.trim_ascii().is_empty()).collect();
    let deflates = !extensions.is_empty();
    if deflates && !matches!(extensions[..], [one] if deflate::agrees(&String::from_utf8_lossy(one))) {
        return refused("the server uses an extension otherwise than it was offered".to_owned());
    }
    let chosen: Vec<&[u8]> = values("sec-websocket-protocol").collect();
    let protocol = match chosen[..] {
        [] => String::new(),
        [one] => String::from_utf8_lossy(one.trim_ascii()).into_owned(),
        _ => return refused("the server chooses several protocols".to_owned()),
    };
    if !chosen.is_empty() && !offered.contains(&protocol) {
        return refused(format!("the server chooses the protocol '{protocol}', which nobody has offered"));
    }
    Ok(Reply::Agreed { protocol, deflates, head_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(accept_value(KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key(KEY.as_bytes()) && is_key(new_key().as_bytes()) && !is_key(b"dGhl") && !is_key(b"!"));
        assert_ne!(new_key(), new_key());
        let offered = ["chat".to_owned()];
        let deflate = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
        for (more, protocol) in [("", ""), ("Sec-WebSocket-Protocol: chat\r\n", "chat"), (deflate, "")] {
            let text = format!("{GOOD}{more}\r\n");
            let deflates = more == deflate;
            let expected = Reply::Agreed { protocol: protocol.to_owned(), deflates, head_bytes: text.len() };
            assert_eq!(reply(format!("{text}frames").as_bytes(), KEY, &offered), Ok(expected));
            for cut in 0..text.len() {
                assert_eq!(reply(&text.as_bytes()[..cut], KEY, &offered), Ok(Reply::Partial));
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let offered = ["chat".to_owned()];
        for text in [
            "HTTP/1.1 200 OK\r\n\r\n".to_owned(),
            "no http\r\n\r\n".to_owned(),
            format!("{GOOD}\r\n").replace("WebSocket\r", "h2c\r"),
            format!("{GOOD}\r\n").replace(", Upgrade", ""),
            format!("{GOOD}\r\n").replace("s3pP", "s3pQ"),
            format!("{GOOD}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
            format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
            format!("{GOOD}Sec-WebSocket-Protocol: other\r\n\r\n"),
            format!("{GOOD}Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
        ] {
            assert!(reply(text.as_bytes(), KEY, &offered).is_err(), "{text}");
        }
    }
}
