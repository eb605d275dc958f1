//! TextEncoder and TextDecoder. UTF-8 goes to V8 directly, other encodings to encoding_rs; only
//! a decoder in the middle of a stream has native state, under a handle.
//! https://encoding.spec.whatwg.org/#api

const { FinalizationRegistryPrototypeRegister, FinalizationRegistry, RangeError, TypeError, Uint32Array, Uint8Array } =
  primordials;
const { converters, requiredArguments, isObject, defineInterface } = internals.webidl;

/** What encodeInto read and wrote: filled by the operation, read at once. */
const counts = new Uint32Array(2);

class TextEncoder {
  #brand;

  constructor() {}

  get encoding() {
    this.#brand;
    return 'utf-8';
  }

  encode(input = '') {
    this.#brand;
    if (typeof input !== 'string') input = converters.DOMString(input, "Failed to execute 'encode' on 'TextEncoder'", 'Argument 1');
    return ops.utf8_encode(input);
  }

  encodeInto(source, destination) {
    this.#brand;
    const prefix = "Failed to execute 'encodeInto' on 'TextEncoder'";
    requiredArguments(arguments.length, 2, prefix);
    source = converters.DOMString(source, prefix, 'Argument 1');
    if (primordials.TypedArrayPrototypeGetSymbolToStringTag(destination) !== 'Uint8Array') {
      throw new TypeError(`${prefix}: Argument 2 is not a Uint8Array`);
    }
    ops.utf8_encode_into(source, destination, counts);
    return { read: counts[0], written: counts[1] };
  }
}

defineInterface(TextEncoder);

/** Frees decoders whose stream was never finished; made when the first stream begins. */
let abandoned;

class TextDecoder {
  #encoding;
  #fatal = false;
  #ignoreBOM = false;
  /** Native state of a stream that has begun. */
  #handle = undefined;

  constructor(label = 'utf-8', options = undefined) {
    const prefix = "Failed to construct 'TextDecoder'";
    this.#encoding = label === 'utf-8' ? label : encodingFor(label, prefix);
    if (options === undefined || options === null) return;
    if (!isObject(options)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
    this.#fatal = !!options.fatal;
    this.#ignoreBOM = !!options.ignoreBOM;
  }

  get encoding() {
    return this.#encoding;
  }

  get fatal() {
    return this.#fatal;
  }

  get ignoreBOM() {
    return this.#ignoreBOM;
  }

  decode(input = undefined, options = undefined) {
    const prefix = "Failed to execute 'decode' on 'TextDecoder'";
    const encoding = this.#encoding;
    if (input !== undefined) converters.bufferSource(input, prefix, 'Argument 1');
    let stream = false;
    if (options !== undefined && options !== null) {
      if (!isObject(options)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
      stream = !!options.stream;
    }
    if (!stream && this.#handle === undefined) {
      if (input === undefined) return '';
      const text = ops.text_decode(encoding, input, this.#fatal, this.#ignoreBOM);
      if (text === undefined) throw invalidData(encoding);
      return text;
    }
    return this.#decodeChunk(input, stream);
  }

  /** Decodes a part of a stream; the last part (`stream` false) frees the native state. */
  #decodeChunk(input, stream) {
    if (this.#handle === undefined) {
      this.#handle = ops.text_decoder_new(this.#encoding, this.#ignoreBOM);
      abandoned ??= new FinalizationRegistry((handle) => ops.text_decoder_free(handle));
      FinalizationRegistryPrototypeRegister(abandoned, this, this.#handle, this);
    }
    const text = ops.text_decoder_decode(this.#handle, input ?? new Uint8Array(0), !stream, this.#fatal);
    if (!stream || text === undefined) {
      ops.text_decoder_free(this.#handle);
      primordials.FinalizationRegistryPrototypeUnregister(abandoned, this);
      this.#handle = undefined;
    }
    if (text === undefined) throw invalidData(this.#encoding);
    return text;
  }
}

defineInterface(TextDecoder);

function encodingFor(label, prefix) {
  label = converters.DOMString(label, prefix, 'Argument 1');
  const name = ops.encoding_for_label(label);
  if (name === undefined) throw new RangeError(`${prefix}: '${label}' is not the label of an encoding`);
  return name;
}

function invalidData(encoding) {
  return new TypeError(`The encoded data is not valid ${encoding}`);
}

internals.encoding = {
  TextEncoder,
  TextDecoder,
  /** UTF-8 bytes of a string. */
  encodeUtf8: (text) => ops.utf8_encode(text),
  /** Text of UTF-8 bytes, errors replaced, a leading byte order mark dropped ("UTF-8 decode"). */
  decodeUtf8: (bytes) => ops.text_decode('utf-8', bytes, false, false),
};
