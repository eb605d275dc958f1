//! Content codings of responses: gzip, deflate, br, zstd, one over the other.
//!
//! Decoding is pulled: a piece of output is made when there is room for it, so that a small
//! response that becomes a large one waits for its reader. RFC 9110 section 8.4, RFC 7932, RFC 8878.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::error::NetError;
use super::limits::MAX_CODINGS;
use crate::web::compression::{Format, Inflater};

/// Most bytes of one piece of output.
const PIECE_BYTES: usize = 64 * 1024;

/// A response of another size is refused: no sender needs more (RFC 8878, section 3.1.1.1.2, RFC 9659).
const MAX_ZSTD_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// One coding.
enum Decoder {
    Gzip(Box<Inflater>),
    /// What servers send as "deflate" is zlib's format or, wrongly, bare DEFLATE: the first byte tells.
    Deflate(Option<Box<Inflater>>),
    Brotli(Box<Brotli>),
    Zstd(Box<Zstd>),
}

type BrotliMemory = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

struct Brotli {
    state: BrotliMemory,
    input: Vec<u8>,
    is_done: bool,
}

/// Where in a frame of zstd the input begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ZstdPhase {
    /// Before a frame; `true` once one has ended.
    Head(bool),
    /// Before a block.
    Block,
    Checksum,
}

struct Zstd {
    decoder: ruzstd::decoding::FrameDecoder,
    input: Vec<u8>,
    phase: ZstdPhase,
    has_checksum: bool,
}

fn broken(coding: &str, reason: impl std::fmt::Display) -> NetError {
    NetError::new("ERR_CONTENT_DECODING", format!("the response's {coding} data cannot be decoded: {reason}"))
}

impl Decoder {
    fn named(name: &str) -> Option<Decoder> {
        Some(match name {
            "gzip" | "x-gzip" => Decoder::Gzip(Box::new(Inflater::new(Format::Gzip))),
            "deflate" => Decoder::Deflate(None),
            "br" => Decoder::Brotli(Box::new(Brotli {
                state: BrotliState::new(
                    StandardAlloc::default(),
                    StandardAlloc::default(),
                    StandardAlloc::default(),
                ),
                input: Vec::new(),
                is_done: false,
            })),
            "zstd" => Decoder::Zstd(Box::new(Zstd {
                decoder: ruzstd::decoding::FrameDecoder::new(),
                input: Vec::new(),
                phase: ZstdPhase::Head(false),
                has_checksum: false,
            })),
            _ => return None,
        })
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Decoder::Gzip(inflater) => inflater.write(bytes),
            Decoder::Deflate(inflater) => {
                let Some(first) = bytes.first() else { return };
                let format = if first & 0x0f == 8 { Format::Deflate } else { Format::DeflateRaw };
                inflater.get_or_insert_with(|| Box::new(Inflater::new(format))).write(bytes);
            }
            Decoder::Brotli(brotli) => brotli.input.extend_from_slice(bytes),
            Decoder::Zstd(zstd) => zstd.input.extend_from_slice(bytes),
        }
    }

    /// The next piece of output; `None` if more input is needed.
    fn read(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        match self {
            Decoder::Gzip(inflater) => inflater.read().map_err(|reason| broken("gzip", reason)),
            Decoder::Deflate(None) => Ok(None),
            Decoder::Deflate(Some(inflater)) => inflater.read().map_err(|reason| broken("deflate", reason)),
            Decoder::Brotli(brotli) => brotli.read(),
            Decoder::Zstd(zstd) => zstd.read(),
        }
    }

    /// Whether the data may end here.
    fn end(&self) -> Result<(), NetError> {
        const CUT_OFF: &str = "it is cut off";
        match self {
            Decoder::Gzip(inflater) => inflater.end().map_err(|reason| broken("gzip", reason)),
            Decoder::Deflate(None) => Ok(()),
            Decoder::Deflate(Some(inflater)) => inflater.end().map_err(|reason| broken("deflate", reason)),
            Decoder::Brotli(brotli) if brotli.is_done => Ok(()),
            Decoder::Brotli(_) => Err(broken("br", CUT_OFF)),
            Decoder::Zstd(zstd) if zstd.phase == ZstdPhase::Head(true) && zstd.input.is_empty() => Ok(()),
            Decoder::Zstd(_) => Err(broken("zstd", CUT_OFF)),
        }
    }
}

impl Brotli {
    fn read(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        if self.is_done {
            return if self.input.is_empty() { Ok(None) } else { Err(broken("br", "data follows its end")) };
        }
        let mut out = vec![0; PIECE_BYTES];
        let (mut input_left, mut input_at) = (self.input.len(), 0);
        let (mut room, mut out_at, mut total) = (out.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut input_at,
            &self.input,
            &mut room,
            &mut out_at,
            &mut out,
            &mut total,
            &mut self.state,
        );
        self.input.drain(..input_at);
        match result {
            BrotliResult::ResultFailure => return Err(broken("br", "it is malformed")),
            BrotliResult::ResultSuccess => self.is_done = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        out.truncate(out_at);
        Ok((!out.is_empty()).then_some(out))
    }
}

impl Zstd {
    /// One block at a time: a few bytes may stand for 128 KiB each.
    fn read(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        use std::io::Read;
        loop {
            if self.decoder.can_collect() > 0 {
                let mut out = vec![0; PIECE_BYTES];
                let count = self.decoder.read(&mut out).map_err(|error| broken("zstd", error))?;
                out.truncate(count);
                return Ok(Some(out));
            }
            let has_advanced = match self.phase {
                ZstdPhase::Head(_) => self.begin_frame()?,
                ZstdPhase::Block => self.decode_block()?,
                ZstdPhase::Checksum => {
                    let is_there = self.input.len() >= 4;
                    if is_there {
                        self.feed(4)?;
                        self.phase = ZstdPhase::Head(true);
                    }
                    is_there
                }
            };
            if !has_advanced {
                return Ok(None);
            }
        }
    }

    /// Gives the decoder exactly so many bytes: a whole block, or the checksum.
    fn feed(&mut self, count: usize) -> Result<(), NetError> {
        let fed = self.decoder.decode_from_to(&self.input[..count], &mut []);
        fed.map_err(|error| broken("zstd", error))?;
        self.input.drain(..count);
        Ok(())
    }

    /// RFC 8878, section 3.1.1.2.
    fn decode_block(&mut self) -> Result<bool, NetError> {
        const HEAD: usize = 3;
        const RUN: u32 = 1;
        let Some(&[a, b, c]) = self.input.first_chunk::<HEAD>() else { return Ok(false) };
        let head = u32::from_le_bytes([a, b, c, 0]);
        let (is_last, kind, size) = (head & 1 == 1, head >> 1 & 3, (head >> 3) as usize);
        let length = HEAD + if kind == RUN { 1 } else { size };
        if self.input.len() < length {
            return Ok(false);
        }
        self.feed(length)?;
        if is_last {
            self.phase = if self.has_checksum { ZstdPhase::Checksum } else { ZstdPhase::Head(true) };
        }
        Ok(true)
    }

    /// RFC 8878, section 3.1.1.1. False if the head is not complete.
    fn begin_frame(&mut self) -> Result<bool, NetError> {
        const MAGIC: u32 = 0xfd2f_b528;
        const SKIPPABLE: u32 = 0x184d_2a50;
        let Some(&[a, b, c, d, descriptor]) = self.input.first_chunk::<5>() else { return Ok(false) };
        let magic = u32::from_le_bytes([a, b, c, d]);
        if magic & !0xf == SKIPPABLE {
            let Some(&[_, _, _, _, a, b, c, d]) = self.input.first_chunk::<8>() else { return Ok(false) };
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            if length > PIECE_BYTES {
                return Err(broken("zstd", "a skippable frame is too long"));
            }
            let is_there = self.input.len() >= 8 + length;
            if is_there {
                self.input.drain(..8 + length);
            }
            return Ok(is_there);
        }
        if magic != MAGIC {
            return Err(broken("zstd", "it has no magic number"));
        }
        let is_single = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = match descriptor >> 6 {
            0 => usize::from(is_single),
            flag => 1 << flag,
        };
        let length = 5 + usize::from(!is_single) + dictionary + size;
        let Some(head) = self.input.get(..length) else { return Ok(false) };
        let window = match is_single {
            false => {
                let base = 1u64 << (10 + (head[5] >> 3));
                base + base / 8 * u64::from(head[5] & 7)
            }
            true => {
                let field = &head[length - size..];
                let number = field.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
                // A field of two bytes counts from 256.
                number + if size == 2 { 256 } else { 0 }
            }
        };
        if window > MAX_ZSTD_WINDOW_BYTES {
            return Err(broken("zstd", "its window is larger than 8 MiB"));
        }
        self.decoder.reset(head).map_err(|error| broken("zstd", error))?;
        self.input.drain(..length);
        self.has_checksum = descriptor & 4 != 0;
        self.phase = ZstdPhase::Block;
        Ok(true)
    }
}

/// All codings of a response, outermost first.
pub struct Decoders {
    chain: Vec<Decoder>,
}

impl Decoders {
    /// For a `content-encoding`; none if there is nothing to decode or a coding is unknown: then the
    /// body is given as it comes.
    pub fn for_field(value: &str) -> Option<Decoders> {
        let names: Vec<String> = value
            .split(',')
            .map(|name| name.trim_matches([' ', '\t']).to_ascii_lowercase())
            .filter(|name| !name.is_empty() && name != "identity")
            .collect();
        if names.is_empty() || names.len() > MAX_CODINGS {
            return None;
        }
        let chain: Option<Vec<Decoder>> = names.iter().rev().map(|name| Decoder::named(name)).collect();
        chain.map(|chain| Decoders { chain })
    }

    /// Takes encoded bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.chain[0].write(bytes);
    }

    /// The next piece of decoded output; `None` if more input is needed.
    ///
    /// # Errors
    /// The data is malformed.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        Self::read_from(&mut self.chain)
    }

    fn read_from(chain: &mut [Decoder]) -> Result<Option<Vec<u8>>, NetError> {
        let Some((last, before)) = chain.split_last_mut() else { return Ok(None) };
        loop {
            if let Some(piece) = last.read()? {
                return Ok(Some(piece));
            }
            match Self::read_from(before)? {
                Some(piece) => last.write(&piece),
                None => return Ok(None),
            }
        }
    }

    /// The response has ended.
    ///
    /// # Errors
    /// The data does not end here.
    pub fn end(&self) -> Result<(), NetError> {
        self.chain.iter().try_for_each(Decoder::end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(field: &str, bytes: &[u8], piece: usize) -> Result<Vec<u8>, NetError> {
        let mut decoders = Decoders::for_field(field).expect("known codings");
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            decoders.write(piece);
            while let Some(piece) = decoders.read()? {
                assert!(piece.len() <= PIECE_BYTES);
                out.extend(piece);
            }
        }
        decoders.end()?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("a vector");
        encoder.finish().expect("a vector")
    }

    #[test]
    fn codings_are_undone_in_any_pieces() {
        let text = b"hello hello hello hello";
        let deflate = {
            use std::io::Write;
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text).expect("a vector");
            encoder.finish().expect("a vector")
        };
        let zstd = ruzstd::encoding::compress_to_vec(
            text.as_slice(),
            ruzstd::encoding::CompressionLevel::Uncompressed,
        );
        // Made by Node's zlib.brotliCompressSync of the same text.
        let brotli = BROTLI_HELLO;
        for piece in [1, 3, 1000] {
            assert_eq!(decode("gzip", &gzip(text), piece).expect("decodes"), text);
            assert_eq!(decode("X-GZip", &gzip(text), piece).expect("decodes"), text);
            assert_eq!(decode("deflate", &deflate, piece).expect("decodes"), text);
            assert_eq!(decode("deflate", &deflate[2..deflate.len() - 4], piece).expect("decodes"), text);
            assert_eq!(decode("zstd", &zstd, piece).expect("decodes"), text);
            assert_eq!(decode("br", brotli, piece).expect("decodes"), text);
            assert_eq!(decode("gzip, gzip", &gzip(&gzip(text)), piece).expect("decodes"), text);
            assert_eq!(decode("identity, br, gzip", &gzip(brotli), piece).expect("decodes"), text);
            let two_frames = [zstd.as_slice(), &[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9], &zstd].concat();
            assert_eq!(decode("zstd", &two_frames, piece).expect("decodes").len(), 2 * text.len());
        }
    }

    const BROTLI_HELLO: &[u8] =
        &[27, 22, 0, 248, 141, 148, 110, 222, 68, 85, 134, 150, 108, 32, 111, 33, 79, 28, 224, 56];

    #[test]
    fn what_is_cut_off_or_broken_is_refused() {
        let zstd = ruzstd::encoding::compress_to_vec(
            b"x".as_slice(),
            ruzstd::encoding::CompressionLevel::Uncompressed,
        );
        for (field, bytes) in [("gzip", gzip(b"x")), ("zstd", zstd), ("br", BROTLI_HELLO.to_vec())] {
            assert!(decode(field, &bytes[..bytes.len() - 1], 4).is_err(), "{field} cut off");
            assert!(
                decode(field, b"\xff\xff\xff\xff no such data \xff\xff\xff\xff", 4).is_err(),
                "{field} broken"
            );
        }
    }

    #[test]
    fn unknown_and_too_many_codings_are_left_alone() {
        for field in ["", "identity", "compress", "gzip, unknown", "gzip,gzip,gzip,gzip,gzip,gzip"] {
            assert!(Decoders::for_field(field).is_none(), "{field}");
        }
    }
}
