//! The methods of SubtleCrypto. Arguments are converted, algorithms normalised and buffers copied when a
//! method is called; the rest happens in a task of its own. https://w3c.github.io/webcrypto/#subtlecrypto-interface

const {
  ArrayPrototypePush,
  Promise,
  TypeError,
  TypedArrayPrototypeGetBuffer,
  Uint8Array,
  TypedArrayPrototypeSet,
  TypedArrayPrototypeFill,
} = primordials;
const { converters, requiredArguments, enumConverter, sequenceConverter, isArrayBuffer, isSharedArrayBuffer } =
  internals.webidl;
const { DOMException, queueTask } = internals;
const { slotsOf, setUsages, isCryptoKey, put } = internals.cryptoKeys;
const { usageNames, includes, usageIntersection, normalize, parametersOf, identifier, bufferSource, cryptoKey, notSupported } =
  internals.cryptoAlgorithms;
const { toJwk, fromJwk, encodeJwk, decodeJwk } = internals.cryptoJwk;
const implementations = internals.cryptoImplementations;

const keyFormat = enumConverter('KeyFormat', ['raw', 'spki', 'pkcs8', 'jwk']);
const keyUsages = sequenceConverter(enumConverter('KeyUsage', usageNames));

/** Runs steps in a task; the promise is settled with what they return or throw. */
function inTask(steps) {
  return new Promise((resolve, reject) => {
    // Whoever waits for the script to settle waits for the task, too.
    ops.hold();
    queueTask(settle, { steps, resolve, reject });
  });
}

function settle({ steps, resolve, reject }) {
  ops.release();
  let value;
  try {
    value = steps();
  } catch (error) {
    reject(error);
    return;
  }
  resolve(value);
}

function invalidAccess(message) {
  return new DOMException(message, 'InvalidAccessError');
}

/** The private slots of a key that must belong to the algorithm and have the usage. */
function keyFor(normalized, key, usage) {
  const slots = slotsOf(key);
  if (slots.algorithm.name !== normalized.name) throw invalidAccess(`The key is one of ${slots.algorithm.name}, not of ${normalized.name}`);
  if (!includes(slots.usages, usage)) throw invalidAccess(`The key cannot be used for '${usage}'`);
  return slots;
}

/** Bytes as an ArrayBuffer of their own: bytes of a key must be copied before. */
function toBuffer(bytes) {
  return TypedArrayPrototypeGetBuffer(bytes);
}

function implementation(normalized) {
  return implementations[normalized.name];
}

/** Sets what every new key gets and refuses one that nothing can be done with. */
function finishKey(key, usages) {
  const { type } = slotsOf(key);
  if ((type === 'secret' || type === 'private') && usages.length === 0) {
    throw new DOMException('A secret or private key needs a usage', 'SyntaxError');
  }
  setUsages(key, usages);
  return key;
}

/** The usages once each, in the order of the standard. */
function normalizedUsages(usages) {
  return usageIntersection(usages, usageNames);
}

function importFrom(normalized, format, data, extractable, usages) {
  const key = implementation(normalized).importKey(normalized, format, data, extractable, usages);
  return finishKey(key, normalizedUsages(usages));
}

/** A key's bytes or JWK; the caller may keep and change them. */
function exportSlots(format, slots) {
  if (parametersOf('exportKey', slots.algorithm.name) === undefined) throw notSupported(`Keys of ${slots.algorithm.name} cannot be exported`);
  if (!slots.extractable) throw invalidAccess('The key is not extractable');
  const exported = implementations[slots.algorithm.name].exportKey(format, slots);
  if (format !== 'jwk') return new Uint8Array(exported);
  const operations = [];
  for (let i = 0; i < slots.usages.length; i++) ArrayPrototypePush(operations, slots.usages[i]);
  exported.key_ops = operations;
  return fromJwk(exported);
}

/** Spaces after JSON, so that it has a length which AES-KW can wrap. */
function padForKeyWrap(bytes) {
  if (bytes.length % 8 === 0) return bytes;
  const padded = TypedArrayPrototypeFill(new Uint8Array(bytes.length + 8 - (bytes.length % 8)), 0x20);
  TypedArrayPrototypeSet(padded, bytes);
  return padded;
}

/** Normalises for the first operation that the algorithm has. */
function normalizeEither(algorithm, first, second, prefix) {
  try {
    return normalize(algorithm, first, prefix);
  } catch {
    return normalize(algorithm, second, prefix);
  }
}

/** Key data: bytes, or a JWK. */
function keyData(value, prefix) {
  if (primordials.ArrayBufferIsView(value) || isArrayBuffer(value) || isSharedArrayBuffer(value)) {
    return { bytes: bufferSource(value, prefix, 'Argument 2'), jwk: undefined };
  }
  return { bytes: undefined, jwk: toJwk(value, prefix, 'Argument 2') };
}

const prefixOf = (method) => `Failed to execute '${method}' on 'SubtleCrypto'`;

/** encrypt, decrypt and sign: `(algorithm, key, data)`. */
function transform(method, count, algorithm, key, data) {
  const prefix = prefixOf(method);
  requiredArguments(count, 3, prefix);
  algorithm = identifier(algorithm, prefix, 'Argument 1');
  key = cryptoKey(key, prefix, 'Argument 2');
  data = bufferSource(data, prefix, 'Argument 3');
  const normalized = normalize(algorithm, method, prefix);
  const copy = ops.crypto_copy(data);
  return inTask(() => {
    const slots = keyFor(normalized, key, method);
    return toBuffer(implementation(normalized)[method](normalized, slots, copy));
  });
}

/** Bits by deriveBits of the base key. */
function derive(normalized, key, usage, length) {
  return implementation(normalized).deriveBits(normalized, keyFor(normalized, key, usage), length);
}

/** By name: `(count, ...arguments)`, the count being that of the arguments given. */
internals.subtleMethods = {
  __proto__: null,

  encrypt(count, algorithm, key, data) {
    return transform('encrypt', count, algorithm, key, data);
  },

  decrypt(count, algorithm, key, data) {
    return transform('decrypt', count, algorithm, key, data);
  },

  sign(count, algorithm, key, data) {
    return transform('sign', count, algorithm, key, data);
  },

  verify(count, algorithm, key, signature, data) {
    const prefix = prefixOf('verify');
    requiredArguments(count, 4, prefix);
    algorithm = identifier(algorithm, prefix, 'Argument 1');
    key = cryptoKey(key, prefix, 'Argument 2');
    signature = bufferSource(signature, prefix, 'Argument 3');
    data = bufferSource(data, prefix, 'Argument 4');
    const normalized = normalize(algorithm, 'verify', prefix);
    const signatureCopy = ops.crypto_copy(signature);
    const copy = ops.crypto_copy(data);
    return inTask(() => {
      const slots = keyFor(normalized, key, 'verify');
      return implementation(normalized).verify(normalized, slots, signatureCopy, copy);
    });
  },

  digest(count, algorithm, data) {
    const prefix = prefixOf('digest');
    requiredArguments(count, 2, prefix);
    algorithm = identifier(algorithm, prefix, 'Argument 1');
    data = bufferSource(data, prefix, 'Argument 2');
    const normalized = normalize(algorithm, 'digest', prefix);
    const copy = ops.crypto_copy(data);
    return inTask(() => toBuffer(implementation(normalized).digest(normalized, copy)));
  },

  generateKey(count, algorithm, extractable, usages) {
    const prefix = prefixOf('generateKey');
    requiredArguments(count, 3, prefix);
    algorithm = identifier(algorithm, prefix, 'Argument 1');
    extractable = !!extractable;
    usages = keyUsages(usages, prefix, 'Argument 3');
    const normalized = normalize(algorithm, 'generateKey', prefix);
    return inTask(() => {
      const result = implementation(normalized).generateKey(normalized, extractable, usages);
      if (isCryptoKey(result)) return finishKey(result, normalizedUsages(usages));
      finishKey(result.privateKey, slotsOf(result.privateKey).usages);
      const pair = {};
      put(pair, 'privateKey', result.privateKey);
      put(pair, 'publicKey', result.publicKey);
      return pair;
    });
  },

  deriveKey(count, algorithm, baseKey, derivedKeyType, extractable, usages) {
    const prefix = prefixOf('deriveKey');
    requiredArguments(count, 5, prefix);
    algorithm = identifier(algorithm, prefix, 'Argument 1');
    baseKey = cryptoKey(baseKey, prefix, 'Argument 2');
    derivedKeyType = identifier(derivedKeyType, prefix, 'Argument 3');
    extractable = !!extractable;
    usages = keyUsages(usages, prefix, 'Argument 5');
    const normalized = normalize(algorithm, 'deriveBits', prefix);
    const importing = normalize(derivedKeyType, 'importKey', prefix);
    const measuring = normalize(derivedKeyType, 'getKeyLength', prefix);
    return inTask(() => {
      keyFor(normalized, baseKey, 'deriveKey');
      const length = implementation(measuring).getKeyLength(measuring);
      const secret = derive(normalized, baseKey, 'deriveKey', length);
      return importFrom(importing, 'raw', secret, extractable, usages);
    });
  },

  deriveBits(count, algorithm, baseKey, length = null) {
    const prefix = prefixOf('deriveBits');
    requiredArguments(count, 2, prefix);
    algorithm = identifier(algorithm, prefix, 'Argument 1');
    baseKey = cryptoKey(baseKey, prefix, 'Argument 2');
    if (length !== null) length = converters.unsignedLong(length, prefix, 'Argument 3');
    const normalized = normalize(algorithm, 'deriveBits', prefix);
    return inTask(() => toBuffer(derive(normalized, baseKey, 'deriveBits', length)));
  },

  importKey(count, format, data, algorithm, extractable, usages) {
    const prefix = prefixOf('importKey');
    requiredArguments(count, 5, prefix);
    format = keyFormat(format, prefix, 'Argument 1');
    const { bytes, jwk } = keyData(data, prefix);
    algorithm = identifier(algorithm, prefix, 'Argument 3');
    extractable = !!extractable;
    usages = keyUsages(usages, prefix, 'Argument 5');
    const normalized = normalize(algorithm, 'importKey', prefix);
    if ((format === 'jwk') !== (jwk !== undefined)) throw new TypeError(`${prefix}: the key data do not fit the format '${format}'`);
    const copy = jwk ?? ops.crypto_copy(bytes);
    return inTask(() => importFrom(normalized, format, copy, extractable, usages));
  },

  exportKey(count, format, key) {
    const prefix = prefixOf('exportKey');
    requiredArguments(count, 2, prefix);
    format = keyFormat(format, prefix, 'Argument 1');
    key = cryptoKey(key, prefix, 'Argument 2');
    return inTask(() => {
      const exported = exportSlots(format, slotsOf(key));
      return format === 'jwk' ? exported : toBuffer(exported);
    });
  },

  wrapKey(count, format, key, wrappingKey, wrapAlgorithm) {
    const prefix = prefixOf('wrapKey');
    requiredArguments(count, 4, prefix);
    format = keyFormat(format, prefix, 'Argument 1');
    key = cryptoKey(key, prefix, 'Argument 2');
    wrappingKey = cryptoKey(wrappingKey, prefix, 'Argument 3');
    wrapAlgorithm = identifier(wrapAlgorithm, prefix, 'Argument 4');
    const normalized = normalizeEither(wrapAlgorithm, 'wrapKey', 'encrypt', prefix);
    return inTask(() => {
      const slots = keyFor(normalized, wrappingKey, 'wrapKey');
      const exported = exportSlots(format, slotsOf(key));
      const bytes = format === 'jwk' ? encodeJwk(exported) : exported;
      const { wrapKey, encrypt } = implementation(normalized);
      if (wrapKey === undefined) return toBuffer(encrypt(normalized, slots, bytes));
      return toBuffer(wrapKey(normalized, slots, format === 'jwk' ? padForKeyWrap(bytes) : bytes));
    });
  },

  unwrapKey(count, format, wrappedKey, unwrappingKey, unwrapAlgorithm, unwrappedKeyAlgorithm, extractable, usages) {
    const prefix = prefixOf('unwrapKey');
    requiredArguments(count, 7, prefix);
    format = keyFormat(format, prefix, 'Argument 1');
    wrappedKey = bufferSource(wrappedKey, prefix, 'Argument 2');
    unwrappingKey = cryptoKey(unwrappingKey, prefix, 'Argument 3');
    unwrapAlgorithm = identifier(unwrapAlgorithm, prefix, 'Argument 4');
    unwrappedKeyAlgorithm = identifier(unwrappedKeyAlgorithm, prefix, 'Argument 5');
    extractable = !!extractable;
    usages = keyUsages(usages, prefix, 'Argument 7');
    const normalized = normalizeEither(unwrapAlgorithm, 'unwrapKey', 'decrypt', prefix);
    const importing = normalize(unwrappedKeyAlgorithm, 'importKey', prefix);
    const copy = ops.crypto_copy(wrappedKey);
    return inTask(() => {
      const slots = keyFor(normalized, unwrappingKey, 'unwrapKey');
      const { unwrapKey, decrypt } = implementation(normalized);
      const bytes = (unwrapKey ?? decrypt)(normalized, slots, copy);
      const data = format === 'jwk' ? decodeJwk(bytes) : bytes;
      return importFrom(importing, format, data, extractable, usages);
    });
  },
};
