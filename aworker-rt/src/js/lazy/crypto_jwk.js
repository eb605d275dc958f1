//! JSON Web Keys (RFC 7517, RFC 7518): the dictionary, its checks, its bytes.
//! https://w3c.github.io/webcrypto/#JsonWebKey-dictionary

const {
  ArrayIsArray,
  ArrayPrototypePush,
  ArrayPrototypeSort,
  JSONParse,
  JSONStringify,
  ObjectKeys,
  ObjectSetPrototypeOf,
} = primordials;
const { converters, sequenceConverter, dictionaryConverter, isObject, conversionError } = internals.webidl;
const { DOMException } = internals;
const { put } = internals.cryptoKeys;
const { includes } = internals.cryptoAlgorithms;

function dataError(message) {
  return new DOMException(message, 'DataError');
}

const { DOMString } = converters;
const toOtherPrimes = dictionaryConverter('RsaOtherPrimesInfo', [
  { key: 'd', converter: DOMString },
  { key: 'r', converter: DOMString },
  { key: 't', converter: DOMString },
]);

/** Members of the dictionary in the order in which they are read and written. */
const members = [
  ['alg', DOMString],
  ['crv', DOMString],
  ['d', DOMString],
  ['dp', DOMString],
  ['dq', DOMString],
  ['e', DOMString],
  ['ext', converters.boolean],
  ['k', DOMString],
  ['key_ops', sequenceConverter(DOMString)],
  ['kty', DOMString],
  ['n', DOMString],
  ['oth', sequenceConverter(toOtherPrimes)],
  ['p', DOMString],
  ['q', DOMString],
  ['qi', DOMString],
  ['use', DOMString],
  ['x', DOMString],
  ['y', DOMString],
];

/** Converts a value to the dictionary JsonWebKey. */
function toJwk(value, prefix, context) {
  const jwk = { __proto__: null };
  if (value === undefined || value === null) return jwk;
  if (!isObject(value)) throw conversionError(prefix, context, 'is neither a BufferSource nor an object');
  for (let i = 0; i < members.length; i++) {
    const key = members[i][0];
    const given = value[key];
    if (given !== undefined) jwk[key] = members[i][1](given, prefix, `'${key}'`);
  }
  return jwk;
}

/** A JWK for the script; members that are undefined are left out. */
function fromJwk(jwk) {
  const result = {};
  for (let i = 0; i < members.length; i++) {
    const key = members[i][0];
    if (jwk[key] !== undefined) put(result, key, jwk[key]);
  }
  return result;
}

/** The bytes of a JWK, out of reach of `toJSON` methods of the script. */
function encodeJwk(jwk) {
  ObjectSetPrototypeOf(jwk, null);
  if (jwk.key_ops !== undefined) ObjectSetPrototypeOf(jwk.key_ops, null);
  return ops.utf8_encode(JSONStringify(jwk));
}

/** Takes away the prototypes of what JSON.parse made, so that only own properties are read. */
function bare(value) {
  if (!isObject(value)) return;
  if (!ArrayIsArray(value)) ObjectSetPrototypeOf(value, null);
  const keys = ObjectKeys(value);
  for (let i = 0; i < keys.length; i++) bare(value[keys[i]]);
}

/** The JWK in bytes that were wrapped. */
function decodeJwk(bytes, prefix) {
  let value;
  try {
    value = JSONParse(internals.encoding.decodeUtf8(bytes));
  } catch {
    throw dataError('The unwrapped bytes are no JSON');
  }
  if (!isObject(value) || ArrayIsArray(value)) throw dataError('The unwrapped JSON is no object');
  bare(value);
  let jwk;
  try {
    jwk = toJwk(value, prefix, 'The unwrapped JSON');
  } catch {
    throw dataError('The unwrapped JSON is no JSON Web Key');
  }
  if (jwk.kty === undefined) throw dataError("The unwrapped JSON Web Key has no 'kty'");
  return jwk;
}

function hasDuplicates(list) {
  const sorted = [];
  for (let i = 0; i < list.length; i++) ArrayPrototypePush(sorted, list[i]);
  ArrayPrototypeSort(sorted);
  for (let i = 1; i < sorted.length; i++) if (sorted[i] === sorted[i - 1]) return true;
  return false;
}

/** Checks what every kind of key has: `kty`, `use`, `key_ops`, `ext`. */
function checkJwk(jwk, kty, use, extractable, usages) {
  if (jwk.kty !== kty) throw dataError(`'kty' of the JSON Web Key is not '${kty}'`);
  if (usages.length > 0 && jwk.use !== undefined && jwk.use !== use) throw dataError(`'use' of the JSON Web Key is not '${use}'`);
  const operations = jwk.key_ops;
  if (operations !== undefined) {
    if (hasDuplicates(operations)) throw dataError("'key_ops' of the JSON Web Key has duplicates");
    for (let i = 0; i < usages.length; i++) {
      if (!includes(operations, usages[i])) throw dataError(`'key_ops' of the JSON Web Key lacks '${usages[i]}'`);
    }
  }
  if (jwk.ext === false && extractable) throw dataError('The JSON Web Key is not extractable');
}

/** The bytes of a member, which must be there and base64url. */
function jwkBytes(jwk, key) {
  const bytes = jwk[key] === undefined ? undefined : ops.crypto_base64url_decode(jwk[key]);
  if (bytes === undefined) throw dataError(`'${key}' of the JSON Web Key is missing or no base64url`);
  return bytes;
}

internals.cryptoJwk = { toJwk, fromJwk, encodeJwk, decodeJwk, checkJwk, jwkBytes, dataError };
