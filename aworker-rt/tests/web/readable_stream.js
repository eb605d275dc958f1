// ReadableStream, its readers, tees and pipes. https://streams.spec.whatwg.org/#rs

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

const all = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};
const tick = () => new Promise((resolve) => setTimeout(resolve, 0));

fact('chunks come out in order', async () => {
  const stream = new ReadableStream({
    start(controller) {
      controller.enqueue('a');
      controller.enqueue(undefined);
      controller.close();
    },
  });
  const reader = stream.getReader();
  alike(await reader.read(), { value: 'a', done: false });
  const second = await reader.read();
  holds('value' in second && second.value === undefined && !second.done);
  alike([(await reader.read()).done, await reader.closed], [true, undefined]);
});
fact('pull is called as long as there is room', async () => {
  let pulls = 0;
  new ReadableStream({ pull() { pulls++; } }, { highWaterMark: 0 });
  await tick();
  same(pulls, 0);
  new ReadableStream({ pull(controller) { controller.enqueue(pulls++); } }, { highWaterMark: 3 });
  await tick();
  same(pulls, 3);
});
fact('pull waits for start and for the pull before', async () => {
  const order = [];
  const stream = new ReadableStream({
    async start() {
      await tick();
      order.push('started');
    },
    async pull(controller) {
      order.push('pull');
      await tick();
      controller.enqueue(order.length);
      order.push('pulled');
      if (order.length > 4) controller.close();
    },
  });
  await all(stream);
  alike(order, ['started', 'pull', 'pulled', 'pull', 'pulled']);
});
fact('desiredSize follows the strategy', () => {
  let controller;
  new ReadableStream({ start(c) { controller = c; } }, { highWaterMark: 10, size: (chunk) => chunk.length });
  same(controller.desiredSize, 10);
  controller.enqueue('abc');
  same(controller.desiredSize, 7);
  controller.close();
  throws(TypeError, () => controller.enqueue('x'));
  throws(TypeError, () => controller.close());
});
fact('a bad strategy is refused, a bad size errors the stream', async () => {
  throws(RangeError, () => new ReadableStream({}, { highWaterMark: -1 }));
  throws(RangeError, () => new ReadableStream({}, { highWaterMark: NaN }));
  throws(TypeError, () => new ReadableStream({}, { size: 1 }));
  throws(TypeError, () => new ReadableStream(null));
  throws(TypeError, () => new ReadableStream({ type: 'x' }));
  throws(TypeError, () => new ReadableStream({ pull: 1 }));
  let failure;
  const stream = new ReadableStream({
    start(controller) {
      try {
        controller.enqueue(1);
      } catch (error) {
        failure = error;
      }
    },
  }, { size: () => -1 });
  same(failure.constructor, RangeError);
  await rejects(failure, stream.getReader().read());
});
fact('errors reach reads, closed and the iterator', async () => {
  const error = new Error('source');
  for (const source of [
    { start() { return Promise.reject(error); } },
    { pull() { throw error; } },
    { start(controller) { controller.error(error); } },
  ]) {
    const reader = new ReadableStream(source).getReader();
    await rejects(error, reader.read());
    await rejects(error, reader.closed);
  }
  throws(error, () => new ReadableStream({ start() { throw error; } }));
  await rejects(error, all(new ReadableStream({ pull() { throw error; } })));
});
fact('cancel reaches the source and ends the stream', async () => {
  let reason;
  const stream = new ReadableStream({ cancel(r) { reason = r; return 5; } });
  same(await stream.cancel('why'), undefined);
  same(reason, 'why');
  same((await stream.getReader().read()).done, true);
  await rejects('no', new ReadableStream({ cancel() { throw 'no'; } }).cancel());
  const locked = new ReadableStream();
  const reader = locked.getReader();
  await rejects(TypeError, locked.cancel());
  await reader.cancel();
});
fact('a reader locks until it is released', async () => {
  const stream = new ReadableStream();
  const reader = stream.getReader();
  same(stream.locked, true);
  throws(TypeError, () => stream.getReader());
  throws(TypeError, () => stream.tee());
  throws(TypeError, () => new ReadableStreamDefaultReader(stream));
  const pending = reader.read();
  const { closed } = reader;
  reader.releaseLock();
  same(stream.locked, false);
  await rejects(TypeError, pending);
  await rejects(TypeError, closed);
  await rejects(TypeError, reader.read());
  holds(reader.closed !== undefined);
  stream.getReader();
});
fact('methods check their receiver', async () => {
  await rejects(TypeError, ReadableStream.prototype.cancel.call({}));
  await rejects(TypeError, ReadableStreamDefaultReader.prototype.read.call({}));
  await rejects(TypeError, ReadableStream.prototype.pipeTo.call({}, new WritableStream()));
  throws(TypeError, () => ReadableStream.prototype.getReader.call({}));
  throws(TypeError, () => new ReadableStream().getReader({ mode: 'x' }));
  throws(TypeError, () => new ReadableStream().getReader({ mode: 'byob' }));
  throws(TypeError, () => new ReadableStreamDefaultController());
});
fact('tee gives both branches every chunk', async () => {
  const chunk = {};
  const [first, second] = ReadableStream.from([chunk, 2, 3]).tee();
  const left = await all(first);
  const right = await all(second);
  holds(left[0] === chunk && right[0] === chunk);
  alike([left.length, right.length], [3, 3]);
});
fact('the source of a tee is cancelled when both branches are', async () => {
  let reason;
  const [first, second] = new ReadableStream({ cancel(r) { reason = r; } }).tee();
  const cancelled = first.cancel('a');
  same(reason, undefined);
  second.cancel('b');
  await cancelled;
  alike(reason, ['a', 'b']);
});
fact('an error reaches both branches of a tee', async () => {
  let controller;
  const [first, second] = new ReadableStream({ start(c) { controller = c; } }).tee();
  const reads = [first.getReader().read(), second.getReader().read()];
  controller.error('broken');
  await rejects('broken', reads[0]);
  await rejects('broken', reads[1]);
});
fact('from takes iterables of both kinds', async () => {
  alike(await all(ReadableStream.from('ab')), ['a', 'b']);
  alike(await all(ReadableStream.from([Promise.resolve(1), 2])), [1, 2]);
  alike(await all(ReadableStream.from((async function* () { yield 1; yield 2; })())), [1, 2]);
  alike(await all(ReadableStream.from(ReadableStream.from([7]))), [7]);
  for (const value of [undefined, null, 1, {}]) throws(TypeError, () => ReadableStream.from(value), String(value));
  let returned;
  const stream = ReadableStream.from({
    [Symbol.asyncIterator]: () => ({ next: () => Promise.resolve({ value: 1, done: false }), return(r) { returned = r; return {}; } }),
  });
  await stream.cancel('done');
  same(returned, 'done');
});
fact('leaving a for await loop cancels, unless it is prevented', async () => {
  let cancelled = false;
  const make = () => new ReadableStream({ pull(controller) { controller.enqueue(1); }, cancel() { cancelled = true; } });
  const stream = make();
  for await (const chunk of stream) break;
  same(cancelled, true);
  same(stream.locked, false);
  cancelled = false;
  const kept = make();
  for await (const chunk of kept.values({ preventCancel: true })) break;
  same(cancelled, false);
  same((await kept.getReader().read()).value, 1);
});
fact('requests of an iterator are answered in turn', async () => {
  const iterator = ReadableStream.from([1, 2])[Symbol.asyncIterator]();
  const results = await Promise.all([iterator.next(), iterator.next(), iterator.next(), iterator.return('x')]);
  alike(results.map(({ value, done }) => [value ?? null, done]), [[1, false], [2, false], [null, true], ['x', true]]);
  same(Object.getPrototypeOf(Object.getPrototypeOf(iterator)), Object.getPrototypeOf(Object.getPrototypeOf(async function* () {}.prototype)));
  await rejects(TypeError, iterator.next.call({}));
});
fact('pipeTo writes all and closes', async () => {
  const seen = [];
  await ReadableStream.from([1, 2]).pipeTo(new WritableStream({ write(chunk) { seen.push(chunk); }, close() { seen.push('close'); } }));
  alike(seen, [1, 2, 'close']);
});
fact('pipeTo can leave the ends open', async () => {
  const sink = new WritableStream();
  await ReadableStream.from([1]).pipeTo(sink, { preventClose: true });
  same(sink.locked, false);
  await sink.getWriter().write('more');
  let cancelled = false;
  const source = new ReadableStream({ pull(controller) { controller.enqueue(1); }, cancel() { cancelled = true; } });
  await rejects('full', source.pipeTo(new WritableStream({ write() { throw 'full'; } }), { preventCancel: true }));
  same(cancelled, false);
});
fact('errors cross a pipe both ways', async () => {
  let aborted;
  await rejects('bad source', new ReadableStream({ pull() { throw 'bad source'; } })
    .pipeTo(new WritableStream({ abort(reason) { aborted = reason; } })));
  same(aborted, 'bad source');
  let cancelled;
  await rejects('bad sink', new ReadableStream({ pull(controller) { controller.enqueue(1); }, cancel(reason) { cancelled = reason; } })
    .pipeTo(new WritableStream({ write() { throw 'bad sink'; } })));
  same(cancelled, 'bad sink');
});
fact('a pipe into a closed stream fails and cancels', async () => {
  const sink = new WritableStream();
  await sink.close();
  let cancelled = false;
  await rejects(TypeError, new ReadableStream({ cancel() { cancelled = true; } }).pipeTo(sink));
  same(cancelled, true);
});
fact('a signal ends a pipe and both ends', async () => {
  const controller = new AbortController();
  const log = [];
  const source = new ReadableStream({ cancel(reason) { log.push(['cancel', reason]); } });
  const sink = new WritableStream({ abort(reason) { log.push(['abort', reason]); } });
  const pipe = source.pipeTo(sink, { signal: controller.signal });
  controller.abort('stop');
  await rejects('stop', pipe);
  alike(log, [['abort', 'stop'], ['cancel', 'stop']]);
  alike([source.locked, sink.locked], [false, false]);
  await rejects('early', new ReadableStream().pipeTo(new WritableStream(), { signal: AbortSignal.abort('early') }));
  await rejects(TypeError, new ReadableStream().pipeTo(new WritableStream(), { signal: {} }));
});
fact('backpressure of the sink reaches the source', async () => {
  let pulls = 0;
  const source = new ReadableStream({ pull(controller) { controller.enqueue(pulls++); } }, { highWaterMark: 0 });
  let release;
  source.pipeTo(new WritableStream({ write() { return new Promise((resolve) => { release = resolve; }); } })).catch(() => {});
  await tick();
  await tick();
  same(pulls, 1);
  release();
  await tick();
  same(pulls, 2);
});
end();
