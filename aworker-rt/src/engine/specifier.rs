//! Module specifiers: from what an `import` says to the file it means. Pure.
//!
//! Relative (`./a.js`, `../a.js`), absolute (`/a.js`) and `file:` specifiers are
//! understood; there is no package lookup. A `?query` or `#fragment` makes
//! another module of the same file, as on the Web.

/// What makes a module unique: its absolute, normalised path with query and
/// fragment as written. It is also the name that stack traces show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ModuleName(String);

impl ModuleName {
    /// A name made of an absolute path that is used as it is.
    pub(super) fn from_path(path: &str) -> ModuleName {
        ModuleName(path.to_owned())
    }

    /// The name as stack traces show it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The file to read: no query, no fragment, percent-decoded.
    pub(super) fn path(&self) -> String {
        let end = self.0.find(['?', '#']).unwrap_or(self.0.len());
        percent_decode(&self.0[..end])
    }

    /// The `file:` URL, `import.meta.url`.
    pub(super) fn url(&self) -> String {
        let end = self.0.find(['?', '#']).unwrap_or(self.0.len());
        format!("file://{}{}", percent_encode(&self.0[..end]), &self.0[end..])
    }
}

/// Resolves a specifier against the module (or script) that holds it.
///
/// # Errors
/// What is wrong with the specifier, as the end of a sentence.
pub(super) fn resolve(specifier: &str, referrer: &str) -> Result<ModuleName, &'static str> {
    let specifier = match specifier.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err("a file: URL must name no host"),
        None => specifier,
    };
    if specifier.starts_with('/') {
        return Ok(ModuleName(normalise(specifier)));
    }
    if !specifier.starts_with("./") && !specifier.starts_with("../") {
        return Err("it must begin with ./, ../, / or file:///");
    }
    let referrer = &referrer[..referrer.find(['?', '#']).unwrap_or(referrer.len())];
    let directory = referrer.rsplit_once('/').map_or("", |(directory, _)| directory);
    Ok(ModuleName(normalise(&format!("{directory}/{specifier}"))))
}

/// Takes `.`, `..` and empty segments out of an absolute path; `..` at the root
/// stays at the root. Query and fragment are left alone.
fn normalise(path: &str) -> String {
    let (path, rest) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    format!("/{}{rest}", segments.join("/"))
}

/// `%41` becomes `A`; anything that is not UTF-8 afterwards stays as written.
fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match digits {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Encodes what a URL's path may not hold. A `%` stays: names come from
/// specifiers, where it begins an escape already.
fn percent_encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => encoded.push(char::from(byte)),
            b'/' | b'-' | b'_' | b'.' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b';' | b'=' | b':' | b'@' | b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_resolve_against_their_importer() {
        let table = [
            ("./b.js", "/app/a.js", "/app/b.js"),
            ("../b.js", "/app/lib/a.js", "/app/b.js"),
            ("../../../b.js", "/app/a.js", "/b.js"),
            ("./x/./y//../b.js", "/app/a.js", "/app/x/b.js"),
            ("/lib/b.js", "/app/a.js", "/lib/b.js"),
            ("file:///lib/b.js", "/app/a.js", "/lib/b.js"),
            ("./b.js?v=../2", "/app/a.js?v=/1", "/app/b.js?v=../2"),
            ("./b.js", "/a.js", "/b.js"),
        ];
        for (specifier, referrer, expected) in table {
            let name = resolve(specifier, referrer).expect(specifier);
            assert_eq!(name.as_str(), expected, "{specifier} in {referrer}");
        }
    }

    #[test]
    fn bare_and_remote_specifiers_are_refused() {
        for specifier in ["react", "node:fs", "https://example.org/a.js", "file://host/a.js", "", ".", "b.js"]
        {
            assert!(resolve(specifier, "/app/a.js").is_err(), "{specifier}");
        }
    }

    #[test]
    fn names_become_paths_and_urls() {
        let name = resolve("./a%20b%zz.js?q#f", "/app/x").expect("relative");
        assert_eq!(name.path(), "/app/a b%zz.js");
        assert_eq!(name.url(), "file:///app/a%20b%zz.js?q#f");
        assert_eq!(ModuleName::from_path("/app/ä b.js").url(), "file:///app/%C3%A4%20b.js");
    }
}
