// console as an object, and that it runs no user code; what it prints is in tests/web.rs.
// https://console.spec.whatwg.org/

import { fact, end, same, holds } from './facts.js';

const { toStringTag } = Symbol;

fact('console is a namespace object', () => {
  same(Object.prototype.toString.call(console), '[object console]');
  same(console[toStringTag], 'console');
  const prototype = Object.getPrototypeOf(console);
  same(Object.getPrototypeOf(prototype), Object.prototype);
  same(Object.getOwnPropertyNames(prototype).length, 0);
  same(Object.getOwnPropertyDescriptor(globalThis, 'console').enumerable, false);
  for (const name of [
    'assert', 'clear', 'count', 'countReset', 'debug', 'dir', 'dirxml', 'error', 'group', 'groupCollapsed', 'groupEnd', 'info', 'log',
    'table', 'time', 'timeEnd', 'timeLog', 'trace', 'warn',
  ]) {
    const { value, enumerable, writable } = Object.getOwnPropertyDescriptor(console, name);
    same(typeof value, 'function', name);
    holds(enumerable && writable, name);
  }
});
fact('methods work without their receiver', () => {
  const { log, group, groupEnd } = console;
  group();
  groupEnd();
  log();
});
fact('no getter, proxy trap or toString of a user is run', () => {
  const fail = () => { throw new Error('user code ran'); };
  const trap = new Proxy({}, { get: fail, ownKeys: fail, getPrototypeOf: fail, getOwnPropertyDescriptor: fail, has: fail });
  const object = { get getter() { return fail(); }, toString: fail, [Symbol.toPrimitive]: fail };
  console.log(trap, object, [trap], new (class { get [toStringTag]() { return fail(); } })(), Object.create(trap));
  console.log('%s %d %o', object, object, trap);
  console.table([trap, object]);
});
fact('every value can be shown', () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const detached = new ArrayBuffer(8);
  const view = new Uint8Array(detached);
  structuredClone(detached, { transfer: [detached] });
  const cyclic = new Map();
  cyclic.set(cyclic, new Set([cyclic]));
  let deep = {};
  for (let i = 0; i < 20000; i++) deep = { deep };
  const names = Object.defineProperty(function () {}, 'name', { value: Symbol('x') });
  console.log(proxy, detached, cyclic, deep, names, view, Object.create(null), new Date(NaN), [, ,], (function () {
    return arguments;
  })(1), new WeakMap(), Symbol(), new (class extends Array {})(3), new Map().entries(), function* () {}(), Object(1n), new Error(), globalThis);
});
end();
