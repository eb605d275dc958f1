//! structuredClone: V8's serialiser writes, its deserialiser reads, in one go.
//! <https://html.spec.whatwg.org/#structured-cloning>

use std::cell::RefCell;
use std::rc::Rc;

/// JavaScript's part: `[make_error, is_platform_object, clone_host]`.
#[derive(Clone)]
struct Hooks {
    /// (message) -> a DataCloneError.
    make_error: v8::Global<v8::Function>,
    /// (object) -> whether it is an instance of a platform interface.
    is_platform_object: v8::Global<v8::Function>,
    /// (object) -> its clone; throws if it has none.
    clone_host: v8::Global<v8::Function>,
}

impl Hooks {
    fn new(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<Hooks> {
        let list = value.try_cast::<v8::Array>().ok()?;
        let function = |index| {
            let function = list.get_index(scope, index)?.try_cast::<v8::Function>().ok()?;
            Some(v8::Global::new(scope, function))
        };
        Some(Hooks { make_error: function(0)?, is_platform_object: function(1)?, clone_host: function(2)? })
    }
}

/// What passes from the serialiser to the deserialiser beside the bytes.
#[derive(Clone)]
struct Delegate {
    hooks: Hooks,
    /// `Object.prototype`: what hangs on it directly is no platform object.
    object_prototype: v8::Global<v8::Value>,
    /// Shared buffers met on the way; their index is their id.
    shared: Rc<RefCell<Vec<v8::Global<v8::SharedArrayBuffer>>>>,
    /// Clones of platform objects; their index is written.
    hosts: Rc<RefCell<Vec<v8::Global<v8::Object>>>>,
}

impl Delegate {
    fn new(scope: &mut v8::PinScope<'_, '_>, hooks: Hooks) -> Option<Delegate> {
        let object_prototype = v8::Object::new(scope).get_prototype(scope)?;
        let object_prototype = v8::Global::new(scope, object_prototype);
        Some(Delegate { hooks, object_prototype, shared: Rc::default(), hosts: Rc::default() })
    }

    fn call<'s>(
        scope: &mut v8::PinScope<'s, '_>,
        function: &v8::Global<v8::Function>,
        argument: v8::Local<'s, v8::Value>,
    ) -> Option<v8::Local<'s, v8::Value>> {
        let function = v8::Local::new(scope, function);
        let receiver = v8::undefined(scope).into();
        function.call(scope, receiver, &[argument])
    }

    fn throw<'s>(&self, scope: &mut v8::PinScope<'s, '_>, message: v8::Local<'s, v8::String>) {
        if let Some(error) = Self::call(scope, &self.hooks.make_error, message.into()) {
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

    fn has_custom_host_object(&self, _: &v8::Isolate) -> bool {
        true
    }

    fn is_host_object<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
    ) -> Option<bool> {
        let prototype = object.get_prototype(scope)?;
        if prototype.is_null() || self.object_prototype == prototype {
            return Some(false);
        }
        let answer = Self::call(scope, &self.hooks.is_platform_object, object.into())?;
        Some(answer.is_true())
    }

    fn write_host_object<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        object: v8::Local<'s, v8::Object>,
        serializer: &dyn v8::ValueSerializerHelper,
    ) -> Option<bool> {
        let clone =
            Self::call(scope, &self.hooks.clone_host, object.into())?.try_cast::<v8::Object>().ok()?;
        let mut hosts = self.hosts.borrow_mut();
        serializer.write_uint32(u32::try_from(hosts.len()).ok()?);
        hosts.push(v8::Global::new(scope, clone));
        Some(true)
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
    fn read_host_object<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        deserializer: &dyn v8::ValueDeserializerHelper,
    ) -> Option<v8::Local<'s, v8::Object>> {
        let mut index = 0;
        deserializer.read_uint32(&mut index).then_some(())?;
        let hosts = self.hosts.borrow();
        hosts.get(usize::try_from(index).ok()?).map(|host| v8::Local::new(scope, host))
    }

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

/// `ops.structured_clone(value, transfer, hooks)`: a clone. `transfer` is an array
/// of ArrayBuffers or undefined, `hooks` the functions of [`Hooks`].
pub(crate) fn structured_clone<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    mut result: v8::ReturnValue,
) {
    let Some(delegate) = Hooks::new(scope, arguments.get(2)).and_then(|hooks| Delegate::new(scope, hooks))
    else {
        return;
    };
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
