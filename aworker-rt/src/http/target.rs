//! The URL of a request: the origin its `Host` (or absolute-form target)
//! names, and the target, as the URL standard would serialise them.
//!
//! Almost every target is serialised already; only the others cost a URL parse.

use url::Url;

use super::head::{Head, absolute_authority};

/// The origin of an HTTP/1.0 request without a `Host` field.
const NAMELESS_HOST: &str = "localhost";

/// The serialised origin of the last host seen: a worker has few names.
#[derive(Debug, Default)]
pub struct OriginCache {
    host: Vec<u8>,
    origin: String,
}

impl OriginCache {
    /// The origin of a host, `http://host[:port]`; `None` if no URL can have it.
    pub fn get(&mut self, host: &[u8]) -> Option<&str> {
        if self.origin.is_empty() || self.host != host {
            let origin = parse_origin(std::str::from_utf8(host).ok()?)?;
            self.host.clear();
            self.host.extend_from_slice(host);
            self.origin = origin;
        }
        Some(&self.origin)
    }
}

fn parse_origin(host: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{host}/")).ok()?;
    Some(url.origin().ascii_serialization())
}

/// The host a request is for, and its path and query.
pub fn host_and_path<'a>(head: &Head, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let target = head.target.get(bytes);
    if target.first() != Some(&b'/') {
        let text = std::str::from_utf8(target).unwrap_or_default();
        if let Some(authority) = absolute_authority(text) {
            return (authority.as_bytes(), &target["http://".len() + authority.len()..]);
        }
    }
    let host = head.host.map_or(NAMELESS_HOST.as_bytes(), |host| host.get(bytes));
    (host, target)
}

/// Appends the URL of `path` (path and query, or `*`) under `origin`.
pub fn write_url(url: &mut Vec<u8>, origin: &str, path: &[u8]) {
    url.extend_from_slice(origin.as_bytes());
    if path.first() != Some(&b'/') {
        url.push(b'/');
    }
    url.extend_from_slice(path);
    if !is_serialised(path) {
        let text = String::from_utf8_lossy(url);
        if let Ok(parsed) = Url::parse(&text) {
            let serialised = String::from(parsed);
            url.clear();
            url.extend_from_slice(serialised.as_bytes());
        }
    }
}

/// Whether the URL parser would leave path and query as they are: no dot
/// segment, plain or encoded, and no character it would encode or replace.
fn is_serialised(path: &[u8]) -> bool {
    let mut before = b'/';
    for (at, &byte) in path.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {}
            b'/' | b'-' | b'_' | b'~' | b'!' | b'$' | b'&' | b'(' | b')' | b'*' | b'+' | b',' | b';'
            | b'=' | b':' | b'@' => {}
            b'.' if before != b'/' => {}
            // An encoded dot may be part of a dot segment.
            b'%' if path.get(at + 1) != Some(&b'2') => {}
            b'?' => return path[at..].iter().all(|b| !matches!(b, b'"' | b'<' | b'>' | b'\'' | b'#')),
            _ => return false,
        }
        before = byte;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_what_the_url_parser_makes_of_them() {
        for path in [
            "/",
            "/a/b.c?d=e&f=%20%2e'",
            "/a/../b",
            "/a/%2e%2E/b",
            "/./x",
            "/a.b/..c/.d",
            "/a\\b",
            "/a|b^c`{}",
            "/%zz%2",
            "//host/x",
            "/a?b\"c<d>e",
            "/x;y=1,2@:z!$&()*+~",
            "/a?b?c/../d",
            "?q",
            "",
            "/'",
        ] {
            let mut url = Vec::new();
            write_url(&mut url, "http://a.example:81", path.as_bytes());
            let slash = if path.starts_with('/') { "" } else { "/" };
            let parsed = Url::parse(&format!("http://a.example:81{slash}{path}")).unwrap();
            assert_eq!(String::from_utf8(url).unwrap(), parsed.as_str(), "{path:?}");
        }
    }

    #[test]
    fn origins_are_normalised_and_remembered() {
        let mut cache = OriginCache::default();
        assert_eq!(cache.get(b"Example.COM:80"), Some("http://example.com"));
        assert_eq!(cache.get(b"127.1:8080"), Some("http://127.0.0.1:8080"));
        assert_eq!(cache.get(b"[::0:1]:81"), Some("http://[::1]:81"));
        assert_eq!(cache.get(b"a:99999"), None);
        assert_eq!(cache.get(b"1.2.3.4.5"), None);
        assert_eq!(cache.get(b"[::0:1]:81"), Some("http://[::1]:81"));
    }
}
