//! SubtleCrypto: the interface. What its methods do is in `lazy/crypto_*.js`, loaded at the first call of
//! one, so that a worker which never calls any pays for none of it.
//! https://w3c.github.io/webcrypto/#subtlecrypto-interface

const { FunctionPrototypeCall, ObjectDefineProperty, SafeArrayIterator, TypeError } = primordials;
const { kConstruct, defineInterface } = internals.webidl;

const files = ['crypto_algorithms', 'crypto_jwk', 'crypto_symmetric', 'crypto_rsa', 'crypto_curves', 'crypto_methods'];

/** The methods of `lazy/crypto_methods.js`. */
function methods() {
  if (internals.subtleMethods === undefined) {
    for (let i = 0; i < files.length; i++) {
      FunctionPrototypeCall(ops.lazy_builtin(files[i]), undefined, primordials, ops, internals, globalThis);
    }
  }
  return internals.subtleMethods;
}

/** Calls a method with the arguments that were given and their count. */
function call(method, given) {
  return methods()[method](given.length, ...new SafeArrayIterator(given));
}

class SubtleCrypto {
  #brand;

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'SubtleCrypto': Illegal constructor");
  }

  async encrypt(algorithm, key, data) {
    this.#brand;
    return await call('encrypt', arguments);
  }

  async decrypt(algorithm, key, data) {
    this.#brand;
    return await call('decrypt', arguments);
  }

  async sign(algorithm, key, data) {
    this.#brand;
    return await call('sign', arguments);
  }

  async verify(algorithm, key, signature, data) {
    this.#brand;
    return await call('verify', arguments);
  }

  async digest(algorithm, data) {
    this.#brand;
    return await call('digest', arguments);
  }

  async generateKey(algorithm, extractable, usages) {
    this.#brand;
    return await call('generateKey', arguments);
  }

  async deriveKey(algorithm, baseKey, derivedKeyType, extractable, usages) {
    this.#brand;
    return await call('deriveKey', arguments);
  }

  async deriveBits(algorithm, baseKey, length = null) {
    this.#brand;
    return await call('deriveBits', arguments);
  }

  async importKey(format, keyData, algorithm, extractable, usages) {
    this.#brand;
    return await call('importKey', arguments);
  }

  async exportKey(format, key) {
    this.#brand;
    return await call('exportKey', arguments);
  }

  async wrapKey(format, key, wrappingKey, wrapAlgorithm) {
    this.#brand;
    return await call('wrapKey', arguments);
  }

  async unwrapKey(format, wrappedKey, unwrappingKey, unwrapAlgorithm, unwrappedKeyAlgorithm, extractable, usages) {
    this.#brand;
    return await call('unwrapKey', arguments);
  }
}

ObjectDefineProperty(SubtleCrypto, 'length', { __proto__: null, value: 0 });
defineInterface(SubtleCrypto);
internals.exposeInterface(SubtleCrypto);
internals.subtle = new SubtleCrypto(kConstruct);
