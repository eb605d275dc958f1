//! WebSocket, CloseEvent, and WebSocketPair for served requests. Frames are native (src/net/websocket).
//! https://websockets.spec.whatwg.org/
//!
//! A request becomes a WebSocket after the manner of other workers:
//!   const [client, server] = Object.values(new WebSocketPair());
//!   server.accept();
//!   return new Response(null, { status: 101, webSocket: client });
//! What comes over the connection are events of `server`. Both ends of a pair also work without a
//! connection: what one sends, the other gets. Sockets of a pair have the binary type 'arraybuffer'.

const {
  ArrayBufferIsView,
  ArrayPrototypeJoin,
  ArrayPrototypePush,
  ArrayPrototypeShift,
  Error,
  RegExpPrototypeExec,
  SymbolIterator,
  TypeError,
  TypedArrayPrototypeGetBuffer,
  TypedArrayPrototypeGetByteLength,
  Uint8Array,
  WeakMap,
  WeakMapPrototypeGet,
  WeakMapPrototypeSet,
} = primordials;
const { converters, requiredArguments, isObject, isArrayBuffer, sequenceFrom, enumConverter, defineInterface,
  defineConstants, kConstruct } = internals.webidl;
const { Event, EventTarget, defineEventHandler, dispatchTrusted } = internals.events;
const { createMessageEvent, ErrorEvent } = internals.errorEvents;
const { DOMException, exposeInterface } = internals;
const { Blob, isBlob, bytesOf } = internals.blob;
const { encodeUtf8 } = internals.encoding;
const { URL } = internals.url;

const CONNECTING = 0;
const OPEN = 1;
const CLOSING = 2;
const CLOSED = 3;

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const toBinaryType = enumConverter('BinaryType', ['blob', 'arraybuffer']);

class CloseEvent extends Event {
  #wasClean = false;
  #code = 0;
  #reason = '';

  constructor(type, eventInitDict = undefined) {
    const prefix = "Failed to construct 'CloseEvent'";
    requiredArguments(arguments.length, 1, prefix);
    super(type, eventInitDict);
    if (eventInitDict === undefined || eventInitDict === null) return;
    const { code, reason, wasClean } = eventInitDict;
    if (code !== undefined) this.#code = converters.unsignedShort(code, prefix, "'code'");
    if (reason !== undefined) this.#reason = converters.USVString(reason, prefix, "'reason'");
    if (wasClean !== undefined) this.#wasClean = !!wasClean;
  }

  get wasClean() {
    return this.#wasClean;
  }

  get code() {
    return this.#code;
  }

  get reason() {
    return this.#reason;
  }
}

defineInterface(CloseEvent);
exposeInterface(CloseEvent);

/** Sockets with a connection, by its number. */
const sockets = new internals.NumberTable();

/** A ws: or wss: URL, or a SyntaxError. */
function toSocketUrl(input, prefix) {
  const text = converters.USVString(input, prefix, 'Argument 1');
  let url;
  try {
    url = new URL(text, internals.workerScope.baseURL());
  } catch {
    throw new DOMException(`${prefix}: '${text}' is not a URL`, 'SyntaxError');
  }
  if (url.protocol === 'http:') url.protocol = 'ws:';
  else if (url.protocol === 'https:') url.protocol = 'wss:';
  if (url.protocol !== 'ws:' && url.protocol !== 'wss:') {
    throw new DOMException(`${prefix}: the scheme '${url.protocol}' is not one of WebSockets`, 'SyntaxError');
  }
  const { href } = url;
  if (primordials.StringPrototypeIncludes(href, '#')) throw new DOMException(`${prefix}: the URL has a fragment`, 'SyntaxError');
  return url;
}

function toProtocols(input, prefix) {
  let list;
  if (isObject(input)) {
    const iterate = input[SymbolIterator];
    list = iterate === undefined || iterate === null ? [converters.DOMString(input, prefix, 'Argument 2')]
      : sequenceFrom(input, iterate, converters.DOMString, prefix, 'Argument 2');
  } else {
    list = [converters.DOMString(input, prefix, 'Argument 2')];
  }
  const seen = { __proto__: null };
  for (let i = 0; i < list.length; i++) {
    const name = primordials.StringPrototypeToLowerCase(list[i]);
    const isRepeated = seen[name] === true;
    seen[name] = true;
    if (RegExpPrototypeExec(token, list[i]) === null || isRepeated) {
      throw new DOMException(`${prefix}: the protocol '${list[i]}' is not valid or not the only one of its name`, 'SyntaxError');
    }
  }
  return list;
}

// Set by the static block.
let isWebSocket, makePair, attach, onOpen, onMessage, onClosing, onClosed;

class WebSocket extends EventTarget {
  #url = '';
  #state = CONNECTING;
  #protocol = '';
  #extensions = '';
  #binaryType = 'blob';
  /** Number of the connection; 0 if there is none. */
  #id = 0;
  /** The other end of a pair. */
  #peer = undefined;
  /** One of a pair. */
  #isPaired = false;
  /** Events are delivered: at once for a client, after `accept` in a pair. */
  #isAccepted = true;
  /** It is the response of a request. */
  #isHandedOver = false;
  /** What a pair's other end has said before `accept`: functions. */
  #early = undefined;
  /** Bytes sent after the end. */
  #lost = 0;

  constructor(url, protocols = []) {
    super();
    if (url === kConstruct) return;
    const prefix = "Failed to construct 'WebSocket'";
    requiredArguments(arguments.length, 1, prefix);
    const parsed = toSocketUrl(url, prefix);
    const list = toProtocols(protocols, prefix);
    this.#url = parsed.href;
    if (internals.fetch.isBadPort(parsed)) {
      ops.queue_microtask(() => this.#refuse(`nothing is sent to port ${parsed.port}, which is another protocol's`));
      return;
    }
    this.#id = ops.socket_connect(parsed.href, ArrayPrototypeJoin(list, ','));
    sockets.set(this.#id, this);
  }

  static {
    isWebSocket = (value) => isObject(value) && #lost in value;

    makePair = () => {
      const first = new WebSocket(kConstruct);
      const second = new WebSocket(kConstruct);
      for (const [socket, peer] of new primordials.SafeArrayIterator([[first, second], [second, first]])) {
        socket.#peer = peer;
        socket.#isPaired = true;
        socket.#isAccepted = false;
        socket.#state = OPEN;
        socket.#binaryType = 'arraybuffer';
      }
      return { first, second };
    };

    /** (socket, connect): gives the connection that `connect` makes to the other end; whether there is one. */
    attach = (socket, connect) => {
      const peer = socket.#peer;
      if (!socket.#isPaired || socket.#isAccepted || socket.#isHandedOver || peer.#id !== 0) {
        throw new TypeError("The response's 'webSocket' is not an unused end of a WebSocketPair");
      }
      const id = connect();
      if (id === undefined) return false;
      socket.#isHandedOver = true;
      socket.#state = CLOSED;
      const said = socket.#early;
      socket.#early = undefined;
      const wasOpen = peer.#state === OPEN;
      peer.#id = id;
      sockets.set(id, peer);
      for (let i = 0; said !== undefined && i < said.length; i++) said[i].toConnection(id);
      if (!wasOpen && said === undefined) ops.socket_close(id, undefined, '');
      return true;
    };

    onOpen = (socket) => {
      if (socket.#isPaired || socket.#state !== CONNECTING) return;
      socket.#state = OPEN;
      socket.#protocol = ops.socket_protocol(socket.#id);
      socket.#extensions = ops.socket_extensions(socket.#id);
      dispatchTrusted(socket, new Event('open'));
    };

    onMessage = (socket) => {
      // What nobody has accepted yet waits in its connection.
      if (!socket.#isAccepted) return;
      const data = ops.socket_next(socket.#id);
      if (data === undefined) return;
      if (socket.#state === OPEN || (socket.#isPaired && socket.#state !== CLOSED)) socket.#message(data);
    };

    onClosing = (socket) => {
      if (socket.#state === OPEN) socket.#state = CLOSING;
    };

    onClosed = (socket) => {
      const id = socket.#id;
      if (!socket.#isAccepted) {
        // `accept` delivers what came before the end, and the end.
        socket.#defer({ deliver: () => onClosed(socket), toConnection() {} });
        return;
      }
      while (socket.#isPaired) {
        const data = ops.socket_next(id);
        if (data === undefined) break;
        socket.#message(data);
      }
      sockets.take(id);
      const { 0: code, 1: reason, 2: wasClean, 3: failure } = ops.socket_closed(id);
      socket.#state = CLOSED;
      if (failure !== undefined) socket.#fail(failure);
      dispatchTrusted(socket, new CloseEvent('close', { code, reason, wasClean }));
    };
  }

  /** There will be no connection. */
  #refuse(text) {
    this.#state = CLOSED;
    this.#fail(['', text]);
    dispatchTrusted(this, new CloseEvent('close', { __proto__: null, code: 1006 }));
  }

  #fail(failure) {
    const error = new Error(failure[1]);
    if (failure[0] !== '') error.code = failure[0];
    const shown = this.#url === '' ? failure[1] : `WebSocket ${this.#url}: ${failure[1]}`;
    dispatchTrusted(this, new ErrorEvent('error', { message: shown, error }));
  }

  #message(data) {
    if (typeof data !== 'string') {
      data = this.#binaryType === 'blob' ? new Blob([data]) : TypedArrayPrototypeGetBuffer(data);
    }
    const origin = this.#url === '' ? '' : new URL(this.#url).origin;
    dispatchTrusted(this, createMessageEvent('message', data, origin, undefined));
  }

  /** Something that a pair's other end has done: at once, or when this end is accepted. */
  #defer(action) {
    if (this.#isAccepted) ops.queue_microtask(() => action.deliver());
    else ArrayPrototypePush(this.#early ??= [], action);
  }

  get url() {
    return this.#url;
  }

  get readyState() {
    return this.#state;
  }

  get bufferedAmount() {
    return this.#lost + (this.#id === 0 ? 0 : ops.socket_buffered(this.#id));
  }

  get extensions() {
    return this.#extensions;
  }

  get protocol() {
    return this.#protocol;
  }

  get binaryType() {
    return this.#binaryType;
  }

  set binaryType(value) {
    this.#lost;
    const type = `${value}`;
    if (type === 'blob' || type === 'arraybuffer') this.#binaryType = toBinaryType(type);
  }

  /** Begins to deliver the events of an end of a WebSocketPair. */
  accept() {
    const prefix = "Failed to execute 'accept' on 'WebSocket'";
    if (!this.#isPaired || this.#isHandedOver) throw new TypeError(`${prefix}: it is not an end of a WebSocketPair that is ours`);
    if (this.#isAccepted) return;
    this.#isAccepted = true;
    const early = this.#early;
    this.#early = undefined;
    ops.queue_microtask(() => {
      for (;;) {
        const data = this.#id === 0 ? undefined : ops.socket_next(this.#id);
        if (data === undefined) break;
        this.#message(data);
      }
      while (early !== undefined && early.length > 0) ArrayPrototypeShift(early).deliver();
    });
  }

  send(data) {
    const prefix = "Failed to execute 'send' on 'WebSocket'";
    this.#lost;
    requiredArguments(arguments.length, 1, prefix);
    if (isBlob(data)) data = bytesOf(data);
    else if (isArrayBuffer(data)) data = new Uint8Array(data);
    else if (!ArrayBufferIsView(data)) data = converters.USVString(data, prefix, 'Argument 1');
    if (this.#state === CONNECTING) throw new DOMException(`${prefix}: the connection has not been made yet`, 'InvalidStateError');
    if (this.#isHandedOver) throw new TypeError(`${prefix}: it is the response of a request; the other end of the pair sends`);
    if (this.#state !== OPEN) {
      this.#lost += typeof data === 'string' ? TypedArrayPrototypeGetByteLength(encodeUtf8(data)) : data.byteLength;
    } else if (this.#id !== 0) {
      ops.socket_send(this.#id, data);
    } else {
      this.#sendToPeer(data);
    }
  }

  #sendToPeer(data) {
    const peer = this.#peer;
    const copy = typeof data === 'string' ? data : internals.body.copyBytes(data);
    peer.#defer({
      deliver: () => {
        if (peer.#state === OPEN) peer.#message(copy);
      },
      toConnection: (id) => ops.socket_send(id, copy),
    });
  }

  close(code = undefined, reason = undefined) {
    const prefix = "Failed to execute 'close' on 'WebSocket'";
    this.#lost;
    if (code !== undefined) {
      code = converters.unsignedShort(code, prefix, 'Argument 1', 'Clamp');
      const isServers = this.#isPaired && code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006;
      if (code !== 1000 && (code < 3000 || code > 4999) && !isServers) {
        throw new DOMException(`${prefix}: the code ${code} is neither 1000 nor from 3000 to 4999`, 'InvalidAccessError');
      }
    }
    if (reason !== undefined) {
      reason = converters.USVString(reason, prefix, 'Argument 2');
      if (TypedArrayPrototypeGetByteLength(encodeUtf8(reason)) > 123) {
        throw new DOMException(`${prefix}: the reason is longer than 123 bytes`, 'SyntaxError');
      }
      code ??= this.#isPaired ? 1000 : undefined;
    }
    if (this.#state === CLOSING || this.#state === CLOSED) return;
    const wasConnecting = this.#state === CONNECTING;
    this.#state = CLOSING;
    if (this.#id === 0) this.#closePair(code ?? 1005, reason ?? '');
    else if (wasConnecting) ops.socket_abandon(this.#id);
    else ops.socket_close(this.#id, code ?? (reason === undefined ? undefined : 1000), reason ?? '');
  }

  #closePair(code, reason) {
    const peer = this.#peer;
    const end = (socket) => {
      if (socket.#state === CLOSED) return;
      socket.#state = CLOSED;
      dispatchTrusted(socket, new CloseEvent('close', { code, reason, wasClean: true }));
    };
    peer.#defer({
      deliver: () => {
        end(peer);
        end(this);
      },
      toConnection: (id) => ops.socket_close(id, code === 1005 ? undefined : code, reason),
    });
  }
}

defineInterface(WebSocket);
defineConstants(WebSocket, { CONNECTING, OPEN, CLOSING, CLOSED });
for (const type of ['open', 'message', 'error', 'close']) defineEventHandler(WebSocket.prototype, type);
exposeInterface(WebSocket);

class WebSocketPair {
  constructor() {
    const { first, second } = makePair();
    for (const [key, value] of new primordials.SafeArrayIterator([['0', first], ['1', second]])) {
      primordials.ObjectDefineProperty(this, key, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
    }
  }
}

defineInterface(WebSocketPair);
exposeInterface(WebSocketPair);

/** The sockets that responses of status 101 carry. */
const ofResponses = new WeakMap();

ArrayPrototypePush(internals.fetch.eventHandlers, (kind, id) => {
  if (kind > 7) return;
  const socket = sockets.get(id);
  if (socket === undefined) return;
  if (kind === 4) onOpen(socket);
  else if (kind === 5) onMessage(socket);
  else if (kind === 6) onClosing(socket);
  else onClosed(socket);
});

internals.webSocket = {
  isWebSocket,
  /** (response, socket): the response makes this socket's other end a connection. */
  setOf: (response, socket) => WeakMapPrototypeSet(ofResponses, response, socket),
  /** (id, response, fields): the request becomes a WebSocket; false if it does not ask for one. */
  upgrade(id, response, fields) {
    const socket = WeakMapPrototypeGet(ofResponses, response);
    return attach(socket, () => ops.http_upgrade(id, fields ?? ''));
  },
};
