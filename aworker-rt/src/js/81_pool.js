//! Aworker.pool: messages between the workers of a pool, and between a worker and its supervisor. Ours, of no
//! standard; what is sent is cloned as for MessagePort, what goes to the supervisor is JSON. BroadcastChannels
//! (22_messaging.js) reach the other workers through here. `src/worker/messages.rs` carries the bytes.

const {
  JSONParse,
  JSONStringify,
  ObjectDefineProperty,
  ObjectFreeze,
  PromiseReject,
  PromiseWithResolvers,
  TypeError,
} = primordials;
const { converters, requiredArguments, isObject, isArrayBuffer, defineInterface, kConstruct } = internals.webidl;
const { EventTarget, dispatchTrusted, defineEventHandler } = internals.events;
const { createMessageEvent } = internals.errorEvents;
const { DOMException, QuotaExceededError, queueTask } = internals;
const { dataCloneError, serialize, serializeWithTransfer, deserialize, transferOf } = internals.cloning;
const { isUint8Array } = internals.body;
const { isRequest, exchangeOf } = internals.request;
const { Response } = internals.response;

// Kinds of messages: the numbers of the packets.
const BROADCAST = 1;
const WORKER = 2;
const SUPERVISOR = 3;

// Forms of a body: V8's bytes; V8's bytes of a record with more than bytes; a value that no other process can have.
const PLAIN = 0;
const WRAPPED = 1;
const UNREADABLE = 2;

const NO_BYTES = new primordials.Uint8Array(0);

/** The form and the bytes of a record of 21_structured_clone.js. */
function encode(record) {
  // Memory is not shared with another process: the receiver hears `messageerror`, as the standard has it.
  if (record.carried.length > 0) return { form: UNREADABLE, body: NO_BYTES };
  if (record.hosts.length === 0 && record.buffers.length === 0) return { form: PLAIN, body: record.bytes };
  return { form: WRAPPED, body: serialize([record.bytes, record.hosts, record.buffers]).bytes };
}

function recordOf(bytes, hosts, buffers) {
  return { bytes, carried: [], hosts, buffers, sent: [] };
}

/** The value of a body, which anybody may have written: throws for what is none. */
function decode(form, body) {
  if (form === PLAIN) return deserialize(recordOf(body, [], [])).value;
  if (form !== WRAPPED) throw dataCloneError('The value cannot leave its process');
  const wrapped = deserialize(recordOf(body, [], [])).value;
  if (!primordials.ArrayIsArray(wrapped)) throw dataCloneError('The message is malformed');
  const { 0: bytes, 1: hosts, 2: buffers } = wrapped;
  const areLists = primordials.ArrayIsArray(hosts) && primordials.ArrayIsArray(buffers);
  if (!isUint8Array(bytes) || !areLists) throw dataCloneError('The message is malformed');
  for (let i = 0; i < buffers.length; i++) if (!isArrayBuffer(buffers[i])) throw dataCloneError('The message is malformed');
  return deserialize(recordOf(bytes, hosts, buffers)).value;
}

/** Sends, or throws what the script is to know. */
function send(prefix, kind, to, name, { form, body }) {
  switch (ops.pool_send(kind, form, to, name, body)) {
    case 0:
      return;
    case 1:
      throw new QuotaExceededError(`${prefix}: too many messages wait to be sent`);
    case 2:
      throw dataCloneError(`${prefix}: the message is too long`);
    default:
      throw new DOMException(`${prefix}: this worker is in no pool`, 'InvalidStateError');
  }
}

/** Requests and listeners on their way to other workers, by their tickets: { resolve, reject, to, answer }. */
const handing = new internals.NumberTable();

const HAND_OVER = "Failed to execute 'handOver' on 'Aworker.pool'";

/** Why a request cannot be handed over: the answers of `ops.pool_hand_over`. */
function handOverError(answer) {
  switch (answer) {
    case -1:
      return new DOMException(`${HAND_OVER}: this worker is in no pool`, 'InvalidStateError');
    case -2:
      return new DOMException(`${HAND_OVER}: the request is answered already, is being handed over, or its client has left`, 'InvalidStateError');
    case -3:
      return new DOMException(`${HAND_OVER}: the request's body has been asked for`, 'InvalidStateError');
    default:
      return new DOMException(`${HAND_OVER}: the request has been handed over too often`, 'OperationError');
  }
}

/** The id of the worker that is to take something; empty for any. */
function receiverOf(options) {
  const given = isObject(options) ? options.to : undefined;
  return given === undefined || given === null ? '' : converters.DOMString(given, HAND_OVER, "'to'");
}

/** A promise of what becomes of a ticket; `answer` makes its value. */
function handed(ticket, to, answer) {
  const { promise, resolve, reject } = PromiseWithResolvers();
  handing.set(ticket, { resolve, reject, to, answer });
  return promise;
}

/** A socket that the worker accepts connections on. */
class PoolListener {
  #number;
  #address;

  constructor(token = undefined, number = undefined, address = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'PoolListener': Illegal constructor");
    this.#number = number;
    this.#address = address;
  }

  get address() {
    return this.#address;
  }

  /** The number of a listener; undefined for anything else. */
  static numberOf(value) {
    return isObject(value) && #number in value ? value.#number : undefined;
  }

  static addressOf(listener) {
    return listener.#address;
  }
}

const { numberOf, addressOf } = PoolListener;
delete PoolListener.numberOf;
delete PoolListener.addressOf;
ObjectDefineProperty(PoolListener, 'length', { __proto__: null, value: 0 });
defineInterface(PoolListener);

/** Those that scripts have seen, by number: the same socket is the same object. */
const listeners = new internals.NumberTable();

function listenerOf(number, address) {
  let listener = listeners.get(number);
  if (listener === undefined || addressOf(listener) !== address) {
    listener = new PoolListener(kConstruct, number, address);
    listeners.set(number, listener);
  }
  return listener;
}

/** Has another worker accept on a listener, and this one no longer. */
function handListener(number, to) {
  const ticket = ops.pool_hand_listener(number, to);
  switch (ticket) {
    case -1:
      throw new DOMException(`${HAND_OVER}: this worker is in no pool`, 'InvalidStateError');
    case -2:
      throw notMine();
    case -3:
      throw new QuotaExceededError(`${HAND_OVER}: too much is being handed over`);
    default:
      return handed(ticket, to, () => undefined);
  }
}

function notMine() {
  return new DOMException(`${HAND_OVER}: this worker does not accept on the listener`, 'InvalidStateError');
}

/**
 * Hands a client's request to another worker: a promise of a Response that stands for the other worker's. Or a listener: a promise that
 * the other one accepts there.
 */
function handOver(what, options) {
  const number = numberOf(what);
  if (number !== undefined) return handListener(number, receiverOf(options));
  return handRequest(what, receiverOf(options));
}

function handRequest(request, to) {
  if (!isRequest(request)) throw new TypeError(`${HAND_OVER}: Argument 1 is neither a Request nor a listener`);
  const exchange = exchangeOf(request);
  if (exchange === undefined) throw new TypeError(`${HAND_OVER}: the request is not a client's`);
  const ticket = ops.pool_hand_over(exchange.id, exchange.head, to);
  if (ticket < 0) throw handOverError(ticket);
  // Nothing of it is sent: the request is no longer this worker's.
  return handed(ticket, to, () => new Response(null));
}

/** (ticket, outcome): what became of something that was to be handed over. */
internals.callbacks.poolHandedOver = (ticket, outcome) => {
  const record = handing.take(ticket);
  if (record === undefined) return;
  const { resolve, reject, to, answer } = record;
  switch (outcome) {
    case 0:
      resolve(answer());
      return;
    case 1:
      reject(new DOMException(`${HAND_OVER}: there is no ${to === '' ? 'other worker' : `worker ${to}`} that serves`, 'NotFoundError'));
      return;
    case 2:
      reject(new QuotaExceededError(`${HAND_OVER}: too much is being handed over`));
      return;
    case 4:
      reject(notMine());
      return;
    default:
      reject(new DOMException(`${HAND_OVER}: nobody has said that the request was taken`, 'TimeoutError'));
  }
};

class Pool extends EventTarget {
  #brand;

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'Pool': Illegal constructor");
    super();
  }

  get id() {
    this.#brand;
    return ops.pool_id() ?? null;
  }

  postMessage(message, options = undefined) {
    this.#brand;
    const prefix = "Failed to execute 'postMessage' on 'Aworker.pool'";
    requiredArguments(arguments.length, 1, prefix);
    const transfer = transferOf(options, prefix);
    const to = isObject(options) ? options.to : undefined;
    if (to === undefined || to === null) {
      const body = JSONStringify(message);
      if (body === undefined) throw dataCloneError(`${prefix}: the message has no form in JSON`);
      if (transfer.length > 0) throw dataCloneError(`${prefix}: nothing can be transferred to the supervisor`);
      send(prefix, SUPERVISOR, '', '', { form: PLAIN, body });
      return;
    }
    const id = converters.DOMString(to, prefix, "'to'");
    for (let i = 0; i < transfer.length; i++) {
      if (!isArrayBuffer(transfer[i])) throw dataCloneError(`${prefix}: only an ArrayBuffer can be transferred to another worker`);
    }
    send(prefix, WORKER, id, '', encode(serializeWithTransfer(message, transfer)));
  }

  get listeners() {
    this.#brand;
    const found = ops.pool_listeners();
    const list = [];
    for (let i = 0; i < found.length; i += 2) primordials.ArrayPrototypePush(list, listenerOf(found[i], found[i + 1]));
    return ObjectFreeze(list);
  }

  handOver(what, options = undefined) {
    try {
      this.#brand;
      requiredArguments(arguments.length, 1, HAND_OVER);
      return handOver(what, options);
    } catch (error) {
      return PromiseReject(error);
    }
  }
}

ObjectDefineProperty(Pool, 'length', { __proto__: null, value: 0 });
defineInterface(Pool);
defineEventHandler(Pool.prototype, 'message');
defineEventHandler(Pool.prototype, 'messageerror');

const pool = new Pool(kConstruct);
ObjectDefineProperty(globalThis.Aworker, 'pool', {
  __proto__: null, value: pool, writable: false, enumerable: true, configurable: true,
});

/** A message of another worker, or of the supervisor: `source` is the worker's id or null. */
function deliver({ form, source, body }) {
  let data;
  try {
    data = source === null ? JSONParse(body) : decode(form, body);
  } catch {
    dispatchTrusted(pool, createMessageEvent('messageerror', null, '', undefined, source));
    return;
  }
  dispatchTrusted(pool, createMessageEvent('message', data, '', undefined, source));
}

/** (kind, form, source, name, body): a message has come. */
internals.callbacks.poolMessage = (kind, form, source, name, body) => {
  if (kind === BROADCAST) internals.messaging.broadcast(name, undefined, { form, source, body });
  else queueTask(deliver, { form, source: kind === WORKER ? source : null, body });
};

internals.messaging.link({
  /** (record, name): hands a message of a BroadcastChannel to the other workers, if there are any. */
  send: (record, name, prefix) => {
    if (ops.pool_id() !== undefined) send(prefix, BROADCAST, '', name, encode(record));
  },
  /** ({ form, body }) -> the value of a message that has come. */
  read: ({ form, body }) => decode(form, body),
});
