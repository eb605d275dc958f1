//! What a worker knows of itself: its location and origin, its navigator, and importScripts.
//! https://html.spec.whatwg.org/#worker-locations, https://html.spec.whatwg.org/#the-navigator-object,
//! https://html.spec.whatwg.org/#importing-scripts-and-libraries

const { TypeError } = primordials;
const { converters, defineInterface, kConstruct } = internals.webidl;
const { DOMException, exposeAttribute, exposeFunction, exposeInterface, exposeReplaceable } = internals;
const { URL } = internals.url;

/** The URL in the place of a script that has none. */
const NO_LOCATION = 'about:blank';

/** Where the script came from, as text. */
let href = NO_LOCATION;
/** Whether the worker was told its location, which then counts more than the script's. */
let isFixed = false;
/** The URL record of `href`, parsed when somebody asks. */
let record;

function locationRecord() {
  return (record ??= new URL(href));
}

function setHref(value) {
  href = value;
  record = undefined;
}

// Getters of URL, captured before user code could replace them.
const parts = {};
for (const name of ['href', 'origin', 'protocol', 'host', 'hostname', 'port', 'pathname', 'search', 'hash']) {
  parts[name] = primordials.uncurryThis(primordials.ReflectGetOwnPropertyDescriptor(URL.prototype, name).get);
}

class WorkerLocation {
  #brand;

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'WorkerLocation': Illegal constructor");
  }

  get href() {
    this.#brand;
    return parts.href(locationRecord());
  }

  toString() {
    this.#brand;
    return parts.href(locationRecord());
  }

  get origin() {
    this.#brand;
    return parts.origin(locationRecord());
  }

  get protocol() {
    this.#brand;
    return parts.protocol(locationRecord());
  }

  get host() {
    this.#brand;
    return parts.host(locationRecord());
  }

  get hostname() {
    this.#brand;
    return parts.hostname(locationRecord());
  }

  get port() {
    this.#brand;
    return parts.port(locationRecord());
  }

  get pathname() {
    this.#brand;
    return parts.pathname(locationRecord());
  }

  get search() {
    this.#brand;
    return parts.search(locationRecord());
  }

  get hash() {
    this.#brand;
    return parts.hash(locationRecord());
  }
}

class WorkerNavigator {
  #brand;

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'WorkerNavigator': Illegal constructor");
  }

  get userAgent() {
    this.#brand;
    return `Aworker/${ops.version()}`;
  }

  get platform() {
    this.#brand;
    return 'Linux x86_64';
  }

  get language() {
    this.#brand;
    return language();
  }

  get languages() {
    this.#brand;
    return (languages ??= primordials.ObjectFreeze([language()]));
  }

  get onLine() {
    this.#brand;
    return true;
  }

  get hardwareConcurrency() {
    this.#brand;
    return 1;
  }
}

let languages;

/** V8's default locale, which is that of `Intl`. */
function language() {
  return ops.default_locale();
}

defineInterface(WorkerLocation);
defineInterface(WorkerNavigator);
exposeInterface(WorkerLocation);
exposeInterface(WorkerNavigator);

const location = new WorkerLocation(kConstruct);
const navigator = new WorkerNavigator(kConstruct);
exposeAttribute('location', () => location);
exposeAttribute('navigator', () => navigator);
exposeReplaceable('origin', () => parts.origin(locationRecord()));
// The process belongs to one program: nobody else reads its memory, and no request can be snooped on.
exposeAttribute('isSecureContext', () => true);
exposeAttribute('crossOriginIsolated', () => true);

/** Whether `install` is over: no new script may come after it. */
let isInstalled = false;

function networkError(message) {
  return new DOMException(`Failed to execute 'importScripts': ${message}`, 'NetworkError');
}

/** The text of the script at a URL. */
function fetchScript(url) {
  if (parts.protocol(url) !== 'file:' || parts.hostname(url) !== '') {
    throw networkError(`${parts.href(url)} is no file`);
  }
  try {
    return ops.read_script(primordials.decodeURIComponent(parts.pathname(url)));
  } catch (error) {
    throw networkError(error.message);
  }
}

// A method, and so no constructor.
const { importScripts } = {
  importScripts(...urls) {
    const list = [];
    for (let i = 0; i < urls.length; i++) {
      primordials.ArrayPrototypePush(list, converters.USVString(urls[i], "Failed to execute 'importScripts'", `Argument ${i + 1}`));
    }
    if (!ops.imports_scripts()) throw new TypeError("Failed to execute 'importScripts': the program is a module");
    const records = [];
    for (let i = 0; i < list.length; i++) {
      const url = parse(list[i]);
      if (url === undefined) {
        throw new DOMException(`Failed to execute 'importScripts': '${list[i]}' is no valid URL`, 'SyntaxError');
      }
      primordials.ArrayPrototypePush(records, url);
    }
    if (isInstalled && records.length > 0) throw networkError('the worker is installed');
    for (let i = 0; i < records.length; i++) {
      const url = records[i];
      const text = fetchScript(url);
      ops.run_script(text, primordials.decodeURIComponent(parts.pathname(url)));
    }
  },
};

/** A URL relative to the location, or undefined. */
function parse(text) {
  try {
    return new URL(text, href);
  } catch {
    return undefined;
  }
}

exposeFunction('importScripts', importScripts);

/** What V8 adds to the global object after the startup snapshot is read, captured before user code runs. */
internals.lateIntrinsics = { __proto__: null, Float16Array: undefined };

/** (url): a program is about to be loaded from there. */
internals.callbacks.setLocation = (url) => {
  internals.lateIntrinsics.Float16Array ??= globalThis.Float16Array;
  if (!isFixed) setHref(url);
};

internals.workerScope = {
  /**
   * () -> the URL that relative ones are taken from; undefined where it would make a file of them: a
   * script that serves means another base than its own file.
   */
  baseURL: () => (primordials.StringPrototypeStartsWith(href, 'http') ? href : undefined),
  /** Getters of URL that user code cannot replace: `urlParts.origin(url)`. */
  urlParts: parts,
  /** () -> the location's origin; `null` for a file. */
  origin: () => parts.origin(locationRecord()),
  /** (location): the process is a worker; `location` is the one it was told, or undefined. */
  becomeWorker: (told) => {
    if (told === undefined) return;
    isFixed = true;
    setHref(parts.href(new URL(told)));
  },
  /** () -> whether the worker is active: `activate` has begun. */
  isActive: () => isInstalled,
  /** () : `install` is over. */
  installed: () => {
    isInstalled = true;
  },
};
