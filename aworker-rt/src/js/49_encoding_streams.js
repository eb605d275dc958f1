//! TextEncoderStream and TextDecoderStream, and the streams' entry points for other built-ins.
//! https://encoding.spec.whatwg.org/#interface-textdecoderstream

const { PromiseResolve, StringPrototypeCharCodeAt, StringPrototypeSlice, Uint8Array } = primordials;
const { converters, defineInterface } = internals.webidl;
const { streams } = internals;
const { TextDecoder } = internals.encoding;
const { decode: textDecoderDecode } = TextDecoder.prototype;
const decode = primordials.uncurryThis(textDecoderDecode);
const encodingOf = primordials.uncurryThis(primordials.ReflectGetOwnPropertyDescriptor(TextDecoder.prototype, 'encoding').get);
const fatalOf = primordials.uncurryThis(primordials.ReflectGetOwnPropertyDescriptor(TextDecoder.prototype, 'fatal').get);
const ignoreBOMOf = primordials.uncurryThis(primordials.ReflectGetOwnPropertyDescriptor(TextDecoder.prototype, 'ignoreBOM').get);

function isHighSurrogate(unit) {
  return unit >= 0xd800 && unit <= 0xdbff;
}

class TextEncoderStream {
  #record;
  /** A high surrogate that ended the last chunk. */
  #pending = '';

  constructor() {
    this.#record = streams.createTransformRecord((chunk, record) => this.#transform(chunk, record), (record) => {
      if (this.#pending !== '') record.enqueue(new Uint8Array([0xef, 0xbf, 0xbd]));
    });
  }

  #transform(chunk, record) {
    let text = this.#pending + converters.DOMString(chunk, 'TextEncoderStream', 'The chunk');
    this.#pending = '';
    if (text === '') return;
    if (isHighSurrogate(StringPrototypeCharCodeAt(text, text.length - 1))) {
      this.#pending = StringPrototypeSlice(text, text.length - 1);
      text = StringPrototypeSlice(text, 0, text.length - 1);
    }
    if (text !== '') record.enqueue(ops.utf8_encode(text));
  }

  get encoding() {
    this.#record;
    return 'utf-8';
  }

  get readable() {
    return streams.readableShellOf(this.#record.readable);
  }

  get writable() {
    return streams.writableShellOf(this.#record.writable);
  }
}

class TextDecoderStream {
  #record;
  #decoder;

  constructor(label = 'utf-8', options = {}) {
    const decoder = new TextDecoder(label, options);
    this.#decoder = decoder;
    this.#record = streams.createTransformRecord((chunk, record) => {
      converters.bufferSource(chunk, 'TextDecoderStream', 'The chunk');
      const text = decode(decoder, chunk, { __proto__: null, stream: true });
      if (text !== '') record.enqueue(text);
    }, (record) => {
      const text = decode(decoder);
      if (text !== '') record.enqueue(text);
    });
  }

  get encoding() {
    return encodingOf(this.#decoder);
  }

  get fatal() {
    return fatalOf(this.#decoder);
  }

  get ignoreBOM() {
    return ignoreBOMOf(this.#decoder);
  }

  get readable() {
    return streams.readableShellOf(this.#record.readable);
  }

  get writable() {
    return streams.writableShellOf(this.#record.writable);
  }
}

defineInterface(TextEncoderStream);
defineInterface(TextDecoderStream);
streams.TextEncoderStream = TextEncoderStream;
streams.TextDecoderStream = TextDecoderStream;

const { createReadableRecord, acquireDefaultReader, readableStreamCancel, readerRelease, readerRead } = streams.readable;

/**
 * Streams for other built-ins (bodies). All of them take and give public ReadableStreams.
 *
 * `create` and `createBytes` make a stream of a source: `pull(controller)` and `cancel(reason)` return a
 * promise or undefined. A controller has enqueue(chunk), close(), error(reason), desiredSize();
 * a byte controller's enqueue takes a view and detaches its buffer.
 */
streams.body = {
  create(pull, cancel, highWaterMark = 0) {
    return streams.readableShellOf(createReadableRecord(pull, cancel, highWaterMark));
  },
  createBytes(pull, cancel, highWaterMark = 0) {
    return streams.readableShellOf(streams.byte.createByteRecord(pull, cancel, highWaterMark));
  },
  controllerOf: (stream) => streams.readableRecordOf(stream).controller,
  isDisturbed: (stream) => streams.readableRecordOf(stream).disturbed,
  isLocked: (stream) => streams.readableRecordOf(stream).reader !== undefined,
  isErrored: (stream) => streams.readableRecordOf(stream).state === 'errored',
  isClosed: (stream) => streams.readableRecordOf(stream).state === 'closed',
  /** Marks a stream as used without reading it. */
  disturb(stream) {
    streams.readableRecordOf(stream).disturbed = true;
  },
  /** Locks the stream; throws a TypeError if it is locked. The reader is for `read` and `release`. */
  acquireReader: (stream) => acquireDefaultReader(streams.readableRecordOf(stream)),
  /** Reads one chunk: calls one of chunk(value), close(), error(reason) of the request, perhaps at once. */
  read: readerRead,
  release: readerRelease,
  cancelReader: (reader, reason) => (reader.stream === undefined ? PromiseResolve() : readableStreamCancel(reader.stream, reason)),
  /** Cancels a stream that is not locked. */
  cancel: (stream, reason) => readableStreamCancel(streams.readableRecordOf(stream), reason),
  /** `{ first, second }`, public streams; the second gets copies of the chunks. */
  tee(stream) {
    const { first, second } = streams.teeRecord(streams.readableRecordOf(stream), true);
    return { first: streams.readableShellOf(first), second: streams.readableShellOf(second) };
  },
};
