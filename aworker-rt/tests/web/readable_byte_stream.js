// Byte streams and BYOB readers. https://streams.spec.whatwg.org/#rbs-controller-class

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

const bytes = (...values) => new Uint8Array(values);

fact('a default reader gets Uint8Arrays', async () => {
  const stream = new ReadableStream({
    type: 'bytes',
    start(controller) {
      controller.enqueue(new Uint16Array([0x201]));
      controller.close();
    },
  });
  const reader = stream.getReader();
  const { value } = await reader.read();
  holds(value instanceof Uint8Array);
  alike([...value], [1, 2]);
  same((await reader.read()).done, true);
});
fact('an enqueued buffer is detached', () => {
  const chunk = bytes(1);
  new ReadableStream({ type: 'bytes', start(controller) { controller.enqueue(chunk); } });
  same(chunk.buffer.detached, true);
});
fact('a BYOB reader fills the view it is given, and detaches it', async () => {
  const stream = new ReadableStream({ type: 'bytes', start(controller) { controller.enqueue(bytes(1, 2, 3, 4, 5)); } });
  const reader = stream.getReader({ mode: 'byob' });
  const given = new Uint8Array(3);
  const { value } = await reader.read(given);
  alike([...value], [1, 2, 3]);
  same(given.byteLength, 0);
  const rest = await reader.read(new Uint16Array(2));
  holds(rest.value instanceof Uint16Array);
  same(rest.value.length, 1);
});
fact('pull answers a BYOB request in place', async () => {
  let sizes = [];
  const stream = new ReadableStream({
    type: 'bytes',
    pull(controller) {
      const { byobRequest } = controller;
      sizes.push(byobRequest.view.byteLength);
      byobRequest.view[0] = 7;
      byobRequest.respond(1);
      same(controller.byobRequest, null);
      same(byobRequest.view, null);
      throws(TypeError, () => byobRequest.respond(1));
    },
  });
  const { value } = await stream.getReader({ mode: 'byob' }).read(new Uint8Array(9));
  alike([[...value], value.buffer.byteLength, sizes], [[7], 9, [9]]);
});
fact('a request can be answered with a new view', async () => {
  const stream = new ReadableStream({
    type: 'bytes',
    pull(controller) {
      const { view } = controller.byobRequest;
      throws(RangeError, () => controller.byobRequest.respondWithNewView(new Uint8Array(1)));
      const moved = new Uint8Array(view.buffer.transfer(), 0, 2);
      moved.set([4, 5]);
      controller.byobRequest.respondWithNewView(moved);
    },
  });
  alike([...(await stream.getReader({ mode: 'byob' }).read(new Uint8Array(4))).value], [4, 5]);
});
fact('min waits for that many elements', async () => {
  let count = 0;
  const stream = new ReadableStream({ type: 'bytes', pull(controller) { controller.enqueue(bytes(++count)); } });
  const reader = stream.getReader({ mode: 'byob' });
  alike([...(await reader.read(new Uint8Array(10), { min: 3 })).value], [1, 2, 3]);
  await rejects(RangeError, reader.read(new Uint8Array(2), { min: 3 }));
  await rejects(TypeError, reader.read(new Uint8Array(2), { min: 0 }));
});
fact('autoAllocateChunkSize gives default readers a request too', async () => {
  const stream = new ReadableStream({
    type: 'bytes',
    autoAllocateChunkSize: 16,
    pull(controller) {
      same(controller.byobRequest.view.byteLength, 16);
      controller.byobRequest.view[0] = 9;
      controller.byobRequest.respond(1);
    },
  });
  alike([...(await stream.getReader().read()).value], [9]);
  throws(TypeError, () => new ReadableStream({ type: 'bytes', autoAllocateChunkSize: 0 }));
});
fact('closing ends BYOB reads with an empty view of their type', async () => {
  let controller;
  const stream = new ReadableStream({ type: 'bytes', start(c) { controller = c; } });
  const reader = stream.getReader({ mode: 'byob' });
  const read = reader.read(new Uint16Array(2));
  controller.close();
  controller.byobRequest.respond(0);
  const { value, done } = await read;
  holds(value instanceof Uint16Array && value.length === 0 && done);
  same((await reader.read(new Uint8Array(1))).done, true);
});
fact('cancel ends BYOB reads without a view', async () => {
  const reader = new ReadableStream({ type: 'bytes' }).getReader({ mode: 'byob' });
  const read = reader.read(new Uint8Array(1));
  await reader.cancel();
  const { value, done } = await read;
  alike([value === undefined, done], [true, true]);
});
fact('bytes of an unfinished element end in an error', async () => {
  let controller;
  const stream = new ReadableStream({ type: 'bytes', start(c) { controller = c; } });
  const read = stream.getReader({ mode: 'byob' }).read(new Uint16Array(1));
  controller.enqueue(bytes(1));
  throws(TypeError, () => controller.close());
  await rejects(TypeError, read);
});
fact('what a released BYOB reader asked for is kept for the next', async () => {
  let controller;
  const stream = new ReadableStream({ type: 'bytes', start(c) { controller = c; } });
  const first = stream.getReader({ mode: 'byob' });
  const read = first.read(new Uint8Array(4));
  await null;
  const request = controller.byobRequest;
  first.releaseLock();
  await rejects(TypeError, read);
  request.view[0] = 5;
  request.respond(1);
  alike([...(await stream.getReader().read()).value], [5]);
});
fact('a tee copies the bytes', async () => {
  const stream = new ReadableStream({
    type: 'bytes',
    start(controller) {
      controller.enqueue(bytes(1, 2));
      controller.close();
    },
  });
  const [first, second] = stream.tee();
  const left = await first.getReader().read();
  left.value[0] = 99;
  const right = await second.getReader({ mode: 'byob' }).read(new Uint8Array(4));
  alike([...right.value], [1, 2]);
});
fact('the end of a tee ends BYOB reads too', async () => {
  let controller;
  const [first, second] = new ReadableStream({ type: 'bytes', start(c) { controller = c; } }).tee();
  const read = first.getReader({ mode: 'byob' }).read(new Uint8Array(1));
  controller.close();
  same((await read).done, true);
  same((await second.getReader().read()).done, true);
});
fact('a body can be read by a BYOB reader to its end', async () => {
  const reader = new Response('ab').body.getReader({ mode: 'byob' });
  alike([...(await reader.read(new Uint8Array(4))).value], [97, 98]);
  same((await reader.read(new Uint8Array(4))).done, true);
});
fact('arguments are checked', async () => {
  const stream = new ReadableStream({
    type: 'bytes',
    start(controller) {
      throws(TypeError, () => controller.enqueue('text'));
      throws(TypeError, () => controller.enqueue(new Uint8Array(0)));
      throws(TypeError, () => controller.enqueue(new Uint8Array(new SharedArrayBuffer(1))));
    },
  });
  const reader = stream.getReader({ mode: 'byob' });
  await rejects(TypeError, reader.read());
  await rejects(TypeError, reader.read('x'));
  await rejects(TypeError, reader.read(new Uint8Array(0)));
  throws(RangeError, () => new ReadableStream({ type: 'bytes' }, { size: () => 1 }));
  throws(TypeError, () => new ReadableStreamBYOBReader(new ReadableStream()));
  throws(TypeError, () => new ReadableStreamBYOBRequest());
});
fact("a branch of a tee hands its reader's view to the source", async () => {
  const views = [];
  const stream = new ReadableStream({
    type: 'bytes',
    pull(controller) {
      const { byobRequest } = controller;
      views.push(byobRequest?.view.byteLength ?? null);
      if (byobRequest === null) {
        controller.enqueue(new Uint8Array([9]));
      } else {
        byobRequest.view[0] = 7;
        byobRequest.respond(1);
      }
    },
  });
  const [first, second] = stream.tee();
  const reader = first.getReader({ mode: 'byob' });
  alike([...(await reader.read(new Uint8Array(3))).value], [7]);
  const other = second.getReader();
  alike([...(await other.read()).value], [7]);
  alike([...(await other.read()).value], [9]);
  alike([...(await reader.read(new Uint8Array(5))).value], [9]);
  alike(views, [3, null]);
});
end();
