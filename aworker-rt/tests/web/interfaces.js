// The shape of every interface. https://webidl.spec.whatwg.org/#javascript-binding

import { fact, end, same, alike, holds, throws } from './facts.js';

const names = [
  'AbortController', 'AbortSignal', 'Blob', 'ByteLengthQueuingStrategy', 'CompressionStream', 'CountQueuingStrategy', 'Crypto', 'CryptoKey', 'CustomEvent',
  'DOMException', 'DecompressionStream', 'ErrorEvent', 'Event', 'EventTarget', 'File', 'FormData', 'MessageEvent', 'Performance', 'PerformanceEntry', 'PerformanceMark',
  'PerformanceMeasure', 'PromiseRejectionEvent', 'QuotaExceededError', 'ReadableByteStreamController', 'ReadableStream', 'ReadableStreamBYOBReader',
  'ReadableStreamBYOBRequest', 'ReadableStreamDefaultController', 'ReadableStreamDefaultReader', 'ServiceWorkerGlobalScope', 'SubtleCrypto',
  'TextDecoder', 'TextDecoderStream', 'TextEncoder', 'TextEncoderStream', 'TransformStream', 'TransformStreamDefaultController',
  'URL', 'URLSearchParams', 'WorkerGlobalScope', 'WorkerNavigator', 'WritableStream', 'WritableStreamDefaultController',
  'WritableStreamDefaultWriter',
];
const lengths = {
  CompressionStream: 1, DecompressionStream: 1,
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
