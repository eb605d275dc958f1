//! A source, and what becomes of each of its characters: it stays, it becomes white space, or another character takes its place.

use super::scan::is_line_terminator;

/// The mark of a character that stays.
const KEPT: u8 = 0;

/// Marks over a source.
pub(super) struct Mask<'s> {
    source: &'s str,
    /// For each byte of the source what takes the place of the character that begins there: [`KEPT`], or ASCII.
    marks: Vec<u8>,
}

impl<'s> Mask<'s> {
    pub(super) fn new(source: &'s str) -> Mask<'s> {
        Mask { source, marks: vec![KEPT; source.len()] }
    }

    pub(super) fn source(&self) -> &'s str {
        self.source
    }

    /// Makes a range white space, but for what was put there.
    pub(super) fn blank(&mut self, start: usize, end: usize) {
        for mark in &mut self.marks[start..end] {
            if *mark == KEPT {
                *mark = b' ';
            }
        }
    }

    /// Puts a character of ASCII in the place of the one that begins here.
    pub(super) fn put(&mut self, at: usize, character: u8) {
        self.marks[at] = character;
    }

    /// Line terminators stay; a character that takes two units of UTF-16 leaves two.
    pub(super) fn finish(&self) -> String {
        let mut text = String::with_capacity(self.source.len());
        for (at, character) in self.source.char_indices() {
            match self.marks[at] {
                KEPT => text.push(character),
                _ if is_line_terminator(character) => text.push(character),
                mark => {
                    text.push(char::from(mark));
                    text.extend(std::iter::repeat_n(' ', character.len_utf16() - 1));
                }
            }
        }
        text
    }
}
