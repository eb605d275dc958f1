//! URLSearchParams. https://url.spec.whatwg.org/#interface-urlsearchparams

const {
  ArrayPrototypePush,
  ArrayPrototypeSplice,
  FunctionPrototypeCall,
  StringPrototypeCharCodeAt,
  StringPrototypeSlice,
  SymbolIterator,
  TypeError,
} = primordials;
const {
  converters,
  requiredArguments,
  isObject,
  sequenceConverter,
  sequenceFrom,
  recordConverter,
  defineInterface,
  defineHidden,
  pairIterators,
} = internals.webidl;

const toRecord = recordConverter(converters.USVString, converters.USVString);
const makeIterator = pairIterators('URLSearchParams');
const toPair = sequenceConverter(converters.USVString);

// Set by the static block: how URL and Request reach the list.
let createForURL, resetList, isURLSearchParams, serialize;

class URLSearchParams {
  /** Names and values in turn. */
  #list;
  /** The URL that follows this object's changes. */
  #url = null;

  static {
    isURLSearchParams = (value) => isObject(value) && #list in value;
    createForURL = (url, query) => {
      const params = new URLSearchParams();
      params.#list = query === '' ? [] : ops.form_parse(query);
      params.#url = url;
      return params;
    };
    resetList = (params, query) => {
      params.#list = query === '' ? [] : ops.form_parse(query);
    };
    serialize = (params) => params.#serialize();
  }

  constructor(init = '') {
    this.#list = typeof init === 'string' ? parseString(init) : listFrom(init);
  }

  #serialize() {
    return this.#list.length === 0 ? '' : ops.form_serialize(this.#list);
  }

  /** https://url.spec.whatwg.org/#concept-urlsearchparams-update */
  #update() {
    if (this.#url !== null) internals.url.updateQuery(this.#url, this.#serialize());
  }

  get size() {
    return this.#list.length / 2;
  }

  append(name, value) {
    const prefix = "Failed to execute 'append' on 'URLSearchParams'";
    const list = this.#list;
    requiredArguments(arguments.length, 2, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    value = converters.USVString(value, prefix, 'Argument 2');
    ArrayPrototypePush(list, name, value);
    this.#update();
  }

  delete(name, value = undefined) {
    const prefix = "Failed to execute 'delete' on 'URLSearchParams'";
    const list = this.#list;
    requiredArguments(arguments.length, 1, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    if (value !== undefined) value = converters.USVString(value, prefix, 'Argument 2');
    for (let i = list.length - 2; i >= 0; i -= 2) {
      if (list[i] === name && (value === undefined || list[i + 1] === value)) ArrayPrototypeSplice(list, i, 2);
    }
    this.#update();
  }

  get(name) {
    const list = this.#list;
    requiredArguments(arguments.length, 1, "Failed to execute 'get' on 'URLSearchParams'");
    name = converters.USVString(name, "Failed to execute 'get' on 'URLSearchParams'", 'Argument 1');
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) return list[i + 1];
    return null;
  }

  getAll(name) {
    const list = this.#list;
    requiredArguments(arguments.length, 1, "Failed to execute 'getAll' on 'URLSearchParams'");
    name = converters.USVString(name, "Failed to execute 'getAll' on 'URLSearchParams'", 'Argument 1');
    const values = [];
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) ArrayPrototypePush(values, list[i + 1]);
    return values;
  }

  has(name, value = undefined) {
    const prefix = "Failed to execute 'has' on 'URLSearchParams'";
    const list = this.#list;
    requiredArguments(arguments.length, 1, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    if (value !== undefined) value = converters.USVString(value, prefix, 'Argument 2');
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] === name && (value === undefined || list[i + 1] === value)) return true;
    }
    return false;
  }

  set(name, value) {
    const prefix = "Failed to execute 'set' on 'URLSearchParams'";
    const list = this.#list;
    requiredArguments(arguments.length, 2, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    value = converters.USVString(value, prefix, 'Argument 2');
    setFirst(list, name, value);
    this.#update();
  }

  /** Sorts by the names' code units, keeping the order of equal names. */
  sort() {
    this.#list = sortedPairs(this.#list);
    this.#update();
  }

  toString() {
    return this.#serialize();
  }

  forEach(callback, thisArg = undefined) {
    this.#list;
    const prefix = "Failed to execute 'forEach' on 'URLSearchParams'";
    requiredArguments(arguments.length, 1, prefix);
    converters.callback(callback, prefix, 'Argument 1');
    for (let i = 0; i < this.#list.length; i += 2) {
      FunctionPrototypeCall(callback, thisArg, this.#list[i + 1], this.#list[i], this);
    }
  }

  keys() {
    this.#list;
    return makeIterator(() => this.#list, 0);
  }

  values() {
    this.#list;
    return makeIterator(() => this.#list, 1);
  }

  entries() {
    this.#list;
    return makeIterator(() => this.#list, 2);
  }
}

function parseString(text) {
  if (text === '') return [];
  if (StringPrototypeCharCodeAt(text, 0) === 0x3f) text = StringPrototypeSlice(text, 1);
  return ops.form_parse(text);
}

function listFrom(init) {
  const prefix = "Failed to construct 'URLSearchParams'";
  if (!isObject(init)) return parseString(converters.USVString(init, prefix, 'Argument 1'));
  const method = init[SymbolIterator];
  if (method === undefined || method === null) return toRecord(init, prefix, 'Argument 1');
  const pairs = sequenceFrom(init, method, toPair, prefix, 'Argument 1');
  const list = [];
  for (let i = 0; i < pairs.length; i++) {
    const pair = pairs[i];
    if (pair.length !== 2) throw new TypeError(`${prefix}: Argument 1, index ${i} is not a pair of name and value`);
    ArrayPrototypePush(list, pair[0], pair[1]);
  }
  return list;
}

function setFirst(list, name, value) {
  let found = false;
  for (let i = 0; i < list.length;) {
    if (list[i] !== name) {
      i += 2;
    } else if (!found) {
      found = true;
      list[i + 1] = value;
      i += 2;
    } else {
      ArrayPrototypeSplice(list, i, 2);
    }
  }
  if (!found) ArrayPrototypePush(list, name, value);
}

function sortedPairs(list) {
  const indices = [];
  for (let i = 0; i < list.length; i += 2) ArrayPrototypePush(indices, i);
  primordials.ArrayPrototypeSort(indices, (a, b) => (list[a] < list[b] ? -1 : list[a] > list[b] ? 1 : a - b));
  const sorted = [];
  for (let i = 0; i < indices.length; i++) ArrayPrototypePush(sorted, list[indices[i]], list[indices[i] + 1]);
  return sorted;
}

defineInterface(URLSearchParams);
defineHidden(URLSearchParams.prototype, SymbolIterator, URLSearchParams.prototype.entries);

internals.urlSearchParams = {
  URLSearchParams,
  isURLSearchParams,
  /** The parameters of a URL's query; changes are written back to the URL. */
  createForURL,
  /** Replaces the list after the URL's query has changed. */
  resetList,
  /** application/x-www-form-urlencoded text. */
  serialize,
};
