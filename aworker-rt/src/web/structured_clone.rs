//! Structured cloning: V8's serialiser writes, its deserialiser reads. Either in
//! one go ([`structured_clone`]), or apart, for messages that wait on a queue
//! ([`structured_serialize`], [`structured_deserialize`]). What V8 does not know
//! (platform objects, transfers) is JavaScript's part, in `21_structured_clone.js`.
//! <https://html.spec.whatwg.org/#structured-cloning>

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::bytes;

/// JavaScript's part: `[make_error, is_platform_object, write, clones]`.
#[derive(Clone)]
struct Hooks {
    /// (message) -> a DataCloneError.
    make_error: v8::Global<v8::Function>,
    /// (object) -> whether it is an instance of a platform interface.
    is_platform_object: v8::Global<v8::Function>,
    /// (object) -> its number among `clones`; throws if it cannot be cloned.
    write: v8::Global<v8::Function>,
    /// () -> the clones, by number. Asked between writing and reading: while V8 reads, it
    /// lets no JavaScript run.
    clones: v8::Global<v8::Function>,
}

impl Hooks {
    fn new(scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<Hooks> {
        let list = value.try_cast::<v8::Array>().ok()?;
        let function = |index| {
            let function = list.get_index(scope, index)?.try_cast::<v8::Function>().ok()?;
            Some(v8::Global::new(scope, function))
        };
        Some(Hooks {
            make_error: function(0)?,
            is_platform_object: function(1)?,
            write: function(2)?,
            clones: function(3)?,
        })
    }
}

/// What serialiser and deserialiser share beside the bytes.
#[derive(Clone)]
struct Delegate {
    hooks: Hooks,
    /// `Object.prototype`: what hangs on it directly is no platform object.
    object_prototype: v8::Global<v8::Value>,
    /// Shared buffers and WebAssembly modules met on the way; their index is their id.
    carried: Rc<RefCell<Vec<v8::Global<v8::Value>>>>,
    /// Whether there was a platform object.
    wrote_hosts: Rc<Cell<bool>>,
    /// Clones of platform objects, by number.
    clones: Option<v8::Global<v8::Array>>,
}

impl Delegate {
    fn new(scope: &mut v8::PinScope<'_, '_>, hooks: v8::Local<v8::Value>) -> Option<Delegate> {
        let hooks = Hooks::new(scope, hooks)?;
        let object_prototype = v8::Object::new(scope).get_prototype(scope)?;
        let object_prototype = v8::Global::new(scope, object_prototype);
        Some(Delegate {
            hooks,
            object_prototype,
            carried: Rc::default(),
            wrote_hosts: Rc::default(),
            clones: None,
        })
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

    /// The id of something that is carried as it is.
    fn carry(&self, scope: &mut v8::PinScope<'_, '_>, value: v8::Local<v8::Value>) -> Option<u32> {
        let mut carried = self.carried.borrow_mut();
        let known = carried.iter().position(|known| *known == value);
        let index = known.unwrap_or_else(|| {
            carried.push(v8::Global::new(scope, value));
            carried.len() - 1
        });
        u32::try_from(index).ok()
    }

    /// What [`Delegate::carry`] gave an id.
    fn carried<'s>(&self, scope: &mut v8::PinScope<'s, '_>, id: u32) -> Option<v8::Local<'s, v8::Value>> {
        let carried = self.carried.borrow();
        carried.get(usize::try_from(id).ok()?).map(|value| v8::Local::new(scope, value))
    }
}

impl v8::ValueSerializerImpl for Delegate {
    fn throw_data_clone_error<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        message: v8::Local<'s, v8::String>,
    ) {
        if let Some(error) = Self::call(scope, &self.hooks.make_error, message.into()) {
            scope.throw_exception(error);
        }
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
        let number = Self::call(scope, &self.hooks.write, object.into())?.uint32_value(scope)?;
        serializer.write_uint32(number);
        self.wrote_hosts.set(true);
        Some(true)
    }

    fn get_shared_array_buffer_id<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        buffer: v8::Local<'s, v8::SharedArrayBuffer>,
    ) -> Option<u32> {
        self.carry(scope, buffer.into())
    }

    fn get_wasm_module_transfer_id(
        &self,
        scope: &mut v8::PinScope<'_, '_>,
        module: v8::Local<v8::WasmModuleObject>,
    ) -> Option<u32> {
        self.carry(scope, module.into())
    }
}

impl v8::ValueDeserializerImpl for Delegate {
    fn read_host_object<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        deserializer: &dyn v8::ValueDeserializerHelper,
    ) -> Option<v8::Local<'s, v8::Object>> {
        let mut number = 0;
        deserializer.read_uint32(&mut number).then_some(())?;
        let clones = v8::Local::new(scope, self.clones.as_ref()?);
        clones.get_index(scope, number)?.try_cast::<v8::Object>().ok()
    }

    /// A new object on the same memory.
    fn get_shared_array_buffer_from_id<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        id: u32,
    ) -> Option<v8::Local<'s, v8::SharedArrayBuffer>> {
        let buffer = self.carried(scope, id)?.try_cast::<v8::SharedArrayBuffer>().ok()?;
        let store = buffer.get_backing_store();
        Some(v8::SharedArrayBuffer::with_backing_store(scope, &store))
    }

    /// A new object on the same compiled code.
    fn get_wasm_module_from_id<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        id: u32,
    ) -> Option<v8::Local<'s, v8::WasmModuleObject>> {
        let module = self.carried(scope, id)?.try_cast::<v8::WasmModuleObject>().ok()?;
        v8::WasmModuleObject::from_compiled_module(scope, &module.get_compiled_module())
    }
}

/// The ArrayBuffers of a list; empty if it is none.
fn buffers_of<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    list: v8::Local<'s, v8::Value>,
) -> Vec<v8::Local<'s, v8::ArrayBuffer>> {
    let Ok(list) = list.try_cast::<v8::Array>() else {
        return Vec::new();
    };
    let buffers = (0..list.length()).map(|index| list.get_index(scope, index)?.try_cast().ok());
    buffers.collect::<Option<_>>().unwrap_or_default()
}

/// The bytes of a value; `None` with an exception pending. Of the buffers only
/// their place in the list is written.
fn write<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    value: v8::Local<'s, v8::Value>,
    buffers: &[v8::Local<'s, v8::ArrayBuffer>],
    delegate: &Delegate,
) -> Option<Vec<u8>> {
    use v8::ValueSerializerHelper as _;
    let context = scope.get_current_context();
    let serializer = v8::ValueSerializer::new(scope, Box::new(delegate.clone()));
    serializer.write_header();
    for (id, buffer) in (0..).zip(buffers) {
        serializer.transfer_array_buffer(id, *buffer);
    }
    serializer.write_value(context, value)?;
    Some(serializer.release())
}

/// The value of bytes that [`write`] made; `None` with an exception pending.
fn read<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    data: &[u8],
    buffers: &[v8::Local<'s, v8::ArrayBuffer>],
    delegate: &Delegate,
) -> Option<v8::Local<'s, v8::Value>> {
    use v8::ValueDeserializerHelper as _;
    let context = scope.get_current_context();
    let deserializer = v8::ValueDeserializer::new(scope, Box::new(delegate.clone()), data);
    for (id, buffer) in (0..).zip(buffers) {
        deserializer.transfer_array_buffer(id, *buffer);
    }
    deserializer.read_header(context)?;
    deserializer.read_value(context)
}

/// For `crate::fuzz`: bytes that no serialiser wrote are a value or an exception. A value that
/// can be written again can be read again.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_hostile(scope: &mut v8::PinScope<'_, '_>, data: &[u8]) {
    v8::scope!(let scope, scope);
    let hook = v8::Function::new(
        scope,
        |_: &mut v8::PinScope<'_, '_>, _: v8::FunctionCallbackArguments, _: v8::ReturnValue| {},
    )
    .expect("a function");
    let hooks = v8::Array::new_with_elements(scope, &[hook.into(); 4]);
    let delegate = Delegate::new(scope, hooks.into()).expect("four functions");
    let rewritten = {
        v8::scope!(let scope, scope);
        v8::tc_scope!(let scope, scope);
        read(scope, data, &[], &delegate).and_then(|value| write(scope, value, &[], &delegate))
    };
    let Some(rewritten) = rewritten else { return };
    let is_read = |scope: &mut v8::PinScope<'_, '_>| {
        v8::scope!(let scope, scope);
        v8::tc_scope!(let scope, scope);
        read(scope, &rewritten, &[], &delegate).is_some()
    };
    if !is_read(scope) {
        // A resizable buffer may have taken so much of the address space that there is no room for another.
        scope.low_memory_notification();
        assert!(is_read(scope), "what was written is read");
    }
}

/// `ops.structured_clone(value, hooks)`: a clone.
pub(crate) fn structured_clone<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    mut result: v8::ReturnValue,
) {
    let Some(mut delegate) = Delegate::new(scope, arguments.get(1)) else {
        return;
    };
    let Some(data) = write(scope, arguments.get(0), &[], &delegate) else {
        return;
    };
    if delegate.wrote_hosts.get() {
        let receiver = v8::undefined(scope).into();
        let Some(clones) = v8::Local::new(scope, &delegate.hooks.clones).call(scope, receiver, &[]) else {
            return;
        };
        delegate.clones = clones.try_cast().ok().map(|clones| v8::Global::new(scope, clones));
    }
    if let Some(value) = read(scope, &data, &[], &delegate) {
        result.set(value);
    }
}

/// `ops.structured_serialize(value, buffers, hooks)`: `[bytes, carried]`.
/// `buffers` are the ArrayBuffers that will be transferred.
pub(crate) fn structured_serialize<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    mut result: v8::ReturnValue,
) {
    let Some(delegate) = Delegate::new(scope, arguments.get(2)) else {
        return;
    };
    let buffers = buffers_of(scope, arguments.get(1));
    let Some(data) = write(scope, arguments.get(0), &buffers, &delegate) else {
        return;
    };
    let data = bytes::uint8_array(scope, data).into();
    let carried: Vec<_> =
        delegate.carried.borrow().iter().map(|value| v8::Local::new(scope, value)).collect();
    let carried = v8::Array::new_with_elements(scope, &carried).into();
    result.set(v8::Array::new_with_elements(scope, &[data, carried]).into());
}

/// `ops.structured_deserialize(bytes, carried, buffers, clones, hooks)`: the value.
/// `buffers` stand for those that were given to the serialiser, `clones` for the
/// platform objects by number.
pub(crate) fn structured_deserialize<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    arguments: v8::FunctionCallbackArguments<'s>,
    mut result: v8::ReturnValue,
) {
    let Some(mut delegate) = Delegate::new(scope, arguments.get(4)) else {
        return;
    };
    delegate.clones = arguments.get(3).try_cast().ok().map(|clones| v8::Global::new(scope, clones));
    if let Ok(carried) = arguments.get(1).try_cast::<v8::Array>() {
        let values = (0..carried.length()).filter_map(|index| carried.get_index(scope, index));
        let values: Vec<_> = values.map(|value| v8::Global::new(scope, value)).collect();
        delegate.carried.borrow_mut().extend(values);
    }
    let buffers = buffers_of(scope, arguments.get(2));
    let value = bytes::read(arguments.get(0), <[u8]>::to_vec)
        .and_then(|data| read(scope, &data, &buffers, &delegate));
    if let Some(value) = value {
        result.set(value);
    }
}
