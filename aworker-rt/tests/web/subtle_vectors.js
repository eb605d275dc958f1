// Known answers for every algorithm of crypto.subtle, from the RFCs and NIST's publications named
// beside them; each also the other way, and with a wrong tag, signature or key.

import { fact, end, same, holds, rejects } from './facts.js';

const { subtle } = crypto;
const text = (string) => new TextEncoder().encode(string);
const bytes = (hex) => new Uint8Array((hex.match(/../g) ?? []).map((pair) => parseInt(pair, 16)));
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, '0')).join('');
const raw = (key, algorithm, ...usages) => subtle.importKey('raw', typeof key === 'string' ? bytes(key) : key, algorithm, true, usages);
const base64url = (string) => btoa(String.fromCharCode(...bytes(string))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '');
const flipped = (buffer) => {
  const copy = new Uint8Array(buffer.slice(0));
  copy[copy.length - 1] ^= 1;
  return copy;
};

// FIPS 180-4, examples "abc" and the empty message.
for (const [name, ofAbc, ofNothing] of [
  ['SHA-1', 'a9993e364706816aba3e25717850c26c9cd0d89d', 'da39a3ee5e6b4b0d3255bfef95601890afd80709'],
  ['SHA-256', 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'],
  [
    'SHA-384',
    'cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7',
    '38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b',
  ],
  [
    'SHA-512',
    'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f',
    'cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e',
  ],
]) {
  fact(`${name} of "abc" and of nothing`, async () => {
    same(hex(await subtle.digest(name, text('abc'))), ofAbc);
    same(hex(await subtle.digest({ name: name.toLowerCase() }, new ArrayBuffer(0))), ofNothing);
  });
}

// RFC 4231, test case 2; RFC 2202, test case 2.
for (const [hash, code] of [
  ['SHA-1', 'effcdf6ae5eb2fa2d27416d5f184df9c259a7c79'],
  ['SHA-256', '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'],
  ['SHA-384', 'af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649'],
  ['SHA-512', '164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737'],
]) {
  fact(`HMAC with ${hash}`, async () => {
    const key = await raw(text('Jefe'), { name: 'HMAC', hash }, 'sign', 'verify');
    const data = text('what do ya want for nothing?');
    same(hex(await subtle.sign('HMAC', key, data)), code);
    same(await subtle.verify('HMAC', key, bytes(code), data), true);
    same(await subtle.verify('HMAC', key, flipped(bytes(code).buffer), data), false);
    same(await subtle.verify('HMAC', key, bytes(code).subarray(1), data), false);
  });
}

// NIST SP 800-38A, appendix F.2 and F.5; the last blocks of padding are not in it.
const plain = '6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51';
const aesKeys = {
  128: '2b7e151628aed2a6abf7158809cf4f3c',
  192: '8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b',
  256: '603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4',
};
for (const [length, sealed] of [
  [128, '7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2'],
  [192, '4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a'],
  [256, 'f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d'],
]) {
  fact(`AES-CBC with ${length} bits`, async () => {
    const key = await raw(aesKeys[length], 'AES-CBC', 'encrypt', 'decrypt');
    const parameters = { name: 'AES-CBC', iv: bytes('000102030405060708090a0b0c0d0e0f') };
    const output = await subtle.encrypt(parameters, key, bytes(plain));
    same(output.byteLength, 48);
    same(hex(output).slice(0, 64), sealed);
    same(hex(await subtle.decrypt(parameters, key, output)), plain);
    await rejects('OperationError', subtle.decrypt(parameters, key, output.slice(0, 16)), 'no padding');
    await rejects('OperationError', subtle.decrypt(parameters, key, output.slice(0, 40)), 'half a block');
    await rejects('OperationError', subtle.decrypt(parameters, key, new ArrayBuffer(0)), 'nothing');
    await rejects('OperationError', subtle.encrypt({ name: 'AES-CBC', iv: new Uint8Array(15) }, key, output), 'a short iv');
  });
}
for (const [length, sealed] of [
  [128, '874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff'],
  [192, '1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94'],
  [256, '601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5'],
]) {
  fact(`AES-CTR with ${length} bits`, async () => {
    const key = await raw(aesKeys[length], 'AES-CTR', 'encrypt', 'decrypt');
    for (const width of [1, 7, 64, 128]) {
      const parameters = { name: 'AES-CTR', counter: bytes('f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff'), length: width };
      const output = hex(await subtle.encrypt(parameters, key, bytes(plain)));
      same(output.slice(0, 32), sealed.slice(0, 32));
      // The block ends in ff: a narrow counter comes back to its beginning, a wide one carries on.
      same(output === sealed, width > 8, `${width} bits`);
      same(hex(await subtle.decrypt(parameters, key, bytes(output))), plain);
    }
    const counter = new Uint8Array(16);
    await rejects('OperationError', subtle.encrypt({ name: 'AES-CTR', counter, length: 0 }, key, counter));
    await rejects('OperationError', subtle.encrypt({ name: 'AES-CTR', counter, length: 129 }, key, counter));
    await rejects('OperationError', subtle.encrypt({ name: 'AES-CTR', counter, length: 2 }, key, new Uint8Array(65)));
    await rejects('OperationError', subtle.encrypt({ name: 'AES-CTR', counter: counter.subarray(1), length: 2 }, key, counter));
    await rejects(TypeError, subtle.encrypt({ name: 'AES-CTR', counter, length: 256 }, key, counter));
  });
}

// The GCM specification (McGrew and Viega), test cases 4, 5, 6 and 16.
const gcmPlain = 'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39';
const additionalData = bytes('feedfacedeadbeeffeedfacedeadbeefabaddad2');
const longIv =
  '9313225df88406e555909c5aff5269aa6a7a9538534f7da1e4c303d2a318a728c3c0c95156809539fcf0e2429a6b525416aedbf5a0de6a57a637b39b';
for (const [key, iv, sealed, tag] of [
  [
    'feffe9928665731c6d6a8f9467308308',
    'cafebabefacedbaddecaf888',
    '42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091',
    '5bc94fbc3221a5db94fae95ae7121a47',
  ],
  [
    'feffe9928665731c6d6a8f9467308308',
    'cafebabefacedbad',
    '61353b4c2806934a777ff51fa22a4755699b2a714fcdc6f83766e5f97b6c742373806900e49f24b22b097544d4896b424989b5e1ebac0f07c23f4598',
    '3612d2e79e3b0785561be14aaca2fccb',
  ],
  [
    'feffe9928665731c6d6a8f9467308308',
    longIv,
    '8ce24998625615b603a033aca13fb894be9112a5c3a211a8ba262a3cca7e2ca701e4a9a4fba43c90ccdcb281d48c7c6fd62875d2aca417034c34aee5',
    '619cc5aefffe0bfa462af43c1699d050',
  ],
  [
    'feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308',
    'cafebabefacedbaddecaf888',
    '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662',
    '76fc6ece0f4e1768cddf8853bb2d551b',
  ],
]) {
  fact(`AES-GCM with ${key.length * 4} bits and an iv of ${iv.length / 2} bytes`, async () => {
    const imported = await raw(key, 'AES-GCM', 'encrypt', 'decrypt');
    for (const tagLength of [undefined, 32, 64, 96, 104, 112, 120, 128]) {
      const parameters = { name: 'AES-GCM', iv: bytes(iv), additionalData, tagLength };
      const output = await subtle.encrypt(parameters, imported, bytes(gcmPlain));
      same(hex(output), sealed + tag.slice(0, (tagLength ?? 128) / 4), `${tagLength} bits`);
      same(hex(await subtle.decrypt(parameters, imported, output)), gcmPlain);
      await rejects('OperationError', subtle.decrypt(parameters, imported, flipped(output)), 'a wrong tag');
      await rejects('OperationError', subtle.decrypt({ name: 'AES-GCM', iv: bytes(iv), tagLength }, imported, output), 'other data');
      await rejects('OperationError', subtle.decrypt(parameters, imported, output.slice(0, 3)), 'less than a tag');
    }
    for (const tagLength of [0, 8, 33, 127, 129, 255]) {
      await rejects('OperationError', subtle.encrypt({ name: 'AES-GCM', iv: bytes(iv), tagLength }, imported, additionalData), `${tagLength} bits`);
    }
  });
}

// RFC 3394, sections 4.1 to 4.6.
const kek = '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f';
for (const [kekBits, dataBits, wrapped] of [
  [128, 128, '1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5'],
  [192, 128, '96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d'],
  [256, 128, '64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7'],
  [256, 192, 'a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1'],
  [256, 256, '28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21'],
]) {
  fact(`AES-KW of ${dataBits} bits with ${kekBits} bits`, async () => {
    const wrapping = await raw(kek.slice(0, kekBits / 4), 'AES-KW', 'wrapKey', 'unwrapKey');
    const data = '00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f'.slice(0, dataBits / 4);
    const key = await raw(data, 'AES-CBC', 'encrypt');
    same(hex(await subtle.wrapKey('raw', key, wrapping, 'AES-KW')), wrapped);
    const back = await subtle.unwrapKey('raw', bytes(wrapped), wrapping, 'AES-KW', 'AES-CBC', true, ['encrypt']);
    same(hex(await subtle.exportKey('raw', back)), data);
    const unwrap = (data) => subtle.unwrapKey('raw', data, wrapping, 'AES-KW', 'AES-CBC', true, ['encrypt']);
    await rejects('OperationError', unwrap(flipped(bytes(wrapped).buffer)), 'a wrong check');
    await rejects('OperationError', unwrap(bytes(wrapped).subarray(0, 16)), 'too short');
    await rejects('OperationError', unwrap(bytes(wrapped).subarray(0, 20)), 'half a block');
  });
}

// RFC 5869, test cases 1, 2 (its longest), 3 and 4.
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => (from + i).toString(16).padStart(2, '0')).join('');
for (const [hash, ikm, salt, info, okm] of [
  ['SHA-256', '0b'.repeat(22), range(0, 12), range(0xf0, 0xf9), '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865'],
  [
    'SHA-256',
    range(0, 0x4f),
    range(0x60, 0xaf),
    range(0xb0, 0xff),
    'b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87',
  ],
  ['SHA-256', '0b'.repeat(22), '', '', '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8'],
  ['SHA-1', '0b'.repeat(11), range(0, 12), range(0xf0, 0xf9), '085a01ea1b10f36933068b56efa5ad81a4f14b822f5b091568a9cdd4f155fda2c22e422478d305f3f896'],
]) {
  fact(`HKDF with ${hash}, ${okm.length / 2} bytes`, async () => {
    const key = await subtle.importKey('raw', bytes(ikm), 'HKDF', false, ['deriveBits']);
    const parameters = { name: 'HKDF', hash, salt: bytes(salt), info: bytes(info) };
    same(hex(await subtle.deriveBits(parameters, key, okm.length * 4)), okm);
    await rejects('OperationError', subtle.deriveBits(parameters, key, 12), 'half a byte');
    await rejects('OperationError', subtle.deriveBits(parameters, key, null), 'null');
    await rejects('OperationError', subtle.deriveBits(parameters, key, 8 * 255 * 64 + 8), 'too many');
  });
}

// RFC 6070; RFC 7914, section 11.
for (const [hash, password, salt, iterations, output] of [
  ['SHA-1', 'password', 'salt', 1, '0c60c80f961f0e71f3a9b524af6012062fe037a6'],
  ['SHA-1', 'password', 'salt', 4096, '4b007901b765489abead49d926f721d065a429c1'],
  ['SHA-1', 'passwordPASSWORDpassword', 'saltSALTsaltSALTsaltSALTsaltSALTsalt', 4096, '3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038'],
  ['SHA-1', 'pass\0word', 'sa\0lt', 4096, '56fa6aa75548099dcc37d7f03425e0c3'],
  [
    'SHA-256',
    'passwd',
    'salt',
    1,
    '55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783',
  ],
]) {
  fact(`PBKDF2 with ${hash}, ${iterations} iterations, ${output.length / 2} bytes`, async () => {
    const key = await subtle.importKey('raw', text(password), 'PBKDF2', false, ['deriveBits']);
    const parameters = { name: 'PBKDF2', hash, salt: text(salt), iterations };
    same(hex(await subtle.deriveBits(parameters, key, output.length * 4)), output);
    await rejects('OperationError', subtle.deriveBits({ ...parameters, iterations: 0 }, key, 8), 'no iteration');
    await rejects('OperationError', subtle.deriveBits(parameters, key, null), 'null');
    await rejects('OperationError', subtle.deriveBits(parameters, key, 9), 'part of a byte');
  });
}

// RFC 8032, section 7.1, tests 1 to 3.
for (const [secret, point, message, signature] of [
  [
    '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60',
    'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    '',
    'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
  ],
  [
    '4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb',
    '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
    '72',
    '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00',
  ],
  [
    'c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7',
    'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
    'af82',
    '6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a',
  ],
]) {
  fact(`Ed25519, ${message.length / 2} bytes`, async () => {
    const jwk = { kty: 'OKP', crv: 'Ed25519', d: base64url(secret), x: base64url(point) };
    const key = await subtle.importKey('jwk', jwk, 'Ed25519', true, ['sign']);
    same(hex(await subtle.sign('Ed25519', key, bytes(message))), signature);
    const publicKey = await raw(point, 'Ed25519', 'verify');
    same(await subtle.verify('Ed25519', publicKey, bytes(signature), bytes(message)), true);
    same(await subtle.verify('Ed25519', publicKey, bytes(signature), bytes(`${message}00`)), false);
    same(await subtle.verify('Ed25519', publicKey, flipped(bytes(signature).buffer), bytes(message)), false);
    same(await subtle.verify('Ed25519', publicKey, new Uint8Array(63), bytes(message)), false);
  });
}
fact('Ed25519 keys and commitments of small order verify nothing', async () => {
  const identity = `01${'00'.repeat(31)}`;
  const key = await raw(identity, 'Ed25519', 'verify');
  same(await subtle.verify('Ed25519', key, bytes(identity + '00'.repeat(32)), text('anything')), false);
});

// RFC 7748, section 6.1; RFC 5903, section 8.1.
for (const [algorithm, mine, theirs, shared] of [
  [
    { name: 'X25519' },
    ['77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a', '8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a'],
    ['5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb', 'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f'],
    '4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742',
  ],
  [
    { name: 'ECDH', namedCurve: 'P-256' },
    [
      'c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433',
      '04dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c37725811805271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3',
    ],
    [
      'c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53',
      '04d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab',
    ],
    'd6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de',
  ],
]) {
  const jwk = ([d, point]) =>
    algorithm.name === 'X25519'
      ? { kty: 'OKP', crv: 'X25519', d: base64url(d), x: base64url(point) }
      : { kty: 'EC', crv: 'P-256', d: base64url(d), x: base64url(point.slice(2, 66)), y: base64url(point.slice(66)) };
  fact(`${algorithm.name}: both sides derive the secret, or its first bits`, async () => {
    for (const [one, other] of [[mine, theirs], [theirs, mine]]) {
      const key = await subtle.importKey('jwk', jwk(one), algorithm, false, ['deriveBits', 'deriveKey']);
      const parameters = { name: algorithm.name, public: await raw(other[1], algorithm) };
      same(hex(await subtle.deriveBits(parameters, key, null)), shared);
      same(hex(await subtle.deriveBits(parameters, key)), shared);
      same(hex(await subtle.deriveBits(parameters, key, 128)), shared.slice(0, 32));
      same(hex(await subtle.deriveBits(parameters, key, 12)), `${shared.slice(0, 3)}0`);
      await rejects('OperationError', subtle.deriveBits(parameters, key, 264), 'too many bits');
      const derived = await subtle.deriveKey(parameters, key, { name: 'AES-GCM', length: 192 }, true, ['encrypt']);
      same(hex(await subtle.exportKey('raw', derived)), shared.slice(0, 48));
      const whole = await subtle.deriveKey(parameters, key, 'HKDF', false, ['deriveBits']);
      same(whole.algorithm.name, 'HKDF');
    }
  });
}
fact('X25519 with a point of small order has no secret', async () => {
  const { privateKey } = await subtle.generateKey('X25519', false, ['deriveBits']);
  for (const point of ['00'.repeat(32), `01${'00'.repeat(31)}`]) {
    await rejects('OperationError', subtle.deriveBits({ name: 'X25519', public: await raw(point, 'X25519') }, privateKey, 256));
  }
});

// RFC 6979, appendices A.2.5 and A.2.6: signatures of "sample".
for (const [curve, hash, d, x, y, signature] of [
  [
    'P-256',
    'SHA-256',
    'c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721',
    '60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6',
    '7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299',
    'efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8',
  ],
  [
    'P-384',
    'SHA-384',
    '6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5',
    'ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13',
    '8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720',
    '94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe4699ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8',
  ],
]) {
  fact(`ECDSA over ${curve} with ${hash}`, async () => {
    const algorithm = { name: 'ECDSA', namedCurve: curve, hash };
    const publicJwk = { kty: 'EC', crv: curve, x: base64url(x), y: base64url(y) };
    const publicKey = await subtle.importKey('jwk', publicJwk, algorithm, true, ['verify']);
    same(await subtle.verify(algorithm, publicKey, bytes(signature), text('sample')), true);
    same(await subtle.verify(algorithm, publicKey, bytes(signature), text('test')), false);
    same(await subtle.verify(algorithm, publicKey, flipped(bytes(signature).buffer), text('sample')), false);
    same(await subtle.verify(algorithm, publicKey, bytes(signature).subarray(2), text('sample')), false);
    same(await subtle.verify(algorithm, publicKey, new Uint8Array(signature.length / 2), text('sample')), false, 'zeros');
    const key = await subtle.importKey('jwk', { ...publicJwk, d: base64url(d) }, algorithm, true, ['sign']);
    const made = await subtle.sign(algorithm, key, text('sample'));
    same(await subtle.verify(algorithm, publicKey, made, text('sample')), true);
    holds(hex(made) !== hex(await subtle.sign(algorithm, key, text('sample'))), 'fresh randomness');
    // The compressed form of the same point, SEC 1.
    const compressed = (parseInt(y.slice(-1), 16) % 2 === 0 ? '02' : '03') + x;
    same(hex(await subtle.exportKey('raw', await raw(compressed, algorithm, 'verify'))), `04${x}${y}`);
  });
}
end();
