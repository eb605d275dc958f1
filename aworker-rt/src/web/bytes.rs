//! Reading and writing the bytes of ArrayBufferViews.

/// Calls `read` with the bytes of a view; `None` if the value is no view.
pub(crate) fn read<R>(view: v8::Local<v8::Value>, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let view = view.try_cast::<v8::ArrayBufferView>().ok()?;
    // Small arrays live on V8's heap, which may move: they are copied here.
    let mut storage = [0u8; v8::TYPED_ARRAY_MAX_SIZE_IN_HEAP];
    Some(read(view.get_contents(&mut storage)))
}

/// Writes bytes to the start of a view, as many as fit; how many that were.
/// Nothing if the value is no view or its buffer is detached.
pub(super) fn write(scope: &mut v8::PinScope<'_, '_>, view: v8::Local<v8::Value>, bytes: &[u8]) -> usize {
    let Ok(view) = view.try_cast::<v8::ArrayBufferView>() else {
        return 0;
    };
    let Some(buffer) = view.buffer(scope) else {
        return 0;
    };
    let store = buffer.get_backing_store();
    let cells = store.iter().skip(view.byte_offset()).take(view.byte_length());
    cells.zip(bytes).map(|(cell, byte)| cell.set(*byte)).count()
}

/// Writes numbers to a Uint32Array.
pub(super) fn write_u32(scope: &mut v8::PinScope<'_, '_>, view: v8::Local<v8::Value>, numbers: &[u32]) {
    let mut bytes = [0u8; 64];
    let chunks = bytes.chunks_exact_mut(4).zip(numbers);
    let length = chunks.map(|(chunk, number)| chunk.copy_from_slice(&number.to_ne_bytes())).count() * 4;
    write(scope, view, &bytes[..length]);
}

/// A new Uint8Array that owns the bytes.
pub(crate) fn uint8_array<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    bytes: Vec<u8>,
) -> v8::Local<'s, v8::Uint8Array> {
    let length = bytes.len();
    let store = v8::ArrayBuffer::new_backing_store_from_vec(bytes).make_shared();
    let buffer = v8::ArrayBuffer::with_backing_store(scope, &store);
    v8::Uint8Array::new(scope, buffer, 0, length).expect("the view covers its buffer")
}
