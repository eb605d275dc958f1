//! Headers. A header list is a flat array of names, in lower case, and values in turn.
//! There are no forbidden names on a server: of the guards there are "immutable" and "request-no-cors".
//! https://fetch.spec.whatwg.org/#headers-class

const {
  ArrayPrototypeJoin,
  ArrayPrototypePush,
  ArrayPrototypeSort,
  ArrayPrototypeSplice,
  FunctionPrototypeCall,
  IteratorPrototype,
  ObjectCreate,
  ObjectDefineProperty,
  ObjectGetOwnPropertySymbols,
  ObjectKeys,
  RegExpPrototypeExec,
  RegExpPrototypeSymbolReplace,
  StringPrototypeToLowerCase,
  SymbolIterator,
  TypeError,
} = primordials;
const {
  converters, requiredArguments, isObject, sequenceConverter, sequenceFrom, recordConverter, defineInterface, defineHidden,
  defineToStringTag, kConstruct,
} = internals.webidl;
const { exposeInterface } = internals;

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** Anything a plain value does not have: controls, wide characters, blanks at an end. */
const unusual = /[^\t\x20-\x7e\x80-\xff]|^[\t ]|[\t ]$/;
const forbiddenInValue = /[\0\r\n]/;
const outerBlanks = /^[\t\n\r ]+|[\t\n\r ]+$/g;

/** Names in lower case, by the spelling most programs use. */
const knownNames = {
  __proto__: null,
  'Accept': 'accept', 'accept': 'accept', 'Authorization': 'authorization', 'authorization': 'authorization',
  'Cache-Control': 'cache-control', 'cache-control': 'cache-control', 'Content-Length': 'content-length',
  'content-length': 'content-length', 'Content-Type': 'content-type', 'content-type': 'content-type', 'Cookie': 'cookie',
  'cookie': 'cookie', 'ETag': 'etag', 'etag': 'etag', 'Host': 'host', 'host': 'host', 'Location': 'location',
  'location': 'location', 'Set-Cookie': 'set-cookie', 'set-cookie': 'set-cookie', 'User-Agent': 'user-agent',
  'user-agent': 'user-agent', 'Vary': 'vary', 'vary': 'vary',
};

/** A header name in lower case, or a TypeError. */
function toName(value, prefix) {
  const known = typeof value === 'string' ? knownNames[value] : undefined;
  if (known !== undefined) return known;
  const name = converters.ByteString(value, prefix, 'The header name');
  if (RegExpPrototypeExec(token, name) === null) throw new TypeError(`${prefix}: '${name}' is not a valid header name`);
  return StringPrototypeToLowerCase(name);
}

/** A normalised header value, or a TypeError. */
function toValue(value, prefix) {
  if (typeof value === 'string' && RegExpPrototypeExec(unusual, value) === null) return value;
  const bytes = converters.ByteString(value, prefix, 'The header value');
  const normalised = RegExpPrototypeSymbolReplace(outerBlanks, bytes, '');
  if (RegExpPrototypeExec(forbiddenInValue, normalised) !== null) {
    throw new TypeError(`${prefix}: the header value has a character that no value may have`);
  }
  return normalised;
}

/** Position of the first field of this name at or after `from`, or -1. */
function find(list, name, from = 0) {
  for (let i = from; i < list.length; i += 2) if (list[i] === name) return i;
  return -1;
}

/** The combined value of a name, or null. */
function getCombined(list, name) {
  let at = find(list, name);
  if (at === -1) return null;
  let value = list[at + 1];
  while ((at = find(list, name, at + 2)) !== -1) value = `${value}, ${list[at + 1]}`;
  return value;
}

function deleteAll(list, name) {
  for (let at = find(list, name); at !== -1; at = find(list, name, at)) ArrayPrototypeSplice(list, at, 2);
}

function setValue(list, name, value) {
  const at = find(list, name);
  if (at === -1) {
    ArrayPrototypePush(list, name, value);
    return;
  }
  list[at + 1] = value;
  for (let other = find(list, name, at + 2); other !== -1; other = find(list, name, other)) {
    ArrayPrototypeSplice(list, other, 2);
  }
}

/** "Sort and combine": pairs in order of their names; each set-cookie stands alone. */
function sortAndCombine(list) {
  const names = [];
  for (let i = 0; i < list.length; i += 2) if (find(list, list[i]) === i) ArrayPrototypePush(names, list[i]);
  ArrayPrototypeSort(names);
  const pairs = [];
  for (let i = 0; i < names.length; i++) {
    const name = names[i];
    if (name !== 'set-cookie') {
      ArrayPrototypePush(pairs, [name, getCombined(list, name)]);
      continue;
    }
    for (let at = find(list, name); at !== -1; at = find(list, name, at + 2)) {
      ArrayPrototypePush(pairs, [name, list[at + 1]]);
    }
  }
  return pairs;
}

/** Guards. https://fetch.spec.whatwg.org/#concept-headers-guard */
const guards = { __proto__: null, none: 0, immutable: 1, noCors: 2 };

/** What a value of `accept` or `content-type` must not have where nobody was asked for leave (CORS-unsafe request-header bytes). */
const unsafeByte = /[\0-\x08\x0a-\x1f"():<>?@[\\\]{}\x7f]/;
const unsafeInLanguage = /[^0-9A-Za-z *,\-.;=]/;
const safelistedType = /^[\t\n\r ]*(?:application\/x-www-form-urlencoded|multipart\/form-data|text\/plain)[\t\n\r ]*(?:;|$)/i;

/** https://fetch.spec.whatwg.org/#no-cors-safelisted-request-header */
function isNoCorsSafelisted(name, value) {
  if (value.length > 128) return false;
  switch (name) {
    case 'accept':
      return RegExpPrototypeExec(unsafeByte, value) === null;
    case 'accept-language':
    case 'content-language':
      return RegExpPrototypeExec(unsafeInLanguage, value) === null;
    case 'content-type':
      return RegExpPrototypeExec(unsafeByte, value) === null && RegExpPrototypeExec(safelistedType, value) !== null;
    default:
      return false;
  }
}

/** Whether a list with this guard takes one more value of a name. */
function takes(guard, list, name, value) {
  if (guard !== guards.noCors) return true;
  const before = getCombined(list, name);
  return isNoCorsSafelisted(name, before === null ? value : `${before}, ${value}`);
}

const toByteStringRecord = recordConverter(converters.ByteString, converters.ByteString);
const byteStringSequence = sequenceConverter(converters.ByteString);

// Set by static blocks.
let listOf, isHeaders, fillHeaders;

class Headers {
  #list;
  #guard = guards.none;

  static {
    isHeaders = (value) => isObject(value) && #list in value;
    listOf = (headers) => headers.#list;
    fillHeaders = (list, init, prefix, guard = guards.none) => Headers.#fill(list, init, prefix, guard);
  }

  constructor(init = undefined, list = undefined, guard = guards.none) {
    if (init === kConstruct) {
      this.#list = list;
      this.#guard = guard;
      return;
    }
    const own = [];
    if (init !== undefined) Headers.#fillFreely(own, init, "Failed to construct 'Headers'");
    this.#list = own;
  }

  /** Appends what a HeadersInit holds, as far as the guard lets it. */
  static #fill(list, init, prefix, guard) {
    if (guard === guards.none) {
      Headers.#fillFreely(list, init, prefix);
      return;
    }
    const given = [];
    Headers.#fillFreely(given, init, prefix);
    for (let i = 0; i < given.length; i += 2) {
      if (takes(guard, list, given[i], given[i + 1])) ArrayPrototypePush(list, given[i], given[i + 1]);
    }
  }

  static #fillFreely(list, init, prefix) {
    if (!isObject(init)) throw new TypeError(`${prefix}: the headers are not an object`);
    const iterate = init[SymbolIterator];
    if (iterate === undefined || iterate === null) {
      Headers.#fillRecord(list, init, prefix);
      return;
    }
    if (isHeaders(init) && iterate === headersIterator) {
      Headers.#copy(list, init.#list);
      return;
    }
    const pairs = sequenceFrom(init, iterate, byteStringSequence, prefix, 'The headers');
    for (let i = 0; i < pairs.length; i++) {
      const pair = pairs[i];
      if (pair.length !== 2) throw new TypeError(`${prefix}: each header must be a pair of name and value`);
      ArrayPrototypePush(list, toName(pair[0], prefix), toValue(pair[1], prefix));
    }
  }

  static #fillRecord(list, init, prefix) {
    // The record conversion of Web IDL, for objects on which nobody can watch it.
    if (!ops.is_proxy(init) && ObjectGetOwnPropertySymbols(init).length === 0) {
      const names = ObjectKeys(init);
      for (let i = 0; i < names.length; i++) {
        const name = toName(names[i], prefix);
        ArrayPrototypePush(list, name, toValue(init[names[i]], prefix));
      }
      return;
    }
    const entries = toByteStringRecord(init, prefix, 'The headers');
    for (let i = 0; i < entries.length; i += 2) {
      ArrayPrototypePush(list, toName(entries[i], prefix), toValue(entries[i + 1], prefix));
    }
  }

  static #copy(list, from) {
    for (let i = 0; i < from.length; i++) ArrayPrototypePush(list, from[i]);
  }

  #mutable(prefix) {
    if (this.#guard === guards.immutable) throw new TypeError(`${prefix}: the headers are immutable`);
    return this.#list;
  }

  append(name, value) {
    const prefix = "Failed to execute 'append' on 'Headers'";
    this.#list;
    requiredArguments(arguments.length, 2, prefix);
    name = toName(name, prefix);
    value = toValue(value, prefix);
    const list = this.#mutable(prefix);
    if (takes(this.#guard, list, name, value)) ArrayPrototypePush(list, name, value);
  }

  delete(name) {
    const prefix = "Failed to execute 'delete' on 'Headers'";
    this.#list;
    requiredArguments(arguments.length, 1, prefix);
    name = toName(name, prefix);
    deleteAll(this.#mutable(prefix), name);
  }

  get(name) {
    const list = this.#list;
    requiredArguments(arguments.length, 1, "Failed to execute 'get' on 'Headers'");
    return getCombined(list, toName(name, "Failed to execute 'get' on 'Headers'"));
  }

  getSetCookie() {
    const list = this.#list;
    const values = [];
    for (let at = find(list, 'set-cookie'); at !== -1; at = find(list, 'set-cookie', at + 2)) {
      ArrayPrototypePush(values, list[at + 1]);
    }
    return values;
  }

  has(name) {
    const list = this.#list;
    requiredArguments(arguments.length, 1, "Failed to execute 'has' on 'Headers'");
    return find(list, toName(name, "Failed to execute 'has' on 'Headers'")) !== -1;
  }

  set(name, value) {
    const prefix = "Failed to execute 'set' on 'Headers'";
    this.#list;
    requiredArguments(arguments.length, 2, prefix);
    name = toName(name, prefix);
    value = toValue(value, prefix);
    const list = this.#mutable(prefix);
    if (this.#guard !== guards.noCors || isNoCorsSafelisted(name, value)) setValue(list, name, value);
  }

  entries() {
    return new HeadersIterator(this.#list, 'entries');
  }

  forEach(callback, thisArg = undefined) {
    const list = this.#list;
    const prefix = "Failed to execute 'forEach' on 'Headers'";
    requiredArguments(arguments.length, 1, prefix);
    converters.callback(callback, prefix, 'Argument 1');
    for (let i = 0; ; i++) {
      const pair = sortAndCombine(list)[i];
      if (pair === undefined) return;
      FunctionPrototypeCall(callback, thisArg, pair[1], pair[0], this);
    }
  }

  keys() {
    return new HeadersIterator(this.#list, 'keys');
  }

  values() {
    return new HeadersIterator(this.#list, 'values');
  }
}

defineInterface(Headers);
defineHidden(Headers.prototype, SymbolIterator, Headers.prototype.entries);
const headersIterator = Headers.prototype.entries;

const iteratorPrototype = ObjectCreate(IteratorPrototype);
let nextOf;

/** https://webidl.spec.whatwg.org/#es-default-iterator-object; sees changes made while it runs. */
class HeadersIterator {
  #list;
  #kind;
  #index = 0;

  constructor(list, kind) {
    primordials.ObjectSetPrototypeOf(this, iteratorPrototype);
    this.#list = list;
    this.#kind = kind;
  }

  static {
    nextOf = (iterator) => {
      if (!isObject(iterator) || !(#list in iterator)) throw new TypeError('Illegal invocation: not a Headers Iterator');
      const pair = sortAndCombine(iterator.#list)[iterator.#index];
      if (pair === undefined) return { value: undefined, done: true };
      iterator.#index += 1;
      const kind = iterator.#kind;
      return { value: kind === 'keys' ? pair[0] : kind === 'values' ? pair[1] : pair, done: false };
    };
  }
}

ObjectDefineProperty(iteratorPrototype, 'next', {
  __proto__: null,
  value: { next() { return nextOf(this); } }.next,
  writable: true,
  enumerable: true,
  configurable: true,
});
defineToStringTag(iteratorPrototype, 'Headers Iterator');

exposeInterface(Headers);

internals.headers = {
  Headers,
  isHeaders,
  listOf,
  guards,
  /** A Headers object around a list, which it shares. */
  create: (list, guard) => new Headers(kConstruct, list, guard),
  /** (list, init, prefix, guard): appends a HeadersInit to a list, as far as the guard lets it. */
  fill: fillHeaders,
  /** (list, name, value, guard): appends what is known to be a name and a value, if the guard lets it. */
  append: (list, name, value, guard) => {
    if (takes(guard, list, name, value)) ArrayPrototypePush(list, name, value);
  },
  getCombined,
  has: (list, name) => find(list, name) !== -1,
  /** The form in which `ops.http_respond` takes a list: name LF value LF ... */
  toBlock: (list) => (list.length === 0 ? undefined : `${ArrayPrototypeJoin(list, '\n')}\n`),
};
