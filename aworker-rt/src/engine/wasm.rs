//! WebAssembly.compileStreaming and instantiateStreaming: V8 asks for the bytes
//! of a Response, which `77_wasm_streaming.js` reads.
//! <https://webassembly.github.io/spec/web-api/#streaming-modules>

use std::collections::HashMap;

use super::conversions::string;
use super::isolate::callback;

/// Most compilations that may wait for their bytes at one time.
const MAX_WAITING: usize = 1024;

/// Compilations that wait for their bytes, by the number JavaScript knows.
#[derive(Default)]
struct Waiting {
    last: u32,
    streams: HashMap<u32, v8::WasmStreaming<false>>,
}

/// Makes V8 offer the two functions; called once for an isolate.
pub(super) fn install(isolate: &mut v8::Isolate) {
    isolate.set_slot(Waiting::default());
    isolate.set_wasm_streaming_callback(begin);
}

/// V8 wants to compile what `source`, a value a script has given, holds.
fn begin<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    source: v8::Local<'s, v8::Value>,
    stream: v8::WasmStreaming<false>,
) {
    let waiting = waiting(scope);
    if waiting.streams.len() >= MAX_WAITING {
        let message = string(scope, "too many WebAssembly modules wait for their bytes");
        let error = v8::Exception::range_error(scope, message);
        return stream.abort(Some(error));
    }
    waiting.last = waiting.last.wrapping_add(1);
    let id = waiting.last;
    waiting.streams.insert(id, stream);
    let Some(function) = callback(scope, "wasmSource") else {
        return;
    };
    let function = v8::Local::new(scope, function);
    let receiver = v8::undefined(scope).into();
    let id = v8::Integer::new_from_unsigned(scope, id).into();
    // The built-in catches what goes wrong, and ends the compilation with it.
    function.call(scope, receiver, &[source, id]);
}

fn waiting<'a>(scope: &'a mut v8::PinScope<'_, '_>) -> &'a mut Waiting {
    scope.get_slot_mut::<Waiting>().expect("installed with the isolate")
}

fn take(scope: &mut v8::PinScope<'_, '_>, id: v8::Local<v8::Value>) -> Option<v8::WasmStreaming<false>> {
    let id = id.uint32_value(scope)?;
    waiting(scope).streams.remove(&id)
}

/// `ops.wasm_finish(id, bytes)`: all bytes of a module, a Uint8Array.
pub(crate) fn wasm_finish(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    let Some(mut stream) = take(scope, arguments.get(0)) else {
        return;
    };
    if let Ok(view) = arguments.get(1).try_cast::<v8::ArrayBufferView>() {
        let mut storage = [0u8; v8::TYPED_ARRAY_MAX_SIZE_IN_HEAP];
        // V8 compiles while it takes the bytes, and may move small arrays: it gets a copy.
        let bytes = view.get_contents(&mut storage).to_vec();
        stream.on_bytes_received(&bytes);
    }
    stream.finish();
}

/// `ops.wasm_fail(id, error)`: there are no bytes.
pub(crate) fn wasm_fail(
    scope: &mut v8::PinScope<'_, '_>,
    arguments: v8::FunctionCallbackArguments,
    _: v8::ReturnValue,
) {
    if let Some(stream) = take(scope, arguments.get(0)) {
        stream.abort(Some(arguments.get(1)));
    }
}
