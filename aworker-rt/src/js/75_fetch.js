//! fetch. Connections, framing and decoding are native (src/net); here are the standard's steps
//! around them: schemes, redirects, abort, the bodies' streams.
//! https://fetch.spec.whatwg.org/#fetching
//!
//! As in other server runtimes no server is asked whether it shares what it answers: nothing is opaque, cookies are the
//! script's business, and every response has the type `basic`. Fields that frame the message or name its place are ours.

const {
  ArrayBufferIsView,
  ArrayPrototypePush,
  ArrayPrototypeShift,
  ArrayPrototypeSplice,
  Error,
  Promise,
  PromiseReject,
  NumberPrototypeToString,
  RegExpPrototypeExec,
  SafeFinalizationRegistry,
  StringPrototypeCharCodeAt,
  StringPrototypeIndexOf,
  StringPrototypeSlice,
  StringPrototypeStartsWith,
  StringPrototypeToLowerCase,
  StringPrototypeToUpperCase,
  TypeError,
  TypedArrayPrototypeGetByteLength,
  TypedArrayPrototypeSubarray,
  Uint8Array,
  WeakRef,
  WeakRefPrototypeDeref,
} = primordials;
const { requiredArguments, converters } = internals.webidl;
const { DOMException, streams, exposeFunction } = internals;
const { Request, fetchParts } = internals.request;
const { createFetched, Response } = internals.response;
const { Body, isUint8Array, streamOf, takeSource } = internals.body;
const { getCombined, has, toBlock } = internals.headers;
const { isAborted, abortReason, addAlgorithm, removeAlgorithm } = internals.abort;
const { acquireDefaultReader, readerRead, readerCancel } = streams.readable;
const { URL } = internals.url;
const { report } = internals.resourceTiming;
const { senderOf } = internals.fetchOrigin;
const { isBadPort, matchesIntegrity } = internals.fetchChecks;

/** Redirects that are followed. https://fetch.spec.whatwg.org/#http-redirect-fetch */
const maxRedirects = 20;

/** Fields that the connection decides, or that say where a request goes. */
const ownFields = {
  __proto__: null,
  'connection': true, 'content-length': true, 'expect': true, 'host': true, 'http2-settings': true, 'keep-alive': true,
  'proxy-connection': true, 'te': true, 'trailer': true, 'transfer-encoding': true, 'upgrade': true,
};
/** Fields that another origin must not see. */
const secretFields = { __proto__: null, 'authorization': true, 'cookie': true, 'proxy-authorization': true };
/** Fields that describe a body. */
const bodyFields = {
  __proto__: null, 'content-encoding': true, 'content-language': true, 'content-location': true, 'content-type': true,
};

/** A TypeError with what went wrong as its cause. */
function networkError(code, text) {
  const cause = new Error(text);
  if (code !== '') cause.code = code;
  return new TypeError(text, { __proto__: null, cause });
}

/** From `[code, text]`. */
function errorOf(failure) {
  return networkError(failure[0], failure[1]);
}

/** Exchanges whose head or body somebody waits for, by number. */
const waiting = new internals.NumberTable();
/** Those whose request is still being sent, with who sends it: the response may be read meanwhile. */
const uploads = new internals.NumberTable();

/** Streams whose end somebody waits for without reading, by exchange; weakly, for it may be that nobody waits any more. */
const endings = new internals.NumberTable();

/** Cuts off exchanges whose body nobody can read any more; made when first needed. */
let forgotten;

function watch(record, id, timing) {
  forgotten ??= new SafeFinalizationRegistry((exchange) => {
    endings.take(exchange.id);
    ops.net_drop(exchange.id);
    if (exchange.timing !== undefined) conclude(exchange.timing);
  });
  forgotten.register(record, { __proto__: null, id, timing }, record);
}

/** Nothing more comes of a fetch: it becomes a resource of the timeline. */
function conclude(timing) {
  timing.responseEnd = ops.performance_now();
  report(timing);
}

/**
 * A byte stream of an exchange's body. `read` hears how much has come, `ended` is called once nothing more can come, unless
 * the stream is collected: then only `timing` is concluded.
 */
function bodyStream(id, timing, read, ended) {
  let record;
  const finish = () => {
    forgotten?.unregister(record);
    endings.take(id);
    ops.net_drop(id);
    ended();
  };
  const pull = () => {
    const piece = ops.net_pull(id);
    if (piece === undefined) {
      return new Promise((resolve) => {
        waiting.set(id, { __proto__: null, onBody: () => resolve(pull()), settle: resolve });
      });
    }
    if (piece === true) {
      finish();
      record.controller.close();
    } else if (ArrayBufferIsView(piece)) {
      read(TypedArrayPrototypeGetByteLength(piece));
      record.controller.enqueue(piece);
    } else {
      finish();
      record.controller.error(errorOf(piece));
    }
    return undefined;
  };
  record = streams.byte.createByteRecord(() => (record.state === 'readable' ? pull() : undefined), () => {
    waiting.take(id);
    finish();
  });
  record.end = {
    __proto__: null,
    awaited() {
      if (endings.get(id) !== undefined) return;
      endings.set(id, new WeakRef(record));
      ops.net_await_end(id);
    },
    reached() {
      if (record.state === 'readable') pull();
    },
  };
  watch(record, id, timing);
  return {
    record,
    fail(reason) {
      const waiter = waiting.take(id);
      finish();
      if (record.state === 'readable') record.controller.error(reason);
      waiter?.settle();
    },
  };
}

/** Moves a request's stream to its exchange; a read request of the stream. */
class Uploader {
  #id;
  #reader;
  #onError;
  #looping = false;
  #again = false;
  #reading = false;
  #finished = false;

  constructor(id, stream, onError) {
    this.#id = id;
    this.#reader = acquireDefaultReader(streams.readableRecordOf(stream));
    this.#onError = onError;
    uploads.set(id, this);
  }

  run() {
    if (this.#looping || this.#reading || this.#finished) return;
    this.#looping = true;
    do {
      this.#again = false;
      this.#reading = true;
      readerRead(this.#reader, this);
    } while (this.#again);
    this.#looping = false;
  }

  chunk(chunk) {
    this.#reading = false;
    if (this.#finished) return;
    if (!isUint8Array(chunk)) {
      const error = new TypeError("The request's stream has a chunk that is not a Uint8Array");
      this.cancel(error);
      this.#onError(error);
      return;
    }
    const answer = ops.net_push(this.#id, chunk);
    if (answer === 2) {
      this.cancel(new DOMException('The response has ended before the request', 'AbortError'));
    } else if (answer === 0) {
      if (this.#looping) this.#again = true;
      else this.run();
    }
    // Else the connection is slow: a `Room` event goes on.
  }

  close() {
    if (this.#finish()) ops.net_end(this.#id);
  }

  error(reason) {
    if (this.#finish()) this.#onError(reason);
  }

  cancel(reason) {
    if (this.#finish()) primordials.setPromiseHandled(readerCancel(this.#reader, reason));
  }

  /** Whether it had not been finished before. */
  #finish() {
    if (this.#finished) return false;
    this.#finished = true;
    uploads.take(this.#id);
    return true;
  }
}

/** One call of fetch: its request, through redirects, to its response. */
class Fetch {
  #method;
  #url;
  #list;
  #body;
  /** The body's bytes, if they were there at once: they can be sent again. */
  #source = undefined;
  #options;
  #signal;
  #redirects = 0;
  /** It was sent once more because the first connection led to the wrong server. */
  #isRepeated = false;
  #id = 0;
  #uploader = undefined;
  #stream = undefined;
  #abort;
  /** What a PerformanceResourceTiming tells; undefined where none is made, or one was. */
  #timing = undefined;
  /** The Blob of a `blob:` URL. */
  #blob;
  /** Whom the request tells to come from; undefined for nobody. */
  #sender;
  /** { response(response), failed(reason) } */
  #client;

  constructor({ method, url, list, body, signal, options, blob }, client) {
    this.#method = method;
    this.#url = new URL(url);
    this.#list = list;
    this.#body = body;
    this.#options = options;
    this.#signal = signal;
    this.#blob = blob;
    this.#sender = senderOf(options);
    this.#client = client;
    this.#abort = () => this.#aborted();
  }

  start() {
    addAlgorithm(this.#signal, this.#abort);
    const scheme = this.#url.protocol;
    if (scheme === 'http:' || scheme === 'https:') {
      const start = ops.performance_now();
      this.#timing = {
        __proto__: null, name: this.#url.href, initiatorType: this.#client.initiatorType ?? 'fetch', start, redirectEnd: 0,
        fetchStart: start, isSecure: false, responseStart: 0, responseEnd: 0, status: 0, size: 0, contentType: '',
      };
      this.#send();
    } else {
      this.#local(scheme);
    }
  }

  /** https://fetch.spec.whatwg.org/#fetch-finale: once. */
  #report() {
    const timing = this.#timing;
    if (timing === undefined) return;
    this.#timing = undefined;
    timing.isSecure = this.#url.protocol === 'https:';
    conclude(timing);
  }

  /** Schemes that need no connection. */
  #local(scheme) {
    const { href } = this.#url;
    if (scheme === 'data:') {
      const parsed = ops.net_data_url(href);
      if (parsed === undefined) return this.#fail(networkError('', 'fetch: the data: URL is malformed'));
      return this.#answer(200, 'OK', ['content-type', parsed[0]], this.#method === 'HEAD' ? new Uint8Array(0) : parsed[1]);
    }
    if (scheme === 'blob:') return this.#localBlob(href);
    if (scheme === 'file:') {
      if (this.#method !== 'GET') return this.#fail(networkError('', 'fetch: files can only be read'));
      const path = ops.net_file_path(href);
      if (typeof path !== 'string') return this.#fail(networkError(path[0], `fetch ${href}: ${path[1]}`));
      primordials.setPromiseHandled(this.#localFile(path));
      return undefined;
    }
    return this.#fail(networkError('', `fetch: URLs of the scheme '${scheme}' cannot be fetched`));
  }

  /** Reads a file as `Aworker.files` does: without waiting for a device in place. */
  async #localFile(path) {
    let bytes;
    try {
      bytes = await ops.file_bytes(path);
    } catch (error) {
      this.#fail(networkError(error.code, `fetch ${this.#url.href}: ${error.message}`));
      return;
    }
    this.#answer(200, 'OK', [], bytes);
  }

  /** https://fetch.spec.whatwg.org/#scheme-fetch, "blob" */
  #localBlob(href) {
    const blob = this.#blob;
    if (this.#method !== 'GET') return this.#fail(networkError('', 'fetch: a blob can only be read'));
    if (blob === undefined) return this.#fail(networkError('', `fetch: no blob has the URL ${href}`));
    const bytes = internals.blob.bytesOf(blob);
    const size = TypedArrayPrototypeGetByteLength(bytes);
    const type = internals.blob.typeOf(blob);
    const wanted = getCombined(this.#list, 'range');
    if (wanted === null) {
      return this.#answer(200, 'OK', ['content-length', `${size}`, 'content-type', type], bytes);
    }
    const range = parseRange(wanted, size);
    if (range === undefined) return this.#fail(networkError('', `fetch: the range '${wanted}' cannot be satisfied`));
    const part = TypedArrayPrototypeSubarray(bytes, range.start, range.end + 1);
    const list = [
      'content-length', `${range.end + 1 - range.start}`,
      'content-type', type,
      'content-range', `bytes ${range.start}-${range.end}/${size}`,
    ];
    return this.#answer(206, 'Partial Content', list, part);
  }

  #send() {
    if (isBadPort(this.#url)) {
      this.#fail(networkError('', `fetch ${this.#url.href}: nothing is sent to port ${this.#url.port}, which is another protocol's`));
      return;
    }
    if (this.#sender !== undefined && !this.#sender.visit(this.#url)) {
      this.#fail(networkError('', `fetch ${this.#url.href}: it is of another origin, and the mode is 'same-origin'`));
      return;
    }
    const list = this.#networkList();
    let source;
    if (this.#body !== undefined) source = (this.#source ??= takeSource(this.#body)) ?? true;
    try {
      this.#id = ops.net_fetch(this.#method, this.#url.href, toBlock(list) ?? '', source, this.#isRepeated);
    } catch (error) {
      this.#fail(error);
      return;
    }
    waiting.set(this.#id, this);
    if (source === true) {
      this.#uploader = new Uploader(this.#id, streamOf(this.#body), (reason) => this.#fail(reason));
    }
  }

  /** What is sent: the script's fields but ours, and the usual ones. */
  #networkList() {
    const given = this.#list;
    const list = [];
    for (let i = 0; i < given.length; i += 2) {
      if (ownFields[given[i]] === undefined) ArrayPrototypePush(list, given[i], given[i + 1]);
    }
    const add = (name, value) => {
      if (!has(list, name)) ArrayPrototypePush(list, name, value);
    };
    add('accept', '*/*');
    add('accept-language', '*');
    add('user-agent', `Aworker/${ops.version()}`);
    this.#sender?.addFields(list, this.#method);
    const { cache } = this.#options;
    if (cache === 'no-cache') add('cache-control', 'max-age=0');
    if (cache === 'no-store' || cache === 'reload') {
      add('pragma', 'no-cache');
      add('cache-control', 'no-cache');
    }
    add('accept-encoding', has(list, 'range') ? 'identity' : 'gzip, deflate, br, zstd');
    return list;
  }

  // What `netEvent` calls.

  onHead() {
    waiting.take(this.#id);
    const list = ops.net_head(this.#id);
    if (list === undefined) return;
    const status = ArrayPrototypeShift(list);
    if (this.#timing !== undefined) this.#timing.responseStart = ops.performance_now();
    const reason = ArrayPrototypeShift(list);
    if (status === 101) {
      this.#fail(networkError('', `fetch ${this.#url.href}: the server changes to a protocol that nobody has asked for`));
      return;
    }
    // RFC 9110, section 15.5.20: the same on a connection of its own, if it can be sent again.
    if (status === 421 && !this.#isRepeated && (this.#body === undefined || this.#source !== undefined)) {
      this.#isRepeated = true;
      ops.net_discard(this.#id);
      this.#send();
      return;
    }
    const isRedirect = status === 301 || status === 302 || status === 303 || status === 307 || status === 308;
    const location = isRedirect ? getCombined(list, 'location') : null;
    if (location !== null && this.#options.redirect !== 'manual') {
      this.#sender?.hear(getCombined(list, 'referrer-policy') ?? '');
      this.#redirect(status, location);
      return;
    }
    this.#respond(status, reason, list);
  }

  onFailed() {
    waiting.take(this.#id);
    const id = this.#id;
    const failure = ops.net_failure(id);
    this.#fail(errorOf(failure));
  }

  /** https://fetch.spec.whatwg.org/#http-redirect-fetch */
  #redirect(status, location) {
    if (this.#options.redirect === 'error') {
      return this.#fail(networkError('', `fetch ${this.#url.href}: it redirects, and the request says that it must not`));
    }
    const from = this.#url;
    let to;
    try {
      to = new URL(encodeLocation(location), from.href);
    } catch {
      return this.#fail(networkError('', `fetch ${from.href}: it redirects to '${location}', which is no URL`));
    }
    if (to.hash === '') to.hash = from.hash;
    if (to.protocol !== 'http:' && to.protocol !== 'https:') {
      return this.#fail(networkError('', `fetch ${from.href}: it redirects to ${to.protocol}, which is not followed`));
    }
    if (this.#redirects === maxRedirects) return this.#fail(networkError('', `fetch ${from.href}: too many redirects`));
    this.#redirects += 1;
    if (to.username !== '' || to.password !== '') {
      return this.#fail(networkError('', `fetch ${from.href}: it redirects to a URL with credentials`));
    }
    const becomesGet = ((status === 301 || status === 302) && this.#method === 'POST')
      || (status === 303 && this.#method !== 'GET' && this.#method !== 'HEAD');
    if (!becomesGet && this.#body !== undefined && this.#source === undefined) {
      return this.#fail(networkError('', `fetch ${from.href}: it redirects, and a stream cannot be sent again`));
    }
    ops.net_discard(this.#id);
    if (becomesGet) {
      this.#uploader?.cancel(new DOMException('The response redirects', 'AbortError'));
      this.#method = 'GET';
      this.#body = undefined;
      this.#list = without(this.#list, bodyFields);
    }
    this.#uploader = undefined;
    if (to.origin !== from.origin) this.#list = without(this.#list, secretFields);
    this.#url = to;
    if (this.#timing !== undefined) {
      this.#timing.redirectEnd = this.#timing.fetchStart = ops.performance_now();
      this.#timing.responseStart = 0;
    }
    return this.#send();
  }

  #respond(status, reason, list) {
    const isNull = this.#method === 'HEAD' || status === 204 || status === 205 || status === 304;
    let body;
    const timing = this.#timing;
    if (timing !== undefined) {
      timing.isSecure = this.#url.protocol === 'https:';
      timing.status = status;
      timing.contentType = ops.mime_extract(getCombined(list, 'content-type') ?? '');
    }
    if (isNull) {
      ops.net_discard(this.#id);
      this.#end();
    } else {
      this.#stream = bodyStream(this.#id, timing, (length) => { timing.size += length; }, () => {
        this.#end();
        this.#uploader?.cancel(new DOMException('The response has ended before the request', 'AbortError'));
      });
      body = new Body(undefined, undefined, streams.readableShellOf(this.#stream.record));
    }
    const { integrity } = this.#options;
    if (integrity !== '') {
      this.#verify(status, reason, list, body, integrity);
      return;
    }
    this.#client.response(this.#made(status, reason, list, body));
  }

  #made(status, reason, list, body) {
    const { href } = this.#url;
    const end = StringPrototypeIndexOf(href, '#');
    const url = end === -1 ? href : StringPrototypeSlice(href, 0, end);
    return createFetched(status, reason, list, body, { __proto__: null, url, redirected: this.#redirects > 0 });
  }

  /** A response without a connection. */
  #answer(status, reason, list, bytes) {
    const { integrity } = this.#options;
    this.#end();
    if (integrity !== '' && !matchesIntegrity(bytes, integrity)) {
      this.#client.failed(networkError('', `fetch ${this.#url.href}: the body does not match 'integrity'`));
      return;
    }
    this.#client.response(this.#made(status, reason, list, new Body(bytes, undefined, undefined)));
  }

  /** Hands the response over once its body is known to be the right one. */
  async #verify(status, reason, list, body, integrity) {
    try {
      const bytes = await internals.body.consume(body ?? new Body('', undefined, undefined), false);
      if (!matchesIntegrity(bytes, integrity)) {
        throw networkError('', `fetch ${this.#url.href}: the body does not match 'integrity'`);
      }
      this.#client.response(this.#made(status, reason, list, new Body(bytes, undefined, undefined)));
    } catch (error) {
      this.#client.failed(error);
    }
  }

  /** Nothing more can be aborted. */
  #end() {
    this.#report();
    removeAlgorithm(this.#signal, this.#abort);
    waiting.take(this.#id);
  }

  #fail(error) {
    this.#end();
    waiting.take(this.#id);
    if (this.#id !== 0) ops.net_drop(this.#id);
    this.#uploader?.cancel(error);
    if (this.#stream !== undefined) this.#stream.fail(error);
    this.#client.failed(error);
  }

  #aborted() {
    const reason = abortReason(this.#signal);
    if (this.#body !== undefined && this.#uploader === undefined) cancelUnread(this.#body, reason);
    this.#fail(reason);
  }
}

/** Cancels the stream of a body that nobody reads. */
function cancelUnread(body, reason) {
  if (body.stream === undefined) return;
  const record = streams.readableRecordOf(body.stream);
  if (record.state !== 'readable' || record.reader !== undefined) return;
  primordials.setPromiseHandled(streams.readable.readableStreamCancel(record, reason));
}

/** A Location field's value with the bytes beyond ASCII percent-encoded, whatever encoding they are of. */
function encodeLocation(value) {
  let text = '';
  for (let i = 0; i < value.length; i++) {
    const code = StringPrototypeCharCodeAt(value, i);
    text += code < 0x80 ? value[i] : `%${StringPrototypeToUpperCase(NumberPrototypeToString(code, 16))}`;
  }
  return text;
}

/** A list without fields of these names. */
function without(list, names) {
  const rest = [];
  for (let i = 0; i < list.length; i += 2) {
    if (names[list[i]] === undefined) ArrayPrototypePush(rest, list[i], list[i + 1]);
  }
  return rest;
}

const singleRange = /^bytes[\t ]*=[\t ]*([0-9]*)[\t ]*-[\t ]*([0-9]*)$/;

/** One range of a size, as `{ start, end }`; undefined if there is none. */
function parseRange(value, size) {
  const match = RegExpPrototypeExec(singleRange, value);
  if (match === null || (match[1] === '' && match[2] === '')) return undefined;
  let start;
  let end = size - 1;
  if (match[1] === '') {
    start = size - +match[2];
    if (start < 0) start = 0;
  } else {
    start = +match[1];
    if (match[2] !== '' && +match[2] < end) end = +match[2];
    if (match[2] !== '' && +match[2] < start) return undefined;
  }
  return start > end ? undefined : { start, end };
}

/** Begins to fetch a Request of a script; `client` is told once. */
function begin(request, client) {
  const parts = fetchParts(request);
  if (isAborted(parts.signal)) {
    const reason = abortReason(parts.signal);
    if (parts.body !== undefined) cancelUnread(parts.body, reason);
    client.failed(reason);
    return;
  }
  if (parts.options.cache === 'only-if-cached') {
    client.failed(networkError('', 'fetch: there is no cache to look into'));
    return;
  }
  new Fetch(parts, client).start();
}

// A method, and so no constructor.
const { fetch } = {
  fetch(input, init = undefined) {
    let request;
    try {
      requiredArguments(arguments.length, 1, "Failed to execute 'fetch'");
      request = new Request(input, init);
    } catch (error) {
      return PromiseReject(error);
    }
    return new Promise((resolve, reject) => begin(request, { __proto__: null, response: resolve, failed: reject }));
  },
};

exposeFunction('fetch', fetch);

const kinds = ['onHead', 'onBody', 'onRoom', 'onFailed'];

/** Things that have events besides exchanges: { event(kind, id) }. */
const eventHandlers = [];

/** (kind, id): something has happened to an exchange. */
internals.callbacks.netEvent = (kind, id) => {
  if (kind >= kinds.length) {
    for (let i = 0; i < eventHandlers.length; i++) eventHandlers[i](kind, id);
    return;
  }
  const method = kinds[kind];
  if (method === 'onRoom') {
    uploads.get(id)?.run();
    return;
  }
  const waiter = waiting.get(id);
  if (waiter === undefined) {
    const ending = method === 'onBody' ? endings.get(id) : undefined;
    if (ending !== undefined) WeakRefPrototypeDeref(ending)?.end.reached();
    return;
  }
  if (method === 'onBody') waiting.take(id);
  if (typeof waiter[method] === 'function') waiter[method]();
  // Only a seed's exchange fails after its head: the pull that waits finds out why.
  else if (method === 'onFailed') waiter.onBody?.();
};

internals.fetch = { begin, networkError, eventHandlers, isBadPort };
