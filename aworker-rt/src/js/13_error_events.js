//! ErrorEvent, PromiseRejectionEvent and MessageEvent; reporting of exceptions and of unhandled
//! rejections. https://html.spec.whatwg.org/#runtime-script-errors

const { ObjectPrototypeToString, String, TypeError } = primordials;
const { converters, requiredArguments, isObject, defineInterface, sequenceConverter } = internals.webidl;
const { Event, dispatchTrusted, hasGlobalListener, initEvent, isDispatching } = internals.events;

let isErrorEvent;
let createMessageEvent;

class ErrorEvent extends Event {
  #message = '';
  #filename = '';
  #lineno = 0;
  #colno = 0;
  #error = undefined;

  static {
    isErrorEvent = (value) => isObject(value) && #message in value;
  }

  constructor(type, eventInitDict = undefined) {
    const prefix = "Failed to construct 'ErrorEvent'";
    requiredArguments(arguments.length, 1, prefix);
    super(type, eventInitDict);
    if (eventInitDict === undefined || eventInitDict === null) return;
    const { colno, error, filename, lineno, message } = eventInitDict;
    if (colno !== undefined) this.#colno = converters.unsignedLong(colno, prefix, "'colno'");
    this.#error = error;
    if (filename !== undefined) this.#filename = converters.USVString(filename, prefix, "'filename'");
    if (lineno !== undefined) this.#lineno = converters.unsignedLong(lineno, prefix, "'lineno'");
    if (message !== undefined) this.#message = converters.DOMString(message, prefix, "'message'");
  }

  get message() {
    return this.#message;
  }

  get filename() {
    return this.#filename;
  }

  get lineno() {
    return this.#lineno;
  }

  get colno() {
    return this.#colno;
  }

  get error() {
    return this.#error;
  }
}

defineInterface(ErrorEvent);

class PromiseRejectionEvent extends Event {
  #promise;
  #reason;

  constructor(type, eventInitDict) {
    const prefix = "Failed to construct 'PromiseRejectionEvent'";
    requiredArguments(arguments.length, 2, prefix);
    super(type, eventInitDict);
    const promise = eventInitDict?.promise;
    if (promise === undefined) throw new TypeError(`${prefix}: required member 'promise' is missing`);
    this.#promise = promise;
    this.#reason = eventInitDict.reason;
  }

  get promise() {
    return this.#promise;
  }

  get reason() {
    return this.#reason;
  }
}

defineInterface(PromiseRejectionEvent);

class MessageEvent extends Event {
  #data = null;
  #origin = '';
  #lastEventId = '';
  #source = null;
  #ports = undefined;

  constructor(type, eventInitDict = undefined) {
    const prefix = "Failed to construct 'MessageEvent'";
    requiredArguments(arguments.length, 1, prefix);
    super(type, eventInitDict);
    if (eventInitDict === undefined || eventInitDict === null) return;
    const { data, lastEventId, origin, ports, source } = eventInitDict;
    if (data !== undefined) this.#data = data;
    if (lastEventId !== undefined) this.#lastEventId = converters.DOMString(lastEventId, prefix, "'lastEventId'");
    if (origin !== undefined) this.#origin = converters.USVString(origin, prefix, "'origin'");
    if (ports !== undefined) this.#ports = toPorts(ports, prefix, "'ports'");
    if (source !== undefined && source !== null) this.#source = toPort(source, prefix, "'source'");
  }

  get data() {
    return this.#data;
  }

  get origin() {
    return this.#origin;
  }

  get lastEventId() {
    return this.#lastEventId;
  }

  get source() {
    return this.#source;
  }

  get ports() {
    return (this.#ports ??= primordials.ObjectFreeze([]));
  }

  initMessageEvent(type, bubbles = false, cancelable = false, data = null, origin = '', lastEventId = '', source = null, ports = undefined) {
    const prefix = "Failed to execute 'initMessageEvent' on 'MessageEvent'";
    requiredArguments(arguments.length, 1, prefix);
    type = converters.DOMString(type, prefix, 'Argument 1');
    origin = converters.USVString(origin, prefix, 'Argument 5');
    lastEventId = converters.DOMString(lastEventId, prefix, 'Argument 6');
    if (source !== null && source !== undefined) source = toPort(source, prefix, 'Argument 7');
    ports = ports === undefined ? undefined : toPorts(ports, prefix, 'Argument 8');
    if (isDispatching(this)) return;
    initEvent(this, type, bubbles, cancelable);
    this.#data = data;
    this.#origin = origin;
    this.#lastEventId = lastEventId;
    this.#source = source ?? null;
    this.#ports = ports;
  }

  static {
    createMessageEvent = (type, data, origin, ports, source = null) => {
      const event = new MessageEvent(type);
      event.#data = data;
      event.#origin = origin;
      event.#source = source;
      event.#ports = ports === undefined ? undefined : primordials.ObjectFreeze(ports);
      return event;
    };
  }
}

function toPort(value, prefix, context) {
  if (!internals.messaging.isMessagePort(value)) throw new TypeError(`${prefix}: ${context} is not a MessagePort`);
  return value;
}

const toPortList = sequenceConverter(toPort);

function toPorts(value, prefix, context) {
  return primordials.ObjectFreeze(toPortList(value, prefix, context));
}

defineInterface(MessageEvent);

/** Set while the global `error` event is dispatched: an error in its listener is not dispatched again. */
let inErrorReporting = false;

/** A one-line description that never throws and runs no getter of a user's error twice. */
function describe(error) {
  try {
    return `Uncaught ${isObject(error) && !('message' in error) ? ObjectPrototypeToString(error) : String(error)}`;
  } catch {
    return 'Uncaught exception';
  }
}

/** Fires `error` at the global object; true if a listener cancelled it, that is: handled it. */
function dispatchError(error) {
  if (inErrorReporting || !hasGlobalListener('error')) return false;
  inErrorReporting = true;
  try {
    const location = ops.error_location(error);
    return !dispatchTrusted(globalThis, new ErrorEvent('error', {
      __proto__: null,
      cancelable: true,
      message: describe(error),
      filename: location[0],
      lineno: location[1],
      colno: location[2],
      error,
    }));
  } finally {
    inErrorReporting = false;
  }
}

/** https://html.spec.whatwg.org/#report-an-exception; one that nobody handles ends the worker. */
function reportException(error) {
  if (!dispatchError(error)) ops.report_exception(error);
}

function printUncaught(prefix, error) {
  ops.print(2, `${prefix}${internals.inspect(error)}\n`);
}

// A method, and so no constructor.
const { reportError } = {
  reportError(e) {
    requiredArguments(arguments.length, 1, "Failed to execute 'reportError'");
    if (!dispatchError(e)) printUncaught('Uncaught ', e);
  },
};

function dispatchRejection(type, promise, reason) {
  if (!hasGlobalListener(type)) return false;
  const init = { __proto__: null, cancelable: type === 'unhandledrejection', promise, reason };
  return !dispatchTrusted(globalThis, new PromiseRejectionEvent(type, init));
}

internals.isErrorEvent = isErrorEvent;
internals.reportException = reportException;
internals.errorEvents = {
  ErrorEvent,
  PromiseRejectionEvent,
  MessageEvent,
  /** (type, data, origin, ports, source): an event for `dispatchTrusted`. */
  createMessageEvent,
  reportError,
};

internals.callbacks ??= {};
/** (error) -> whether an `error` listener handled it. The engine prints and decides what follows. */
internals.callbacks.dispatchError = dispatchError;
/** (promise, reason) -> whether an `unhandledrejection` listener handled it. */
internals.callbacks.dispatchUnhandledRejection = (promise, reason) =>
  dispatchRejection('unhandledrejection', promise, reason);
/** (promise, reason): a rejection reported before has got a handler. */
internals.callbacks.dispatchRejectionHandled = (promise, reason) => {
  dispatchRejection('rejectionhandled', promise, reason);
};
