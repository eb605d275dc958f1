// The shape of every interface. https://webidl.spec.whatwg.org/#javascript-binding

import { fact, end, same, alike, holds, throws } from './facts.js';

// Of the global object's constructors those that the language has not.
const language = new Set([
  'ArrayBuffer', 'AsyncDisposableStack', 'BigInt', 'DataView', 'DisposableStack', 'FinalizationRegistry', 'Iterator', 'Map', 'Promise', 'Set',
  'SharedArrayBuffer', 'Symbol', 'WeakMap', 'WeakRef', 'WeakSet',
]);
const names = Object.getOwnPropertyNames(globalThis).filter((name) => {
  const { value } = Object.getOwnPropertyDescriptor(globalThis, name);
  return typeof value === 'function' && !language.has(name) &&
    Object.getOwnPropertyDescriptor(value.prototype ?? {}, Symbol.toStringTag)?.value !== undefined;
});
fact('there are interfaces to look at', () => {
  for (const name of ['Event', 'URLPattern', 'MessagePort', 'PerformanceObserver', 'Response', 'QuotaExceededError', 'CryptoKey']) {
    holds(names.includes(name), name);
  }
});

// Required arguments of operations. https://webidl.spec.whatwg.org/#dfn-create-operation-function
const operations = {
  'AbortController.abort': 0, 'AbortSignal.throwIfAborted': 0, 'Blob.slice': 0, 'Blob.text': 0, 'BroadcastChannel.close': 0,
  'BroadcastChannel.postMessage': 1, 'Clients.claim': 0, 'Clients.get': 1, 'Clients.matchAll': 0, 'Clients.openWindow': 1, 'Crypto.getRandomValues': 1,
  'Crypto.randomUUID': 0, 'CustomEvent.initCustomEvent': 1, 'Event.initEvent': 1, 'Event.composedPath': 0, 'EventTarget.addEventListener': 2,
  'EventTarget.dispatchEvent': 1, 'EventTarget.removeEventListener': 2, 'FileReader.abort': 0, 'FileReader.readAsText': 1,
  'FormData.append': 2, 'FormData.delete': 1, 'Headers.append': 2, 'Headers.get': 1, 'MessageEvent.initMessageEvent': 1,
  'MessagePort.postMessage': 1, 'MessagePort.start': 0, 'Performance.clearMarks': 0, 'Performance.getEntriesByName': 1, 'Performance.mark': 1, 'Performance.measure': 1,
  'PerformanceObserver.observe': 0, 'PerformanceObserver.takeRecords': 0, 'PerformanceObserverEntryList.getEntriesByName': 1,
  'ReadableByteStreamController.enqueue': 1, 'ReadableStream.cancel': 0, 'ReadableStream.getReader': 0, 'ReadableStream.pipeThrough': 1,
  'ReadableStream.pipeTo': 1, 'ReadableStreamBYOBReader.read': 1, 'ReadableStreamBYOBRequest.respond': 1, 'ReadableStreamDefaultController.enqueue': 0,
  'ReadableStreamDefaultReader.read': 0, 'Response.clone': 0, 'TextDecoder.decode': 0, 'TextEncoder.encode': 0, 'TextEncoder.encodeInto': 2,
  'TransformStreamDefaultController.enqueue': 0, 'URL.toJSON': 0, 'URLPattern.exec': 0, 'URLPattern.test': 0, 'URLSearchParams.append': 2, 'URLSearchParams.has': 1,
  'WorkerLocation.toString': 0, 'WritableStream.abort': 0, 'WritableStreamDefaultWriter.write': 0,
};
for (const [path, length] of Object.entries(operations)) {
  fact(`${path} wants ${length}`, () => {
    const [name, key] = path.split('.');
    const { value, writable, enumerable, configurable } = Object.getOwnPropertyDescriptor(globalThis[name].prototype, key);
    alike([value.name, value.length, writable, enumerable, configurable, 'prototype' in value], [key, length, true, true, true, false]);
  });
}
const lengths = {
  CompressionStream: 1, DecompressionStream: 1,
  BroadcastChannel: 1, Clients: 0, ExtendableEvent: 1, FetchEvent: 2, FileReader: 0, Headers: 0, MessageChannel: 0, MessagePort: 0, PerformanceObserver: 1,
  PerformanceObserverEntryList: 0, ProgressEvent: 1, Request: 1, Response: 0, URLPattern: 0, WorkerLocation: 0,
  AbortController: 0, Blob: 0, File: 2, FormData: 0, CustomEvent: 1, DOMException: 0, ErrorEvent: 1, Event: 1, EventTarget: 0, MessageEvent: 1,
  PromiseRejectionEvent: 2, PerformanceMark: 1, ReadableStream: 0, ReadableStreamDefaultReader: 1, ReadableStreamBYOBReader: 1,
  TextDecoder: 0, TextEncoder: 0, TransformStream: 0, URL: 1, URLSearchParams: 0, WritableStream: 0,
  WritableStreamDefaultWriter: 1, AbortSignal: 0, Crypto: 0, CryptoKey: 0, SubtleCrypto: 0, QuotaExceededError: 0, ByteLengthQueuingStrategy: 1, CountQueuingStrategy: 1,
};

for (const name of names) {
  const constructor = globalThis[name];
  fact(`${name} is a hidden, writable, configurable global`, () => {
    const { enumerable, writable, configurable } = Object.getOwnPropertyDescriptor(globalThis, name);
    alike([enumerable, writable, configurable], [false, true, true]);
    same(constructor.name, name);
  });
  fact(`${name}.prototype is fixed and tagged`, () => {
    const { writable, enumerable, configurable } = Object.getOwnPropertyDescriptor(constructor, 'prototype');
    alike([writable, enumerable, configurable], [false, false, false]);
    const tag = Object.getOwnPropertyDescriptor(constructor.prototype, Symbol.toStringTag);
    alike([tag.value, tag.writable, tag.enumerable, tag.configurable], [name, false, false, true]);
    same(constructor.prototype.constructor, constructor);
    same(Object.getOwnPropertyDescriptor(constructor.prototype, 'constructor').enumerable, false);
  });
  fact(`members of ${name} are enumerable and check their receiver`, () => {
    for (const key of Object.getOwnPropertyNames(constructor.prototype)) {
      if (key === 'constructor') continue;
      const descriptor = Object.getOwnPropertyDescriptor(constructor.prototype, key);
      same(descriptor.enumerable, true, key);
      if (descriptor.get === undefined || key.startsWith('on')) continue;
      same(descriptor.get.name, `get ${key}`);
      let result;
      try {
        result = descriptor.get.call({});
      } catch (error) {
        same(error.constructor, TypeError, key);
        continue;
      }
      holds(result instanceof Promise, `${name}.${key} of a plain object`);
      result.catch(() => {});
    }
  });
  fact(`${name} needs new`, () => throws(TypeError, () => constructor()));
}
for (const [name, length] of Object.entries(lengths)) {
  fact(`${name}.length is ${length}`, () => same(globalThis[name].length, length));
}
for (const name of ['setTimeout', 'setInterval', 'clearTimeout', 'queueMicrotask', 'structuredClone', 'atob', 'btoa', 'reportError']) {
  fact(`${name} is an enumerable function and no constructor`, () => {
    const { enumerable, writable, configurable } = Object.getOwnPropertyDescriptor(globalThis, name);
    alike([enumerable, writable, configurable], [true, true, true]);
    same(globalThis[name].name, name);
  });
}
fact('methods have the lengths of Web IDL', () => {
  for (const [object, method, length] of [
    [EventTarget.prototype, 'addEventListener', 2], [EventTarget.prototype, 'dispatchEvent', 1], [URL, 'canParse', 1],
    [URLSearchParams.prototype, 'append', 2], [URLSearchParams.prototype, 'delete', 1], [URLSearchParams.prototype, 'forEach', 1],
    [TextDecoder.prototype, 'decode', 0], [TextEncoder.prototype, 'encodeInto', 2], [AbortSignal, 'any', 1],
    [AbortController.prototype, 'abort', 0], [ReadableStream.prototype, 'pipeTo', 1], [ReadableStream.prototype, 'getReader', 0],
    [ReadableStreamBYOBReader.prototype, 'read', 1], [WritableStreamDefaultWriter.prototype, 'write', 0],
    [SubtleCrypto.prototype, 'deriveBits', 2], [SubtleCrypto.prototype, 'unwrapKey', 7], [globalThis, 'setTimeout', 1], [globalThis, 'clearTimeout', 0], [globalThis, 'structuredClone', 1],
  ]) same(object[method].length, length, method);
});
end();
