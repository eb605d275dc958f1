//! inspect: any value as text for a person, as `console` shows it. Runs no user code: getters are
//! named, not called, proxies are looked through natively. https://console.spec.whatwg.org/#formatter

const {
  ArrayIsArray,
  ArrayPrototypeIncludes,
  ArrayPrototypeJoin,
  ArrayPrototypePop,
  ArrayPrototypePush,
  BigIntPrototypeToString,
  DatePrototypeGetTime,
  DatePrototypeToISOString,
  FunctionPrototypeToString,
  JSONStringify,
  Map,
  MapPrototypeGet,
  MapPrototypeGetSize,
  MapPrototypeSet,
  NumberIsNaN,
  ObjectIs,
  ReflectGetOwnPropertyDescriptor,
  ReflectOwnKeys,
  RegExpPrototypeExec,
  RegExpPrototypeToString,
  SetPrototypeGetSize,
  StringPrototypeIncludes,
  StringPrototypeIndexOf,
  StringPrototypePadEnd,
  StringPrototypeRepeat,
  StringPrototypeSlice,
  StringPrototypeSplit,
  StringPrototypeStartsWith,
  SymbolPrototypeToString,
  SymbolToStringTag,
  TypedArrayPrototypeGetLength,
  TypedArrayPrototypeGetSymbolToStringTag,
} = primordials;

// Kinds that `ops.value_kind` tells apart; the same numbers as in web/inspect.rs.
const KIND_OBJECT = 0;
const KIND_PROXY = 1;
const KIND_MAP = 2;
const KIND_SET = 3;
const KIND_WEAK = 4;
const KIND_PROMISE = 5;
const KIND_DATE = 6;
const KIND_REGEXP = 7;
const KIND_ERROR = 8;
const KIND_ARRAY_BUFFER = 9;
const KIND_DATA_VIEW = 10;
const KIND_BOXED = 11;
const KIND_ARGUMENTS = 12;
const KIND_ITERATOR = 13;
const KIND_NAMESPACE = 14;
const KIND_GENERATOR = 15;

const DEFAULT_DEPTH = 4;
/** Elements shown of an array, a map or a set. */
const MAX_ELEMENTS = 100;
/** Bytes shown of a buffer. */
const MAX_BUFFER_PREVIEW = 50;
/** Characters shown of a nested string. */
const MAX_STRING = 10000;
/** A value that fits is shown on one line. */
const LINE_WIDTH = 76;
/** Characters of one result; deep and wide values are cut rather than eat memory. */
const MAX_OUTPUT = 1 << 20;

const identifier = /^[A-Za-z_$][\w$]*$/;

/** Text of `value`. `depth` is how many levels of nesting are opened. */
function inspect(value, depth = DEFAULT_DEPTH) {
  const context = { depth, seen: [], circular: undefined, written: 0 };
  return format(context, value, 0);
}

function format(context, value, level) {
  switch (typeof value) {
    case 'string':
      return quote(value.length > MAX_STRING ? StringPrototypeSlice(value, 0, MAX_STRING) : value) +
        (value.length > MAX_STRING ? `... ${value.length - MAX_STRING} more characters` : '');
    case 'number':
      return ObjectIs(value, -0) ? '-0' : `${value}`;
    case 'bigint':
      return `${BigIntPrototypeToString(value)}n`;
    case 'symbol':
      return SymbolPrototypeToString(value);
    case 'undefined':
    case 'boolean':
      return `${value}`;
    case 'function':
      return formatObject(context, value, level);
    default:
      return value === null ? 'null' : formatObject(context, value, level);
  }
}

/** A string in quotes, single ones unless that needs escapes. */
function quote(text) {
  const json = JSONStringify(text);
  if (StringPrototypeIncludes(text, "'") || StringPrototypeIncludes(json, '\\"')) return json;
  return `'${StringPrototypeSlice(json, 1, -1)}'`;
}

function formatObject(context, value, level) {
  const kind = typeof value === 'function' && !ops.is_proxy(value) ? KIND_OBJECT : ops.value_kind(value);
  if (kind === KIND_PROXY) return `Proxy ${format(context, ops.proxy_target(value) ?? null, level)}`;
  if (ArrayPrototypeIncludes(context.seen, value)) return circularReference(context, value);
  if (context.written > MAX_OUTPUT) return '...';

  const shape = describe(context, value, kind, level);
  if (shape.done !== undefined) return mark(context, value, shape.done);
  if (level > context.depth) {
    return shape.isList ? `[${shape.name === '' ? 'Array' : shape.name}]` : `[${shape.prefix || 'Object'}]`;
  }
  ArrayPrototypePush(context.seen, value);
  const items = [];
  shape.fill?.(items, level + 1);
  addProperties(context, value, shape, items, level + 1);
  ArrayPrototypePop(context.seen);
  const text = assemble(shape, items, level);
  context.written += text.length;
  return mark(context, value, text);
}

function circularReference(context, value) {
  context.circular ??= new Map();
  let index = MapPrototypeGet(context.circular, value);
  if (index === undefined) {
    index = MapPrototypeGetSize(context.circular) + 1;
    MapPrototypeSet(context.circular, value, index);
  }
  return `[Circular *${index}]`;
}

/** Prefixes a value that something within referred to. */
function mark(context, value, text) {
  const index = context.circular === undefined ? undefined : MapPrototypeGet(context.circular, value);
  return index === undefined ? text : `<ref *${index}> ${text}`;
}

/** The class name of an object, found without running user code; null for a null prototype. */
function className(value) {
  for (let object = value; object !== null; object = ops.prototype_of(object)) {
    const descriptor = ops.is_proxy(object) ? undefined : ReflectGetOwnPropertyDescriptor(object, 'constructor');
    const constructor = descriptor?.value;
    if (typeof constructor !== 'function' || ops.is_proxy(constructor)) continue;
    const name = ReflectGetOwnPropertyDescriptor(constructor, 'name')?.value;
    if (typeof name === 'string' && name !== '') return name;
  }
  return null;
}

function ownTag(value) {
  for (let object = value; object !== null && !ops.is_proxy(object); object = ops.prototype_of(object)) {
    const descriptor = ReflectGetOwnPropertyDescriptor(object, SymbolToStringTag);
    if (descriptor !== undefined) return typeof descriptor.value === 'string' ? descriptor.value : '';
  }
  return '';
}

/**
 * How a value is shown: `done` if that is all, else prefix, brackets, a function that adds the
 * elements, and keys that are not shown as properties.
 */
function describe(context, value, kind, level) {
  if (typeof value === 'function') return describeFunction(value);
  const name = className(value);
  const tag = ownTag(value);
  const suffix = tag !== '' && tag !== name ? ` [${tag}]` : '';
  const label = `${name ?? '[Object: null prototype]'}${suffix}`;
  if (ArrayIsArray(value)) {
    const prefix = name === 'Array' ? '' : `${label}(${value.length})`;
    return listShape(prefix, name ?? 'Array', (items, inner) => fillArray(context, value, items, inner));
  }
  const typedTag = TypedArrayPrototypeGetSymbolToStringTag(value);
  if (typedTag !== undefined) {
    const length = TypedArrayPrototypeGetLength(value);
    return listShape(`${name ?? typedTag}(${length})`, typedTag, (items) => fillTyped(value, length, items));
  }
  return describeKind(context, value, kind, label, level);
}

function listShape(prefix, name, fill) {
  return { prefix, name, open: '[', close: ']', isList: true, fill };
}

function objectShape(prefix, fill = undefined) {
  return { prefix, name: prefix, open: '{', close: '}', isList: false, fill };
}

function describeKind(context, value, kind, label, level) {
  switch (kind) {
    case KIND_MAP:
      return objectShape(`${label}(${MapPrototypeGetSize(value)})`, (items, inner) =>
        fillEntries(context, value, items, inner, true));
    case KIND_SET:
      return objectShape(`${label}(${SetPrototypeGetSize(value)})`, (items, inner) =>
        fillEntries(context, value, items, inner, false));
    case KIND_ITERATOR:
      return objectShape(`[${label}]`, (items, inner) => fillEntries(context, value, items, inner, false));
    case KIND_WEAK:
      return objectShape(label, (items) => ArrayPrototypePush(items, '<items unknown>'));
    case KIND_PROMISE:
      return objectShape(label, (items, inner) => ArrayPrototypePush(items, promiseText(context, value, inner)));
    case KIND_DATE: {
      const time = DatePrototypeGetTime(value);
      return baseShape(NumberIsNaN(time) ? 'Invalid Date' : DatePrototypeToISOString(value));
    }
    case KIND_REGEXP:
      return baseShape(RegExpPrototypeToString(value));
    case KIND_ERROR:
      return describeError(context, value, level);
    case KIND_ARRAY_BUFFER:
      return objectShape(label, (items) => pushBuffer(items, value));
    case KIND_DATA_VIEW:
      return objectShape(label, (items, inner) => {
        ArrayPrototypePush(items, `byteLength: ${primordials.DataViewPrototypeGetByteLength(value)}`);
        ArrayPrototypePush(items, `buffer: ${format(context, primordials.DataViewPrototypeGetBuffer(value), inner)}`);
      });
    case KIND_BOXED: {
      const primitive = unbox(value);
      return baseShape(`[${label}: ${format(context, primitive, level)}]`, typeof primitive === 'string');
    }
    case KIND_ARGUMENTS:
      return listShape('[Arguments]', 'Arguments', (items, inner) => fillArray(context, value, items, inner));
    case KIND_NAMESPACE:
      return objectShape('[Module: null prototype]');
    case KIND_GENERATOR:
      return objectShape('Object [Generator]');
    default:
      return describePlain(context, value, label);
  }
}

function describePlain(context, value, label) {
  if (label === 'Object') return objectShape('');
  const inspection = inspectionOf(value);
  if (inspection === undefined) return objectShape(label);
  return objectShape(label, (items, inner) => fillInspection(context, value, inspection, items, inner));
}

const unboxers = [
  primordials.StringPrototypeValueOf,
  primordials.NumberPrototypeValueOf,
  primordials.BooleanPrototypeValueOf,
  primordials.SymbolPrototypeValueOf,
  primordials.BigIntPrototypeValueOf,
];

/** The primitive within a String, Number, Boolean, Symbol or BigInt object. */
function unbox(value) {
  for (let i = 0; i < unboxers.length; i++) {
    try {
      return unboxers[i](value);
    } catch {
      // Not this kind of box.
    }
  }
  return undefined;
}

/** How instances of the platform's interfaces are shown: prototype -> function. */
const inspections = new Map();

/** The function for the nearest prototype of `value` that has one. */
function inspectionOf(value) {
  for (let object = ops.prototype_of(value); object !== null; object = ops.prototype_of(object)) {
    const inspection = MapPrototypeGet(inspections, object);
    if (inspection !== undefined) return inspection;
  }
  return undefined;
}

/** Adds what an inspection tells of a platform object: keys and values in turn. */
function fillInspection(context, value, inspection, items, level) {
  let pairs;
  try {
    pairs = inspection(value);
  } catch {
    return; // An object with the prototype, but not of the interface.
  }
  for (let i = 0; i < pairs.length; i += 2) {
    ArrayPrototypePush(items, `${formatKey(pairs[i], true)}: ${format(context, pairs[i + 1], level)}`);
  }
}

/** A value whose text stands for itself; braces appear only if it has properties. */
function baseShape(base, skipIndices = false) {
  return { prefix: base, name: base, open: '{', close: '}', isList: false, isBase: true, fill: undefined, skipIndices };
}

function describeFunction(value) {
  const source = FunctionPrototypeToString(value);
  const nameValue = ReflectGetOwnPropertyDescriptor(value, 'name')?.value;
  const name = typeof nameValue === 'string' && nameValue !== '' ? nameValue : undefined;
  if (StringPrototypeStartsWith(source, 'class')) {
    const parent = ops.prototype_of(value);
    const parentName = typeof parent === 'function' ? ReflectGetOwnPropertyDescriptor(parent, 'name')?.value : undefined;
    const extending = typeof parentName === 'string' && parentName !== '' ? ` extends ${parentName}` : '';
    return baseShape(`[class ${name ?? '(anonymous)'}${extending}]`);
  }
  const kind = className(value) ?? 'Function';
  return baseShape(`[${kind}${name === undefined ? ' (anonymous)' : `: ${name}`}]`);
}

/** The stack of an error, with its cause and, for an AggregateError, its errors. */
function describeError(context, value, level) {
  let text = errorText(value);
  if (level > 0) text = indentLines(text, level);
  const shape = baseShape(text);
  shape.isError = true;
  return shape;
}

function errorText(value) {
  const stack = readData(value, 'stack');
  const header = errorHeader(value);
  if (typeof stack !== 'string' || stack === '') return `[${header}]`;
  const firstFrame = StringPrototypeIndexOf(stack, '\n    at ');
  if (firstFrame === -1) return stack === header ? `[${stack}]` : stack;
  const shown = StringPrototypeSlice(stack, 0, firstFrame);
  // The stack begins with name and message as they were when the error was made.
  if (header !== shown && (internals.isDOMException(value) || readData(value, 'name') !== undefined)) return header + StringPrototypeSlice(stack, firstFrame);
  return stack;
}

function errorHeader(value) {
  const name = internals.isDOMException(value) ? internals.domExceptionName(value) : readData(value, 'name');
  const message = internals.isDOMException(value) ? internals.domExceptionMessage(value) : readData(value, 'message');
  const shownName = typeof name === 'string' ? name : (className(value) ?? 'Error');
  return typeof message === 'string' && message !== '' ? `${shownName}: ${message}` : shownName;
}

/** A data property, own or inherited; accessors other than V8's own `stack` are not run. */
function readData(value, key) {
  for (let object = value; object !== null && !ops.is_proxy(object); object = ops.prototype_of(object)) {
    const descriptor = ReflectGetOwnPropertyDescriptor(object, key);
    if (descriptor === undefined) continue;
    if ('value' in descriptor) return descriptor.value;
    return key === 'stack' && object === value ? ops.error_stack(value) : undefined;
  }
  return undefined;
}

function promiseText(context, value, level) {
  const details = ops.promise_details(value);
  if (details[0] === 0) return '<pending>';
  const result = format(context, details[1], level);
  return details[0] === 2 ? `<rejected> ${result}` : result;
}

function pushBuffer(items, value) {
  const bytes = ops.buffer_preview(value, MAX_BUFFER_PREVIEW);
  if (bytes === undefined) {
    ArrayPrototypePush(items, '(detached)', 'byteLength: 0');
    return;
  }
  const length = ops.buffer_length(value);
  const hidden = length - MAX_BUFFER_PREVIEW;
  ArrayPrototypePush(items, `[Contents]: <${bytes}${hidden > 0 ? ` ... ${hidden} more bytes` : ''}>`, `byteLength: ${length}`);
}

function moreItems(items, count) {
  if (count > 0) ArrayPrototypePush(items, `... ${count} more item${count === 1 ? '' : 's'}`);
}

function fillArray(context, value, items, level) {
  const length = readData(value, 'length') >>> 0;
  let holes = 0;
  let shown = 0;
  let i = 0;
  for (; i < length && shown < MAX_ELEMENTS; i++) {
    const descriptor = ReflectGetOwnPropertyDescriptor(value, i);
    if (descriptor === undefined) {
      holes++;
      continue;
    }
    if (holes > 0) shown += pushHoles(items, holes);
    holes = 0;
    ArrayPrototypePush(items, formatDescriptor(context, descriptor, level));
    shown++;
  }
  if (holes > 0) pushHoles(items, holes);
  moreItems(items, length - i);
}

function pushHoles(items, holes) {
  ArrayPrototypePush(items, `<${holes} empty item${holes === 1 ? '' : 's'}>`);
  return 1;
}

function fillTyped(value, length, items) {
  const shown = length < MAX_ELEMENTS ? length : MAX_ELEMENTS;
  for (let i = 0; i < shown; i++) {
    const element = value[i];
    ArrayPrototypePush(items, typeof element === 'bigint' ? `${BigIntPrototypeToString(element)}n` : `${element}`);
  }
  moreItems(items, length - shown);
}

function fillEntries(context, value, items, level, isMap) {
  const preview = ops.preview_entries(value);
  if (preview === undefined) return;
  const entries = preview[0];
  const pairs = isMap || preview[1];
  const step = pairs ? 2 : 1;
  const limit = MAX_ELEMENTS * step;
  for (let i = 0; i < entries.length && i < limit; i += step) {
    const first = format(context, entries[i], level);
    if (isMap) ArrayPrototypePush(items, `${first} => ${format(context, entries[i + 1], level)}`);
    else if (pairs) ArrayPrototypePush(items, `[ ${first}, ${format(context, entries[i + 1], level)} ]`);
    else ArrayPrototypePush(items, first);
  }
  moreItems(items, (entries.length - limit) / step);
}

function formatDescriptor(context, descriptor, level) {
  if ('value' in descriptor) return format(context, descriptor.value, level);
  if (descriptor.get === undefined) return '[Setter]';
  return descriptor.set === undefined ? '[Getter]' : '[Getter/Setter]';
}

function addProperties(context, value, shape, items, level) {
  const skipIndices = shape.isList || shape.skipIndices;
  const keys = skipIndices ? ops.named_keys(value) : ReflectOwnKeys(value);
  let shown = 0;
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i];
    if (skipIndices && typeof key === 'string' && isIndex(key)) continue;
    const descriptor = ReflectGetOwnPropertyDescriptor(value, key);
    if (descriptor === undefined) continue;
    const isErrorDetail = shape.isError && (key === 'cause' || key === 'errors');
    if (!descriptor.enumerable && !isErrorDetail) continue;
    if (shape.isError && (key === 'stack' || key === 'message')) continue;
    if (shown++ >= MAX_ELEMENTS * 10) break;
    const name = formatKey(key, descriptor.enumerable);
    ArrayPrototypePush(items, `${name}: ${formatDescriptor(context, descriptor, level)}`);
  }
  moreItems(items, shown > MAX_ELEMENTS * 10 ? keys.length - shown : 0);
}

const indexPattern = /^(?:0|[1-9]\d{0,9})$/;

function isIndex(key) {
  return RegExpPrototypeExec(indexPattern, key) !== null;
}

function formatKey(key, isEnumerable) {
  if (typeof key === 'symbol') return `[${SymbolPrototypeToString(key)}]`;
  if (!isEnumerable) return `[${key}]`;
  return RegExpPrototypeExec(identifier, key) !== null ? key : quote(key);
}

/** Joins items on one line if they fit, else on lines of their own. */
function assemble(shape, items, level) {
  const { prefix, open, close } = shape;
  if (items.length === 0) return shape.isBase ? prefix : `${prefix === '' ? '' : `${prefix} `}${open}${close}`;
  const start = prefix === '' ? open : `${prefix} ${open}`;
  const joined = ArrayPrototypeJoin(items, ', ');
  const width = joined.length + start.length + level * 2;
  if (width <= LINE_WIDTH && !StringPrototypeIncludes(joined, '\n') && !shape.isError) return `${start} ${joined} ${close}`;
  const indent = StringPrototypeRepeat('  ', level + 1);
  const body = shape.isList && items.length > 6 ? columns(items, indent, level) : ArrayPrototypeJoin(items, `,\n${indent}`);
  return `${start}\n${indent}${body}\n${StringPrototypeRepeat('  ', level)}${close}`;
}

/** Sets short elements of a long array in columns. */
function columns(items, indent, level) {
  let widest = 0;
  for (let i = 0; i < items.length; i++) {
    const item = items[i];
    if (item.length > 20 || StringPrototypeIncludes(item, '\n')) return ArrayPrototypeJoin(items, `,\n${indent}`);
    if (item.length > widest && i < MAX_ELEMENTS) widest = item.length;
  }
  const perLine = ((LINE_WIDTH - level * 2) / (widest + 2)) | 0 || 1;
  let text = '';
  for (let i = 0; i < items.length; i++) {
    const isLast = i === items.length - 1;
    const atEnd = isLast || i % perLine === perLine - 1;
    const cell = isLast ? items[i] : `${items[i]},`;
    text += atEnd ? cell : StringPrototypePadEnd(cell, widest + 2);
    if (atEnd && !isLast) text += `\n${indent}`;
  }
  return text;
}

function indentLines(text, level) {
  return ArrayPrototypeJoin(StringPrototypeSplit(text, '\n'), `\n${StringPrototypeRepeat('  ', level)}`);
}

internals.inspect = inspect;
/** `inspection(value)` answers an array of keys and values in turn, and runs no user code. */
internals.setInspection = (constructor, inspection) => {
  MapPrototypeSet(inspections, constructor.prototype, inspection);
};
