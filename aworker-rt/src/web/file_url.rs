//! The states of the URL parser that belong to `file:` alone. The `url` crate drops
//! hosts before drive letters and empty segments, which the standard keeps.
//! <https://url.spec.whatwg.org/#file-state>

use url::Url;

/// Stands for "no query" and the like among the positions.
const NONE: u32 = u32::MAX;

/// A `file:` URL.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FileUrl {
    host: String,
    path: Vec<String>,
    query: Option<String>,
    fragment: Option<String>,
}

/// What [`FileUrl::parse`] makes of a text.
pub(super) enum Parsed {
    /// It is, or would be, no `file:` URL.
    OtherScheme,
    /// It is not valid.
    Invalid,
    /// Here it is.
    Url(FileUrl),
}

impl FileUrl {
    /// Parses a text, relative to a base if there is one.
    pub(super) fn parse(text: &str, base: Option<&str>) -> Parsed {
        let trimmed = text.trim_matches(|character| character <= ' ');
        let input: String = trimmed.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
        let base = match base.map(|base| FileUrl::parse(base, None)) {
            Some(Parsed::Url(base)) => Some(base),
            _ => None,
        };
        let rest = match scheme(&input) {
            Some("file") => &input["file:".len()..],
            Some(other) if other.eq_ignore_ascii_case("file") => &input["file:".len()..],
            None if base.is_some() => input.as_str(),
            _ => return Parsed::OtherScheme,
        };
        match parse_rest(rest, base) {
            Some(url) => Parsed::Url(url),
            None => Parsed::Invalid,
        }
    }

    /// The serialised URL, and where its components are, as in `url.rs`.
    pub(super) fn text_and_positions(&self) -> (String, [u32; 8]) {
        let mut text = format!("file://{}", self.host);
        let position = |text: &String| u32::try_from(text.len()).unwrap_or(NONE);
        let path_start = position(&text);
        for segment in &self.path {
            text.push('/');
            text.push_str(segment);
        }
        let mut part = |sign: char, value: &Option<String>| {
            let Some(value) = value else { return NONE };
            let start = position(&text);
            text.push(sign);
            text.push_str(value);
            start
        };
        let query = part('?', &self.query);
        let fragment = part('#', &self.fragment);
        (text, [4, 7, 7, path_start, NONE, path_start, query, fragment])
    }

    /// Sets the host; false if the value is none.
    pub(super) fn set_host(&mut self, value: &str) -> bool {
        let end = value.find(['/', '\\', '?', '#']).unwrap_or(value.len());
        match parse_host(&value[..end]) {
            Some(host) => self.host = host,
            None => return false,
        }
        true
    }

    /// Sets the path.
    pub(super) fn set_path(&mut self, value: &str) {
        self.path.clear();
        self.append_path(value.strip_prefix(['/', '\\']).unwrap_or(value));
    }

    /// Sets the query, or takes it away if the value is empty.
    pub(super) fn set_query(&mut self, value: &str) {
        let text = value.strip_prefix('?').unwrap_or(value);
        self.query = (!value.is_empty()).then(|| encode(text, is_in_query_set));
    }

    /// Sets the fragment, or takes it away if the value is empty.
    pub(super) fn set_fragment(&mut self, value: &str) {
        let text = value.strip_prefix('#').unwrap_or(value);
        self.fragment = (!value.is_empty()).then(|| encode(text, is_in_fragment_set));
    }

    /// The path state, for a text without query and fragment.
    fn append_path(&mut self, text: &str) {
        let mut segments = text.split(['/', '\\']).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            let encoded = encode(segment, is_in_path_set);
            match encoded.to_ascii_lowercase().as_str() {
                ".." | ".%2e" | "%2e." | "%2e%2e" => {
                    self.shorten();
                    if is_last {
                        self.path.push(String::new());
                    }
                }
                "." | "%2e" => {
                    if is_last {
                        self.path.push(String::new());
                    }
                }
                _ if self.path.is_empty() && is_drive(&encoded) => {
                    self.path.push(format!("{}:", &encoded[..1]));
                }
                _ => self.path.push(encoded),
            }
        }
    }

    /// Removes the last segment, but not a drive.
    fn shorten(&mut self) {
        if !(self.path.len() == 1 && is_drive(&self.path[0])) {
            self.path.pop();
        }
    }
}

/// The file state and what follows it; `None` if the text is not valid.
fn parse_rest(rest: &str, base: Option<FileUrl>) -> Option<FileUrl> {
    let (rest, fragment) = cut(rest, '#');
    let (path, query) = cut(rest, '?');
    let is_slash = |text: &str| text.starts_with(['/', '\\']);
    let mut url = FileUrl::default();
    if is_slash(path) && is_slash(&path[1..]) {
        let host_and_path = &path[2..];
        let end = host_and_path.find(['/', '\\']).unwrap_or(host_and_path.len());
        let (host, tail) = host_and_path.split_at(end);
        if is_drive(host) {
            url.append_path(host_and_path);
        } else {
            url.host = parse_host(host)?;
            url.append_path(tail.strip_prefix(['/', '\\']).unwrap_or(tail));
        }
    } else if is_slash(path) {
        let tail = &path[1..];
        if let Some(base) = base {
            url.host = base.host;
            if let Some(drive) = base.path.first().filter(|first| is_drive(first) && !starts_with_drive(tail))
            {
                url.path.push(drive.clone());
            }
        }
        url.append_path(tail);
    } else if let Some(base) = base {
        url = FileUrl { fragment: None, ..base };
        if !path.is_empty() {
            url.query = None;
            match starts_with_drive(path) {
                true => url.path.clear(),
                false => url.shorten(),
            }
            url.append_path(path);
        }
    } else {
        url.append_path(path);
    }
    if let Some(query) = query {
        url.query = Some(encode(query, is_in_query_set));
    }
    url.fragment = fragment.map(|fragment| encode(fragment, is_in_fragment_set));
    Some(url)
}

/// What stands before a sign, and what after it if it is there.
fn cut(text: &str, sign: char) -> (&str, Option<&str>) {
    match text.split_once(sign) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// The scheme that a text begins with.
fn scheme(text: &str) -> Option<&str> {
    let end = text.find(':')?;
    let scheme = &text[..end];
    let follows = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(follows)).then_some(scheme)
}

/// A letter and a colon or a bar.
fn is_drive(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b':' | b'|'] if letter.is_ascii_alphabetic())
}

fn starts_with_drive(text: &str) -> bool {
    text.get(..2).is_some_and(is_drive) && text[2..].chars().next().is_none_or(|c| matches!(c, '/' | '\\'))
}

/// The host parser, for special URLs.
fn parse_host(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    if text.contains('@') || (text.contains(':') && !(text.starts_with('[') && text.ends_with(']'))) {
        return None;
    }
    let url = Url::parse(&format!("http://{text}/")).ok()?;
    let host = url.host_str()?;
    Some(if host == "localhost" { String::new() } else { host.to_owned() })
}

fn encode(text: &str, is_in_set: fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0x21..=0x7e if !is_in_set(byte) => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn is_in_fragment_set(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`')
}

fn is_in_query_set(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\'')
}

fn is_in_path_set(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'?' | b'^' | b'`' | b'{' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn href(text: &str, base: Option<&str>) -> Option<String> {
        match FileUrl::parse(text, base) {
            Parsed::Url(url) => Some(url.text_and_positions().0),
            Parsed::Invalid | Parsed::OtherScheme => None,
        }
    }

    #[test]
    fn hosts_drives_and_empty_segments_stay() {
        for (text, base, expected) in [
            ("file:///w|/m", None, "file:///w:/m"),
            ("/", Some("file://h/C:/a/b"), "file://h/C:/"),
            ("file:\\\\\\\\?fox", None, "file:////?fox"),
            ("file://localhost//a//../..//foo", None, "file://///foo"),
            ("C|/", Some("file://host/dir/file"), "file://host/C:/"),
            ("file://example.net/C:/", None, "file://example.net/C:/"),
            ("file:.//p", None, "file:////p"),
            ("..", Some("file:///C:/x/y"), "file:///C:/"),
            ("../..", Some("file:///C:/x"), "file:///C:/"),
            ("", Some("file:///a?b#c"), "file:///a?b"),
            ("#d", Some("file:///a?b#c"), "file:///a?b#d"),
            ("?", Some("file:///a?b#c"), "file:///a?"),
            (" fi\tle:///\u{e4} b?'#`", None, "file:///%C3%A4%20b?%27#%60"),
            ("FILE://LOCALHOST/x", None, "file:///x"),
            ("//Ex%41mple/x", Some("file:///"), "file://example/x"),
        ] {
            assert_eq!(href(text, base).as_deref(), Some(expected), "{text} against {base:?}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_and_other_schemes_are_left_alone() {
        assert!(matches!(FileUrl::parse("file://a:80/", None), Parsed::Invalid));
        assert!(matches!(FileUrl::parse("file://a@b/", None), Parsed::Invalid));
        assert!(matches!(FileUrl::parse("file://a b/", None), Parsed::Invalid));
        assert!(matches!(FileUrl::parse("http://a/", Some("file:///")), Parsed::OtherScheme));
        assert!(matches!(FileUrl::parse("/x", Some("http://a/")), Parsed::OtherScheme));
        assert!(matches!(FileUrl::parse("/x", None), Parsed::OtherScheme));
    }

    #[test]
    fn a_serialised_url_is_itself_and_its_positions_are_right() {
        let Parsed::Url(url) = FileUrl::parse("file://h/C:/a?b#c", None) else { panic!("a URL") };
        let (text, positions) = url.text_and_positions();
        assert_eq!(text, "file://h/C:/a?b#c");
        assert_eq!(positions, [4, 7, 7, 8, NONE, 8, 13, 15]);
        for text in ["file:////", "file://///a//b", "file://h/C:/", "file:///?#"] {
            assert_eq!(href(text, None).as_deref(), Some(text));
        }
    }
}
