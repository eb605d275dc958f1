// Everything that the Minimum Common Web API (ECMA-429) names is there. https://min-common-api.proposal.wintertc.org/

import { fact, end, same, holds } from './facts.js';

// Members as their standards' Web IDL has them: attributes, operations with (), what is static after a bar.
const interfaces = {
  AbortController: 'signal abort()',
  AbortSignal: 'aborted reason throwIfAborted() onabort | abort() any() timeout()',
  Blob: 'size type slice() stream() text() arrayBuffer() bytes()',
  ByteLengthQueuingStrategy: 'highWaterMark size',
  CompressionStream: 'readable writable',
  CountQueuingStrategy: 'highWaterMark size',
  Crypto: 'subtle getRandomValues() randomUUID()',
  CryptoKey: 'type extractable algorithm usages',
  CustomEvent: 'detail initCustomEvent()',
  DOMException: 'name message code',
  DecompressionStream: 'readable writable',
  ErrorEvent: 'message filename lineno colno error',
  Event: 'type target srcElement currentTarget composedPath() eventPhase stopPropagation() cancelBubble stopImmediatePropagation() bubbles cancelable returnValue preventDefault() defaultPrevented composed timeStamp initEvent()',
  EventTarget: 'addEventListener() removeEventListener() dispatchEvent()',
  File: 'name lastModified',
  FormData: 'append() delete() get() getAll() has() set() entries() keys() values() forEach()',
  Headers: 'append() delete() get() getSetCookie() has() set() entries() keys() values() forEach()',
  MessageChannel: 'port1 port2',
  MessageEvent: 'data origin lastEventId source ports initMessageEvent()',
  MessagePort: 'postMessage() start() close() onmessage onmessageerror',
  Performance: 'now() timeOrigin toJSON()',
  PromiseRejectionEvent: 'promise reason',
  ReadableByteStreamController: 'byobRequest desiredSize close() enqueue() error()',
  ReadableStream: 'locked cancel() getReader() pipeThrough() pipeTo() tee() values() | from()',
  ReadableStreamBYOBReader: 'read() releaseLock() closed cancel()',
  ReadableStreamBYOBRequest: 'view respond() respondWithNewView()',
  ReadableStreamDefaultController: 'desiredSize close() enqueue() error()',
  ReadableStreamDefaultReader: 'read() releaseLock() closed cancel()',
  Request: 'method url headers destination referrer referrerPolicy mode credentials cache redirect integrity keepalive signal duplex clone() body bodyUsed arrayBuffer() blob() bytes() formData() json() text()',
  Response: 'type url redirected status ok statusText headers clone() body bodyUsed arrayBuffer() blob() bytes() formData() json() text() | error() redirect() json()',
  SubtleCrypto: 'encrypt() decrypt() sign() verify() digest() generateKey() deriveKey() deriveBits() importKey() exportKey() wrapKey() unwrapKey()',
  TextDecoder: 'encoding fatal ignoreBOM decode()',
  TextDecoderStream: 'encoding fatal ignoreBOM readable writable',
  TextEncoder: 'encoding encode() encodeInto()',
  TextEncoderStream: 'encoding readable writable',
  TransformStream: 'readable writable',
  TransformStreamDefaultController: 'desiredSize enqueue() error() terminate()',
  URL: 'href origin protocol username password host hostname port pathname search searchParams hash toJSON() toString() | parse() canParse()',
  URLPattern: 'test() exec() protocol username password hostname port pathname search hash hasRegExpGroups',
  URLSearchParams: 'size append() delete() get() getAll() has() set() sort() toString() entries() keys() values() forEach()',
  WritableStream: 'locked abort() close() getWriter()',
  WritableStreamDefaultController: 'signal error()',
  WritableStreamDefaultWriter: 'closed desiredSize ready abort() close() releaseLock() write()',
};
/** Constructors, and errors, of WebAssembly with their members. */
const webAssembly = {
  CompileError: '', LinkError: '', RuntimeError: '',
  Exception: 'is() getArg()',
  Global: 'value valueOf()',
  Instance: 'exports',
  Memory: 'buffer grow()',
  Module: '| exports() imports() customSections()',
  Table: 'length get() grow() set()',
  Tag: '',
};
const webAssemblyFunctions = ['compile', 'compileStreaming', 'instantiate', 'instantiateStreaming', 'validate'];
const functions = [
  'atob', 'btoa', 'clearInterval', 'clearTimeout', 'fetch', 'queueMicrotask', 'reportError', 'setInterval', 'setTimeout', 'structuredClone',
];
const handlers = ['onerror', 'onrejectionhandled', 'onunhandledrejection'];
const objects = { console: 'console', crypto: 'Crypto', navigator: 'WorkerNavigator', performance: 'Performance' };
const consoleMethods = [
  'assert', 'clear', 'count', 'countReset', 'debug', 'dir', 'dirxml', 'error', 'group', 'groupCollapsed', 'groupEnd', 'info', 'log',
  'table', 'time', 'timeEnd', 'timeLog', 'trace', 'warn',
];

/** Whether the members of a list are what they are said to be. */
function hasMembers(constructor, list) {
  const [own, fixed = ''] = list.split('|');
  for (const [object, members] of [[constructor.prototype, own], [constructor, fixed]]) {
    for (const member of members.split(' ').filter((text) => text !== '')) {
      const name = member.replace('()', '');
      const descriptor = Object.getOwnPropertyDescriptor(object, name);
      holds(descriptor !== undefined, `${name} is there`);
      same(typeof (member === name ? descriptor.get : descriptor.value), 'function', name);
    }
  }
}

for (const [name, members] of Object.entries(interfaces)) {
  fact(`the interface ${name}`, () => {
    const { value, writable, enumerable, configurable } = Object.getOwnPropertyDescriptor(globalThis, name);
    holds(typeof value === 'function' && writable && !enumerable && configurable);
    same(Object.prototype.toString.call(value.prototype), `[object ${name}]`);
    hasMembers(value, members);
  });
}
for (const [name, members] of Object.entries(webAssembly)) {
  fact(`WebAssembly.${name}`, () => {
    same(typeof WebAssembly[name], 'function');
    holds(name.endsWith('Error') ? WebAssembly[name].prototype instanceof Error : `${WebAssembly[name].prototype}`.includes(name));
    hasMembers(WebAssembly[name], members);
  });
}
for (const name of webAssemblyFunctions) {
  fact(`WebAssembly.${name}`, () => {
    same(typeof WebAssembly[name], 'function');
    holds(!('prototype' in WebAssembly[name]));
  });
}
fact('WebAssembly.JSTag', () => holds(WebAssembly.JSTag instanceof WebAssembly.Tag));
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
  holds(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:\/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?$/.test(navigator.userAgent), 'one product of RFC 7231');
  holds(globalThis instanceof EventTarget && Object.getOwnPropertyDescriptor(globalThis, 'globalThis').value === globalThis);
  same(new Intl.NumberFormat('de-DE').format(1234.5), '1.234,5');
});
end();
