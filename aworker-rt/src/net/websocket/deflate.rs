//! permessage-deflate, pure: RFC 7692. No window outlives its message on either side: an idle connection keeps no
//! state, and what one message says cannot be guessed from the length of the next.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::super::limits::{MAX_MESSAGE_BYTES, MIN_DEFLATED_BYTES};
use super::frame::{TOO_LONG, Violation};

/// What a client asks for, and what a server answers.
pub const AGREED: &str = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";

/// What ends a message that is flushed, and is left out (section 7.2.1).
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];

/// Bytes of output that are made room for at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// The parameters of `permessage-deflate` in a field's element; `None` if it is another extension.
fn parameters(element: &str) -> Option<impl Iterator<Item = (String, Option<&str>)>> {
    let mut parts = element.split(';').map(str::trim);
    (parts.next()? == "permessage-deflate").then(|| {
        parts.map(|part| match part.split_once('=') {
            None => (part.to_ascii_lowercase(), None),
            Some((name, value)) => {
                let value = value.trim();
                let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
                (name.trim().to_ascii_lowercase(), Some(bare))
            }
        })
    })
}

/// Window sizes that the RFC knows (section 7.1.2).
fn is_window(value: &str) -> bool {
    matches!(value, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

/// Whether no name occurs twice.
fn are_distinct(names: &[String]) -> bool {
    names.iter().enumerate().all(|(index, name)| !names[..index].contains(name))
}

/// Whether a server can take one of the offers in a request's field.
pub fn accepts(field: &str) -> bool {
    field.split(',').map(str::trim).any(|offer| {
        let Some(parameters) = parameters(offer) else { return false };
        let mut names = Vec::new();
        for (name, value) in parameters {
            let is_good = match (name.as_str(), value) {
                ("client_no_context_takeover" | "server_no_context_takeover", None) => true,
                ("client_max_window_bits", None) => true,
                ("client_max_window_bits", Some(value)) => is_window(value),
                // Our compressor has one window, of 32 KiB.
                ("server_max_window_bits", Some(value)) => value == "15",
                _ => false,
            };
            if !is_good {
                return false;
            }
            names.push(name);
        }
        are_distinct(&names)
    })
}

/// Whether a server's answer to [`AGREED`] is one that we can keep to.
pub fn agrees(field: &str) -> bool {
    let Some(parameters) = parameters(field.trim()) else { return false };
    let mut names = Vec::new();
    for (name, value) in parameters {
        let is_good = match (name.as_str(), value) {
            ("client_no_context_takeover" | "server_no_context_takeover", None) => true,
            ("server_max_window_bits", Some(value)) => is_window(value),
            _ => false,
        };
        if !is_good {
            return false;
        }
        names.push(name);
    }
    are_distinct(&names) && names.iter().any(|name| name == "server_no_context_takeover")
}

/// The message compressed; `None` if it is not worth it.
pub fn deflate(message: &[u8]) -> Option<Vec<u8>> {
    if message.len() < MIN_DEFLATED_BYTES {
        return None;
    }
    let mut compress = Compress::new(Compression::fast(), false);
    let mut out = Vec::with_capacity(message.len() / 2);
    loop {
        let taken = usize::try_from(compress.total_in()).ok()?;
        out.reserve(PIECE_BYTES);
        compress.compress_vec(&message[taken..], &mut out, FlushCompress::Sync).ok()?;
        if out.len() >= message.len() {
            return None;
        }
        let is_whole = usize::try_from(compress.total_in()).ok()? == message.len();
        if is_whole && out.len() < out.capacity() {
            break;
        }
    }
    out.ends_with(TAIL).then(|| {
        out.truncate(out.len() - TAIL.len());
        out
    })
}

/// The message that was compressed.
///
/// # Errors
/// It is damaged, or longer than a message may be.
pub fn inflate(compressed: &[u8]) -> Result<Vec<u8>, Violation> {
    const DAMAGED: Violation = Violation { code: 1007, reason: "a message is not well compressed" };
    let mut decompress = Decompress::new(false);
    let mut out = Vec::new();
    for mut input in [compressed, TAIL] {
        loop {
            if out.len() == out.capacity() {
                out.reserve(PIECE_BYTES);
            }
            let before = (decompress.total_in(), out.len());
            let status =
                decompress.decompress_vec(input, &mut out, FlushDecompress::Sync).map_err(|_| DAMAGED)?;
            if out.len() > MAX_MESSAGE_BYTES {
                return Err(TOO_LONG);
            }
            let taken = usize::try_from(decompress.total_in() - before.0).map_err(|_| DAMAGED)?;
            input = &input[taken..];
            if status == Status::StreamEnd {
                // A final block ends nothing but itself (section 7.2.3.4).
                decompress.reset(false);
            } else if taken == 0 && out.len() == before.1 {
                match input {
                    [] => break,
                    _ => return Err(DAMAGED),
                }
            }
            if input.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deflated_is_inflated() {
        for length in [MIN_DEFLATED_BYTES, 5_000, 100_000, 3_000_000] {
            let message: Vec<u8> =
                (0..length).map(|index| b"abcab"[index % 5] ^ (index / 7_000) as u8).collect();
            let compressed = deflate(&message).expect("it shrinks");
            assert!(compressed.len() < length, "{length}");
            assert_eq!(inflate(&compressed), Ok(message), "{length}");
        }
        assert_eq!(deflate(&[b'x'; MIN_DEFLATED_BYTES - 1]), None, "short messages stay as they are");
        let mut state = 1u32;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        assert_eq!(deflate(&noise), None, "what does not shrink stays as it is");
    }

    /// Section 7.2.3: the examples of the RFC.
    #[test]
    fn the_examples_of_the_rfc_are_understood() {
        for wire in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflate(wire).as_deref(), Ok(&b"Hello"[..]), "{wire:02x?}");
        }
        assert_eq!(inflate(&[0]).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn damage_and_bombs_are_refused() {
        assert_eq!(inflate(&[0xff, 0xff, 0xff]).expect_err("damaged").code, 1007);
        let bomb = {
            let mut compress = Compress::new(Compression::best(), false);
            let zeros = vec![0; MAX_MESSAGE_BYTES + 1];
            let mut out = Vec::with_capacity(1 << 20);
            compress.compress_vec(&zeros, &mut out, FlushCompress::Sync).expect("compress");
            out
        };
        assert_eq!(inflate(&bomb).expect_err("too long").code, 1009);
        let mut state = 1u32;
        for _ in 0..20_000 {
            let mut wire = deflate(&[b'y'; 4 * MIN_DEFLATED_BYTES]).expect("it shrinks");
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (state >> 16) as usize % wire.len();
            wire[at] ^= (state >> 8) as u8;
            let _ = inflate(&wire);
        }
    }

    #[test]
    fn offers_and_answers() {
        for (field, accepted) in [
            ("permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits", true),
            ("permessage-deflate; client_max_window_bits=\"10\"; server_no_context_takeover", true),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
            ("x-other, permessage-deflate; server_max_window_bits=15", true),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; server_max_window_bits", false),
            ("permessage-deflate; client_max_window_bits=16", false),
            ("permessage-deflate; unknown", false),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", false),
            ("permessage-deflate; client_no_context_takeover=1", false),
            ("x-other", false),
            ("", false),
        ] {
            assert_eq!(accepts(field), accepted, "{field}");
        }
        for (field, agreed) in [
            (AGREED, true),
            ("permessage-deflate; server_no_context_takeover; server_max_window_bits=9", true),
            ("permessage-deflate", false),
            ("permessage-deflate; server_no_context_takeover; client_max_window_bits=9", false),
            ("permessage-deflate; server_no_context_takeover, x-other", false),
            ("x-other", false),
        ] {
            assert_eq!(agrees(field), agreed, "{field}");
        }
    }
}
