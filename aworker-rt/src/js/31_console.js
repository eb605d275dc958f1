//! console. https://console.spec.whatwg.org/

const {
  ArrayIsArray,
  ArrayPrototypeJoin,
  ArrayPrototypePush,
  ErrorCaptureStackTrace,
  MapPrototypeDelete,
  MapPrototypeGet,
  MapPrototypeHas,
  MapPrototypeSet,
  Map,
  MathMax,
  Number,
  NumberParseFloat,
  NumberParseInt,
  NumberPrototypeToFixed,
  ObjectCreate,
  ObjectPrototype,
  ReflectApply,
  ReflectGetOwnPropertyDescriptor,
  ReflectOwnKeys,
  StringPrototypeCharCodeAt,
  StringPrototypeIncludes,
  StringPrototypeIndexOf,
  StringPrototypePadEnd,
  StringPrototypeRepeat,
  StringPrototypeReplaceAll,
  StringPrototypeSlice,
} = primordials;
const { converters, defineToStringTag, isObject } = internals.webidl;
const { inspect } = internals;

const STDOUT = 1;
const STDERR = 2;
/** Deepest indentation of groups. */
const MAX_GROUP_INDENT = 64;

const counters = new Map();
const startTimes = new Map();
let groupDepth = 0;

/** One argument that no format specifier consumed. */
function toText(value) {
  return typeof value === 'string' ? value : inspect(value);
}

/** https://console.spec.whatwg.org/#formatter, applied to all arguments; one string. */
function formatArguments(args) {
  if (args.length === 0) return '';
  const first = args[0];
  if (args.length === 1) return toText(first);
  if (typeof first !== 'string' || StringPrototypeIndexOf(first, '%') === -1) return joinFrom(args, 0, '');
  let text = '';
  let next = 1;
  let last = 0;
  for (let i = 0; i < first.length - 1; i++) {
    if (StringPrototypeCharCodeAt(first, i) !== 0x25) continue;
    const specifier = first[i + 1];
    let replacement;
    if (specifier === '%') {
      replacement = '%';
    } else {
      if (next >= args.length) continue;
      replacement = applySpecifier(specifier, args[next]);
      if (replacement === undefined) continue;
      next++;
    }
    text += StringPrototypeSlice(first, last, i) + replacement;
    i++;
    last = i + 1;
  }
  return joinFrom(args, next, text + StringPrototypeSlice(first, last));
}

function joinFrom(args, index, text) {
  const parts = index === 0 ? [] : [text];
  for (let i = index; i < args.length; i++) ArrayPrototypePush(parts, toText(args[i]));
  return ArrayPrototypeJoin(parts, ' ');
}

function applySpecifier(specifier, value) {
  switch (specifier) {
    case 's':
      return typeof value === 'string' ? value : isObject(value) ? inspect(value, 0) : toText(value);
    case 'd':
    case 'i':
      if (typeof value === 'symbol' || isObject(value)) return 'NaN';
      if (typeof value === 'bigint') return inspect(value);
      return inspect(specifier === 'i' ? NumberParseInt(value, 10) : Number(value));
    case 'f':
      return typeof value === 'symbol' ? 'NaN' : inspect(NumberParseFloat(value));
    case 'o':
      return inspect(value, 4);
    case 'O':
      return inspect(value);
    case 'c':
      return '';
    case 'j':
      return inspect(value);
    default:
      return undefined;
  }
}

/** Writes a line, indented by the open groups. */
function printLine(fd, text) {
  if (groupDepth > 0) {
    const indent = StringPrototypeRepeat('  ', groupDepth > MAX_GROUP_INDENT ? MAX_GROUP_INDENT : groupDepth);
    text = indent + (StringPrototypeIncludes(text, '\n') ? StringPrototypeReplaceAll(text, '\n', `\n${indent}`) : text);
  }
  ops.print(fd, `${text}\n`);
}

function labelOf(label) {
  return label === undefined ? 'default' : converters.DOMString(label, 'console', 'The label');
}

function elapsed(start) {
  const milliseconds = ops.performance_now() - start;
  if (milliseconds >= 1000) return `${NumberPrototypeToFixed(milliseconds / 1000, 3)}s`;
  return `${NumberPrototypeToFixed(milliseconds, 3)}ms`;
}

function printTime(label, extra, verb) {
  const start = MapPrototypeGet(startTimes, label);
  if (start === undefined) {
    printLine(STDERR, `Warning: ${verb}: timer '${label}' does not exist`);
    return false;
  }
  const parts = [`${label}: ${elapsed(start)}`];
  for (let i = 0; i < extra.length; i++) ArrayPrototypePush(parts, toText(extra[i]));
  printLine(STDOUT, ArrayPrototypeJoin(parts, ' '));
  return true;
}

/** The rows and columns of console.table, or undefined if the data has none. */
function tabulate(data, properties) {
  const columns = ['(index)'];
  const rows = [];
  let hasValues = false;
  const entries = rowEntries(data);
  for (let i = 0; i < entries.length; i++) {
    const { key, value } = entries[i];
    const row = { __proto__: null, '(index)': key };
    if (isObject(value) && !ops.is_proxy(value)) {
      const keys = properties ?? ReflectOwnKeys(value);
      for (let j = 0; j < keys.length; j++) {
        if (typeof keys[j] !== 'string') continue;
        const descriptor = ReflectGetOwnPropertyDescriptor(value, keys[j]);
        if (properties === undefined && (descriptor === undefined || !descriptor.enumerable)) continue;
        if (!primordials.ArrayPrototypeIncludes(columns, keys[j])) ArrayPrototypePush(columns, keys[j]);
        if (descriptor !== undefined && 'value' in descriptor) row[keys[j]] = inspect(descriptor.value, 0);
      }
    } else {
      hasValues = true;
      row['\0value'] = inspect(value, 0);
    }
    ArrayPrototypePush(rows, row);
  }
  return { columns, rows, hasValues };
}

function rowEntries(data) {
  const entries = [];
  const preview = ops.preview_entries(data);
  if (preview !== undefined) {
    const step = preview[1] ? 2 : 1;
    for (let i = 0; i < preview[0].length; i += step) {
      ArrayPrototypePush(entries, { key: `${i / step}`, value: preview[0][i + step - 1] });
    }
    return entries;
  }
  const keys = ReflectOwnKeys(data);
  for (let i = 0; i < keys.length; i++) {
    const descriptor = ReflectGetOwnPropertyDescriptor(data, keys[i]);
    if (typeof keys[i] !== 'string' || descriptor === undefined || !descriptor.enumerable) continue;
    ArrayPrototypePush(entries, { key: keys[i], value: descriptor.value });
  }
  return entries;
}

function drawTable({ columns, rows, hasValues }) {
  const keys = [];
  const titles = [];
  for (let i = 0; i < columns.length; i++) {
    ArrayPrototypePush(keys, columns[i]);
    ArrayPrototypePush(titles, columns[i]);
  }
  if (hasValues) {
    ArrayPrototypePush(keys, '\0value');
    ArrayPrototypePush(titles, 'Values');
  }
  const widths = [];
  for (let i = 0; i < keys.length; i++) {
    let width = titles[i].length;
    for (let j = 0; j < rows.length; j++) width = MathMax(width, (rows[j][keys[i]] ?? '').length);
    ArrayPrototypePush(widths, width + 2);
  }
  const lines = [ruler(widths, '\u250c', '\u252c', '\u2510'), tableRow(widths, (i) => titles[i]), ruler(widths, '\u251c', '\u253c', '\u2524')];
  for (let j = 0; j < rows.length; j++) {
    ArrayPrototypePush(lines, tableRow(widths, (i) => rows[j][keys[i]] ?? ''));
  }
  ArrayPrototypePush(lines, ruler(widths, '\u2514', '\u2534', '\u2518'));
  return ArrayPrototypeJoin(lines, '\n');
}

function ruler(widths, left, middle, right) {
  const parts = [];
  for (let i = 0; i < widths.length; i++) ArrayPrototypePush(parts, StringPrototypeRepeat('\u2500', widths[i]));
  return left + ArrayPrototypeJoin(parts, middle) + right;
}

function tableRow(widths, cell) {
  const parts = [];
  for (let i = 0; i < widths.length; i++) ArrayPrototypePush(parts, StringPrototypePadEnd(` ${cell(i)}`, widths[i]));
  return `\u2502${ArrayPrototypeJoin(parts, '\u2502')}\u2502`;
}

/** The caller's stack, without the line of console itself. */
function callerStack(entry) {
  const holder = {};
  ErrorCaptureStackTrace(holder, entry);
  const firstFrame = StringPrototypeIndexOf(holder.stack, '\n');
  return firstFrame === -1 ? '' : StringPrototypeSlice(holder.stack, firstFrame);
}

const methods = {
  log(...data) {
    printLine(STDOUT, formatArguments(data));
  },
  info(...data) {
    printLine(STDOUT, formatArguments(data));
  },
  debug(...data) {
    printLine(STDOUT, formatArguments(data));
  },
  warn(...data) {
    printLine(STDERR, formatArguments(data));
  },
  error(...data) {
    printLine(STDERR, formatArguments(data));
  },
  assert(condition = false, ...data) {
    if (condition) return;
    if (data.length === 0) {
      printLine(STDERR, 'Assertion failed');
      return;
    }
    if (typeof data[0] === 'string') data[0] = `Assertion failed: ${data[0]}`;
    else primordials.ArrayPrototypeUnshift(data, 'Assertion failed:');
    printLine(STDERR, formatArguments(data));
  },
  clear() {
    groupDepth = 0;
  },
  trace(...data) {
    const title = data.length === 0 ? 'Trace' : `Trace: ${formatArguments(data)}`;
    printLine(STDERR, title + callerStack(methods.trace));
  },
  dir(item = undefined, options = undefined) {
    const depth = options?.depth;
    printLine(STDOUT, depth === null ? inspect(item, Infinity) : inspect(item, typeof depth === 'number' ? depth : undefined));
  },
  dirxml(...data) {
    printLine(STDOUT, formatArguments(data));
  },
  table(tabularData = undefined, properties = undefined) {
    if (!isObject(tabularData) || ops.is_proxy(tabularData)) {
      printLine(STDOUT, toText(tabularData));
      return;
    }
    printLine(STDOUT, drawTable(tabulate(tabularData, ArrayIsArray(properties) ? properties : undefined)));
  },
  count(label = 'default') {
    label = labelOf(label);
    const count = (MapPrototypeGet(counters, label) ?? 0) + 1;
    MapPrototypeSet(counters, label, count);
    printLine(STDOUT, `${label}: ${count}`);
  },
  countReset(label = 'default') {
    label = labelOf(label);
    if (!MapPrototypeDelete(counters, label)) printLine(STDERR, `Warning: countReset: counter '${label}' does not exist`);
  },
  group(...data) {
    if (data.length > 0) printLine(STDOUT, formatArguments(data));
    groupDepth++;
  },
  groupCollapsed(...data) {
    if (data.length > 0) printLine(STDOUT, formatArguments(data));
    groupDepth++;
  },
  groupEnd() {
    if (groupDepth > 0) groupDepth--;
  },
  time(label = 'default') {
    label = labelOf(label);
    if (MapPrototypeHas(startTimes, label)) printLine(STDERR, `Warning: time: timer '${label}' already exists`);
    else MapPrototypeSet(startTimes, label, ops.performance_now());
  },
  timeLog(label = 'default', ...data) {
    printTime(labelOf(label), data, 'timeLog');
  },
  timeEnd(label = 'default') {
    label = labelOf(label);
    if (printTime(label, [], 'timeEnd')) MapPrototypeDelete(startTimes, label);
  },
};

// A namespace object: its prototype is an empty object, its members are writable and enumerable.
// V8's own console, an inspector's, is replaced.
const namespace = ObjectCreate(ObjectCreate(ObjectPrototype));
const names = ReflectOwnKeys(methods);
for (let i = 0; i < names.length; i++) namespace[names[i]] = methods[names[i]];
defineToStringTag(namespace, 'console');

internals.console = namespace;

const v8Console = globalThis.console;

/** (): an inspector is there, which hears what V8's own console is told. */
internals.callbacks.inspectConsole = () => {
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    const ours = methods[name];
    const theirs = v8Console?.[name];
    if (typeof theirs !== 'function') continue;
    namespace[name] = {
      [name](...args) {
        ReflectApply(theirs, v8Console, args);
        return ReflectApply(ours, namespace, args);
      },
    }[name];
  }
};
