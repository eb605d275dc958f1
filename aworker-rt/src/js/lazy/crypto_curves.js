//! What ECDSA, ECDH, Ed25519 and X25519 do. A public key's bytes are a point, a private key's its
//! secret half followed by the point. https://w3c.github.io/webcrypto/#ecdsa

const { TypedArrayPrototypeSet, TypedArrayPrototypeSubarray, Uint8Array } = primordials;
const { DOMException } = internals;
const { makeKey } = internals.cryptoKeys;
const { notSupported, usageIntersection } = internals.cryptoAlgorithms;
const { checkJwk, jwkBytes, dataError } = internals.cryptoJwk;
const { checkUsages, successful, operationError, firstBits, requireType, concatenated } = internals.cryptoSupport;

/** Bytes of a coordinate. */
const fieldBytes = { __proto__: null, 'P-256': 32, 'P-384': 48, 'P-521': 66 };
const ecdsaAlgs = { __proto__: null, 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512' };

/** The curve of a key's algorithm. */
function curveOf({ name, namedCurve }) {
  return namedCurve ?? name;
}

function keyFrom(data, type, { name, namedCurve }, extractable, usages) {
  if (data === undefined) throw dataError('The data hold no key of the curve');
  return makeKey(type, extractable, { name, namedCurve }, usages, data);
}

/** The uncompressed point of coordinates, which have the full length. */
function joinPoint(x, y, length) {
  if (x.length !== length || y.length !== length) throw dataError('The coordinates of the JSON Web Key do not have the length of the curve');
  const point = new Uint8Array(1 + 2 * length);
  point[0] = 4;
  TypedArrayPrototypeSet(point, x, 1);
  TypedArrayPrototypeSet(point, y, 1 + length);
  return point;
}

/** How JWKs of a family of curves hold keys. */
const ec = {
  kty: 'EC',
  publicBytes: (curve, jwk) => joinPoint(jwkBytes(jwk, 'x'), jwkBytes(jwk, 'y'), fieldBytes[curve]),
  publicMembers(curve, point) {
    const length = fieldBytes[curve];
    return {
      x: ops.crypto_base64url(TypedArrayPrototypeSubarray(point, 1, 1 + length)),
      y: ops.crypto_base64url(TypedArrayPrototypeSubarray(point, 1 + length)),
    };
  },
};
const okp = {
  kty: 'OKP',
  publicBytes: (_, jwk) => jwkBytes(jwk, 'x'),
  publicMembers: (_, point) => ({ x: ops.crypto_base64url(point), y: undefined }),
};

/**
 * Operations on keys. `scheme` is `{ use, publicUsages, privateUsages, algOf, acceptsAlg, family }`;
 * `algOf(curve)` is what a JWK is exported with.
 */
function curveKeys({ use, publicUsages, privateUsages, algOf, acceptsAlg, family }) {
  const pairUsages = concatenated(publicUsages, privateUsages);

  function importJwk(algorithm, jwk, extractable, usages) {
    const curve = curveOf(algorithm);
    const isPrivate = jwk.d !== undefined;
    checkUsages(usages, isPrivate ? privateUsages : publicUsages);
    checkJwk(jwk, family.kty, use, extractable, usages);
    if (jwk.crv !== curve) throw dataError(`'crv' of the JSON Web Key is not '${curve}'`);
    if (jwk.alg !== undefined && !acceptsAlg(curve, jwk.alg)) throw dataError(`'alg' of the JSON Web Key cannot be '${jwk.alg}'`);
    if (family === ec && fieldBytes[curve] === undefined) throw dataError(`'${curve}' is no curve`);
    const point = ops.crypto_curve_import(curve, 'raw', family.publicBytes(curve, jwk));
    if (!isPrivate) return keyFrom(point, 'public', algorithm, extractable, usages);
    const key = keyFrom(ops.crypto_curve_import(curve, 'scalar', jwkBytes(jwk, 'd')), 'private', algorithm, extractable, usages);
    const { data } = internals.cryptoKeys.slotsOf(key);
    if (point === undefined || !ops.crypto_equal(ops.crypto_curve_export(curve, 'raw', data), point)) {
      throw dataError('The private and the public key of the JSON Web Key do not belong together');
    }
    return key;
  }

  function exportJwk(key) {
    const curve = curveOf(key.algorithm);
    const isPrivate = key.type === 'private';
    const point = isPrivate ? ops.crypto_curve_export(curve, 'raw', key.data) : key.data;
    const { x, y } = family.publicMembers(curve, point);
    const d = isPrivate ? ops.crypto_base64url(ops.crypto_curve_export(curve, 'scalar', key.data)) : undefined;
    return { alg: algOf(curve), crv: curve, d, ext: key.extractable, key_ops: key.usages, kty: family.kty, x, y };
  }

  return {
    generateKey({ name, namedCurve }, extractable, usages) {
      checkUsages(usages, pairUsages);
      if (family === ec && fieldBytes[namedCurve] === undefined) throw notSupported(`The curve '${namedCurve}' is not supported`);
      const algorithm = { name, namedCurve };
      const curve = curveOf(algorithm);
      const data = successful(ops.crypto_curve_generate(curve));
      const point = ops.crypto_curve_export(curve, 'raw', data);
      return {
        privateKey: makeKey('private', extractable, algorithm, usageIntersection(usages, privateUsages), data),
        publicKey: makeKey('public', true, algorithm, usageIntersection(usages, publicUsages), point),
      };
    },
    importKey(algorithm, format, data, extractable, usages) {
      if (format === 'jwk') return importJwk(algorithm, data, extractable, usages);
      const type = format === 'pkcs8' ? 'private' : 'public';
      const curve = curveOf(algorithm);
      checkUsages(usages, type === 'public' ? publicUsages : privateUsages);
      if (family === ec && fieldBytes[curve] === undefined) throw dataError(`'${curve}' is no curve`);
      return keyFrom(ops.crypto_curve_import(curve, format, data), type, algorithm, extractable, usages);
    },
    exportKey(format, key) {
      if (format === 'jwk') return exportJwk(key);
      requireType(key, format === 'pkcs8' ? 'private' : 'public');
      if (format === 'raw') return key.data;
      return successful(ops.crypto_curve_export(curveOf(key.algorithm), format, key.data));
    },
  };
}

/** Signatures; Ed25519 has no hash. */
const signatures = {
  sign({ hash }, key, data) {
    requireType(key, 'private');
    return successful(ops.crypto_curve_sign(curveOf(key.algorithm), hash, key.data, data));
  },
  verify({ hash }, key, signature, data) {
    requireType(key, 'public');
    return ops.crypto_curve_verify(curveOf(key.algorithm), hash, key.data, data, signature);
  },
};

const agreement = {
  deriveBits(parameters, key, bits) {
    requireType(key, 'private');
    const other = internals.cryptoKeys.slotsOf(parameters.public);
    requireType(other, 'public');
    const { algorithm } = other;
    if (algorithm.name !== key.algorithm.name || algorithm.namedCurve !== key.algorithm.namedCurve) {
      throw new DOMException('The keys are of different algorithms or curves', 'InvalidAccessError');
    }
    const secret = ops.crypto_curve_derive(curveOf(algorithm), key.data, other.data);
    if (secret === undefined) throw operationError('The keys have no shared secret');
    return firstBits(secret, bits);
  },
};

const derivations = ['deriveKey', 'deriveBits'];
const implementations = internals.cryptoImplementations;

implementations.ECDSA = {
  ...curveKeys({
    use: 'sig',
    publicUsages: ['verify'],
    privateUsages: ['sign'],
    algOf: () => undefined,
    acceptsAlg: (curve, alg) => alg === ecdsaAlgs[curve],
    family: ec,
  }),
  ...signatures,
};
implementations.ECDH = {
  ...curveKeys({
    use: 'enc',
    publicUsages: [],
    privateUsages: derivations,
    algOf: () => undefined,
    acceptsAlg: () => true,
    family: ec,
  }),
  ...agreement,
};
implementations.Ed25519 = {
  ...curveKeys({
    use: 'sig',
    publicUsages: ['verify'],
    privateUsages: ['sign'],
    algOf: () => 'Ed25519',
    acceptsAlg: (_, alg) => alg === 'Ed25519' || alg === 'EdDSA',
    family: okp,
  }),
  ...signatures,
};
implementations.X25519 = {
  ...curveKeys({
    use: 'enc',
    publicUsages: [],
    privateUsages: derivations,
    algOf: () => undefined,
    acceptsAlg: () => true,
    family: okp,
  }),
  ...agreement,
};
