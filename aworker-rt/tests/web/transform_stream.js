// TransformStream. https://streams.spec.whatwg.org/#ts

import { fact, end, same, alike, throws, rejects } from './facts.js';

const all = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};
const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

fact('the default is the identity', async () => {
  alike(await all(ReadableStream.from([1, 2]).pipeThrough(new TransformStream())), [1, 2]);
});
fact('transform and flush may enqueue any number of chunks', async () => {
  const stream = new TransformStream({
    start(controller) { controller.enqueue('start'); },
    transform(chunk, controller) {
      if (chunk > 1) for (let i = 0; i < chunk; i++) controller.enqueue(chunk);
    },
    async flush(controller) {
      await tick();
      controller.enqueue('end');
    },
  });
  alike(await all(ReadableStream.from([1, 2, 3]).pipeThrough(stream)), ['start', 2, 2, 3, 3, 3, 'end']);
});
fact('errors of transform reach both sides', async () => {
  const stream = new TransformStream({ transform() { throw 'bad'; } });
  const writer = stream.writable.getWriter();
  const reader = stream.readable.getReader();
  const read = reader.read();
  await rejects('bad', writer.write(1));
  await rejects('bad', read);
  await rejects('bad', writer.closed);
  await rejects('bad', reader.closed);
});
fact('the controller can end both sides', async () => {
  let controller;
  const stream = new TransformStream({ start(c) { controller = c; } });
  same(controller.desiredSize, 0);
  controller.terminate();
  same((await stream.readable.getReader().read()).done, true);
  await rejects(TypeError, stream.writable.getWriter().closed);
  const other = new TransformStream({ start(c) { c.error('e'); } });
  await rejects('e', other.readable.getReader().read());
  await rejects('e', other.writable.getWriter().closed);
});
fact('nothing is transformed before it is read for', async () => {
  const log = [];
  const stream = new TransformStream({ transform(chunk, controller) {
    log.push(chunk);
    controller.enqueue(chunk);
  } });
  const writer = stream.writable.getWriter();
  writer.write(1);
  await tick();
  alike(log, []);
  await stream.readable.getReader().read();
  alike(log, [1]);
});
fact('cancel of the readable side errors the writable', async () => {
  const log = [];
  const stream = new TransformStream({ cancel(reason) { log.push(reason); } });
  await tick();
  await stream.readable.cancel('r');
  alike(log, ['r']);
  await rejects('r', stream.writable.getWriter().closed);
});
fact('abort of the writable side errors the readable', async () => {
  const log = [];
  const stream = new TransformStream({ cancel(reason) { log.push(reason); } });
  await tick();
  await stream.writable.abort('a');
  alike(log, ['a']);
  await rejects('a', stream.readable.getReader().read());
});
fact('reserved members and bad arguments are refused', () => {
  throws(RangeError, () => new TransformStream({ readableType: 'bytes' }));
  throws(RangeError, () => new TransformStream({ writableType: 'x' }));
  throws(TypeError, () => new TransformStream({ transform: 1 }));
  throws(TypeError, () => new TransformStreamDefaultController());
  const error = new Error();
  throws(error, () => new TransformStream({ start() { throw error; } }));
});
fact('pipeThrough needs a pair and gives its readable', () => {
  const pair = { readable: new ReadableStream(), writable: new WritableStream() };
  same(new ReadableStream().pipeThrough(pair), pair.readable);
  throws(TypeError, () => new ReadableStream().pipeThrough(pair));
  throws(TypeError, () => new ReadableStream().pipeThrough({ readable: new ReadableStream() }));
  throws(TypeError, () => new ReadableStream().pipeThrough());
});
end();
