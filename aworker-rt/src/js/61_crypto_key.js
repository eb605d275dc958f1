//! CryptoKey. The key itself is bytes in a private slot, which no script can reach: it survives a
//! snapshot and a fork like any other object. https://w3c.github.io/webcrypto/#cryptokey-interface

const { ArrayPrototypePush, ObjectDefineProperty, TypeError, Uint8Array } = primordials;
const { kConstruct, defineInterface, isObject } = internals.webidl;

let slotsOf, setUsages, isCryptoKey;

/** A property that no setter on Object.prototype sees. */
function put(object, key, value) {
  ObjectDefineProperty(object, key, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
}

/** The script's own copy of an algorithm: members in the order of the dictionary. */
function toScript(algorithm) {
  const result = {};
  put(result, 'name', algorithm.name);
  if (algorithm.length !== undefined && algorithm.hash === undefined) put(result, 'length', algorithm.length);
  if (algorithm.modulusLength !== undefined) {
    put(result, 'modulusLength', algorithm.modulusLength);
    put(result, 'publicExponent', new Uint8Array(algorithm.publicExponent));
  }
  if (algorithm.namedCurve !== undefined) put(result, 'namedCurve', algorithm.namedCurve);
  if (algorithm.hash !== undefined) {
    const hash = {};
    put(hash, 'name', algorithm.hash);
    put(result, 'hash', hash);
    if (algorithm.length !== undefined) put(result, 'length', algorithm.length);
  }
  return result;
}

class CryptoKey {
  #type;
  #extractable;
  /** `{ name, length?, hash?, modulusLength?, publicExponent?, namedCurve? }`; the hash is a name. */
  #algorithm;
  #usages;
  #data;
  #scriptAlgorithm = undefined;
  #scriptUsages = undefined;

  constructor(token = undefined, type = undefined, extractable = undefined, algorithm = undefined, usages = undefined, data = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'CryptoKey': Illegal constructor");
    this.#type = type;
    this.#extractable = extractable;
    this.#algorithm = algorithm;
    this.#usages = usages;
    this.#data = data;
  }

  get type() {
    return this.#type;
  }

  get extractable() {
    return this.#extractable;
  }

  get algorithm() {
    this.#scriptAlgorithm ??= toScript(this.#algorithm);
    return this.#scriptAlgorithm;
  }

  get usages() {
    if (this.#scriptUsages === undefined) {
      this.#scriptUsages = [];
      for (let i = 0; i < this.#usages.length; i++) ArrayPrototypePush(this.#scriptUsages, this.#usages[i]);
    }
    return this.#scriptUsages;
  }

  static {
    isCryptoKey = (value) => isObject(value) && #data in value;
    slotsOf = (key) => ({
      __proto__: null,
      type: key.#type,
      extractable: key.#extractable,
      algorithm: key.#algorithm,
      usages: key.#usages,
      data: key.#data,
    });
    setUsages = (key, usages) => {
      key.#usages = usages;
    };
  }
}
ObjectDefineProperty(CryptoKey, 'length', { __proto__: null, value: 0 });
defineInterface(CryptoKey);
internals.exposeInterface(CryptoKey);

function makeKey(type, extractable, algorithm, usages, data) {
  return new CryptoKey(kConstruct, type, extractable, algorithm, usages, data);
}

internals.cryptoKeys = {
  isCryptoKey,
  makeKey,
  slotsOf,
  setUsages,
  put,
};
internals.cloning.addSerializable({
  is: isCryptoKey,
  // The bytes of a key never change: its clones share them.
  write: slotsOf,
  read: ({ type, extractable, algorithm, usages, data }) => makeKey(type, extractable, algorithm, usages, data),
});
