//! Where WebAssembly.compileStreaming and instantiateStreaming get their bytes: a Response.
//! https://webassembly.github.io/spec/web-api/#compile-a-potential-webassembly-response

const { PromisePrototypeThen, ReflectGetOwnPropertyDescriptor, RegExpPrototypeExec, TypeError, uncurryThis } = primordials;
const { Response, isResponse } = internals.response;
const { listOf, getCombined } = internals.headers;

const getHeaders = uncurryThis(ReflectGetOwnPropertyDescriptor(Response.prototype, 'headers').get);
const getOk = uncurryThis(ReflectGetOwnPropertyDescriptor(Response.prototype, 'ok').get);
const readBytes = uncurryThis(Response.prototype.bytes);
const wasmType = /^[\t ]*application\/wasm[\t ]*$/i;

/** What is wrong with a source of bytes, or undefined. */
function complaint(source) {
  if (!isResponse(source)) return 'the source is not a Response';
  const type = getCombined(listOf(getHeaders(source)), 'content-type');
  if (type === null || type === undefined || RegExpPrototypeExec(wasmType, type) === null) {
    return `the response's content type is '${type ?? ''}' and not 'application/wasm'`;
  }
  return getOk(source) ? undefined : "the response's status is not ok";
}

/** (source, id): V8 compiles what `source` holds; `id` stands for the compilation. */
internals.callbacks.wasmSource = (source, id) => {
  const message = complaint(source);
  if (message !== undefined) {
    ops.wasm_fail(id, new TypeError(`Failed to compile a WebAssembly module: ${message}`));
    return;
  }
  PromisePrototypeThen(readBytes(source), (bytes) => ops.wasm_finish(id, bytes), (error) => ops.wasm_fail(id, error));
};
