//! Performance: a clock relative to the start of the worker, marks and measures.
//! https://w3c.github.io/hr-time/ and https://w3c.github.io/user-timing/

const { SafeArrayIterator, SafeSet, TypeError } = primordials;
const { converters, dictionaryConverter, requiredArguments, isObject, defineInterface, kConstruct } = internals.webidl;
const { EventTarget, defineEventHandler } = internals.events;
const { PerformanceMark, PerformanceMeasure, entryStart } = internals.performanceEntries;
const { queueEntry, addEntry, clear, lastMark, entries } = internals.performanceTimeline;
const { DOMException } = internals;

/** `(DOMString or DOMHighResTimeStamp)` */
function toTime(value, prefix, context) {
  return typeof value === 'number' ? converters.double(value, prefix, context) : converters.DOMString(value, prefix, context);
}

const toMeasureOptions = dictionaryConverter('PerformanceMeasureOptions', [
  { key: 'detail', converter: converters.any },
  { key: 'duration', converter: converters.double },
  { key: 'end', converter: toTime },
  { key: 'start', converter: toTime },
]);

/** The attributes of PerformanceTiming, which only a Window has. */
const navigationTimes = new SafeSet(new SafeArrayIterator([
  'navigationStart', 'unloadEventStart', 'unloadEventEnd', 'redirectStart', 'redirectEnd', 'fetchStart', 'domainLookupStart',
  'domainLookupEnd', 'connectStart', 'connectEnd', 'secureConnectionStart', 'requestStart', 'responseStart', 'responseEnd',
  'domLoading', 'domInteractive', 'domContentLoadedEventStart', 'domContentLoadedEventEnd', 'domComplete', 'loadEventStart',
  'loadEventEnd',
]));

/** https://w3c.github.io/user-timing/#convert-a-mark-to-a-timestamp */
function timeOf(mark, prefix) {
  if (typeof mark === 'number') {
    if (mark < 0) throw new TypeError(`${prefix}: a time is negative`);
    return mark;
  }
  if (navigationTimes.has(mark)) throw new TypeError(`${prefix}: '${mark}' is a time of a page, and there is none`);
  const entry = lastMark(mark);
  if (entry === undefined) throw new DOMException(`${prefix}: the mark '${mark}' does not exist`, 'SyntaxError');
  return entryStart(entry);
}

/** Start and end of a measure, from what was given of start, duration and end. */
function spanOf({ start, duration, end }, prefix) {
  let to;
  if (end !== undefined) to = timeOf(end, prefix);
  else if (start !== undefined && duration !== undefined) to = timeOf(start, prefix) + timeOf(duration, prefix);
  else to = ops.performance_now();
  let from = 0;
  if (start !== undefined) from = timeOf(start, prefix);
  else if (duration !== undefined && end !== undefined) from = to - timeOf(duration, prefix);
  return { from, to };
}

/** What measure's second and third argument say: the members of PerformanceMeasureOptions. */
function toSpan(startOrOptions, endMark, prefix) {
  const isOptions = isObject(startOrOptions) || startOrOptions === undefined || startOrOptions === null;
  if (!isOptions) {
    return { start: converters.DOMString(startOrOptions, prefix, 'Argument 2'), end: endMark };
  }
  const options = toMeasureOptions(startOrOptions, prefix, 'Argument 2');
  const { detail, duration, end, start } = options;
  if (detail === undefined && duration === undefined && end === undefined && start === undefined) return { end: endMark };
  if (endMark !== undefined) throw new TypeError(`${prefix}: options and an end mark exclude one another`);
  if (start === undefined && end === undefined) throw new TypeError(`${prefix}: neither 'start' nor 'end' is given`);
  if (start !== undefined && duration !== undefined && end !== undefined) {
    throw new TypeError(`${prefix}: 'start', 'duration' and 'end' cannot be given together`);
  }
  return options;
}

class Performance extends EventTarget {
  #brand;

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'Performance': Illegal constructor");
    super();
  }

  now() {
    this.#brand;
    return ops.performance_now();
  }

  get timeOrigin() {
    this.#brand;
    return ops.performance_time_origin();
  }

  toJSON() {
    this.#brand;
    return { timeOrigin: ops.performance_time_origin() };
  }

  mark(markName, markOptions = {}) {
    this.#brand;
    requiredArguments(arguments.length, 1, "Failed to execute 'mark' on 'Performance'");
    const entry = new PerformanceMark(markName, markOptions);
    queueEntry(entry);
    addEntry(entry);
    return entry;
  }

  measure(measureName, startOrMeasureOptions = {}, endMark = undefined) {
    this.#brand;
    const prefix = "Failed to execute 'measure' on 'Performance'";
    requiredArguments(arguments.length, 1, prefix);
    measureName = converters.DOMString(measureName, prefix, 'Argument 1');
    if (endMark !== undefined) endMark = converters.DOMString(endMark, prefix, 'Argument 3');
    const span = toSpan(startOrMeasureOptions, endMark, prefix);
    const { from, to } = spanOf(span, prefix);
    const entry = new PerformanceMeasure(kConstruct, measureName, from, to - from, span.detail);
    queueEntry(entry);
    addEntry(entry);
    return entry;
  }

  clearMarks(markName = undefined) {
    this.#brand;
    clear('mark', markName === undefined ? undefined : converters.DOMString(markName));
  }

  clearMeasures(measureName = undefined) {
    this.#brand;
    clear('measure', measureName === undefined ? undefined : converters.DOMString(measureName));
  }

  clearResourceTimings() {
    this.#brand;
    internals.resourceTiming.clear();
  }

  setResourceTimingBufferSize(maxSize) {
    this.#brand;
    const prefix = "Failed to execute 'setResourceTimingBufferSize' on 'Performance'";
    requiredArguments(arguments.length, 1, prefix);
    internals.resourceTiming.setBufferSize(converters.unsignedLong(maxSize, prefix, 'Argument 1'));
  }

  getEntries() {
    this.#brand;
    return entries(undefined, undefined);
  }

  getEntriesByType(type) {
    this.#brand;
    requiredArguments(arguments.length, 1, "Failed to execute 'getEntriesByType' on 'Performance'");
    return entries(undefined, converters.DOMString(type));
  }

  getEntriesByName(name, type = undefined) {
    this.#brand;
    requiredArguments(arguments.length, 1, "Failed to execute 'getEntriesByName' on 'Performance'");
    return entries(converters.DOMString(name), type === undefined ? undefined : converters.DOMString(type));
  }
}

defineInterface(Performance);
defineEventHandler(Performance.prototype, 'resourcetimingbufferfull');

internals.performance = { Performance, performance: new Performance(kConstruct) };
