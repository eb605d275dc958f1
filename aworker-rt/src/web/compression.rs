//! CompressionStream and DecompressionStream: DEFLATE by flate2, the gzip frame of
//! what is read by ourselves. Output is fetched by pieces, so that a small input
//! that becomes a large output waits for its reader.
//! <https://compression.spec.whatwg.org/>, RFC 1950, 1951, 1952

use std::io::Write;

use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compression, Crc, Decompress, FlushDecompress, Status};

use super::{bytes, encoding};
use crate::engine::conversions;

/// Most streams that are in the middle at one time; one that compresses holds about 300 KiB.
const MAX_CODECS: usize = 1024;

/// Most bytes that one piece of output holds.
const PIECE_BYTES: usize = 64 * 1024;

/// Most bytes of a gzip header: the extra field may have 64 KiB, names are short.
const MAX_GZIP_HEADER_BYTES: usize = 128 * 1024;

/// The formats of the two interfaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Deflate,
    DeflateRaw,
    Gzip,
}

impl Format {
    fn of(name: &str) -> Format {
        match name {
            "gzip" => Format::Gzip,
            "deflate-raw" => Format::DeflateRaw,
            _ => Format::Deflate,
        }
    }
}

/// Writes compressed bytes to its vector.
enum Deflater {
    Deflate(ZlibEncoder<Vec<u8>>),
    DeflateRaw(DeflateEncoder<Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Deflater {
    fn new(format: Format) -> Deflater {
        let level = Compression::default();
        match format {
            Format::Deflate => Deflater::Deflate(ZlibEncoder::new(Vec::new(), level)),
            Format::DeflateRaw => Deflater::DeflateRaw(DeflateEncoder::new(Vec::new(), level)),
            Format::Gzip => Deflater::Gzip(GzEncoder::new(Vec::new(), level)),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let written = match self {
            Deflater::Deflate(encoder) => encoder.write_all(bytes),
            Deflater::DeflateRaw(encoder) => encoder.write_all(bytes),
            Deflater::Gzip(encoder) => encoder.write_all(bytes),
        };
        written.expect("a vector takes every byte");
    }

    fn end(&mut self) {
        let ended = match self {
            Deflater::Deflate(encoder) => encoder.try_finish(),
            Deflater::DeflateRaw(encoder) => encoder.try_finish(),
            Deflater::Gzip(encoder) => encoder.try_finish(),
        };
        ended.expect("a vector takes every byte");
    }

    fn read(&mut self) -> Option<Vec<u8>> {
        let out = match self {
            Deflater::Deflate(encoder) => encoder.get_mut(),
            Deflater::DeflateRaw(encoder) => encoder.get_mut(),
            Deflater::Gzip(encoder) => encoder.get_mut(),
        };
        (!out.is_empty()).then(|| std::mem::take(out))
    }
}

/// Where in its input an [`Inflater`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the compressed data of a gzip member.
    Header,
    Data,
    /// Checksum and length of a gzip member.
    Trailer,
    Done,
}

/// Undoes a format piece by piece.
pub(crate) struct Inflater {
    format: Format,
    phase: Phase,
    engine: Decompress,
    crc: Crc,
    /// What came and was not consumed yet begins at `at`.
    input: Vec<u8>,
    at: usize,
}

impl Inflater {
    pub(crate) fn new(format: Format) -> Inflater {
        Inflater {
            format,
            phase: if format == Format::Gzip { Phase::Header } else { Phase::Data },
            engine: Decompress::new(format == Format::Deflate),
            crc: Crc::new(),
            input: Vec::new(),
            at: 0,
        }
    }

    /// Takes compressed bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.input.drain(..self.at);
        self.at = 0;
        self.input.extend_from_slice(bytes);
    }

    /// The next piece of output; `None` if more input is needed.
    pub(crate) fn read(&mut self) -> Result<Option<Vec<u8>>, &'static str> {
        loop {
            match self.phase {
                Phase::Header => match gzip_header(&self.input[self.at..])? {
                    Some(length) => {
                        self.at += length;
                        self.phase = Phase::Data;
                    }
                    None if self.input.len() > MAX_GZIP_HEADER_BYTES => {
                        return Err("the gzip header is too long");
                    }
                    None => return Ok(None),
                },
                Phase::Data => {
                    let mut out = Vec::with_capacity(PIECE_BYTES);
                    let before = self.engine.total_in();
                    let status = self
                        .engine
                        .decompress_vec(&self.input[self.at..], &mut out, FlushDecompress::None)
                        .map_err(|_| "the compressed data is malformed")?;
                    let consumed =
                        usize::try_from(self.engine.total_in() - before).expect("part of the input");
                    self.at += consumed;
                    if self.format == Format::Gzip {
                        self.crc.update(&out);
                    }
                    if status == Status::StreamEnd {
                        self.phase = if self.format == Format::Gzip { Phase::Trailer } else { Phase::Done };
                    }
                    if !out.is_empty() {
                        out.shrink_to_fit();
                        return Ok(Some(out));
                    }
                    if status != Status::StreamEnd && consumed == 0 {
                        return Ok(None);
                    }
                }
                Phase::Trailer => {
                    let Some(trailer) = self.input[self.at..].first_chunk::<8>() else { return Ok(None) };
                    let [a, b, c, d, e, f, g, h] = *trailer;
                    self.at += trailer.len();
                    if u32::from_le_bytes([a, b, c, d]) != self.crc.sum()
                        || u32::from_le_bytes([e, f, g, h]) != self.crc.amount()
                    {
                        return Err("the checksum of the compressed data is wrong");
                    }
                    self.phase = Phase::Done;
                }
                Phase::Done if self.at < self.input.len() => {
                    return Err("data follows the end of the compressed data");
                }
                Phase::Done => return Ok(None),
            }
        }
    }

    /// Whether the data may end here.
    pub(crate) fn end(&self) -> Result<(), &'static str> {
        if self.phase == Phase::Done { Ok(()) } else { Err("the compressed data is cut off") }
    }
}

/// The length of the gzip header at the start; `None` if it is not complete.
fn gzip_header(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    const FIXED: usize = 10;
    const BROKEN: &str = "the gzip header is malformed";
    let magic = [0x1f, 0x8b, 8];
    if bytes.iter().zip(magic).any(|(byte, magic)| *byte != magic) {
        return Err(BROKEN);
    }
    let Some(flags) = bytes.get(3) else { return Ok(None) };
    if flags & 0xe0 != 0 {
        return Err(BROKEN);
    }
    let mut length = FIXED;
    if flags & 4 != 0 {
        let Some(&[low, high]) = bytes.get(length..length + 2) else { return Ok(None) };
        length += 2 + usize::from(u16::from_le_bytes([low, high]));
    }
    // Name and comment end with a zero byte each.
    for flag in [8, 16] {
        if flags & flag != 0 {
            let end = bytes.get(length..).and_then(|rest| memchr::memchr(0, rest));
            let Some(end) = end else { return Ok(None) };
            length += end + 1;
        }
    }
    if flags & 2 != 0 {
        let Some(&[low, high]) = bytes.get(length..length + 2) else { return Ok(None) };
        let mut crc = Crc::new();
        crc.update(&bytes[..length]);
        if crc.sum() & 0xffff != u32::from(u16::from_le_bytes([low, high])) {
            return Err(BROKEN);
        }
        length += 2;
    }
    Ok((length <= bytes.len()).then_some(length))
}

enum Codec {
    Deflater(Deflater),
    Inflater(Box<Inflater>),
}

/// Streams in the middle; the index is JavaScript's handle. Plain memory: a fork
/// gives the clone its own copy.
#[derive(Default)]
struct Codecs {
    slots: Vec<Option<Codec>>,
    free: Vec<usize>,
}

/// What a snapshot could not keep.
pub(crate) fn held(isolate: &mut v8::Isolate) -> Option<&'static str> {
    let codecs = isolate.get_slot::<Codecs>()?;
    let is_held = codecs.slots.iter().any(Option::is_some);
    is_held.then_some("a CompressionStream or DecompressionStream that has not ended")
}

fn codecs(isolate: &mut v8::Isolate) -> &mut Codecs {
    if isolate.get_slot::<Codecs>().is_none() {
        isolate.set_slot(Codecs::default());
    }
    isolate.get_slot_mut::<Codecs>().expect("set above")
}

fn codec<'a>(scope: &'a mut v8::PinScope<'_, '_>, handle: v8::Local<v8::Value>) -> Option<&'a mut Codec> {
    let handle = usize::try_from(handle.uint32_value(scope)?).ok()?;
    codecs(scope).slots.get_mut(handle)?.as_mut()
}

/// `ops.compression_new(format, decompress)`: the handle of a stream's state.
pub(crate) fn compression_new(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let format = Format::of(&arguments.get(0).to_rust_string_lossy(scope));
    let codec = match arguments.get(1).is_true() {
        true => Codec::Inflater(Box::new(Inflater::new(format))),
        false => Codec::Deflater(Deflater::new(format)),
    };
    let codecs = codecs(scope);
    let handle = match codecs.free.pop() {
        Some(handle) => handle,
        None if codecs.slots.len() == MAX_CODECS => {
            return conversions::throw_range_error(scope, "too many compression streams are in the middle");
        }
        None => {
            codecs.slots.push(None);
            codecs.slots.len() - 1
        }
    };
    codecs.slots[handle] = Some(codec);
    #[allow(clippy::cast_precision_loss)]
    result.set_double(handle as f64);
}

/// `ops.compression_write(handle, source)`: takes a chunk.
pub(crate) fn compression_write(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let Some(codec) = codec(scope, arguments.get(0)) else { return };
    encoding::with_source(arguments.get(1), |bytes| match codec {
        Codec::Deflater(deflater) => deflater.write(bytes),
        Codec::Inflater(inflater) => inflater.write(bytes),
    });
}

/// `ops.compression_read(handle)`: a Uint8Array of output, undefined if more input
/// is needed, or a string that says what is wrong with the input.
pub(crate) fn compression_read(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(codec) = codec(scope, arguments.get(0)) else { return };
    let piece = match codec {
        Codec::Deflater(deflater) => Ok(deflater.read()),
        Codec::Inflater(inflater) => inflater.read(),
    };
    match piece {
        Ok(Some(piece)) => result.set(bytes::uint8_array(scope, piece).into()),
        Ok(None) => {}
        Err(message) => result.set(conversions::string(scope, message).into()),
    }
}

/// `ops.compression_end(handle)`: no chunk will follow; read what is left. A string
/// if the input is not complete.
pub(crate) fn compression_end(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let ended = match codec(scope, arguments.get(0)) {
        Some(Codec::Deflater(deflater)) => {
            deflater.end();
            Ok(())
        }
        Some(Codec::Inflater(inflater)) => inflater.end(),
        None => Ok(()),
    };
    if let Err(message) = ended {
        result.set(conversions::string(scope, message).into());
    }
}

/// `ops.compression_free(handle)`.
pub(crate) fn compression_free(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let Some(handle) = arguments.get(0).uint32_value(scope).and_then(|handle| usize::try_from(handle).ok())
    else {
        return;
    };
    let codecs = codecs(scope);
    if codecs.slots.get_mut(handle).and_then(Option::take).is_some() {
        codecs.free.push(handle);
    }
}

#[cfg(test)]
mod tests {
    use super::{Deflater, Format, Inflater, PIECE_BYTES, gzip_header};

    const FORMATS: [Format; 3] = [Format::Deflate, Format::DeflateRaw, Format::Gzip];

    fn compress(format: Format, bytes: &[u8]) -> Vec<u8> {
        let mut deflater = Deflater::new(format);
        deflater.write(bytes);
        deflater.end();
        deflater.read().expect("some output")
    }

    fn decompress<'a>(
        format: Format,
        chunks: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<u8>, &'static str> {
        let mut inflater = Inflater::new(format);
        let mut out = Vec::new();
        for chunk in chunks {
            inflater.write(chunk);
            while let Some(piece) = inflater.read()? {
                assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
                out.extend(piece);
            }
        }
        inflater.end().map(|()| out)
    }

    #[test]
    fn what_was_compressed_comes_back_however_it_is_cut() {
        let bytes: Vec<u8> = (0..3000u32).flat_map(|i| (i * i / 7).to_le_bytes()).collect();
        for format in FORMATS {
            let compressed = compress(format, &bytes);
            for size in [1, 2, 3, 7, 100, 1000, compressed.len()] {
                assert_eq!(decompress(format, compressed.chunks(size)).as_deref(), Ok(&bytes[..]));
            }
            let empty = compress(format, b"");
            assert_eq!(decompress(format, empty.chunks(1)), Ok(vec![]));
        }
    }

    #[test]
    fn a_large_output_comes_by_pieces() {
        let bytes = vec![7; 5_000_000];
        for format in FORMATS {
            let compressed = compress(format, &bytes);
            assert!(compressed.len() < 20_000);
            assert_eq!(
                decompress(format, [&compressed[..]].into_iter()).map(|out| out.len()),
                Ok(bytes.len())
            );
        }
    }

    #[test]
    fn damaged_cut_and_continued_data_is_refused() {
        for format in FORMATS {
            let whole = compress(format, b"some text, some text");
            for length in 0..whole.len() {
                assert!(decompress(format, [&whole[..length]].into_iter()).is_err(), "{length} bytes");
            }
            let longer = [&whole[..], b"x"].concat();
            assert!(decompress(format, [&longer[..]].into_iter()).is_err());
            assert!(decompress(format, [&whole[..], b"x"].into_iter()).is_err());
        }
        for format in [Format::Deflate, Format::Gzip] {
            let mut damaged = compress(format, b"some text, some text");
            *damaged.last_mut().expect("not empty") ^= 1;
            assert!(decompress(format, [&damaged[..]].into_iter()).is_err());
        }
    }

    #[test]
    fn every_field_of_a_gzip_header_is_understood() {
        let mut header = vec![0x1f, 0x8b, 8, 4 | 8 | 16, 0, 0, 0, 0, 0, 3, 2, 0, b'e', b'x'];
        header.extend_from_slice(b"name\0comment\0");
        for length in 0..header.len() {
            assert_eq!(gzip_header(&header[..length]), Ok(None), "{length}");
        }
        header.push(b'z');
        assert_eq!(gzip_header(&header), Ok(Some(header.len() - 1)));
        assert!(gzip_header(b"\x1f\x8c").is_err());
        assert!(gzip_header(b"\x1f\x8b\x08\x80").is_err());
        assert!(gzip_header(b"\x1f\x8b\x08\x02\0\0\0\0\0\0\x01\x02").is_err());
    }

    #[test]
    fn random_input_never_panics() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..5000_usize {
            let format = FORMATS[round % 3];
            let mut bytes = compress(format, b"abcabcabcabc some text that repeats, some text");
            for _ in 0..next() % 4 {
                let at = usize::try_from(next()).expect("64 bits") % bytes.len();
                bytes[at] = next().to_le_bytes()[0];
            }
            let _ = decompress(format, bytes.chunks(1 + round % 9));
        }
    }
}
