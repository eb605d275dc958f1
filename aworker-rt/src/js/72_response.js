//! Response. https://fetch.spec.whatwg.org/#response-class
//!
//! What a plain `new Response('text')` holds is a string and two numbers: the Headers object and
//! the body's stream are made when somebody asks for them.

const { ArrayPrototypePush, JSONStringify, RangeError, RegExpPrototypeExec, TypeError } = primordials;
const { converters, requiredArguments, isObject, defineInterface, kConstruct } = internals.webidl;
const { exposeInterface, headers: headersModule } = internals;
const { guards } = headersModule;
const { Body, extract, isUnusable, cloneBody, defineMixin } = internals.body;
const { URL } = internals.url;

const notReason = /[^\t\x20-\x7e\x80-\xff]/;

// The content type of a response without a Headers object.
const typeNone = 0;
const typeText = 1;
const typeJson = 2;
const typeNames = [undefined, 'text/plain;charset=UTF-8', 'application/json'];

function isNullBodyStatus(status) {
  return status === 101 || status === 103 || status === 204 || status === 205 || status === 304;
}

// Set by the static block.
let isResponse, bodyOf, partsOf, createFetched;

class Response {
  #status = 200;
  #statusText = '';
  /** typeNone, typeText or typeJson; void once there is a Headers object. */
  #contentType = 0;
  #headers = undefined;
  /** undefined, a string or a Body. */
  #body = undefined;
  #kind = 'default';
  /** Of a response that came over the network: { url, redirected }. */
  #origin = undefined;

  static {
    isResponse = (value) => isObject(value) && #contentType in value;
    bodyOf = (response) => {
      const body = response.#body;
      return typeof body === 'string' ? (response.#body = new Body(body, undefined, undefined)) : body;
    };
    /** What is needed to send a response; `take` marks a body that is there at once as used. */
    partsOf = {
      __proto__: null,
      status: (response) => response.#status,
      statusText: (response) => response.#statusText,
      contentType: (response) => response.#contentType,
      headers: (response) => response.#headers,
      body: (response) => response.#body,
      kind: (response) => response.#kind,
      url: (response) => (response.#origin === undefined ? '' : response.#origin.url),
      setBody: (response, body) => { response.#body = body; },
    };
  }

  /** (status, statusText, list, body, origin): what `fetch` resolves to; `body` is a Body or undefined. */
  static fetched(status, statusText, list, body, origin) {
    const response = new Response();
    response.#status = status;
    response.#statusText = statusText;
    response.#headers = headersModule.create(list, guards.immutable);
    response.#body = body;
    response.#kind = 'basic';
    response.#origin = origin;
    return response;
  }

  constructor(body = null, init = undefined) {
    if (init !== undefined && init !== null) this.#initialize(init);
    if (body === null || body === undefined) return;
    if (isNullBodyStatus(this.#status)) {
      throw new TypeError(`Failed to construct 'Response': a response with status ${this.#status} has no body`);
    }
    this.#setBody(body, "Failed to construct 'Response'");
  }

  #initialize(init) {
    const prefix = "Failed to construct 'Response'";
    if (!isObject(init)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
    const { headers, status, statusText } = init;
    if (status !== undefined) {
      const number = converters.unsignedShort(status, prefix, "'status'");
      const becomesSocket = number === 101 && internals.webSocket.isWebSocket(init.webSocket);
      if (becomesSocket) internals.webSocket.setOf(this, init.webSocket);
      else if (number < 200 || number > 599) throw new RangeError(`${prefix}: the status ${number} is not from 200 to 599`);
      this.#status = number;
    }
    if (statusText !== undefined) {
      const text = converters.ByteString(statusText, prefix, "'statusText'");
      if (RegExpPrototypeExec(notReason, text) !== null) throw new TypeError(`${prefix}: 'statusText' is not a reason phrase`);
      this.#statusText = text;
    }
    if (headers !== undefined) {
      const list = [];
      headersModule.fill(list, headers, prefix);
      this.#headers = headersModule.create(list, guards.none);
    }
  }

  #setBody(body, prefix) {
    if (typeof body === 'string' && this.#headers === undefined) {
      this.#body = primordials.StringPrototypeToWellFormed(body);
      this.#contentType = typeText;
      return;
    }
    const made = { body: undefined };
    const type = extract(body, made, prefix);
    this.#body = made.body;
    if (type !== null) this.#addType(type);
  }

  /** Adds a content type unless there is one. */
  #addType(type) {
    if (this.#headers === undefined && type === typeNames[typeText]) {
      this.#contentType = typeText;
      return;
    }
    const list = headersModule.listOf(this.#ensureHeaders());
    if (!headersModule.has(list, 'content-type')) ArrayPrototypePush(list, 'content-type', type);
  }

  #ensureHeaders() {
    if (this.#headers === undefined) {
      const type = typeNames[this.#contentType];
      this.#headers = headersModule.create(type === undefined ? [] : ['content-type', type], guards.none);
      this.#contentType = typeNone;
    }
    return this.#headers;
  }

  static error() {
    const response = new Response();
    response.#kind = 'error';
    response.#status = 0;
    response.#headers = headersModule.create([], guards.immutable);
    return response;
  }

  static json(data, init = undefined) {
    const prefix = "Failed to execute 'json' on 'Response'";
    requiredArguments(arguments.length, 1, prefix);
    const text = JSONStringify(data);
    if (text === undefined) throw new TypeError(`${prefix}: the data cannot be represented in JSON`);
    const response = new Response(null, init);
    if (isNullBodyStatus(response.#status)) {
      throw new TypeError(`${prefix}: a response with status ${response.#status} has no body`);
    }
    response.#body = text;
    if (response.#headers === undefined) response.#contentType = typeJson;
    else response.#addType(typeNames[typeJson]);
    return response;
  }

  static redirect(url, status = 302) {
    const prefix = "Failed to execute 'redirect' on 'Response'";
    requiredArguments(arguments.length, 1, prefix);
    const location = new URL(converters.USVString(url, prefix, 'Argument 1'), internals.workerScope.baseURL()).href;
    status = converters.unsignedShort(status, prefix, 'Argument 2');
    if (status !== 301 && status !== 302 && status !== 303 && status !== 307 && status !== 308) {
      throw new RangeError(`${prefix}: ${status} is not a redirect status`);
    }
    const response = new Response();
    response.#status = status;
    response.#headers = headersModule.create(['location', location], guards.immutable);
    return response;
  }

  get type() {
    return this.#kind;
  }

  get url() {
    return this.#origin === undefined ? '' : this.#origin.url;
  }

  get redirected() {
    return this.#origin !== undefined && this.#origin.redirected;
  }

  get status() {
    return this.#status;
  }

  get ok() {
    return this.#status >= 200 && this.#status <= 299;
  }

  get statusText() {
    return this.#statusText;
  }

  get headers() {
    return this.#ensureHeaders();
  }

  clone() {
    const body = bodyOf(this);
    if (body !== undefined && isUnusable(body)) {
      throw new TypeError("Failed to execute 'clone' on 'Response': the body has been read or is locked");
    }
    const clone = new Response();
    clone.#status = this.#status;
    clone.#statusText = this.#statusText;
    clone.#contentType = this.#contentType;
    clone.#kind = this.#kind;
    clone.#origin = this.#origin;
    if (this.#headers !== undefined) {
      const list = [];
      headersModule.fill(list, this.#headers, '');
      clone.#headers = headersModule.create(list, this.#origin === undefined ? guards.none : guards.immutable);
    }
    if (body !== undefined) clone.#body = cloneBody(body);
    return clone;
  }
}

createFetched = Response.fetched;
delete Response.fetched;
defineMixin(Response, (response) => bodyOf(response));
defineInterface(Response);
exposeInterface(Response);

internals.response = { Response, isResponse, partsOf, createFetched };
