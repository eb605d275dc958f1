// Streams in transfer lists. https://streams.spec.whatwg.org/#transferrable-streams

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

fact('a readable stream goes on at the other side', async () => {
  let pulls = 0;
  const stream = new ReadableStream({
    pull(controller) {
      pulls++;
      if (pulls === 4) controller.close();
      else controller.enqueue({ pulls });
    },
  }, { highWaterMark: 0 });
  const moved = structuredClone({ stream }, { transfer: [stream] }).stream;
  holds(stream.locked && !moved.locked && moved !== stream);
  alike(await all(moved), [{ pulls: 1 }, { pulls: 2 }, { pulls: 3 }]);
});
fact('a writable stream takes what is written at the other side, no faster than it wants', async () => {
  const seen = [];
  const stream = new WritableStream({
    write(chunk) { seen.push(chunk); },
    close() { seen.push('closed'); },
  });
  const writer = structuredClone(stream, { transfer: [stream] }).getWriter();
  await writer.write('a');
  await writer.write(new Uint8Array([1]));
  await writer.close();
  await new Promise((resolve) => setTimeout(resolve, 1));
  alike(seen, ['a', { 0: 1 }, 'closed']);
});
fact('a transform stream moves whole, over a port as well', async () => {
  const stream = new TransformStream({ transform(chunk, controller) { controller.enqueue(chunk * 2); } });
  const { port1, port2 } = new MessageChannel();
  port1.postMessage(stream, [stream]);
  const { data } = await new Promise((resolve) => { port2.onmessage = resolve; });
  holds(data instanceof TransformStream);
  const writer = data.writable.getWriter();
  writer.write(4);
  writer.write(5);
  writer.close();
  alike(await all(data.readable), [8, 10]);
});
fact('errors and cancellation cross', async () => {
  const failing = new ReadableStream({ pull(controller) { controller.error(new RangeError('boom')); } });
  const reader = structuredClone(failing, { transfer: [failing] }).getReader();
  const error = await reader.read().then(() => undefined, (reason) => reason);
  alike([error.name, error.message], ['RangeError', 'boom']);
  let reason;
  const cancelled = new Promise((resolve) => {
    const source = new ReadableStream({ cancel(given) { reason = given; resolve(); } });
    structuredClone(source, { transfer: [source] }).cancel('enough');
  });
  await cancelled;
  same(reason, 'enough');
});
fact('a chunk that cannot be cloned errors both sides', async () => {
  const stream = new WritableStream();
  const writer = structuredClone(stream, { transfer: [stream] }).getWriter();
  await rejects('DataCloneError', writer.write(() => {}));
});
fact('locked streams stay where they are', () => {
  const readable = new ReadableStream();
  readable.getReader();
  throws('DataCloneError', () => structuredClone(readable, { transfer: [readable] }));
  const { writable } = new TransformStream();
  writable.getWriter();
  throws('DataCloneError', () => structuredClone(writable, { transfer: [writable] }));
  const transform = new TransformStream();
  transform.readable.getReader();
  throws('DataCloneError', () => structuredClone(transform, { transfer: [transform] }));
});
end();
