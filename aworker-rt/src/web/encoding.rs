//! TextEncoder and TextDecoder: UTF-8 by V8, other encodings by encoding_rs.
//! <https://encoding.spec.whatwg.org/>

use encoding_rs::{CoderResult, Decoder, DecoderResult, Encoding, REPLACEMENT, UTF_8};

use super::bytes;
use crate::engine::{conversions, is_ascii};

/// Most decoders in the middle of a stream at one time.
const MAX_DECODERS: usize = 65_536;

/// Decoders in the middle of a stream; the index is JavaScript's handle.
#[derive(Default)]
struct Decoders {
    slots: Vec<Option<Decoder>>,
    free: Vec<usize>,
}

impl Decoders {
    fn insert(&mut self, decoder: Decoder) -> Option<usize> {
        if let Some(index) = self.free.pop() {
            self.slots[index] = Some(decoder);
            return Some(index);
        }
        if self.slots.len() == MAX_DECODERS {
            return None;
        }
        self.slots.push(Some(decoder));
        Some(self.slots.len() - 1)
    }

    fn remove(&mut self, index: usize) {
        if self.slots.get_mut(index).and_then(Option::take).is_some() {
            self.free.push(index);
        }
    }
}

/// What a snapshot could not keep.
pub(crate) fn held(isolate: &mut v8::Isolate) -> Option<&'static str> {
    let decoders = isolate.get_slot::<Decoders>()?;
    decoders.slots.iter().any(Option::is_some).then_some("a TextDecoder in the middle of a stream")
}

fn decoders(isolate: &mut v8::Isolate) -> &mut Decoders {
    if isolate.get_slot::<Decoders>().is_none() {
        isolate.set_slot(Decoders::default());
    }
    isolate.get_slot_mut::<Decoders>().expect("set above")
}

/// `ops.utf8_encode(text)`: a Uint8Array.
pub(crate) fn utf8_encode(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Ok(text) = arguments.get(0).try_cast::<v8::String>() else {
        return;
    };
    let mut bytes = vec![0; text.utf8_length(scope)];
    let written = text.write_utf8_v2(scope, &mut bytes, v8::WriteFlags::kReplaceInvalidUtf8, None);
    bytes.truncate(written);
    result.set(bytes::uint8_array(scope, bytes).into());
}

/// `ops.utf8_encode_into(text, view, counts)`: writes what fits; counts are the
/// code units read and the bytes written.
pub(crate) fn utf8_encode_into(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let (Ok(text), Ok(view)) =
        (arguments.get(0).try_cast::<v8::String>(), arguments.get(1).try_cast::<v8::ArrayBufferView>())
    else {
        return;
    };
    let mut buffer = vec![0; view.byte_length().min(text.utf8_length(scope))];
    let mut read = 0;
    let written =
        text.write_utf8_v2(scope, &mut buffer, v8::WriteFlags::kReplaceInvalidUtf8, Some(&mut read));
    let written = bytes::write(scope, view.into(), &buffer[..written]);
    let counts = [read, written].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    bytes::write_u32(scope, arguments.get(2), &counts);
}

/// `ops.encoding_for_label(label)`: the encoding's name in lower case, undefined
/// if the label is unknown or means "replacement".
pub(crate) fn encoding_for_label(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let label = arguments.get(0).to_rust_string_lossy(scope);
    if let Some(encoding) = Encoding::for_label(label.as_bytes()).filter(|encoding| *encoding != REPLACEMENT)
    {
        result.set(conversions::string(scope, &encoding.name().to_ascii_lowercase()).into());
    }
}

/// The encoding of a name that `encoding_for_label` gave.
fn encoding(scope: &v8::PinScope<'_, '_>, name: v8::Local<v8::Value>) -> &'static Encoding {
    Encoding::for_label(name.to_rust_string_lossy(scope).as_bytes()).unwrap_or(UTF_8)
}

fn decoder(encoding: &'static Encoding, keep_bom: bool) -> Decoder {
    if keep_bom {
        encoding.new_decoder_without_bom_handling()
    } else {
        encoding.new_decoder_with_bom_removal()
    }
}

/// `ops.text_decode(encoding, source, fatal, ignore_bom)`: the text of a whole
/// input, undefined if `fatal` and the input is not valid. The source is an
/// ArrayBuffer, a SharedArrayBuffer or a view.
pub(crate) fn text_decode(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let encoding = encoding(scope, arguments.get(0));
    let fatal = arguments.get(2).is_true();
    let keep_bom = arguments.get(3).is_true();
    let text = with_source(arguments.get(1), |bytes| {
        if encoding == UTF_8 {
            return decode_utf8(scope, bytes, fatal, keep_bom);
        }
        let text = decode(&mut decoder(encoding, keep_bom), bytes, Last::Yes, fatal)?;
        v8::String::new(scope, &text)
    });
    if let Some(Some(text)) = text {
        result.set(text.into());
    }
}

/// Calls `read` with the bytes of a BufferSource; `None` for other values.
pub(super) fn with_source<R>(source: v8::Local<v8::Value>, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
    if let Ok(buffer) = source.try_cast::<v8::ArrayBuffer>() {
        let copy: Vec<u8> = buffer.get_backing_store().iter().map(|cell| cell.get()).collect();
        return Some(read(&copy));
    }
    if let Ok(buffer) = source.try_cast::<v8::SharedArrayBuffer>() {
        let copy: Vec<u8> = buffer.get_backing_store().iter().map(|cell| cell.get()).collect();
        return Some(read(&copy));
    }
    bytes::read(source, read)
}

pub(super) fn decode_utf8<'s>(
    scope: &v8::PinScope<'s, '_>,
    mut bytes: &[u8],
    fatal: bool,
    keep_bom: bool,
) -> Option<v8::Local<'s, v8::String>> {
    if !keep_bom {
        bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    }
    if is_ascii(bytes) {
        return v8::String::new_from_one_byte(scope, bytes, v8::NewStringType::Normal);
    }
    if fatal {
        std::str::from_utf8(bytes).ok()?;
    }
    v8::String::new_from_utf8(scope, bytes, v8::NewStringType::Normal)
}

/// Whether a chunk ends its stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

/// Decodes a chunk; `None` if it is not valid and `fatal` says that this is an error.
fn decode(decoder: &mut Decoder, bytes: &[u8], last: Last, fatal: bool) -> Option<String> {
    let last = last == Last::Yes;
    if fatal {
        let length = decoder.max_utf8_buffer_length_without_replacement(bytes.len())?;
        let mut text = String::with_capacity(length);
        return match decoder.decode_to_string_without_replacement(bytes, &mut text, last).0 {
            DecoderResult::InputEmpty => Some(text),
            DecoderResult::OutputFull | DecoderResult::Malformed(..) => None,
        };
    }
    let mut text = String::with_capacity(decoder.max_utf8_buffer_length(bytes.len())?);
    match decoder.decode_to_string(bytes, &mut text, last).0 {
        CoderResult::InputEmpty => Some(text),
        CoderResult::OutputFull => None,
    }
}

/// `ops.text_decoder_new(encoding, ignore_bom)`: the handle of a decoder for a stream.
pub(crate) fn text_decoder_new(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let decoder = decoder(encoding(scope, arguments.get(0)), arguments.get(1).is_true());
    match decoders(scope).insert(decoder) {
        Some(handle) => result.set_double(handle as f64),
        None => conversions::throw_range_error(scope, "too many TextDecoders are in the middle of a stream"),
    }
}

/// `ops.text_decoder_decode(handle, source, last, fatal)`: the text of a chunk,
/// undefined if `fatal` and the chunk is not valid.
pub(crate) fn text_decoder_decode(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(handle) = handle(scope, arguments.get(0)) else {
        return;
    };
    let last = if arguments.get(2).is_true() { Last::Yes } else { Last::No };
    let fatal = arguments.get(3).is_true();
    let Some(Some(decoder)) = decoders(scope).slots.get_mut(handle) else {
        return;
    };
    let text = with_source(arguments.get(1), |bytes| decode(decoder, bytes, last, fatal));
    if let Some(text) = text.flatten().and_then(|text| v8::String::new(scope, &text)) {
        result.set(text.into());
    }
}

/// `ops.text_decoder_free(handle)`.
pub(crate) fn text_decoder_free(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    if let Some(handle) = handle(scope, arguments.get(0)) {
        decoders(scope).remove(handle);
    }
}

fn handle(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<usize> {
    usize::try_from(value.uint32_value(scope)?).ok()
}

#[cfg(test)]
mod tests {
    use super::{Decoders, Last, decode, decoder};
    use encoding_rs::{SHIFT_JIS, UTF_8, UTF_16LE};

    #[test]
    fn a_character_may_be_split_between_chunks() {
        let mut utf8 = decoder(UTF_8, false);
        assert_eq!(decode(&mut utf8, b"\xe2\x82", Last::No, true).as_deref(), Some(""));
        assert_eq!(decode(&mut utf8, b"\xac!", Last::Yes, true).as_deref(), Some("\u{20ac}!"));
        let mut japanese = decoder(SHIFT_JIS, false);
        assert_eq!(decode(&mut japanese, b"\x83", Last::No, false).as_deref(), Some(""));
        assert_eq!(decode(&mut japanese, b"e", Last::Yes, false).as_deref(), Some("\u{30c6}"));
    }

    #[test]
    fn a_truncated_character_is_an_error_only_at_the_end() {
        let mut utf8 = decoder(UTF_8, false);
        assert_eq!(decode(&mut utf8, b"\xe2", Last::No, true).as_deref(), Some(""));
        assert_eq!(decode(&mut utf8, b"", Last::Yes, true), None);
    }

    #[test]
    fn the_byte_order_mark_is_dropped_unless_it_is_asked_for() {
        for (keep, text) in [(false, "a"), (true, "\u{feff}a")] {
            assert_eq!(
                decode(&mut decoder(UTF_16LE, keep), b"\xff\xfea\0", Last::Yes, true).as_deref(),
                Some(text)
            );
        }
    }

    #[test]
    fn handles_are_used_again() {
        let mut decoders = Decoders::default();
        assert_eq!(decoders.insert(UTF_8.new_decoder()), Some(0));
        assert_eq!(decoders.insert(UTF_8.new_decoder()), Some(1));
        decoders.remove(0);
        decoders.remove(0);
        assert_eq!(decoders.insert(UTF_8.new_decoder()), Some(0));
        assert_eq!(decoders.insert(UTF_8.new_decoder()), Some(2));
    }
}
