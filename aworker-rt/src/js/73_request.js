//! Request. https://fetch.spec.whatwg.org/#request-class
//!
//! A request that came over HTTP holds its number and asks for method, URL, headers and body when
//! somebody asks it. Its head may be read by number only while it is dispatched; `retain` makes it
//! independent of the connection's buffer.

const { TypeError } = primordials;
const { converters, enumConverter, requiredArguments, isObject, defineInterface, kConstruct } = internals.webidl;
const { exposeInterface, headers: headersModule } = internals;
const { guards } = headersModule;
const { Body, extract, isUnusable, cloneBody, moveBody, defineMixin } = internals.body;
const { URL } = internals.url;
const { createSignal, createDependentSignal, isAbortSignal, isAborted, signalAbort } = internals.abort;

const toCache = enumConverter('RequestCache', ['default', 'no-store', 'reload', 'no-cache', 'force-cache', 'only-if-cached']);
const toCredentials = enumConverter('RequestCredentials', ['omit', 'same-origin', 'include']);
const toDuplex = enumConverter('RequestDuplex', ['half']);
const toMode = enumConverter('RequestMode', ['navigate', 'same-origin', 'no-cors', 'cors']);
const toPriority = enumConverter('RequestPriority', ['high', 'low', 'auto']);
const toRedirect = enumConverter('RequestRedirect', ['follow', 'error', 'manual']);
const toReferrerPolicy = enumConverter('ReferrerPolicy', [
  '', 'no-referrer', 'no-referrer-when-downgrade', 'same-origin', 'origin', 'strict-origin', 'origin-when-cross-origin',
  'strict-origin-when-cross-origin', 'unsafe-url',
]);

const upperMethods = { __proto__: null, DELETE: 'DELETE', GET: 'GET', HEAD: 'HEAD', OPTIONS: 'OPTIONS', POST: 'POST', PUT: 'PUT' };
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** A normalised method, or a TypeError. */
function toMethod(value, prefix) {
  const method = converters.ByteString(value, prefix, "'method'");
  if (primordials.RegExpPrototypeExec(token, method) === null) throw new TypeError(`${prefix}: '${method}' is not a method`);
  const upper = primordials.StringPrototypeToUpperCase(method);
  if (upper === 'CONNECT' || upper === 'TRACE' || upper === 'TRACK') {
    throw new TypeError(`${prefix}: the method '${method}' is forbidden`);
  }
  return upperMethods[upper] ?? method;
}

/** The serialised URL of a request made by a script, or a TypeError. */
function toUrl(input, prefix) {
  let url;
  try {
    const text = converters.USVString(input, prefix, 'Argument 1');
    const base = internals.workerScope.baseURL();
    url = base === undefined ? new URL(text) : new URL(text, base);
  } catch {
    throw new TypeError(`${prefix}: '${input}' is not a URL`);
  }
  if (url.username !== '' || url.password !== '') throw new TypeError(`${prefix}: the URL has credentials`);
  return url.href;
}

/** What `referrer` is for an init's member: a URL of the script's own origin, 'about:client' for any other, '' for none. */
function toReferrer(value, prefix) {
  const text = converters.USVString(value, prefix, "'referrer'");
  if (text === '') return '';
  const base = internals.workerScope.baseURL();
  try {
    const url = base === undefined ? new URL(text) : new URL(text, base);
    const { origin } = url;
    const isOwn = base !== undefined && origin !== 'null' && origin === new URL(base).origin;
    return isOwn ? url.href : 'about:client';
  } catch {
    throw new TypeError(`${prefix}: the referrer '${text}' is not a URL`);
  }
}

/** Throws where a mode forbids what else a request asks for. */
function checkMode({ mode, cache }, method, prefix) {
  if (mode === 'navigate') throw new TypeError(`${prefix}: the mode 'navigate' is reserved`);
  if (cache === 'only-if-cached' && mode !== 'same-origin') {
    throw new TypeError(`${prefix}: the cache mode 'only-if-cached' is for the mode 'same-origin'`);
  }
  if (mode === 'no-cors' && method !== 'GET' && method !== 'HEAD' && method !== 'POST') {
    throw new TypeError(`${prefix}: the mode 'no-cors' does not go with the method '${method}'`);
  }
}

// Set by the static block.
let isRequest, retain, abortRequest, hasSignal, exchangeOf, fetchParts;

class Request {
  /** Number of the HTTP request, or its head as a string; undefined for a script's own request. */
  #source = undefined;
  #exchange = undefined;
  #method = undefined;
  #url = undefined;
  #headers = undefined;
  /** undefined before it was asked for; null for none. */
  #body = undefined;
  #signal = undefined;
  /** Attributes that mean nothing to a server, as a record; undefined for the defaults. */
  #fetchOptions = undefined;
  /** The Blob that a `blob:` URL named when the request was made. */
  #blob = undefined;

  static {
    isRequest = (value) => isObject(value) && #exchange in value;
    retain = (request) => {
      if (typeof request.#source !== 'number') return;
      request.#source = ops.http_head(request.#source);
    };
    exchangeOf = (request) => {
      if (request.#exchange === undefined) return undefined;
      retain(request);
      return { id: request.#exchange, head: request.#source };
    };
    fetchParts = (request) => ({
      method: request.method,
      url: request.url,
      list: headersModule.listOf(request.headers),
      body: request.#ensureBody() ?? undefined,
      signal: request.signal,
      options: request.#fetchOptions,
      blob: request.#blob,
    });
    hasSignal = (request) => request.#signal !== undefined;
    abortRequest = (request, reason) => {
      if (request.#signal !== undefined) signalAbort(request.#signal, reason);
    };
  }

  constructor(input, init = undefined) {
    if (input === kConstruct) {
      this.#source = init;
      this.#exchange = init;
      return;
    }
    const prefix = "Failed to construct 'Request'";
    requiredArguments(arguments.length, 1, prefix);
    if (init !== undefined && init !== null && !isObject(init)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
    const from = isRequest(input) ? input : undefined;
    this.#url = from === undefined ? toUrl(input, prefix) : from.url;
    this.#blob = from === undefined ? internals.blobUrls.resolve(this.#url) : from.#blob;
    this.#initialize(from, init ?? {}, prefix);
  }

  #initialize(from, init, prefix) {
    // Dictionary members are read in lexicographical order.
    const { body, cache, credentials, duplex, headers, integrity, keepalive, method, mode, priority, redirect, referrer,
      referrerPolicy, signal, window } = init;
    if (window !== undefined && window !== null) throw new TypeError(`${prefix}: 'window' can only be null`);
    if (priority !== undefined) toPriority(priority, prefix, "'priority'");
    const inherited = from === undefined ? undefined : from.#fetchOptions;
    this.#method = method === undefined ? (from?.method ?? 'GET') : toMethod(method, prefix);
    this.#fetchOptions = {
      cache: cache === undefined ? inherited?.cache ?? 'default' : toCache(cache, prefix, "'cache'"),
      credentials: credentials === undefined
        ? inherited?.credentials ?? 'same-origin' : toCredentials(credentials, prefix, "'credentials'"),
      integrity: integrity === undefined ? inherited?.integrity ?? '' : converters.DOMString(integrity, prefix, "'integrity'"),
      keepalive: keepalive === undefined ? inherited?.keepalive ?? false : !!keepalive,
      mode: mode === undefined ? inherited?.mode ?? 'cors' : toMode(mode, prefix, "'mode'"),
      redirect: redirect === undefined ? inherited?.redirect ?? 'follow' : toRedirect(redirect, prefix, "'redirect'"),
      referrer: referrer === undefined ? inherited?.referrer ?? 'about:client' : toReferrer(referrer, prefix),
      referrerPolicy: referrerPolicy === undefined
        ? inherited?.referrerPolicy ?? '' : toReferrerPolicy(referrerPolicy, prefix, "'referrerPolicy'"),
    };
    checkMode(this.#fetchOptions, this.#method, prefix);
    this.#initializeSignal(from, signal, prefix);
    const list = [];
    const guard = this.#guard();
    if (headers !== undefined) headersModule.fill(list, headers, prefix, guard);
    else if (from !== undefined) headersModule.fill(list, from.headers, prefix, guard);
    this.#headers = headersModule.create(list, guard);
    if (duplex !== undefined) toDuplex(duplex, prefix, "'duplex'");
    this.#initializeBody(from, body, duplex, list, prefix);
  }

  /** What the headers take. */
  #guard() {
    return this.#fetchOptions?.mode === 'no-cors' ? guards.noCors : guards.none;
  }

  #initializeSignal(from, signal, prefix) {
    if (signal !== undefined && signal !== null && !isAbortSignal(signal)) {
      throw new TypeError(`${prefix}: 'signal' is not an AbortSignal`);
    }
    const followed = signal === undefined ? from?.signal : signal;
    this.#signal = followed === undefined || followed === null ? createSignal() : createDependentSignal([followed]);
  }

  #initializeBody(from, init, duplex, list, prefix) {
    this.#body = null;
    const inherited = init === undefined && from !== undefined ? from.#ensureBody() : null;
    const given = init !== undefined && init !== null;
    if ((given || inherited !== null) && (this.#method === 'GET' || this.#method === 'HEAD')) {
      throw new TypeError(`${prefix}: a request with the method ${this.#method} has no body`);
    }
    if (given) {
      const made = { body: undefined };
      const type = extract(init, made, prefix);
      if (type !== null && !headersModule.has(list, 'content-type')) {
        headersModule.append(list, 'content-type', type, this.#guard());
      }
      this.#body = typeof made.body === 'string' ? new Body(made.body, undefined, undefined) : made.body;
      if (this.#body.stream !== undefined && duplex === undefined) {
        throw new TypeError(`${prefix}: a request with a stream as its body needs 'duplex'`);
      }
    } else if (inherited !== null) {
      if (isUnusable(inherited)) throw new TypeError(`${prefix}: the body has been read or is locked`);
      this.#body = moveBody(inherited);
    }
  }

  /** The Body, or null. */
  #ensureBody() {
    if (this.#body === undefined) {
      this.#body = ops.http_has_body(this.#source) ? new Body(undefined, this.#exchange, undefined) : null;
    }
    return this.#body;
  }

  static bodyOf(request) {
    return request.#ensureBody() ?? undefined;
  }

  get method() {
    return (this.#method ??= ops.http_method(this.#source));
  }

  get url() {
    return (this.#url ??= ops.http_url(this.#source));
  }

  get headers() {
    return (this.#headers ??= headersModule.create(ops.http_headers(this.#source), guards.immutable));
  }

  get destination() {
    this.#exchange;
    return '';
  }

  get referrer() {
    return this.#fetchOptions === undefined ? 'about:client' : this.#fetchOptions.referrer;
  }

  get referrerPolicy() {
    return this.#fetchOptions === undefined ? '' : this.#fetchOptions.referrerPolicy;
  }

  get mode() {
    return this.#fetchOptions === undefined ? 'cors' : this.#fetchOptions.mode;
  }

  get credentials() {
    return this.#fetchOptions === undefined ? 'same-origin' : this.#fetchOptions.credentials;
  }

  get cache() {
    return this.#fetchOptions === undefined ? 'default' : this.#fetchOptions.cache;
  }

  get redirect() {
    return this.#fetchOptions === undefined ? 'manual' : this.#fetchOptions.redirect;
  }

  get integrity() {
    return this.#fetchOptions === undefined ? '' : this.#fetchOptions.integrity;
  }

  get keepalive() {
    return this.#fetchOptions !== undefined && this.#fetchOptions.keepalive;
  }

  get signal() {
    if (this.#signal === undefined) {
      this.#signal = createSignal();
      internals.fetchEvents.watch(this.#exchange, this);
    }
    return this.#signal;
  }

  get duplex() {
    this.#exchange;
    return 'half';
  }

  clone() {
    const body = this.#ensureBody();
    if (body !== null && isUnusable(body)) {
      throw new TypeError("Failed to execute 'clone' on 'Request': the body has been read or is locked");
    }
    const list = [];
    headersModule.fill(list, this.headers, '');
    const clone = new Request(kConstruct, undefined);
    clone.#method = this.method;
    clone.#url = this.url;
    clone.#headers = headersModule.create(list, this.#guard());
    clone.#body = body === null ? null : cloneBody(body);
    clone.#signal = createDependentSignal([this.signal]);
    clone.#fetchOptions = this.#fetchOptions;
    clone.#blob = this.#blob;
    return clone;
  }
}

const { bodyOf } = Request;
delete Request.bodyOf;
defineMixin(Request, bodyOf);
defineInterface(Request);
exposeInterface(Request);

internals.request = {
  Request,
  isRequest,
  isAborted,
  create: (id) => new Request(kConstruct, id),
  retain,
  hasSignal,
  abortRequest,
  /** A client's request: its number, and its head as a string; undefined for a script's own request. */
  exchangeOf,
  /** What `fetch` needs of a request that a script made. */
  fetchParts,
};
