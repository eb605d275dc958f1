// WebAssembly.compileStreaming and instantiateStreaming. https://webassembly.github.io/spec/web-api/

import { fact, end, same, alike, holds, rejects } from './facts.js';

const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
const type = 'application/wasm';
const response = (body = bytes, status = 200, contentType = type) => new Response(body, { status, headers: { 'content-type': contentType } });

fact('a response is compiled, also one that comes later', async () => {
  holds(await WebAssembly.compileStreaming(response()) instanceof WebAssembly.Module);
  const { module, instance } = await WebAssembly.instantiateStreaming(Promise.resolve(response(bytes, 200, ' Application/WASM ')));
  holds(module instanceof WebAssembly.Module && instance instanceof WebAssembly.Instance);
});
fact('a body that comes in pieces is compiled', async () => {
  const pieces = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(new Uint8Array([byte]));
      controller.close();
    },
  });
  const used = response(pieces);
  holds(await WebAssembly.compileStreaming(used) instanceof WebAssembly.Module);
  same(used.bodyUsed, true);
});
fact('what is no response of this type is refused', async () => {
  const used = response();
  await used.text();
  for (const source of [undefined, 5, bytes, response(bytes, 404), new Response(bytes), response(bytes, 200, `${type};charset=utf-8`), used]) {
    await rejects(TypeError, WebAssembly.compileStreaming(source));
    await rejects(TypeError, WebAssembly.instantiateStreaming(source));
  }
  await rejects(WebAssembly.CompileError, WebAssembly.compileStreaming(response('no module')));
  const failing = new ReadableStream({ pull() { throw new RangeError('gone'); } });
  await rejects(RangeError, WebAssembly.compileStreaming(response(failing)));
});
end();
