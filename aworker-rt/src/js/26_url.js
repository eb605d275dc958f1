//! URL. The native parser answers with the serialised URL and the positions of its components;
//! getters slice. https://url.spec.whatwg.org/#api

const { StringPrototypeSlice, TypeError, Uint32Array } = primordials;
const { converters, requiredArguments, isObject, defineInterface } = internals.webidl;
const { URLSearchParams, createForURL, resetList } = internals.urlSearchParams;

// What an operation leaves in `positions`, in this order (see web/url.rs).
const SCHEME_END = 0;
const USERNAME_END = 1;
const HOST_START = 2;
const HOST_END = 3;
const PORT = 4;
const PATH_START = 5;
const QUERY_START = 6;
const FRAGMENT_START = 7;
/** No port, query or fragment. */
const NONE = 0xffffffff;

/** Filled by the operations, read at once. */
const positions = new Uint32Array(8);

// What a setter changes (see web/url.rs).
const setterCodes = {
  __proto__: null, protocol: 0, username: 1, password: 2, host: 3, hostname: 4, port: 5, pathname: 6, search: 7, hash: 8,
};

// Set by URL's static block.
let isURL, hrefOf, updateQuery;

class URL {
  #href;
  #schemeEnd;
  #usernameEnd;
  #hostStart;
  #hostEnd;
  #port;
  #pathStart;
  #queryStart;
  #fragmentStart;
  #searchParams = undefined;

  static {
    isURL = (value) => isObject(value) && #href in value;
    hrefOf = (url) => url.#href;
    updateQuery = (url, query) => {
      url.#set('search', query);
    };
  }

  constructor(url, base = undefined) {
    const prefix = "Failed to construct 'URL'";
    requiredArguments(arguments.length, 1, prefix);
    url = converters.USVString(url, prefix, 'Argument 1');
    if (base !== undefined) base = converters.USVString(base, prefix, 'Argument 2');
    const href = ops.url_parse(url, base, positions);
    if (href === undefined) {
      throw new TypeError(`Invalid URL: '${url}'${base === undefined ? '' : ` with base '${base}'`}`);
    }
    this.#take(href);
  }

  /** Takes over what an operation found. */
  #take(href) {
    this.#href = href;
    this.#schemeEnd = positions[SCHEME_END];
    this.#usernameEnd = positions[USERNAME_END];
    this.#hostStart = positions[HOST_START];
    this.#hostEnd = positions[HOST_END];
    this.#port = positions[PORT];
    this.#pathStart = positions[PATH_START];
    this.#queryStart = positions[QUERY_START];
    this.#fragmentStart = positions[FRAGMENT_START];
  }

  /** Runs a setter's part of the URL parser; a value it refuses changes nothing. */
  #set(name, value) {
    const href = ops.url_set(this.#href, setterCodes[name], value, positions);
    if (href !== undefined) this.#take(href);
  }

  #slice(start, end) {
    return StringPrototypeSlice(this.#href, start, end);
  }

  static canParse(url, base = undefined) {
    const prefix = "Failed to execute 'canParse' on 'URL'";
    requiredArguments(arguments.length, 1, prefix);
    url = converters.USVString(url, prefix, 'Argument 1');
    if (base !== undefined) base = converters.USVString(base, prefix, 'Argument 2');
    return ops.url_parse(url, base, positions) !== undefined;
  }

  static parse(url, base = undefined) {
    const prefix = "Failed to execute 'parse' on 'URL'";
    requiredArguments(arguments.length, 1, prefix);
    url = converters.USVString(url, prefix, 'Argument 1');
    if (base !== undefined) base = converters.USVString(base, prefix, 'Argument 2');
    return ops.url_parse(url, base, positions) === undefined ? null : new URL(url, base);
  }

  get href() {
    return this.#href;
  }

  set href(value) {
    value = converters.USVString(value, "Failed to set 'href' on 'URL'", 'The value');
    this.#href;
    const href = ops.url_parse(value, undefined, positions);
    if (href === undefined) throw new TypeError(`Invalid URL: '${value}'`);
    this.#take(href);
    if (this.#searchParams !== undefined) resetList(this.#searchParams, this.#query());
  }

  /** The query without its question mark. */
  #query() {
    if (this.#queryStart === NONE) return '';
    return this.#slice(this.#queryStart + 1, this.#fragmentStart === NONE ? undefined : this.#fragmentStart);
  }

  get origin() {
    return ops.url_origin(this.#href);
  }

  get protocol() {
    return this.#slice(0, this.#schemeEnd + 1);
  }

  set protocol(value) {
    this.#set('protocol', converters.USVString(value));
  }

  /** Whether "//" follows the scheme. */
  #hasAuthority() {
    return this.#hostStart > this.#schemeEnd + 1;
  }

  get username() {
    if (!this.#hasAuthority() || this.#usernameEnd <= this.#schemeEnd + 3) return '';
    return this.#slice(this.#schemeEnd + 3, this.#usernameEnd);
  }

  set username(value) {
    this.#set('username', converters.USVString(value));
  }

  get password() {
    if (!this.#hasAuthority() || this.#hostStart - this.#usernameEnd < 2) return '';
    return this.#slice(this.#usernameEnd + 1, this.#hostStart - 1);
  }

  set password(value) {
    this.#set('password', converters.USVString(value));
  }

  get host() {
    return this.#port === NONE ? this.#slice(this.#hostStart, this.#hostEnd) : this.#slice(this.#hostStart, this.#pathStart);
  }

  set host(value) {
    this.#set('host', converters.USVString(value));
  }

  get hostname() {
    return this.#slice(this.#hostStart, this.#hostEnd);
  }

  set hostname(value) {
    this.#set('hostname', converters.USVString(value));
  }

  get port() {
    return this.#port === NONE ? '' : `${this.#port}`;
  }

  set port(value) {
    this.#set('port', converters.USVString(value));
  }

  get pathname() {
    const end = this.#queryStart !== NONE ? this.#queryStart : this.#fragmentStart;
    return this.#slice(this.#pathStart, end === NONE ? undefined : end);
  }

  set pathname(value) {
    this.#set('pathname', converters.USVString(value));
  }

  get search() {
    const query = this.#query();
    return query === '' ? '' : `?${query}`;
  }

  set search(value) {
    this.#set('search', converters.USVString(value));
    if (this.#searchParams !== undefined) resetList(this.#searchParams, this.#query());
  }

  get searchParams() {
    return (this.#searchParams ??= createForURL(this, this.#query()));
  }

  get hash() {
    if (this.#fragmentStart === NONE || this.#fragmentStart + 1 === this.#href.length) return '';
    return this.#slice(this.#fragmentStart, undefined);
  }

  set hash(value) {
    this.#set('hash', converters.USVString(value));
  }

  toString() {
    return this.#href;
  }

  toJSON() {
    return this.#href;
  }
}

defineInterface(URL);

internals.url = { URL, URLSearchParams, isURL, hrefOf, updateQuery };
