//! What HMAC, AES, HKDF, PBKDF2 and the hash functions do: one object for each algorithm, one
//! method for each operation. https://w3c.github.io/webcrypto/#hmac

const { Uint8Array, TypedArrayPrototypeSubarray } = primordials;
const { DOMException } = internals;
const { makeKey } = internals.cryptoKeys;
const { includes, notSupported } = internals.cryptoAlgorithms;
const { checkJwk, jwkBytes, dataError } = internals.cryptoJwk;

/** Longest key in bits that is made or derived for HMAC: 1 MiB. */
const MAX_KEY_BITS = 8 * 1024 * 1024;
/** Most bits that PBKDF2 derives: 1 MiB. */
const MAX_DERIVED_BITS = 8 * 1024 * 1024;

const hashBlockBits = { __proto__: null, 'SHA-1': 512, 'SHA-256': 512, 'SHA-384': 1024, 'SHA-512': 1024 };
const hmacAlgs = { __proto__: null, 'SHA-1': 'HS1', 'SHA-256': 'HS256', 'SHA-384': 'HS384', 'SHA-512': 'HS512' };

function operationError(message) {
  return new DOMException(message, 'OperationError');
}

/** Throws a SyntaxError unless every usage is allowed. */
function checkUsages(usages, allowed) {
  for (let i = 0; i < usages.length; i++) {
    if (!includes(allowed, usages[i])) throw new DOMException(`A key of this kind cannot be used for '${usages[i]}'`, 'SyntaxError');
  }
}

/** The result of an operation, or an OperationError. */
function successful(result, message = 'The operation failed') {
  if (result === undefined) throw operationError(message);
  return result;
}

function randomBytes(length) {
  const bytes = new Uint8Array(length);
  ops.random_fill(bytes);
  return bytes;
}

/** Clears the bits after the first `bits` of the last byte. */
function clearRest(bytes, bits) {
  if (bits % 8 !== 0) bytes[bytes.length - 1] &= 0xff << (8 - (bits % 8));
  return bytes;
}

/** The first `bits` of a secret, all of them if `bits` is null. */
function firstBits(secret, bits) {
  if (bits === null) return secret;
  if (bits > secret.length * 8) throw operationError(`Only ${secret.length * 8} bits can be derived`);
  const length = (bits + 7) >>> 3;
  return clearRest(new Uint8Array(TypedArrayPrototypeSubarray(secret, 0, length)), bits);
}

/** Data of a key in `raw` or of a JWK of type `oct`. */
function secretBytes(format, data, use, extractable, usages) {
  if (format === 'raw') return data;
  if (format !== 'jwk') throw notSupported(`A secret key cannot be imported as '${format}'`);
  checkJwk(data, 'oct', use, extractable, usages);
  return jwkBytes(data, 'k');
}

function exportSecret(format, key, alg) {
  if (format === 'raw') return key.data;
  if (format !== 'jwk') throw notSupported(`A secret key cannot be exported as '${format}'`);
  return { alg, ext: key.extractable, k: ops.crypto_base64url(key.data), key_ops: key.usages, kty: 'oct' };
}

const hmacUsages = ['sign', 'verify'];

const hmac = {
  sign: (_, key, data) => ops.crypto_hmac(key.algorithm.hash, key.data, data),
  verify: (_, key, signature, data) => ops.crypto_equal(ops.crypto_hmac(key.algorithm.hash, key.data, data), signature),
  generateKey({ name, hash, length = hashBlockBits[hash] }, extractable, usages) {
    checkUsages(usages, hmacUsages);
    if (length === 0 || length > MAX_KEY_BITS) throw operationError(`A key of ${length} bits cannot be generated`);
    const data = clearRest(randomBytes((length + 7) >>> 3), length);
    return makeKey('secret', extractable, { name, hash, length }, usages, data);
  },
  importKey({ name, hash, length }, format, data, extractable, usages) {
    checkUsages(usages, hmacUsages);
    let bytes = secretBytes(format, data, 'sig', extractable, usages);
    if (format === 'jwk' && data.alg !== undefined && data.alg !== hmacAlgs[hash]) {
      throw dataError(`'alg' of the JSON Web Key is not '${hmacAlgs[hash]}'`);
    }
    const bits = bytes.length * 8;
    if (bits === 0) throw dataError('The key is empty');
    if (length === undefined) length = bits;
    if (length > bits || length <= bits - 8) throw dataError(`The key does not have ${length} bits`);
    if (length !== bits) bytes = clearRest(new Uint8Array(bytes), length);
    return makeKey('secret', extractable, { name, hash, length }, usages, bytes);
  },
  exportKey: (format, key) => exportSecret(format, key, hmacAlgs[key.algorithm.hash]),
  getKeyLength({ hash, length }) {
    if (length === undefined) return hashBlockBits[hash];
    if (length === 0) throw new primordials.TypeError('A key of no bits cannot be derived');
    return length;
  },
};

const validAesLength = (length) => length === 128 || length === 192 || length === 256;

/** Operations on keys that all modes of AES share; `suffix` is that of `alg` in a JWK. */
function aesKeys(suffix, allowed) {
  return {
    generateKey({ name, length }, extractable, usages) {
      checkUsages(usages, allowed);
      if (!validAesLength(length)) throw operationError(`A key of AES cannot have ${length} bits`);
      return makeKey('secret', extractable, { name, length }, usages, randomBytes(length / 8));
    },
    importKey({ name }, format, data, extractable, usages) {
      checkUsages(usages, allowed);
      const bytes = secretBytes(format, data, 'enc', extractable, usages);
      const length = bytes.length * 8;
      if (!validAesLength(length)) throw dataError(`A key of AES cannot have ${length} bits`);
      if (format === 'jwk' && data.alg !== undefined && data.alg !== `A${length}${suffix}`) {
        throw dataError(`'alg' of the JSON Web Key is not 'A${length}${suffix}'`);
      }
      return makeKey('secret', extractable, { name, length }, usages, bytes);
    },
    exportKey: (format, key) => exportSecret(format, key, `A${key.algorithm.length}${suffix}`),
    getKeyLength({ length }) {
      if (!validAesLength(length)) throw operationError(`A key of AES cannot have ${length} bits`);
      return length;
    },
  };
}

const cipherUsages = ['encrypt', 'decrypt', 'wrapKey', 'unwrapKey'];

function cbc(encrypt, { iv }, key, data) {
  if (iv.length !== 16) throw operationError('The iv of AES-CBC has 16 bytes');
  return successful(ops.crypto_aes_cbc(encrypt, key.data, iv, data), 'The data could not be decrypted');
}

function ctr({ counter, length }, key, data) {
  if (counter.length !== 16) throw operationError('The counter of AES-CTR has 16 bytes');
  if (length === 0 || length > 128) throw operationError('The length of the counter is from 1 to 128 bits');
  return successful(ops.crypto_aes_ctr(key.data, counter, length, data), 'The counter is too short for the data');
}

const noBytes = new Uint8Array(0);
const gcmTagBits = [32, 64, 96, 104, 112, 120, 128];

function gcm(encrypt, { iv, additionalData = noBytes, tagLength = 128 }, key, data) {
  if (!includes(gcmTagBits, tagLength)) throw operationError(`A tag of AES-GCM cannot have ${tagLength} bits`);
  if (iv.length === 0) throw operationError('The iv is empty');
  const result = ops.crypto_aes_gcm(encrypt, key.data, iv, additionalData, tagLength / 8, data);
  return successful(result, 'The data could not be authenticated');
}

const kdfUsages = ['deriveKey', 'deriveBits'];

function importKdf({ name }, format, data, extractable, usages) {
  if (format !== 'raw') throw notSupported(`A key of ${name} is imported as 'raw'`);
  checkUsages(usages, kdfUsages);
  if (extractable) throw new DOMException(`A key of ${name} cannot be extractable`, 'SyntaxError');
  return makeKey('secret', false, { name }, usages, data);
}

/** Bytes to derive; null and parts of a byte are not possible. */
function derivedBytes(bits) {
  if (bits === null || bits % 8 !== 0 || bits > MAX_DERIVED_BITS) throw operationError(`${bits} bits cannot be derived`);
  return bits / 8;
}

const hkdf = {
  deriveBits({ hash, salt, info }, key, bits) {
    return successful(ops.crypto_hkdf(hash, key.data, salt, info, derivedBytes(bits)), 'Too many bits for HKDF');
  },
  importKey: importKdf,
  getKeyLength: () => null,
};

const pbkdf2 = {
  deriveBits({ hash, salt, iterations }, key, bits) {
    const length = derivedBytes(bits);
    if (iterations === 0) throw operationError('PBKDF2 needs an iteration');
    return ops.crypto_pbkdf2(hash, key.data, salt, iterations, length);
  },
  importKey: importKdf,
  getKeyLength: () => null,
};

const keyWrap = {
  ...aesKeys('KW', ['wrapKey', 'unwrapKey']),
  wrapKey: (_, key, data) => successful(ops.crypto_aes_kw(true, key.data, data), 'Only multiples of 8 bytes, from 16 on, can be wrapped'),
  unwrapKey: (_, key, data) => successful(ops.crypto_aes_kw(false, key.data, data), 'The key could not be unwrapped'),
};

const digest = { digest: ({ name }, data) => ops.crypto_digest(name, data) };

internals.cryptoImplementations = {
  __proto__: null,
  'SHA-1': digest,
  'SHA-256': digest,
  'SHA-384': digest,
  'SHA-512': digest,
  HMAC: hmac,
  'AES-CBC': {
    ...aesKeys('CBC', cipherUsages),
    encrypt: (parameters, key, data) => cbc(true, parameters, key, data),
    decrypt: (parameters, key, data) => cbc(false, parameters, key, data),
  },
  'AES-CTR': { ...aesKeys('CTR', cipherUsages), encrypt: ctr, decrypt: ctr },
  'AES-GCM': {
    ...aesKeys('GCM', cipherUsages),
    encrypt: (parameters, key, data) => gcm(true, parameters, key, data),
    decrypt: (parameters, key, data) => gcm(false, parameters, key, data),
  },
  'AES-KW': keyWrap,
  HKDF: hkdf,
  PBKDF2: pbkdf2,
};
internals.cryptoSupport = { checkUsages, successful, operationError, firstBits };
