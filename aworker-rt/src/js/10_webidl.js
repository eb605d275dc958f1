//! Web IDL's JavaScript binding: conversions from JavaScript values to IDL types, and the shape
//! of interfaces (enumerable members, @@toStringTag, illegal constructors).
//! https://webidl.spec.whatwg.org/#javascript-binding

const {
  ArrayBufferIsView,
  ArrayBufferPrototypeGetByteLength,
  ArrayPrototypePush,
  BigInt,
  FunctionPrototypeCall,
  IteratorPrototype,
  MathFloor,
  MathTrunc,
  Number,
  NumberIsFinite,
  NumberMAX_SAFE_INTEGER,
  ObjectCreate,
  ObjectDefineProperty,
  ObjectSetPrototypeOf,
  ReflectDefineProperty,
  ReflectGetOwnPropertyDescriptor,
  ReflectOwnKeys,
  RegExpPrototypeExec,
  SafeSet,
  StringPrototypeToWellFormed,
  SymbolIterator,
  SymbolToStringTag,
  TypeError,
} = primordials;

/** Passed as the first argument by built-ins to constructors that user code may not call. */
const kConstruct = { __proto__: null };

/** Throws unless at least `required` arguments were given. */
function requiredArguments(given, required, prefix) {
  if (given < required) {
    const plural = required === 1 ? '' : 's';
    throw new TypeError(`${prefix}: ${required} argument${plural} required, but only ${given} present`);
  }
}

/** Whether a value is an Object in the sense of ECMAScript. */
function isObject(value) {
  return typeof value === 'function' || (typeof value === 'object' && value !== null);
}

function conversionError(prefix, context, what) {
  return new TypeError(`${prefix ? `${prefix}: ` : ''}${context ?? 'The value'} ${what}`);
}

/** Nearest integer, ties to even. */
function roundHalfEven(x) {
  const floor = MathFloor(x);
  const fraction = x - floor;
  if (fraction < 0.5) return floor;
  if (fraction > 0.5) return floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Makes the converter of an integer type; 64-bit types are bounded by the safe integers. */
function integerConverter(bits, signed) {
  const upper = bits === 64 ? NumberMAX_SAFE_INTEGER : 2 ** (signed ? bits - 1 : bits) - 1;
  const lower = signed ? (bits === 64 ? -NumberMAX_SAFE_INTEGER : -(2 ** (bits - 1))) : 0;
  const modulo = 2 ** bits;
  const half = 2 ** (bits - 1);
  return (V, prefix, context, mode) => {
    let x = typeof V === 'number' ? V : Number(toNumeric(V, prefix, context));
    if (mode === 'EnforceRange') {
      if (!NumberIsFinite(x)) throw conversionError(prefix, context, 'is not a finite number');
      x = MathTrunc(x) + 0;
      if (x < lower || x > upper) {
        throw conversionError(prefix, context, `is outside the accepted range of ${lower} to ${upper}`);
      }
      return x;
    }
    if (mode === 'Clamp') {
      if (x !== x) return 0;
      return roundHalfEven(x < lower ? lower : x > upper ? upper : x) + 0;
    }
    if (!NumberIsFinite(x)) return 0;
    x = MathTrunc(x) + 0;
    if (x >= lower && x <= upper) return x;
    if (bits === 64) return wrap64(x, signed);
    x %= modulo;
    if (signed) return x >= half ? x - modulo : x < -half ? x + modulo : x;
    return x < 0 ? x + modulo : x;
  };
}

/** ToNumber, which refuses BigInt and Symbol, unlike Number(). */
function toNumeric(V, prefix, context) {
  if (typeof V === 'bigint') throw conversionError(prefix, context, 'is a BigInt and cannot be converted to a number');
  if (typeof V === 'symbol') throw conversionError(prefix, context, 'is a symbol and cannot be converted to a number');
  return +V;
}

function wrap64(x, signed) {
  const modulo = 1n << 64n;
  let big = BigInt(x) % modulo;
  if (big < 0n) big += modulo;
  if (signed && big >= 1n << 63n) big -= modulo;
  return Number(big);
}

/** The converter of `double` and `unrestricted double`. */
function doubleConverter(unrestricted) {
  return (V, prefix, context) => {
    const x = typeof V === 'number' ? V : toNumeric(V, prefix, context);
    if (!unrestricted && !NumberIsFinite(x)) {
      throw conversionError(prefix, context, 'is not a finite floating-point value');
    }
    return x;
  };
}

function DOMString(V, prefix, context) {
  if (typeof V === 'string') return V;
  if (typeof V === 'symbol') throw conversionError(prefix, context, 'is a symbol and cannot be converted to a string');
  return `${V}`;
}

function USVString(V, prefix, context) {
  return StringPrototypeToWellFormed(DOMString(V, prefix, context));
}

const notByte = /[^\x00-\xff]/;

function ByteString(V, prefix, context) {
  const x = DOMString(V, prefix, context);
  if (RegExpPrototypeExec(notByte, x) !== null) {
    throw conversionError(prefix, context, 'has a character above U+00FF and is not a valid ByteString');
  }
  return x;
}

function object(V, prefix, context) {
  if (!isObject(V)) throw conversionError(prefix, context, 'is not an object');
  return V;
}

function callback(V, prefix, context) {
  if (typeof V !== 'function') throw conversionError(prefix, context, 'is not a function');
  return V;
}

function isArrayBuffer(V) {
  if (typeof V !== 'object' || V === null) return false;
  try {
    ArrayBufferPrototypeGetByteLength(V);
    return true;
  } catch {
    return false;
  }
}

function isSharedArrayBuffer(V) {
  return typeof V === 'object' && V !== null && ops.is_shared_array_buffer(V);
}

/** `AllowSharedBufferSource`. */
function bufferSource(V, prefix, context) {
  if (ArrayBufferIsView(V) || isArrayBuffer(V) || isSharedArrayBuffer(V)) return V;
  throw conversionError(prefix, context, 'is not an ArrayBuffer or a view on one');
}

/** Makes the converter of `sequence<T>`: it runs the value's own iterator. */
function sequenceConverter(element) {
  return (V, prefix, context) => {
    if (!isObject(V)) throw conversionError(prefix, context, 'is not iterable');
    const method = V[SymbolIterator];
    if (method === undefined || method === null) throw conversionError(prefix, context, 'is not iterable');
    return sequenceFrom(V, method, element, prefix, context);
  };
}

/** Collects what `method`, the value's @@iterator, yields. */
function sequenceFrom(V, method, element, prefix, context) {
  if (typeof method !== 'function') throw conversionError(prefix, context, 'is not iterable');
  const iterator = FunctionPrototypeCall(method, V);
  if (!isObject(iterator)) throw conversionError(prefix, context, 'has an iterator that is not an object');
  const next = iterator.next;
  const result = [];
  for (;;) {
    const step = FunctionPrototypeCall(next, iterator);
    if (!isObject(step)) throw conversionError(prefix, context, 'has an iterator whose result is not an object');
    if (step.done) return result;
    ArrayPrototypePush(result, element(step.value, prefix, `${context ?? 'The value'}, index ${result.length}`));
  }
}

/** Makes the converter of `record<K, V>`; the result is a flat array of keys and values. */
function recordConverter(keyConverter, valueConverter) {
  return (V, prefix, context) => {
    if (!isObject(V)) throw conversionError(prefix, context, 'is not an object');
    const keys = ReflectOwnKeys(V);
    const result = [];
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i];
      const descriptor = ReflectGetOwnPropertyDescriptor(V, key);
      if (descriptor === undefined || !descriptor.enumerable) continue;
      const typedKey = keyConverter(key, prefix, context);
      const typedValue = valueConverter(V[key], prefix, context);
      setRecordEntry(result, typedKey, typedValue);
    }
    return result;
  };
}

function setRecordEntry(entries, key, value) {
  for (let i = 0; i < entries.length; i += 2) {
    if (entries[i] === key) {
      entries[i + 1] = value;
      return;
    }
  }
  ArrayPrototypePush(entries, key, value);
}

/**
 * Makes the converter of a dictionary. `members` is in lexicographical order; each is
 * `{ key, converter, required?, defaultValue? }`, `defaultValue` being a function.
 */
function dictionaryConverter(name, members) {
  return (V, prefix, context) => {
    const isNullish = V === undefined || V === null;
    if (!isNullish && !isObject(V)) throw conversionError(prefix, context ?? name, 'is not an object');
    const result = {};
    for (let i = 0; i < members.length; i++) {
      const member = members[i];
      const value = isNullish ? undefined : V[member.key];
      if (value !== undefined) {
        result[member.key] = member.converter(value, prefix, `'${member.key}' of '${name}'`);
      } else if (member.required) {
        throw new TypeError(`${prefix ? `${prefix}: ` : ''}required member '${member.key}' of '${name}' is missing`);
      } else {
        result[member.key] = member.defaultValue?.();
      }
    }
    return result;
  };
}

/** Makes the converter of an enumeration. */
function enumConverter(name, values) {
  return (V, prefix, context) => {
    const S = DOMString(V, prefix, context);
    for (let i = 0; i < values.length; i++) if (values[i] === S) return S;
    throw conversionError(prefix, context, `is '${S}', which is not a valid value of ${name}`);
  };
}

const staticNames = { __proto__: null, length: true, name: true, prototype: true };

function makeEnumerable(target, key) {
  const descriptor = ReflectGetOwnPropertyDescriptor(target, key);
  descriptor.enumerable = true;
  ObjectDefineProperty(target, key, descriptor);
}

/** The prototypes of all interfaces. */
const interfacePrototypes = new SafeSet();

/** Whether an object is an instance of an interface, by its prototypes; no trap of a proxy runs. */
function isPlatformObject(object) {
  for (let link = ops.prototype_of(object); link !== null; link = ops.prototype_of(link)) {
    if (interfacePrototypes.has(link)) return true;
  }
  return false;
}

/** Gives a class the property attributes of a Web IDL interface. */
function defineInterface(constructor, name = constructor.name) {
  const prototype = constructor.prototype;
  interfacePrototypes.add(prototype);
  const keys = ReflectOwnKeys(prototype);
  for (let i = 0; i < keys.length; i++) {
    if (typeof keys[i] === 'string' && keys[i] !== 'constructor') makeEnumerable(prototype, keys[i]);
  }
  const statics = ReflectOwnKeys(constructor);
  for (let i = 0; i < statics.length; i++) {
    if (typeof statics[i] === 'string' && !staticNames[statics[i]]) makeEnumerable(constructor, statics[i]);
  }
  defineToStringTag(prototype, name);
}

function defineToStringTag(prototype, name) {
  ReflectDefineProperty(prototype, SymbolToStringTag, {
    __proto__: null, value: name, writable: false, enumerable: false, configurable: true,
  });
}

/** Defines constants on an interface and on its prototype. */
function defineConstants(constructor, constants) {
  const keys = ReflectOwnKeys(constants);
  for (let i = 0; i < keys.length; i++) {
    const descriptor = {
      __proto__: null, value: constants[keys[i]], writable: false, enumerable: true, configurable: false,
    };
    ObjectDefineProperty(constructor, keys[i], descriptor);
    ObjectDefineProperty(constructor.prototype, keys[i], descriptor);
  }
}

/** Defines a non-enumerable writable method, as @@iterator of an iterable interface is. */
function defineHidden(target, key, value) {
  ObjectDefineProperty(target, key, { __proto__: null, value, writable: true, enumerable: false, configurable: true });
}

/**
 * Makes the default iterators of an iterable interface whose pairs are a list of names and values
 * in turn: `(getList, kind)`, where `kind` 0 yields names, 1 values, 2 both. They see changes.
 * https://webidl.spec.whatwg.org/#js-default-iterator-object
 */
function pairIterators(name) {
  const iteratorPrototype = ObjectCreate(IteratorPrototype);
  let next;
  class PairIterator {
    #getList;
    #kind;
    #index = 0;

    constructor(getList, kind) {
      this.#getList = getList;
      this.#kind = kind;
      ObjectSetPrototypeOf(this, iteratorPrototype);
    }

    static {
      next = (iterator) => {
        const getList = iterator.#getList;
        const list = getList();
        const i = iterator.#index;
        if (i >= list.length) return { value: undefined, done: true };
        iterator.#index = i + 2;
        const kind = iterator.#kind;
        return { value: kind === 2 ? [list[i], list[i + 1]] : list[i + kind], done: false };
      };
    }
  }
  ObjectDefineProperty(iteratorPrototype, 'next', {
    __proto__: null, value: { next() { return next(this); } }.next, writable: true, enumerable: true, configurable: true,
  });
  defineToStringTag(iteratorPrototype, `${name} Iterator`);
  return (getList, kind) => new PairIterator(getList, kind);
}

internals.webidl = {
  kConstruct,
  requiredArguments,
  isObject,
  isPlatformObject,
  isArrayBuffer,
  isSharedArrayBuffer,
  conversionError,
  sequenceFrom,
  sequenceConverter,
  recordConverter,
  dictionaryConverter,
  enumConverter,
  defineInterface,
  defineToStringTag,
  defineConstants,
  defineHidden,
  pairIterators,
  converters: {
    any: (V) => V,
    boolean: (V) => !!V,
    object,
    callback,
    bufferSource,
    DOMString,
    USVString,
    ByteString,
    octet: integerConverter(8, false),
    short: integerConverter(16, true),
    unsignedShort: integerConverter(16, false),
    long: integerConverter(32, true),
    unsignedLong: integerConverter(32, false),
    longLong: integerConverter(64, true),
    unsignedLongLong: integerConverter(64, false),
    double: doubleConverter(false),
    unrestrictedDouble: doubleConverter(true),
  },
};
