//! structuredClone: V8's serialiser writes, its deserialiser reads, in one go.
//! <https://html.spec.whatwg.org/#structured-cloning>

use std::cell::RefCell;
use std::rc::Rc;

/// What passes from the serialiser to the deserialiser beside the bytes.
#[derive(Clone)]
struct Delegate {
    /// JavaScript's maker of DataCloneErrors.
    make_error: v8::Global<v8::Function>,
    /// Shared buffers met on the way; their index is their id.
    shared: Rc<RefCell<Vec<v8::Global<v8::SharedArrayBuffer>>>>,
}

impl Delegate {
    fn throw(&self, scope: &mut v8::PinScope<'_, '_>, message: v8::Local<v8::String>) {
        let make_error = v8::Local::new(scope, &self.make_error);
        let receiver = v8::undefined(scope).into();
        if let Some(error) = make_error.call(scope, receiver, &[message.into()]) {
            scope.throw_exception(error);
        }
    }

    fn throw_text(&self, scope: &mut v8::PinScope<'_, '_>, message: &str) {
        let message = crate::engine::conversions::string(scope, message);
        self.throw(scope, message);
    }
}

impl v8::ValueSerializerImpl for Delegate {
    fn throw_data_clone_error<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        message: v8::Local<'s, v8::String>,
    ) {
        self.throw(scope, message);
    }

    fn get_shared_array_buffer_id<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        buffer: v8::Local<'s, v8::SharedArrayBuffer>,
    ) -> Option<u32> {
        let mut shared = self.shared.borrow_mut();
        let known = shared.iter().position(|known| *known == buffer);
        let index = known.unwrap_or_else(|| {
            shared.push(v8::Global::new(scope, buffer));
            shared.len() - 1
        });
        u32::try_from(index).ok()
    }

    fn get_wasm_module_transfer_id(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        _: v8::Local<v8::WasmModuleObject>,
    ) -> Option<u32> {
        self.throw_text(scope, "A WebAssembly.Module could not be cloned");
        None
    }
}

impl v8::ValueDeserializerImpl for Delegate {
    fn get_shared_array_buffer_from_id<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        id: u32,
    ) -> Option<v8::Local<'s, v8::SharedArrayBuffer>> {
        let shared = self.shared.borrow();
        shared.get(usize::try_from(id).ok()?).map(|buffer| v8::Local::new(scope, buffer))
    }
}

/// The ArrayBuffers of the transfer list, each of them detachable; `None` with an exception pending.
fn transfer_list<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    list: v8::Local<'s, v8::Value>,
    delegate: &Delegate,
) -> Option<Vec<v8::Local<'s, v8::ArrayBuffer>>> {
    let Ok(list) = list.try_cast::<v8::Array>() else {
        return Some(Vec::new());
    };
    let mut buffers = Vec::new();
    for index in 0..list.length() {
        let buffer = list.get_index(scope, index)?.try_cast::<v8::ArrayBuffer>().ok();
        match buffer {
            Some(buffer) if buffer.is_detachable() && !buffer.was_detached() => buffers.push(buffer),
            _ => {
                delegate.throw_text(
                    scope,
                    &format!("The ArrayBuffer at index {index} of the transfer list is detached"),
                );
                return None;
            }
        }
    }
    Some(buffers)
}

/// `ops.structured_clone(value, transfer, make_error)`: a clone. `transfer` is an
/// array of ArrayBuffers or undefined; `make_error(message)` makes a DataCloneError.
pub(crate) fn structured_clone<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    mut result: v8::ReturnValue,
) {
    let Ok(make_error) = arguments.get(2).try_cast::<v8::Function>() else {
        return;
    };
    let delegate = Delegate { make_error: v8::Global::new(scope, make_error), shared: Rc::default() };
    let Some(buffers) = transfer_list(scope, arguments.get(1), &delegate) else {
        return;
    };
    if let Some(value) = clone(scope, arguments.get(0), &buffers, &delegate) {
        result.set(value);
    }
}

/// Writes and reads back; `None` with an exception pending.
fn clone<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    value: v8::Local<'s, v8::Value>,
    buffers: &[v8::Local<'s, v8::ArrayBuffer>],
    delegate: &Delegate,
) -> Option<v8::Local<'s, v8::Value>> {
    use v8::{ValueDeserializerHelper as _, ValueSerializerHelper as _};
    let context = scope.get_current_context();
    let serializer = v8::ValueSerializer::new(scope, Box::new(delegate.clone()));
    serializer.write_header();
    for (id, buffer) in (0..).zip(buffers) {
        serializer.transfer_array_buffer(id, *buffer);
    }
    serializer.write_value(context, value)?;
    let data = serializer.release();

    let deserializer = v8::ValueDeserializer::new(scope, Box::new(delegate.clone()), &data);
    for (id, buffer) in (0..).zip(buffers) {
        let store = buffer.get_backing_store();
        buffer.detach(None);
        let moved = v8::ArrayBuffer::with_backing_store(scope, &store);
        deserializer.transfer_array_buffer(id, moved);
    }
    deserializer.read_header(context)?;
    deserializer.read_value(context)
}
