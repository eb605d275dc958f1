//! MessageChannel and MessagePort within one process, BroadcastChannel also among the workers of a pool.
//! https://html.spec.whatwg.org/#message-ports, https://html.spec.whatwg.org/#broadcasting-to-other-browsing-contexts
//!
//! A channel is two ends, plain records that know one another. A MessagePort is a shell on an end;
//! transferring a port leaves its shell empty and puts the end, with what waits there, under another.
//! Messages are records of 21_structured_clone.js.

const { ArrayPrototypeIndexOf, ArrayPrototypePush, ArrayPrototypeShift, ArrayPrototypeSlice, ArrayPrototypeSplice, SafeMap, SymbolIterator, TypeError } =
  primordials;
const { converters, requiredArguments, isObject, defineInterface, kConstruct } = internals.webidl;
const { Event, EventTarget, dispatchTrusted, defineEventHandler } = internals.events;
const { createMessageEvent } = internals.errorEvents;
const { DOMException, queueTask } = internals;
const { dataCloneError, serialize, serializeWithTransfer, deserialize, transferOf, toTransferList } = internals.cloning;

/** One end of a channel. */
class End {
  /** The other end; undefined once the channel is closed. */
  other = undefined;
  /** Messages that have not been delivered. */
  queue = [];
  /** Whether messages are delivered: `start` was called. */
  enabled = false;
  /** The MessagePort on this end; undefined while it is under way, or if a built-in listens. */
  port = undefined;
  /** A built-in's `{ message(value), failed() }` in the place of a port. */
  handler = undefined;
}

/** Two ends that know one another. */
function entangledPair() {
  const first = new End();
  const second = new End();
  first.other = second;
  second.other = first;
  return { first, second };
}

/** Puts a message at an end, and a task that delivers it. */
function enqueue(end, record) {
  ArrayPrototypePush(end.queue, record);
  if (end.enabled) queueTask(deliver, end);
}

/** Lets an end deliver what waits there and what will come. */
function enable(end) {
  if (end.enabled) return;
  end.enabled = true;
  for (let i = 0; i < end.queue.length; i++) queueTask(deliver, end);
}

/** Delivers the first message that waits, if somebody is there to take it. */
function deliver(end) {
  if (!end.enabled || end.queue.length === 0) return;
  if (end.handler === undefined && end.port === undefined) return;
  const record = ArrayPrototypeShift(end.queue);
  let message;
  try {
    message = deserialize(record);
  } catch {
    if (end.handler !== undefined) end.handler.failed();
    else dispatchTrusted(end.port, createMessageEvent('messageerror', null, '', undefined));
    return;
  }
  if (end.handler !== undefined) end.handler.message(message.value);
  else dispatchTrusted(end.port, createMessageEvent('message', message.value, '', portsAmong(message.received)));
}

function portsAmong(received) {
  const ports = [];
  for (let i = 0; i < received.length; i++) if (isMessagePort(received[i])) ArrayPrototypePush(ports, received[i]);
  return ports;
}

/** Ends a channel: what was sent is still delivered, then the other side hears `close`. */
function disentangle(end) {
  const { other } = end;
  if (other === undefined) return;
  end.other = undefined;
  other.other = undefined;
  queueTask(announceClose, other);
}

function announceClose(end) {
  if (end.port !== undefined) dispatchTrusted(end.port, new Event('close'));
}

/** The second argument of postMessage: a sequence of objects, or options with a `transfer`. */
function toTransfer(value, prefix) {
  if (value === undefined || value === null) return [];
  if (!isObject(value)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
  const method = value[SymbolIterator];
  return method === undefined || method === null ? transferOf(value, prefix) : toTransferList(value, prefix, 'Argument 2');
}

// Set by MessagePort's static block.
let isMessagePort, createPort, startPort;

class MessagePort extends EventTarget {
  /** The end this port is on; undefined once it is closed or transferred. */
  #end;
  #isDetached = false;

  static {
    isMessagePort = (value) => isObject(value) && #end in value;
    startPort = (port) => {
      if (port.#end !== undefined) enable(port.#end);
    };
    createPort = (end) => {
      const port = new MessagePort(kConstruct);
      port.#end = end;
      end.port = port;
      return port;
    };
    const detach = (port) => {
      const end = port.#end;
      port.#end = undefined;
      port.#isDetached = true;
      if (end !== undefined) {
        end.port = undefined;
        end.enabled = false;
      }
      return end;
    };
    internals.cloning.addTransferable({
      is: isMessagePort,
      check: (port) => {
        if (port.#isDetached) throw dataCloneError('A MessagePort of the transfer list is detached');
      },
      send: (port) => detach(port) ?? new End(),
      receive: createPort,
    });
  }

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'MessagePort': Illegal constructor");
    super();
  }

  postMessage(message, transferOrOptions = undefined) {
    this.#end;
    const prefix = "Failed to execute 'postMessage' on 'MessagePort'";
    requiredArguments(arguments.length, 1, prefix);
    const transfer = toTransfer(transferOrOptions, prefix);
    if (ArrayPrototypeIndexOf(transfer, this) !== -1) throw dataCloneError(`${prefix}: the port itself is in the transfer list`);
    const target = this.#end?.other;
    // Who sends the other end through its own channel can never be heard there.
    const isDoomed = target?.port !== undefined && ArrayPrototypeIndexOf(transfer, target.port) !== -1;
    const record = serializeWithTransfer(message, transfer);
    if (target !== undefined && !isDoomed) enqueue(target, record);
  }

  start() {
    startPort(this);
  }

  close() {
    const end = this.#end;
    this.#isDetached = true;
    this.#end = undefined;
    if (end === undefined) return;
    end.port = undefined;
    end.queue = [];
    disentangle(end);
  }
}

defineInterface(MessagePort);
defineEventHandler(MessagePort.prototype, 'message', startPort);
defineEventHandler(MessagePort.prototype, 'messageerror');
defineEventHandler(MessagePort.prototype, 'close');

class MessageChannel {
  #port1;
  #port2;

  constructor() {
    const { first, second } = entangledPair();
    this.#port1 = createPort(first);
    this.#port2 = createPort(second);
  }

  get port1() {
    return this.#port1;
  }

  get port2() {
    return this.#port2;
  }
}

defineInterface(MessageChannel);

/** The open channels of each name, in the order in which they were made. */
const channels = new SafeMap();

/** What connects the workers of a pool, from 81_pool.js: `{ send(record, name, prefix), read(message) }`. */
let link;

/**
 * Hands a message to every open channel of a name but the sender: a record of this worker's, or what has come from
 * another, which has no sender here.
 */
function broadcast(name, sender, message) {
  const open = channels.get(name);
  if (open === undefined) return;
  const listeners = ArrayPrototypeSlice(open);
  for (let i = 0; i < listeners.length; i++) {
    if (listeners[i] !== sender) queueTask(deliverBroadcast, { channel: listeners[i], message, isOurs: sender !== undefined });
  }
}

/** Delivers a message to one channel. */
let deliverBroadcast;

class BroadcastChannel extends EventTarget {
  #name;
  #isClosed = false;

  static {
    deliverBroadcast = ({ channel, message, isOurs }) => {
      if (channel.#isClosed) return;
      const { origin } = internals.workerScope;
      let data;
      try {
        data = isOurs ? deserialize(message).value : link.read(message);
      } catch {
        dispatchTrusted(channel, createMessageEvent('messageerror', null, origin(), undefined));
        return;
      }
      dispatchTrusted(channel, createMessageEvent('message', data, origin(), undefined));
    };
  }

  constructor(name) {
    const prefix = "Failed to construct 'BroadcastChannel'";
    requiredArguments(arguments.length, 1, prefix);
    super();
    this.#name = converters.DOMString(name, prefix, 'Argument 1');
    const open = channels.get(this.#name);
    if (open === undefined) channels.set(this.#name, [this]);
    else ArrayPrototypePush(open, this);
  }

  get name() {
    return this.#name;
  }

  postMessage(message) {
    const prefix = "Failed to execute 'postMessage' on 'BroadcastChannel'";
    const name = this.#name;
    requiredArguments(arguments.length, 1, prefix);
    if (this.#isClosed) throw new DOMException(`${prefix}: the channel is closed`, 'InvalidStateError');
    const record = serialize(message);
    broadcast(name, this, record);
    link.send(record, name, prefix);
  }

  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const open = channels.get(this.#name);
    ArrayPrototypeSplice(open, ArrayPrototypeIndexOf(open, this), 1);
    if (open.length === 0) channels.delete(this.#name);
  }
}

defineInterface(BroadcastChannel);
defineEventHandler(BroadcastChannel.prototype, 'message');
defineEventHandler(BroadcastChannel.prototype, 'messageerror');

internals.messaging = {
  MessageChannel,
  MessagePort,
  BroadcastChannel,
  isMessagePort,
  /** (name, undefined, message): a message of another worker has come. */
  broadcast,
  /** (link): sets what connects the workers of a pool. */
  link: (value) => {
    link = value;
  },
  /** () -> `{ first, second }`: two ends without ports, for built-ins. */
  entangledPair,
  /** (end, handler): a built-in takes the messages of an end from here on. */
  listen: (end, handler) => {
    end.handler = handler;
    enable(end);
  },
  /** (end, value): sends a value without transfer from an end; throws if it cannot be cloned. */
  post: (end, value) => {
    if (end.other !== undefined) enqueue(end.other, serialize(value));
  },
  /** (end): ends the channel. */
  disentangle,
};
