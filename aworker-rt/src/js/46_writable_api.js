//! WritableStream, WritableStreamDefaultWriter, WritableStreamDefaultController: the public
//! shells around the records. https://streams.spec.whatwg.org/#ws-class

const { FunctionPrototypeCall, ObjectDefineProperty, PromiseReject, PromiseResolve, RangeError, TypeError } = primordials;
const { isObject, requiredArguments, defineInterface, kConstruct } = internals.webidl;
const { streams } = internals;
const { methodOf, promiseCall, convertStrategy, extractHighWaterMark, extractSizeAlgorithm } = streams;
const {
  WritableStreamRecord,
  WriterRecord,
  WritableControllerRecord,
  writableStreamAbort,
  writableStreamClose,
  closeQueuedOrInFlight,
  writerWrite,
  writerRelease,
  writerDesiredSize,
} = streams.writable;

/** The members of an underlying sink, read in the standard's order. */
function convertSink(sink, prefix) {
  if (sink === undefined) return {};
  const abort = methodOf(sink, 'abort', prefix);
  const close = methodOf(sink, 'close', prefix);
  const start = methodOf(sink, 'start', prefix);
  const type = sink.type;
  const write = methodOf(sink, 'write', prefix);
  if (type !== undefined) throw new RangeError(`${prefix}: 'type' is reserved`);
  return { abort, close, start, write };
}

/** SetUpWritableStreamDefaultControllerFromUnderlyingSink. */
function setUpController(stream, sink, { abort, close, start, write }, highWaterMark, sizeAlgorithm) {
  let shell;
  const controller = new WritableControllerRecord(
    stream,
    write === undefined ? undefined : (chunk) => promiseCall(write, sink, chunk, shell),
    close === undefined ? undefined : () => promiseCall(close, sink),
    abort === undefined ? undefined : (reason) => promiseCall(abort, sink, reason),
    highWaterMark,
    sizeAlgorithm,
  );
  shell = new WritableStreamDefaultController(kConstruct, controller);
  let startResult;
  if (start !== undefined) startResult = FunctionPrototypeCall(start, sink, shell);
  controller.start(streams.promiseResolvedWith(startResult));
}

let recordOf, isWritableStream, isWriter;

class WritableStream {
  #record;

  static {
    isWritableStream = (value) => isObject(value) && #record in value;
    recordOf = (stream) => stream.#record;
  }

  constructor(underlyingSink = undefined, strategy = {}) {
    if (underlyingSink === kConstruct) {
      this.#record = strategy;
      strategy.shell = this;
      return;
    }
    const prefix = "Failed to construct 'WritableStream'";
    if (underlyingSink !== undefined && !isObject(underlyingSink)) throw new TypeError(`${prefix}: Argument 1 is not an object`);
    const converted = convertStrategy(strategy, prefix);
    const sink = convertSink(underlyingSink, prefix);
    const record = new WritableStreamRecord();
    record.shell = this;
    this.#record = record;
    const sizeAlgorithm = extractSizeAlgorithm(converted);
    setUpController(record, underlyingSink, sink, extractHighWaterMark(converted, 1), sizeAlgorithm);
  }

  get locked() {
    return this.#record.writer !== undefined;
  }

  abort(reason = undefined) {
    if (!isWritableStream(this)) return PromiseReject(new TypeError('Illegal invocation: not a WritableStream'));
    if (this.#record.writer !== undefined) {
      return PromiseReject(new TypeError("Failed to execute 'abort' on 'WritableStream': the stream is locked"));
    }
    return writableStreamAbort(this.#record, reason);
  }

  close() {
    if (!isWritableStream(this)) return PromiseReject(new TypeError('Illegal invocation: not a WritableStream'));
    const prefix = "Failed to execute 'close' on 'WritableStream'";
    if (this.#record.writer !== undefined) return PromiseReject(new TypeError(`${prefix}: the stream is locked`));
    if (closeQueuedOrInFlight(this.#record)) return PromiseReject(new TypeError(`${prefix}: the stream is closing`));
    return writableStreamClose(this.#record);
  }

  getWriter() {
    return new WritableStreamDefaultWriter(kConstruct, new WriterRecord(this.#record));
  }
}

class WritableStreamDefaultWriter {
  #record;

  static {
    isWriter = (value) => isObject(value) && #record in value;
  }

  constructor(stream, record = undefined) {
    if (stream === kConstruct) {
      this.#record = record;
      return;
    }
    const prefix = "Failed to construct 'WritableStreamDefaultWriter'";
    requiredArguments(arguments.length, 1, prefix);
    if (!isWritableStream(stream)) throw new TypeError(`${prefix}: Argument 1 is not a WritableStream`);
    this.#record = new WriterRecord(recordOf(stream));
  }

  get closed() {
    if (!isWriter(this)) return PromiseReject(new TypeError('Illegal invocation: not a WritableStreamDefaultWriter'));
    return this.#record.closed.get();
  }

  get desiredSize() {
    if (this.#record.stream === undefined) throw new TypeError('The writer has been released');
    return writerDesiredSize(this.#record);
  }

  get ready() {
    if (!isWriter(this)) return PromiseReject(new TypeError('Illegal invocation: not a WritableStreamDefaultWriter'));
    return this.#record.ready.get();
  }

  abort(reason = undefined) {
    if (!isWriter(this)) return PromiseReject(new TypeError('Illegal invocation: not a WritableStreamDefaultWriter'));
    const { stream } = this.#record;
    if (stream === undefined) return PromiseReject(new TypeError('The writer has been released'));
    return writableStreamAbort(stream, reason);
  }

  close() {
    if (!isWriter(this)) return PromiseReject(new TypeError('Illegal invocation: not a WritableStreamDefaultWriter'));
    const { stream } = this.#record;
    if (stream === undefined) return PromiseReject(new TypeError('The writer has been released'));
    if (closeQueuedOrInFlight(stream)) return PromiseReject(new TypeError('The stream is closing'));
    return writableStreamClose(stream);
  }

  releaseLock() {
    if (this.#record.stream !== undefined) writerRelease(this.#record);
  }

  write(chunk = undefined) {
    if (!isWriter(this)) return PromiseReject(new TypeError('Illegal invocation: not a WritableStreamDefaultWriter'));
    if (this.#record.stream === undefined) return PromiseReject(new TypeError('The writer has been released'));
    return writerWrite(this.#record, chunk);
  }
}

class WritableStreamDefaultController {
  #record;

  constructor(token = undefined, record = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'WritableStreamDefaultController': Illegal constructor");
    this.#record = record;
    record.shell = this;
  }

  get signal() {
    return this.#record.signal();
  }

  error(e = undefined) {
    const record = this.#record;
    if (record.stream.state === 'writable') record.error(e);
  }
}

defineInterface(WritableStream);
defineInterface(WritableStreamDefaultWriter);
defineInterface(WritableStreamDefaultController);
ObjectDefineProperty(WritableStreamDefaultWriter, 'length', { __proto__: null, value: 1, configurable: true });

streams.WritableStream = WritableStream;
streams.WritableStreamDefaultWriter = WritableStreamDefaultWriter;
streams.WritableStreamDefaultController = WritableStreamDefaultController;
streams.isWritableStream = isWritableStream;
/** The record of a public WritableStream. */
streams.writableRecordOf = recordOf;
/** The public WritableStream of a record. */
streams.writableShellOf = (record) => record.shell ?? new WritableStream(kConstruct, record);
