// Built-ins keep working when user code replaces the language's own functions.

import { fact, end, same, alike, holds } from './facts.js';

// What user code replaces must not reach the built-ins. The originals come back before a fact ends.
function tampered(changes, action) {
  const saved = changes.map(([object, key]) => [object, key, Object.getOwnPropertyDescriptor(object, key)]);
  const { defineProperty } = Object;
  const { deleteProperty } = Reflect;
  const restore = () => {
    for (let i = 0; i < saved.length; i++) {
      if (saved[i][2] === undefined) deleteProperty(saved[i][0], saved[i][1]);
      else defineProperty(saved[i][0], saved[i][1], saved[i][2]);
    }
  };
  for (let i = 0; i < changes.length; i++) {
    defineProperty(changes[i][0], changes[i][1], { value: changes[i][2], writable: true, configurable: true });
  }
  let result;
  try {
    result = action();
  } finally {
    restore();
  }
  return result;
}
const broken = () => { throw new Error('the built-in called tampered code'); };
const arrays = ['push', 'pop', 'shift', 'splice', 'slice', 'map', 'filter', 'forEach', 'indexOf', 'includes', 'join', Symbol.iterator]
  .map((key) => [Array.prototype, key, broken]);
const strings = ['slice', 'charCodeAt', 'indexOf', 'split', 'replaceAll', 'toWellFormed', 'startsWith', 'padEnd']
  .map((key) => [String.prototype, key, broken]);
const maps = ['get', 'set', 'has', 'delete', Symbol.iterator].map((key) => [Map.prototype, key, broken]);
const everything = [
  ...arrays, ...strings, ...maps,
  [Function.prototype, 'call', broken], [Function.prototype, 'apply', broken], [Function.prototype, 'bind', broken],
  [RegExp.prototype, 'exec', broken], [RegExp.prototype, 'test', broken], [Promise.prototype, 'then', broken],
  [Promise.prototype, 'catch', broken], [Promise.prototype, 'finally', broken],
  [Object, 'defineProperty', broken], [Object, 'keys', broken], [Object, 'assign', broken], [JSON, 'stringify', broken],
  [Number, 'isFinite', broken], [Math, 'floor', broken], [Math, 'min', broken], [Reflect, 'apply', broken],
  [Reflect, 'ownKeys', broken], [WeakRef.prototype, 'deref', broken], [Promise, 'resolve', broken], [Promise, 'withResolvers', broken],
];

fact('events, signals and timers keep working', async () => {
  let calls = 0;
  let resolve;
  const fired = new Promise((done) => { resolve = done; });
  const controller = new AbortController();
  // `any` takes a sequence: it runs the array's iterator, as Web IDL demands.
  const any = AbortSignal.any([controller.signal]);
  tampered(everything, () => {
    any.onabort = () => calls++;
    any.addEventListener('abort', () => calls++);
    controller.abort();
    setTimeout(() => resolve(), 0);
    clearTimeout(setTimeout(() => {}, 0));
  });
  same(calls, 2);
  await fired;
});
fact('URLs and their parameters keep working', () => {
  const text = tampered(everything, () => {
    const url = new URL('/a?x=1&y=2', 'http://host:81/');
    url.searchParams.append('z', '3');
    url.searchParams.delete('x');
    url.searchParams.sort();
    url.hash = 'h';
    return url.href + url.host + url.searchParams.get('z') + new URLSearchParams({ a: 'b' }).toString();
  });
  same(text, 'http://host:81/a?y=2&z=3#hhost:813a=b');
});
fact('encoding, base64, crypto, clones and console keep working', () => {
  tampered(everything, () => {
    const decoder = new TextDecoder('latin1');
    if (decoder.decode(new TextEncoder().encode('ab')) !== 'ab') broken();
    if (atob(btoa('x')) !== 'x') broken();
    crypto.getRandomValues(new Uint8Array(1));
    structuredClone({ a: [1] });
    console.log('%s', { a: [1, 'x', new Map()] }, new Error('shown'));
    performance.mark('m');
    performance.clearMarks();
  });
});
fact('streams keep working', async () => {
  // The chain of facts calls `then` itself, in microtasks that must be over.
  await new Promise((settle) => setTimeout(settle, 0));
  const chunks = [];
  let resolve;
  const done = new Promise((settle) => { resolve = settle; });
  const { then } = Promise.prototype;
  Promise.prototype.then = broken;
  const { push } = Array.prototype;
  Array.prototype.push = broken;
  let pipe;
  try {
    let count = 0;
    const source = new ReadableStream({ pull(controller) {
      controller.enqueue(count++);
      if (count === 3) controller.close();
    } });
    const transform = new TransformStream({ transform(chunk, controller) { controller.enqueue(chunk * 2); } });
    pipe = source.pipeThrough(transform).pipeTo(new WritableStream({
      write(chunk) { chunks[chunks.length] = chunk; },
      close() {
        Promise.prototype.then = then;
        resolve();
      },
    }));
  } finally {
    Array.prototype.push = push;
  }
  await done;
  await pipe;
  alike(chunks, [0, 2, 4]);
});
fact('async iteration uses the original reader', async () => {
  const { getReader } = ReadableStream.prototype;
  const { read } = ReadableStreamDefaultReader.prototype;
  ReadableStream.prototype.getReader = broken;
  ReadableStreamDefaultReader.prototype.read = broken;
  const seen = [];
  for await (const chunk of ReadableStream.from(['a', 'b'])) seen.push(chunk);
  ReadableStream.prototype.getReader = getReader;
  ReadableStreamDefaultReader.prototype.read = read;
  alike(seen, ['a', 'b']);
});
fact('replaced globals do not matter', () => {
  const { URLSearchParams: original, Event: OriginalEvent } = globalThis;
  globalThis.URLSearchParams = broken;
  globalThis.Event = broken;
  holds(new URL('http://a/?x=1').searchParams instanceof original);
  const controller = new AbortController();
  let seen;
  controller.signal.onabort = (event) => { seen = event; };
  controller.abort();
  holds(seen instanceof OriginalEvent);
  globalThis.URLSearchParams = original;
  globalThis.Event = OriginalEvent;
});
fact('a replaced constructor or species of promises reaches no built-in', async () => {
  class Other {
    constructor() { broken(); }
    static get [Symbol.species]() { return broken(); }
  }
  for (const changes of [
    [[Promise.prototype, 'constructor', Other]],
    [[Promise, Symbol.species, Other]],
  ]) {
    const seen = [];
    const { promise, resolve } = Promise.withResolvers();
    tampered(changes, () => {
      const source = new ReadableStream({
        pull(controller) {
          controller.enqueue('chunk');
          controller.close();
        },
      });
      const sink = new WritableStream({
        write(chunk) { seen.push(chunk); },
        close() { resolve(); },
      });
      source.pipeThrough(new TransformStream()).pipeTo(sink);
    });
    await promise;
    seen.push(await new Response('text').text());
    alike(seen, ['chunk', 'text']);
  }
});
fact('the way a promise was changed stays', () => {
  const promise = Promise.resolve();
  promise.constructor = Map;
  new ReadableStream({ start: () => promise });
  alike([promise.constructor === Map, Object.keys(promise)], [true, ['constructor']]);
  const frozen = Object.freeze(Promise.resolve());
  new ReadableStream({ start: () => frozen });
});
fact('crypto.subtle keeps working, which is loaded at its first call', async () => {
  // The usages are a sequence: their array's own iterator runs, as Web IDL demands. `then` of the
  // promise that this function returns is called while it waits, by the language.
  const changes = everything.filter(([, key]) => key !== Symbol.iterator && key !== 'then');
  const saved = changes.map(([object, key]) => [object, key, Object.getOwnPropertyDescriptor(object, key)]);
  const { defineProperty } = Object;
  for (let i = 0; i < changes.length; i++) {
    defineProperty(changes[i][0], changes[i][1], { value: changes[i][2], writable: true, configurable: true });
  }
  const { subtle } = crypto;
  const results = [];
  let count = 0;
  try {
    const gcm = { name: 'AES-GCM', iv: new Uint8Array(12) };
    const wrapping = await subtle.generateKey({ name: 'AES-GCM', length: 256 }, true, ['wrapKey', 'unwrapKey']);
    const ed = await subtle.generateKey('Ed25519', true, ['sign', 'verify']);
    const wrapped = await subtle.wrapKey('jwk', ed.privateKey, wrapping, gcm);
    const back = await subtle.unwrapKey('jwk', wrapped, wrapping, gcm, 'Ed25519', true, ['sign']);
    const data = new Uint8Array(5);
    results[count++] = await subtle.verify('Ed25519', ed.publicKey, await subtle.sign('Ed25519', back, data), data);
    const rsa = { name: 'RSA-PSS', hash: 'SHA-256', modulusLength: 1024, publicExponent: new Uint8Array([3]), saltLength: 8 };
    const pair = await subtle.generateKey(rsa, true, ['sign', 'verify']);
    const jwk = await subtle.exportKey('jwk', pair.privateKey);
    const key = await subtle.importKey('jwk', jwk, rsa, false, ['sign']);
    results[count++] = await subtle.verify(rsa, pair.publicKey, await subtle.sign(rsa, key, data), data);
    const password = await subtle.importKey('raw', data, 'PBKDF2', false, ['deriveKey']);
    const parameters = { name: 'PBKDF2', hash: 'SHA-1', salt: data, iterations: 2 };
    results[count++] = (await subtle.deriveKey(parameters, password, { name: 'AES-CBC', length: 128 }, true, ['encrypt'])).extractable;
  } finally {
    for (let i = 0; i < saved.length; i++) defineProperty(saved[i][0], saved[i][1], saved[i][2]);
  }
  alike(results, [true, true, true]);
});
end();
