//! What RSASSA-PKCS1-v1_5, RSA-PSS and RSA-OAEP do. A key's bytes are the DER of PKCS #1.
//! https://w3c.github.io/webcrypto/#rsassa-pkcs1

const { ArrayPrototypeMap, ArrayPrototypePush, MathClz32, SafeArrayIterator, Uint8Array } = primordials;
const { DOMException } = internals;
const { makeKey } = internals.cryptoKeys;
const { notSupported, usageIntersection } = internals.cryptoAlgorithms;
const { checkJwk, jwkBytes, dataError } = internals.cryptoJwk;
const { checkUsages, successful } = internals.cryptoSupport;

const hashes = ['SHA-1', 'SHA-256', 'SHA-384', 'SHA-512'];

/** `alg` of a JWK by hash. */
function algNames(first, prefix, suffixes) {
  const names = { __proto__: null };
  for (let i = 0; i < hashes.length; i++) names[hashes[i]] = i === 0 ? first : `${prefix}${suffixes[i - 1]}`;
  return names;
}

const bitsOfHashes = ['256', '384', '512'];
const noBytes = new Uint8Array(0);

function bitLength(bytes) {
  return bytes.length * 8 - (MathClz32(bytes[0]) - 24);
}

function requireType(key, type) {
  if (key.type !== type) throw new DOMException(`The key is not ${type}`, 'InvalidAccessError');
}

/** A new list of both lists' elements. */
function concatenated(first, second) {
  const result = [];
  for (let i = 0; i < first.length; i++) ArrayPrototypePush(result, first[i]);
  for (let i = 0; i < second.length; i++) ArrayPrototypePush(result, second[i]);
  return result;
}

/** A CryptoKey from what an import gave: `[DER, modulus, exponent]`. */
function keyFrom(imported, type, { name, hash }, extractable, usages) {
  if (imported === undefined) throw dataError('The data hold no RSA key of the kind');
  const algorithm = { name, modulusLength: bitLength(imported[1]), publicExponent: imported[2], hash };
  return makeKey(type, extractable, algorithm, usages, imported[0]);
}

const crtMembers = ['p', 'q', 'dp', 'dq', 'qi'];

/** Members of a private JWK; what can be left out is undefined. */
function privateParts(jwk) {
  if (jwk.oth !== undefined) throw notSupported('RSA keys of more than two primes are not supported');
  let given = 0;
  for (let i = 0; i < crtMembers.length; i++) if (jwk[crtMembers[i]] !== undefined) given++;
  if (given === 0) return [];
  return ArrayPrototypeMap(crtMembers, (member) => jwkBytes(jwk, member));
}

/** Operations on keys; usages of public and private keys differ between the schemes. */
function rsaKeys(algs, use, publicUsages, privateUsages) {
  const pairUsages = concatenated(publicUsages, privateUsages);

  function importJwk(algorithm, jwk, extractable, usages) {
    const isPrivate = jwk.d !== undefined;
    checkUsages(usages, isPrivate ? privateUsages : publicUsages);
    checkJwk(jwk, 'RSA', use, extractable, usages);
    if (jwk.alg !== undefined && jwk.alg !== algs[algorithm.hash]) {
      throw dataError(`'alg' of the JSON Web Key is not '${algs[algorithm.hash]}'`);
    }
    const n = jwkBytes(jwk, 'n');
    const e = jwkBytes(jwk, 'e');
    if (!isPrivate) return keyFrom(ops.crypto_rsa_import_parts(n, e), 'public', algorithm, extractable, usages);
    const d = jwkBytes(jwk, 'd');
    const [p, q, dp, dq, qi] = new SafeArrayIterator(privateParts(jwk));
    return keyFrom(ops.crypto_rsa_import_parts(n, e, d, p, q, dp, dq, qi), 'private', algorithm, extractable, usages);
  }

  function exportJwk(key) {
    const parts = ArrayPrototypeMap(ops.crypto_rsa_parts(key.type === 'private', key.data), (part) => ops.crypto_base64url(part));
    return {
      alg: algs[key.algorithm.hash],
      ext: key.extractable,
      key_ops: key.usages,
      kty: 'RSA',
      n: parts[0],
      e: parts[1],
      d: parts[2],
      p: parts[3],
      q: parts[4],
      dp: parts[5],
      dq: parts[6],
      qi: parts[7],
    };
  }

  return {
    generateKey({ name, modulusLength, publicExponent, hash }, extractable, usages) {
      checkUsages(usages, pairUsages);
      const keys = ops.crypto_rsa_generate(modulusLength, publicExponent);
      successful(keys, 'A key of this length and public exponent cannot be generated');
      const algorithm = { name, modulusLength, publicExponent, hash };
      return {
        privateKey: makeKey('private', extractable, algorithm, usageIntersection(usages, privateUsages), keys[0]),
        publicKey: makeKey('public', true, algorithm, usageIntersection(usages, publicUsages), keys[1]),
      };
    },
    importKey(algorithm, format, data, extractable, usages) {
      if (format === 'jwk') return importJwk(algorithm, data, extractable, usages);
      if (format === 'raw') throw notSupported("RSA keys have no format 'raw'");
      const type = format === 'spki' ? 'public' : 'private';
      checkUsages(usages, type === 'public' ? publicUsages : privateUsages);
      return keyFrom(ops.crypto_rsa_import(format, data), type, algorithm, extractable, usages);
    },
    exportKey(format, key) {
      if (format === 'jwk') return exportJwk(key);
      if (format === 'raw') throw notSupported("RSA keys have no format 'raw'");
      requireType(key, format === 'spki' ? 'public' : 'private');
      return successful(ops.crypto_rsa_export(format === 'pkcs8', key.data));
    },
  };
}

const signatureFailed = 'The key is too short for the signature';

/** A signature scheme; `saltLength` is undefined for PKCS #1 v1.5. */
const signatures = {
  sign({ saltLength }, key, data) {
    requireType(key, 'private');
    return successful(ops.crypto_rsa_sign(key.algorithm.hash, saltLength, key.data, data), signatureFailed);
  },
  verify({ saltLength }, key, signature, data) {
    requireType(key, 'public');
    return ops.crypto_rsa_verify(key.algorithm.hash, saltLength, key.data, data, signature);
  },
};

const implementations = internals.cryptoImplementations;

implementations['RSASSA-PKCS1-v1_5'] = {
  ...rsaKeys(algNames('RS1', 'RS', bitsOfHashes), 'sig', ['verify'], ['sign']),
  ...signatures,
};
implementations['RSA-PSS'] = {
  ...rsaKeys(algNames('PS1', 'PS', bitsOfHashes), 'sig', ['verify'], ['sign']),
  ...signatures,
};
implementations['RSA-OAEP'] = {
  ...rsaKeys(algNames('RSA-OAEP', 'RSA-OAEP-', bitsOfHashes), 'enc', ['encrypt', 'wrapKey'], ['decrypt', 'unwrapKey']),
  encrypt({ label = noBytes }, key, data) {
    requireType(key, 'public');
    return successful(ops.crypto_rsa_oaep(true, key.algorithm.hash, label, key.data, data), 'The data are too long for the key');
  },
  decrypt({ label = noBytes }, key, data) {
    requireType(key, 'private');
    return successful(ops.crypto_rsa_oaep(false, key.algorithm.hash, label, key.data, data), 'The data could not be decrypted');
  },
};
internals.cryptoSupport.requireType = requireType;
internals.cryptoSupport.concatenated = concatenated;
