//! FormData, its multipart/form-data encoding, and forms read from bodies. Entries are texts and
//! Files. https://xhr.spec.whatwg.org/#interface-formdata
//! https://html.spec.whatwg.org/#multipart-form-data

const {
  ArrayPrototypePush,
  ArrayPrototypeSplice,
  FunctionPrototypeCall,
  StringPrototypeReplace,
  SymbolIterator,
  TypeError,
  TypedArrayPrototypeSet,
  TypedArrayPrototypeSubarray,
  Uint8Array,
} = primordials;
const { converters, requiredArguments, isObject, defineInterface, defineHidden, pairIterators } = internals.webidl;
const { encodeUtf8 } = internals.encoding;
const { isBlob, isFile, makeFile, bytesOf, typeOf, nameOf, lastModifiedOf } = internals.blob;

const makeIterator = pairIterators('FormData');
const lineEnding = /\r\n|\r|\n/g;
const carriageReturn = /\r/g;
const lineFeed = /\n/g;
const quote = /"/g;

// Set by the static block.
let isFormData, listOf, create;

/** "Create an entry": the value of an entry from the arguments of `append` and `set`. */
function toValue(value, filename, prefix) {
  if (!isBlob(value)) return converters.USVString(value, prefix, 'Argument 2');
  if (filename === undefined) return isFile(value) ? value : makeFile(bytesOf(value), typeOf(value), 'blob', undefined);
  return makeFile(bytesOf(value), typeOf(value), filename, isFile(value) ? lastModifiedOf(value) : undefined);
}

class FormData {
  /** Names and values in turn. */
  #list = [];

  static {
    isFormData = (value) => isObject(value) && #list in value;
    listOf = (form) => form.#list;
    create = (list) => {
      const form = new FormData();
      form.#list = list;
      return form;
    };
  }

  constructor(form = undefined) {
    if (form !== undefined) throw new TypeError("Failed to construct 'FormData': Argument 1 is not an HTMLFormElement");
  }

  append(name, value, filename = undefined) {
    const prefix = "Failed to execute 'append' on 'FormData'";
    const list = this.#list;
    requiredArguments(arguments.length, 2, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    if (arguments.length > 2 && !isBlob(value)) throw new TypeError(`${prefix}: Argument 2 is not a Blob`);
    if (filename !== undefined) filename = converters.USVString(filename, prefix, 'Argument 3');
    ArrayPrototypePush(list, name, toValue(value, filename, prefix));
  }

  delete(name) {
    const prefix = "Failed to execute 'delete' on 'FormData'";
    const list = this.#list;
    requiredArguments(arguments.length, 1, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    for (let i = list.length - 2; i >= 0; i -= 2) if (list[i] === name) ArrayPrototypeSplice(list, i, 2);
  }

  get(name) {
    const prefix = "Failed to execute 'get' on 'FormData'";
    const list = this.#list;
    requiredArguments(arguments.length, 1, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) return list[i + 1];
    return null;
  }

  getAll(name) {
    const prefix = "Failed to execute 'getAll' on 'FormData'";
    const list = this.#list;
    requiredArguments(arguments.length, 1, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    const values = [];
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) ArrayPrototypePush(values, list[i + 1]);
    return values;
  }

  has(name) {
    const prefix = "Failed to execute 'has' on 'FormData'";
    const list = this.#list;
    requiredArguments(arguments.length, 1, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) return true;
    return false;
  }

  set(name, value, filename = undefined) {
    const prefix = "Failed to execute 'set' on 'FormData'";
    const list = this.#list;
    requiredArguments(arguments.length, 2, prefix);
    name = converters.USVString(name, prefix, 'Argument 1');
    if (arguments.length > 2 && !isBlob(value)) throw new TypeError(`${prefix}: Argument 2 is not a Blob`);
    if (filename !== undefined) filename = converters.USVString(filename, prefix, 'Argument 3');
    replaceEntries(list, name, toValue(value, filename, prefix));
  }

  forEach(callback, thisArg = undefined) {
    this.#list;
    const prefix = "Failed to execute 'forEach' on 'FormData'";
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

/** Gives the first entry of the name the value and drops the others; appends if there is none. */
function replaceEntries(list, name, value) {
  let first = -1;
  for (let i = list.length - 2; i >= 0; i -= 2) {
    if (list[i] !== name) continue;
    if (first !== -1) ArrayPrototypeSplice(list, first, 2);
    first = i;
  }
  if (first === -1) ArrayPrototypePush(list, name, value);
  else list[first + 1] = value;
}

defineInterface(FormData);
defineHidden(FormData.prototype, SymbolIterator, FormData.prototype.entries);

/** Escapes what would end a name in a part's header. */
function escapeName(name) {
  name = StringPrototypeReplace(StringPrototypeReplace(name, lineFeed, '%0A'), carriageReturn, '%0D');
  return StringPrototypeReplace(name, quote, '%22');
}

function withNetworkEndings(text) {
  return StringPrototypeReplace(text, lineEnding, '\r\n');
}

/** The multipart/form-data encoding of a form, with a boundary of its own: { bytes, type }. */
function encodeMultipart(form) {
  const list = listOf(form);
  const boundary = `----aworker-${ops.random_uuid()}`;
  const pieces = [];
  // Text that has not become bytes yet.
  let text = '';
  for (let i = 0; i < list.length; i += 2) {
    const name = escapeName(withNetworkEndings(list[i]));
    const value = list[i + 1];
    text += `--${boundary}\r\nContent-Disposition: form-data; name="${name}"`;
    if (typeof value === 'string') {
      text += `\r\n\r\n${withNetworkEndings(value)}\r\n`;
      continue;
    }
    const type = typeOf(value);
    text += `; filename="${escapeName(nameOf(value))}"\r\nContent-Type: ${type === '' ? 'application/octet-stream' : type}\r\n\r\n`;
    ArrayPrototypePush(pieces, encodeUtf8(text), bytesOf(value));
    text = '\r\n';
  }
  ArrayPrototypePush(pieces, encodeUtf8(`${text}--${boundary}--\r\n`));
  return { bytes: join(pieces), type: `multipart/form-data; boundary=${boundary}` };
}

function join(pieces) {
  let length = 0;
  for (let i = 0; i < pieces.length; i++) length += pieces[i].length;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (let i = 0; i < pieces.length; i++) {
    TypedArrayPrototypeSet(bytes, pieces[i], at);
    at += pieces[i].length;
  }
  return bytes;
}

/** The form in a body's bytes, which are the form's from now on, or a TypeError. */
function parseForm(bytes, contentType, prefix) {
  const boundary = ops.form_boundary(contentType);
  if (boundary === undefined) throw new TypeError(`${prefix}: the content type '${contentType}' is not that of a form`);
  if (boundary === null) {
    const list = ops.form_parse_bytes(bytes);
    if (list === undefined) throw new TypeError(`${prefix}: the form has too many entries`);
    return create(list);
  }
  const parts = ops.multipart_parse(bytes, boundary);
  if (typeof parts === 'string') throw new TypeError(`${prefix}: ${parts}`);
  const list = [];
  // Five values for each part; see `multipart_parse`.
  for (let i = 0; i < parts.length; i += 5) {
    const filename = parts[i + 1];
    const value = filename === undefined
      ? parts[i + 2]
      : makeFile(TypedArrayPrototypeSubarray(bytes, parts[i + 3], parts[i + 4]), parts[i + 2], filename, undefined);
    ArrayPrototypePush(list, parts[i], value);
  }
  return create(list);
}

internals.formData = { FormData, isFormData, encodeMultipart, parseForm };
