// Errors of crypto.subtle: what is rejected, with what, and which check comes first.
// https://w3c.github.io/webcrypto/#algorithm-normalization-normalize-an-algorithm

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

const { subtle } = crypto;
const data = new Uint8Array(16);
const hmac = await subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, true, ['sign', 'verify']);
const aes = await subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['encrypt', 'decrypt']);
const gcm = { name: 'AES-GCM', iv: new Uint8Array(12) };

const calls = {
  encrypt: [gcm, aes, data],
  decrypt: [gcm, aes, data],
  sign: ['HMAC', hmac, data],
  verify: ['HMAC', hmac, data, data],
  digest: ['SHA-1', data],
  generateKey: ['Ed25519', true, ['sign']],
  deriveKey: [{ name: 'X25519', public: hmac }, hmac, 'HKDF', true, []],
  deriveBits: [{ name: 'X25519', public: hmac }, hmac, 8],
  importKey: ['raw', data, 'AES-GCM', true, ['encrypt']],
  exportKey: ['raw', hmac],
  wrapKey: ['raw', hmac, aes, gcm],
  unwrapKey: ['raw', data, aes, gcm, 'AES-GCM', true, ['encrypt']],
};

for (const [method, values] of Object.entries(calls)) {
  fact(`${method} rejects, and never throws`, async () => {
    await rejects(TypeError, subtle[method].call({}, ...values), 'another receiver');
    for (let count = 0; count < subtle[method].length; count++) {
      await rejects(TypeError, subtle[method](...values.slice(0, count)), `${count} arguments`);
    }
    for (let i = 0; i < values.length; i++) {
      if (typeof values[i] === 'boolean') continue;
      const bad = values.slice();
      bad[i] = Symbol('no value of any type');
      await rejects(TypeError, subtle[method](...bad), `argument ${i + 1}`);
    }
  });
}

fact('a name is looked up without regard to case, and only there', async () => {
  for (const name of ['', 'SHA', 'SHA-256 ', 'SHA\u2010256', 'ſHA-256', 'AES-GCM', 'constructor', '__proto__']) {
    await rejects('NotSupportedError', subtle.digest(name, data), name);
    await rejects('NotSupportedError', subtle.digest({ name }, data), name);
  }
  await rejects('NotSupportedError', subtle.sign('AES-GCM', hmac, data));
  await rejects('NotSupportedError', subtle.importKey('raw', data, 'SHA-256', true, ['sign']));
  await rejects('NotSupportedError', subtle.generateKey('PBKDF2', false, ['deriveBits']));
  await rejects(TypeError, subtle.digest({}, data));
  await rejects(TypeError, subtle.digest({ name: Symbol() }, data));
  await rejects('NotSupportedError', subtle.digest({ name: undefined, toString: () => 'SHA-1' }.toString() + '!', data));
});
fact('members are read in the order of Web IDL, and once for each conversion', async () => {
  const read = [];
  const spy = (members) =>
    new Proxy(members, {
      get(target, key) {
        read.push(key);
        return target[key];
      },
    });
  await subtle.encrypt(spy({ ...gcm, tagLength: 128, additionalData: data }), aes, data);
  alike(read.splice(0), ['name', 'name', 'additionalData', 'iv', 'tagLength']);
  await subtle.generateKey(spy({ name: 'HMAC', hash: spy({ name: 'SHA-1' }), length: 8 }), true, ['sign']);
  alike(read.splice(0), ['name', 'name', 'hash', 'length', 'name', 'name']);
  const rsa = { name: 'RSA-PSS', modulusLength: 1, publicExponent: new Uint8Array([3]), hash: 'SHA-1' };
  await rejects('OperationError', subtle.generateKey(spy(rsa), true, ['sign']));
  alike(read.splice(0), ['name', 'name', 'modulusLength', 'publicExponent', 'hash']);
  await rejects('DataError', subtle.importKey('jwk', spy({ kty: 'oct' }), 'AES-GCM', true, ['encrypt']));
  alike(read.splice(0), ['alg', 'crv', 'd', 'dp', 'dq', 'e', 'ext', 'k', 'key_ops', 'kty', 'n', 'oth', 'p', 'q', 'qi', 'use', 'x', 'y']);
});
fact('members are required and converted', async () => {
  for (const parameters of [
    { name: 'AES-GCM' }, { name: 'AES-GCM', iv: 1 }, { name: 'AES-GCM', iv: 'x' }, { ...gcm, tagLength: -1 }, { ...gcm, tagLength: 256 },
    { ...gcm, tagLength: NaN }, { ...gcm, additionalData: [] }, { ...gcm, iv: new SharedArrayBuffer(12) }, { ...gcm, iv: new Uint8Array(new SharedArrayBuffer(12)) },
  ]) {
    await rejects(TypeError, subtle.encrypt(parameters, aes, data), JSON.stringify(parameters));
  }
  await rejects(TypeError, subtle.digest('SHA-1', new SharedArrayBuffer(8)));
  await rejects(TypeError, subtle.generateKey({ name: 'HMAC' }, true, ['sign']));
  await rejects('NotSupportedError', subtle.generateKey({ name: 'HMAC', hash: 'HMAC' }, true, ['sign']));
  await rejects(TypeError, subtle.generateKey({ name: 'RSA-PSS', hash: 'SHA-1', modulusLength: 1024, publicExponent: [1, 0, 1] }, true, ['sign']));
  await rejects(TypeError, subtle.generateKey({ name: 'RSA-PSS', hash: 'SHA-1', modulusLength: 1024, publicExponent: new Int8Array([3]) }, true, ['sign']));
  await rejects(TypeError, subtle.importKey('der', data, 'AES-GCM', true, ['encrypt']), 'format');
  await rejects(TypeError, subtle.importKey('raw', data, 'AES-GCM', true, ['encipher']), 'usage');
  await rejects(TypeError, subtle.importKey('raw', data, 'AES-GCM', true, 'encrypt'), 'usages');
  await rejects(TypeError, subtle.importKey('raw', {}, 'AES-GCM', true, ['encrypt']), 'JWK for raw');
  await rejects(TypeError, subtle.importKey('jwk', data, 'AES-GCM', true, ['encrypt']), 'bytes for jwk');
  await rejects(TypeError, subtle.importKey('jwk', 1, 'AES-GCM', true, ['encrypt']), 'a number');
  await rejects(TypeError, subtle.deriveBits({ name: 'X25519', public: {} }, hmac, 8), 'no key');
  await rejects('InvalidAccessError', subtle.deriveBits({ name: 'X25519', public: hmac }, hmac, 2 ** 32 + 8), 'a length that wraps');
});
fact('the algorithm comes before the key, the name before the usage, both before the parameters', async () => {
  const verifying = await subtle.importKey('raw', data, { name: 'HMAC', hash: 'SHA-1' }, true, ['verify']);
  await rejects('NotSupportedError', subtle.sign('nothing', aes, data));
  await rejects('InvalidAccessError', subtle.sign('HMAC', aes, data), 'another algorithm');
  await rejects('InvalidAccessError', subtle.sign('HMAC', verifying, data), 'another usage');
  await rejects('InvalidAccessError', subtle.encrypt({ name: 'AES-CBC', iv: new Uint8Array(1) }, aes, data), 'before the iv');
  await rejects('OperationError', subtle.encrypt({ ...gcm, tagLength: 1 }, aes, data));
  await rejects('InvalidAccessError', subtle.wrapKey('raw', hmac, aes, gcm), 'wrapping usage');
});
fact('usages that an algorithm has not are SyntaxErrors, before its parameters', async () => {
  const rsa = { modulusLength: 5, publicExponent: new Uint8Array(1), hash: 'SHA-1' };
  for (const [algorithm, usage] of [
    [{ name: 'HMAC', hash: 'SHA-1', length: 0 }, 'encrypt'], [{ name: 'AES-GCM', length: 1 }, 'sign'], [{ name: 'AES-KW', length: 1 }, 'encrypt'],
    [{ name: 'RSA-PSS', ...rsa }, 'encrypt'], [{ name: 'RSA-OAEP', ...rsa }, 'sign'], [{ name: 'ECDSA', namedCurve: 'x' }, 'deriveBits'],
    [{ name: 'ECDH', namedCurve: 'x' }, 'sign'], ['Ed25519', 'deriveKey'], ['X25519', 'sign'],
  ]) {
    await rejects('SyntaxError', subtle.generateKey(algorithm, true, [usage]), JSON.stringify(algorithm));
  }
  for (const [format, algorithm, usage] of [
    ['raw', 'AES-GCM', 'sign'], ['raw', { name: 'HMAC', hash: 'SHA-1' }, 'encrypt'], ['spki', { name: 'RSA-PSS', hash: 'SHA-1' }, 'sign'],
    ['pkcs8', { name: 'RSA-PSS', hash: 'SHA-1' }, 'verify'], ['spki', { name: 'RSA-OAEP', hash: 'SHA-1' }, 'decrypt'], ['raw', 'Ed25519', 'sign'],
    ['pkcs8', 'Ed25519', 'verify'], ['raw', 'X25519', 'deriveBits'], ['raw', { name: 'ECDH', namedCurve: 'P-256' }, 'deriveBits'],
    ['spki', { name: 'ECDSA', namedCurve: 'P-256' }, 'sign'], ['raw', 'HKDF', 'sign'], ['raw', 'PBKDF2', 'encrypt'],
  ]) {
    await rejects('SyntaxError', subtle.importKey(format, data, algorithm, false, [usage]), `${format} ${JSON.stringify(algorithm)}`);
  }
});
fact('secret and private keys need a usage, after everything else', async () => {
  await rejects('SyntaxError', subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, []));
  await rejects('OperationError', subtle.generateKey({ name: 'AES-GCM', length: 1 }, true, []));
  await rejects('SyntaxError', subtle.generateKey('Ed25519', true, ['verify']));
  await rejects('SyntaxError', subtle.generateKey('X25519', true, []));
  await rejects('SyntaxError', subtle.importKey('raw', data, 'AES-GCM', true, []));
  await rejects('DataError', subtle.importKey('raw', new Uint8Array(1), 'AES-GCM', true, []));
  await rejects('SyntaxError', subtle.importKey('raw', data, 'PBKDF2', false, []));
  same((await subtle.importKey('raw', new Uint8Array(32), 'Ed25519', true, [])).usages.length, 0);
  alike((await subtle.importKey('raw', data, 'AES-GCM', true, ['decrypt', 'encrypt', 'decrypt'])).usages, ['encrypt', 'decrypt']);
});
fact('passwords stay inside', async () => {
  for (const name of ['HKDF', 'PBKDF2']) {
    await rejects('SyntaxError', subtle.importKey('raw', data, name, true, ['deriveBits']), 'extractable');
    await rejects('NotSupportedError', subtle.importKey('jwk', {}, name, false, ['deriveBits']), 'jwk');
    const key = await subtle.importKey('raw', new Uint8Array(0), name, false, ['deriveBits']);
    await rejects('NotSupportedError', subtle.exportKey('raw', key));
    const parameters = { name, hash: 'SHA-256', salt: data, info: data, iterations: 1 };
    same((await subtle.deriveBits(parameters, key, 0)).byteLength, 0, 'no bits');
    await rejects('InvalidAccessError', subtle.deriveKey(parameters, key, { name: 'AES-GCM', length: 1 }, true, ['encrypt']), 'usage');
  }
});
fact('the length of a derived key is that of its algorithm', async () => {
  const key = await subtle.importKey('raw', data, 'PBKDF2', false, ['deriveKey']);
  const derive = (type, usages = ['sign', 'encrypt'].slice(0, 1)) =>
    subtle.deriveKey({ name: 'PBKDF2', hash: 'SHA-1', salt: data, iterations: 1 }, key, type, true, usages);
  same((await derive({ name: 'HMAC', hash: 'SHA-512' })).algorithm.length, 1024);
  same((await derive({ name: 'HMAC', hash: 'SHA-512', length: 40 })).algorithm.length, 40);
  await rejects(TypeError, derive({ name: 'HMAC', hash: 'SHA-512', length: 0 }));
  await rejects('OperationError', derive({ name: 'AES-GCM', length: 5 }, ['encrypt']));
  await rejects('NotSupportedError', derive('Ed25519'));
  await rejects('SyntaxError', derive({ name: 'AES-GCM', length: 128 }, []));
  await rejects('OperationError', derive('HKDF', ['deriveBits']), 'a password has no length');
});
fact('signatures that a key is too short for are OperationErrors, or do not hold', async () => {
  const rsa = { name: 'RSA-PSS', hash: 'SHA-512', modulusLength: 1024, publicExponent: new Uint8Array([3]) };
  const { privateKey, publicKey } = await subtle.generateKey(rsa, true, ['sign', 'verify']);
  for (const saltLength of [63, 4096, 2 ** 32 - 1]) {
    await rejects('OperationError', subtle.sign({ name: 'RSA-PSS', saltLength }, privateKey, data), `${saltLength}`);
    same(await subtle.verify({ name: 'RSA-PSS', saltLength }, publicKey, new Uint8Array(128), data), false);
  }
  await rejects(TypeError, subtle.sign({ name: 'RSA-PSS', saltLength: 2 ** 32 }, privateKey, data));
  const signature = await subtle.sign({ name: 'RSA-PSS', saltLength: 62 }, privateKey, data);
  same(await subtle.verify({ name: 'RSA-PSS', saltLength: 62 }, publicKey, signature, data), true);
  same(await subtle.verify({ name: 'RSA-PSS', saltLength: 61 }, publicKey, signature, data), false);
  const oaep = await subtle.generateKey({ ...rsa, name: 'RSA-OAEP', hash: 'SHA-256' }, true, ['encrypt', 'decrypt']);
  await rejects('OperationError', subtle.encrypt('RSA-OAEP', oaep.publicKey, new Uint8Array(63)), 'too long');
  const sealed = await subtle.encrypt('RSA-OAEP', oaep.publicKey, new Uint8Array(62));
  await rejects('OperationError', subtle.decrypt({ name: 'RSA-OAEP', label: data }, oaep.privateKey, sealed), 'another label');
  await rejects('OperationError', subtle.decrypt('RSA-OAEP', oaep.privateKey, sealed.slice(1)), 'cut');
  for (const [modulusLength, publicExponent] of [[0, [3]], [1000, [3]], [1023, [3]], [1024, []], [1024, [1]], [1024, [1, 0]], [100000, [1, 0, 1]]]) {
    const change = { modulusLength, publicExponent: new Uint8Array(publicExponent) };
    await rejects('OperationError', subtle.generateKey({ ...rsa, ...change }, true, ['sign']), `${modulusLength} ${publicExponent}`);
  }
});
fact('methods return promises that settle in tasks of their own, in order', async () => {
  const order = [];
  const first = subtle.digest('SHA-1', data).then(() => order.push('first'));
  const second = subtle.digest('SHA-1', data).then(() => order.push('second'));
  for (let i = 0; i < 50; i++) await undefined;
  order.push('microtasks');
  await Promise.all([first, second]);
  alike(order, ['microtasks', 'first', 'second']);
  // A loop of operations leaves room for timers.
  let fired = false;
  setTimeout(() => { fired = true; }, 1);
  while (!fired) await subtle.digest('SHA-1', data);
  holds(first instanceof Promise);
});
fact('crypto.subtle is one object, made by nobody else', () => {
  same(crypto.subtle, crypto.subtle);
  throws(TypeError, () => new SubtleCrypto());
  throws(TypeError, () => Object.getOwnPropertyDescriptor(Crypto.prototype, 'subtle').get.call({}));
});
end();
