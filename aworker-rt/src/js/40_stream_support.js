//! What the streams share: queues with sizes, queuing strategies, promises made only when asked
//! for. https://streams.spec.whatwg.org/#supporting-ao
//!
//! A stream, reader, writer or controller is two objects: a plain record, on which the standard's
//! abstract operations work, and the public object, a thin shell with the record in a private
//! field. Built-ins (pipes, tees, bodies) use records and pay for no shells or promises.

const {
  ArrayPrototypePush,
  ArrayPrototypeSplice,
  FunctionPrototypeCall,
  NumberIsNaN,
  PromisePrototypeThen,
  PromiseReject,
  PromiseResolve,
  PromiseWithResolvers,
  RangeError,
  ReflectApply,
  TypeError,
  setPromiseHandled,
} = primordials;
const { converters, isObject, requiredArguments, defineInterface } = internals.webidl;

/** https://streams.spec.whatwg.org/#queue-with-sizes */
class SizedQueue {
  items = [];
  head = 0;
  totalSize = 0;

  isEmpty() {
    return this.head === this.items.length;
  }

  /** EnqueueValueWithSize. */
  enqueue(value, size) {
    if (typeof size !== 'number' || NumberIsNaN(size) || size < 0 || size === Infinity) {
      throw new RangeError('The size of a chunk must be a finite, non-negative number');
    }
    ArrayPrototypePush(this.items, { value, size });
    this.totalSize += size;
  }

  peek() {
    return this.items[this.head].value;
  }

  /** DequeueValue. */
  dequeue() {
    const { value, size } = this.items[this.head];
    this.drop();
    this.totalSize -= size;
    if (this.totalSize < 0) this.totalSize = 0;
    return value;
  }

  /** Removes the first item, moving the others up only now and then. */
  drop() {
    this.items[this.head++] = undefined;
    if (this.head === this.items.length) {
      this.items.length = 0;
      this.head = 0;
    } else if (this.head >= 1024 && this.head * 2 >= this.items.length) {
      ArrayPrototypeSplice(this.items, 0, this.head);
      this.head = 0;
    }
  }

  /** ResetQueue. */
  reset() {
    this.items = [];
    this.head = 0;
    this.totalSize = 0;
  }
}

/**
 * A promise of nothing that is made when it is first asked for. It counts as handled: `closed`
 * and `ready` never cause unhandled rejections.
 */
class LazyPromise {
  state = 0; // 0 pending, 1 fulfilled, 2 rejected
  reason = undefined;
  capability = undefined;

  static fulfilled() {
    const lazy = new LazyPromise();
    lazy.state = 1;
    return lazy;
  }

  static rejected(reason) {
    const lazy = new LazyPromise();
    lazy.state = 2;
    lazy.reason = reason;
    return lazy;
  }

  resolve() {
    if (this.state !== 0) return;
    this.state = 1;
    this.capability?.resolve();
  }

  reject(reason) {
    if (this.state !== 0) return;
    this.state = 2;
    this.reason = reason;
    this.capability?.reject(reason);
  }

  get() {
    if (this.capability === undefined) {
      const capability = PromiseWithResolvers();
      setPromiseHandled(capability.promise);
      if (this.state === 1) capability.resolve();
      else if (this.state === 2) capability.reject(this.reason);
      this.capability = capability;
    }
    return this.capability.promise;
  }
}

const resolved = PromiseResolve();

/** Reacts to a promise, or to what a built-in algorithm returned in its place. */
function uponPromise(promise, onFulfilled, onRejected) {
  PromisePrototypeThen(promise === undefined ? resolved : promise, onFulfilled, onRejected);
}

/**
 * `then` for steps that return a promise or undefined. Returning a promise from a callback of
 * `then` itself would look up its `then`, which a user may have replaced.
 */
function chainPromise(promise, onFulfilled, onRejected) {
  const { promise: result, resolve, reject } = PromiseWithResolvers();
  const settle = (steps) => (value) => {
    try {
      const next = steps(value);
      if (next === undefined) resolve();
      else PromisePrototypeThen(next, resolve, reject);
    } catch (error) {
      reject(error);
    }
  };
  PromisePrototypeThen(promise, settle(onFulfilled), onRejected === undefined ? reject : settle(onRejected));
  return result;
}

/** Calls a user's method that returns a Promise: whatever it returns is converted as Web IDL says. */
function promiseCall(method, receiver, ...args) {
  try {
    return promiseResolvedWith(ReflectApply(method, receiver, args)) ?? PromiseResolve();
  } catch (error) {
    return PromiseReject(error);
  }
}

/**
 * "A promise resolved with" a value: unlike PromiseResolve it never is the value, and takes over the
 * state of a promise two microtasks later; the `then` of a promise, which a user may have replaced, is
 * not asked. Undefined stands for a promise that is resolved with undefined.
 */
function promiseResolvedWith(value) {
  if (value === undefined) return undefined;
  const promise = PromiseResolve(value);
  return promise === value ? PromisePrototypeThen(PromisePrototypeThen(promise)) : promise;
}

/** A member of an underlying source, sink or transformer: a function or undefined. */
function methodOf(object, name, prefix) {
  const method = object[name];
  if (method === undefined) return undefined;
  return converters.callback(method, prefix, `'${name}'`);
}

/** A queuing strategy's two members, in their order; `size` undefined counts every chunk as 1. */
function convertStrategy(strategy, prefix) {
  if (strategy === undefined || strategy === null) return { highWaterMark: undefined, size: undefined };
  if (!isObject(strategy)) throw new TypeError(`${prefix}: the strategy is not an object`);
  const highWaterMark = strategy.highWaterMark;
  const converted = highWaterMark === undefined ? undefined : converters.unrestrictedDouble(highWaterMark, prefix, "'highWaterMark'");
  return { highWaterMark: converted, size: methodOf(strategy, 'size', prefix) };
}

/** ExtractHighWaterMark. */
function extractHighWaterMark(strategy, defaultValue) {
  const highWaterMark = strategy.highWaterMark;
  if (highWaterMark === undefined) return defaultValue;
  if (NumberIsNaN(highWaterMark) || highWaterMark < 0) throw new RangeError("'highWaterMark' must be a non-negative number");
  return highWaterMark;
}

/** ExtractSizeAlgorithm; undefined stands for "always 1". */
function extractSizeAlgorithm({ size }) {
  if (size === undefined) return undefined;
  return (chunk) => converters.unrestrictedDouble(FunctionPrototypeCall(size, undefined, chunk), 'A queuing strategy', 'The size of a chunk');
}

// One `size` function for all instances, as the standard demands; neither is a constructor.
const { size: byteLengthSize } = { size(chunk) { return chunk.byteLength; } };
const { size: countSize } = { size() { return 1; } };

function convertInit(init, prefix) {
  if (!isObject(init)) throw new TypeError(`${prefix}: Argument 1 is not an object`);
  const highWaterMark = init.highWaterMark;
  if (highWaterMark === undefined) throw new TypeError(`${prefix}: required member 'highWaterMark' is missing`);
  return converters.unrestrictedDouble(highWaterMark, prefix, "'highWaterMark'");
}

class ByteLengthQueuingStrategy {
  #highWaterMark;

  constructor(init) {
    const prefix = "Failed to construct 'ByteLengthQueuingStrategy'";
    requiredArguments(arguments.length, 1, prefix);
    this.#highWaterMark = convertInit(init, prefix);
  }

  get highWaterMark() {
    return this.#highWaterMark;
  }

  get size() {
    this.#highWaterMark;
    return byteLengthSize;
  }
}

class CountQueuingStrategy {
  #highWaterMark;

  constructor(init) {
    const prefix = "Failed to construct 'CountQueuingStrategy'";
    requiredArguments(arguments.length, 1, prefix);
    this.#highWaterMark = convertInit(init, prefix);
  }

  get highWaterMark() {
    return this.#highWaterMark;
  }

  get size() {
    this.#highWaterMark;
    return countSize;
  }
}

defineInterface(ByteLengthQueuingStrategy);
defineInterface(CountQueuingStrategy);

internals.streams = {
  ByteLengthQueuingStrategy,
  CountQueuingStrategy,
  SizedQueue,
  LazyPromise,
  uponPromise,
  chainPromise,
  promiseCall,
  promiseResolvedWith,
  methodOf,
  convertStrategy,
  extractHighWaterMark,
  extractSizeAlgorithm,
};
