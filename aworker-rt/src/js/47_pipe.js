//! ReadableStreamPipeTo. https://streams.spec.whatwg.org/#readable-stream-pipe-to

const { PromisePrototypeThen, PromiseResolve, PromiseWithResolvers, TypeError } = primordials;
const { isObject } = internals.webidl;
const { streams } = internals;
const { uponPromise } = streams;
const { acquireDefaultReader, readableStreamCancel, readerRelease, readerRead } = streams.readable;
const {
  WriterRecord,
  writableStreamAbort,
  closeQueuedOrInFlight,
  writerWrite,
  writerRelease,
  writerDesiredSize,
  writerCloseWithErrorPropagation,
} = streams.writable;

/** The members of StreamPipeOptions. */
function convertPipeOptions(options, prefix) {
  if (options === undefined || options === null) return { preventAbort: false, preventCancel: false, preventClose: false, signal: undefined };
  if (!isObject(options)) throw new TypeError(`${prefix}: the options are not an object`);
  const preventAbort = !!options.preventAbort;
  const preventCancel = !!options.preventCancel;
  const preventClose = !!options.preventClose;
  const { signal } = options;
  if (signal !== undefined && !internals.abort.isAbortSignal(signal)) {
    throw new TypeError(`${prefix}: 'signal' is not an AbortSignal`);
  }
  return { preventAbort, preventCancel, preventClose, signal };
}

/** Pipes one record into another; the promise settles when the pipe has shut down. */
function readableStreamPipeTo(source, dest, { preventAbort, preventCancel, preventClose, signal }) {
  const capability = PromiseWithResolvers();
  const reader = acquireDefaultReader(source);
  const writer = new WriterRecord(dest);
  source.disturbed = true;
  let shuttingDown = false;
  let reading = false;
  /** Whether a chunk has been read and not yet been written. */
  let chunkInHand = false;
  /** Settles when everything written so far has been dealt with. */
  let lastWrite = PromiseResolve();
  let abortAlgorithm;

  const finalize = (isError, error) => {
    writerRelease(writer);
    readerRelease(reader);
    if (signal !== undefined) internals.abort.removeAlgorithm(signal, abortAlgorithm);
    if (isError) capability.reject(error);
    else capability.resolve();
  };
  const whenWritten = (steps) => {
    // Chunks that were read must reach the destination first, if it still takes them.
    if (dest.state === 'writable' && !closeQueuedOrInFlight(dest)) waitForWrites(steps);
    else steps();
  };
  const waitForWrites = (steps) => {
    if (chunkInHand) {
      uponPromise(undefined, () => waitForWrites(steps));
      return;
    }
    const seen = lastWrite;
    const next = () => (seen === lastWrite ? steps() : waitForWrites(steps));
    uponPromise(seen, next, next);
  };
  const shutdownWithAction = (action, isError, error) => {
    if (shuttingDown) return;
    shuttingDown = true;
    whenWritten(() => uponPromise(action(), () => finalize(isError, error), (newError) => finalize(true, newError)));
  };
  const shutdown = (isError, error) => {
    if (shuttingDown) return;
    shuttingDown = true;
    whenWritten(() => finalize(isError, error));
  };

  if (signal !== undefined) {
    abortAlgorithm = () => {
      const reason = internals.abort.abortReason(signal);
      shutdownWithAction(() => abortBoth(source, dest, reason, preventAbort, preventCancel), true, reason);
    };
    if (internals.abort.isAborted(signal)) {
      abortAlgorithm();
      return capability.promise;
    }
    internals.abort.addAlgorithm(signal, abortAlgorithm);
  }

  // Errors and closing propagate, in the standard's order.
  const sourceErrored = (error) => {
    if (preventAbort) shutdown(true, error);
    else shutdownWithAction(() => writableStreamAbort(dest, error), true, error);
  };
  const destErrored = (error) => {
    if (preventCancel) shutdown(true, error);
    else shutdownWithAction(() => readableStreamCancel(source, error), true, error);
  };
  const sourceClosed = () => {
    if (preventClose) shutdown(false);
    else shutdownWithAction(() => writerCloseWithErrorPropagation(writer), false);
  };
  if (source.state === 'errored') sourceErrored(source.storedError);
  else PromisePrototypeThen(reader.closed.get(), undefined, sourceErrored);
  if (dest.state === 'errored') destErrored(dest.storedError);
  else PromisePrototypeThen(writer.closed.get(), undefined, destErrored);
  if (source.state === 'closed') sourceClosed();
  else PromisePrototypeThen(reader.closed.get(), sourceClosed, () => {});
  if (closeQueuedOrInFlight(dest) || dest.state === 'closed') {
    const error = new TypeError('The destination is closed or closing: nothing can be piped into it');
    if (preventCancel) shutdown(true, error);
    else shutdownWithAction(() => readableStreamCancel(source, error), true, error);
  }

  const request = {
    chunk(chunk) {
      reading = false;
      chunkInHand = true;
      // In a microtask: the chunk must not be written within the source's enqueue().
      uponPromise(undefined, () => {
        chunkInHand = false;
        lastWrite = PromisePrototypeThen(writerWrite(writer, chunk), undefined, () => {});
        step();
      });
    },
    close() {
      reading = false;
    },
    error() {
      reading = false;
    },
  };
  const step = () => {
    if (shuttingDown || reading || chunkInHand) return;
    if (dest.state !== 'writable' || closeQueuedOrInFlight(dest)) return;
    if (writerDesiredSize(writer) <= 0) {
      uponPromise(writer.ready.get(), step, () => {});
      return;
    }
    reading = true;
    readerRead(reader, request);
  };
  step();
  return capability.promise;
}

/** What an aborted signal does to both ends; settles when both are done. */
function abortBoth(source, dest, reason, preventAbort, preventCancel) {
  const actions = [];
  if (!preventAbort) {
    actions[actions.length] = dest.state === 'writable' ? writableStreamAbort(dest, reason) : PromiseResolve();
  }
  if (!preventCancel) {
    actions[actions.length] = source.state === 'readable' ? readableStreamCancel(source, reason) : PromiseResolve();
  }
  if (actions.length === 0) return PromiseResolve();
  if (actions.length === 1) return actions[0];
  return streams.chainPromise(
    actions[0],
    () => actions[1],
    (error) => PromisePrototypeThen(actions[1], () => { throw error; }, () => { throw error; }),
  );
}

streams.convertPipeOptions = convertPipeOptions;
streams.readableStreamPipeTo = readableStreamPipeTo;
