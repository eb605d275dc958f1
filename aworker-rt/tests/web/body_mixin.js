// The methods that requests and responses share. https://fetch.spec.whatwg.org/#body-mixin

import { fact, end, same, holds, throws } from './facts.js';

const typeOf = async (type) => (await new Response('', { headers: { 'content-type': type } }).blob()).type;

fact('a blob has the serialised MIME type of its body', async () => {
  same(await typeOf('Text/HTML ;Charset=GBK'), 'text/html;charset=GBK');
  same(await typeOf('text/html;charset=gbk, text/html;x=y'), 'text/html;x=y;charset=gbk');
  same(await typeOf('text/plain, nothing'), 'text/plain');
  same(await typeOf('nothing'), '');
  same((await new Request('http://h/', { method: 'POST', body: 'x' }).blob()).type, 'text/plain;charset=utf-8'.replace('utf', 'UTF'));
});
fact('a body that has been read stays locked', async () => {
  for (const make of [() => 'text', () => new Blob(['text']).stream()]) {
    for (const method of ['text', 'blob', 'arrayBuffer', 'bytes']) {
      const response = new Response(make());
      await response[method]();
      holds(response.bodyUsed && response.body.locked, method);
      throws(TypeError, () => response.body.getReader());
    }
  }
});
fact('what has failed already is rejected at once', async () => {
  const order = [];
  const failed = new Response(new ReadableStream({ start(controller) { controller.error(new Error('gone')); } })).text();
  await Promise.all([failed.catch((error) => order.push(error.message)), Promise.resolve().then(() => order.push('next'))]);
  same(order.join(), 'gone,next');
  for (const method of ['text', 'json', 'blob', 'bytes', 'arrayBuffer', 'formData']) {
    const promise = Response.prototype[method].call({});
    holds(promise instanceof Promise, method);
    same(await promise.catch((error) => error.name), 'TypeError', method);
  }
  same(await new Response('{').json().catch((error) => error.name), 'SyntaxError');
});
fact('a request made of another takes its body and leaves its stream', async () => {
  for (const body of ['text', new Blob(['te', 'xt']).stream()]) {
    const first = new Request('http://h/', { method: 'POST', body, duplex: 'half' });
    const { body: stream } = first;
    const second = new Request(first);
    same(first.body, stream);
    holds(first.bodyUsed && stream.locked);
    holds(second.body !== stream && !second.bodyUsed);
    same(await second.text(), 'text');
  }
});
fact('members of a request that make no sense are refused', () => {
  throws(TypeError, () => new Request('http://h/', { window: 'x' }));
  throws(TypeError, () => new Request('http://h/', { priority: 'x' }));
  same(new Request('http://h/', { window: null, priority: 'low' }).method, 'GET');
});
fact('a clone of a stream has chunks of the same kind', async () => {
  for (const chunk of [new Int16Array([1, 2]), new DataView(new ArrayBuffer(3)), new ArrayBuffer(4)]) {
    const response = new Response(new ReadableStream({ start(controller) { controller.enqueue(chunk); } }));
    const clone = response.clone();
    same((await response.body.getReader().read()).value, chunk);
    const { value } = await clone.body.getReader().read();
    same(Object.getPrototypeOf(value), Object.getPrototypeOf(chunk));
    holds(value !== chunk && value.byteLength === chunk.byteLength);
  }
});
fact('an aborted fetch cancels its body at once', async () => {
  let reason;
  const body = new ReadableStream({ cancel(given) { reason = given; } });
  const promise = fetch('http://127.0.0.1:1/', { method: 'POST', body, duplex: 'half', signal: AbortSignal.abort() });
  same(reason?.name, 'AbortError');
  same(await promise.catch((error) => error), reason);
});
fact('nothing is sent to the ports of other protocols', async () => {
  for (const port of [1, 25, 6667, 10080]) {
    const error = await fetch(`http://127.0.0.1:${port}/`).catch((given) => given);
    holds(error instanceof TypeError && error.message.includes(`port ${port}`), error.message);
  }
});
fact('a HEAD of a data: URL has no body', async () => {
  same(await (await fetch('data:,text', { method: 'HEAD' })).text(), '');
});

end();
