//! CompressionStream and DecompressionStream. The state is native, under a handle, from the first
//! chunk to the end of the stream (web/compression.rs). https://compression.spec.whatwg.org/

const { FinalizationRegistry, FinalizationRegistryPrototypeRegister, FinalizationRegistryPrototypeUnregister, TypeError } = primordials;
const { converters, requiredArguments, enumConverter, isSharedArrayBuffer, defineInterface } = internals.webidl;
const { streams } = internals;

const toFormat = enumConverter('CompressionFormat', ['deflate', 'deflate-raw', 'gzip']);

/** Frees the state of streams that were never finished; made when the first stream begins. */
let abandoned;

/** What a stream transforms with. */
class Codec {
  #format;
  #decompress;
  /** Undefined before the first chunk and after the end. */
  #handle = undefined;
  #ended = false;

  constructor(format, decompress) {
    this.#format = format;
    this.#decompress = decompress;
  }

  #begin() {
    if (this.#handle !== undefined || this.#ended) return;
    this.#handle = ops.compression_new(this.#format, this.#decompress);
    abandoned ??= new FinalizationRegistry((handle) => ops.compression_free(handle));
    FinalizationRegistryPrototypeRegister(abandoned, this, this.#handle, this);
  }

  end() {
    this.#ended = true;
    if (this.#handle === undefined) return;
    ops.compression_free(this.#handle);
    FinalizationRegistryPrototypeUnregister(abandoned, this);
    this.#handle = undefined;
  }

  #fail(message) {
    this.end();
    throw new TypeError(message);
  }

  async transform(chunk, record) {
    this.#begin();
    ops.compression_write(this.#handle, chunk);
    await this.#drain(record);
  }

  /** Does not wait for the reader: a stream that is being closed cannot be told that its reader left. */
  flush(record) {
    this.#begin();
    const problem = ops.compression_end(this.#handle);
    if (problem !== undefined) this.#fail(problem);
    // Decompressed output is there before the end; of compressed output a part is held back until then.
    const piece = ops.compression_read(this.#handle);
    this.end();
    if (piece !== undefined) record.enqueue(piece);
  }

  /** Moves a chunk's output to the readable side: every piece but the first waits until it is wanted. */
  async #drain(record) {
    for (let isFirst = true;; isFirst = false) {
      const piece = ops.compression_read(this.#handle);
      if (piece === undefined) return;
      if (typeof piece === 'string') this.#fail(piece);
      if (!isFirst && record.backpressure) await record.backpressureChange.promise;
      // The stream may have been cancelled, and its state freed, meanwhile.
      if (this.#handle === undefined) return;
      record.enqueue(piece);
    }
  }
}

function createRecord(codec, prefix) {
  return streams.createTransformRecord((chunk, record) => {
    converters.bufferSource(chunk, prefix, 'The chunk');
    const memory = primordials.ArrayBufferIsView(chunk) ? streams.viewParts(chunk).buffer : chunk;
    if (isSharedArrayBuffer(memory)) throw new TypeError(`${prefix}: The chunk is shared memory`);
    return codec.transform(chunk, record);
  }, (record) => codec.flush(record), () => codec.end());
}

class CompressionStream {
  #record;

  constructor(format) {
    const prefix = "Failed to construct 'CompressionStream'";
    requiredArguments(arguments.length, 1, prefix);
    this.#record = createRecord(new Codec(toFormat(format, prefix, 'Argument 1'), false), 'CompressionStream');
  }

  get readable() {
    return streams.readableShellOf(this.#record.readable);
  }

  get writable() {
    return streams.writableShellOf(this.#record.writable);
  }
}

class DecompressionStream {
  #record;

  constructor(format) {
    const prefix = "Failed to construct 'DecompressionStream'";
    requiredArguments(arguments.length, 1, prefix);
    this.#record = createRecord(new Codec(toFormat(format, prefix, 'Argument 1'), true), 'DecompressionStream');
  }

  get readable() {
    return streams.readableShellOf(this.#record.readable);
  }

  get writable() {
    return streams.writableShellOf(this.#record.writable);
  }
}

defineInterface(CompressionStream);
defineInterface(DecompressionStream);
streams.CompressionStream = CompressionStream;
streams.DecompressionStream = DecompressionStream;
