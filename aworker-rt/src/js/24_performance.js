//! Performance: a clock relative to the start of the worker, marks and measures.
//! https://w3c.github.io/hr-time/ and https://w3c.github.io/user-timing/

const { ArrayPrototypeFilter, ArrayPrototypePush, ArrayPrototypeSort, TypeError } = primordials;
const { converters, requiredArguments, isObject, defineInterface, kConstruct } = internals.webidl;
const { EventTarget } = internals.events;
const { DOMException } = internals;

/** Entries kept at most; later ones are dropped, so that a long-lived worker does not grow. */
const MAX_ENTRIES = 10000;

// Set by PerformanceEntry's static block: they read the slots whatever a user did to the getters.
let entryName, entryType, entryStart;

class PerformanceEntry {
  #name;
  #entryType;
  #startTime;
  #duration;

  static {
    entryName = (entry) => entry.#name;
    entryType = (entry) => entry.#entryType;
    entryStart = (entry) => entry.#startTime;
  }

  constructor(token = undefined, name, type, startTime, duration) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'PerformanceEntry': Illegal constructor");
    this.#name = name;
    this.#entryType = type;
    this.#startTime = startTime;
    this.#duration = duration;
  }

  get name() {
    return this.#name;
  }

  get entryType() {
    return this.#entryType;
  }

  get startTime() {
    return this.#startTime;
  }

  get duration() {
    return this.#duration;
  }

  toJSON() {
    return { name: this.#name, entryType: this.#entryType, startTime: this.#startTime, duration: this.#duration };
  }
}

class PerformanceMark extends PerformanceEntry {
  #detail;

  constructor(markName, markOptions = undefined) {
    const prefix = "Failed to construct 'PerformanceMark'";
    requiredArguments(arguments.length, 1, prefix);
    markName = converters.DOMString(markName, prefix, 'Argument 1');
    const startTime = markOptions?.startTime;
    const time = startTime === undefined ? ops.performance_now() : converters.double(startTime, prefix, "'startTime'");
    if (time < 0) throw new TypeError(`${prefix}: 'startTime' is negative`);
    super(kConstruct, markName, 'mark', time, 0);
    const detail = markOptions?.detail;
    this.#detail = detail === undefined || detail === null ? null : internals.structuredClone(detail);
  }

  get detail() {
    return this.#detail;
  }
}

class PerformanceMeasure extends PerformanceEntry {
  #detail;

  constructor(token = undefined, name, startTime, duration, detail) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'PerformanceMeasure': Illegal constructor");
    super(kConstruct, name, 'measure', startTime, duration);
    this.#detail = detail;
  }

  get detail() {
    return this.#detail;
  }
}

class Performance extends EventTarget {
  #entries = undefined;

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'Performance': Illegal constructor");
    super();
  }

  #list() {
    return (this.#entries ??= []);
  }

  #add(entry) {
    const entries = this.#list();
    if (entries.length < MAX_ENTRIES) ArrayPrototypePush(entries, entry);
    return entry;
  }

  #select(predicate) {
    const selected = ArrayPrototypeFilter(this.#list(), predicate);
    return ArrayPrototypeSort(selected, (a, b) => entryStart(a) - entryStart(b));
  }

  #remove(type, name) {
    this.#entries = ArrayPrototypeFilter(this.#list(), (entry) =>
      entryType(entry) !== type || (name !== undefined && entryName(entry) !== name));
  }

  now() {
    this.#entries;
    return ops.performance_now();
  }

  get timeOrigin() {
    this.#entries;
    return ops.performance_time_origin();
  }

  toJSON() {
    this.#entries;
    return { timeOrigin: ops.performance_time_origin() };
  }

  mark(markName, markOptions = {}) {
    requiredArguments(arguments.length, 1, "Failed to execute 'mark' on 'Performance'");
    return this.#add(new PerformanceMark(markName, markOptions));
  }

  measure(measureName, startOrMeasureOptions = {}, endMark = undefined) {
    const prefix = "Failed to execute 'measure' on 'Performance'";
    requiredArguments(arguments.length, 1, prefix);
    measureName = converters.DOMString(measureName, prefix, 'Argument 1');
    const options = isObject(startOrMeasureOptions) ? startOrMeasureOptions : { start: startOrMeasureOptions };
    if (endMark !== undefined && isObject(startOrMeasureOptions) && primordials.ReflectOwnKeys(options).length > 0) {
      throw new TypeError(`${prefix}: options and an end mark exclude one another`);
    }
    const { detail, duration, end, start } = options;
    if (start !== undefined && duration !== undefined && end !== undefined) {
      throw new TypeError(`${prefix}: 'start', 'duration' and 'end' cannot be given together`);
    }
    const { from, to } = this.#span(start, duration, endMark ?? end, prefix);
    const copy = detail === undefined || detail === null ? null : internals.structuredClone(detail);
    return this.#add(new PerformanceMeasure(kConstruct, measureName, from, to - from, copy));
  }

  /** Start and end of a measure, from what of start, duration and end was given. */
  #span(start, duration, end, prefix) {
    const length = duration === undefined ? undefined : converters.double(duration, prefix, "'duration'");
    let to = end === undefined ? undefined : this.#time(end, prefix);
    if (to === undefined) {
      to = start !== undefined && length !== undefined ? this.#time(start, prefix) + length : ops.performance_now();
    }
    let from = start === undefined ? undefined : this.#time(start, prefix);
    if (from === undefined) from = length !== undefined && end !== undefined ? to - length : 0;
    return { from, to };
  }

  /** The time of a mark's name, or of a number. */
  #time(mark, prefix) {
    if (typeof mark === 'number') {
      if (mark < 0) throw new TypeError(`${prefix}: a time is negative`);
      return converters.double(mark, prefix, 'A time');
    }
    const name = converters.DOMString(mark, prefix, 'A mark');
    const entries = this.#list();
    for (let i = entries.length - 1; i >= 0; i--) {
      if (entryType(entries[i]) === 'mark' && entryName(entries[i]) === name) return entryStart(entries[i]);
    }
    throw new DOMException(`${prefix}: the mark '${name}' does not exist`, 'SyntaxError');
  }

  clearMarks(markName = undefined) {
    this.#remove('mark', markName === undefined ? undefined : converters.DOMString(markName));
  }

  clearMeasures(measureName = undefined) {
    this.#remove('measure', measureName === undefined ? undefined : converters.DOMString(measureName));
  }

  getEntries() {
    return this.#select(() => true);
  }

  getEntriesByType(type) {
    requiredArguments(arguments.length, 1, "Failed to execute 'getEntriesByType' on 'Performance'");
    type = converters.DOMString(type);
    return this.#select((entry) => entryType(entry) === type);
  }

  getEntriesByName(name, type = undefined) {
    requiredArguments(arguments.length, 1, "Failed to execute 'getEntriesByName' on 'Performance'");
    name = converters.DOMString(name);
    if (type !== undefined) type = converters.DOMString(type);
    return this.#select((entry) => entryName(entry) === name && (type === undefined || entryType(entry) === type));
  }
}

defineInterface(PerformanceEntry);
defineInterface(PerformanceMark);
defineInterface(PerformanceMeasure);
defineInterface(Performance);

internals.performance = {
  Performance,
  PerformanceEntry,
  PerformanceMark,
  PerformanceMeasure,
  performance: new Performance(kConstruct),
};
