//! The URL parser and its setters, by the `url` crate. JavaScript keeps the
//! serialised URL and where its components begin.
//! <https://url.spec.whatwg.org/#url-parsing>

use url::{Position, Url, quirks};

use super::bytes;
use super::file_url::{FileUrl, Parsed};

/// Stands for "no port", "no query", "no fragment" among the positions.
pub(crate) const NONE: u32 = u32::MAX;

/// Where the components of a serialised URL are, in the order that
/// `26_url.js` reads. The text is ASCII: positions are characters.
pub(crate) fn positions(url: &Url) -> [u32; 8] {
    let parts = quirks::internal_components(url);
    [
        parts.scheme_end,
        parts.username_end,
        parts.host_start,
        parts.host_end,
        parts.port.map_or(NONE, u32::from),
        parts.path_start,
        parts.query_start.unwrap_or(NONE),
        parts.fragment_start.unwrap_or(NONE),
    ]
}

/// What the standard encodes in a path and the `url` crate does not: a circumflex, and of an opaque path the space
/// before a query or a fragment. <https://url.spec.whatwg.org/#path-percent-encode-set>
fn encode_path(url: Url) -> Url {
    let (start, path, rest) = (&url[..Position::BeforePath], url.path(), &url[Position::AfterPath..]);
    let encoded = match url.cannot_be_a_base() {
        true if !rest.is_empty() && path.ends_with(' ') => format!("{}%20", &path[..path.len() - 1]),
        false if path.contains('^') => path.replace('^', "%5E"),
        _ => return url,
    };
    Url::parse(&format!("{start}{encoded}{rest}")).unwrap_or(url)
}

/// Whether a text is an absolute URL.
pub fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok()
}

/// Returns the URL's text and writes its positions.
fn answer(scope: &mut v8::PinScope<'_, '_>, url: &Url, out: v8::Local<v8::Value>, result: v8::ReturnValue) {
    answer_text(scope, url.as_str(), &positions(url), out, result);
}

/// As [`answer`], for a `file:` URL.
fn answer_file(
    scope: &mut v8::PinScope<'_, '_>,
    url: &FileUrl,
    out: v8::Local<v8::Value>,
    result: v8::ReturnValue,
) {
    let (text, positions) = url.text_and_positions();
    answer_text(scope, &text, &positions, out, result);
}

fn answer_text(
    scope: &mut v8::PinScope<'_, '_>,
    text: &str,
    positions: &[u32; 8],
    out: v8::Local<v8::Value>,
    mut result: v8::ReturnValue,
) {
    bytes::write_u32(scope, out, positions);
    if let Some(text) = v8::String::new_from_one_byte(scope, text.as_bytes(), v8::NewStringType::Normal) {
        result.set(text.into());
    }
}

/// Whether a text, or what it is relative to, is a `file:` URL.
fn may_be_file(text: &str, base: Option<&str>) -> bool {
    let is_file = |text: &str| {
        let text = text.trim_start_matches(|character| character <= ' ');
        text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("fi"))
    };
    // A tab or a newline within the scheme is ignored: such texts are looked at, too.
    is_file(text) || base.is_some_and(is_file) || text.trim_start().starts_with("f\t")
}

/// Parses a text relative to a base. Of the slashes before an authority the `url`
/// crate takes two; the standard takes all.
fn join(base: &Url, text: &str) -> Option<Url> {
    if base.is_special() && base.scheme() != "file" {
        let start: String = text
            .trim_start_matches(|character| character <= ' ')
            .chars()
            .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
            .take(3)
            .collect();
        if start.chars().filter(|c| matches!(c, '/' | '\\')).count() == 3 {
            return Url::parse(&format!("{}:{}", base.scheme(), text.trim_start())).ok();
        }
    }
    base.join(text).ok()
}

/// `ops.url_parse(url, base, positions)`: the serialised URL, or undefined if it
/// is not valid. `base` is a string or undefined.
pub(crate) fn url_parse(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    result: v8::ReturnValue,
) {
    let text = arguments.get(0).to_rust_string_lossy(scope);
    let base = arguments.get(1);
    let base = (!base.is_undefined()).then(|| base.to_rust_string_lossy(scope));
    if may_be_file(&text, base.as_deref()) {
        match FileUrl::parse(&text, base.as_deref()) {
            Parsed::Url(url) => return answer_file(scope, &url, arguments.get(2), result),
            Parsed::Invalid => return,
            Parsed::OtherScheme => {}
        }
    }
    let url = match base {
        None => Url::parse(&text).ok(),
        Some(base) => Url::parse(&base).ok().and_then(|base| join(&base, &text)),
    };
    if let Some(url) = url.map(encode_path) {
        answer(scope, &url, arguments.get(2), result);
    }
}

/// `ops.url_set(href, setter, value, positions)`: the URL after a setter, or
/// undefined if the setter refuses the value. The numbers of the setters are
/// those of `26_url.js`.
pub(crate) fn url_set(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    result: v8::ReturnValue,
) {
    let href = arguments.get(0).to_rust_string_lossy(scope);
    let value = arguments.get(2).to_rust_string_lossy(scope);
    let setter = arguments.get(1).uint32_value(scope);
    if let (Some(3..=8), Parsed::Url(mut url)) = (setter, parse_file(&href)) {
        let done = match setter {
            Some(3 | 4) => url.set_host(&without_tabs(&value)),
            Some(5) => false,
            Some(6) => {
                url.set_path(&without_tabs(&value));
                true
            }
            Some(7) => {
                url.set_query(&without_tabs(&value));
                true
            }
            _ => {
                url.set_fragment(&without_tabs(&value));
                true
            }
        };
        if done {
            answer_file(scope, &url, arguments.get(3), result);
        }
        return;
    }
    let Ok(mut url) = Url::parse(&href) else {
        return;
    };
    let done = match setter {
        Some(0) => quirks::set_protocol(&mut url, &value),
        Some(1) => quirks::set_username(&mut url, &value),
        Some(2) => quirks::set_password(&mut url, &value),
        Some(3) => quirks::set_host(&mut url, &value).map(|()| drop_dot(&mut url)),
        Some(4) => quirks::set_hostname(&mut url, &value).map(|()| drop_dot(&mut url)),
        Some(5) => quirks::set_port(&mut url, &value),
        Some(6) => {
            set_pathname(&mut url, &value);
            Ok(())
        }
        Some(7) => {
            quirks::set_search(&mut url, &value);
            Ok(())
        }
        Some(8) => {
            quirks::set_hash(&mut url, &value);
            Ok(())
        }
        _ => Err(()),
    };
    if done.is_ok() {
        answer(scope, &encode_path(url), arguments.get(3), result);
    }
}

/// The setter of `pathname`. The `url` crate lets a path that begins with two slashes
/// become a host, and cannot take the last slash of a non-special URL away.
fn set_pathname(url: &mut Url, value: &str) {
    if url.is_special() || url.cannot_be_a_base() || (url.has_authority() && !value.is_empty()) {
        return quirks::set_pathname(url, value);
    }
    let Ok(mut helper) = Url::parse(&format!("{}://host/", url.scheme())) else {
        return;
    };
    quirks::set_pathname(&mut helper, value);
    let path = match (url.has_authority(), helper.path()) {
        (true, _) => String::new(),
        (false, path) if path.starts_with("//") => format!("/.{path}"),
        (false, "") => "/".to_owned(),
        (false, path) => path.to_owned(),
    };
    let text = format!("{}{path}{}", &url[..Position::BeforePath], &url[Position::AfterPath..]);
    // The serialisation without a host has `/.` before such a path already.
    let text = if url.has_authority() { text } else { without_dot(&text, url.scheme(), &path) };
    if let Ok(changed) = Url::parse(&text) {
        *url = changed;
    }
}

/// What follows the scheme of a URL without a host is its path, once.
fn without_dot(text: &str, scheme: &str, path: &str) -> String {
    let rest = &text[scheme.len() + 1..];
    let rest = rest.strip_prefix("/.").filter(|rest| rest.starts_with(path)).unwrap_or(rest);
    format!("{scheme}:{rest}")
}

/// A URL that has got a host needs no `/.` before a path that begins with two slashes.
fn drop_dot(url: &mut Url) {
    if url.is_special() || !url.has_authority() {
        return;
    }
    let (start, rest) = (&url[..Position::AfterPort], &url[Position::AfterPort..]);
    let Some(path) = rest.strip_prefix("/.").filter(|path| path.starts_with("//")) else {
        return;
    };
    if let Ok(changed) = Url::parse(&format!("{start}{path}")) {
        *url = changed;
    }
}

/// Parses a serialised URL if it is one of a file.
fn parse_file(href: &str) -> Parsed {
    match href.starts_with("file:") {
        true => FileUrl::parse(href, None),
        false => Parsed::OtherScheme,
    }
}

fn without_tabs(value: &str) -> String {
    value.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect()
}

/// The serialised origin. Of a `blob:` URL it is that of the URL within, if a page can have that.
fn origin(url: &Url) -> String {
    match url.scheme() {
        "blob" => match Url::parse(url.path()) {
            Ok(inner) if matches!(inner.scheme(), "http" | "https") => quirks::origin(&inner),
            _ => "null".to_owned(),
        },
        _ => quirks::origin(url),
    }
}

/// `ops.url_origin(href)`: the serialised origin, "null" if it is opaque.
pub(crate) fn url_origin(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let href = arguments.get(0).to_rust_string_lossy(scope);
    let origin = Url::parse(&href).map_or_else(|_| "null".to_owned(), |url| origin(&url));
    if let Some(origin) = v8::String::new(scope, &origin) {
        result.set(origin.into());
    }
}
