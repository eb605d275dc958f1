//! ReadableStream, ReadableStreamDefaultReader, ReadableStreamDefaultController: the public
//! shells around the records. https://streams.spec.whatwg.org/#rs-class

const {
  AsyncIteratorPrototype,
  FunctionPrototypeCall,
  ObjectCreate,
  ObjectDefineProperties,
  ObjectSetPrototypeOf,
  PromisePrototypeThen,
  PromiseReject,
  PromiseResolve,
  RangeError,
  SymbolAsyncIterator,
  TypeError,
} = primordials;
const { converters, enumConverter, isObject, requiredArguments, defineInterface, defineToStringTag, defineHidden, kConstruct } =
  internals.webidl;
const { streams } = internals;
const { methodOf, promiseCall, promiseResolvedWith, convertStrategy, extractHighWaterMark, extractSizeAlgorithm } = streams;
const {
  ReadableStreamRecord,
  PromiseReadRequest,
  DefaultControllerRecord,
  acquireDefaultReader,
  readableStreamCancel,
  readerRelease,
  readerCancel,
  readerRead,
  startController,
  readableStreamTee,
  readableStreamFromIterable,
} = streams.readable;

const toReaderMode = enumConverter('ReadableStreamReaderMode', ['byob']);
const toType = enumConverter('ReadableStreamType', ['bytes']);

/** The members of an underlying source, read in the standard's order. */
function convertSource(source, prefix) {
  if (source === undefined) return { type: undefined };
  if (!isObject(source)) throw new TypeError(`${prefix}: Argument 1 is not an object`);
  const size = source.autoAllocateChunkSize;
  const autoAllocateChunkSize =
    size === undefined ? undefined : converters.unsignedLongLong(size, prefix, "'autoAllocateChunkSize'", 'EnforceRange');
  const cancel = methodOf(source, 'cancel', prefix);
  const pull = methodOf(source, 'pull', prefix);
  const start = methodOf(source, 'start', prefix);
  const type = source.type;
  return {
    autoAllocateChunkSize, cancel, pull, start, type: type === undefined ? undefined : toType(type, prefix, "'type'"),
  };
}

/** SetUpReadableStreamDefaultControllerFromUnderlyingSource. */
function setUpDefaultController(stream, source, { cancel, pull, start }, highWaterMark, sizeAlgorithm) {
  let shell;
  const controller = new DefaultControllerRecord(
    stream,
    pull === undefined ? undefined : () => promiseCall(pull, source, shell),
    cancel === undefined ? undefined : (reason) => promiseCall(cancel, source, reason),
    highWaterMark,
    sizeAlgorithm,
  );
  shell = new ReadableStreamDefaultController(kConstruct, controller);
  let startResult;
  if (start !== undefined) startResult = FunctionPrototypeCall(start, source, shell);
  startController(controller, promiseResolvedWith(startResult));
}

// Set by static blocks: the records within public objects.
let recordOf, isReadableStream, readerRecordOf, isDefaultReader;

class ReadableStream {
  #record;

  static {
    isReadableStream = (value) => isObject(value) && #record in value;
    recordOf = (stream) => stream.#record;
  }

  constructor(underlyingSource = undefined, strategy = {}) {
    if (underlyingSource === kConstruct) {
      this.#record = strategy;
      strategy.shell = this;
      return;
    }
    const prefix = "Failed to construct 'ReadableStream'";
    if (underlyingSource !== undefined && !isObject(underlyingSource)) {
      throw new TypeError(`${prefix}: Argument 1 is not an object`);
    }
    const converted = convertStrategy(strategy, prefix);
    const source = convertSource(underlyingSource, prefix);
    const record = new ReadableStreamRecord();
    record.shell = this;
    this.#record = record;
    if (source.type === 'bytes') {
      if (converted.size !== undefined) throw new RangeError(`${prefix}: a byte stream's strategy has no 'size'`);
      streams.byte.setUpFromUnderlyingSource(record, underlyingSource, source, extractHighWaterMark(converted, 0));
    } else {
      const sizeAlgorithm = extractSizeAlgorithm(converted);
      setUpDefaultController(record, underlyingSource, source, extractHighWaterMark(converted, 1), sizeAlgorithm);
    }
  }

  static from(asyncIterable) {
    const prefix = "Failed to execute 'from' on 'ReadableStream'";
    requiredArguments(arguments.length, 1, prefix);
    if (asyncIterable === undefined || asyncIterable === null) throw new TypeError(`${prefix}: Argument 1 is not iterable`);
    return shellOf(readableStreamFromIterable(asyncIterable));
  }

  get locked() {
    return this.#record.reader !== undefined;
  }

  cancel(reason = undefined) {
    if (!isReadableStream(this)) return PromiseReject(new TypeError('Illegal invocation: not a ReadableStream'));
    if (this.#record.reader !== undefined) {
      return PromiseReject(new TypeError("Failed to execute 'cancel' on 'ReadableStream': the stream is locked"));
    }
    return readableStreamCancel(this.#record, reason);
  }

  getReader(options = undefined) {
    const record = this.#record;
    const prefix = "Failed to execute 'getReader' on 'ReadableStream'";
    if (options !== undefined && options !== null && !isObject(options)) {
      throw new TypeError(`${prefix}: Argument 1 is not an object`);
    }
    const mode = options?.mode;
    if (mode === undefined) return new ReadableStreamDefaultReader(kConstruct, acquireDefaultReader(record));
    toReaderMode(mode, prefix, "'mode'");
    return streams.byte.acquireBYOBReaderShell(record);
  }

  pipeThrough(transform, options = {}) {
    const record = this.#record;
    const prefix = "Failed to execute 'pipeThrough' on 'ReadableStream'";
    requiredArguments(arguments.length, 1, prefix);
    if (!isObject(transform)) throw new TypeError(`${prefix}: Argument 1 is not an object`);
    const readable = transform.readable;
    if (!isReadableStream(readable)) throw new TypeError(`${prefix}: 'readable' is not a ReadableStream`);
    const writable = transform.writable;
    if (!streams.isWritableStream(writable)) throw new TypeError(`${prefix}: 'writable' is not a WritableStream`);
    const converted = streams.convertPipeOptions(options, prefix);
    if (record.reader !== undefined) throw new TypeError(`${prefix}: the readable stream is locked`);
    const destination = streams.writableRecordOf(writable);
    if (destination.writer !== undefined) throw new TypeError(`${prefix}: the writable stream is locked`);
    primordials.setPromiseHandled(streams.readableStreamPipeTo(record, destination, converted));
    return readable;
  }

  pipeTo(destination, options = {}) {
    const prefix = "Failed to execute 'pipeTo' on 'ReadableStream'";
    try {
      const record = this.#record;
      requiredArguments(arguments.length, 1, prefix);
      if (!streams.isWritableStream(destination)) throw new TypeError(`${prefix}: Argument 1 is not a WritableStream`);
      const converted = streams.convertPipeOptions(options, prefix);
      if (record.reader !== undefined) throw new TypeError(`${prefix}: the readable stream is locked`);
      const sink = streams.writableRecordOf(destination);
      if (sink.writer !== undefined) throw new TypeError(`${prefix}: the writable stream is locked`);
      return streams.readableStreamPipeTo(record, sink, converted);
    } catch (error) {
      return PromiseReject(error);
    }
  }

  tee() {
    const { first, second } = teeRecord(this.#record, false);
    return [shellOf(first), shellOf(second)];
  }

  values(options = undefined) {
    const record = this.#record;
    const prefix = "Failed to execute 'values' on 'ReadableStream'";
    if (options !== undefined && options !== null && !isObject(options)) {
      throw new TypeError(`${prefix}: Argument 1 is not an object`);
    }
    const preventCancel = !!options?.preventCancel;
    return new StreamIterator(acquireDefaultReader(record), preventCancel);
  }
}

/** The public object of a record. */
function shellOf(record) {
  return record.shell ?? new ReadableStream(kConstruct, record);
}

/** ReadableStreamTee. With `clone`, the second branch gets copies of the chunks. */
function teeRecord(record, clone) {
  if (record.controller.isByte) return streams.byte.tee(record);
  return readableStreamTee(record, (pull, cancel) => streams.readable.createReadableRecord(pull, cancel),
    clone ? cloneForBranch : undefined);
}

/** A structured clone; of a Uint8Array, what bodies are made of, without the rest of its buffer. */
function cloneForBranch(chunk) {
  const isBytes = primordials.ArrayBufferIsView(chunk) && primordials.TypedArrayPrototypeGetSymbolToStringTag(chunk) === 'Uint8Array';
  return isBytes ? streams.byte.cloneChunk(chunk) : internals.structuredClone(chunk);
}

const asyncIteratorPrototype = ObjectCreate(AsyncIteratorPrototype);

/** https://streams.spec.whatwg.org/#rs-asynciterator; requests are answered in turn. */
class StreamIterator {
  #reader;
  #preventCancel;
  #ongoing = undefined;
  #finished = false;

  constructor(reader, preventCancel) {
    this.#reader = reader;
    this.#preventCancel = preventCancel;
    ObjectSetPrototypeOf(this, asyncIteratorPrototype);
  }

  static isIterator(value) {
    return isObject(value) && #finished in value;
  }

  static next(iterator) {
    return iterator.#chain(() => iterator.#readNext());
  }

  static return(iterator, value) {
    // A result of `next` reaches its promise a microtask after the read.
    const ongoing = iterator.#ongoing;
    if (ongoing !== undefined) iterator.#ongoing = PromisePrototypeThen(ongoing, undefined, () => {});
    return iterator.#chain(() => iterator.#finish(value));
  }

  #chain(steps) {
    this.#ongoing = this.#ongoing === undefined ? steps() : streams.chainPromise(this.#ongoing, steps, steps);
    return this.#ongoing;
  }

  #readNext() {
    if (this.#finished) return PromiseResolve({ value: undefined, done: true });
    const reader = this.#reader;
    const request = new PromiseReadRequest();
    const { close, error } = { close: request.close, error: request.error };
    request.close = () => {
      this.#finished = true;
      readerRelease(reader);
      FunctionPrototypeCall(close, request);
    };
    request.error = (reason) => {
      this.#finished = true;
      readerRelease(reader);
      FunctionPrototypeCall(error, request, reason);
    };
    readerRead(reader, request);
    return request.capability.promise;
  }

  #finish(value) {
    if (this.#finished) return PromiseResolve({ value, done: true });
    this.#finished = true;
    const reader = this.#reader;
    if (this.#preventCancel) {
      readerRelease(reader);
      return PromiseResolve({ value, done: true });
    }
    const result = readerCancel(reader, value);
    readerRelease(reader);
    return PromisePrototypeThen(result, () => ({ value, done: true }));
  }
}

const { isIterator, next: iteratorNext, return: iteratorReturn } = StreamIterator;
const iteratorMethods = {
  next() {
    if (!isIterator(this)) return PromiseReject(new TypeError('Illegal invocation: not an iterator of a ReadableStream'));
    return iteratorNext(this);
  },
  return(value) {
    if (!isIterator(this)) return PromiseReject(new TypeError('Illegal invocation: not an iterator of a ReadableStream'));
    return iteratorReturn(this, value);
  },
};
ObjectDefineProperties(asyncIteratorPrototype, {
  next: { __proto__: null, value: iteratorMethods.next, writable: true, enumerable: true, configurable: true },
  return: { __proto__: null, value: iteratorMethods.return, writable: true, enumerable: true, configurable: true },
});
defineToStringTag(asyncIteratorPrototype, 'ReadableStream AsyncIterator');

class ReadableStreamDefaultReader {
  #record;

  static {
    isDefaultReader = (value) => isObject(value) && #record in value;
    readerRecordOf = (reader) => reader.#record;
  }

  constructor(stream, record = undefined) {
    if (stream === kConstruct) {
      this.#record = record;
      return;
    }
    const prefix = "Failed to construct 'ReadableStreamDefaultReader'";
    requiredArguments(arguments.length, 1, prefix);
    if (!isReadableStream(stream)) throw new TypeError(`${prefix}: Argument 1 is not a ReadableStream`);
    this.#record = acquireDefaultReader(recordOf(stream));
  }

  get closed() {
    if (!isDefaultReader(this)) return PromiseReject(new TypeError('Illegal invocation: not a ReadableStreamDefaultReader'));
    return this.#record.awaitClosed();
  }

  cancel(reason = undefined) {
    if (!isDefaultReader(this)) return PromiseReject(new TypeError('Illegal invocation: not a ReadableStreamDefaultReader'));
    if (this.#record.stream === undefined) return PromiseReject(new TypeError('The reader has been released'));
    return readerCancel(this.#record, reason);
  }

  read() {
    if (!isDefaultReader(this)) return PromiseReject(new TypeError('Illegal invocation: not a ReadableStreamDefaultReader'));
    if (this.#record.stream === undefined) return PromiseReject(new TypeError('The reader has been released'));
    const request = new PromiseReadRequest();
    readerRead(this.#record, request);
    return request.capability.promise;
  }

  releaseLock() {
    if (this.#record.stream !== undefined) readerRelease(this.#record);
  }
}

class ReadableStreamDefaultController {
  #record;

  constructor(token = undefined, record = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'ReadableStreamDefaultController': Illegal constructor");
    this.#record = record;
    record.shell = this;
  }

  get desiredSize() {
    return this.#record.desiredSize();
  }

  close() {
    if (!this.#record.canCloseOrEnqueue()) throw new TypeError('The stream is closed, errored or about to close');
    this.#record.close();
  }

  enqueue(chunk = undefined) {
    if (!this.#record.canCloseOrEnqueue()) throw new TypeError('The stream is closed, errored or about to close');
    this.#record.enqueue(chunk);
  }

  error(e = undefined) {
    this.#record.error(e);
  }
}

defineInterface(ReadableStream);
defineHidden(ReadableStream.prototype, SymbolAsyncIterator, ReadableStream.prototype.values);
defineInterface(ReadableStreamDefaultReader);
defineInterface(ReadableStreamDefaultController);
primordials.ObjectDefineProperty(ReadableStreamDefaultReader, 'length', { __proto__: null, value: 1, configurable: true });

streams.ReadableStream = ReadableStream;
streams.ReadableStreamDefaultReader = ReadableStreamDefaultReader;
streams.ReadableStreamDefaultController = ReadableStreamDefaultController;
streams.isReadableStream = isReadableStream;
/** The record of a public ReadableStream. */
streams.readableRecordOf = recordOf;
/** The public ReadableStream of a record. */
streams.readableShellOf = shellOf;
streams.teeRecord = teeRecord;
