// WritableStream and the queuing strategies. https://streams.spec.whatwg.org/#ws

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

fact('chunks reach the sink one after the other', async () => {
  const log = [];
  const writer = new WritableStream({
    start() { log.push('start'); },
    async write(chunk) {
      log.push(`begin ${chunk}`);
      await tick();
      log.push(`end ${chunk}`);
    },
    close() { log.push('close'); },
  }).getWriter();
  writer.write('a');
  writer.write('b');
  await writer.close();
  alike(log, ['start', 'begin a', 'end a', 'begin b', 'end b', 'close']);
  same(await writer.closed, undefined);
});
fact('ready and desiredSize tell of backpressure', async () => {
  let release;
  const writer = new WritableStream({ write() { return new Promise((resolve) => { release = resolve; }); } }, { highWaterMark: 2 }).getWriter();
  same(writer.desiredSize, 2);
  await writer.ready;
  const first = writer.write(1);
  writer.write(2);
  same(writer.desiredSize, 0);
  let ready = false;
  writer.ready.then(() => { ready = true; });
  await tick();
  same(ready, false);
  release();
  await first;
  await tick();
  same(ready, true);
  same(writer.desiredSize, 1);
});
fact('an error of the sink rejects what follows', async () => {
  const writer = new WritableStream({ write() { throw 'bad'; } }).getWriter();
  await rejects('bad', writer.write(1));
  await rejects('bad', writer.write(2));
  await rejects('bad', writer.closed);
  await rejects('bad', writer.ready);
  same(writer.desiredSize, null);
  await rejects(TypeError, writer.close());
});
fact('the controller can error the stream', async () => {
  let controller;
  const stream = new WritableStream({ start(c) { controller = c; } });
  const writer = stream.getWriter();
  controller.error('stop');
  controller.error('again');
  await rejects('stop', writer.write(1));
  await rejects('stop', writer.closed);
});
fact('abort calls the sink once and signals', async () => {
  const log = [];
  let signal;
  const stream = new WritableStream({ start(controller) { signal = controller.signal; }, abort(reason) { log.push(reason); } });
  await tick();
  const first = stream.abort('why');
  same(signal.reason, 'why');
  await Promise.all([first, stream.abort('again')]);
  alike(log, ['why']);
  await rejects('why', stream.getWriter().closed);
});
fact('abort waits for the write in flight and drops the queue', async () => {
  const log = [];
  let release;
  const stream = new WritableStream({
    write(chunk) {
      log.push(chunk);
      return new Promise((resolve) => { release = resolve; });
    },
    abort() { log.push('abort'); },
  });
  await tick();
  const writer = stream.getWriter();
  const first = writer.write(1);
  const second = writer.write(2);
  const aborted = writer.abort('r');
  await tick();
  alike(log, [1]);
  release();
  await first;
  await rejects('r', second);
  await aborted;
  alike(log, [1, 'abort']);
});
fact('nothing is written after close', async () => {
  const stream = new WritableStream();
  const writer = stream.getWriter();
  const closed = writer.close();
  await rejects(TypeError, writer.write(1));
  await rejects(TypeError, writer.close());
  await closed;
  await writer.abort();
  writer.releaseLock();
  await rejects(TypeError, stream.close());
});
fact('a writer locks until it is released', async () => {
  const stream = new WritableStream();
  const writer = stream.getWriter();
  same(stream.locked, true);
  throws(TypeError, () => stream.getWriter());
  await rejects(TypeError, stream.abort());
  await rejects(TypeError, stream.close());
  writer.releaseLock();
  same(stream.locked, false);
  throws(TypeError, () => writer.desiredSize);
  await rejects(TypeError, writer.write(1));
  await rejects(TypeError, writer.closed);
  await rejects(TypeError, writer.ready);
});
fact('start delays writes, and its failure errors the stream', async () => {
  const log = [];
  let release;
  const writer = new WritableStream({ start() { return new Promise((resolve) => { release = resolve; }); }, write(c) { log.push(c); } }).getWriter();
  writer.write(1);
  await tick();
  alike(log, []);
  release();
  await tick();
  alike(log, [1]);
  await rejects('no', new WritableStream({ start() { return Promise.reject('no'); } }).getWriter().closed);
  throws(RangeError, () => new WritableStream({ type: 'x' }));
  throws(TypeError, () => new WritableStream({ write: 1 }));
  throws(TypeError, () => new WritableStream(null));
});
fact('a size that throws errors the stream', async () => {
  const writer = new WritableStream({}, { size() { throw 'size'; } }).getWriter();
  await rejects('size', writer.write(1));
  await rejects('size', writer.closed);
});
fact('strategies have their size and mark', () => {
  const count = new CountQueuingStrategy({ highWaterMark: 4 });
  same(count.highWaterMark, 4);
  same(count.size('whatever'), 1);
  same(count.size, new CountQueuingStrategy({ highWaterMark: 1 }).size);
  const length = new ByteLengthQueuingStrategy({ highWaterMark: 4 });
  same(length.size(new Uint8Array(7)), 7);
  same(length.size.name, 'size');
  holds(Number.isNaN(new CountQueuingStrategy({ highWaterMark: NaN }).highWaterMark));
  throws(TypeError, () => new CountQueuingStrategy({}));
  throws(TypeError, () => new CountQueuingStrategy());
});
end();
