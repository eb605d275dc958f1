//! Structured cloning: which platform objects are serialisable and which transferable, and
//! structuredClone. V8 walks the values (web/structured_clone.rs); an interface's file says here how
//! its instances are written. https://html.spec.whatwg.org/#structured-cloning
//!
//! A serialised value is a plain record, so that it can wait on a port's queue, in a snapshot or in
//! another process: V8's bytes, what cannot be bytes within one process (shared memory), the data
//! of its platform objects, and what was transferred with it.

const {
  ArrayBufferPrototypeGetDetached,
  ArrayBufferPrototypeTransfer,
  ArrayPrototypeIndexOf,
  ArrayPrototypePop,
  ArrayPrototypePush,
  TypeError,
} = primordials;
const { converters, requiredArguments, isObject, isArrayBuffer, isPlatformObject, sequenceConverter } = internals.webidl;
const { DOMException, domExceptionCloning } = internals;

const toTransferList = sequenceConverter(converters.object);

/** Interfaces whose instances can be cloned: `{ is, write, read }`. */
const serializables = [domExceptionCloning];
/** Interfaces whose instances can be transferred: `{ is, check, send, receive }`. */
const transferables = [];

/** The kind of a platform object that is not cloned but transferred. */
const TRANSFERRED = -1;

function dataCloneError(message) {
  return new DOMException(message, 'DataCloneError');
}

function findKind(kinds, object) {
  for (let i = 0; i < kinds.length; i++) if (kinds[i].is(object)) return i;
  return -1;
}

/** The serialisations and deserialisations under way: a getter may begin another inside one. */
const contexts = [];

/** Notes a platform object of the value; returns its number. */
function writeHost(object) {
  const context = contexts[contexts.length - 1];
  const transferred = ArrayPrototypeIndexOf(context.transferring, object);
  if (transferred !== -1) return ArrayPrototypePush(context.hosts, { kind: TRANSFERRED, data: transferred }) - 1;
  const kind = findKind(serializables, object);
  if (kind === -1) throw dataCloneError('An instance of a platform interface could not be cloned');
  return ArrayPrototypePush(context.hosts, { kind, data: serializables[kind].write(object) }) - 1;
}

/** The clones of the platform objects, by number. */
function readHosts(hosts, received) {
  const clones = [];
  for (let i = 0; i < hosts.length; i++) {
    const { kind, data } = hosts[i];
    ArrayPrototypePush(clones, kind === TRANSFERRED ? received[data] : serializables[kind].read(data));
  }
  return clones;
}

/** The native half has written everything: no JavaScript may run while it reads, so the clones are made here. */
function clonesOfHosts() {
  return readHosts(contexts[contexts.length - 1].hosts, undefined);
}

/** What the native half calls. */
const hooks = [dataCloneError, isPlatformObject, writeHost, clonesOfHosts];

/** Runs a native half with its context on top. */
function within(context, action) {
  ArrayPrototypePush(contexts, context);
  try {
    return action();
  } finally {
    ArrayPrototypePop(contexts);
  }
}

/** StructuredSerialize. */
function serialize(value) {
  return serializeWithTransfer(value, []);
}

/** What can be said of a transfer list before the value is looked at. */
function checkTransferList(list) {
  for (let i = 0; i < list.length; i++) {
    if (!isArrayBuffer(list[i]) && findKind(transferables, list[i]) === -1) {
      throw dataCloneError(`Value at index ${i} of the transfer list is not transferable`);
    }
    if (ArrayPrototypeIndexOf(list, list[i]) !== i) throw dataCloneError(`Value at index ${i} of the transfer list is a duplicate`);
  }
}

/** StructuredSerializeWithTransfer, for a list that has been converted. */
function serializeWithTransfer(value, transferList) {
  checkTransferList(transferList);
  const buffers = [];
  const transferring = [];
  for (let i = 0; i < transferList.length; i++) {
    ArrayPrototypePush(isArrayBuffer(transferList[i]) ? buffers : transferring, transferList[i]);
  }
  const context = { hosts: [], transferring };
  const { 0: bytes, 1: carried } = within(context, () => ops.structured_serialize(value, buffers, hooks));
  const moved = [];
  const sent = [];
  for (let i = 0; i < transferList.length; i++) {
    const item = transferList[i];
    if (isArrayBuffer(item)) {
      if (ArrayBufferPrototypeGetDetached(item)) throw dataCloneError(`The ArrayBuffer at index ${i} of the transfer list is detached`);
      ArrayPrototypePush(moved, ArrayBufferPrototypeTransfer(item));
    } else {
      const kind = findKind(transferables, item);
      transferables[kind].check?.(item);
      ArrayPrototypePush(sent, { kind, data: transferables[kind].send(item) });
    }
  }
  return { bytes, carried, hosts: context.hosts, buffers: moved, sent };
}

/** StructuredDeserializeWithTransfer: `{ value, received }`; the latter are the platform objects. */
function deserialize(record) {
  const received = [];
  for (let i = 0; i < record.sent.length; i++) {
    const { kind, data } = record.sent[i];
    ArrayPrototypePush(received, transferables[kind].receive(data));
  }
  const clones = readHosts(record.hosts, received);
  const value = ops.structured_deserialize(record.bytes, record.carried, record.buffers, clones, hooks);
  return { value, received };
}

/** A clone of a value, without transfer. */
function clone(value) {
  if (!isObject(value) && typeof value !== 'symbol') return value;
  const context = { hosts: [], transferring: [] };
  return within(context, () => ops.structured_clone(value, hooks));
}

/** The transfer list of a StructuredSerializeOptions. */
function transferOf(options, prefix) {
  if (options === undefined || options === null) return [];
  if (!isObject(options)) throw new TypeError(`${prefix}: Argument 2 is not an object`);
  const { transfer } = options;
  return transfer === undefined ? [] : toTransferList(transfer, prefix, "'transfer'");
}

// A method, and so no constructor.
const { structuredClone } = {
  structuredClone(value, options = undefined) {
    const prefix = "Failed to execute 'structuredClone'";
    requiredArguments(arguments.length, 1, prefix);
    const list = transferOf(options, prefix);
    return list.length === 0 ? clone(value) : deserialize(serializeWithTransfer(value, list)).value;
  },
};

internals.structuredClone = structuredClone;
internals.cloning = {
  dataCloneError,
  serialize,
  serializeWithTransfer,
  deserialize,
  transferOf,
  toTransferList,
  /**
   * Makes instances of an interface serialisable: `is(object)`, `write(object)` returns plain data or
   * throws a DataCloneError, `read(data)` makes the clone.
   */
  addSerializable: (kind) => ArrayPrototypePush(serializables, kind),
  /**
   * Makes instances of an interface transferable: `is(object)`, `check(object)` throws if it is detached
   * already, `send(object)` returns data and detaches it, `receive(data)` makes the new instance.
   */
  addTransferable: (kind) => ArrayPrototypePush(transferables, kind),
};
