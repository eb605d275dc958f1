// Keys: generated, exported and imported in every format, wrapped and unwrapped, cloned; what a
// CryptoKey shows. https://w3c.github.io/webcrypto/#cryptokey-interface

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

const { subtle } = crypto;
const text = (string) => new TextEncoder().encode(string);
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, '0')).join('');
const data = text('some data');
const exponent = new Uint8Array([1, 0, 1]);
const rsa = { modulusLength: 1024, publicExponent: exponent };

const pairs = [
  { algorithm: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', ...rsa }, usages: ['sign', 'verify'], alg: 'RS256' },
  { algorithm: { name: 'RSA-PSS', hash: 'SHA-384', saltLength: 20, ...rsa }, usages: ['sign', 'verify'], alg: 'PS384' },
  { algorithm: { name: 'RSA-OAEP', hash: 'SHA-1', label: text('label'), ...rsa }, usages: ['encrypt', 'decrypt'], alg: 'RSA-OAEP' },
  { algorithm: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }, usages: ['sign', 'verify'], raw: 65 },
  { algorithm: { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-1' }, usages: ['sign', 'verify'], raw: 97 },
  { algorithm: { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' }, usages: ['sign', 'verify'], raw: 133 },
  { algorithm: { name: 'ECDH', namedCurve: 'P-256' }, usages: ['deriveBits'], raw: 65 },
  { algorithm: { name: 'ECDH', namedCurve: 'P-384' }, usages: ['deriveBits'], raw: 97 },
  { algorithm: { name: 'ECDH', namedCurve: 'P-521' }, usages: ['deriveBits'], raw: 133 },
  { algorithm: { name: 'Ed25519' }, usages: ['sign', 'verify'], raw: 32, alg: 'Ed25519' },
  { algorithm: { name: 'X25519' }, usages: ['deriveBits'], raw: 32 },
];

/** Uses the two halves of a pair against each other. */
async function fits(algorithm, privateKey, publicKey) {
  if (algorithm.name === 'RSA-OAEP') {
    return hex(await subtle.decrypt(algorithm, privateKey, await subtle.encrypt(algorithm, publicKey, data))) === hex(data);
  }
  if (privateKey.usages.includes('sign')) {
    return subtle.verify(algorithm, publicKey, await subtle.sign(algorithm, privateKey, data), data);
  }
  const other = await subtle.generateKey(algorithm, false, ['deriveBits']);
  const one = await subtle.deriveBits({ name: algorithm.name, public: other.publicKey }, privateKey, null);
  return hex(one) === hex(await subtle.deriveBits({ name: algorithm.name, public: publicKey }, other.privateKey, null));
}

for (const { algorithm, usages, raw, alg } of pairs) {
  const title = `${algorithm.name} ${algorithm.namedCurve ?? algorithm.hash ?? ''}`;
  const publicUsages = usages.filter((usage) => usage === 'verify' || usage === 'encrypt');
  const privateUsages = usages.filter((usage) => !publicUsages.includes(usage));
  fact(`${title}: a pair goes through every format`, async () => {
    const { privateKey, publicKey } = await subtle.generateKey(algorithm, true, usages);
    alike([privateKey.type, publicKey.type], ['private', 'public']);
    alike([privateKey.usages, publicKey.usages], [privateUsages, publicUsages]);
    holds(await fits(algorithm, privateKey, publicKey), 'the generated pair fits');
    for (const format of ['spki', 'jwk', ...(raw === undefined ? [] : ['raw'])]) {
      const exported = await subtle.exportKey(format, publicKey);
      if (format === 'raw') same(exported.byteLength, raw);
      const key = await subtle.importKey(format, exported, algorithm, true, publicUsages);
      alike(key.algorithm, publicKey.algorithm);
      holds(await fits(algorithm, privateKey, key), format);
      const again = await subtle.exportKey(format, key);
      if (format === 'jwk') alike(again, exported);
      else same(hex(again), hex(exported));
    }
    for (const format of ['pkcs8', 'jwk']) {
      const exported = await subtle.exportKey(format, privateKey);
      const key = await subtle.importKey(format, exported, algorithm, true, privateUsages);
      alike(key.algorithm, privateKey.algorithm);
      holds(await fits(algorithm, key, publicKey), format);
      const again = await subtle.exportKey(format, key);
      if (format === 'jwk') alike(again, exported);
      else same(hex(again), hex(exported));
    }
    same((await subtle.exportKey('jwk', privateKey)).alg, alg);
    for (const format of ['pkcs8']) await rejects('InvalidAccessError', subtle.exportKey(format, publicKey), format);
    for (const format of raw === undefined ? ['spki'] : ['spki', 'raw']) {
      await rejects('InvalidAccessError', subtle.exportKey(format, privateKey), format);
    }
  });
  fact(`${title}: cut and damaged keys are DataErrors`, async () => {
    const pair = await subtle.generateKey(algorithm, true, usages);
    for (const [format, key, wanted] of [['spki', pair.publicKey, publicUsages], ['pkcs8', pair.privateKey, privateUsages]]) {
      const exported = new Uint8Array(await subtle.exportKey(format, key));
      for (const length of [0, 1, 2, 20, exported.length >> 1, exported.length - 1]) {
        await rejects('DataError', subtle.importKey(format, exported.subarray(0, length), algorithm, true, wanted), `${format}, ${length} bytes`);
      }
      const longer = new Uint8Array(exported.length + 1);
      longer.set(exported);
      await rejects('DataError', subtle.importKey(format, longer, algorithm, true, wanted), `${format} with a byte more`);
      const other = format === 'spki' ? 'pkcs8' : 'spki';
      await rejects('DataError', subtle.importKey(other, exported, algorithm, true, other === 'spki' ? publicUsages : privateUsages), other);
    }
    const jwk = await subtle.exportKey('jwk', pair.privateKey);
    for (const change of [
      { kty: 'oct' }, { kty: undefined }, { d: '!' }, { d: 'AA==' }, { ext: false }, { key_ops: [] }, { use: 'other' },
      { key_ops: [...privateUsages, ...privateUsages] }, jwk.crv === undefined ? { n: undefined } : { crv: 'P-512' },
      jwk.crv === undefined ? { dq: 'AQAB' } : { x: 'AQAB' }, jwk.crv === undefined ? { n: '' } : { x: undefined },
      jwk.crv === undefined ? { qi: undefined } : { d: '' }, jwk.kty === 'EC' ? { y: jwk.x } : { kty: 'EC' },
    ]) {
      await rejects('DataError', subtle.importKey('jwk', { ...jwk, ...change }, algorithm, true, privateUsages), JSON.stringify(change));
    }
  });
  fact(`${title}: a private key is not used as a public one, nor the other way`, async () => {
    const { privateKey, publicKey } = await subtle.generateKey(algorithm, false, usages);
    await rejects('InvalidAccessError', subtle.exportKey('jwk', privateKey), 'not extractable');
    holds(publicKey.extractable && !privateKey.extractable);
    if (privateUsages[0] === 'deriveBits') {
      await rejects('InvalidAccessError', subtle.deriveBits({ name: algorithm.name, public: privateKey }, privateKey, 8));
    } else {
      await rejects('InvalidAccessError', subtle[privateUsages[0]](algorithm, publicKey, data));
    }
  });
}

fact('a private JWK of RSA may come without the primes, and not with some of them', async () => {
  const algorithm = pairs[0].algorithm;
  const { privateKey, publicKey } = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const { p, q, dp, dq, qi, ...jwk } = await subtle.exportKey('jwk', privateKey);
  const key = await subtle.importKey('jwk', jwk, algorithm, true, ['sign']);
  holds(await fits(algorithm, key, publicKey));
  await rejects('DataError', subtle.importKey('jwk', { ...jwk, p, q }, algorithm, true, ['sign']));
  await rejects('DataError', subtle.importKey('jwk', { ...jwk, p: q, q: p, dp, dq, qi }, algorithm, true, ['sign']), 'another order');
  await rejects('NotSupportedError', subtle.importKey('jwk', { ...jwk, oth: [] }, algorithm, true, ['sign']), 'more primes');
  await rejects('DataError', subtle.importKey('jwk', { ...jwk, alg: 'PS256' }, algorithm, true, ['sign']), 'alg');
});
fact('keys of another curve or algorithm are DataErrors', async () => {
  const { publicKey, privateKey } = await subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
  const spki = await subtle.exportKey('spki', publicKey);
  const pkcs8 = await subtle.exportKey('pkcs8', privateKey);
  for (const namedCurve of ['P-384', 'P-521', 'nothing']) {
    await rejects('DataError', subtle.importKey('spki', spki, { name: 'ECDSA', namedCurve }, true, []));
    await rejects('DataError', subtle.importKey('pkcs8', pkcs8, { name: 'ECDH', namedCurve }, true, ['deriveBits']));
  }
  for (const algorithm of ['Ed25519', 'X25519', { name: 'RSA-PSS', hash: 'SHA-1' }]) {
    await rejects('DataError', subtle.importKey('spki', spki, algorithm, true, []));
  }
  // Off the curve, at infinity, of the wrong length.
  const point = new Uint8Array(await subtle.exportKey('raw', publicKey));
  const off = point.slice();
  off[64] ^= 1;
  for (const raw of [off, new Uint8Array(1), new Uint8Array(65), point.subarray(1), point.subarray(0, 64)]) {
    await rejects('DataError', subtle.importKey('raw', raw, { name: 'ECDSA', namedCurve: 'P-256' }, true, ['verify']));
  }
  await rejects('NotSupportedError', subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-192' }, true, ['sign']));
});

fact('secret keys show their algorithm, and go through raw and jwk', async () => {
  for (const [algorithm, usages, shown, alg, bytes] of [
    [{ name: 'hmac', hash: { name: 'sha-1' } }, ['verify', 'sign'], { name: 'HMAC', hash: { name: 'SHA-1' }, length: 512 }, 'HS1', 64],
    [{ name: 'HMAC', hash: 'SHA-384' }, ['sign'], { name: 'HMAC', hash: { name: 'SHA-384' }, length: 1024 }, 'HS384', 128],
    [{ name: 'HMAC', hash: 'SHA-256', length: 13 }, ['sign'], { name: 'HMAC', hash: { name: 'SHA-256' }, length: 13 }, 'HS256', 2],
    [{ name: 'AES-CBC', length: 128 }, ['decrypt', 'encrypt'], { name: 'AES-CBC', length: 128 }, 'A128CBC', 16],
    [{ name: 'AES-CTR', length: 192 }, ['encrypt'], { name: 'AES-CTR', length: 192 }, 'A192CTR', 24],
    [{ name: 'aes-gcm', length: 256 }, ['unwrapKey', 'encrypt'], { name: 'AES-GCM', length: 256 }, 'A256GCM', 32],
    [{ name: 'AES-KW', length: 256 }, ['wrapKey'], { name: 'AES-KW', length: 256 }, 'A256KW', 32],
  ]) {
    const key = await subtle.generateKey(algorithm, true, usages);
    alike(key.algorithm, shown);
    same(key.type, 'secret');
    const raw = await subtle.exportKey('raw', key);
    same(raw.byteLength, bytes, alg);
    const jwk = await subtle.exportKey('jwk', key);
    alike([jwk.alg, jwk.kty, jwk.ext, jwk.key_ops], [alg, 'oct', true, key.usages]);
    alike(Object.keys(jwk), ['alg', 'ext', 'k', 'key_ops', 'kty']);
    for (const [format, exported] of [['raw', raw], ['jwk', jwk]]) {
      const back = await subtle.importKey(format, exported, algorithm, true, usages);
      alike([back.algorithm, back.usages], [key.algorithm, key.usages]);
      same(hex(await subtle.exportKey('raw', back)), hex(raw));
    }
    await rejects('NotSupportedError', subtle.exportKey('spki', key));
    await rejects('NotSupportedError', subtle.importKey('pkcs8', raw, algorithm, true, usages));
    for (const change of [{ alg: 'A1' }, { k: undefined }, { k: 'a' }, { k: '=' }, { kty: 'RSA' }, { use: 'x' }, { key_ops: ['x'] }, { ext: false }]) {
      await rejects('DataError', subtle.importKey('jwk', { ...jwk, ...change }, algorithm, true, usages), JSON.stringify(change));
    }
  }
});
fact('lengths of secret keys are checked', async () => {
  for (const length of [0, 64, 136, 512]) {
    await rejects('OperationError', subtle.generateKey({ name: 'AES-GCM', length }, true, ['encrypt']), `AES ${length}`);
    await rejects('DataError', subtle.importKey('raw', new Uint8Array(length / 8), 'AES-GCM', true, ['encrypt']), `AES ${length}`);
  }
  await rejects(TypeError, subtle.generateKey({ name: 'AES-GCM', length: 65536 }, true, ['encrypt']));
  await rejects('OperationError', subtle.generateKey({ name: 'HMAC', hash: 'SHA-1', length: 0 }, true, ['sign']));
  const hmac = (length, bytes) => subtle.importKey('raw', new Uint8Array(bytes).fill(255), { name: 'HMAC', hash: 'SHA-1', length }, true, ['sign']);
  await rejects('DataError', hmac(undefined, 0));
  await rejects('DataError', hmac(17, 2));
  await rejects('DataError', hmac(8, 2));
  const key = await hmac(9, 2);
  same(key.algorithm.length, 9);
  same(hex(await subtle.exportKey('raw', key)), 'ff80');
});
fact('what a key shows can be changed without effect', async () => {
  const key = await subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign']);
  same(key.algorithm, key.algorithm);
  same(key.usages, key.usages);
  key.algorithm.name = 'AES-GCM';
  key.algorithm.hash.name = 'SHA-1';
  key.usages.push('verify');
  same((await subtle.sign('HMAC', key, data)).byteLength, 32);
  await rejects('InvalidAccessError', subtle.verify('HMAC', key, data, data));
  alike(Object.keys((await subtle.generateKey(pairs[0].algorithm, true, ['sign'])).publicKey.algorithm), ['name', 'modulusLength', 'publicExponent', 'hash']);
});
fact('buffers are copied when the method is called', async () => {
  const material = new Uint8Array(16).fill(1);
  const imported = subtle.importKey('raw', material, 'AES-CBC', true, ['encrypt']);
  material.fill(2);
  const key = await imported;
  same(hex(await subtle.exportKey('raw', key)), '01'.repeat(16));
  const exported = new Uint8Array(await subtle.exportKey('raw', key));
  exported.fill(3);
  same(hex(await subtle.exportKey('raw', key)), '01'.repeat(16));
  const iv = new Uint8Array(16);
  const plain = new Uint8Array(4);
  const first = subtle.encrypt({ name: 'AES-CBC', iv }, key, plain);
  iv.fill(9);
  plain.fill(9);
  structuredClone(plain.buffer, { transfer: [plain.buffer] });
  const second = await subtle.encrypt({ name: 'AES-CBC', iv: new Uint8Array(16) }, key, new Uint8Array(4));
  same(hex(await first), hex(second));
});
fact('a key is cloned with everything it has', async () => {
  const key = await subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['encrypt', 'decrypt']);
  const { clone } = structuredClone({ clone: key });
  holds(clone !== key && clone instanceof CryptoKey);
  alike([clone.type, clone.extractable, clone.algorithm, clone.usages], [key.type, key.extractable, key.algorithm, key.usages]);
  same(hex(await subtle.exportKey('raw', clone)), hex(await subtle.exportKey('raw', key)));
});

const wrapped = await subtle.generateKey({ name: 'HMAC', hash: 'SHA-256', length: 256 }, true, ['sign']);
const wrappers = [
  [{ name: 'AES-KW', length: 128 }, 'AES-KW'],
  [{ name: 'AES-CBC', length: 256 }, { name: 'AES-CBC', iv: new Uint8Array(16) }],
  [{ name: 'AES-CTR', length: 192 }, { name: 'AES-CTR', counter: new Uint8Array(16), length: 32 }],
  [{ name: 'AES-GCM', length: 256 }, { name: 'AES-GCM', iv: new Uint8Array(12) }],
  [{ name: 'RSA-OAEP', hash: 'SHA-256', ...rsa, modulusLength: 2048 }, { name: 'RSA-OAEP' }],
];
for (const [generate, parameters] of wrappers) {
  fact(`keys are wrapped and unwrapped with ${generate.name}`, async () => {
    const made = await subtle.generateKey(generate, true, ['wrapKey', 'unwrapKey']);
    const [wrapping, unwrapping] = made instanceof CryptoKey ? [made, made] : [made.publicKey, made.privateKey];
    for (const format of ['raw', 'jwk']) {
      const bytes = await subtle.wrapKey(format, wrapped, wrapping, parameters);
      const hmac = { name: 'HMAC', hash: 'SHA-256' };
      const back = await subtle.unwrapKey(format, bytes, unwrapping, parameters, hmac, true, ['sign']);
      same(hex(await subtle.exportKey('raw', back)), hex(await subtle.exportKey('raw', wrapped)), format);
      const broken = new Uint8Array(bytes.slice(0));
      broken[0] ^= 1;
      // Without a check of its own, a damaged JWK is damaged JSON.
      const error = format === 'jwk' && ['AES-CBC', 'AES-CTR'].includes(generate.name) ? 'DataError' : 'OperationError';
      if (format === 'jwk' || !['AES-CBC', 'AES-CTR'].includes(generate.name)) {
        await rejects(error, subtle.unwrapKey(format, broken, unwrapping, parameters, hmac, true, ['sign']), format);
      }
      await rejects('SyntaxError', subtle.unwrapKey(format, bytes, unwrapping, parameters, hmac, true, []), 'no usage');
    }
    const closed = await subtle.importKey('raw', new Uint8Array(16), 'AES-CBC', false, ['encrypt']);
    await rejects('InvalidAccessError', subtle.wrapKey('raw', closed, wrapping, parameters), 'not extractable');
    const password = await subtle.importKey('raw', new Uint8Array(16), 'PBKDF2', false, ['deriveBits']);
    await rejects('NotSupportedError', subtle.wrapKey('raw', password, wrapping, parameters), 'no export');
  });
}
fact('what is unwrapped as a JWK must be one', async () => {
  const key = await subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['encrypt', 'wrapKey', 'unwrapKey']);
  const parameters = { name: 'AES-GCM', iv: new Uint8Array(12) };
  for (const json of ['', '{', '[]', 'null', '1', '{}', '{"kty":1}', '{"kty":"oct"}', '{"kty":"oct","k":"AA","key_ops":1}', '{"k":"AA"}', '\xff']) {
    const bytes = await subtle.encrypt(parameters, key, text(json));
    await rejects('DataError', subtle.unwrapKey('jwk', bytes, key, parameters, { name: 'HMAC', hash: 'SHA-1' }, true, ['sign']), json);
  }
});
fact('a script cannot look into wrapping or construct keys', async () => {
  const key = await subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['wrapKey', 'unwrapKey']);
  const seen = [];
  Object.prototype.toJSON = Array.prototype.toJSON = String.prototype.toJSON = function () {
    seen.push(this);
    return this;
  };
  Object.defineProperty(Object.prototype, 'd', { configurable: true, get: () => 'seen', set: (value) => seen.push(value) });
  try {
    const bytes = await subtle.wrapKey('jwk', wrapped, key, { name: 'AES-GCM', iv: new Uint8Array(12) });
    const back = await subtle.unwrapKey('jwk', bytes, key, { name: 'AES-GCM', iv: new Uint8Array(12) }, { name: 'HMAC', hash: 'SHA-256' }, true, ['sign']);
    same(back.algorithm.length, 256);
  } finally {
    delete Object.prototype.d;
    for (const { prototype } of [Object, Array, String]) delete prototype.toJSON;
  }
  same(seen.length, 0);
  throws(TypeError, () => new CryptoKey());
  throws(TypeError, () => Object.getOwnPropertyDescriptor(CryptoKey.prototype, 'type').get.call({}));
});
end();
