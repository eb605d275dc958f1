//! AbortController and AbortSignal. https://dom.spec.whatwg.org/#aborting-ongoing-activities

const {
  ArrayPrototypeIndexOf,
  ArrayPrototypePush,
  ArrayPrototypeSplice,
  SafeSet,
  TypeError,
  WeakRef,
  WeakRefPrototypeDeref,
} = primordials;
const { converters, requiredArguments, isObject, defineInterface, sequenceConverter, kConstruct } = internals.webidl;
const { Event, EventTarget, dispatchTrusted, defineEventHandler, hasListener } = internals.events;
const { DOMException } = internals;

// Set by AbortSignal's static block.
let isAbortSignal, isAborted, abortReason, addAlgorithm, removeAlgorithm, signalAbort, createDependentSignal, listenersChanged;

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason = undefined;
  /** Steps to run on abort; undefined while there are none. */
  #algorithms = undefined;
  /** Whether the signal was made by `any`. */
  #dependent = false;
  /** The signals this one follows (strong: they must live to abort it). */
  #sources = undefined;
  /** Weak references to the signals that follow this one. */
  #dependents = undefined;
  /** Those of them that somebody listens to: they must not be collected. */
  #kept = undefined;

  static {
    isAbortSignal = (value) => isObject(value) && #aborted in value;
    isAborted = (signal) => signal.#aborted;
    abortReason = (signal) => signal.#reason;
    addAlgorithm = (signal, algorithm) => {
      if (signal.#aborted) return;
      if (signal.#algorithms === undefined) signal.#algorithms = [algorithm];
      else ArrayPrototypePush(signal.#algorithms, algorithm);
      if (signal.#dependent) signal.#keep();
    };
    removeAlgorithm = (signal, algorithm) => {
      if (signal.#algorithms === undefined) return;
      const index = ArrayPrototypeIndexOf(signal.#algorithms, algorithm);
      if (index !== -1) ArrayPrototypeSplice(signal.#algorithms, index, 1);
      if (signal.#dependent) signal.#keep();
    };
    listenersChanged = (target) => {
      if (isAbortSignal(target) && target.#dependent) target.#keep();
    };
    signalAbort = (signal, reason) => {
      if (signal.#aborted) return;
      const toAbort = signal.#setAborted(reason);
      signal.#runSteps();
      for (let i = 0; i < toAbort.length; i++) toAbort[i].#runSteps();
    };
    createDependentSignal = (signals) => AbortSignal.#createDependent(signals);
  }

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'AbortSignal': Illegal constructor");
    super();
  }

  /** Lets the sources hold this signal while it has listeners or steps, and no longer. */
  #keep() {
    const isHeard = !this.#aborted && (this.#algorithms?.length > 0 || hasListener(this, 'abort'));
    for (let i = 0; i < this.#sources.length; i++) {
      const source = this.#sources[i];
      if (isHeard) (source.#kept ??= new SafeSet()).add(this);
      else source.#kept?.delete(this);
    }
  }

  /** Marks this signal and those that follow it; returns the latter. */
  #setAborted(reason) {
    this.#aborted = true;
    this.#reason = reason === undefined ? new DOMException('The operation was aborted', 'AbortError') : reason;
    const toAbort = [];
    const dependents = this.#dependents;
    this.#dependents = undefined;
    this.#kept = undefined;
    for (let i = 0; dependents !== undefined && i < dependents.length; i++) {
      const dependent = WeakRefPrototypeDeref(dependents[i]);
      if (dependent === undefined || dependent.#aborted) continue;
      dependent.#aborted = true;
      dependent.#reason = this.#reason;
      ArrayPrototypePush(toAbort, dependent);
    }
    return toAbort;
  }

  #runSteps() {
    const algorithms = this.#algorithms;
    this.#algorithms = undefined;
    for (let i = 0; algorithms !== undefined && i < algorithms.length; i++) {
      try {
        algorithms[i]();
      } catch (error) {
        internals.reportException(error);
      }
    }
    dispatchTrusted(this, new Event('abort'));
  }

  /** https://dom.spec.whatwg.org/#create-a-dependent-abort-signal */
  static #createDependent(signals) {
    const result = new AbortSignal(kConstruct);
    for (let i = 0; i < signals.length; i++) {
      if (!signals[i].#aborted) continue;
      result.#aborted = true;
      result.#reason = signals[i].#reason;
      return result;
    }
    result.#dependent = true;
    result.#sources = [];
    for (let i = 0; i < signals.length; i++) {
      const signal = signals[i];
      if (!signal.#dependent) {
        result.#follow(signal);
      } else {
        const sources = signal.#sources;
        for (let j = 0; j < sources.length; j++) result.#follow(sources[j]);
      }
    }
    return result;
  }

  #follow(source) {
    if (ArrayPrototypeIndexOf(this.#sources, source) !== -1) return;
    ArrayPrototypePush(this.#sources, source);
    const reference = new WeakRef(this);
    if (source.#dependents === undefined) source.#dependents = [reference];
    else source.#addDependent(reference);
  }

  /** Adds a follower, dropping collected ones when the list has doubled. */
  #addDependent(reference) {
    const dependents = this.#dependents;
    ArrayPrototypePush(dependents, reference);
    if (dependents.length < 32 || (dependents.length & (dependents.length - 1)) !== 0) return;
    const live = [];
    for (let i = 0; i < dependents.length; i++) {
      if (WeakRefPrototypeDeref(dependents[i]) !== undefined) ArrayPrototypePush(live, dependents[i]);
    }
    this.#dependents = live;
  }

  static abort(reason = undefined) {
    const signal = new AbortSignal(kConstruct);
    signal.#aborted = true;
    signal.#reason = reason === undefined ? new DOMException('The operation was aborted', 'AbortError') : reason;
    return signal;
  }

  static timeout(milliseconds) {
    const prefix = "Failed to execute 'timeout' on 'AbortSignal'";
    requiredArguments(arguments.length, 1, prefix);
    milliseconds = converters.unsignedLongLong(milliseconds, prefix, 'Argument 1', 'EnforceRange');
    const signal = new AbortSignal(kConstruct);
    internals.timers.runAfter(milliseconds, () => {
      signalAbort(signal, new DOMException('The operation timed out', 'TimeoutError'));
    });
    return signal;
  }

  static any(signals) {
    const prefix = "Failed to execute 'any' on 'AbortSignal'";
    requiredArguments(arguments.length, 1, prefix);
    const list = toSignals(signals, prefix, 'Argument 1');
    return AbortSignal.#createDependent(list);
  }

  get aborted() {
    return this.#aborted;
  }

  get reason() {
    return this.#reason;
  }

  throwIfAborted() {
    if (this.#aborted) throw this.#reason;
  }
}

const toSignals = sequenceConverter((value, prefix, context) => {
  if (!isAbortSignal(value)) throw new TypeError(`${prefix}: ${context} is not an AbortSignal`);
  return value;
});

defineInterface(AbortSignal);
defineEventHandler(AbortSignal.prototype, 'abort');

class AbortController {
  /** Made when first asked for. */
  #signal = undefined;

  #getSignal() {
    return (this.#signal ??= new AbortSignal(kConstruct));
  }

  get signal() {
    return this.#getSignal();
  }

  abort(reason = undefined) {
    signalAbort(this.#getSignal(), reason);
  }
}

defineInterface(AbortController);

internals.abort = {
  AbortController,
  AbortSignal,
  isAbortSignal,
  isAborted,
  abortReason,
  /** Runs a function once when the signal is aborted. */
  addAlgorithm,
  removeAlgorithm,
  /** Aborts a signal; `reason` undefined means an AbortError. */
  signalAbort,
  /** Told by EventTarget when listeners for `abort` come or go. */
  listenersChanged,
  createSignal: () => new AbortSignal(kConstruct),
  /** A signal that is aborted when one of `signals` (an array) is. */
  createDependentSignal,
};
