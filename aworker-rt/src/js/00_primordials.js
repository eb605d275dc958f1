// Primordials: the language's own functions, captured before user code can
// replace them. Names are formed as in Node.js:
//
//   static       Object.defineProperty          ObjectDefineProperty(target, ...)
//   prototype    Array.prototype.push           ArrayPrototypePush(array, ...)
//   getter       Map.prototype.size             MapPrototypeGetSize(map)
//   setter       Map.prototype.x = ...          MapPrototypeSetX(map, value)
//   symbol       Array.prototype[@@iterator]    ArrayPrototypeSymbolIterator(array)
//   constructor  Map                            Map
//   prototype    Map.prototype                  MapPrototype
//
// Built-ins use these and never a method that user code could have patched;
// that includes what syntax calls for them: `for (const x of array)` and
// `[...array]` use the patchable array iterator, so write index loops or wrap
// the array in SafeArrayIterator.

const { defineProperty, getOwnPropertyDescriptor, setPrototypeOf, freeze, create } = Object;
const { ownKeys, apply, getPrototypeOf } = Reflect;

// uncurryThis(f)(self, ...args) is f.call(self, ...args), with Function.prototype.call captured.
const { bind, call } = Function.prototype;
const uncurryThis = bind.bind(call);
const applyBind = bind.bind(Function.prototype.apply);
primordials.uncurryThis = uncurryThis;
primordials.applyBind = applyBind;

const capitalised = (key) =>
  typeof key === 'symbol'
    ? `Symbol${key.description[7].toUpperCase()}${key.description.slice(8)}`
    : `${key[0].toUpperCase()}${key.slice(1)}`;

// Well-known symbols are named "Symbol.iterator"; other symbols are skipped.
const nameable = (key) =>
  typeof key !== 'symbol' || (key.description !== undefined && key.description.startsWith('Symbol.'));

const put = (name, value) => {
  defineProperty(primordials, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
};

const putAccessors = (prefix, key, descriptor, bound) => {
  const name = capitalised(key);
  if (descriptor.get) put(`${prefix}Get${name}`, bound(descriptor.get));
  if (descriptor.set) put(`${prefix}Set${name}`, bound(descriptor.set));
};

// Properties of a namespace or constructor: functions are called without `this`
// of the caller, so they are bound to their holder only where they need it.
const copyStatics = (source, prefix) => {
  for (const key of ownKeys(source)) {
    if (!nameable(key)) continue;
    const descriptor = getOwnPropertyDescriptor(source, key);
    if ('get' in descriptor) {
      putAccessors(prefix, key, descriptor, uncurryThis);
    } else {
      put(`${prefix}${capitalised(key)}`, descriptor.value);
    }
  }
};

const copyPrototype = (source, prefix) => {
  for (const key of ownKeys(source)) {
    if (!nameable(key)) continue;
    const descriptor = getOwnPropertyDescriptor(source, key);
    if ('get' in descriptor) {
      putAccessors(prefix, key, descriptor, uncurryThis);
    } else {
      const { value } = descriptor;
      put(`${prefix}${capitalised(key)}`, typeof value === 'function' ? uncurryThis(value) : value);
    }
  }
};

for (const name of ['Atomics', 'JSON', 'Math', 'Proxy', 'Reflect']) {
  copyStatics(globalThis[name], name);
}
primordials.Proxy = Proxy;

for (
  const name of [
    'AggregateError', 'Array', 'ArrayBuffer', 'BigInt', 'BigInt64Array', 'BigUint64Array', 'Boolean', 'DataView',
    'Date', 'Error', 'EvalError', 'FinalizationRegistry', 'Float32Array', 'Float64Array', 'Function', 'Int16Array',
    'Int32Array', 'Int8Array', 'Map', 'Number', 'Object', 'RangeError', 'ReferenceError', 'RegExp', 'Set',
    'String', 'Symbol', 'SyntaxError', 'TypeError', 'URIError', 'Uint16Array', 'Uint32Array',
    'Uint8Array', 'Uint8ClampedArray', 'WeakMap', 'WeakRef', 'WeakSet',
  ]
) {
  const constructor = globalThis[name];
  primordials[name] = constructor;
  copyStatics(constructor, name);
  copyPrototype(constructor.prototype, `${name}Prototype`);
}

// Promise's statics need their `this`.
primordials.Promise = Promise;
copyPrototype(Promise.prototype, 'PromisePrototype');
primordials.PromisePrototype = Promise.prototype;

// `then` makes its result with the constructor that the promise names, or with that one's
// @@species; user code may have replaced both. Then the promise names, for the time of the call, an
// object without a species, which stands for the language's own constructor.
const { then } = Promise.prototype;
const callThen = uncurryThis(then);
const { species } = Symbol;
const noSpecies = freeze({ __proto__: null });
const { defineProperty: tryDefineProperty, deleteProperty } = Reflect;
const ownConstructor = (promise) => getOwnPropertyDescriptor(promise, 'constructor');
const thenWithoutSpecies = (promise, onFulfilled, onRejected) => {
  const own = ownConstructor(promise);
  const isSet = tryDefineProperty(promise, 'constructor', {
    __proto__: null, value: noSpecies, writable: true, enumerable: false, configurable: true,
  });
  try {
    return callThen(promise, onFulfilled, onRejected);
  } finally {
    if (isSet && own === undefined) deleteProperty(promise, 'constructor');
    else if (isSet) tryDefineProperty(promise, 'constructor', { __proto__: null, ...own });
  }
};
put('PromisePrototypeThen', (promise, onFulfilled, onRejected) => {
  if (promise.constructor === Promise && Promise[species] === Promise) return callThen(promise, onFulfilled, onRejected);
  return thenWithoutSpecies(promise, onFulfilled, onRejected);
});
for (const key of ownKeys(Promise)) {
  if (typeof key === 'string' && typeof Promise[key] === 'function') put(`Promise${capitalised(key)}`, Promise[key].bind(Promise));
}

for (
  const [name, prototype] of [
    ['TypedArray', getPrototypeOf(Uint8Array.prototype)],
    ['ArrayIterator', getPrototypeOf([][Symbol.iterator]())],
    ['StringIterator', getPrototypeOf(''[Symbol.iterator]())],
    ['MapIterator', getPrototypeOf(new Map()[Symbol.iterator]())],
    ['SetIterator', getPrototypeOf(new Set()[Symbol.iterator]())],
    ['Iterator', getPrototypeOf(getPrototypeOf([][Symbol.iterator]()))],
    ['AsyncIterator', getPrototypeOf(getPrototypeOf(async function* () {}).prototype)],
    ['Generator', getPrototypeOf(function* () {}).prototype],
    ['AsyncGenerator', getPrototypeOf(async function* () {}).prototype],
  ]
) {
  primordials[`${name}Prototype`] = prototype;
  copyPrototype(prototype, `${name}Prototype`);
}
primordials.TypedArray = getPrototypeOf(Uint8Array);
primordials.AsyncIteratorPrototype = getPrototypeOf(getPrototypeOf(async function* () {}.prototype));

for (const name of ['decodeURI', 'decodeURIComponent', 'encodeURI', 'encodeURIComponent', 'escape', 'unescape']) {
  primordials[name] = globalThis[name];
}

// Iteration that user code cannot observe: the iterator's own `next` and
// `@@iterator` shadow the patchable ones.
const safeIterator = (start, next) => {
  class SafeIterator {
    constructor(iterable) {
      this._iterator = start(iterable);
    }
    next() {
      return next(this._iterator);
    }
    [Symbol.iterator]() {
      return this;
    }
  }
  setPrototypeOf(SafeIterator.prototype, null);
  freeze(SafeIterator.prototype);
  freeze(SafeIterator);
  return SafeIterator;
};
primordials.SafeArrayIterator = safeIterator(
  primordials.ArrayPrototypeSymbolIterator,
  primordials.ArrayIteratorPrototypeNext,
);
primordials.SafeStringIterator = safeIterator(
  primordials.StringPrototypeSymbolIterator,
  primordials.StringIteratorPrototypeNext,
);

// A subclass whose prototype holds its own copies of the methods and hangs on
// null: patches of the original are not seen.
const makeSafe = (Unsafe, Safe) => {
  for (const key of ownKeys(Unsafe.prototype)) {
    if (key === 'constructor') continue;
    defineProperty(Safe.prototype, key, getOwnPropertyDescriptor(Unsafe.prototype, key));
  }
  setPrototypeOf(Safe.prototype, null);
  freeze(Safe.prototype);
  freeze(Safe);
  return Safe;
};
primordials.SafeMap = makeSafe(Map, class SafeMap extends Map {});
primordials.SafeSet = makeSafe(Set, class SafeSet extends Set {});
primordials.SafeWeakMap = makeSafe(WeakMap, class SafeWeakMap extends WeakMap {});
primordials.SafeWeakSet = makeSafe(WeakSet, class SafeWeakSet extends WeakSet {});
primordials.SafeWeakRef = makeSafe(WeakRef, class SafeWeakRef extends WeakRef {});
primordials.SafeFinalizationRegistry = makeSafe(
  FinalizationRegistry,
  class SafeFinalizationRegistry extends FinalizationRegistry {},
);

// Marks a rejected promise as handled.
const { PromisePrototypeThen } = primordials;
const nothing = () => {};
primordials.setPromiseHandled = (promise) => {
  PromisePrototypeThen(promise, nothing, nothing);
};

// Frozen when the last file has been loaded and what nobody needs later has been taken away (`build.rs`).
setPrototypeOf(primordials, null);
