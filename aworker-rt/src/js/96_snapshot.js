//! While a snapshot is built: what V8 cannot write is refused where it is made, or found when it is
//! still held at the end. Installed before the program runs, taken away before the heap is written.
//!
//! V8 gives an isolate that will be written neither WebAssembly nor SharedArrayBuffer: stand-ins say why.
//! Objects of Intl hold pointers into ICU, and resizable buffers reserve address space. They may come and
//! go; what is left is named with the place that made it.

const {
  ArrayPrototypePush,
  Error,
  ObjectDefineProperty,
  ObjectGetOwnPropertyDescriptor,
  ObjectGetPrototypeOf,
  PromiseReject,
  Proxy,
  ReflectApply,
  ReflectConstruct,
  ReflectOwnKeys,
  SafeWeakRef,
  String,
  StringPrototypeIncludes,
  StringPrototypeSplit,
  StringPrototypeTrim,
  SymbolIterator,
  TypeError,
  WeakRefPrototypeDeref,
} = primordials;

/** Records are looked through for dead ones whenever this many have come. */
const SWEEP_AT = 10_000;

/** `{ object: WeakRef, description }` of everything that could not be written. */
let records = [];
let sweepAt = SWEEP_AT;
/** Undoes what was installed. */
let undo = [];

function refusal(name) {
  return new TypeError(`a ${name} cannot be in a snapshot: make it in a listener of 'deserialize'`);
}

/** The innermost frame of a program, as ` made at file:line:column`. */
function madeAt() {
  const { stack } = new Error();
  if (typeof stack !== 'string') return '';
  const lines = StringPrototypeSplit(stack, '\n');
  for (let i = 1; i < lines.length; i++) {
    if (!StringPrototypeIncludes(lines[i], 'aworker:')) return `, made ${StringPrototypeTrim(lines[i])}`;
  }
  return '';
}

function record(object, name) {
  ArrayPrototypePush(records, { object: new SafeWeakRef(object), description: `${name}${madeAt()}` });
  if (records.length >= sweepAt) {
    records = living();
    sweepAt = records.length + SWEEP_AT;
  }
}

function living() {
  const left = [];
  for (let i = 0; i < records.length; i++) {
    if (WeakRefPrototypeDeref(records[i].object) !== undefined) ArrayPrototypePush(left, records[i]);
  }
  return left;
}

function replace(owner, key, value) {
  const before = ObjectGetOwnPropertyDescriptor(owner, key);
  ObjectDefineProperty(owner, key, { __proto__: null, value, writable: true, enumerable: false, configurable: true });
  ArrayPrototypePush(undo, () => {
    // What a program has put in its place stays.
    const now = ObjectGetOwnPropertyDescriptor(owner, key);
    if (now?.value !== value) return;
    if (!now.configurable) {
      throw new TypeError(`an object whose '${String(key)}' cannot be changed any more cannot be in a snapshot: freeze it in a listener of 'deserialize'`);
    }
    if (before === undefined) delete owner[key];
    else ObjectDefineProperty(owner, key, before);
  });
}

/** Watches what a constructor makes; `named(object)` is what the object is refused as, or undefined. */
function watch(owner, key, named) {
  const constructor = owner[key];
  const watched = (object) => {
    const name = named(object);
    if (name !== undefined) record(object, name);
    return object;
  };
  const proxy = new Proxy(constructor, {
    __proto__: null,
    apply: (target, receiver, args) => watched(ReflectApply(target, receiver, args)),
    construct: (target, args, newTarget) =>
      watched(ReflectConstruct(target, args, newTarget === proxy ? target : newTarget)),
  });
  replace(owner, key, proxy);
  replace(constructor.prototype, 'constructor', proxy);
}

/** Watches what a method gives. */
function watchResults(owner, key, name) {
  const method = owner[key];
  const watched = {
    method(...args) {
      const object = ReflectApply(method, this, args);
      record(object, name);
      return object;
    },
  }.method;
  replace(owner, key, watched);
}

function standIn(name) {
  const refuse = function () {
    throw refusal(name);
  };
  ObjectDefineProperty(refuse, 'name', { __proto__: null, value: name });
  return refuse;
}

function webAssembly() {
  const namespace = {};
  const interfaces = ['Module', 'Instance', 'Memory', 'Table', 'Global', 'Tag', 'Exception'];
  for (let i = 0; i < interfaces.length; i++) namespace[interfaces[i]] = standIn(`WebAssembly.${interfaces[i]}`);
  const functions = ['compile', 'compileStreaming', 'instantiate', 'instantiateStreaming'];
  for (let i = 0; i < functions.length; i++) {
    namespace[functions[i]] = () => PromiseReject(refusal('WebAssembly.Module'));
  }
  namespace.validate = () => false;
  return namespace;
}

/** (): a program whose heap will be written is about to run. */
internals.callbacks.beginSnapshot = () => {
  // V8 installs these only in isolates that are not written.
  replace(Error, 'stackTraceLimit', 10);
  replace(globalThis, 'WebAssembly', webAssembly());
  replace(globalThis, 'SharedArrayBuffer', standIn('SharedArrayBuffer'));
  const { Intl } = globalThis;
  const keys = ReflectOwnKeys(Intl);
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i];
    if (typeof Intl[key] !== 'function' || Intl[key].prototype === undefined) continue;
    watch(Intl, key, () => `an Intl.${key}`);
  }
  const segments = new Intl.Segmenter('en').segment('');
  watchResults(Intl.Segmenter.prototype, 'segment', 'an Intl.Segments');
  watchResults(ObjectGetPrototypeOf(segments), SymbolIterator, 'an iterator of Intl.Segments');
  watch(globalThis, 'ArrayBuffer', (buffer) => (buffer.resizable ? 'a resizable ArrayBuffer' : undefined));
};

/** () -> descriptions of what is left, after a collection of garbage. */
internals.callbacks.leftForSnapshot = () => {
  const left = living();
  const descriptions = [];
  for (let i = 0; i < left.length; i++) ArrayPrototypePush(descriptions, left[i].description);
  return descriptions;
};

/** (): the heap is about to be written. */
internals.callbacks.endSnapshot = () => {
  for (let i = undo.length - 1; i >= 0; i--) undo[i]();
  undo = [];
  records = [];
};
