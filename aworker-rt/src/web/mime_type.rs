//! MIME types: parsing, serialising, and what a Content-Type field says.
//! <https://mimesniff.spec.whatwg.org/#understanding-mime-types>, <https://fetch.spec.whatwg.org/#content-type-header>

use std::fmt;

/// A MIME type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MimeType {
    /// Type and subtype, in lower case.
    essence: String,
    /// Names in lower case, each once, in their order.
    parameters: Vec<(String, String)>,
}

impl MimeType {
    /// Parses a MIME type. <https://mimesniff.spec.whatwg.org/#parsing-a-mime-type>
    pub(crate) fn parse(text: &str) -> Option<MimeType> {
        let text = text.trim_matches(is_http_blank);
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let (kind, subkind) = essence.split_once('/')?;
        let subkind = subkind.trim_end_matches(is_http_blank);
        if !is_token(kind) || !is_token(subkind) {
            return None;
        }
        let essence = format!("{kind}/{subkind}").to_ascii_lowercase();
        let mut parameters: Vec<(String, String)> = Vec::new();
        while !rest.is_empty() {
            rest = rest.trim_start_matches(is_http_blank);
            let end = rest.find([';', '=']).unwrap_or(rest.len());
            let name = rest[..end].to_ascii_lowercase();
            rest = &rest[end..];
            let Some(after) = rest.strip_prefix('=') else {
                rest = rest.strip_prefix(';').unwrap_or(rest);
                continue;
            };
            let value;
            (value, rest) = parameter_value(after);
            let is_sendable = |character: char| matches!(character, '\t' | ' '..='~' | '\u{80}'..='\u{ff}');
            let Some(value) = value.filter(|value| value.chars().all(is_sendable)) else { continue };
            if is_token(&name) && !parameters.iter().any(|(known, _)| *known == name) {
                parameters.push((name, value));
            }
        }
        Some(MimeType { essence, parameters })
    }

    /// What a Content-Type field means, its lines joined with commas: the last type that is one counts, and the
    /// charset of an earlier one with the same essence. <https://fetch.spec.whatwg.org/#concept-header-extract-mime-type>
    pub(crate) fn extract(field: &str) -> Option<MimeType> {
        let mut found: Option<MimeType> = None;
        let mut charset: Option<String> = None;
        for value in values(field) {
            let Some(mut next) = MimeType::parse(value) else { continue };
            if next.essence == "*/*" {
                continue;
            }
            if found.as_ref().is_none_or(|found| found.essence != next.essence) {
                charset = next.charset();
            } else if let (None, Some(charset)) = (next.charset(), &charset) {
                next.parameters.push(("charset".to_owned(), charset.clone()));
            }
            found = Some(next);
        }
        found
    }

    fn charset(&self) -> Option<String> {
        self.parameters.iter().find(|(name, _)| name == "charset").map(|(_, value)| value.clone())
    }
}

impl fmt::Display for MimeType {
    /// <https://mimesniff.spec.whatwg.org/#serializing-a-mime-type>
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.essence)?;
        for (name, value) in &self.parameters {
            match is_token(value) {
                true => write!(formatter, ";{name}={value}")?,
                false => {
                    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                    write!(formatter, ";{name}=\"{escaped}\"")?;
                }
            }
        }
        Ok(())
    }
}

/// The values of a field: commas within quotes divide nothing.
/// <https://fetch.spec.whatwg.org/#header-value-get-decode-and-split>
fn values(field: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    field
        .split(move |character: char| {
            let divides = character == ',' && !is_quoted;
            if is_escaped {
                is_escaped = false;
            } else if character == '"' {
                is_quoted = !is_quoted;
            } else if is_quoted && character == '\\' {
                is_escaped = true;
            }
            divides
        })
        .map(|value| value.trim_matches([' ', '\t']))
}

fn is_http_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

/// A parameter's value, if it has one, and what follows its semicolon.
fn parameter_value(text: &str) -> (Option<String>, &str) {
    let after_semicolon = |rest: &'_ str| rest.find(';').map_or(rest.len(), |at| at + 1);
    if let Some(quoted) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let mut end = quoted.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => value.push(characters.next().map_or('\\', |(_, next)| next)),
                other => value.push(other),
            }
        }
        let rest = &quoted[end..];
        return (Some(value), &rest[after_semicolon(rest)..]);
    }
    let end = text.find(';').unwrap_or(text.len());
    let value = text[..end].trim_end_matches(is_http_blank);
    ((!value.is_empty()).then(|| value.to_owned()), &text[after_semicolon(text)..])
}

/// `ops.mime_extract(field)`: the serialised MIME type that a Content-Type field means, or an empty string.
pub(crate) fn mime_extract(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let field = arguments.get(0).to_rust_string_lossy(scope);
    let found = MimeType::extract(&field).map(|found| found.to_string()).unwrap_or_default();
    if let Some(text) = v8::String::new(scope, &found) {
        result.set(text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_parsed_and_serialised() {
        for (text, expected) in [
            (" Text/HTML ;Charset=GBK\n", Some("text/html;charset=GBK")),
            ("a/b;x=\"a b\\\"\";x=2;;=;y", Some("a/b;x=\"a b\\\"\"")),
            ("a/b;x=\"", Some("a/b;x=\"\"")),
            ("a/b;x=;y=1", Some("a/b;y=1")),
            ("text", None),
            ("a /b", None),
            ("", None),
        ] {
            assert_eq!(MimeType::parse(text).map(|parsed| parsed.to_string()).as_deref(), expected, "{text}");
        }
    }

    /// Cases of web-platform-tests' `fetch/content-type`.
    #[test]
    fn the_last_type_of_a_field_counts() {
        for (field, expected) in [
            ("text/plain;charset=gbk, text/html", Some("text/html")),
            ("text/html;charset=gbk;a=b, text/html;x=y", Some("text/html;x=y;charset=gbk")),
            ("text/html;charset=gbk, text/plain, text/html", Some("text/html")),
            ("text/html;x=\",text/plain", Some("text/html;x=\",text/plain\"")),
            ("text/plain, */*, bad", Some("text/plain")),
            ("*/*", None),
        ] {
            assert_eq!(
                MimeType::extract(field).map(|found| found.to_string()).as_deref(),
                expected,
                "{field}"
            );
        }
    }
}
