//! The abstract operations of readable streams with a default controller and of default readers.
//! https://streams.spec.whatwg.org/#rs-abstract-ops

const {
  ArrayPrototypePush,
  FunctionPrototypeCall,
  PromisePrototypeThen,
  PromiseReject,
  PromiseResolve,
  PromiseWithResolvers,
  SymbolAsyncIterator,
  SymbolIterator,
  TypeError,
} = primordials;
const { streams } = internals;
const { SizedQueue, LazyPromise, uponPromise } = streams;

/** The slots of a ReadableStream. */
class ReadableStreamRecord {
  state = 'readable'; // 'readable', 'closed' or 'errored'
  storedError = undefined;
  disturbed = false;
  reader = undefined;
  controller = undefined;
  /** The public object, if there is one. */
  shell = undefined;
  /**
   * { awaited(), reached() }, for a source that does nothing unless it is read: hears that somebody waits for the end, and then that
   * it is there.
   */
  end = undefined;
}

/** The slots of a ReadableStreamDefaultReader or ReadableStreamBYOBReader. */
class ReaderRecord {
  stream;
  closed;
  /** Read requests, or read-into requests if `isByob`. */
  requests = new RequestQueue();
  isByob;

  constructor(stream, isByob) {
    this.stream = stream;
    this.isByob = isByob;
    stream.reader = this;
    if (stream.state === 'readable') this.closed = new LazyPromise();
    else if (stream.state === 'closed') this.closed = LazyPromise.fulfilled();
    else this.closed = LazyPromise.rejected(stream.storedError);
  }

  /** What the public `closed` gives. */
  awaitClosed() {
    if (this.stream?.state === 'readable') this.stream.end?.awaited();
    return this.closed.get();
  }
}

/** A first-in first-out list of requests. */
class RequestQueue {
  items = [];
  head = 0;

  get length() {
    return this.items.length - this.head;
  }

  push(request) {
    ArrayPrototypePush(this.items, request);
  }

  shift() {
    const request = this.items[this.head];
    this.items[this.head++] = undefined;
    if (this.head === this.items.length) {
      this.items.length = 0;
      this.head = 0;
    }
    return request;
  }
}

/** A read request that settles a promise with an iterator result. */
class PromiseReadRequest {
  capability = PromiseWithResolvers();

  chunk(chunk) {
    this.capability.resolve({ value: chunk, done: false });
  }

  close(chunk = undefined) {
    this.capability.resolve({ value: chunk, done: true });
  }

  error(reason) {
    this.capability.reject(reason);
  }
}

/** AcquireReadableStreamDefaultReader, for a stream's record. */
function acquireDefaultReader(stream) {
  if (stream.reader !== undefined) throw new TypeError('The stream is locked to a reader');
  return new ReaderRecord(stream, false);
}

/** ReadableStreamCancel. */
function readableStreamCancel(stream, reason) {
  stream.disturbed = true;
  if (stream.state === 'closed') return PromiseResolve();
  if (stream.state === 'errored') return PromiseReject(stream.storedError);
  readableStreamClose(stream);
  const reader = stream.reader;
  if (reader !== undefined && reader.isByob) {
    const requests = reader.requests;
    reader.requests = new RequestQueue();
    while (requests.length > 0) requests.shift().close(undefined);
  }
  const result = stream.controller.cancelSteps(reason);
  return PromisePrototypeThen(result === undefined ? PromiseResolve() : result, () => undefined);
}

/** ReadableStreamClose. */
function readableStreamClose(stream) {
  stream.state = 'closed';
  const reader = stream.reader;
  if (reader === undefined) return;
  reader.closed.resolve();
  if (reader.isByob) return;
  const requests = reader.requests;
  if (requests.length === 0) return;
  reader.requests = new RequestQueue();
  while (requests.length > 0) requests.shift().close();
}

/** ReadableStreamError. */
function readableStreamError(stream, error) {
  stream.state = 'errored';
  stream.storedError = error;
  const reader = stream.reader;
  if (reader === undefined) return;
  reader.closed.reject(error);
  errorRequests(reader, error);
}

/** ReadableStreamDefaultReaderErrorReadRequests and its BYOB counterpart. */
function errorRequests(reader, error) {
  const requests = reader.requests;
  reader.requests = new RequestQueue();
  while (requests.length > 0) requests.shift().error(error);
}

/** ReadableStreamReaderGenericRelease and the requests' rejection that follows it. */
function readerRelease(reader) {
  const { stream } = reader;
  const error = new TypeError('The reader has released its lock on the stream');
  if (stream.state === 'readable') reader.closed.reject(error);
  else reader.closed = LazyPromise.rejected(error);
  stream.controller.releaseSteps();
  stream.reader = undefined;
  reader.stream = undefined;
  errorRequests(reader, error);
}

/** ReadableStreamReaderGenericCancel. */
function readerCancel(reader, reason) {
  return readableStreamCancel(reader.stream, reason);
}

/** ReadableStreamDefaultReaderRead: one of the request's methods will be called once. */
function readerRead(reader, request) {
  const { stream } = reader;
  stream.disturbed = true;
  if (stream.state === 'closed') request.close();
  else if (stream.state === 'errored') request.error(stream.storedError);
  else stream.controller.pullSteps(request);
}

/** Number of read requests that wait. */
function numReadRequests(stream) {
  const reader = stream.reader;
  return reader === undefined || reader.isByob ? 0 : reader.requests.length;
}

/** The slots of a ReadableStreamDefaultController, and its internal methods. */
class DefaultControllerRecord {
  stream;
  queue = new SizedQueue();
  started = false;
  closeRequested = false;
  pulling = false;
  pullAgain = false;
  highWaterMark;
  sizeAlgorithm;
  pullAlgorithm;
  cancelAlgorithm;
  shell = undefined;

  constructor(stream, pullAlgorithm, cancelAlgorithm, highWaterMark, sizeAlgorithm) {
    this.stream = stream;
    this.pullAlgorithm = pullAlgorithm;
    this.cancelAlgorithm = cancelAlgorithm;
    this.highWaterMark = highWaterMark;
    this.sizeAlgorithm = sizeAlgorithm;
    stream.controller = this;
  }

  /** [[CancelSteps]] */
  cancelSteps(reason) {
    this.queue.reset();
    const { cancelAlgorithm } = this;
    this.clearAlgorithms();
    return cancelAlgorithm?.(reason);
  }

  /** [[PullSteps]] */
  pullSteps(request) {
    const { queue, stream } = this;
    if (queue.isEmpty()) {
      stream.reader.requests.push(request);
      this.callPullIfNeeded();
      return;
    }
    const chunk = queue.dequeue();
    if (this.closeRequested && queue.isEmpty()) {
      this.clearAlgorithms();
      readableStreamClose(stream);
    } else {
      this.callPullIfNeeded();
    }
    request.chunk(chunk);
  }

  /** [[ReleaseSteps]] */
  releaseSteps() {}

  /** ReadableStreamDefaultControllerClearAlgorithms */
  clearAlgorithms() {
    this.pullAlgorithm = undefined;
    this.cancelAlgorithm = undefined;
    this.sizeAlgorithm = undefined;
  }

  /** ReadableStreamDefaultControllerGetDesiredSize */
  desiredSize() {
    const { state } = this.stream;
    if (state === 'errored') return null;
    return state === 'closed' ? 0 : this.highWaterMark - this.queue.totalSize;
  }

  /** ReadableStreamDefaultControllerCanCloseOrEnqueue */
  canCloseOrEnqueue() {
    return !this.closeRequested && this.stream.state === 'readable';
  }

  /** ReadableStreamDefaultControllerShouldCallPull */
  shouldCallPull() {
    if (!this.canCloseOrEnqueue() || !this.started) return false;
    return numReadRequests(this.stream) > 0 || this.desiredSize() > 0;
  }

  /** ReadableStreamDefaultControllerCallPullIfNeeded */
  callPullIfNeeded() {
    if (this.pullAlgorithm === undefined || !this.shouldCallPull()) return;
    if (this.pulling) {
      this.pullAgain = true;
      return;
    }
    this.pulling = true;
    uponPromise(this.pullAlgorithm(this), () => this.pulled(), (error) => this.error(error));
  }

  pulled() {
    this.pulling = false;
    if (!this.pullAgain) return;
    this.pullAgain = false;
    this.callPullIfNeeded();
  }

  /** ReadableStreamDefaultControllerClose */
  close() {
    if (!this.canCloseOrEnqueue()) return;
    this.closeRequested = true;
    if (!this.queue.isEmpty()) return;
    this.clearAlgorithms();
    readableStreamClose(this.stream);
  }

  /** ReadableStreamDefaultControllerEnqueue */
  enqueue(chunk) {
    if (!this.canCloseOrEnqueue()) return;
    const { stream } = this;
    if (numReadRequests(stream) > 0) {
      stream.reader.requests.shift().chunk(chunk);
    } else {
      try {
        const { sizeAlgorithm } = this;
        this.queue.enqueue(chunk, sizeAlgorithm === undefined ? 1 : sizeAlgorithm(chunk));
      } catch (error) {
        this.error(error);
        throw error;
      }
    }
    this.callPullIfNeeded();
  }

  /** ReadableStreamDefaultControllerError */
  error(error) {
    if (this.stream.state !== 'readable') return;
    this.queue.reset();
    this.clearAlgorithms();
    readableStreamError(this.stream, error);
  }
}

/** Marks a controller as started once `startResult`, a promise or undefined, is settled. */
function startController(controller, startResult) {
  uponPromise(startResult, () => {
    controller.started = true;
    controller.callPullIfNeeded();
  }, (error) => controller.error(error));
}

/**
 * CreateReadableStream for built-ins: `pullAlgorithm(controller)` and `cancelAlgorithm(reason)`
 * return a promise or undefined; `startResult` delays the first pull. Returns the record.
 */
function createReadableRecord(pullAlgorithm, cancelAlgorithm, highWaterMark = 1, sizeAlgorithm = undefined, startResult = undefined) {
  const stream = new ReadableStreamRecord();
  const controller = new DefaultControllerRecord(stream, pullAlgorithm, cancelAlgorithm, highWaterMark, sizeAlgorithm);
  startController(controller, startResult);
  return stream;
}

/** ReadableStreamDefaultTee, on records. `clone` makes the second branch's copy of a chunk. */
function readableStreamTee(stream, createBranch, clone) {
  const reader = acquireDefaultReader(stream);
  const cancelCapability = PromiseWithResolvers();
  let reading = false;
  let readAgain = false;
  let firstCanceled = false;
  let secondCanceled = false;
  let firstReason;
  let secondReason;
  let first;
  let second;

  const pull = () => {
    if (reading) {
      readAgain = true;
      return;
    }
    reading = true;
    readerRead(reader, {
      chunk(chunk) {
        // In a microtask, as errors of the source must reach both branches first.
        uponPromise(undefined, () => deliver(chunk));
      },
      close() {
        reading = false;
        if (!firstCanceled) first.controller.close();
        if (!secondCanceled) second.controller.close();
        if (!firstCanceled || !secondCanceled) cancelCapability.resolve();
      },
      error() {
        reading = false;
      },
    });
  };
  const deliver = (chunk) => {
    readAgain = false;
    let copy = chunk;
    if (clone !== undefined && !firstCanceled && !secondCanceled) {
      try {
        copy = clone(chunk);
      } catch (error) {
        first.controller.error(error);
        second.controller.error(error);
        PromisePrototypeThen(readableStreamCancel(stream, error), cancelCapability.resolve, cancelCapability.reject);
        return;
      }
    }
    if (!firstCanceled) first.controller.enqueue(chunk);
    if (!secondCanceled) second.controller.enqueue(copy);
    reading = false;
    if (readAgain) pull();
  };
  const cancelBoth = () => {
    const cancelled = readableStreamCancel(stream, [firstReason, secondReason]);
    PromisePrototypeThen(cancelled, cancelCapability.resolve, cancelCapability.reject);
  };
  first = createBranch(pull, (reason) => {
    firstCanceled = true;
    firstReason = reason;
    if (secondCanceled) cancelBoth();
    return cancelCapability.promise;
  });
  second = createBranch(pull, (reason) => {
    secondCanceled = true;
    secondReason = reason;
    if (firstCanceled) cancelBoth();
    return cancelCapability.promise;
  });
  PromisePrototypeThen(reader.closed.get(), undefined, (error) => {
    first.controller.error(error);
    second.controller.error(error);
    if (!firstCanceled || !secondCanceled) cancelCapability.resolve();
  });
  return { first, second };
}

/** ReadableStreamFromIterable; returns the record. */
function readableStreamFromIterable(asyncIterable) {
  const iterator = getAsyncIterator(asyncIterable);
  const pull = (controller) =>
    streams.chainPromise(iterator.next(), (result) => {
      if (!internals.webidl.isObject(result)) throw new TypeError("The iterator's result is not an object");
      if (result.done) {
        controller.close();
        return undefined;
      }
      if (iterator.isSync) return PromisePrototypeThen(PromiseResolve(result.value), (value) => controller.enqueue(value));
      controller.enqueue(result.value);
      return undefined;
    });
  return createReadableRecord(pull, (reason) => iterator.return(reason), 0);
}

/** GetIterator(value, async), with promise-returning `next` and `return`. */
function getAsyncIterator(value) {
  let method = value[SymbolAsyncIterator];
  const isSync = method === undefined || method === null;
  if (isSync) method = value[SymbolIterator];
  if (typeof method !== 'function') throw new TypeError("Failed to execute 'from' on 'ReadableStream': Argument 1 is not iterable");
  const iterator = FunctionPrototypeCall(method, value);
  if (!internals.webidl.isObject(iterator)) throw new TypeError('The iterator is not an object');
  const nextMethod = iterator.next;
  return {
    isSync,
    next: () => streams.promiseCall(nextMethod, iterator),
    return(reason) {
      let returnMethod;
      try {
        returnMethod = iterator.return;
      } catch (error) {
        return PromiseReject(error);
      }
      if (returnMethod === undefined || returnMethod === null) return undefined;
      return PromisePrototypeThen(streams.promiseCall(returnMethod, iterator, reason), (result) => {
        if (!internals.webidl.isObject(result)) throw new TypeError("The result of the iterator's 'return' is not an object");
      });
    },
  };
}

streams.readable = {
  ReadableStreamRecord,
  ReaderRecord,
  RequestQueue,
  PromiseReadRequest,
  DefaultControllerRecord,
  acquireDefaultReader,
  readableStreamCancel,
  readableStreamClose,
  readableStreamError,
  errorRequests,
  readerRelease,
  readerCancel,
  readerRead,
  numReadRequests,
  startController,
  createReadableRecord,
  readableStreamTee,
  readableStreamFromIterable,
};
