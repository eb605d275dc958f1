//! Event, CustomEvent and EventTarget, and the global object as an event target.
//! There is no tree: an event's path is its target alone. https://dom.spec.whatwg.org/#events

const {
  ArrayPrototypePush,
  ArrayPrototypeSlice,
  ArrayPrototypeSplice,
  FunctionPrototypeCall,
  ObjectDefineProperty,
  TypeError,
} = primordials;
const { converters, requiredArguments, isObject, defineInterface, defineConstants, kConstruct } = internals.webidl;

const kInitialized = 1;
const kDispatch = 2;
const kStopPropagation = 4;
const kStopImmediate = 8;
const kCanceled = 16;
const kInPassiveListener = 32;
const kTrusted = 64;
const kBubbles = 128;
const kCancelable = 256;
const kComposed = 512;

const AT_TARGET = 2;

// Set by Event's static block: they reach the private slots of any event.
let flagsOf, setFlags, startDispatch, endDispatch, isEvent, setHandlerReturn, initEvent;

function checkEvent(value) {
  if (!isEvent(value)) throw new TypeError('Illegal invocation: not an Event');
}

const isTrustedAccessors = {
  get isTrusted() {
    return (flagsOf(this) & kTrusted) !== 0;
  },
};
const isTrustedDescriptor = {
  __proto__: null, ...primordials.ReflectGetOwnPropertyDescriptor(isTrustedAccessors, 'isTrusted'), configurable: false,
};

class Event {
  #type;
  #flags = kInitialized;
  #target = null;
  #phase = 0;
  #timeStamp = undefined;

  static {
    isEvent = (value) => isObject(value) && #flags in value;
    flagsOf = (event) => event.#flags;
    setFlags = (event, flags) => { event.#flags = flags; };
    startDispatch = (event, target, trusted) => {
      event.#flags = (event.#flags & ~kTrusted) | kDispatch | trusted;
      event.#target = target;
      event.#phase = AT_TARGET;
    };
    endDispatch = (event) => {
      event.#phase = 0;
      event.#flags &= ~(kDispatch | kStopPropagation | kStopImmediate);
    };
    initEvent = (event, type, bubbles, cancelable) => {
      event.#type = type;
      event.#target = null;
      event.#flags = kInitialized | (bubbles ? kBubbles : 0) | (cancelable ? kCancelable : 0);
    };
    setHandlerReturn = (event, value, cancelValue) => {
      if (value === cancelValue) event.#cancel();
    };
  }

  constructor(type, eventInitDict = undefined) {
    if (arguments.length === 0) requiredArguments(0, 1, "Failed to construct 'Event'");
    this.#type = typeof type === 'string' ? type : converters.DOMString(type, "Failed to construct 'Event'", 'Argument 1');
    // A built-in's event on a hot path: its time is taken when it is first asked for.
    if (eventInitDict === kConstruct) return;
    this.#complete(eventInitDict);
  }

  /** What the constructor of a hot path leaves out; apart, so that it stays small enough to be inlined. */
  #complete(eventInitDict) {
    ObjectDefineProperty(this, 'isTrusted', isTrustedDescriptor);
    if (eventInitDict !== undefined && eventInitDict !== null) this.#init(eventInitDict);
    this.#timeStamp = ops.performance_now();
  }

  #init(dictionary) {
    if (!isObject(dictionary)) throw new TypeError("Failed to construct 'Event': Argument 2 is not an object");
    if (dictionary.bubbles) this.#flags |= kBubbles;
    if (dictionary.cancelable) this.#flags |= kCancelable;
    if (dictionary.composed) this.#flags |= kComposed;
  }

  #cancel() {
    if ((this.#flags & (kCancelable | kInPassiveListener)) === kCancelable) this.#flags |= kCanceled;
  }

  get type() {
    return this.#type;
  }

  get target() {
    return this.#target;
  }

  get srcElement() {
    return this.#target;
  }

  get currentTarget() {
    return this.#flags & kDispatch ? this.#target : null;
  }

  composedPath() {
    return this.#flags & kDispatch ? [this.#target] : [];
  }

  get eventPhase() {
    return this.#phase;
  }

  stopPropagation() {
    this.#flags |= kStopPropagation;
  }

  get cancelBubble() {
    return (this.#flags & kStopPropagation) !== 0;
  }

  set cancelBubble(value) {
    const flags = this.#flags;
    if (value) this.#flags = flags | kStopPropagation;
  }

  stopImmediatePropagation() {
    this.#flags |= kStopPropagation | kStopImmediate;
  }

  get bubbles() {
    return (this.#flags & kBubbles) !== 0;
  }

  get cancelable() {
    return (this.#flags & kCancelable) !== 0;
  }

  get returnValue() {
    return (this.#flags & kCanceled) === 0;
  }

  set returnValue(value) {
    checkEvent(this);
    if (!value) this.#cancel();
  }

  preventDefault() {
    this.#cancel();
  }

  get defaultPrevented() {
    return (this.#flags & kCanceled) !== 0;
  }

  get composed() {
    return (this.#flags & kComposed) !== 0;
  }

  get timeStamp() {
    return (this.#timeStamp ??= ops.performance_now());
  }

  initEvent(type, bubbles = false, cancelable = false) {
    requiredArguments(arguments.length, 1, "Failed to execute 'initEvent' on 'Event'");
    type = converters.DOMString(type, "Failed to execute 'initEvent' on 'Event'", 'Argument 1');
    if (this.#flags & kDispatch) return;
    initEvent(this, type, bubbles, cancelable);
  }
}

defineInterface(Event);

/**
 * Gives an interface's prototype the attribute `isTrusted`. Every event has it of its own
 * ([LegacyUnforgeable]), except those that are made on a hot path.
 */
function inheritIsTrusted(prototype) {
  ObjectDefineProperty(prototype, 'isTrusted', isTrustedDescriptor);
}
defineConstants(Event, { NONE: 0, CAPTURING_PHASE: 1, AT_TARGET: 2, BUBBLING_PHASE: 3 });

class CustomEvent extends Event {
  #detail = null;

  constructor(type, eventInitDict = undefined) {
    requiredArguments(arguments.length, 1, "Failed to construct 'CustomEvent'");
    super(type, eventInitDict);
    this.#detail = eventInitDict?.detail ?? null;
  }

  get detail() {
    return this.#detail;
  }

  initCustomEvent(type, bubbles = false, cancelable = false, detail = null) {
    requiredArguments(arguments.length, 1, "Failed to execute 'initCustomEvent' on 'CustomEvent'");
    if (flagsOf(this) & kDispatch) return;
    initEvent(this, converters.DOMString(type, "Failed to execute 'initCustomEvent' on 'CustomEvent'", 'Argument 1'), bubbles, cancelable);
    this.#detail = detail;
  }
}

defineInterface(CustomEvent);

/** The listeners of the global object: plain data, for no private slot can be put on it. */
let globalListeners;

// Set by EventTarget's static block.
let listenersOf, setListeners, isEventTarget;

/** The `this` of an operation on the global object may be undefined: then it means the global. */
function receiver(thisValue) {
  if (thisValue === undefined || thisValue === null) return globalThis;
  if (!isEventTarget(thisValue)) throw new TypeError('Illegal invocation: not an EventTarget');
  return thisValue;
}

class EventTarget {
  #listeners = undefined;

  static {
    isEventTarget = (value) => value === globalThis || (isObject(value) && #listeners in value);
    listenersOf = (target) => (target === globalThis ? globalListeners : target.#listeners);
    setListeners = (target, listeners) => {
      if (target === globalThis) globalListeners = listeners;
      else target.#listeners = listeners;
    };
  }

  constructor() {}

  addEventListener(type, callback, options = undefined) {
    const target = receiver(this);
    const prefix = "Failed to execute 'addEventListener' on 'EventTarget'";
    requiredArguments(arguments.length, 2, prefix);
    type = converters.DOMString(type, prefix, 'Argument 1');
    checkCallback(callback, prefix);
    const listener = flattenMore(options, prefix);
    listener.type = type;
    listener.callback = callback;
    addListener(target, listener);
  }

  removeEventListener(type, callback, options = undefined) {
    const target = receiver(this);
    const prefix = "Failed to execute 'removeEventListener' on 'EventTarget'";
    requiredArguments(arguments.length, 2, prefix);
    type = converters.DOMString(type, prefix, 'Argument 1');
    checkCallback(callback, prefix);
    removeListener(target, type, callback, flatten(options));
  }

  dispatchEvent(event) {
    const target = receiver(this);
    const prefix = "Failed to execute 'dispatchEvent' on 'EventTarget'";
    requiredArguments(arguments.length, 1, prefix);
    if (!isEvent(event)) throw new TypeError(`${prefix}: Argument 1 is not an Event`);
    if (flagsOf(event) & kDispatch) {
      throw new internals.DOMException(`${prefix}: the event is already being dispatched`, 'InvalidStateError');
    }
    return dispatch(target, event, 0);
  }
}

defineInterface(EventTarget);

function checkCallback(callback, prefix) {
  if (typeof callback === 'function' || callback === null || callback === undefined || typeof callback === 'object') return;
  throw new TypeError(`${prefix}: Argument 2 is not a function, an object or null`);
}

function flatten(options) {
  return isObject(options) ? !!options.capture : !!options;
}

/** Makes a listener record from the third argument of addEventListener. */
function flattenMore(options, prefix) {
  const listener = {
    type: '', callback: null, capture: false, once: false, passive: false, signal: undefined, removed: false, handler: false,
  };
  if (!isObject(options)) {
    listener.capture = !!options;
    return listener;
  }
  listener.capture = !!options.capture;
  listener.once = !!options.once;
  listener.passive = !!options.passive;
  const signal = options.signal;
  if (signal !== undefined) {
    if (!internals.abort.isAbortSignal(signal)) throw new TypeError(`${prefix}: 'signal' is not an AbortSignal`);
    listener.signal = signal;
  }
  return listener;
}

/** https://dom.spec.whatwg.org/#add-an-event-listener */
function addListener(target, listener) {
  const { type, callback, capture, signal } = listener;
  if (signal !== undefined && internals.abort.isAborted(signal)) return;
  if (callback === null || callback === undefined) return;
  const listeners = listenersOf(target);
  if (listeners === undefined) {
    setListeners(target, [listener]);
  } else {
    for (let i = 0; i < listeners.length; i++) {
      const other = listeners[i];
      if (other.type === type && other.callback === callback && other.capture === capture && !other.handler) return;
    }
    ArrayPrototypePush(listeners, listener);
  }
  if (type === 'abort') internals.abort.listenersChanged(target);
  if (signal !== undefined) {
    internals.abort.addAlgorithm(signal, () => removeRecord(target, listener));
  }
}

function removeListener(target, type, callback, capture) {
  const listeners = listenersOf(target);
  if (listeners === undefined) return;
  for (let i = 0; i < listeners.length; i++) {
    const listener = listeners[i];
    if (listener.type === type && listener.callback === callback && listener.capture === capture && !listener.handler) {
      removeRecord(target, listener);
      return;
    }
  }
}

function removeRecord(target, listener) {
  listener.removed = true;
  const listeners = listenersOf(target);
  if (listeners === undefined) return;
  for (let i = 0; i < listeners.length; i++) {
    if (listeners[i] !== listener) continue;
    ArrayPrototypeSplice(listeners, i, 1);
    if (listener.type === 'abort') internals.abort.listenersChanged(target);
    return;
  }
}

/**
 * https://dom.spec.whatwg.org/#concept-event-dispatch for a path of one.
 * `trusted` is kTrusted or 0. Returns false if the event was cancelled.
 */
function dispatch(target, event, trusted) {
  startDispatch(event, target, trusted);
  const listeners = listenersOf(target);
  if (listeners !== undefined && listeners.length > 0) invoke(target, listeners, event);
  endDispatch(event);
  return (flagsOf(event) & kCanceled) === 0;
}

function invoke(target, listeners, event) {
  if (flagsOf(event) & kStopPropagation) return;
  if (listeners.length === 1) {
    const only = listeners[0];
    if (only.type === event.type) innerInvoke(target, only, event);
    return;
  }
  const clone = ArrayPrototypeSlice(listeners);
  if (!invokePhase(target, clone, event, true)) return;
  if (flagsOf(event) & kStopPropagation) return;
  invokePhase(target, clone, event, false);
}

/** Calls the listeners of one phase; false when propagation was stopped at once. */
function invokePhase(target, listeners, event, capture) {
  const type = event.type;
  for (let i = 0; i < listeners.length; i++) {
    const listener = listeners[i];
    if (listener.removed || listener.capture !== capture || listener.type !== type) continue;
    innerInvoke(target, listener, event);
    if (flagsOf(event) & kStopImmediate) return false;
  }
  return true;
}

/** The event whose listeners' exceptions go to `exceptionSink` and are not reported. */
let watchedEvent;
let exceptionSink;

/** Dispatches a trusted event; `sink` is called with what its listeners throw. */
function dispatchTrustedTo(target, event, sink) {
  const outerEvent = watchedEvent;
  const outerSink = exceptionSink;
  watchedEvent = event;
  exceptionSink = sink;
  try {
    return dispatch(target, event, kTrusted);
  } finally {
    watchedEvent = outerEvent;
    exceptionSink = outerSink;
  }
}

function innerInvoke(target, listener, event) {
  if (listener.once) removeRecord(target, listener);
  if (listener.passive) setFlags(event, flagsOf(event) | kInPassiveListener);
  try {
    const callback = listener.callback;
    if (listener.handler) {
      callEventHandler(callback, target, event);
    } else if (typeof callback === 'function') {
      FunctionPrototypeCall(callback, target, event);
    } else {
      const handleEvent = callback.handleEvent;
      if (typeof handleEvent !== 'function') throw new TypeError("The listener's 'handleEvent' is not a function");
      FunctionPrototypeCall(handleEvent, callback, event);
    }
  } catch (error) {
    if (event === watchedEvent) exceptionSink(error);
    else internals.reportException(error);
  }
  if (listener.passive) setFlags(event, flagsOf(event) & ~kInPassiveListener);
}

/** https://html.spec.whatwg.org/#the-event-handler-processing-algorithm */
function callEventHandler(callback, target, event) {
  if (target === globalThis && event.type === 'error' && internals.isErrorEvent(event)) {
    const { message, filename, lineno, colno, error } = event;
    setHandlerReturn(event, FunctionPrototypeCall(callback, target, message, filename, lineno, colno, error), true);
    return;
  }
  setHandlerReturn(event, FunctionPrototypeCall(callback, target, event), false);
}

function findHandler(target, type) {
  const listeners = listenersOf(target);
  if (listeners === undefined) return undefined;
  for (let i = 0; i < listeners.length; i++) {
    if (listeners[i].handler && listeners[i].type === type) return listeners[i];
  }
  return undefined;
}

/**
 * Defines an event handler IDL attribute, `on` + type, on a prototype or on the global object.
 * `afterSet(target)` runs after each assignment.
 */
function defineEventHandler(prototype, type, afterSet = undefined) {
  const accessors = {
    get [`on${type}`]() {
      return findHandler(receiver(this), type)?.callback ?? null;
    },
    set [`on${type}`](value) {
      const target = receiver(this);
      const record = findHandler(target, type);
      if (!isObject(value)) {
        if (record !== undefined) removeRecord(target, record);
      } else if (record !== undefined) {
        record.callback = value;
      } else {
        const listener = flattenMore(undefined, '');
        listener.type = type;
        listener.callback = typeof value === 'function' ? value : () => {};
        listener.handler = true;
        const listeners = listenersOf(target);
        if (listeners === undefined) setListeners(target, [listener]);
        else ArrayPrototypePush(listeners, listener);
        if (type === 'abort') internals.abort.listenersChanged(target);
      }
      afterSet?.(target);
    },
  };
  const descriptor = primordials.ReflectGetOwnPropertyDescriptor(accessors, `on${type}`);
  ObjectDefineProperty(prototype, `on${type}`, descriptor);
}

/** Whether a target has a listener for `type`. */
function hasListener(target, type) {
  const listeners = listenersOf(target);
  if (listeners === undefined) return false;
  for (let i = 0; i < listeners.length; i++) if (listeners[i].type === type) return true;
  return false;
}

/** Whether the global object has a listener for `type`. */
function hasGlobalListener(type) {
  return globalListeners !== undefined && hasListener(globalThis, type);
}

internals.events = {
  Event,
  CustomEvent,
  EventTarget,
  isEvent,
  isEventTarget,
  defineEventHandler,
  hasListener,
  hasGlobalListener,
  /** Dispatches a trusted event; false if it was cancelled. */
  dispatchTrusted: (target, event) => dispatch(target, event, kTrusted),
  dispatchTrustedTo,
  /** (event, type, bubbles, cancelable): https://dom.spec.whatwg.org/#concept-event-initialize */
  initEvent,
  /** Whether an event is being dispatched: ExtendableEvent and FetchEvent ask. */
  isDispatching: (event) => (flagsOf(event) & kDispatch) !== 0,
  isTrusted: (event) => (flagsOf(event) & kTrusted) !== 0,
  /** (prototype): its events are made without an `isTrusted` of their own. */
  inheritIsTrusted,
  isCanceled: (event) => (flagsOf(event) & kCanceled) !== 0,
};
