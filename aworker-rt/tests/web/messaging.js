// MessageChannel, MessagePort, BroadcastChannel, and transfer in structuredClone.
// https://html.spec.whatwg.org/#web-messaging

import { fact, end, same, alike, holds, throws } from './facts.js';

/** The next event of a type. */
function next(target, type) {
  return new Promise((resolve) => target.addEventListener(type, resolve, { once: true }));
}

fact('messages wait until the port is started, and come in order, each as a task', async () => {
  const { port1, port2 } = new MessageChannel();
  const seen = [];
  port2.addEventListener('message', (event) => {
    queueMicrotask(() => seen.push(`microtask ${event.data}`));
    seen.push(event.data);
  });
  port1.postMessage(1);
  port1.postMessage(2);
  await new Promise((resolve) => setTimeout(resolve, 5));
  alike(seen, []);
  const last = new Promise((resolve) => { port1.onmessage = resolve; });
  port2.start();
  port2.postMessage('end');
  await last;
  alike(seen, [1, 'microtask 1', 2, 'microtask 2']);
});
fact('a message is a copy, made when it is posted', async () => {
  const { port1, port2 } = new MessageChannel();
  const value = { list: [1], error: new RangeError('r') };
  port1.postMessage(value);
  value.list.push(2);
  port2.start();
  const event = await next(port2, 'message');
  alike(event.data.list, [1]);
  holds(event.data.error instanceof RangeError);
  alike([event.isTrusted, event.origin, event.lastEventId, event.source, event.ports.length], [true, '', '', null, 0]);
  holds(Object.isFrozen(event.ports) && event instanceof MessageEvent);
  throws('DataCloneError', () => port1.postMessage(() => {}));
  throws('DataCloneError', () => port1.postMessage(new URL('http://a')));
  throws(TypeError, () => port1.postMessage());
  throws(TypeError, () => port1.postMessage(1, 5));
});
fact('assigning onmessage starts a port', async () => {
  const { port1, port2 } = new MessageChannel();
  port1.postMessage('x');
  same((await new Promise((resolve) => { port2.onmessage = resolve; })).data, 'x');
  same(typeof port2.onmessage, 'function');
});
fact('ports travel with what waits for them', async () => {
  const outer = new MessageChannel();
  const inner = new MessageChannel();
  inner.port1.postMessage('before');
  outer.port1.postMessage({ port: inner.port2 }, [inner.port2]);
  inner.port1.postMessage('between');
  outer.port2.start();
  const event = await next(outer.port2, 'message');
  const port = event.data.port;
  holds(port instanceof MessagePort && port !== inner.port2);
  same(event.ports[0], port);
  const seen = [];
  const both = new Promise((resolve) => {
    port.onmessage = ({ data }) => {
      seen.push(data);
      if (seen.length === 2) resolve();
    };
  });
  await both;
  alike(seen, ['before', 'between']);
  port.postMessage('back');
  inner.port1.start();
  same((await next(inner.port1, 'message')).data, 'back');
  throws('DataCloneError', () => outer.port1.postMessage(1, [inner.port2]), 'a port that was sent');
});
fact('a port may not send itself, nor the same thing twice', () => {
  const { port1, port2 } = new MessageChannel();
  throws('DataCloneError', () => port1.postMessage(1, [port1]));
  throws('DataCloneError', () => port1.postMessage(1, { transfer: [port2, port2] }));
  throws('DataCloneError', () => port1.postMessage({ port2 }), 'a port outside the transfer list');
  port1.postMessage(1, { transfer: [port2] });
});
fact('closing tells the other side after what was sent', async () => {
  const { port1, port2 } = new MessageChannel();
  const seen = [];
  port2.onmessage = ({ data }) => seen.push(data);
  const closed = new Promise((resolve) => { port2.onclose = resolve; });
  port1.postMessage('last');
  port1.close();
  port1.postMessage('lost');
  await closed;
  port2.postMessage('lost');
  alike(seen, ['last']);
});
fact('buffers are transferred with a message, and stay where it fails', async () => {
  const { port1, port2 } = new MessageChannel();
  const buffer = new Uint8Array([7]).buffer;
  throws('DataCloneError', () => port1.postMessage(() => {}, [buffer]));
  same(buffer.detached, false);
  port1.postMessage({ buffer }, [buffer]);
  same(buffer.detached, true);
  port2.start();
  same(new Uint8Array((await next(port2, 'message')).data.buffer)[0], 7);
});
fact('structuredClone transfers ports', async () => {
  const { port1, port2 } = new MessageChannel();
  const clone = structuredClone({ a: port2, b: [port2] }, { transfer: [port2] });
  same(clone.a, clone.b[0]);
  port1.postMessage('there');
  clone.a.start();
  same((await next(clone.a, 'message')).data, 'there');
});
fact('errors of the platform are cloned as they are', () => {
  const exception = new DOMException('gone', 'AbortError');
  const quota = new QuotaExceededError('full', { quota: 5, requested: 7 });
  const clone = structuredClone({ exception, again: exception, quota });
  same(clone.exception, clone.again);
  holds(clone.exception instanceof DOMException && clone.exception !== exception);
  alike([clone.exception.name, clone.exception.message, clone.exception.code], ['AbortError', 'gone', 20]);
  same(clone.exception.stack, exception.stack);
  alike([clone.quota instanceof QuotaExceededError, clone.quota.quota, clone.quota.requested], [true, 5, 7]);
});
fact('a WebAssembly module and shared memory are new objects on the same thing', () => {
  const module = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
  const shared = new SharedArrayBuffer(4);
  const clone = structuredClone([module, shared]);
  holds(clone[0] instanceof WebAssembly.Module && clone[0] !== module);
  holds(clone[1] instanceof SharedArrayBuffer && clone[1] !== shared);
  new Uint8Array(shared)[0] = 3;
  same(new Uint8Array(clone[1])[0], 3);
  throws('DataCloneError', () => structuredClone(shared, { transfer: [shared] }));
});
fact('a broadcast reaches every other channel of the name', async () => {
  const [a, b, c, other] = ['x', 'x', 'x', 'y'].map((name) => new BroadcastChannel(name));
  const seen = [];
  for (const [name, channel] of Object.entries({ a, b, other })) channel.onmessage = ({ data }) => seen.push(`${name} ${data}`);
  const last = new Promise((resolve) => { c.onmessage = resolve; });
  a.postMessage('hello');
  const event = await last;
  alike(seen, ['b hello']);
  alike([event.data, event.isTrusted, event.origin, a.name], ['hello', true, origin, 'x']);
  for (const channel of [a, b, c, other]) channel.close();
  throws('InvalidStateError', () => a.postMessage(1));
  throws(TypeError, () => new BroadcastChannel());
});
fact('a channel that was closed in between hears nothing', async () => {
  const [a, b, c] = ['z', 'z', 'z'].map((name) => new BroadcastChannel(name));
  b.onmessage = () => { throw new Error('closed channels hear nothing'); };
  const last = new Promise((resolve) => { c.onmessage = resolve; });
  a.postMessage(1);
  b.close();
  await last;
  for (const channel of [a, c]) channel.close();
});
fact('MessageEvent checks its ports', () => {
  const { port1 } = new MessageChannel();
  const event = new MessageEvent('message', { ports: [port1], source: port1 });
  alike([event.ports[0] === port1, event.source === port1, event.ports === event.ports], [true, true, true]);
  throws(TypeError, () => new MessageEvent('message', { ports: [{}] }));
  throws(TypeError, () => new MessageEvent('message', { source: {} }));
  event.initMessageEvent('other', true, false, 'data', 'http://a', 'id', null, []);
  alike([event.type, event.bubbles, event.data, event.origin, event.lastEventId, event.source, event.ports.length], ['other', true, 'data', 'http://a', 'id', null, 0]);
});
fact('interfaces cannot be made or called by the wrong', () => {
  throws(TypeError, () => new MessagePort());
  throws(TypeError, () => MessagePort.prototype.postMessage.call({}, 1));
  throws(TypeError, () => MessageChannel());
  throws(TypeError, () => BroadcastChannel.prototype.name);
});
end();
