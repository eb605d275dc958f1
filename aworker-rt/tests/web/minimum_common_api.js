// Everything that the Minimum Common Web API (ECMA-429) names is there. https://min-common-api.proposal.wintertc.org/

import { fact, end, same, holds } from './facts.js';

const interfaces = [
  'AbortController', 'AbortSignal', 'Blob', 'ByteLengthQueuingStrategy', 'CompressionStream', 'CountQueuingStrategy', 'Crypto',
  'CryptoKey', 'CustomEvent', 'DOMException', 'DecompressionStream', 'ErrorEvent', 'Event', 'EventTarget', 'File', 'FormData',
  'Headers', 'MessageChannel', 'MessageEvent', 'MessagePort', 'Performance', 'PromiseRejectionEvent', 'ReadableByteStreamController',
  'ReadableStream', 'ReadableStreamBYOBReader', 'ReadableStreamBYOBRequest', 'ReadableStreamDefaultController',
  'ReadableStreamDefaultReader', 'Request', 'Response', 'SubtleCrypto', 'TextDecoder', 'TextDecoderStream', 'TextEncoder',
  'TextEncoderStream', 'TransformStream', 'TransformStreamDefaultController', 'URL', 'URLPattern', 'URLSearchParams',
  'WritableStream', 'WritableStreamDefaultController', 'WritableStreamDefaultWriter',
];
const webAssembly = ['Exception', 'Global', 'Instance', 'JSTag', 'Memory', 'Module', 'Table', 'Tag', 'compile', 'compileStreaming', 'instantiate', 'instantiateStreaming', 'validate'];
const functions = [
  'atob', 'btoa', 'clearInterval', 'clearTimeout', 'fetch', 'queueMicrotask', 'reportError', 'setInterval', 'setTimeout', 'structuredClone',
];
const handlers = ['onerror', 'onrejectionhandled', 'onunhandledrejection'];
const objects = { console: 'console', crypto: 'Crypto', navigator: 'WorkerNavigator', performance: 'Performance' };
const consoleMethods = [
  'assert', 'clear', 'count', 'countReset', 'debug', 'dir', 'dirxml', 'error', 'group', 'groupCollapsed', 'groupEnd', 'info', 'log',
  'table', 'time', 'timeEnd', 'timeLog', 'trace', 'warn',
];

for (const name of interfaces) {
  fact(`the interface ${name}`, () => {
    same(typeof globalThis[name], 'function');
    same(Object.prototype.toString.call(globalThis[name].prototype), `[object ${name}]`);
  });
}
for (const name of webAssembly) fact(`WebAssembly.${name}`, () => holds(name in WebAssembly));
for (const name of functions) {
  fact(`the function ${name}`, () => {
    const { value, writable, enumerable, configurable } = Object.getOwnPropertyDescriptor(globalThis, name);
    holds(typeof value === 'function' && value.name === name && writable && enumerable && configurable && !('prototype' in value));
  });
}
for (const name of handlers) fact(`the handler ${name}`, () => same(globalThis[name], null));
for (const [name, tag] of Object.entries(objects)) {
  fact(`the object ${name}`, () => same(Object.prototype.toString.call(globalThis[name]), `[object ${tag}]`));
}
for (const name of consoleMethods) fact(`console.${name}`, () => same(typeof console[name], 'function'));
fact('what is read of them', () => {
  holds(globalThis === self);
  for (const value of [performance.now(), performance.timeOrigin]) same(typeof value, 'number');
  holds(navigator.userAgent.length > 0);
  same(new Intl.NumberFormat('de-DE').format(1234.5), '1.234,5');
});
end();
