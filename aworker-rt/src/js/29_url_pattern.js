//! URLPattern: constructor strings, inits, canonical components, matching.
//! https://urlpattern.spec.whatwg.org/#urlpattern-class

const {
  ArrayPrototypePush,
  RegExpPrototypeExec,
  StringPrototypeEndsWith,
  StringPrototypeLastIndexOf,
  StringPrototypeSlice,
  StringPrototypeStartsWith,
  StringPrototypeToLowerCase,
  TypeError,
} = primordials;
const { converters, dictionaryConverter, isObject, defineInterface } = internals.webidl;
const { URL } = internals.url;
const { compileComponent, escapePattern, tokenizeLeniently } = internals.urlPatternParser;

/** The components, in the order of a URL. */
const componentNames = ['protocol', 'username', 'password', 'hostname', 'port', 'pathname', 'search', 'hash'];

const specialSchemes = { __proto__: null, ftp: '21', file: undefined, http: '80', https: '443', ws: '80', wss: '443' };

const defaultOptions = { delimiter: '', prefix: '', ignoreCase: false };
const hostnameOptions = { delimiter: '.', prefix: '', ignoreCase: false };
const pathnameOptions = { delimiter: '/', prefix: '/', ignoreCase: false };

// Attributes of URL, captured before user code could replace them.
const urlGet = { __proto__: null };
const urlSet = { __proto__: null };
for (let i = 0; i < componentNames.length; i++) {
  const { get, set } = primordials.ReflectGetOwnPropertyDescriptor(URL.prototype, componentNames[i]);
  urlGet[componentNames[i]] = primordials.uncurryThis(get);
  urlSet[componentNames[i]] = primordials.uncurryThis(set);
}

/** A URL record, or undefined. */
function parseURL(text, base = undefined) {
  try {
    return new URL(text, base);
  } catch {
    return undefined;
  }
}

/** What a URL has as a component, without the signs that belong to its serialisation. */
function componentOf(url, name) {
  const text = urlGet[name](url);
  if (name === 'protocol') return StringPrototypeSlice(text, 0, -1);
  return name === 'search' || name === 'hash' ? StringPrototypeSlice(text, 1) : text;
}

function isSpecial(scheme) {
  return scheme in specialSchemes;
}

// How a component of a URL is written: https://urlpattern.spec.whatwg.org/#canon

function canonicalProtocol(value) {
  if (value === '') return value;
  const url = RegExpPrototypeExec(/[/?#]/, value) === null ? parseURL(`${value}://dummy.invalid/`) : undefined;
  if (url === undefined) throw new TypeError(`'${value}' is no valid protocol`);
  return componentOf(url, 'protocol');
}

/** Sets a component of a URL and reads it back. */
function throughSetter(name, value, url = 'https://dummy.invalid/') {
  const record = new URL(url);
  urlSet[name](record, value);
  return componentOf(record, name);
}

const canonicalUsername = (value) => (value === '' ? value : throughSetter('username', value));
const canonicalPassword = (value) => (value === '' ? value : throughSetter('password', value));
const canonicalSearch = (value) => (value === '' ? value : throughSetter('search', `?${value}`));
const canonicalHash = (value) => (value === '' ? value : throughSetter('hash', `#${value}`));

function canonicalHostname(value) {
  if (value === '') return value;
  // As for the setter of URL, a host ends where a path, query or fragment would begin.
  const host = RegExpPrototypeExec(/^[^/?#\\]*/, value)[0];
  const url = RegExpPrototypeExec(/[:@]/, host) === null || host[0] === '[' ? parseURL(`https://${host}/`) : undefined;
  if (url === undefined) throw new TypeError(`'${value}' is no valid hostname`);
  return componentOf(url, 'hostname');
}

function canonicalIPv6(value) {
  if (RegExpPrototypeExec(/^[0-9a-f[\]:]*$/i, value) === null) throw new TypeError(`'${value}' is no part of an IPv6 address`);
  return StringPrototypeToLowerCase(value);
}

function canonicalPort(value, protocol = undefined) {
  if (value === '') return value;
  const scheme = protocol === undefined || protocol === '' ? 'dummy' : protocol;
  const digits = RegExpPrototypeExec(/^[\t\n\r]*[0-9]/, value);
  const record = parseURL(`${scheme}://dummy.invalid/`);
  if (digits === null || record === undefined) throw new TypeError(`'${value}' is no valid port`);
  urlSet.port(record, value);
  const port = componentOf(record, 'port');
  if (port === '' && +value !== +(specialSchemes[scheme] ?? NaN)) throw new TypeError(`'${value}' is no valid port`);
  return port;
}

function canonicalPathname(value) {
  if (value === '') return value;
  if (value[0] === '/') return throughSetter('pathname', value);
  return StringPrototypeSlice(throughSetter('pathname', `/-${value}`), 2);
}

function canonicalOpaquePathname(value) {
  if (value === '') return value;
  const url = parseURL(`data:${value}`);
  if (url === undefined) throw new TypeError(`'${value}' is no valid pathname`);
  // Query and fragment end an opaque path for the parser, but here they are part of the value.
  return RegExpPrototypeExec(/[?#]/, value) === null ? componentOf(url, 'pathname') : escapeOpaque(value);
}

function escapeOpaque(value) {
  return componentOf(new URL(`data:${primordials.encodeURI(value)}`), 'pathname');
}

/** The states of the parser of constructor strings, in order. */
const order = { __proto__: null, init: 0, protocol: 1, authority: 2, username: 3, password: 4, hostname: 5, port: 6, pathname: 7, search: 8, hash: 9, done: 10 };

/** https://urlpattern.spec.whatwg.org/#parse-a-constructor-string */
class ConstructorStringParser {
  input;
  tokens;
  result = { __proto__: null };
  state = 'init';
  start = 0;
  index = 0;
  increment = 1;
  depth = 0;
  bracketDepth = 0;
  matchesSpecial = false;

  constructor(input) {
    this.input = input;
    this.tokens = tokenizeLeniently(input);
  }

  run() {
    for (; this.index < this.tokens.length; this.index += this.increment) {
      this.increment = 1;
      const { type } = this.tokens[this.index];
      if (type === 'end') {
        if (this.atEnd()) break;
      } else if (type === 'open') {
        this.depth++;
      } else if (this.depth > 0) {
        if (type === 'close') this.depth--;
      } else {
        this.step();
      }
    }
    const { result } = this;
    if (result.hostname !== undefined && result.port === undefined) result.port = '';
    return result;
  }

  /** The input is over; true if it has been read in the right state. */
  atEnd() {
    if (this.state === 'init') {
      this.rewind();
      if (this.is('#')) this.change('hash', 1);
      else if (this.isSearchPrefix()) this.change('search', 1);
      else this.change('pathname', 0);
      return false;
    }
    if (this.state === 'authority') {
      this.rewind();
      this.state = 'hostname';
      return false;
    }
    this.change('done', 0);
    return true;
  }

  step() {
    switch (this.state) {
      case 'init':
        if (this.is(':')) this.rewindTo('protocol');
        break;
      case 'protocol':
        if (this.is(':')) this.afterProtocol();
        break;
      case 'authority':
        if (this.is('@')) this.rewindTo('username');
        else if (this.is('/') || this.isSearchPrefix() || this.is('#')) this.rewindTo('hostname');
        break;
      case 'username':
        if (this.is(':')) this.change('password', 1);
        else if (this.is('@')) this.change('hostname', 1);
        break;
      case 'password':
        if (this.is('@')) this.change('hostname', 1);
        break;
      case 'hostname':
        if (this.is('[')) this.bracketDepth++;
        else if (this.is(']')) this.bracketDepth--;
        else if (this.is(':') && this.bracketDepth === 0) this.change('port', 1);
        else this.afterAuthority();
        break;
      case 'port':
        this.afterAuthority();
        break;
      case 'pathname':
        if (this.isSearchPrefix()) this.change('search', 1);
        else if (this.is('#')) this.change('hash', 1);
        break;
      case 'search':
        if (this.is('#')) this.change('hash', 1);
        break;
    }
  }

  afterProtocol() {
    const component = compileComponent(this.componentString(), canonicalProtocol, defaultOptions);
    this.matchesSpecial = matchesSpecialScheme(component);
    if (this.is('/', 1) && this.is('/', 2)) this.change('authority', 3);
    else this.change(this.matchesSpecial ? 'authority' : 'pathname', 1);
  }

  afterAuthority() {
    if (this.is('/')) this.change('pathname', 0);
    else if (this.isSearchPrefix()) this.change('search', 1);
    else if (this.is('#')) this.change('hash', 1);
  }

  rewind() {
    this.index = this.start;
    this.increment = 0;
  }

  rewindTo(state) {
    this.rewind();
    this.state = state;
  }

  /** Whether a token is this character and has no meaning of its own in patterns. */
  is(character, offset = 0) {
    const token = this.tokens[this.index + offset] ?? this.tokens[this.tokens.length - 1];
    if (token.value !== character) return false;
    return token.type === 'char' || token.type === 'escaped-char' || token.type === 'invalid-char';
  }

  isSearchPrefix() {
    if (this.is('?')) return true;
    if (this.tokens[this.index].value !== '?') return false;
    const previous = this.tokens[this.index - 1]?.type;
    return previous !== 'name' && previous !== 'regexp' && previous !== 'close' && previous !== 'asterisk';
  }

  componentString() {
    const start = this.tokens[this.start] ?? this.tokens[this.tokens.length - 1];
    return StringPrototypeSlice(this.input, start.index, this.tokens[this.index].index);
  }

  change(state, skip) {
    const { result } = this;
    const from = order[this.state];
    const to = order[state];
    if (this.state !== 'init' && this.state !== 'authority') result[this.state] = this.componentString();
    if (this.state !== 'init' && state !== 'done') {
      if (from <= order.password && to >= order.port) result.hostname ??= '';
      if (from <= order.port && to >= order.search) result.pathname ??= this.matchesSpecial ? '/' : '';
      if (from <= order.pathname && state === 'hash') result.search ??= '';
    }
    this.state = state;
    this.index += skip;
    this.start = this.index;
    this.increment = 0;
  }
}

function matchesSpecialScheme({ regexp }) {
  for (const scheme in specialSchemes) if (RegExpPrototypeExec(regexp, scheme) !== null) return true;
  return false;
}

/** Components that a base URL lends when neither they nor any of these are given. */
const moreSpecific = {
  __proto__: null,
  protocol: ['protocol'],
  username: ['protocol', 'hostname', 'port', 'username'],
  password: ['protocol', 'hostname', 'port', 'username', 'password'],
  hostname: ['protocol', 'hostname'],
  port: ['protocol', 'hostname', 'port'],
  pathname: ['protocol', 'hostname', 'port', 'pathname'],
  search: ['protocol', 'hostname', 'port', 'pathname', 'search'],
  hash: ['protocol', 'hostname', 'port', 'pathname', 'search', 'hash'],
};

function isLent(init, name) {
  const list = moreSpecific[name];
  for (let i = 0; i < list.length; i++) if (init[list[i]] !== undefined) return false;
  return true;
}

/** https://urlpattern.spec.whatwg.org/#process-a-urlpatterninit; `result` holds what is known. */
function processInit(init, isPattern, result) {
  let base;
  const fromBase = (name) => (isPattern ? escapePattern(componentOf(base, name)) : componentOf(base, name));
  if (init.baseURL !== undefined) {
    base = parseURL(init.baseURL);
    if (base === undefined) throw new TypeError(`'${init.baseURL}' is no valid base URL`);
    for (let i = 0; i < componentNames.length; i++) {
      const name = componentNames[i];
      if (isPattern && (name === 'username' || name === 'password')) continue;
      if (isLent(init, name)) result[name] = fromBase(name);
    }
  }
  const set = (name, value, canonicalize) => {
    if (value !== undefined) result[name] = isPattern ? value : canonicalize(value);
  };
  const { protocol, search, hash } = init;
  set('protocol', protocol !== undefined && StringPrototypeEndsWith(protocol, ':') ? StringPrototypeSlice(protocol, 0, -1) : protocol, canonicalProtocol);
  set('username', init.username, canonicalUsername);
  set('password', init.password, canonicalPassword);
  set('hostname', init.hostname, canonicalHostname);
  const scheme = result.protocol ?? '';
  set('port', init.port, (value) => canonicalPort(value, scheme));
  if (init.pathname !== undefined) {
    set('pathname', resolvePathname(init.pathname, isPattern, base, fromBase), scheme === '' || isSpecial(scheme) ? canonicalPathname : canonicalOpaquePathname);
  }
  set('search', withoutPrefix(search, '?'), canonicalSearch);
  set('hash', withoutPrefix(hash, '#'), canonicalHash);
  return result;
}

function withoutPrefix(value, sign) {
  return value !== undefined && StringPrototypeStartsWith(value, sign) ? StringPrototypeSlice(value, 1) : value;
}

/** A pathname, from the directory of the base URL on if it is relative. */
function resolvePathname(pathname, isPattern, base, fromBase) {
  if (base === undefined || isAbsolutePathname(pathname, isPattern)) return pathname;
  const path = urlGet.pathname(base);
  if (path !== '' && path[0] !== '/') return pathname;
  const directory = fromBase('pathname');
  return StringPrototypeSlice(directory, 0, StringPrototypeLastIndexOf(directory, '/') + 1) + pathname;
}

function isAbsolutePathname(pathname, isPattern) {
  if (pathname === '') return false;
  if (pathname[0] === '/') return true;
  return isPattern && (StringPrototypeStartsWith(pathname, '\\/') || StringPrototypeStartsWith(pathname, '{/'));
}

/** https://urlpattern.spec.whatwg.org/#url-pattern-create: the compiled components by name. */
function createPattern(input, baseURL, ignoreCase) {
  let init = input;
  if (typeof input === 'string') {
    init = new ConstructorStringParser(input).run();
    if (baseURL === undefined && init.protocol === undefined) throw new TypeError(`The pattern '${input}' is relative and has no base URL`);
    if (baseURL !== undefined) init.baseURL = baseURL;
  } else if (baseURL !== undefined) {
    throw new TypeError('A base URL is given beside an object, which would have it as a member');
  }
  const processed = processInit(init, true, { __proto__: null });
  for (let i = 0; i < componentNames.length; i++) processed[componentNames[i]] ??= '*';
  if (isSpecial(processed.protocol) && processed.port === specialSchemes[processed.protocol]) processed.port = '';
  const compiled = { __proto__: null };
  const compile = (name, encode, options) => {
    compiled[name] = compileComponent(processed[name], encode, options);
  };
  compile('protocol', canonicalProtocol, defaultOptions);
  compile('username', canonicalUsername, defaultOptions);
  compile('password', canonicalPassword, defaultOptions);
  const isIPv6 = RegExpPrototypeExec(/^(?:\[.|\{\[|\\\[)/, processed.hostname) !== null;
  compile('hostname', isIPv6 ? canonicalIPv6 : canonicalHostname, hostnameOptions);
  compile('port', (value) => canonicalPort(value), defaultOptions);
  if (matchesSpecialScheme(compiled.protocol)) compile('pathname', canonicalPathname, { ...pathnameOptions, ignoreCase });
  else compile('pathname', canonicalOpaquePathname, { ...defaultOptions, ignoreCase });
  compile('search', canonicalSearch, { ...defaultOptions, ignoreCase });
  compile('hash', canonicalHash, { ...defaultOptions, ignoreCase });
  return compiled;
}

/** The components of what is to be matched, or undefined if it is no URL. */
function componentsOfInput(input, baseURL) {
  const values = { __proto__: null };
  if (typeof input !== 'string') {
    for (let i = 0; i < componentNames.length; i++) values[componentNames[i]] = '';
    try {
      return processInit(input, false, values);
    } catch {
      return undefined;
    }
  }
  const url = parseURL(input, baseURL);
  if (url === undefined) return undefined;
  for (let i = 0; i < componentNames.length; i++) values[componentNames[i]] = componentOf(url, componentNames[i]);
  return values;
}

const toInit = dictionaryConverter('URLPatternInit', ['baseURL', 'hash', 'hostname', 'password', 'pathname', 'port', 'protocol', 'search', 'username'].map(
  (key) => ({ key, converter: converters.USVString }),
));
const toOptions = dictionaryConverter('URLPatternOptions', [{ key: 'ignoreCase', converter: converters.boolean, defaultValue: () => false }]);

/** `(USVString or URLPatternInit)` */
function toInput(value, prefix) {
  if (value === undefined || value === null || isObject(value)) return toInit(value, prefix, 'Argument 1');
  return converters.USVString(value, prefix, 'Argument 1');
}

/** A copy of an input for `inputs`: members that are missing are left out. */
function inputForResult(input) {
  if (typeof input === 'string') return input;
  const copy = {};
  for (const key in input) if (input[key] !== undefined) copy[key] = input[key];
  return copy;
}

class URLPattern {
  #components;

  constructor(input = {}, baseURLOrOptions = undefined, options = undefined) {
    const prefix = "Failed to construct 'URLPattern'";
    const converted = toInput(input, prefix);
    const second = baseURLOrOptions;
    const isOptions = arguments.length < 3 && (second === undefined || second === null || isObject(second));
    const baseURL = isOptions ? undefined : converters.USVString(second, prefix, 'Argument 2');
    const { ignoreCase } = toOptions(isOptions ? second : options, prefix, isOptions ? 'Argument 2' : 'Argument 3');
    try {
      this.#components = createPattern(converted, baseURL, ignoreCase);
    } catch (error) {
      throw new TypeError(`${prefix}: ${error.message}`);
    }
  }

  test(input = {}, baseURL = undefined) {
    return this.#match(input, baseURL, "Failed to execute 'test' on 'URLPattern'") !== null;
  }

  exec(input = {}, baseURL = undefined) {
    return this.#match(input, baseURL, "Failed to execute 'exec' on 'URLPattern'");
  }

  /** https://urlpattern.spec.whatwg.org/#url-pattern-match */
  #match(given, base, prefix) {
    const components = this.#components;
    const input = toInput(given, prefix);
    const baseURL = base === undefined ? undefined : converters.USVString(base, prefix, 'Argument 2');
    if (typeof input !== 'string' && baseURL !== undefined) {
      throw new TypeError(`${prefix}: a base URL is given beside an object, which would have it as a member`);
    }
    const values = componentsOfInput(input, baseURL);
    if (values === undefined) return null;
    const result = { inputs: [inputForResult(input)] };
    if (baseURL !== undefined) ArrayPrototypePush(result.inputs, baseURL);
    for (let i = 0; i < componentNames.length; i++) {
      const name = componentNames[i];
      const { regexp, names } = components[name];
      const match = RegExpPrototypeExec(regexp, values[name]);
      if (match === null) return null;
      const groups = {};
      for (let j = 0; j < names.length; j++) {
        primordials.ObjectDefineProperty(groups, names[j], { __proto__: null, value: match[j + 1], writable: true, enumerable: true, configurable: true });
      }
      result[name] = { input: values[name], groups };
    }
    return result;
  }

  get protocol() {
    return this.#components.protocol.pattern;
  }

  get username() {
    return this.#components.username.pattern;
  }

  get password() {
    return this.#components.password.pattern;
  }

  get hostname() {
    return this.#components.hostname.pattern;
  }

  get port() {
    return this.#components.port.pattern;
  }

  get pathname() {
    return this.#components.pathname.pattern;
  }

  get search() {
    return this.#components.search.pattern;
  }

  get hash() {
    return this.#components.hash.pattern;
  }

  get hasRegExpGroups() {
    const components = this.#components;
    for (let i = 0; i < componentNames.length; i++) if (components[componentNames[i]].hasRegExpGroups) return true;
    return false;
  }
}

defineInterface(URLPattern);

internals.URLPattern = URLPattern;
