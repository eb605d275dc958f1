//! Algorithms as scripts name them: the table of operations and parameters, and how a value becomes
//! a normalised algorithm. https://w3c.github.io/webcrypto/#algorithm-normalization

const {
  ArrayBufferIsView,
  ArrayPrototypePush,
  ObjectEntries,
  RegExpPrototypeExec,
  SafeArrayIterator,
  SafeMap,
  StringPrototypeToUpperCase,
  TypeError,
  TypedArrayPrototypeGetSymbolToStringTag,
} = primordials;
const { converters, conversionError, isObject, isSharedArrayBuffer } = internals.webidl;
const { DOMException } = internals;
const { isCryptoKey } = internals.cryptoKeys;
const { viewParts } = internals.streams;

/** Recognised usages, in the order in which keys list them. */
const usageNames = ['encrypt', 'decrypt', 'sign', 'verify', 'deriveKey', 'deriveBits', 'wrapKey', 'unwrapKey'];

function includes(list, value) {
  for (let i = 0; i < list.length; i++) if (list[i] === value) return true;
  return false;
}

/** The usages that both lists have, in the order in which keys list them. */
function usageIntersection(usages, allowed) {
  const result = [];
  for (let i = 0; i < usageNames.length; i++) {
    const usage = usageNames[i];
    if (includes(usages, usage) && includes(allowed, usage)) ArrayPrototypePush(result, usage);
  }
  return result;
}

function notSupported(message) {
  return new DOMException(message, 'NotSupportedError');
}

/** A BufferSource. What is shared is refused, as [AllowShared] is not there. */
function bufferSource(value, prefix, context) {
  converters.bufferSource(value, prefix, context);
  if (isSharedArrayBuffer(ArrayBufferIsView(value) ? viewParts(value).buffer : value)) {
    throw conversionError(prefix, context, 'is shared');
  }
  return value;
}

function bigInteger(value, prefix, context) {
  if (TypedArrayPrototypeGetSymbolToStringTag(value) !== 'Uint8Array') throw conversionError(prefix, context, 'is not a Uint8Array');
  return bufferSource(value, prefix, context);
}

function cryptoKey(value, prefix, context) {
  if (!isCryptoKey(value)) throw conversionError(prefix, context, 'is not a CryptoKey');
  return value;
}

/** `(object or DOMString)`. */
function identifier(value, prefix, context) {
  return isObject(value) ? value : converters.DOMString(value, prefix, context);
}

const enforced = (converter) => (value, prefix, context) => converter(value, prefix, context, 'EnforceRange');
const unsignedLong = enforced(converters.unsignedLong);
const octet = enforced(converters.octet);

// What happens to a member after the conversion.
const kPlain = 0;
const kCopied = 1;
const kHash = 2;

const required = (key, converter, kind = kPlain) => ({ key, converter, kind, required: true });
const optional = (key, converter, kind = kPlain) => ({ key, converter, kind, required: false });

const hash = required('hash', identifier, kHash);
const none = [];
const namedCurve = [required('namedCurve', converters.DOMString)];
const hmac = [hash, optional('length', unsignedLong)];
const aesLength = [required('length', enforced(converters.unsignedShort))];
const publicKey = [required('public', cryptoKey)];
const rsaGenerate = [required('modulusLength', unsignedLong), required('publicExponent', bigInteger, kCopied), hash];

/** Parameters of an algorithm by operation; inherited members come first. */
const rsaSignature = { sign: none, verify: none, generateKey: rsaGenerate, importKey: [hash], exportKey: none };
const rsaPss = [required('saltLength', unsignedLong)];
const oaep = [optional('label', bufferSource, kCopied)];
const aes = { generateKey: aesLength, importKey: none, exportKey: none, getKeyLength: aesLength };
const aesCbc = [required('iv', bufferSource, kCopied)];
const aesCtr = [required('counter', bufferSource, kCopied), required('length', octet)];
const aesGcm = [
  optional('additionalData', bufferSource, kCopied),
  required('iv', bufferSource, kCopied),
  optional('tagLength', octet),
];
const hkdf = [hash, required('info', bufferSource, kCopied), required('salt', bufferSource, kCopied)];
const pbkdf2 = [hash, required('iterations', unsignedLong), required('salt', bufferSource, kCopied)];
const ecKeys = { generateKey: namedCurve, importKey: namedCurve, exportKey: none };
const okpKeys = { generateKey: none, importKey: none, exportKey: none };
const digest = { digest: none };

const algorithms = {
  __proto__: null,
  'SHA-1': digest,
  'SHA-256': digest,
  'SHA-384': digest,
  'SHA-512': digest,
  'RSASSA-PKCS1-v1_5': rsaSignature,
  'RSA-PSS': { ...rsaSignature, sign: rsaPss, verify: rsaPss },
  'RSA-OAEP': { encrypt: oaep, decrypt: oaep, generateKey: rsaGenerate, importKey: [hash], exportKey: none },
  ECDSA: { sign: [hash], verify: [hash], ...ecKeys },
  ECDH: { deriveBits: publicKey, ...ecKeys },
  Ed25519: { sign: none, verify: none, ...okpKeys },
  X25519: { deriveBits: publicKey, ...okpKeys },
  'AES-CTR': { encrypt: aesCtr, decrypt: aesCtr, ...aes },
  'AES-CBC': { encrypt: aesCbc, decrypt: aesCbc, ...aes },
  'AES-GCM': { encrypt: aesGcm, decrypt: aesGcm, ...aes },
  'AES-KW': { wrapKey: none, unwrapKey: none, ...aes },
  HMAC: { sign: none, verify: none, generateKey: hmac, importKey: hmac, exportKey: none, getKeyLength: hmac },
  HKDF: { deriveBits: hkdf, importKey: none, getKeyLength: none },
  PBKDF2: { deriveBits: pbkdf2, importKey: none, getKeyLength: none },
};

/** Canonical names by their upper-case form, which ASCII names are compared by. */
const canonicalNames = new SafeMap();
const operationsOf = new SafeMap();
for (const name in algorithms) {
  canonicalNames.set(StringPrototypeToUpperCase(name), name);
  operationsOf.set(name, new SafeMap(new SafeArrayIterator(ObjectEntries(algorithms[name]))));
}

const notAscii = /[^\x00-\x7f]/;

/** The parameters that an operation of an algorithm takes; undefined if there is no such operation. */
function parametersOf(operation, name) {
  return operationsOf.get(name)?.get(operation);
}

function readMember(value, member, prefix) {
  const given = value[member.key];
  if (given !== undefined) return member.converter(given, prefix, `'${member.key}'`);
  if (member.required) throw new TypeError(`${prefix}: required member '${member.key}' is missing`);
  return undefined;
}

function readName(value, prefix) {
  return readMember(value, nameMember, prefix);
}

const nameMember = required('name', converters.DOMString);

/**
 * Normalises an algorithm for an operation: `{ name, ... }` with converted members; buffers are
 * copies, hashes are names. Throws what the standard says.
 */
function normalize(value, operation, prefix) {
  const isNamed = typeof value === 'string';
  const givenName = isNamed ? value : readName(value, prefix);
  const name = RegExpPrototypeExec(notAscii, givenName) === null
    ? canonicalNames.get(StringPrototypeToUpperCase(givenName))
    : undefined;
  const members = name === undefined ? undefined : parametersOf(operation, name);
  if (members === undefined) throw notSupported(`${prefix}: the algorithm '${givenName}' is not supported for this operation`);
  const source = isNamed ? { __proto__: null } : value;
  if (!isNamed) readName(value, prefix);
  const result = { __proto__: null, name };
  for (let i = 0; i < members.length; i++) result[members[i].key] = readMember(source, members[i], prefix);
  for (let i = 0; i < members.length; i++) {
    const { key, kind } = members[i];
    if (result[key] === undefined) continue;
    if (kind === kCopied) result[key] = ops.crypto_copy(result[key]);
    else if (kind === kHash) result[key] = normalize(result[key], 'digest', prefix).name;
  }
  return result;
}

internals.cryptoAlgorithms = {
  usageNames,
  includes,
  usageIntersection,
  normalize,
  parametersOf,
  identifier,
  bufferSource,
  cryptoKey,
  notSupported,
};
