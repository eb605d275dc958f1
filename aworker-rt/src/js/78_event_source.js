//! EventSource. https://html.spec.whatwg.org/#server-sent-events

const {
  MathMin,
  Number,
  RegExpPrototypeExec,
  SafeSet,
  StringPrototypeCharCodeAt,
  StringPrototypeIndexOf,
  StringPrototypeSlice,
  StringPrototypeToLowerCase,
  uncurryThis,
} = primordials;
const { converters, requiredArguments, isObject, defineInterface, defineConstants } = internals.webidl;
const { Event, EventTarget, defineEventHandler, dispatchTrusted } = internals.events;
const { MessageEvent } = internals.errorEvents;
const { DOMException, exposeInterface, streams } = internals;
const { Request } = internals.request;
const { streamOf, isUint8Array } = internals.body;
const { acquireDefaultReader, readerRead } = streams.readable;
const { TextDecoder } = internals.encoding;
const { URL } = internals.url;
const { AbortController } = internals.abort;
const decode = uncurryThis(TextDecoder.prototype.decode);
const abort = uncurryThis(AbortController.prototype.abort);

const CONNECTING = 0;
const OPEN = 1;
const CLOSED = 2;

/** Until a server says otherwise; "a few seconds" in the standard. */
const defaultReconnectionMs = 3000;
/** Nobody waits longer than a day. */
const maxReconnectionMs = 86_400_000;
/** Characters of one event, its lines and data together: a server that never ends one is cut off. */
const maxEventLength = 16 * 1024 * 1024;

const streamType = /^text\/event-stream(?:[\t ]*;|[\t ]*$)/;
const digits = /^[0-9]+$/;

/** Turns text into fields and fields into events. */
class Parser {
  /** { event(type, data), id(value), retry(milliseconds) } */
  #target;
  #pending = '';
  #lastWasCr = false;
  #data = '';
  #type = '';

  constructor(target) {
    this.#target = target;
  }

  /** Takes text; false if an event becomes too long. */
  push(text) {
    let from = 0;
    if (this.#lastWasCr && text.length > 0) {
      this.#lastWasCr = false;
      if (StringPrototypeCharCodeAt(text, 0) === 10) from = 1;
    }
    for (;;) {
      const lf = StringPrototypeIndexOf(text, '\n', from);
      const cr = StringPrototypeIndexOf(text, '\r', from);
      const end = lf === -1 ? cr : cr === -1 ? lf : MathMin(lf, cr);
      if (end === -1) break;
      const line = this.#pending + StringPrototypeSlice(text, from, end);
      this.#pending = '';
      from = end + 1;
      if (end === cr) {
        if (from === text.length) this.#lastWasCr = true;
        else if (StringPrototypeCharCodeAt(text, from) === 10) from += 1;
      }
      this.#line(line);
    }
    this.#pending += StringPrototypeSlice(text, from);
    return this.#pending.length + this.#data.length <= maxEventLength;
  }

  #line(line) {
    if (line === '') {
      this.#dispatch();
      return;
    }
    const colon = StringPrototypeIndexOf(line, ':');
    if (colon === 0) return;
    const name = colon === -1 ? line : StringPrototypeSlice(line, 0, colon);
    const start = colon === -1 ? line.length : StringPrototypeCharCodeAt(line, colon + 1) === 32 ? colon + 2 : colon + 1;
    const value = StringPrototypeSlice(line, start);
    if (name === 'data') this.#data += `${value}\n`;
    else if (name === 'event') this.#type = value;
    else if (name === 'id' && StringPrototypeIndexOf(value, '\0') === -1) this.#target.id(value);
    else if (name === 'retry' && RegExpPrototypeExec(digits, value) !== null) this.#target.retry(Number(value));
  }

  #dispatch() {
    const data = this.#data;
    const type = this.#type;
    this.#data = '';
    this.#type = '';
    this.#target.settle();
    if (data !== '') this.#target.event(type === '' ? 'message' : type, StringPrototypeSlice(data, 0, -1));
  }
}

/** Those that are not closed. */
const living = new SafeSet();

let closeAll;

class EventSource extends EventTarget {
  #url;
  #withCredentials = false;
  #state = CONNECTING;
  #controller = undefined;
  #reconnectionMs = defaultReconnectionMs;
  #timer = undefined;
  /** What the next event gets, and what the last one had. */
  #idBuffer = '';
  #lastEventId = '';
  #origin = '';

  constructor(url, eventSourceInitDict = undefined) {
    super();
    const prefix = "Failed to construct 'EventSource'";
    requiredArguments(arguments.length, 1, prefix);
    const text = converters.USVString(url, prefix, 'Argument 1');
    if (eventSourceInitDict !== undefined && eventSourceInitDict !== null) {
      if (!isObject(eventSourceInitDict)) throw new primordials.TypeError(`${prefix}: Argument 2 is not an object`);
      this.#withCredentials = !!eventSourceInitDict.withCredentials;
    }
    try {
      this.#url = new URL(text, internals.workerScope.baseURL()).href;
    } catch {
      throw new DOMException(`${prefix}: '${text}' is not a URL`, 'SyntaxError');
    }
    living.add(this);
    this.#connect();
  }

  static {
    closeAll = () => living.forEach((source) => source.#close());
  }

  #connect() {
    this.#timer = undefined;
    const controller = new AbortController();
    this.#controller = controller;
    const isCurrent = () => this.#controller === controller && this.#state !== CLOSED;
    let request;
    try {
      const headers = [['accept', 'text/event-stream']];
      if (this.#lastEventId !== '') headers[1] = ['last-event-id', internals.eventSource.toField(this.#lastEventId)];
      request = new Request(this.#url, { headers: new primordials.SafeArrayIterator(headers), cache: 'no-store', signal: controller.signal });
    } catch {
      ops.queue_microtask(() => isCurrent() && this.#fail());
      return;
    }
    internals.fetch.begin(request, {
      __proto__: null,
      initiatorType: 'other',
      response: (response) => {
        if (isCurrent()) this.#open(response, isCurrent);
      },
      failed: () => {
        if (isCurrent()) this.#reconnect();
      },
    });
  }

  #open(response, isCurrent) {
    const parts = internals.response.partsOf;
    const type = internals.headers.getCombined(internals.headers.listOf(parts.headers(response)), 'content-type') ?? '';
    const body = parts.body(response);
    if (parts.status(response) !== 200 || RegExpPrototypeExec(streamType, StringPrototypeToLowerCase(type)) === null || body === undefined) {
      this.#fail();
      return;
    }
    this.#origin = new URL(parts.url(response)).origin;
    this.#state = OPEN;
    dispatchTrusted(this, new Event('open'));
    if (isCurrent()) this.#read(streams.readableRecordOf(streamOf(body)), isCurrent);
  }

  #read(record, isCurrent) {
    const reader = acquireDefaultReader(record);
    const decoder = new TextDecoder();
    const parser = new Parser({
      __proto__: null,
      event: (type, data) => {
        if (!isCurrent()) return;
        dispatchTrusted(this, new MessageEvent(type, { data, origin: this.#origin, lastEventId: this.#lastEventId }));
      },
      settle: () => { this.#lastEventId = this.#idBuffer; },
      id: (value) => { this.#idBuffer = value; },
      retry: (milliseconds) => { this.#reconnectionMs = MathMin(milliseconds, maxReconnectionMs); },
    });
    const again = () => {
      if (isCurrent()) this.#reconnect();
    };
    const request = {
      __proto__: null,
      chunk: (chunk) => {
        if (!isCurrent()) return;
        if (!isUint8Array(chunk) || !parser.push(decode(decoder, chunk, { stream: true }))) {
          this.#fail();
          return;
        }
        if (isCurrent()) readerRead(reader, request);
      },
      close: again,
      error: again,
    };
    readerRead(reader, request);
  }

  /** https://html.spec.whatwg.org/#reestablish-the-connection */
  #reconnect() {
    this.#controller = undefined;
    this.#state = CONNECTING;
    // What an unfinished event has said does not count.
    this.#idBuffer = this.#lastEventId;
    dispatchTrusted(this, new Event('error'));
    if (this.#state !== CONNECTING) return;
    this.#timer = internals.timers.runAfter(this.#reconnectionMs, () => this.#connect());
  }

  /** https://html.spec.whatwg.org/#fail-the-connection */
  #fail() {
    if (this.#state === CLOSED) return;
    this.#close();
    dispatchTrusted(this, new Event('error'));
  }

  #close() {
    this.#state = CLOSED;
    living.delete(this);
    if (this.#timer !== undefined) internals.timers.cancel(this.#timer);
    this.#timer = undefined;
    const controller = this.#controller;
    this.#controller = undefined;
    if (controller !== undefined) abort(controller);
  }

  get url() {
    return this.#url;
  }

  get withCredentials() {
    return this.#withCredentials;
  }

  get readyState() {
    return this.#state;
  }

  close() {
    this.#state;
    this.#close();
  }
}

defineInterface(EventSource);
defineConstants(EventSource, { CONNECTING, OPEN, CLOSED });
for (const type of ['open', 'message', 'error']) defineEventHandler(EventSource.prototype, type);
exposeInterface(EventSource);

/** The worker drains: streams that never end must not hold it up. */
const DRAIN = 8;
primordials.ArrayPrototypePush(internals.fetch.eventHandlers, (kind) => {
  if (kind === DRAIN) closeAll();
});

internals.eventSource = {
  /** UTF-8 bytes as the characters of a header's value. */
  toField(text) {
    const bytes = internals.encoding.encodeUtf8(text);
    let field = '';
    for (let i = 0; i < bytes.length; i++) field += primordials.StringFromCharCode(bytes[i]);
    return field;
  },
};
