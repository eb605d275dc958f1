//! PerformanceResourceTiming, and the buffer of such entries. https://w3c.github.io/resource-timing/
//!
//! The times of looking up a name and of connecting are not measured: they are those of a connection that was there.

const { ArrayPrototypePush, ArrayPrototypeShift, ReflectGetOwnPropertyDescriptor, TypeError, uncurryThis } = primordials;
const { defineInterface, kConstruct } = internals.webidl;
const { PerformanceEntry } = internals.performanceEntries;
const { queueEntry, addEntry, clear, count } = internals.performanceTimeline;
const { Event, dispatchTrusted } = internals.events;
const { queueTask } = internals;

/** What the standard counts for the head of a response, whatever its length. */
const HEAD_SIZE = 300;

/** Entries that wait while the buffer is full: those of one task, but for a script that never yields. */
const MAX_WAITING = 10000;

class PerformanceResourceTiming extends PerformanceEntry {
  /** What 75_fetch.js has seen: the members of `timing` there. */
  #timing;

  constructor(token = undefined, timing = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'PerformanceResourceTiming': Illegal constructor");
    super(kConstruct, timing.name, 'resource', timing.start, timing.responseEnd - timing.start);
    this.#timing = timing;
  }

  get initiatorType() {
    return this.#timing.initiatorType;
  }

  get deliveryType() {
    this.#timing;
    return '';
  }

  get nextHopProtocol() {
    this.#timing;
    return '';
  }

  get workerStart() {
    this.#timing;
    return 0;
  }

  get redirectStart() {
    return this.#timing.redirectEnd === 0 ? 0 : this.#timing.start;
  }

  get redirectEnd() {
    return this.#timing.redirectEnd;
  }

  get fetchStart() {
    return this.#timing.fetchStart;
  }

  get domainLookupStart() {
    return this.#timing.fetchStart;
  }

  get domainLookupEnd() {
    return this.#timing.fetchStart;
  }

  get connectStart() {
    return this.#timing.fetchStart;
  }

  get connectEnd() {
    return this.#timing.fetchStart;
  }

  get secureConnectionStart() {
    return this.#timing.isSecure ? this.#timing.fetchStart : 0;
  }

  get requestStart() {
    return this.#timing.fetchStart;
  }

  get firstInterimResponseStart() {
    this.#timing;
    return 0;
  }

  get finalResponseHeadersStart() {
    return this.#timing.responseStart;
  }

  get responseStart() {
    return this.#timing.responseStart;
  }

  get responseEnd() {
    return this.#timing.responseEnd;
  }

  get transferSize() {
    return this.#timing.status === 0 ? 0 : this.#timing.size + HEAD_SIZE;
  }

  get encodedBodySize() {
    return this.#timing.size;
  }

  get decodedBodySize() {
    return this.#timing.size;
  }

  get responseStatus() {
    return this.#timing.status;
  }

  get renderBlockingStatus() {
    this.#timing;
    return 'non-blocking';
  }

  get contentType() {
    return this.#timing.contentType;
  }

  toJSON() {
    this.#timing;
    const json = entryToJSON(this);
    for (let i = 0; i < attributes.length; i++) json[attributes[i].name] = attributes[i].get(this);
    return json;
  }
}

const entryToJSON = uncurryThis(PerformanceEntry.prototype.toJSON);

/** What `toJSON` adds: `{ name, get }`, the getters from before a user could replace them. */
const attributes = [];
for (const name of [
  'initiatorType', 'deliveryType', 'nextHopProtocol', 'workerStart', 'redirectStart', 'redirectEnd', 'fetchStart', 'domainLookupStart',
  'domainLookupEnd', 'connectStart', 'connectEnd', 'secureConnectionStart', 'requestStart', 'firstInterimResponseStart',
  'finalResponseHeadersStart', 'responseStart', 'responseEnd', 'transferSize', 'encodedBodySize', 'decodedBodySize', 'responseStatus',
  'renderBlockingStatus', 'contentType',
]) {
  const { get } = ReflectGetOwnPropertyDescriptor(PerformanceResourceTiming.prototype, name);
  ArrayPrototypePush(attributes, { __proto__: null, name, get: uncurryThis(get) });
}

defineInterface(PerformanceResourceTiming);

let limit = 250;
/** The task that tells of a full buffer is queued. */
let isFull = false;
/** The secondary buffer. */
let waiting = [];

/** https://w3c.github.io/resource-timing/#dfn-add-a-performanceresourcetiming-entry */
function add(entry) {
  if (!isFull && count('resource') < limit) {
    addEntry(entry);
    return;
  }
  if (!isFull) {
    isFull = true;
    queueTask(fireFull, undefined);
  }
  if (waiting.length < MAX_WAITING) ArrayPrototypePush(waiting, entry);
}

/** https://w3c.github.io/resource-timing/#dfn-fire-a-buffer-full-event */
function fireFull() {
  while (waiting.length > 0) {
    const before = waiting.length;
    if (count('resource') >= limit) dispatchTrusted(internals.performance.performance, new Event('resourcetimingbufferfull'));
    while (waiting.length > 0 && count('resource') < limit) addEntry(ArrayPrototypeShift(waiting));
    if (before <= waiting.length) waiting = [];
  }
  isFull = false;
}

internals.resourceTiming = {
  PerformanceResourceTiming,
  /** (timing): a resource has been fetched, or could not be. */
  report(timing) {
    const entry = new PerformanceResourceTiming(kConstruct, timing);
    queueEntry(entry);
    add(entry);
  },
  clear() {
    clear('resource', undefined);
  },
  setBufferSize(size) {
    limit = size;
  },
};
