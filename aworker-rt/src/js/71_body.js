//! Bodies of requests and responses: extraction, the Body mixin's methods, streams.
//! A body that is there at once stays a string or an array until somebody asks for its stream.
//! https://fetch.spec.whatwg.org/#body-mixin

const {
  ArrayBufferIsView,
  ArrayPrototypePush,
  JSONParse,
  Promise,
  PromiseReject,
  PromiseResolve,
  PromiseWithResolvers,
  StringPrototypeCharCodeAt,
  StringPrototypeSlice,
  StringPrototypeToWellFormed,
  TypedArrayPrototypeGetBuffer,
  TypedArrayPrototypeGetByteLength,
  TypedArrayPrototypeGetSymbolToStringTag,
  TypedArrayPrototypeSet,
  TypeError,
  Uint8Array,
} = primordials;
const { converters, isObject, isArrayBuffer } = internals.webidl;
const { isURLSearchParams, serialize } = internals.urlSearchParams;
const { encodeUtf8, decodeUtf8 } = internals.encoding;
const { streams, DOMException } = internals;
const { isFormData, encodeMultipart, parseForm } = internals.formData;
const { isBlob, makeBlob, bytesOf: bytesOfBlob } = internals.blob;
const { acquireDefaultReader, readerRead, readerCancel, readerRelease } = streams.readable;

const noType = 0;
const textType = 1;

/** A body: exactly one of `source`, `exchange` and `stream` says where its bytes are. */
class Body {
  /** A string or a Uint8Array that nobody else changes. */
  source;
  /** The number of the HTTP request whose body this is. */
  exchange;
  /** A ReadableStream. */
  stream;
  /** Consumed without a stream. */
  used = false;

  constructor(source, exchange, stream) {
    this.source = source;
    this.exchange = exchange;
    this.stream = stream;
  }
}

/** Bodies of requests that wait for bytes, by the request's number: { chunk, whole, failed }. */
const waiting = new internals.NumberTable();

/** The bytes of a BufferSource, copied. */
function copyBytes(source) {
  if (!ArrayBufferIsView(source)) {
    const copy = new Uint8Array(new Uint8Array(source).length);
    TypedArrayPrototypeSet(copy, new Uint8Array(source));
    return copy;
  }
  const { buffer, byteOffset, byteLength } = streams.viewParts(source);
  const copy = new Uint8Array(byteLength);
  TypedArrayPrototypeSet(copy, new Uint8Array(buffer, byteOffset, byteLength));
  return copy;
}

/**
 * Extracts a body from a BodyInit that is not null. Returns the content type, or null; `made.body`
 * gets a string or a Body.
 */
function extract(object, made, prefix) {
  if (typeof object === 'string') {
    made.body = StringPrototypeToWellFormed(object);
    return 'text/plain;charset=UTF-8';
  }
  if (isObject(object)) {
    if (streams.isReadableStream(object)) {
      const record = streams.readableRecordOf(object);
      if (record.reader !== undefined || record.disturbed) {
        throw new TypeError(`${prefix}: the body's stream is locked or has been read`);
      }
      made.body = new Body(undefined, undefined, object);
      return null;
    }
    if (ArrayBufferIsView(object) || isArrayBuffer(object)) {
      made.body = new Body(copyBytes(object), undefined, undefined);
      return null;
    }
    if (isURLSearchParams(object)) {
      made.body = serialize(object);
      return 'application/x-www-form-urlencoded;charset=UTF-8';
    }
    if (isFormData(object)) {
      const { bytes, type } = encodeMultipart(object);
      made.body = new Body(bytes, undefined, undefined);
      return type;
    }
    if (isBlob(object)) {
      made.body = new Body(bytesOfBlob(object), undefined, undefined);
      return object.type === '' ? null : object.type;
    }
  }
  made.body = converters.USVString(object, prefix, 'The body');
  return 'text/plain;charset=UTF-8';
}

/** Whether the body's bytes have been taken, or are being taken. */
function isUsed(body) {
  if (body.stream !== undefined) return streams.readableRecordOf(body.stream).disturbed;
  return body.used;
}

function isUnusable(body) {
  if (body.stream === undefined) return body.used;
  const record = streams.readableRecordOf(body.stream);
  return record.disturbed || record.reader !== undefined;
}

function bytesOf(source) {
  return typeof source === 'string' ? encodeUtf8(source) : source;
}

/** A stream whose bytes have been taken without it: disturbed, at its end and locked for good. */
function retire(record) {
  if (record.state === 'readable') record.controller.close();
  record.disturbed = true;
  acquireDefaultReader(record);
}

/** The body's stream, made when it is first asked for. */
function streamOf(body) {
  if (body.stream !== undefined) return body.stream;
  let record;
  if (body.exchange !== undefined) {
    record = exchangeStream(body.exchange);
  } else {
    const { source } = body;
    record = streams.byte.createByteRecord(() => {
      record.controller.enqueue(copyBytes(bytesOf(source)));
      record.controller.close();
    }, () => undefined);
    if (source.length === 0) record.controller.close();
    record.bodySource = source;
  }
  if (body.used) retire(record);
  body.stream = streams.readableShellOf(record);
  body.source = undefined;
  body.exchange = undefined;
  return body.stream;
}

/**
 * Takes the bytes of a body that are there at once: also those behind a stream that was made of them and
 * that nobody has touched, as in `new Response(response.body, response)`. Undefined if there are none.
 */
function takeSource(body) {
  if (body.stream === undefined) {
    if (body.source !== undefined) body.used = true;
    return body.source;
  }
  const record = streams.readableRecordOf(body.stream);
  const { bodySource } = record;
  if (bodySource === undefined || record.disturbed || record.reader !== undefined) return undefined;
  retire(record);
  return bodySource;
}

/** A byte stream that pulls a request's body from its connection. */
function exchangeStream(id) {
  const record = streams.byte.createByteRecord(() => {
    const answer = ops.http_body_pull(id);
    if (answer === 0) {
      record.controller.close();
      return undefined;
    }
    if (answer === 2) {
      record.controller.error(clientGone());
      return undefined;
    }
    const { promise, resolve } = PromiseWithResolvers();
    waiting.set(id, {
      chunk(bytes, done) {
        if (bytes !== undefined && record.state === 'readable') record.controller.enqueue(bytes);
        if (done && record.state === 'readable') record.controller.close();
        resolve();
      },
      whole: undefined,
      failed(error) {
        record.controller.error(error);
        resolve();
      },
    });
    return promise;
  }, () => undefined);
  return record;
}

function clientGone() {
  return new DOMException('The client has closed the connection', 'AbortError');
}

/** As it is. */
const same = (value) => value;

/** What `finish` makes of all bytes of a body, given as text or as a Uint8Array of its own; a promise. */
function consume(body, asText, finish = same) {
  const source = takeSource(body);
  if (source === undefined) {
    if (body.stream !== undefined) return consumeStream(body.stream, asText, finish);
    body.used = true;
    return consumeExchange(body.exchange, asText, finish);
  }
  if (!asText) return PromiseResolve(finish(copyBytes(bytesOf(source))));
  return PromiseResolve(finish(typeof source === 'string' ? withoutMark(source) : decodeUtf8(source)));
}

function withoutMark(text) {
  return text.length > 0 && StringPrototypeCharCodeAt(text, 0) === 0xfeff ? StringPrototypeSlice(text, 1) : text;
}

/** Resolves with what `finish` makes of a value. */
function settle(resolve, reject, finish, value) {
  try {
    resolve(finish(value));
  } catch (error) {
    reject(error);
  }
}

function consumeExchange(id, asText, finish) {
  const answer = ops.http_body_whole(id, asText);
  if (answer === 2) return PromiseReject(clientGone());
  if (answer === 0) return PromiseResolve(finish(asText ? '' : new Uint8Array(0)));
  return new Promise((resolve, reject) => {
    waiting.set(id, {
      chunk: undefined,
      whole(value) {
        if (value === undefined) reject(new TypeError("The request's body does not fit into a string"));
        else settle(resolve, reject, finish, value);
      },
      failed: reject,
    });
  });
}

/** Reads a stream to its end. Also a read request of it. */
class Collector {
  #reader;
  #chunks = [];
  #length = 0;
  #asText;
  #finish;
  #capability = PromiseWithResolvers();

  constructor(stream, asText, finish) {
    this.#reader = acquireDefaultReader(streams.readableRecordOf(stream));
    this.#asText = asText;
    this.#finish = finish;
  }

  run() {
    readerRead(this.#reader, this);
    return this.#capability.promise;
  }

  chunk(chunk) {
    if (!isUint8Array(chunk)) {
      const error = new TypeError("The body's stream has a chunk that is not a Uint8Array");
      primordials.setPromiseHandled(readerCancel(this.#reader, error));
      this.#capability.reject(error);
      return;
    }
    ArrayPrototypePush(this.#chunks, chunk);
    this.#length += TypedArrayPrototypeGetByteLength(chunk);
    readerRead(this.#reader, this);
  }

  close() {
    const bytes = this.#chunks.length === 1 ? this.#chunks[0] : new Uint8Array(this.#length);
    if (this.#chunks.length !== 1) this.#join(bytes);
    const { resolve, reject } = this.#capability;
    settle(resolve, reject, this.#finish, this.#asText ? decodeUtf8(bytes) : copyBytes(bytes));
  }

  #join(bytes) {
    let at = 0;
    for (let i = 0; i < this.#chunks.length; i++) {
      TypedArrayPrototypeSet(bytes, this.#chunks[i], at);
      at += TypedArrayPrototypeGetByteLength(this.#chunks[i]);
    }
  }

  error(reason) {
    this.#capability.reject(reason);
  }
}

function isUint8Array(value) {
  return ArrayBufferIsView(value) && TypedArrayPrototypeGetSymbolToStringTag(value) === 'Uint8Array';
}

function consumeStream(stream, asText, finish) {
  return new Collector(stream, asText, finish).run();
}

/**
 * Moves a body to another owner, for whom it is as good as unread; the first keeps a body that has been read.
 * https://fetch.spec.whatwg.org/#body-create-a-proxy
 */
function moveBody(body) {
  const source = takeSource(body);
  if (source !== undefined) return new Body(source, undefined, undefined);
  if (body.stream === undefined) {
    const { exchange } = body;
    body.source = '';
    body.exchange = undefined;
    body.used = true;
    return new Body(undefined, exchange, undefined);
  }
  const transform = streams.createTransformRecord((chunk, record) => record.enqueue(chunk), () => undefined);
  const piped = streams.readableStreamPipeTo(streams.readableRecordOf(body.stream), transform.writable, { __proto__: null });
  primordials.setPromiseHandled(piped);
  return new Body(undefined, undefined, streams.readableShellOf(transform.readable));
}

/** Gives a body's bytes to two owners; returns the second, and the first keeps `body`. */
function cloneBody(body) {
  if (body.stream === undefined && body.exchange === undefined) return new Body(body.source, undefined, undefined);
  const { first, second } = streams.teeRecord(streams.readableRecordOf(streamOf(body)), true);
  body.stream = streams.readableShellOf(first);
  return new Body(undefined, undefined, streams.readableShellOf(second));
}

/**
 * Defines the Body mixin on an interface. `bodyOf(object)` checks the brand and returns the Body or
 * undefined.
 */
function defineMixin(constructor, bodyOf) {
  /** The content type its headers give, or ''. */
  const typeOf = (object) => internals.headers.getCombined(internals.headers.listOf(object.headers), 'content-type') ?? '';
  /** No async function: what has failed already is a rejected promise at once. */
  const take = (object, name, asText, finish) => {
    try {
      const body = bodyOf(object);
      if (body === undefined) return PromiseResolve(finish(asText ? '' : new Uint8Array(0)));
      if (isUnusable(body)) {
        throw new TypeError(`Failed to execute '${name}' on '${constructor.name}': the body has been read or is locked`);
      }
      return consume(body, asText, finish);
    } catch (error) {
      return PromiseReject(error);
    }
  };
  const mixin = {
    get body() {
      const body = bodyOf(this);
      return body === undefined ? null : streamOf(body);
    },
    get bodyUsed() {
      const body = bodyOf(this);
      return body !== undefined && isUsed(body);
    },
    arrayBuffer() {
      return take(this, 'arrayBuffer', false, (bytes) => TypedArrayPrototypeGetBuffer(bytes));
    },
    blob() {
      return take(this, 'blob', false, (bytes) => makeBlob(bytes, ops.mime_extract(typeOf(this))));
    },
    bytes() {
      return take(this, 'bytes', false, same);
    },
    formData() {
      const prefix = `Failed to execute 'formData' on '${constructor.name}'`;
      return take(this, 'formData', false, (bytes) => parseForm(bytes, typeOf(this), prefix));
    },
    json() {
      return take(this, 'json', true, (text) => JSONParse(text));
    },
    text() {
      return take(this, 'text', true, same);
    },
  };
  const names = primordials.ReflectOwnKeys(mixin);
  for (let i = 0; i < names.length; i++) {
    const descriptor = primordials.ReflectGetOwnPropertyDescriptor(mixin, names[i]);
    primordials.ObjectDefineProperty(constructor.prototype, names[i], descriptor);
  }
}

/** (id, bytes or undefined, done): the piece that `ops.http_body_pull` asked for. */
internals.callbacks.httpBodyChunk = (id, bytes, done) => {
  waiting.take(id)?.chunk?.(bytes, done);
};

/** (id, text or bytes): the body that `ops.http_body_whole` asked for. */
internals.callbacks.httpBodyWhole = (id, value) => {
  waiting.take(id)?.whole?.(value);
};

/** (id, message): the body is malformed or too large. */
internals.callbacks.httpBodyFailed = (id, message) => {
  waiting.take(id)?.failed(new TypeError(message));
};

internals.body = {
  Body,
  noType,
  textType,
  extract,
  isUsed,
  isUnusable,
  isUint8Array,
  streamOf,
  takeSource,
  copyBytes,
  /** (body, asText, finish): what `finish` makes of all bytes of a body, a promise. */
  consume,
  cloneBody,
  moveBody,
  defineMixin,
  clientGone,
  /** The client of a request is gone: nobody will send the rest of its body. */
  abandon(id) {
    if (waiting.size > 0) waiting.take(id)?.failed(clientGone());
  },
  acquireDefaultReader,
  readerRelease,
};
