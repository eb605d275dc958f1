//! Source maps: printed stack traces show the places of the sources that a program was compiled from.
//!
//! A map is looked for when a stack is printed, never before: only the text of `//# sourceMappingURL=` is kept
//! when a program is loaded. `error.stack` itself, and what `Error.prepareStackTrace` is given, stay as V8 makes them.
//! Indexed maps (`sections`) are not read. <https://tc39.es/ecma426/>

use std::collections::HashMap;

use base64::Engine as _;
use serde::Deserialize;
use url::Url;

use super::module_files;

/// Longest map that is read, and so the most mappings that are kept.
const MAX_MAP_BYTES: usize = 64 << 20;

/// Most programs whose comment is remembered; as many as there may be modules.
const MAX_PROGRAMS: usize = 10_000;

/// Where a program came from, and its map once it was wanted.
struct Program {
    /// The program's own URL, which the map's is relative to.
    url: String,
    mapping_url: String,
    /// `None` before the first look; then the map, if there is a good one.
    map: Option<Option<SourceMap>>,
}

/// Programs by the name that stack traces show.
#[derive(Default)]
struct Programs(HashMap<String, Program>);

/// Remembers what a program's comment says, if it has one.
pub(super) fn note(
    scope: &mut v8::PinScope<'_, '_>,
    shown: &str,
    url: &str,
    mapping_url: v8::Local<v8::Value>,
) {
    if !mapping_url.is_string() {
        return;
    }
    let mapping_url = mapping_url.to_rust_string_lossy(scope);
    if mapping_url.is_empty() || mapping_url.len() > MAX_MAP_BYTES * 2 {
        return;
    }
    let programs = programs(scope);
    if programs.0.len() < MAX_PROGRAMS {
        programs.0.insert(shown.to_owned(), Program { url: url.to_owned(), mapping_url, map: None });
    }
}

/// What a snapshot keeps: shown name, URL, comment.
pub(super) type SavedPrograms = Vec<(String, String, String)>;

/// What was noted, for a snapshot.
pub(super) fn save(isolate: &mut v8::Isolate) -> SavedPrograms {
    let programs = std::mem::take(programs(isolate)).0;
    programs.into_iter().map(|(shown, program)| (shown, program.url, program.mapping_url)).collect()
}

/// Notes what was saved.
pub(super) fn restore(isolate: &mut v8::Isolate, saved: SavedPrograms) {
    let restored =
        saved.into_iter().map(|(shown, url, mapping_url)| (shown, Program { url, mapping_url, map: None }));
    programs(isolate).0.extend(restored);
}

fn programs(isolate: &mut v8::Isolate) -> &mut Programs {
    if isolate.get_slot::<Programs>().is_none() {
        isolate.set_slot(Programs::default());
    }
    isolate.get_slot_mut::<Programs>().expect("set above")
}

/// A place in a source, all counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The source's path, or its URL if it has none.
    pub(super) source: String,
    pub(super) line: usize,
    pub(super) column: usize,
    /// The text of that line, if the map has the source's text.
    pub(super) text: Option<String>,
}

/// What a place in a program was compiled from, if a map says so.
pub(super) fn original(isolate: &mut v8::Isolate, shown: &str, line: usize, column: usize) -> Option<Place> {
    isolate.get_slot::<Programs>()?;
    let program = programs(isolate).0.get_mut(shown)?;
    let Program { url, mapping_url, map } = program;
    map.get_or_insert_with(|| read(url, mapping_url)).as_ref()?.find(line, column)
}

/// A stack with the places of the sources; nothing if none of its lines has one.
pub(crate) fn rewrite(isolate: &mut v8::Isolate, stack: &str) -> Option<String> {
    isolate.get_slot::<Programs>()?;
    let mut changed = false;
    let mut line = |text: &str| match place_of_frame(text) {
        Some((before, place, after)) => {
            let (shown, line, column) = place;
            match original(isolate, shown, line, column) {
                Some(place) => {
                    changed = true;
                    format!("{before}{}:{}:{}{after}", place.source, place.line, place.column)
                }
                None => text.to_owned(),
            }
        }
        None => text.to_owned(),
    };
    let lines: Vec<String> = stack.split('\n').map(&mut line).collect();
    changed.then(|| lines.join("\n"))
}

/// `    at name (` `file:line:column` `)`, or without name and parentheses.
#[allow(clippy::type_complexity)]
fn place_of_frame(text: &str) -> Option<(&str, (&str, usize, usize), &str)> {
    let after_at = text.len() - text.trim_start().strip_prefix("at ")?.len();
    let start = match text.ends_with(')') {
        true => text.rfind(" (")? + 2,
        false => after_at + if text[after_at..].starts_with("async ") { 6 } else { 0 },
    };
    let end = text.len() - usize::from(text.ends_with(')'));
    let (rest, column) = text.get(start..end)?.rsplit_once(':')?;
    let (shown, line) = rest.rsplit_once(':')?;
    Some((&text[..start], (shown, line.parse().ok()?, column.parse().ok()?), &text[end..]))
}

/// Reads a map, from the comment or from the file it names.
fn read(program_url: &str, mapping_url: &str) -> Option<SourceMap> {
    let program = Url::parse(program_url).ok()?;
    if let Some(data) = mapping_url.strip_prefix("data:") {
        let (kind, text) = data.split_once(',')?;
        let bytes = match kind.ends_with(";base64") {
            true => base64::engine::general_purpose::STANDARD.decode(text.trim_end()).ok()?,
            false => percent_decoded(text),
        };
        return SourceMap::parse(&bytes, &program);
    }
    let url = program.join(mapping_url).ok().filter(|url| url.scheme() == "file")?;
    let path = url.to_file_path().ok()?;
    let bytes = module_files::read_bytes(path.to_str()?).ok()?;
    SourceMap::parse(&bytes, &url)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// The members of a map's JSON that are wanted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encoded {
    version: u32,
    #[serde(default)]
    source_root: Option<String>,
    sources: Vec<Option<String>>,
    #[serde(default)]
    sources_content: Vec<Option<String>>,
    mappings: String,
}

/// One mapping: where it begins in the generated text and in a source, all counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mapping {
    line: u32,
    column: u32,
    /// Source, line and column; nothing for text that came from no source.
    origin: Option<(u32, u32, u32)>,
}

/// A decoded map.
#[derive(Debug)]
struct SourceMap {
    sources: Vec<String>,
    contents: Vec<Option<String>>,
    mappings: Vec<Mapping>,
}

impl SourceMap {
    fn parse(bytes: &[u8], base: &Url) -> Option<SourceMap> {
        // A map may begin with a line that keeps it from being run as a script.
        let bytes = if bytes.starts_with(b")]}'") {
            &bytes[bytes.iter().position(|b| *b == b'\n')?..]
        } else {
            bytes
        };
        let encoded: Encoded = serde_json::from_slice(bytes).ok().filter(|map: &Encoded| map.version == 3)?;
        let root = encoded
            .source_root
            .map(|root| if root.ends_with('/') || root.is_empty() { root } else { root + "/" });
        let named = |source: Option<String>| {
            let source = format!("{}{}", root.as_deref().unwrap_or(""), source.unwrap_or_default());
            match base.join(&source) {
                Ok(url) if url.scheme() == "file" => match url.to_file_path() {
                    Ok(path) => path.to_string_lossy().into_owned(),
                    Err(()) => source,
                },
                Ok(url) => url.into(),
                Err(_) => source,
            }
        };
        Some(SourceMap {
            sources: encoded.sources.into_iter().map(named).collect(),
            contents: encoded.sources_content,
            mappings: decode(&encoded.mappings)?,
        })
    }

    /// The place behind a generated one, counted from 1: that of the nearest mapping before it on its line.
    fn find(&self, line: usize, column: usize) -> Option<Place> {
        let line = u32::try_from(line.checked_sub(1)?).ok()?;
        let column = u32::try_from(column.checked_sub(1)?).ok()?;
        let after = self.mappings.partition_point(|mapping| (mapping.line, mapping.column) <= (line, column));
        let mapping = self.mappings.get(after.checked_sub(1)?).filter(|mapping| mapping.line == line)?;
        let (source, line, column) = mapping.origin?;
        let (source, line, column) = (source as usize, line as usize, column as usize);
        let content = self.contents.get(source).and_then(Option::as_deref);
        Some(Place {
            source: self.sources.get(source)?.clone(),
            line: line + 1,
            column: column + 1,
            text: content.and_then(|content| content.lines().nth(line)).map(str::to_owned),
        })
    }
}

/// Decodes `mappings`, sorted by generated place; nothing if it is malformed.
fn decode(text: &str) -> Option<Vec<Mapping>> {
    let mut mappings = Vec::new();
    let (mut source, mut source_line, mut source_column) = (0_i64, 0_i64, 0_i64);
    for (line, segments) in text.split(';').enumerate() {
        let line = u32::try_from(line).ok()?;
        let mut column = 0_i64;
        for segment in segments.split(',').filter(|segment| !segment.is_empty()) {
            let fields = decode_segment(segment)?;
            column += fields.first()?;
            let origin = match fields[..] {
                [_] => None,
                [_, of_source, of_line, of_column, ..] if fields.len() <= 5 => {
                    source += of_source;
                    source_line += of_line;
                    source_column += of_column;
                    let unsigned = |number| u32::try_from(number).ok();
                    Some((unsigned(source)?, unsigned(source_line)?, unsigned(source_column)?))
                }
                _ => return None,
            };
            mappings.push(Mapping { line, column: u32::try_from(column).ok()?, origin });
        }
    }
    mappings.sort();
    Some(mappings)
}

/// Numbers in base 64 with five bits a digit, the lowest first; the lowest bit of all is the sign.
fn decode_segment(segment: &str) -> Option<Vec<i64>> {
    let mut numbers = Vec::with_capacity(5);
    let (mut value, mut shift) = (0_i64, 0);
    for digit in segment.bytes() {
        let digit = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        // A number has at most 32 bits.
        if shift > 30 {
            return None;
        }
        value |= i64::from(digit & 31) << shift;
        shift += 5;
        if digit & 32 == 0 {
            numbers.push(if value & 1 == 1 { -(value >> 1) } else { value >> 1 });
            (value, shift) = (0, 0);
        }
    }
    (shift == 0).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decoded_or_refused() {
        for (segment, expected) in [
            ("A", Some(vec![0])),
            ("C", Some(vec![1])),
            ("D", Some(vec![-1])),
            ("gB", Some(vec![16])),
            ("AAgBC", Some(vec![0, 0, 16, 1])),
            ("g", None),
            ("!", None),
            ("ggggggggggggA", None),
        ] {
            assert_eq!(decode_segment(segment), expected, "{segment}");
        }
    }

    #[test]
    fn places_are_found_by_the_nearest_mapping_before_them_on_the_line() {
        let base = Url::parse("file:///app/dist/out.js.map").expect("a URL");
        let json = br#"{"version":3,"sourceRoot":"../src","sources":["a.ts","b.ts"],
            "sourcesContent":["one\ntwo\nthree",null],"mappings":"AAAA,IACC,U;;QCDC,C"}"#;
        let map = SourceMap::parse(json, &base).expect("a map");
        let found =
            |line, column| map.find(line, column).map(|place| (place.source, place.line, place.column));
        let a = |line, column| Some(("/app/src/a.ts".to_owned(), line, column));
        assert_eq!(found(1, 1), a(1, 1));
        assert_eq!(found(1, 4), a(1, 1));
        assert_eq!(found(1, 5), a(2, 2));
        assert_eq!(map.find(1, 6).and_then(|place| place.text).as_deref(), Some("two"));
        assert_eq!(found(1, 15), None, "text that came from no source");
        assert_eq!(found(2, 1), None);
        assert_eq!(found(3, 5), None, "before the line's first mapping");
        assert_eq!(found(3, 9), Some(("/app/src/b.ts".to_owned(), 1, 3)));
    }

    #[test]
    fn malformed_maps_are_no_maps() {
        let base = Url::parse("file:///m").expect("a URL");
        for json in [
            "",
            "{}",
            "[]",
            r#"{"version":2,"sources":[],"mappings":""}"#,
            r#"{"version":3,"sources":[],"mappings":"!"}"#,
            r#"{"version":3,"sources":[],"mappings":"AA"}"#,
            r#"{"version":3,"sources":[],"mappings":"AADA"}"#,
            r#"{"version":3,"sections":[]}"#,
        ] {
            assert!(SourceMap::parse(json.as_bytes(), &base).is_none(), "{json}");
        }
        // A source that the map does not have.
        let map = SourceMap::parse(br#"{"version":3,"sources":[],"mappings":"AAAA"}"#, &base).expect("a map");
        assert_eq!(map.find(1, 1), None);
    }

    #[test]
    fn frames_are_taken_apart() {
        for (frame, expected) in [
            ("    at f (/a b/c.js:1:2)", Some(("/a b/c.js", 1, 2))),
            ("    at /a/c.js:10:20", Some(("/a/c.js", 10, 20))),
            ("    at async /a/c.js:1:2", Some(("/a/c.js", 1, 2))),
            ("    at async f (/a/c.js:1:2)", Some(("/a/c.js", 1, 2))),
            ("    at new Array (<anonymous>)", None),
            ("Error: at /a/c.js:1:2", None),
            ("    at", None),
            ("", None),
        ] {
            assert_eq!(place_of_frame(frame).map(|(_, place, _)| place), expected, "{frame}");
        }
    }
}
