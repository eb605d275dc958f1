//! ReadableStreamBYOBReader, ReadableByteStreamController, ReadableStreamBYOBRequest: the public
//! shells of byte streams. https://streams.spec.whatwg.org/#byob-reader-class

const {
  ArrayBufferIsView,
  ArrayBufferPrototypeGetByteLength,
  ArrayBufferPrototypeGetDetached,
  DataView,
  DataViewPrototypeGetBuffer,
  DataViewPrototypeGetByteLength,
  DataViewPrototypeGetByteOffset,
  FunctionPrototypeCall,
  PromiseReject,
  PromiseResolve,
  RangeError,
  TypeError,
  TypedArrayPrototypeGetBuffer,
  TypedArrayPrototypeGetByteLength,
  TypedArrayPrototypeGetByteOffset,
  TypedArrayPrototypeGetSymbolToStringTag,
} = primordials;
const { converters, isObject, requiredArguments, defineInterface, kConstruct } = internals.webidl;
const { streams } = internals;
const { promiseCall } = streams;
const { PromiseReadRequest, readerRelease, readerCancel, startController } = streams.readable;
const { ByteControllerRecord, acquireBYOBReader, readIntoView } = streams.byte;

/** By name. Float16Array is not there while the built-ins load: it is added on first use. */
const typedArrays = { __proto__: null };

function float16Array() {
  const constructor = internals.lateIntrinsics.Float16Array;
  return (typedArrays.Float16Array = { constructor, elementSize: constructor.BYTES_PER_ELEMENT });
}

for (const name of [
  'Int8Array', 'Uint8Array', 'Uint8ClampedArray', 'Int16Array', 'Uint16Array', 'Int32Array', 'Uint32Array',
  'BigInt64Array', 'BigUint64Array', 'Float32Array', 'Float64Array',
]) {
  const constructor = globalThis[name];
  typedArrays[name] = { constructor, elementSize: constructor.BYTES_PER_ELEMENT };
}

/** What an ArrayBufferView is made of, whatever a user did to its properties. */
streams.viewParts = (view) => {
  const type = TypedArrayPrototypeGetSymbolToStringTag(view);
  if (type === undefined) {
    return {
      buffer: DataViewPrototypeGetBuffer(view),
      byteOffset: DataViewPrototypeGetByteOffset(view),
      byteLength: DataViewPrototypeGetByteLength(view),
      elementSize: 1,
      constructor: DataView,
    };
  }
  const { constructor, elementSize } = typedArrays[type] ?? float16Array();
  return {
    buffer: TypedArrayPrototypeGetBuffer(view),
    byteOffset: TypedArrayPrototypeGetByteOffset(view),
    byteLength: TypedArrayPrototypeGetByteLength(view),
    elementSize,
    constructor,
  };
};
streams.isDetached = (buffer) => ArrayBufferPrototypeGetDetached(buffer);

let isBYOBReader;

class ReadableStreamBYOBReader {
  #record;

  static {
    isBYOBReader = (value) => isObject(value) && #record in value;
  }

  constructor(stream, record = undefined) {
    if (stream === kConstruct) {
      this.#record = record;
      return;
    }
    const prefix = "Failed to construct 'ReadableStreamBYOBReader'";
    requiredArguments(arguments.length, 1, prefix);
    if (!streams.isReadableStream(stream)) throw new TypeError(`${prefix}: Argument 1 is not a ReadableStream`);
    this.#record = acquireBYOBReader(streams.readableRecordOf(stream));
  }

  get closed() {
    if (!isBYOBReader(this)) return PromiseReject(new TypeError('Illegal invocation: not a ReadableStreamBYOBReader'));
    return this.#record.awaitClosed();
  }

  cancel(reason = undefined) {
    if (!isBYOBReader(this)) return PromiseReject(new TypeError('Illegal invocation: not a ReadableStreamBYOBReader'));
    if (this.#record.stream === undefined) return PromiseReject(new TypeError('The reader has been released'));
    return readerCancel(this.#record, reason);
  }

  read(view, options = {}) {
    const prefix = "Failed to execute 'read' on 'ReadableStreamBYOBReader'";
    try {
      const record = this.#record;
      requiredArguments(arguments.length, 1, prefix);
      const min = checkView(view, options, prefix);
      if (record.stream === undefined) throw new TypeError(`${prefix}: the reader has been released`);
      const request = new PromiseReadRequest();
      readIntoView(record, view, min, request);
      return request.capability.promise;
    } catch (error) {
      return PromiseReject(error);
    }
  }

  releaseLock() {
    if (this.#record.stream !== undefined) readerRelease(this.#record);
  }
}

/** Checks what read() is given; returns `min` in elements. */
function checkView(view, options, prefix) {
  if (!ArrayBufferIsView(view)) throw new TypeError(`${prefix}: Argument 1 is not a view on an ArrayBuffer`);
  if (options !== undefined && options !== null && !isObject(options)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
  const given = options?.min;
  const min = given === undefined ? 1 : converters.unsignedLongLong(given, prefix, "'min'", 'EnforceRange');
  const { buffer, byteLength, elementSize } = streams.viewParts(view);
  if (ops.is_shared_array_buffer(buffer)) throw new TypeError(`${prefix}: Argument 1 is a view on shared memory`);
  if (byteLength === 0) throw new TypeError(`${prefix}: the view is empty`);
  if (ArrayBufferPrototypeGetByteLength(buffer) === 0) throw new TypeError(`${prefix}: the view's buffer is empty`);
  if (streams.isDetached(buffer)) throw new TypeError(`${prefix}: the view's buffer is detached`);
  if (min === 0) throw new TypeError(`${prefix}: 'min' is 0`);
  if (min * elementSize > byteLength) throw new RangeError(`${prefix}: 'min' exceeds the view`);
  return min;
}

let createRequest;

class ReadableStreamBYOBRequest {
  #controller;
  #view;

  static {
    createRequest = (controller, view) => {
      const shell = new ReadableStreamBYOBRequest(kConstruct);
      shell.#controller = controller;
      shell.#view = view;
      return {
        shell,
        invalidate() {
          shell.#controller = undefined;
          shell.#view = null;
        },
      };
    };
  }

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'ReadableStreamBYOBRequest': Illegal constructor");
  }

  get view() {
    return this.#view;
  }

  respond(bytesWritten) {
    const prefix = "Failed to execute 'respond' on 'ReadableStreamBYOBRequest'";
    this.#controller;
    requiredArguments(arguments.length, 1, prefix);
    bytesWritten = converters.unsignedLongLong(bytesWritten, prefix, 'Argument 1', 'EnforceRange');
    if (this.#controller === undefined) throw new TypeError(`${prefix}: the request has been answered`);
    if (streams.isDetached(TypedArrayPrototypeGetBuffer(this.#view))) throw new TypeError(`${prefix}: the view's buffer is detached`);
    this.#controller.respond(bytesWritten);
  }

  respondWithNewView(view) {
    const prefix = "Failed to execute 'respondWithNewView' on 'ReadableStreamBYOBRequest'";
    this.#controller;
    requiredArguments(arguments.length, 1, prefix);
    if (!ArrayBufferIsView(view)) throw new TypeError(`${prefix}: Argument 1 is not a view on an ArrayBuffer`);
    if (this.#controller === undefined) throw new TypeError(`${prefix}: the request has been answered`);
    if (streams.isDetached(streams.viewParts(view).buffer)) throw new TypeError(`${prefix}: the view's buffer is detached`);
    this.#controller.respondWithNewView(view);
  }
}

class ReadableByteStreamController {
  #record;

  constructor(token = undefined, record = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'ReadableByteStreamController': Illegal constructor");
    this.#record = record;
    record.shell = this;
  }

  get byobRequest() {
    const record = this.#record;
    if (record.byobRequest === null && record.pendingPullIntos.length > 0) {
      record.byobRequest = createRequest(record, record.pendingView());
    }
    return record.byobRequest === null ? null : record.byobRequest.shell;
  }

  get desiredSize() {
    return this.#record.desiredSize();
  }

  close() {
    if (!this.#record.canCloseOrEnqueue()) throw new TypeError('The stream is closed, errored or about to close');
    this.#record.close();
  }

  enqueue(chunk) {
    const prefix = "Failed to execute 'enqueue' on 'ReadableByteStreamController'";
    const record = this.#record;
    requiredArguments(arguments.length, 1, prefix);
    if (!ArrayBufferIsView(chunk)) throw new TypeError(`${prefix}: Argument 1 is not a view on an ArrayBuffer`);
    const { buffer, byteLength } = streams.viewParts(chunk);
    if (ops.is_shared_array_buffer(buffer)) throw new TypeError(`${prefix}: Argument 1 is a view on shared memory`);
    if (byteLength === 0) throw new TypeError(`${prefix}: the chunk is empty`);
    if (ArrayBufferPrototypeGetByteLength(buffer) === 0) throw new TypeError(`${prefix}: the chunk's buffer is empty`);
    if (!record.canCloseOrEnqueue()) throw new TypeError('The stream is closed, errored or about to close');
    record.enqueue(chunk);
  }

  error(e = undefined) {
    this.#record.error(e);
  }
}

/** SetUpReadableByteStreamControllerFromUnderlyingSource. */
function setUpFromUnderlyingSource(stream, source, { autoAllocateChunkSize, cancel, pull, start }, highWaterMark) {
  if (autoAllocateChunkSize === 0) throw new TypeError("'autoAllocateChunkSize' is 0");
  let shell;
  const controller = new ByteControllerRecord(
    stream,
    pull === undefined ? undefined : () => promiseCall(pull, source, shell),
    cancel === undefined ? undefined : (reason) => promiseCall(cancel, source, reason),
    highWaterMark,
    autoAllocateChunkSize,
  );
  shell = new ReadableByteStreamController(kConstruct, controller);
  let startResult;
  if (start !== undefined) startResult = FunctionPrototypeCall(start, source, shell);
  startController(controller, streams.promiseResolvedWith(startResult));
}

defineInterface(ReadableStreamBYOBReader);
defineInterface(ReadableStreamBYOBRequest);
defineInterface(ReadableByteStreamController);
primordials.ObjectDefineProperty(ReadableStreamBYOBReader, 'length', { __proto__: null, value: 1, configurable: true });

streams.byte.setUpFromUnderlyingSource = setUpFromUnderlyingSource;
streams.byte.acquireBYOBReaderShell = (record) => new ReadableStreamBYOBReader(kConstruct, acquireBYOBReader(record));
streams.ReadableStreamBYOBReader = ReadableStreamBYOBReader;
streams.ReadableStreamBYOBRequest = ReadableStreamBYOBRequest;
streams.ReadableByteStreamController = ReadableByteStreamController;
