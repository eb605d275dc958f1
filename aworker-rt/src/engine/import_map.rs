//! Import maps: what specifiers mean beyond paths. Pure but for [`ImportMap::read`].
//!
//! <https://html.spec.whatwg.org/#import-maps>. One map for a program, given before anything is imported. Addresses
//! are resolved against the map's own file. Where the standard would ignore what it cannot check (`integrity` of no known
//! kind), the map is refused: a check that nobody makes is worse than none.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::exceptions::ScriptError;
use super::integrity::Integrity;
use super::module_files::read_text;
use super::specifier::url_like;

/// A specifier map of the standard, longest key first; an address that is no URL is absent.
type Specifiers = Vec<(String, Option<String>)>;

/// What specifiers mean in a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportMap {
    imports: Specifiers,
    scopes: Vec<(String, Specifiers)>,
    /// What the files behind these URLs must be.
    integrity: Vec<(String, Integrity)>,
}

impl ImportMap {
    /// Reads a map from a JSON file.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<ImportMap, ScriptError> {
        let failed = |text: String| ScriptError::new(format!("import map {}: {text}", path.display()));
        let absolute = std::path::absolute(path).map_err(|error| failed(error.to_string()))?;
        let text = read_text(&absolute.to_string_lossy()).map_err(failed)?;
        let base = Url::from_file_path(&absolute).map_err(|()| failed("it has no URL".to_owned()))?;
        ImportMap::parse(&text, &base).map_err(failed)
    }

    fn parse(text: &str, base: &Url) -> Result<ImportMap, String> {
        let parsed: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(top) = parsed else {
            return Err("it must be a JSON object".to_owned());
        };
        let mut map = ImportMap::default();
        for (key, value) in &top {
            match (key.as_str(), value) {
                ("imports", Value::Object(imports)) => map.imports = specifiers(imports, base),
                ("scopes", Value::Object(scopes)) => map.scopes = parse_scopes(scopes, base)?,
                ("integrity", Value::Object(entries)) => map.integrity = parse_integrity(entries, base)?,
                ("imports" | "scopes" | "integrity", _) => {
                    return Err(format!("\"{key}\" must be an object"));
                }
                (other, _) => {
                    return Err(format!(
                        "\"{other}\" is not supported: want \"imports\", \"scopes\", \"integrity\""
                    ));
                }
            }
        }
        Ok(map)
    }

    /// Checks what a module is made of.
    ///
    /// # Errors
    /// The map wants other bytes behind this URL; the end of a sentence.
    pub(super) fn check(&self, url: &str, bytes: &[u8]) -> Result<(), String> {
        match self.integrity.iter().find(|(known, _)| known == url) {
            Some((_, integrity)) if !integrity.matches(bytes) => {
                Err(format!("{url} is not what the import map's \"integrity\" wants"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The URL that the map has for a specifier, if it has one.
    ///
    /// # Errors
    /// The map forbids it, or has an address that is none; the end of a sentence.
    pub(super) fn resolve(
        &self,
        normalised: &str,
        as_url: Option<&Url>,
        base: &str,
    ) -> Result<Option<Url>, String> {
        for (prefix, imports) in &self.scopes {
            if prefix == base || (prefix.ends_with('/') && base.starts_with(prefix.as_str())) {
                let found = find(imports, normalised, as_url)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        find(&self.imports, normalised, as_url)
    }
}

/// <https://html.spec.whatwg.org/#resolving-an-imports-match>
fn find(imports: &Specifiers, normalised: &str, as_url: Option<&Url>) -> Result<Option<Url>, String> {
    for (key, address) in imports {
        let is_prefix =
            key.ends_with('/') && normalised.starts_with(key.as_str()) && as_url.is_none_or(Url::is_special);
        if key != normalised && !is_prefix {
            continue;
        }
        let Some(address) = address.as_deref().and_then(|address| Url::parse(address).ok()) else {
            return Err(format!("the import map blocks \"{key}\": its address is no URL and no path"));
        };
        if key == normalised {
            return Ok(Some(address));
        }
        let rest = &normalised[key.len()..];
        return match address.join(rest) {
            Ok(url) if url.as_str().starts_with(address.as_str()) => Ok(Some(url)),
            Ok(_) => Err(format!("\"{rest}\" leads out of what the import map has for \"{key}\"")),
            Err(_) => Err(format!("\"{rest}\" makes no URL below what the import map has for \"{key}\"")),
        };
    }
    Ok(None)
}

fn parse_scopes(scopes: &Map<String, Value>, base: &Url) -> Result<Vec<(String, Specifiers)>, String> {
    let mut parsed = Vec::new();
    for (prefix, imports) in scopes {
        let Value::Object(imports) = imports else {
            return Err(format!("the scope \"{prefix}\" must be an object"));
        };
        let prefix =
            base.join(prefix).map_err(|_| format!("the scope \"{prefix}\" is no URL and no path"))?;
        parsed.push((String::from(prefix), specifiers(imports, base)));
    }
    parsed.sort_by(|(left, _), (right, _)| right.encode_utf16().cmp(left.encode_utf16()));
    Ok(parsed)
}

/// <https://html.spec.whatwg.org/#normalizing-a-module-integrity-map>
fn parse_integrity(entries: &Map<String, Value>, base: &Url) -> Result<Vec<(String, Integrity)>, String> {
    let mut parsed: Vec<(String, Integrity)> = Vec::new();
    for (key, value) in entries {
        let wrong = |text: String| format!("integrity of \"{key}\": {text}");
        let url = url_like(key, base).map(String::from);
        let url = url.ok_or_else(|| wrong("it is no URL and no path".to_owned()))?;
        let text = value.as_str().ok_or_else(|| wrong("it must be a string".to_owned()))?;
        parsed.retain(|(known, _)| *known != url);
        parsed.push((url, Integrity::parse(text).map_err(wrong)?));
    }
    Ok(parsed)
}

/// <https://html.spec.whatwg.org/#sorting-and-normalizing-a-module-specifier-map>
fn specifiers(entries: &Map<String, Value>, base: &Url) -> Specifiers {
    let mut parsed = Specifiers::new();
    for (key, address) in entries.iter().filter(|(key, _)| !key.is_empty()) {
        let url = address.as_str().and_then(|address| url_like(address, base)).map(String::from);
        let url = url.filter(|url| !key.ends_with('/') || url.ends_with('/'));
        let key = url_like(key, base).map_or_else(|| key.clone(), String::from);
        parsed.retain(|(known, _)| *known != key);
        parsed.push((key, url));
    }
    parsed.sort_by(|(left, _), (right, _)| right.encode_utf16().cmp(left.encode_utf16()));
    parsed
}

#[cfg(test)]
mod tests {
    use super::super::specifier::{ModuleName, resolve};
    use super::*;

    fn map(text: &str) -> ImportMap {
        let base = Url::parse("file:///app/maps/map.json").expect("a URL");
        ImportMap::parse(text, &base).expect("a map")
    }

    #[track_caller]
    fn resolves(map: &ImportMap, table: &[(&str, &str, &str)]) {
        for (specifier, importer, expected) in table {
            let name = resolve(specifier, &ModuleName::from_path(importer), Some(map));
            match (&name, expected.strip_prefix("error: ")) {
                (Ok(name), None) => assert_eq!(name.as_str(), *expected, "{specifier} in {importer}"),
                (Err(error), Some(part)) => {
                    assert!(error.contains(part), "{specifier} in {importer}: {error}")
                }
                _ => panic!("{specifier} in {importer}: {name:?}"),
            }
        }
    }

    #[test]
    fn exact_keys_prefixes_and_the_longest_match() {
        let map = map(r#"{ "imports": {
                "moment": "/node_modules/moment/src/moment.js",
                "moment/": "/node_modules/moment/src/",
                "moment/locale/": "../locale/",
                "./lib/util.js": "./shim.js",
                "/abs.js": "./abs-shim.js",
                "https://cdn.example/x.js": "./x.js",
                "null": null, "number": 5, "word": "no-path", "dir/": "./no-slash", "": "./never.js",
                "remote": "https://example.org/a.js"
            } }"#);
        resolves(
            &map,
            &[
                ("moment", "/a.js", "/node_modules/moment/src/moment.js"),
                ("moment/zone.js", "/a.js", "/node_modules/moment/src/zone.js"),
                ("moment/locale/de.js", "/a.js", "/app/locale/de.js"),
                ("../maps/lib/util.js", "/app/src/a.js", "/app/maps/shim.js"),
                ("./lib/util.js", "/app/maps/a.js", "/app/maps/shim.js"),
                ("./lib/util.js", "/other/a.js", "/other/lib/util.js"),
                ("/abs.js", "/deep/down/a.js", "/app/maps/abs-shim.js"),
                ("https://cdn.example/x.js", "/a.js", "/app/maps/x.js"),
                ("momentum", "/a.js", "error: no entry for it"),
                ("null", "/a.js", "error: blocks \"null\""),
                ("number", "/a.js", "error: blocks \"number\""),
                ("word", "/a.js", "error: blocks \"word\""),
                ("dir/x.js", "/a.js", "error: blocks \"dir/\""),
                ("", "/a.js", "error: no entry for it"),
                ("remote", "/a.js", "error: not from https:"),
                ("moment/../../../etc/passwd", "/a.js", "error: leads out of"),
                ("./plain.js", "/a.js", "/plain.js"),
            ],
        );
    }

    #[test]
    fn the_innermost_scope_wins_and_falls_back() {
        let map = map(r#"{ "imports": { "a": "/a-1.js", "b": "/b-1.js", "c": "/c-1.js" },
                 "scopes": {
                    "/scope2/": { "a": "/a-2.js" },
                    "/scope2/scope3/": { "b": "/b-3.js", "a": "/a-3.js" },
                    "/exact.js": { "c": "/c-exact.js" },
                    "/noslash": { "c": "/c-noslash.js" }
                 } }"#);
        resolves(
            &map,
            &[
                ("a", "/scope1/x.js", "/a-1.js"),
                ("a", "/scope2/x.js", "/a-2.js"),
                ("b", "/scope2/x.js", "/b-1.js"),
                ("a", "/scope2/scope3/x.js", "/a-3.js"),
                ("b", "/scope2/scope3/x.js", "/b-3.js"),
                ("c", "/scope2/scope3/x.js", "/c-1.js"),
                ("c", "/exact.js", "/c-exact.js"),
                ("c", "/noslash/x.js", "/c-1.js"),
            ],
        );
    }

    #[test]
    fn maps_that_are_none_are_refused() {
        let base = Url::parse("file:///map.json").expect("a URL");
        for (text, part) in [
            ("", "EOF"),
            ("[]", "must be a JSON object"),
            ("{\"imports\": []}", "\"imports\" must be an object"),
            ("{\"scopes\": 1}", "\"scopes\" must be an object"),
            ("{\"scopes\": {\"/\": 1}}", "the scope \"/\" must be an object"),
            ("{\"integrity\": 1}", "\"integrity\" must be an object"),
            ("{\"integrity\": { \"./a.js\": 1 }}", "integrity of \"./a.js\": it must be a string"),
            ("{\"integrity\": { \"a.js\": \"\" }}", "integrity of \"a.js\": it is no URL"),
            (
                "{\"integrity\": { \"./a.js\": \"md5-x\" }}",
                "integrity of \"./a.js\": \"md5-x\" has no digest",
            ),
            ("{\"other\": {}}", "\"other\" is not supported"),
        ] {
            let error = ImportMap::parse(text, &base).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
