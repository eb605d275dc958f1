//! The abstract operations of writable streams, their writers and controllers.
//! https://streams.spec.whatwg.org/#ws-abstract-ops
//!
//! ```text
//!            error                    no write in flight, started
//! writable ---------> erroring -------------------------------------> errored
//!    |                   ^
//!    | close done        | abort while a write or close is in flight
//!    v                   |
//! closed <---------------+ (the close in flight succeeded)
//! ```

const { PromiseReject, PromiseResolve, PromiseWithResolvers, TypeError } = primordials;
const { streams } = internals;
const { SizedQueue, LazyPromise, uponPromise } = streams;
const { RequestQueue } = streams.readable;

/** In the queue, stands for "close". */
const closeSentinel = { __proto__: null };

/** The slots of a WritableStream. */
class WritableStreamRecord {
  state = 'writable'; // 'writable', 'erroring', 'errored' or 'closed'
  storedError = undefined;
  writer = undefined;
  controller = undefined;
  backpressure = false;
  /** Capabilities of write(), in order. */
  writeRequests = new RequestQueue();
  inFlightWriteRequest = undefined;
  closeRequest = undefined;
  inFlightCloseRequest = undefined;
  /** `{ capability, reason, wasAlreadyErroring }` */
  pendingAbortRequest = undefined;
  shell = undefined;
}

/** The slots of a WritableStreamDefaultWriter. */
class WriterRecord {
  stream;
  ready;
  closed;

  constructor(stream) {
    if (stream.writer !== undefined) throw new TypeError('The stream is locked to a writer');
    this.stream = stream;
    stream.writer = this;
    const { state } = stream;
    if (state === 'writable') {
      const isPressed = !closeQueuedOrInFlight(stream) && stream.backpressure;
      this.ready = isPressed ? new LazyPromise() : LazyPromise.fulfilled();
      this.closed = new LazyPromise();
    } else if (state === 'erroring') {
      this.ready = LazyPromise.rejected(stream.storedError);
      this.closed = new LazyPromise();
    } else if (state === 'closed') {
      this.ready = LazyPromise.fulfilled();
      this.closed = LazyPromise.fulfilled();
    } else {
      this.ready = LazyPromise.rejected(stream.storedError);
      this.closed = LazyPromise.rejected(stream.storedError);
    }
  }

  /** WritableStreamDefaultWriterEnsureReadyPromiseRejected */
  rejectReady(error) {
    if (this.ready.state === 0) this.ready.reject(error);
    else this.ready = LazyPromise.rejected(error);
  }

  /** WritableStreamDefaultWriterEnsureClosedPromiseRejected */
  rejectClosed(error) {
    if (this.closed.state === 0) this.closed.reject(error);
    else this.closed = LazyPromise.rejected(error);
  }
}

/** WritableStreamAbort. */
function writableStreamAbort(stream, reason) {
  if (stream.state === 'closed' || stream.state === 'errored') return PromiseResolve();
  stream.controller.signalAbort(reason);
  const { state } = stream;
  if (state === 'closed' || state === 'errored') return PromiseResolve();
  if (stream.pendingAbortRequest !== undefined) return stream.pendingAbortRequest.capability.promise;
  const wasAlreadyErroring = state === 'erroring';
  const capability = PromiseWithResolvers();
  stream.pendingAbortRequest = { capability, reason: wasAlreadyErroring ? undefined : reason, wasAlreadyErroring };
  if (!wasAlreadyErroring) startErroring(stream, reason);
  return capability.promise;
}

/** WritableStreamClose. */
function writableStreamClose(stream) {
  const { state } = stream;
  if (state === 'closed' || state === 'errored') {
    return PromiseReject(new TypeError(`The stream is ${state} and cannot be closed`));
  }
  const capability = PromiseWithResolvers();
  stream.closeRequest = capability;
  const { writer } = stream;
  if (writer !== undefined && stream.backpressure && state === 'writable') writer.ready.resolve();
  stream.controller.close();
  return capability.promise;
}

/** WritableStreamCloseQueuedOrInFlight. */
function closeQueuedOrInFlight(stream) {
  return stream.closeRequest !== undefined || stream.inFlightCloseRequest !== undefined;
}

/** WritableStreamDealWithRejection. */
function dealWithRejection(stream, error) {
  if (stream.state === 'writable') startErroring(stream, error);
  else finishErroring(stream);
}

/** WritableStreamStartErroring. */
function startErroring(stream, reason) {
  stream.state = 'erroring';
  stream.storedError = reason;
  stream.writer?.rejectReady(reason);
  if (!hasOperationInFlight(stream) && stream.controller.started) finishErroring(stream);
}

function hasOperationInFlight(stream) {
  return stream.inFlightWriteRequest !== undefined || stream.inFlightCloseRequest !== undefined;
}

/** WritableStreamFinishErroring. */
function finishErroring(stream) {
  stream.state = 'errored';
  stream.controller.queue.reset();
  const { storedError, writeRequests } = stream;
  while (writeRequests.length > 0) writeRequests.shift().reject(storedError);
  const abortRequest = stream.pendingAbortRequest;
  if (abortRequest === undefined) {
    rejectCloseAndClosed(stream);
    return;
  }
  stream.pendingAbortRequest = undefined;
  if (abortRequest.wasAlreadyErroring) {
    abortRequest.capability.reject(storedError);
    rejectCloseAndClosed(stream);
    return;
  }
  uponPromise(stream.controller.abortSteps(abortRequest.reason), () => {
    abortRequest.capability.resolve();
    rejectCloseAndClosed(stream);
  }, (error) => {
    abortRequest.capability.reject(error);
    rejectCloseAndClosed(stream);
  });
}

/** WritableStreamRejectCloseAndClosedPromiseIfNeeded. */
function rejectCloseAndClosed(stream) {
  if (stream.closeRequest !== undefined) {
    stream.closeRequest.reject(stream.storedError);
    stream.closeRequest = undefined;
  }
  stream.writer?.closed.reject(stream.storedError);
}

/** WritableStreamFinishInFlightWriteWithError. */
function finishWriteWithError(stream, error) {
  stream.inFlightWriteRequest.reject(error);
  stream.inFlightWriteRequest = undefined;
  dealWithRejection(stream, error);
}

/** WritableStreamFinishInFlightClose. */
function finishClose(stream) {
  stream.inFlightCloseRequest.resolve();
  stream.inFlightCloseRequest = undefined;
  if (stream.state === 'erroring') {
    stream.storedError = undefined;
    if (stream.pendingAbortRequest !== undefined) {
      stream.pendingAbortRequest.capability.resolve();
      stream.pendingAbortRequest = undefined;
    }
  }
  stream.state = 'closed';
  stream.writer?.closed.resolve();
}

/** WritableStreamFinishInFlightCloseWithError. */
function finishCloseWithError(stream, error) {
  stream.inFlightCloseRequest.reject(error);
  stream.inFlightCloseRequest = undefined;
  if (stream.pendingAbortRequest !== undefined) {
    stream.pendingAbortRequest.capability.reject(error);
    stream.pendingAbortRequest = undefined;
  }
  dealWithRejection(stream, error);
}

/** WritableStreamUpdateBackpressure. */
function updateBackpressure(stream, backpressure) {
  const { writer } = stream;
  if (writer !== undefined && backpressure !== stream.backpressure) {
    if (backpressure) writer.ready = new LazyPromise();
    else writer.ready.resolve();
  }
  stream.backpressure = backpressure;
}

/** WritableStreamDefaultWriterWrite. */
function writerWrite(writer, chunk) {
  const { stream } = writer;
  const { controller } = stream;
  const chunkSize = controller.chunkSize(chunk);
  if (stream !== writer.stream) return PromiseReject(new TypeError('The writer has been released'));
  const { state } = stream;
  if (state === 'errored') return PromiseReject(stream.storedError);
  if (closeQueuedOrInFlight(stream) || state === 'closed') {
    return PromiseReject(new TypeError('The stream is closed or closing: nothing can be written'));
  }
  if (state === 'erroring') return PromiseReject(stream.storedError);
  const capability = PromiseWithResolvers();
  stream.writeRequests.push(capability);
  controller.write(chunk, chunkSize);
  return capability.promise;
}

/** WritableStreamDefaultWriterRelease. */
function writerRelease(writer) {
  const { stream } = writer;
  const error = new TypeError('The writer has released its lock on the stream');
  writer.rejectReady(error);
  writer.rejectClosed(error);
  stream.writer = undefined;
  writer.stream = undefined;
}

/** WritableStreamDefaultWriterGetDesiredSize. */
function writerDesiredSize(writer) {
  const { state, controller } = writer.stream;
  if (state === 'errored' || state === 'erroring') return null;
  return state === 'closed' ? 0 : controller.desiredSize();
}

/** WritableStreamDefaultWriterCloseWithErrorPropagation. */
function writerCloseWithErrorPropagation(writer) {
  const { stream } = writer;
  if (closeQueuedOrInFlight(stream) || stream.state === 'closed') return PromiseResolve();
  if (stream.state === 'errored') return PromiseReject(stream.storedError);
  return writableStreamClose(stream);
}

/** The slots of a WritableStreamDefaultController, and its internal methods. */
class WritableControllerRecord {
  stream;
  queue = new SizedQueue();
  started = false;
  highWaterMark;
  sizeAlgorithm;
  writeAlgorithm;
  closeAlgorithm;
  abortAlgorithm;
  /** Made when first asked for, or when the stream is aborted. */
  abortSignal = undefined;
  shell = undefined;

  constructor(stream, writeAlgorithm, closeAlgorithm, abortAlgorithm, highWaterMark, sizeAlgorithm) {
    this.stream = stream;
    this.writeAlgorithm = writeAlgorithm;
    this.closeAlgorithm = closeAlgorithm;
    this.abortAlgorithm = abortAlgorithm;
    this.highWaterMark = highWaterMark;
    this.sizeAlgorithm = sizeAlgorithm;
    stream.controller = this;
    updateBackpressure(stream, this.desiredSize() <= 0);
  }

  /** The rest of SetUpWritableStreamDefaultController. */
  start(startResult) {
    uponPromise(startResult, () => {
      this.started = true;
      this.advanceQueueIfNeeded();
    }, (error) => {
      this.started = true;
      dealWithRejection(this.stream, error);
    });
  }

  signal() {
    return (this.abortSignal ??= internals.abort.createSignal());
  }

  signalAbort(reason) {
    internals.abort.signalAbort(this.signal(), reason);
  }

  /** [[AbortSteps]] */
  abortSteps(reason) {
    const { abortAlgorithm } = this;
    this.clearAlgorithms();
    return abortAlgorithm?.(reason);
  }

  clearAlgorithms() {
    this.writeAlgorithm = undefined;
    this.closeAlgorithm = undefined;
    this.abortAlgorithm = undefined;
    this.sizeAlgorithm = undefined;
  }

  desiredSize() {
    return this.highWaterMark - this.queue.totalSize;
  }

  /** WritableStreamDefaultControllerGetChunkSize */
  chunkSize(chunk) {
    const { sizeAlgorithm } = this;
    if (sizeAlgorithm === undefined) return 1;
    try {
      return sizeAlgorithm(chunk);
    } catch (error) {
      this.errorIfNeeded(error);
      return 1;
    }
  }

  /** WritableStreamDefaultControllerWrite */
  write(chunk, chunkSize) {
    try {
      this.queue.enqueue({ chunk }, chunkSize);
    } catch (error) {
      this.errorIfNeeded(error);
      return;
    }
    const { stream } = this;
    if (!closeQueuedOrInFlight(stream) && stream.state === 'writable') updateBackpressure(stream, this.desiredSize() <= 0);
    this.advanceQueueIfNeeded();
  }

  /** WritableStreamDefaultControllerClose */
  close() {
    this.queue.enqueue(closeSentinel, 0);
    this.advanceQueueIfNeeded();
  }

  /** WritableStreamDefaultControllerErrorIfNeeded */
  errorIfNeeded(error) {
    if (this.stream.state === 'writable') this.error(error);
  }

  /** WritableStreamDefaultControllerError */
  error(error) {
    this.clearAlgorithms();
    startErroring(this.stream, error);
  }

  /** WritableStreamDefaultControllerAdvanceQueueIfNeeded */
  advanceQueueIfNeeded() {
    const { stream, queue } = this;
    if (!this.started || stream.inFlightWriteRequest !== undefined) return;
    if (stream.state === 'erroring') {
      finishErroring(stream);
      return;
    }
    if (queue.isEmpty()) return;
    const value = queue.peek();
    if (value === closeSentinel) this.processClose();
    else this.processWrite(value.chunk);
  }

  processClose() {
    const { stream } = this;
    stream.inFlightCloseRequest = stream.closeRequest;
    stream.closeRequest = undefined;
    this.queue.dequeue();
    const { closeAlgorithm } = this;
    const sinkClosed = closeAlgorithm?.();
    this.clearAlgorithms();
    uponPromise(sinkClosed, () => finishClose(stream), (error) => finishCloseWithError(stream, error));
  }

  processWrite(chunk) {
    const { stream } = this;
    stream.inFlightWriteRequest = stream.writeRequests.shift();
    uponPromise(this.writeAlgorithm?.(chunk, this), () => this.written(), (error) => {
      if (stream.state === 'writable') this.clearAlgorithms();
      finishWriteWithError(stream, error);
    });
  }

  written() {
    const { stream } = this;
    stream.inFlightWriteRequest.resolve();
    stream.inFlightWriteRequest = undefined;
    this.queue.dequeue();
    if (!closeQueuedOrInFlight(stream) && stream.state === 'writable') updateBackpressure(stream, this.desiredSize() <= 0);
    this.advanceQueueIfNeeded();
  }
}

/**
 * CreateWritableStream for built-ins: the algorithms return a promise or undefined.
 * Returns the record.
 */
function createWritableRecord(writeAlgorithm, closeAlgorithm, abortAlgorithm, highWaterMark = 1, sizeAlgorithm = undefined, startResult = undefined) {
  const stream = new WritableStreamRecord();
  const controller = new WritableControllerRecord(
    stream, writeAlgorithm, closeAlgorithm, abortAlgorithm, highWaterMark, sizeAlgorithm,
  );
  controller.start(startResult);
  return stream;
}

streams.writable = {
  WritableStreamRecord,
  WriterRecord,
  WritableControllerRecord,
  createWritableRecord,
  writableStreamAbort,
  writableStreamClose,
  closeQueuedOrInFlight,
  writerWrite,
  writerRelease,
  writerDesiredSize,
  writerCloseWithErrorPropagation,
};
