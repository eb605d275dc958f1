//! The performance timeline: what is kept of it, and PerformanceObserver.
//! https://w3c.github.io/performance-timeline/

const {
  ArrayPrototypeFilter,
  ArrayPrototypeIncludes,
  ArrayPrototypeIndexOf,
  ArrayPrototypePush,
  ArrayPrototypeSlice,
  ArrayPrototypeSort,
  ArrayPrototypeSplice,
  FunctionPrototypeCall,
  ObjectFreeze,
  TypeError,
} = primordials;
const { converters, dictionaryConverter, sequenceConverter, requiredArguments, defineInterface, kConstruct } = internals.webidl;
const { entryName, entryType, entryStart } = internals.performanceEntries;
const { DOMException, queueTask } = internals;

/** Entries of a type that are kept at most, so that a long-lived worker does not grow. */
const MAX_ENTRIES = 10000;

const supportedEntryTypes = ObjectFreeze(['mark', 'measure', 'resource']);

/** The timeline: entries that are kept and, for each type, how many were not. */
let entries = [];
const kept = { __proto__: null, mark: 0, measure: 0, resource: 0 };
const dropped = { __proto__: null, mark: 0, measure: 0, resource: 0 };

/** Observers that observe something, in their order. */
const observers = [];
let isTaskQueued = false;

/** Entries that a filter takes, by their start; `undefined` takes all. */
function select(list, name, type) {
  const selected = ArrayPrototypeFilter(list, (entry) =>
    (name === undefined || entryName(entry) === name) && (type === undefined || entryType(entry) === type));
  return ArrayPrototypeSort(selected, (a, b) => entryStart(a) - entryStart(b));
}

/** Shows the observers an entry. https://w3c.github.io/performance-timeline/#queue-a-performanceentry */
function queueEntry(entry) {
  const type = entryType(entry);
  let isWanted = false;
  for (let i = 0; i < observers.length; i++) {
    if (!observes(observers[i], type)) continue;
    ArrayPrototypePush(observers[i].buffer, entry);
    isWanted = true;
  }
  if (isWanted) queueObserverTask();
}

/** Keeps an entry, if there is room. */
function addEntry(entry) {
  const type = entryType(entry);
  if (kept[type] === MAX_ENTRIES) {
    dropped[type]++;
    return;
  }
  kept[type]++;
  ArrayPrototypePush(entries, entry);
}

/** Forgets the entries of a type, or those with a name. */
function clear(type, name) {
  entries = ArrayPrototypeFilter(entries, (entry) => {
    const goes = entryType(entry) === type && (name === undefined || entryName(entry) === name);
    if (goes) kept[type]--;
    return !goes;
  });
}

/** The latest mark of a name, or undefined. */
function lastMark(name) {
  for (let i = entries.length - 1; i >= 0; i--) {
    if (entryType(entries[i]) === 'mark' && entryName(entries[i]) === name) return entries[i];
  }
  return undefined;
}

function observes(record, type) {
  return ArrayPrototypeIncludes(record.types, type);
}

/** https://w3c.github.io/performance-timeline/#queue-the-performanceobserver-task */
function queueObserverTask() {
  if (isTaskQueued) return;
  isTaskQueued = true;
  queueTask(runObservers, undefined);
}

function runObservers() {
  isTaskQueued = false;
  const notified = ArrayPrototypeSlice(observers);
  for (let i = 0; i < notified.length; i++) {
    const record = notified[i];
    if (record.buffer.length === 0) continue;
    const list = new PerformanceObserverEntryList(kConstruct, record.buffer);
    record.buffer = [];
    const options = {};
    if (record.wantsDropped) {
      record.wantsDropped = false;
      options.droppedEntriesCount = 0;
      for (let j = 0; j < record.types.length; j++) options.droppedEntriesCount += dropped[record.types[j]];
    }
    try {
      FunctionPrototypeCall(record.callback, record.observer, list, record.observer, options);
    } catch (error) {
      internals.reportException(error);
    }
  }
}

class PerformanceObserverEntryList {
  #entries;

  constructor(token = undefined, list = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'PerformanceObserverEntryList': Illegal constructor");
    this.#entries = list;
  }

  getEntries() {
    return select(this.#entries, undefined, undefined);
  }

  getEntriesByType(type) {
    const list = this.#entries;
    requiredArguments(arguments.length, 1, "Failed to execute 'getEntriesByType' on 'PerformanceObserverEntryList'");
    return select(list, undefined, converters.DOMString(type));
  }

  getEntriesByName(name, type = undefined) {
    const list = this.#entries;
    requiredArguments(arguments.length, 1, "Failed to execute 'getEntriesByName' on 'PerformanceObserverEntryList'");
    return select(list, converters.DOMString(name), type === undefined ? undefined : converters.DOMString(type));
  }
}

const toObserverInit = dictionaryConverter('PerformanceObserverInit', [
  { key: 'buffered', converter: converters.boolean },
  { key: 'entryTypes', converter: sequenceConverter(converters.DOMString) },
  { key: 'type', converter: converters.DOMString },
]);

class PerformanceObserver {
  /** `{ callback, observer, mode, types, buffer, wantsDropped }`; mode is 'single', 'multiple' or undefined. */
  #record;

  constructor(callback) {
    const prefix = "Failed to construct 'PerformanceObserver'";
    requiredArguments(arguments.length, 1, prefix);
    this.#record = {
      callback: converters.callback(callback, prefix, 'Argument 1'),
      observer: this,
      mode: undefined,
      types: [],
      buffer: [],
      wantsDropped: false,
    };
  }

  static get supportedEntryTypes() {
    return supportedEntryTypes;
  }

  observe(options = {}) {
    const record = this.#record;
    const prefix = "Failed to execute 'observe' on 'PerformanceObserver'";
    const { buffered, entryTypes, type } = toObserverInit(options, prefix, 'Argument 1');
    if (entryTypes === undefined && type === undefined) throw new TypeError(`${prefix}: neither 'entryTypes' nor 'type' is given`);
    if (entryTypes !== undefined && (type !== undefined || buffered !== undefined)) {
      throw new TypeError(`${prefix}: 'entryTypes' excludes all other members`);
    }
    const mode = type === undefined ? 'multiple' : 'single';
    record.mode ??= mode;
    if (record.mode !== mode) {
      throw new DOMException(`${prefix}: the observer was given ${mode === 'single' ? "'entryTypes'" : "a 'type'"} before`, 'InvalidModificationError');
    }
    record.wantsDropped = true;
    if (mode === 'single') this.#observeType(type, buffered === true);
    else this.#observeTypes(entryTypes);
  }

  #observeTypes(entryTypes) {
    const record = this.#record;
    const types = ArrayPrototypeFilter(entryTypes, (type) => ArrayPrototypeIncludes(supportedEntryTypes, type));
    if (types.length === 0) return;
    record.types = ArrayPrototypeFilter(types, (type, i) => ArrayPrototypeIndexOf(types, type) === i);
    this.#register();
  }

  #observeType(type, isBuffered) {
    const record = this.#record;
    if (!ArrayPrototypeIncludes(supportedEntryTypes, type)) return;
    if (!observes(record, type)) ArrayPrototypePush(record.types, type);
    this.#register();
    if (!isBuffered) return;
    for (let i = 0; i < entries.length; i++) {
      if (entryType(entries[i]) === type) ArrayPrototypePush(record.buffer, entries[i]);
    }
    queueObserverTask();
  }

  #register() {
    if (!ArrayPrototypeIncludes(observers, this.#record)) ArrayPrototypePush(observers, this.#record);
  }

  disconnect() {
    const record = this.#record;
    const index = ArrayPrototypeIndexOf(observers, record);
    if (index !== -1) ArrayPrototypeSplice(observers, index, 1);
    record.buffer = [];
    record.types = [];
    record.mode = undefined;
  }

  takeRecords() {
    const record = this.#record;
    const taken = record.buffer;
    record.buffer = [];
    return taken;
  }
}

defineInterface(PerformanceObserverEntryList);
defineInterface(PerformanceObserver);

internals.performanceTimeline = {
  PerformanceObserver,
  PerformanceObserverEntryList,
  queueEntry,
  addEntry,
  /** (type) -> how many entries of the type are kept. */
  count: (type) => kept[type],
  clear,
  lastMark,
  /** (name, type) -> the entries kept, by their start. */
  entries: (name, type) => select(entries, name, type),
};
