//! Between the operations of WebCrypto and JavaScript: bytes in, bytes out, base64url.
//!
//! JavaScript hands over Uint8Arrays that no script can reach, so that nobody
//! changes, shares or resizes them while an operation reads.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroize;

use super::super::bytes;
use crate::engine::conversions;

/// The bytes of an argument. Small arrays lie on V8's heap, which may move: they
/// are copied, and the copy is erased, because it may be a key.
pub(super) struct Input<'s> {
    view: Option<v8::Local<'s, v8::ArrayBufferView>>,
    storage: [u8; v8::TYPED_ARRAY_MAX_SIZE_IN_HEAP],
}

impl<'s> Input<'s> {
    /// No bytes if the value is no view.
    pub(super) fn new(value: v8::Local<'s, v8::Value>) -> Input<'s> {
        Input { view: value.try_cast().ok(), storage: [0; v8::TYPED_ARRAY_MAX_SIZE_IN_HEAP] }
    }

    pub(super) fn bytes(&mut self) -> &[u8] {
        self.view.as_ref().map_or(&[], |view| view.get_contents(&mut self.storage))
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        self.storage.zeroize();
    }
}

/// A number that JavaScript has checked; 0 for anything else.
pub(super) fn number(scope: &v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> usize {
    value.uint32_value(scope).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

/// A name that JavaScript has checked.
pub(super) fn name(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> String {
    value.to_rust_string_lossy(scope)
}

/// Returns a Uint8Array, or undefined, which means that the operation failed.
pub(super) fn give(
    scope: &mut v8::PinScope<'_, '_>,
    result: &mut v8::ReturnValue,
    output: impl Into<Option<Vec<u8>>>,
) {
    if let Some(output) = output.into() {
        result.set(bytes::uint8_array(scope, output).into());
    }
}

/// Returns an array of Uint8Arrays, or undefined.
pub(super) fn give_list(
    scope: &mut v8::PinScope<'_, '_>,
    result: &mut v8::ReturnValue,
    outputs: Option<Vec<Vec<u8>>>,
) {
    let Some(outputs) = outputs else { return };
    let elements: Vec<v8::Local<v8::Value>> =
        outputs.into_iter().map(|output| bytes::uint8_array(scope, output).into()).collect();
    result.set(v8::Array::new_with_elements(scope, &elements).into());
}

/// `ops.crypto_copy(source)`: a copy of the bytes of a BufferSource.
pub(crate) fn crypto_copy(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let source = arguments.get(0);
    let view = match source.try_cast::<v8::ArrayBuffer>() {
        // One copy from a view, while the cells of a buffer are read one by one.
        Ok(buffer) if !buffer.was_detached() => {
            let length = buffer.byte_length();
            v8::Uint8Array::new(scope, buffer, 0, length).map(v8::Local::<v8::Value>::from)
        }
        Ok(_) => None,
        Err(_) => Some(source),
    };
    let copy = view.map_or_else(Vec::new, |view| Input::new(view).bytes().to_vec());
    give(scope, &mut result, copy);
}

/// `ops.crypto_base64url(bytes)`: their base64url text without padding.
pub(crate) fn crypto_base64url(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let mut text = URL_SAFE_NO_PAD.encode(Input::new(arguments.get(0)).bytes());
    result.set(conversions::string(scope, &text).into());
    text.zeroize();
}

/// `ops.crypto_base64url_decode(text)`: the bytes, or undefined if the text is no
/// base64url after RFC 7515 (no padding, no white space, no bits left over).
pub(crate) fn crypto_base64url_decode(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let mut text = arguments.get(0).to_rust_string_lossy(scope);
    give(scope, &mut result, URL_SAFE_NO_PAD.decode(&text).ok());
    text.zeroize();
}

/// `ops.crypto_equal(a, b)`: whether the bytes are the same, in a time that depends on lengths only.
pub(crate) fn crypto_equal(
    _: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let (mut a, mut b) = (Input::new(arguments.get(0)), Input::new(arguments.get(1)));
    result.set_bool(equal(a.bytes(), b.bytes()));
}

/// Compares without a branch on the bytes.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}
