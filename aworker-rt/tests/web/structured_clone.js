// structuredClone. https://html.spec.whatwg.org/#structured-cloning

import { fact, end, same, alike, holds, throws } from './facts.js';

fact('primitives are themselves', () => {
  for (const value of [1, -0, NaN, 'x', true, null, undefined, 10n]) same(structuredClone(value), value);
  throws('DataCloneError', () => structuredClone(Symbol()));
  throws(TypeError, () => structuredClone());
});
fact('plain data is copied deeply', () => {
  const value = { a: [1, , { b: 'x' }], d: new Date(5), r: /a/gi, m: new Map([[{}, new Set([1])]]), o: Object(7) };
  const clone = structuredClone(value);
  alike(clone, value);
  holds(clone !== value && clone.a !== value.a);
  same(clone.d.getTime(), 5);
  same(String(clone.r), '/a/gi');
  same([...clone.m.values()][0].has(1), true);
  same(1 in clone.a, false);
  same(clone.o.valueOf(), 7);
});
fact('identity and cycles are kept', () => {
  const inner = {};
  const value = { first: inner, second: inner };
  value.self = value;
  const clone = structuredClone(value);
  same(clone.self, clone);
  same(clone.first, clone.second);
});
fact('prototypes, accessors and symbols are not', () => {
  class Point { constructor() { this.x = 1; } }
  const clone = structuredClone(new Point());
  same(Object.getPrototypeOf(clone), Object.prototype);
  alike(Object.getOwnPropertyDescriptor(structuredClone({ get a() { return 3; } }), 'a').value, 3);
  same(Object.getOwnPropertySymbols(structuredClone({ [Symbol()]: 1 })).length, 0);
});
fact('errors keep name, message, stack and cause', () => {
  const clone = structuredClone(new RangeError('m', { cause: { a: 1 } }));
  holds(clone instanceof RangeError);
  alike([clone.name, clone.message, clone.cause], ['RangeError', 'm', { a: 1 }]);
});
fact('buffers and views are copied, sharing what they shared', () => {
  const buffer = new ArrayBuffer(8);
  const value = { bytes: new Uint8Array(buffer, 2, 3), view: new DataView(buffer), buffer };
  value.bytes[0] = 9;
  const clone = structuredClone(value);
  same(clone.bytes.buffer, clone.buffer);
  same(clone.view.buffer, clone.buffer);
  holds(clone.buffer !== buffer);
  alike([clone.bytes[0], clone.bytes.byteOffset, clone.bytes.length], [9, 2, 3]);
});
fact('functions and weak collections are refused', () => {
  for (const value of [() => {}, new WeakMap(), Promise.resolve(), { f() {} }, [Symbol()]]) {
    throws('DataCloneError', () => structuredClone(value));
  }
});
fact('what a getter throws goes through', () => {
  const error = new Error('getter');
  throws(error, () => structuredClone({ get a() { throw error; } }));
});
fact('transferred buffers move', () => {
  const buffer = new ArrayBuffer(8);
  const bytes = new Uint8Array(buffer);
  bytes[3] = 7;
  const clone = structuredClone({ bytes }, { transfer: [buffer] });
  same(buffer.byteLength, 0);
  same(bytes.length, 0);
  same(clone.bytes[3], 7);
  same(clone.bytes.buffer.byteLength, 8);
});
fact('a transfer list is checked', () => {
  const buffer = new ArrayBuffer(1);
  throws('DataCloneError', () => structuredClone(1, { transfer: [buffer, buffer] }));
  throws('DataCloneError', () => structuredClone(1, { transfer: [{}] }));
  throws(TypeError, () => structuredClone(1, { transfer: 5 }));
  same(buffer.byteLength, 1);
  structuredClone(1, { transfer: [buffer] });
  same(buffer.detached, true);
  throws('DataCloneError', () => structuredClone(1, { transfer: [buffer] }));
  throws('DataCloneError', () => structuredClone(buffer));
  const other = new ArrayBuffer(1);
  throws('DataCloneError', () => structuredClone(() => {}, { transfer: [other] }));
  same(other.detached, false);
});
fact('platform objects are refused, but blobs and files', async () => {
  class Mine extends EventTarget {}
  for (const value of [new URL('http://a'), new Event('x'), new Mine(), new ReadableStream(), new MessageChannel(), new AbortController(), new Headers()]) {
    throws('DataCloneError', () => structuredClone({ value }), value.constructor.name);
  }
  const { blob, file } = structuredClone({ blob: new Blob(['abc'], { type: 'x/y' }), file: new File(['de'], 'n', { lastModified: 3, type: 'f/g' }) });
  alike([await blob.text(), blob.type, blob instanceof File], ['abc', 'x/y', false]);
  alike([await file.text(), file.name, file.lastModified, file.type], ['de', 'n', 3, 'f/g']);
});
fact('shared memory stays shared', () => {
  const shared = new SharedArrayBuffer(4);
  const clone = structuredClone({ a: shared, b: new Uint8Array(shared) });
  new Uint8Array(shared)[1] = 5;
  same(clone.b[1], 5);
  same(new Uint8Array(clone.a)[1], 5);
});
end();
