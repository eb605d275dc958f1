//! FetchEvent, and the dispatch of HTTP requests to `fetch` listeners or to the module's default
//! export. https://w3c.github.io/ServiceWorker/#fetchevent-interface
//!
//! A handler that throws, rejects or gives no Response costs its request a 500 and a line on
//! stderr, never the worker. A request that no listener answers with `respondWith` gets a 404.

const {
  FunctionPrototypeCall,
  FunctionPrototypeToString,
  PromisePrototypeThen,
  PromiseResolve,
  StringPrototypeIndexOf,
  StringPrototypeSlice,
  StringPrototypeTrim,
  TypeError,
} = primordials;
const { converters, requiredArguments, isObject, defineInterface, kConstruct } = internals.webidl;
const { DOMException, exposeInterface, streams } = internals;
const { dispatchTrustedTo, isDispatching } = internals.events;
const { ExtendableEvent, extendLifetime, defaultExport, environment } = internals.lifecycle;
const { isResponse, partsOf, Response } = internals.response;
const { isRequest, create: createRequest, retain, abortRequest } = internals.request;
const { isUnusable, isUint8Array, takeSource, abandon, clientGone } = internals.body;
const { toBlock, listOf } = internals.headers;
const { acquireDefaultReader, readerRead, readerCancel } = streams.readable;

/** Requests whose client's leaving matters, by number: { request, pump }. */
const watched = new internals.NumberTable();

function watchRecord(id) {
  let record = watched.get(id);
  if (record === undefined) watched.set(id, record = { request: undefined, pump: undefined });
  return record;
}

function unwatch(id) {
  if (watched.size > 0) watched.take(id);
}

internals.fetchEvents = {
  /** The request has a signal to be aborted. */
  watch(id, request) {
    watchRecord(id).request = request;
  },
};

/** The handler failed: tell it, and answer if that is still possible. */
function fail(id, error) {
  ops.print(2, `Uncaught (in fetch) ${internals.inspect(error)}\n`);
  ops.http_fail(id, 500);
  unwatch(id);
}

/**
 * Sends what a handler returned. Returns a string if that is all of a 200 response's body: native
 * code takes it from there.
 */
function send(id, response) {
  if (!isResponse(response)) {
    fail(id, new TypeError('The handler gave no Response'));
    return undefined;
  }
  const body = partsOf.body(response);
  const status = partsOf.status(response);
  const headers = partsOf.headers(response);
  if (typeof body === 'string') {
    partsOf.setBody(response, usedBody);
    if (status === 200 && headers === undefined && partsOf.contentType(response) === 1 && partsOf.statusText(response) === '') {
      unwatch(id);
      return body;
    }
    respond(id, response, status, headers, body);
    return undefined;
  }
  if (body !== undefined && isUnusable(body)) {
    fail(id, new TypeError("The response's body has been read or is locked"));
    return undefined;
  }
  if (partsOf.kind(response) === 'error') {
    fail(id, new TypeError('The handler gave a network error'));
    return undefined;
  }
  if (status === 101) {
    upgrade(id, response, headers);
    return undefined;
  }
  const source = body === undefined ? undefined : takeSource(body);
  if (body === undefined || source !== undefined) {
    respond(id, response, status, headers, source);
    return undefined;
  }
  startStream(id, response, status, headers, internals.body.streamOf(body));
  return undefined;
}

/** The request becomes a WebSocket; 426 tells a client that has not asked for one. */
function upgrade(id, response, headers) {
  if (internals.webSocket.upgrade(id, response, headers === undefined ? '' : toBlock(listOf(headers)))) {
    unwatch(id);
    return;
  }
  const list = ['upgrade', 'websocket', 'sec-websocket-version', '13'];
  send(id, new Response('this is a WebSocket\n', { status: 426, headers: internals.headers.create(list, internals.headers.guards.none) }));
}

/** Stands for the body of a response that was sent. */
const usedBody = new internals.body.Body('', undefined, undefined);
usedBody.used = true;

function respond(id, response, status, headers, body) {
  unwatch(id);
  if (headers === undefined) {
    ops.http_respond(id, status, partsOf.statusText(response), undefined, 0, partsOf.contentType(response), body);
    return;
  }
  const list = listOf(headers);
  ops.http_respond(id, status, partsOf.statusText(response), toBlock(list), list.length / 2, 0, body);
}

function startStream(id, response, status, headers, stream) {
  const list = headers === undefined ? undefined : listOf(headers);
  const block = list === undefined ? undefined : toBlock(list);
  const count = list === undefined ? 0 : list.length / 2;
  const reader = acquireDefaultReader(streams.readableRecordOf(stream));
  const wanted = ops.http_start(id, status, partsOf.statusText(response), block, count, partsOf.contentType(response));
  const pump = new Pump(id, reader);
  if (!wanted) {
    pump.cancel(clientGone());
    return;
  }
  watchRecord(id).pump = pump;
  pump.run();
}

/** Moves a stream's chunks to the connection; a read request of the stream. */
class Pump {
  #id;
  #reader;
  /** `run` is on the stack. */
  #looping = false;
  /** `run` shall read once more. */
  #again = false;
  /** A read has not been answered yet. */
  #reading = false;
  #finished = false;

  constructor(id, reader) {
    this.#id = id;
    this.#reader = reader;
  }

  /** Reads as long as chunks are there and the client takes them. */
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
      const error = new TypeError("The response's stream has a chunk that is not a Uint8Array");
      this.cancel(error);
      fail(this.#id, error);
      return;
    }
    const answer = ops.http_write(this.#id, chunk);
    if (answer === 2) {
      this.cancel(clientGone());
    } else if (answer === 0) {
      if (this.#looping) this.#again = true;
      else this.run();
    }
    // Else the client is slow: `httpDrained` goes on.
  }

  close() {
    if (this.#finished) return;
    this.#finished = true;
    unwatch(this.#id);
    ops.http_end(this.#id);
  }

  error(reason) {
    if (this.#finished) return;
    this.#finished = true;
    fail(this.#id, reason);
  }

  cancel(reason) {
    if (this.#finished) return;
    this.#finished = true;
    unwatch(this.#id);
    primordials.setPromiseHandled(readerCancel(this.#reader, reason));
  }
}

class FetchEvent extends ExtendableEvent {
  #id = undefined;
  #request = undefined;
  /** What respondWith was given. */
  #answer = undefined;
  #answered = false;
  #clientId = '';
  #resultingClientId = '';
  #replacesClientId = '';

  constructor(type, eventInitDict) {
    if (type === kConstruct) {
      super('fetch', kConstruct);
      this.#id = eventInitDict;
      return;
    }
    const prefix = "Failed to construct 'FetchEvent'";
    requiredArguments(arguments.length, 2, prefix);
    super(type, eventInitDict);
    if (!isObject(eventInitDict)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
    const { clientId, replacesClientId, request, resultingClientId } = eventInitDict;
    if (clientId !== undefined) this.#clientId = converters.DOMString(clientId, prefix, "'clientId'");
    if (replacesClientId !== undefined) this.#replacesClientId = converters.DOMString(replacesClientId, prefix, "'replacesClientId'");
    if (!isRequest(request)) throw new TypeError(`${prefix}: 'request' is not a Request`);
    this.#request = request;
    if (resultingClientId !== undefined) this.#resultingClientId = converters.DOMString(resultingClientId, prefix, "'resultingClientId'");
  }

  get request() {
    return (this.#request ??= createRequest(this.#id));
  }

  get clientId() {
    return this.#clientId;
  }

  get resultingClientId() {
    return this.#resultingClientId;
  }

  get replacesClientId() {
    return this.#replacesClientId;
  }

  respondWith(r) {
    const prefix = "Failed to execute 'respondWith' on 'FetchEvent'";
    this.#id;
    requiredArguments(arguments.length, 1, prefix);
    if (!isDispatching(this)) throw new DOMException(`${prefix}: the event is not being dispatched`, 'InvalidStateError');
    if (this.#answered) throw new DOMException(`${prefix}: the event has been responded to`, 'InvalidStateError');
    this.stopImmediatePropagation();
    this.#answered = true;
    this.#answer = r;
  }

  static dispatch(id) {
    const event = new FetchEvent(kConstruct, id);
    let thrown = false;
    let error;
    dispatchTrustedTo(globalThis, event, (exception) => {
      if (!thrown) error = exception;
      thrown = true;
    });
    const request = event.#request;
    let text;
    if (event.#answered) {
      if (thrown) ops.print(2, `Uncaught (in fetch) ${internals.inspect(error)}\n`);
      text = settle(id, event.#answer);
    } else if (thrown) {
      fail(id, error);
    } else {
      text = send(id, new Response('no fetch listener answered this request\n', { status: 404 }));
    }
    if (request !== undefined) retain(request);
    return text;
  }
}

const { dispatch: dispatchEvent } = FetchEvent;
delete FetchEvent.dispatch;
defineInterface(FetchEvent);
internals.events.inheritIsTrusted(FetchEvent.prototype);
exposeInterface(FetchEvent);

/** The third argument of a module's `fetch`. */
class ExecutionContext {
  /** Carries the promises; made when it is first needed. */
  #event = undefined;

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'ExecutionContext': Illegal constructor");
  }

  waitUntil(promise) {
    requiredArguments(arguments.length, 1, "Failed to execute 'waitUntil' on 'ExecutionContext'");
    this.#event ??= new ExtendableEvent('fetch');
    extendLifetime(this.#event, promise);
  }
}

defineInterface(ExecutionContext);

/** Sends a handler's result at once if it is a Response, else when it is settled. */
function settle(id, result) {
  if (isResponse(result)) return send(id, result);
  if (!isObject(result)) return send(id, result);
  PromisePrototypeThen(
    PromiseResolve(result),
    (response) => {
      try {
        const text = send(id, response);
        if (text !== undefined) ops.http_respond(id, 200, '', undefined, 0, 1, text);
      } catch (error) {
        fail(id, error);
      }
    },
    (error) => fail(id, error),
  );
  return undefined;
}

/** What may stand before the parenthesis of a function's parameters, or be called, without being a name. */
const notOfNames = ['[', "'", '"', '`', '/', '=', '#'];
const ofArguments = ['arguments', 'eval', '[native code]', '\\'];

/**
 * Whether a function's text begins with an empty parameter list and names nothing that shows arguments; false where that is not
 * easy to tell. Without regular expressions, whose compilation a cold start would pay.
 */
function showsNoArguments(text) {
  const open = StringPrototypeIndexOf(text, '(');
  const close = StringPrototypeIndexOf(text, ')');
  if (open < 0 || StringPrototypeTrim(StringPrototypeSlice(text, open + 1, close)) !== '') return false;
  for (let i = 0; i < notOfNames.length; i++) {
    const at = StringPrototypeIndexOf(text, notOfNames[i]);
    if (at >= 0 && at < open) return false;
  }
  for (let i = 0; i < ofArguments.length; i++) {
    if (StringPrototypeIndexOf(text, ofArguments[i]) >= 0) return false;
  }
  return true;
}

/** The handler seen last, and whether it cannot see its arguments. */
let knownHandler;
let takesNothing = false;

function inspectHandler(handler) {
  knownHandler = handler;
  takesNothing = false;
  if (handler.length !== 0) return;
  takesNothing = showsNoArguments(FunctionPrototypeToString(handler));
}

function dispatchModule(id, module) {
  const handler = module.fetch;
  if (handler !== knownHandler) inspectHandler(handler);
  if (takesNothing) return settle(id, FunctionPrototypeCall(handler, module));
  const request = createRequest(id);
  try {
    const result = FunctionPrototypeCall(handler, module, request, environment(), new ExecutionContext(kConstruct));
    return settle(id, result);
  } finally {
    retain(request);
  }
}

/** While the seed warms up: what answers instead of the program. */
let warmUpModule;
let warmUpEvent = false;

/** (id) -> the text of a plain 200 response, or undefined: answered otherwise, or later. */
internals.callbacks.httpDispatch = (id) => {
  try {
    const module = warmUpModule ?? defaultExport();
    return module === undefined || warmUpEvent ? dispatchEvent(id) : dispatchModule(id, module);
  } catch (error) {
    fail(id, error);
    return undefined;
  }
};

/** (id): the connection takes more of a stream. */
internals.callbacks.httpDrained = (id) => {
  watched.get(id)?.pump?.run();
};

/** (id): nobody waits for this response any more. */
internals.callbacks.httpGone = (id) => {
  abandon(id);
  const record = watched.take(id);
  if (record === undefined) return;
  if (record.request !== undefined) abortRequest(record.request, clientGone());
  if (record.pump !== undefined) record.pump.cancel(clientGone());
};

const warmUps = [
  { fetch() { return new Response('warm'); } },
  {
    fetch(request) {
      const { method, url, headers } = request;
      return new Response(`${method} ${url} ${headers.get('accept')}`, { status: 200, headers: { 'content-type': 'text/html' } });
    },
  },
  { async fetch(request) { return Response.json({ url: request.url }); } },
];

function warmUpListener(event) {
  event.respondWith(new Response(event.request.method));
}

/** (kind): the built-ins answer requests by themselves until -1 ends the warm-up. */
internals.callbacks.httpWarmUp = (kind) => {
  if (warmUpEvent) globalThis.removeEventListener('fetch', warmUpListener);
  warmUpEvent = kind === warmUps.length;
  warmUpModule = kind >= 0 && kind < warmUps.length ? warmUps[kind] : undefined;
  if (warmUpEvent) globalThis.addEventListener('fetch', warmUpListener);
};
