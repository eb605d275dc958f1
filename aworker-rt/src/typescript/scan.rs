//! Looking at a source between the nodes of its tree: tokens have no node of their own. Positions are bytes.

/// What ends a line: <https://tc39.es/ecma262/#sec-line-terminators>
pub(super) fn is_line_terminator(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{2028}' | '\u{2029}')
}

/// The first position from `at` on that is neither white space nor in a comment.
pub(super) fn skip_trivia(source: &str, mut at: usize) -> usize {
    loop {
        let rest = &source[at..];
        let length = if rest.starts_with("//") {
            rest.find(is_line_terminator).unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else {
            rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').len()
        };
        if length == 0 {
            return at;
        }
        at += length;
    }
}

/// The letters of ASCII from here on: a modifier is nothing else.
pub(super) fn word(source: &str, at: usize) -> &str {
    let rest = &source[at..];
    let end =
        rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '$')).unwrap_or(rest.len());
    &rest[..end]
}

/// The byte at this position.
pub(super) fn byte(source: &str, at: usize) -> Option<u8> {
    source.as_bytes().get(at).copied()
}

/// Whether a line ends in the range.
pub(super) fn has_line_end(source: &str, start: usize, end: usize) -> bool {
    source[start..end].contains(is_line_terminator)
}

/// A position as people count.
pub(super) struct Place<'s> {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in UTF-16 units.
    pub(super) column: usize,
    /// The line, without what ends it.
    pub(super) text: &'s str,
}

/// Where a position is.
pub(super) fn place(source: &str, at: usize) -> Place<'_> {
    let at = source.floor_char_boundary(at);
    let mut place = Place { line: 0, column: 1, text: "" };
    let mut start = 0;
    loop {
        let length = source[start..].find(is_line_terminator).unwrap_or(source.len() - start);
        place.line += 1;
        place.text = &source[start..start + length];
        let next = start + length + line_end_length(&source[start + length..]);
        if at < next || next == source.len() && length + start == next {
            let before = &source[start..at.min(start + length)];
            place.column = before.chars().map(char::len_utf16).sum::<usize>() + 1;
            return place;
        }
        start = next;
    }
}

/// Bytes of what ends a line here; a carriage return and a line feed are one.
fn line_end_length(rest: &str) -> usize {
    match rest.strip_prefix("\r\n") {
        Some(_) => 2,
        None => rest.chars().next().map_or(0, char::len_utf8),
    }
}
