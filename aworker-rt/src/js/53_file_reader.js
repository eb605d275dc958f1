//! ProgressEvent and FileReader. https://xhr.spec.whatwg.org/#interface-progressevent,
//! https://w3c.github.io/FileAPI/#APIASynch

const {
  ReflectApply,
  RegExpPrototypeExec,
  StringFromCharCode,
  TypeError,
  TypedArrayPrototypeGetBuffer,
  TypedArrayPrototypeSubarray,
  Uint8Array,
} = primordials;
const { converters, dictionaryConverter, requiredArguments, defineConstants, defineInterface } = internals.webidl;
const { Event, EventTarget, defineEventHandler, dispatchTrusted } = internals.events;
const { isBlob, bytesOf, typeOf } = internals.blob;
const { DOMException, queueTask } = internals;

const toProgressInit = dictionaryConverter('ProgressEventInit', [
  { key: 'lengthComputable', converter: converters.boolean, defaultValue: () => false },
  { key: 'loaded', converter: converters.double, defaultValue: () => 0 },
  { key: 'total', converter: converters.double, defaultValue: () => 0 },
]);

class ProgressEvent extends Event {
  #lengthComputable;
  #loaded;
  #total;

  constructor(type, eventInitDict = {}) {
    const prefix = "Failed to construct 'ProgressEvent'";
    requiredArguments(arguments.length, 1, prefix);
    super(type, eventInitDict);
    const { lengthComputable, loaded, total } = toProgressInit(eventInitDict, prefix, 'Argument 2');
    this.#lengthComputable = lengthComputable;
    this.#loaded = loaded;
    this.#total = total;
  }

  get lengthComputable() {
    return this.#lengthComputable;
  }

  get loaded() {
    return this.#loaded;
  }

  get total() {
    return this.#total;
  }
}

defineInterface(ProgressEvent);

const EMPTY = 0;
const LOADING = 1;
const DONE = 2;

/** Characters that are made of bytes in one call. */
const PIECE = 4096;

/** One character for each byte. */
function toBinaryString(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += PIECE) {
    text += ReflectApply(StringFromCharCode, undefined, TypedArrayPrototypeSubarray(bytes, i, i + PIECE));
  }
  return text;
}

const charsetParameter = /;\s*charset\s*=\s*(?:"([^"]*)"|([^;\s]*))/i;

/** The encoding of a read as text: what was asked for, what the type says, UTF-8. A byte order mark decides before them. */
function toText(bytes, type, label) {
  let encoding = label === undefined ? undefined : ops.encoding_for_label(label);
  if (encoding === undefined) {
    const match = RegExpPrototypeExec(charsetParameter, type);
    if (match !== null) encoding = ops.encoding_for_label(match[1] ?? match[2]);
  }
  encoding ??= 'utf-8';
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) encoding = 'utf-8';
  else if (bytes[0] === 0xfe && bytes[1] === 0xff) encoding = 'utf-16be';
  else if (bytes[0] === 0xff && bytes[1] === 0xfe) encoding = 'utf-16le';
  return ops.text_decode(encoding, bytes, false, false);
}

/** https://w3c.github.io/FileAPI/#blob-package-data */
const packages = {
  __proto__: null,
  ArrayBuffer: (bytes) => TypedArrayPrototypeGetBuffer(new Uint8Array(bytes)),
  BinaryString: (bytes) => toBinaryString(bytes),
  DataURL: (bytes, type) => `data:${type || 'application/octet-stream'};base64,${ops.btoa(toBinaryString(bytes))}`,
  Text: toText,
};

class FileReader extends EventTarget {
  #state = EMPTY;
  #result = null;
  #error = null;
  /** What is being read, `{ blob, kind, label }`; another one, or none, after an abort. */
  #reading = undefined;

  constructor() {
    super();
  }

  readAsArrayBuffer(blob) {
    this.#read(arguments.length, blob, 'ArrayBuffer', undefined);
  }

  readAsBinaryString(blob) {
    this.#read(arguments.length, blob, 'BinaryString', undefined);
  }

  readAsText(blob, encoding = undefined) {
    this.#read(arguments.length, blob, 'Text', encoding);
  }

  readAsDataURL(blob) {
    this.#read(arguments.length, blob, 'DataURL', undefined);
  }

  /** https://w3c.github.io/FileAPI/#readOperation */
  #read(given, blob, kind, encoding) {
    this.#state;
    const prefix = `Failed to execute 'readAs${kind}' on 'FileReader'`;
    requiredArguments(given, 1, prefix);
    if (!isBlob(blob)) throw new TypeError(`${prefix}: Argument 1 is not a Blob`);
    const label = encoding === undefined ? undefined : converters.DOMString(encoding, prefix, 'Argument 2');
    if (this.#state === LOADING) throw new DOMException(`${prefix}: a read is under way`, 'InvalidStateError');
    this.#state = LOADING;
    this.#result = null;
    this.#error = null;
    const reading = { blob, kind, label };
    this.#reading = reading;
    queueTask(() => this.#start(reading), undefined);
  }

  #start(reading) {
    if (this.#reading !== reading) return;
    this.#fire('loadstart', 0);
    if (bytesOf(reading.blob).length > 0) queueTask(() => this.#progress(reading), undefined);
    queueTask(() => this.#finish(reading), undefined);
  }

  #progress(reading) {
    if (this.#reading === reading) this.#fire('progress', bytesOf(reading.blob).length);
  }

  #finish(reading) {
    if (this.#reading !== reading) return;
    const { blob, kind, label } = reading;
    const bytes = bytesOf(blob);
    this.#state = DONE;
    try {
      this.#result = packages[kind](bytes, typeOf(blob), label);
      this.#fire('load', bytes.length);
    } catch (error) {
      // A result that no string or buffer can hold.
      this.#error = new DOMException(error.message, 'NotReadableError');
      this.#fire('error', 0);
    }
    queueTask(() => this.#end(reading), undefined);
  }

  /** In a task of its own: what listeners of `load` queued as microtasks comes first. */
  #end(reading) {
    if (this.#reading === reading && this.#state !== LOADING) this.#fire('loadend', bytesOf(reading.blob).length);
  }

  #fire(type, loaded) {
    const { blob } = this.#reading ?? {};
    const total = blob === undefined ? 0 : bytesOf(blob).length;
    dispatchTrusted(this, new ProgressEvent(type, { __proto__: null, lengthComputable: blob !== undefined, loaded, total }));
  }

  abort() {
    if (this.#state !== LOADING) {
      this.#result = null;
      return;
    }
    this.#state = DONE;
    this.#result = null;
    this.#reading = undefined;
    this.#error = new DOMException('The read was aborted', 'AbortError');
    this.#fire('abort', 0);
    if (this.#state !== LOADING) this.#fire('loadend', 0);
  }

  get readyState() {
    return this.#state;
  }

  get result() {
    return this.#result;
  }

  get error() {
    return this.#error;
  }
}

defineInterface(FileReader);
defineConstants(FileReader, { EMPTY, LOADING, DONE });
for (const type of ['loadstart', 'progress', 'load', 'abort', 'error', 'loadend']) defineEventHandler(FileReader.prototype, type);

internals.fileReader = { ProgressEvent, FileReader };
