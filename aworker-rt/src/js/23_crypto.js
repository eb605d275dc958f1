//! Crypto: getRandomValues and randomUUID; `subtle` is in 63_subtle_crypto.js. Every call asks the kernel: no state that a fork
//! could share lives here. https://w3c.github.io/webcrypto/#Crypto-interface

const { TypeError, TypedArrayPrototypeGetByteLength, TypedArrayPrototypeGetSymbolToStringTag } = primordials;
const { requiredArguments, defineInterface, kConstruct } = internals.webidl;
const { DOMException } = internals;

/** Most bytes one call may ask for, by the standard. */
const MAX_RANDOM_BYTES = 65536;

const integerArrays = {
  __proto__: null,
  Int8Array: true,
  Uint8Array: true,
  Uint8ClampedArray: true,
  Int16Array: true,
  Uint16Array: true,
  Int32Array: true,
  Uint32Array: true,
  BigInt64Array: true,
  BigUint64Array: true,
};

class Crypto {
  #brand;

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'Crypto': Illegal constructor");
  }

  get subtle() {
    this.#brand;
    return internals.subtle;
  }

  getRandomValues(array) {
    this.#brand;
    const prefix = "Failed to execute 'getRandomValues' on 'Crypto'";
    requiredArguments(arguments.length, 1, prefix);
    if (!primordials.ArrayBufferIsView(array)) throw new TypeError(`${prefix}: Argument 1 is not an ArrayBufferView`);
    const type = TypedArrayPrototypeGetSymbolToStringTag(array);
    if (type === undefined || !integerArrays[type]) {
      throw new DOMException(`${prefix}: ${type ?? 'a DataView'} is not an array of integers`, 'TypeMismatchError');
    }
    const length = TypedArrayPrototypeGetByteLength(array);
    if (length > MAX_RANDOM_BYTES) {
      throw new internals.QuotaExceededError(`${prefix}: ${length} bytes exceed the ${MAX_RANDOM_BYTES} bytes of one call`);
    }
    ops.random_fill(array);
    return array;
  }

  randomUUID() {
    this.#brand;
    return ops.random_uuid();
  }
}

defineInterface(Crypto);

internals.crypto = { Crypto, crypto: new Crypto(kConstruct) };
