//! structuredClone. Serialisation and transfer are native (web/structured_clone.rs).
//! https://html.spec.whatwg.org/#structured-cloning

const { ArrayPrototypeIndexOf, TypeError } = primordials;
const { converters, requiredArguments, isObject, isArrayBuffer, isPlatformObject, sequenceConverter } = internals.webidl;
const { DOMException } = internals;

const toTransferList = sequenceConverter(converters.object);

function dataCloneError(message) {
  return new DOMException(message, 'DataCloneError');
}

/** Clones a platform object; most cannot be. */
function cloneHost(object) {
  const { isBlob, cloneBlob } = internals.blob;
  if (isBlob(object)) return cloneBlob(object);
  throw dataCloneError('An instance of a platform interface could not be cloned');
}

/** What the serialiser calls back. */
const hooks = [dataCloneError, isPlatformObject, cloneHost];

/** The buffers to transfer; anything else cannot be transferred yet. */
function checkTransferList(list) {
  for (let i = 0; i < list.length; i++) {
    if (!isArrayBuffer(list[i])) throw dataCloneError(`Value at index ${i} of the transfer list is not transferable`);
    if (ArrayPrototypeIndexOf(list, list[i]) !== i) {
      throw dataCloneError(`The ArrayBuffer at index ${i} of the transfer list is a duplicate`);
    }
  }
}

function structuredClone(value, options = undefined) {
  const prefix = "Failed to execute 'structuredClone'";
  requiredArguments(arguments.length, 1, prefix);
  if (options !== undefined && options !== null && !isObject(options)) {
    throw new TypeError(`${prefix}: Argument 2 is not an object`);
  }
  const transfer = options?.transfer;
  if (transfer === undefined) {
    if (!isObject(value) && typeof value !== 'symbol') return value;
    return ops.structured_clone(value, undefined, hooks);
  }
  const list = toTransferList(transfer, prefix, "'transfer'");
  checkTransferList(list);
  return ops.structured_clone(value, list, hooks);
}

internals.structuredClone = structuredClone;
