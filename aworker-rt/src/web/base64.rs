//! `atob` and `btoa`: forgiving base64. <https://infra.spec.whatwg.org/#forgiving-base64>

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

/// Decodes without padding, which is removed before, and ignores bits left over.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The string's Latin-1 bytes, or `None` if it has other characters.
fn latin1(scope: &v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<Vec<u8>> {
    let text = value.try_cast::<v8::String>().ok()?;
    if !text.contains_only_onebyte() {
        return None;
    }
    let mut bytes = vec![0; text.length()];
    text.write_one_byte_v2(scope, 0, &mut bytes, v8::WriteFlags::empty());
    Some(bytes)
}

/// Decodes as `atob` must: white space is skipped, padding may be missing.
fn decode(mut text: Vec<u8>) -> Option<Vec<u8>> {
    text.retain(|byte| !matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' '));
    if text.len().is_multiple_of(4) {
        for _ in 0..2 {
            if text.last() == Some(&b'=') {
                text.pop();
            }
        }
    }
    if text.len() % 4 == 1 {
        return None;
    }
    FORGIVING.decode(text).ok()
}

/// `ops.atob(text)`: a string of bytes, or undefined if the text is not base64.
pub(crate) fn atob(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let bytes = latin1(scope, arguments.get(0)).and_then(decode);
    if let Some(text) =
        bytes.and_then(|bytes| v8::String::new_from_one_byte(scope, &bytes, v8::NewStringType::Normal))
    {
        result.set(text.into());
    }
}

/// `ops.btoa(text)`: base64, or undefined if a character does not fit into a byte.
pub(crate) fn btoa(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let text = latin1(scope, arguments.get(0)).map(|bytes| STANDARD.encode(bytes));
    if let Some(text) = text.and_then(|text| v8::String::new(scope, &text)) {
        result.set(text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn decode_forgives_white_space_and_missing_padding() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("YQ==", Some(b"a")),
            ("YQ", Some(b"a")),
            (" Y\tQ\n=\r=\x0c", Some(b"a")),
            ("YR", Some(b"a")),
            ("YWI=", Some(b"ab")),
            ("YQ=", None),
            ("Y", None),
            ("YQ==YQ==", None),
            ("====", None),
            ("YW-_", None),
            ("abcd=", None),
        ] {
            assert_eq!(decode(text.into()).as_deref(), bytes, "{text:?}");
        }
    }
}
