//! Blob and File. The bytes are in memory; slices share them. https://w3c.github.io/FileAPI/

const {
  ArrayBufferIsView,
  ArrayPrototypePush,
  DateNow,
  PromiseReject,
  PromiseResolve,
  RegExpPrototypeExec,
  SafeArrayIterator,
  StringPrototypeReplace,
  StringPrototypeToLowerCase,
  SymbolIterator,
  TypeError,
  TypedArrayPrototypeSet,
  TypedArrayPrototypeSubarray,
  Uint8Array,
} = primordials;
const { converters, requiredArguments, isObject, isArrayBuffer, isSharedArrayBuffer, sequenceFrom, enumConverter, defineInterface } =
  internals.webidl;
const { streams } = internals;

/** Bytes of one chunk of `stream()`. */
const CHUNK_BYTES = 65536;
const notPrintable = /[^\x20-\x7e]/;
const lineEnding = /\r\n|\r|\n/g;
const toEndings = enumConverter('EndingType', ['transparent', 'native']);

let bytesOf, isBlob, isFile, makeBlob, setContents, typeOf, nameOf, lastModifiedOf, makeFile;

/** One element of a Blob's parts: bytes, or text to encode. */
function toPart(value) {
  if (isBlob(value) || ArrayBufferIsView(value) || isArrayBuffer(value) || isSharedArrayBuffer(value)) return value;
  return converters.USVString(value);
}

/** A copy of the bytes of a part; a Blob's bytes never change and are not copied. */
function partBytes(part, endings) {
  if (typeof part === 'string') {
    return ops.utf8_encode(endings === 'native' ? StringPrototypeReplace(part, lineEnding, '\n') : part);
  }
  if (isBlob(part)) return bytesOf(part);
  if (!ArrayBufferIsView(part)) return new Uint8Array(part);
  const { buffer, byteOffset, byteLength } = streams.viewParts(part);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function concatenate(parts, endings) {
  const pieces = [];
  let length = 0;
  for (let i = 0; i < parts.length; i++) {
    const piece = partBytes(parts[i], endings);
    ArrayPrototypePush(pieces, piece);
    length += piece.length;
  }
  const bytes = new Uint8Array(length);
  let offset = 0;
  for (let i = 0; i < pieces.length; i++) {
    TypedArrayPrototypeSet(bytes, pieces[i], offset);
    offset += pieces[i].length;
  }
  return bytes;
}

function convertParts(parts, prefix) {
  if (!isObject(parts)) throw new TypeError(`${prefix}: Argument 1 is not iterable`);
  const method = parts[SymbolIterator];
  return sequenceFrom(parts, method, toPart, prefix, 'Argument 1');
}

function normalizeType(type) {
  return RegExpPrototypeExec(notPrintable, type) !== null ? '' : StringPrototypeToLowerCase(type);
}

/** A position of slice(): negative ones count from the end. */
function position(value, size, prefix, context) {
  const relative = converters.longLong(value, prefix, context, 'Clamp');
  if (relative < 0) return size + relative < 0 ? 0 : size + relative;
  return relative > size ? size : relative;
}

class Blob {
  #bytes;
  #type = '';

  static {
    isBlob = (value) => isObject(value) && #bytes in value;
    bytesOf = (blob) => blob.#bytes;
    typeOf = (blob) => blob.#type;
    setContents = (blob, bytes, type) => {
      blob.#bytes = bytes;
      blob.#type = type;
      return blob;
    };
    makeBlob = (bytes, type) => setContents(new Blob(), bytes, type);
  }

  constructor(blobParts = undefined, options = undefined) {
    const prefix = "Failed to construct 'Blob'";
    const parts = blobParts === undefined ? [] : convertParts(blobParts, prefix);
    let endings = 'transparent';
    if (options !== undefined && options !== null) {
      if (!isObject(options)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
      const givenEndings = options.endings;
      if (givenEndings !== undefined) endings = toEndings(givenEndings, prefix, "'endings'");
      const type = options.type;
      if (type !== undefined) this.#type = normalizeType(converters.DOMString(type, prefix, "'type'"));
    }
    this.#bytes = concatenate(parts, endings);
  }

  get size() {
    return this.#bytes.length;
  }

  get type() {
    return this.#type;
  }

  slice(start = undefined, end = undefined, contentType = '') {
    const prefix = "Failed to execute 'slice' on 'Blob'";
    const size = this.#bytes.length;
    const from = start === undefined ? 0 : position(start, size, prefix, 'Argument 1');
    const to = end === undefined ? size : position(end, size, prefix, 'Argument 2');
    const type = normalizeType(converters.DOMString(contentType, prefix, 'Argument 3'));
    return makeBlob(TypedArrayPrototypeSubarray(this.#bytes, from, to < from ? from : to), type);
  }

  stream() {
    const bytes = this.#bytes;
    let offset = 0;
    return streams.body.createBytes((controller) => {
      if (offset === bytes.length) {
        controller.close();
        return;
      }
      const chunk = new Uint8Array(TypedArrayPrototypeSubarray(bytes, offset, offset + CHUNK_BYTES));
      offset += chunk.length;
      controller.enqueue(chunk);
    });
  }

  text() {
    if (!isBlob(this)) return PromiseReject(new TypeError('Illegal invocation: not a Blob'));
    return PromiseResolve(internals.encoding.decodeUtf8(this.#bytes));
  }

  arrayBuffer() {
    if (!isBlob(this)) return PromiseReject(new TypeError('Illegal invocation: not a Blob'));
    return PromiseResolve(primordials.TypedArrayPrototypeGetBuffer(new Uint8Array(this.#bytes)));
  }

  bytes() {
    if (!isBlob(this)) return PromiseReject(new TypeError('Illegal invocation: not a Blob'));
    return PromiseResolve(new Uint8Array(this.#bytes));
  }
}

class File extends Blob {
  #name;
  #lastModified;

  constructor(fileBits, fileName, options = undefined) {
    const prefix = "Failed to construct 'File'";
    requiredArguments(arguments.length, 2, prefix);
    if (fileBits === undefined) throw new TypeError(`${prefix}: Argument 1 is not iterable`);
    super(fileBits, options);
    this.#name = converters.USVString(fileName, prefix, 'Argument 2');
    const lastModified = options?.lastModified;
    this.#lastModified = lastModified === undefined ? DateNow() : converters.longLong(lastModified, prefix, "'lastModified'");
  }

  static {
    isFile = (value) => isObject(value) && #name in value;
    nameOf = (file) => file.#name;
    lastModifiedOf = (file) => file.#lastModified;
    makeFile = (bytes, type, name, lastModified) => {
      const file = new File(new SafeArrayIterator([]), name, { __proto__: null, lastModified });
      return setContents(file, bytes, type);
    };
  }

  get name() {
    return this.#name;
  }

  get lastModified() {
    return this.#lastModified;
  }
}

defineInterface(Blob);
defineInterface(File);

internals.cloning.addSerializable({
  is: isBlob,
  write: (blob) => ({
    bytes: bytesOf(blob),
    type: typeOf(blob),
    name: isFile(blob) ? nameOf(blob) : undefined,
    lastModified: isFile(blob) ? lastModifiedOf(blob) : undefined,
  }),
  read: ({ bytes, type, name, lastModified }) => {
    // The data may come from another worker.
    if (primordials.TypedArrayPrototypeGetSymbolToStringTag(bytes) !== 'Uint8Array' || typeof type !== 'string') throw new TypeError('The clone of a Blob is malformed');
    return name === undefined ? makeBlob(bytes, type) : makeFile(bytes, type, name, lastModified);
  },
});

internals.blob = {
  Blob,
  File,
  isBlob,
  isFile,
  /** (bytes, type, name, lastModified): a File on bytes that nobody changes; without a time, modified at this moment. */
  makeFile,
  /** (bytes, type): a Blob on bytes that nobody changes; the type as it is. */
  makeBlob,
  /** The bytes, which nobody may change. */
  bytesOf,
  typeOf,
  nameOf,
  lastModifiedOf,
};
