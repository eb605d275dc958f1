//! PerformanceEntry and its kinds. https://w3c.github.io/performance-timeline/#the-performanceentry-interface,
//! https://w3c.github.io/user-timing/

const { TypeError } = primordials;
const { converters, dictionaryConverter, requiredArguments, defineInterface, kConstruct } = internals.webidl;

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

const toMarkOptions = dictionaryConverter('PerformanceMarkOptions', [
  { key: 'detail', converter: converters.any },
  { key: 'startTime', converter: converters.double },
]);

/** A copy of what a user attached to an entry. */
function copyDetail(detail) {
  return detail === undefined || detail === null ? null : internals.structuredClone(detail);
}

class PerformanceMark extends PerformanceEntry {
  #detail;

  constructor(markName, markOptions = {}) {
    const prefix = "Failed to construct 'PerformanceMark'";
    requiredArguments(arguments.length, 1, prefix);
    markName = converters.DOMString(markName, prefix, 'Argument 1');
    const { detail, startTime } = toMarkOptions(markOptions, prefix, 'Argument 2');
    if (startTime !== undefined && startTime < 0) throw new TypeError(`${prefix}: 'startTime' is negative`);
    super(kConstruct, markName, 'mark', startTime ?? ops.performance_now(), 0);
    this.#detail = copyDetail(detail);
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
    this.#detail = copyDetail(detail);
  }

  get detail() {
    return this.#detail;
  }
}

defineInterface(PerformanceEntry);
defineInterface(PerformanceMark);
defineInterface(PerformanceMeasure);

internals.performanceEntries = {
  PerformanceEntry,
  PerformanceMark,
  PerformanceMeasure,
  entryName,
  entryType,
  entryStart,
};
