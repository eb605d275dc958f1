//! The chunked transfer coding of request bodies (RFC 9112, section 7.1),
//! decoded incrementally and strictly: CRLF only, no blanks around the size,
//! extensions and trailers bounded, checked and dropped.

use std::ops::Range;

use super::limits::{MAX_CHUNK_EXTENSION_BYTES, MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES};

/// The body is not valid chunked coding: the request is refused with 400 and
/// the connection closed, because the next request cannot be found.
#[derive(Debug, PartialEq, Eq)]
pub struct BadChunk;

/// One step of decoding.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that are done with, `data` included.
    pub consumed: usize,
    /// Body bytes inside the input; may be empty.
    pub data: Range<usize>,
    /// The last chunk and the trailer section have been read.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the first digit of a chunk size.
    SizeStart,
    /// After at least one digit.
    Size,
    /// Between `;` and CR.
    Extension,
    /// LF of a chunk-size line.
    SizeLf,
    /// Inside the data of a chunk.
    Data,
    /// CR after the data.
    DataCr,
    /// LF after the data.
    DataLf,
    /// At the start of a trailer line or of the final empty line.
    TrailerStart,
    /// Inside a trailer line.
    Trailer,
    /// LF of a trailer line.
    TrailerLf,
    /// LF of the final empty line.
    EndLf,
    Done,
}

/// The state between two pieces of input.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Size being read, then bytes of the chunk still to come.
    remaining: u64,
    line: usize,
    extensions: usize,
    trailer: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        ChunkedDecoder { state: State::SizeStart, remaining: 0, line: 0, extensions: 0, trailer: 0 }
    }
}

impl ChunkedDecoder {
    /// Decodes up to the end of the next piece of data, of the body or of the input.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BadChunk> {
        let mut at = 0;
        while at < input.len() {
            if self.state == State::Data {
                let len = self.remaining.min((input.len() - at) as u64) as usize;
                self.remaining -= len as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Decoded { consumed: at + len, data: at..at + len, done: false });
            }
            self.step(input[at])?;
            at += 1;
            if self.state == State::Done {
                return Ok(Decoded { consumed: at, data: at..at, done: true });
            }
        }
        Ok(Decoded { consumed: at, data: at..at, done: self.state == State::Done })
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.state == State::SizeStart {
                    self.remaining = 0;
                    self.line = 0;
                }
                self.count_line()?;
                self.push_digit(byte)?;
                State::Size
            }
            (State::Size, b';') => {
                self.count_extension()?;
                State::Extension
            }
            (State::Size | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.count_extension()?;
                State::Extension
            }
            (State::SizeLf, b'\n') if self.remaining == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            // A line that starts with a blank would be a folded one.
            (State::TrailerStart, 0x21..=0x7e) => self.count_trailer(State::Trailer)?,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::Trailer, b'\t' | 0x20..=0x7e | 0x80..) => self.count_trailer(State::Trailer)?,
            (State::TrailerLf, b'\n') => self.count_trailer(State::TrailerStart)?,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(BadChunk),
        };
        Ok(())
    }

    fn push_digit(&mut self, byte: u8) -> Result<(), BadChunk> {
        let digit = (byte as char).to_digit(16).ok_or(BadChunk)?;
        let shifted = self.remaining.checked_mul(16).ok_or(BadChunk)?;
        self.remaining = shifted + u64::from(digit);
        Ok(())
    }

    fn count_line(&mut self) -> Result<(), BadChunk> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINE_BYTES { Err(BadChunk) } else { Ok(()) }
    }

    fn count_extension(&mut self) -> Result<(), BadChunk> {
        self.extensions += 1;
        if self.extensions > MAX_CHUNK_EXTENSION_BYTES {
            return Err(BadChunk);
        }
        self.count_line()
    }

    fn count_trailer(&mut self, next: State) -> Result<State, BadChunk> {
        self.trailer += 1;
        if self.trailer > MAX_TRAILER_BYTES { Err(BadChunk) } else { Ok(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `size`; the body, whether it ended, and the rest.
    fn decode(input: &[u8], size: usize) -> Result<(Vec<u8>, bool, usize), BadChunk> {
        let mut decoder = ChunkedDecoder::default();
        let mut body = Vec::new();
        let mut used = 0;
        for piece in input.chunks(size) {
            let mut at = 0;
            while at < piece.len() {
                let step = decoder.decode(&piece[at..])?;
                body.extend_from_slice(&piece[at..][step.data]);
                at += step.consumed;
                used += step.consumed;
                if step.done {
                    return Ok((body, true, input.len() - used));
                }
            }
        }
        Ok((body, false, input.len() - used))
    }

    #[test]
    fn any_split_gives_the_same_body() {
        let input = b"5\r\nhello\r\n6;a=\"b c\"\r\n world\r\n0\r\nX-Trailer: y\r\nZ: \r\n\r\nGET /";
        for size in 1..=input.len() {
            assert_eq!(decode(input, size), Ok((b"hello world".to_vec(), true, 5)), "pieces of {size}");
        }
        assert_eq!(decode(b"0\r\n\r\n", 2), Ok((vec![], true, 0)));
        assert_eq!(decode(b"A\r\n0123456789\r\n00\r\n\r\n", 3), Ok((b"0123456789".to_vec(), true, 0)));
    }

    #[test]
    fn malformed_bodies_are_refused_at_any_split() {
        let long_line = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(MAX_CHUNK_LINE_BYTES));
        let many = format!("1;{}\r\nx\r\n", "e".repeat(200)).repeat(100);
        let trailer = format!("0\r\nX: {}\r\n\r\n", "t".repeat(MAX_TRAILER_BYTES));
        let table: &[&[u8]] = &[
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\nx",
            b"1\nx\r\n",
            b"1\r\nx\n0\r\n\r\n",
            b"1\r\nxy",
            b"1\rx",
            b"1;a\nb\r\n",
            b"1;a\0\r\n",
            b"10000000000000000\r\n",
            b"0\r\n\n",
            b"0\r\n X: y\r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX\0: y\r\n\r\n",
            b"0\r\n\rx",
            long_line.as_bytes(),
            many.as_bytes(),
            trailer.as_bytes(),
        ];
        for input in table {
            for size in [1, 2, 7, input.len()] {
                assert_eq!(decode(input, size), Err(BadChunk), "{:?}", String::from_utf8_lossy(input));
            }
        }
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        let mut decoder = ChunkedDecoder::default();
        let step = decoder.decode(b"ffffffffffffffff\r\nabc").unwrap();
        assert_eq!(step, Decoded { consumed: 21, data: 18..21, done: false });
    }
}
