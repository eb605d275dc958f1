//! TransformStream. https://streams.spec.whatwg.org/#ts

const { FunctionPrototypeCall, PromisePrototypeThen, PromiseResolve, PromiseWithResolvers, RangeError, TypeError } =
  primordials;
const { isObject, defineInterface, kConstruct } = internals.webidl;
const { streams } = internals;
const { methodOf, promiseCall, promiseResolvedWith, chainPromise, convertStrategy, extractHighWaterMark, extractSizeAlgorithm } = streams;
const { createReadableRecord } = streams.readable;
const { createWritableRecord } = streams.writable;

/**
 * The slots of a TransformStream and of its controller. The algorithms, all optional, return a
 * promise or undefined: transform(chunk, transformer), flush(transformer), cancel(reason).
 */
class TransformRecord {
  readable;
  writable;
  backpressure = undefined;
  backpressureChange = undefined;
  transformAlgorithm;
  flushAlgorithm;
  cancelAlgorithm;
  /** Set when the stream is being finished: by cancel, abort or close. */
  finishPromise = undefined;
  shell = undefined;

  /** InitializeTransformStream. */
  constructor(startPromise, writableHighWaterMark, writableSize, readableHighWaterMark, readableSize) {
    this.writable = createWritableRecord(
      (chunk) => this.sinkWrite(chunk),
      () => this.sinkClose(),
      (reason) => this.sinkAbort(reason),
      writableHighWaterMark,
      writableSize,
      promiseResolvedWith(startPromise),
    );
    this.readable = createReadableRecord(
      () => this.sourcePull(),
      (reason) => this.sourceCancel(reason),
      readableHighWaterMark,
      readableSize,
      promiseResolvedWith(startPromise),
    );
    this.setBackpressure(true);
  }

  /** TransformStreamSetBackpressure */
  setBackpressure(backpressure) {
    this.backpressureChange?.resolve();
    this.backpressureChange = PromiseWithResolvers();
    this.backpressure = backpressure;
  }

  /** TransformStreamError */
  error(error) {
    this.readable.controller.error(error);
    this.errorWritableAndUnblockWrite(error);
  }

  errorWritableAndUnblockWrite(error) {
    this.clearAlgorithms();
    this.writable.controller.errorIfNeeded(error);
    this.unblockWrite();
  }

  unblockWrite() {
    if (this.backpressure) this.setBackpressure(false);
  }

  clearAlgorithms() {
    this.transformAlgorithm = undefined;
    this.flushAlgorithm = undefined;
    this.cancelAlgorithm = undefined;
  }

  /** TransformStreamDefaultControllerEnqueue */
  enqueue(chunk) {
    const { readable } = this;
    const { controller } = readable;
    if (!controller.canCloseOrEnqueue()) throw new TypeError('The readable side is closed, errored or about to close');
    try {
      controller.enqueue(chunk);
    } catch (error) {
      this.errorWritableAndUnblockWrite(error);
      throw readable.storedError;
    }
    const backpressure = !controller.shouldCallPull();
    if (backpressure !== this.backpressure) this.setBackpressure(true);
  }

  /** TransformStreamDefaultControllerTerminate */
  terminate() {
    this.readable.controller.close();
    this.errorWritableAndUnblockWrite(new TypeError('The transform stream has been terminated'));
  }

  /** TransformStreamDefaultControllerPerformTransform */
  performTransform(chunk) {
    const { transformAlgorithm } = this;
    if (transformAlgorithm === undefined) return undefined;
    return PromisePrototypeThen(PromiseResolve(transformAlgorithm(chunk, this)), undefined, (error) => {
      this.error(error);
      throw error;
    });
  }

  /** TransformStreamDefaultSinkWriteAlgorithm */
  sinkWrite(chunk) {
    if (!this.backpressure) return this.performTransform(chunk);
    return chainPromise(this.backpressureChange.promise, () => {
      const { writable } = this;
      if (writable.state === 'erroring') throw writable.storedError;
      return this.performTransform(chunk);
    });
  }

  /** TransformStreamDefaultSinkAbortAlgorithm */
  sinkAbort(reason) {
    if (this.finishPromise !== undefined) return this.finishPromise.promise;
    const { readable } = this;
    const finish = (this.finishPromise = PromiseWithResolvers());
    const cancelPromise = this.runCancel(reason);
    PromisePrototypeThen(cancelPromise, () => {
      if (readable.state === 'errored') {
        finish.reject(readable.storedError);
      } else {
        readable.controller.error(reason);
        finish.resolve();
      }
    }, (error) => {
      readable.controller.error(error);
      finish.reject(error);
    });
    return finish.promise;
  }

  runCancel(reason) {
    const { cancelAlgorithm } = this;
    const result = cancelAlgorithm?.(reason);
    this.clearAlgorithms();
    return result === undefined ? PromiseResolve() : result;
  }

  /** TransformStreamDefaultSinkCloseAlgorithm */
  sinkClose() {
    if (this.finishPromise !== undefined) return this.finishPromise.promise;
    const { readable } = this;
    const finish = (this.finishPromise = PromiseWithResolvers());
    const { flushAlgorithm } = this;
    const result = flushAlgorithm?.(this);
    this.clearAlgorithms();
    PromisePrototypeThen(result === undefined ? PromiseResolve() : result, () => {
      if (readable.state === 'errored') {
        finish.reject(readable.storedError);
      } else {
        readable.controller.close();
        finish.resolve();
      }
    }, (error) => {
      readable.controller.error(error);
      finish.reject(error);
    });
    return finish.promise;
  }

  /** TransformStreamDefaultSourcePullAlgorithm */
  sourcePull() {
    this.setBackpressure(false);
    return this.backpressureChange.promise;
  }

  /** TransformStreamDefaultSourceCancelAlgorithm */
  sourceCancel(reason) {
    if (this.finishPromise !== undefined) return this.finishPromise.promise;
    const { writable } = this;
    const finish = (this.finishPromise = PromiseWithResolvers());
    PromisePrototypeThen(this.runCancel(reason), () => {
      if (writable.state === 'errored') {
        finish.reject(writable.storedError);
      } else {
        writable.controller.errorIfNeeded(reason);
        this.unblockWrite();
        finish.resolve();
      }
    }, (error) => {
      writable.controller.errorIfNeeded(error);
      this.unblockWrite();
      finish.reject(error);
    });
    return finish.promise;
  }
}

/** A TransformStream of built-ins: `transform(chunk, record)` and `flush(record)` may throw. */
function createTransformRecord(transform, flush, cancel = undefined) {
  const record = new TransformRecord(undefined, 1, undefined, 0, undefined);
  record.transformAlgorithm = (chunk) => promiseCall(transform, undefined, chunk, record);
  record.flushAlgorithm = () => promiseCall(flush, undefined, record);
  if (cancel !== undefined) record.cancelAlgorithm = (reason) => promiseCall(cancel, undefined, reason);
  return record;
}

/** The members of a transformer, read in the standard's order. */
function convertTransformer(transformer, prefix) {
  if (transformer === undefined) return {};
  const cancel = methodOf(transformer, 'cancel', prefix);
  const flush = methodOf(transformer, 'flush', prefix);
  const readableType = transformer.readableType;
  const start = methodOf(transformer, 'start', prefix);
  const transform = methodOf(transformer, 'transform', prefix);
  const writableType = transformer.writableType;
  if (readableType !== undefined) throw new RangeError(`${prefix}: 'readableType' is reserved`);
  if (writableType !== undefined) throw new RangeError(`${prefix}: 'writableType' is reserved`);
  return { cancel, flush, start, transform };
}

let isTransformStream, recordOf;

class TransformStream {
  /** A TransformRecord, or the two ends of one that was transferred. */
  #record;

  static {
    isTransformStream = (value) => isObject(value) && #record in value;
    recordOf = (stream) => stream.#record;
  }

  constructor(transformer = undefined, writableStrategy = {}, readableStrategy = {}) {
    if (transformer === kConstruct) {
      this.#record = writableStrategy;
      return;
    }
    const prefix = "Failed to construct 'TransformStream'";
    if (transformer !== undefined && !isObject(transformer)) throw new TypeError(`${prefix}: Argument 1 is not an object`);
    const writable = convertStrategy(writableStrategy, prefix);
    const readable = convertStrategy(readableStrategy, prefix);
    const { cancel, flush, start, transform } = convertTransformer(transformer, prefix);
    const readableHighWaterMark = extractHighWaterMark(readable, 0);
    const writableHighWaterMark = extractHighWaterMark(writable, 1);
    const started = PromiseWithResolvers();
    const record = new TransformRecord(
      started.promise,
      writableHighWaterMark,
      extractSizeAlgorithm(writable),
      readableHighWaterMark,
      extractSizeAlgorithm(readable),
    );
    this.#record = record;
    const controller = new TransformStreamDefaultController(kConstruct, record);
    record.transformAlgorithm = transform === undefined
      ? (chunk) => promiseCall(enqueueChunk, record, chunk)
      : (chunk) => promiseCall(transform, transformer, chunk, controller);
    if (flush !== undefined) record.flushAlgorithm = () => promiseCall(flush, transformer, controller);
    if (cancel !== undefined) record.cancelAlgorithm = (reason) => promiseCall(cancel, transformer, reason);
    started.resolve(start === undefined ? undefined : FunctionPrototypeCall(start, transformer, controller));
  }

  get readable() {
    return streams.readableShellOf(this.#record.readable);
  }

  get writable() {
    return streams.writableShellOf(this.#record.writable);
  }
}

/** The default transform: the identity. */
function enqueueChunk(chunk) {
  this.enqueue(chunk);
}

class TransformStreamDefaultController {
  #record;

  constructor(token = undefined, record = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'TransformStreamDefaultController': Illegal constructor");
    this.#record = record;
  }

  get desiredSize() {
    return this.#record.readable.controller.desiredSize();
  }

  enqueue(chunk = undefined) {
    this.#record.enqueue(chunk);
  }

  error(reason = undefined) {
    this.#record.error(reason);
  }

  terminate() {
    this.#record.terminate();
  }
}

defineInterface(TransformStream);
defineInterface(TransformStreamDefaultController);

streams.TransformStream = TransformStream;
streams.TransformStreamDefaultController = TransformStreamDefaultController;
streams.createTransformRecord = createTransformRecord;
streams.isTransformStream = isTransformStream;
/** The record of a public TransformStream: it has `readable` and `writable`. */
streams.transformRecordOf = recordOf;
/** (readable, writable): a public TransformStream of two records. */
streams.transformShellOf = (readable, writable) => new TransformStream(kConstruct, { readable, writable });
