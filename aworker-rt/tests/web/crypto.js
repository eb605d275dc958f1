// Random values. https://w3c.github.io/webcrypto/#Crypto-interface

import { fact, end, same, holds, throws } from './facts.js';

fact('getRandomValues fills and returns its argument', () => {
  const array = new Uint8Array(64);
  same(crypto.getRandomValues(array), array);
  holds(array.some((byte) => byte !== 0));
});
fact('only the view is filled', () => {
  const bytes = new Uint8Array(300);
  crypto.getRandomValues(bytes.subarray(100, 200));
  holds(bytes.subarray(0, 100).every((byte) => byte === 0) && bytes.subarray(200).every((byte) => byte === 0));
  holds(bytes.subarray(100, 200).some((byte) => byte !== 0));
});
fact('integer arrays of every type are filled', () => {
  for (const type of [Int8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array]) {
    holds(crypto.getRandomValues(new type(16)).some((element) => element != 0), type.name);
  }
});
fact('floats and DataViews are refused', () => {
  throws('TypeMismatchError', () => crypto.getRandomValues(new Float32Array(1)));
  throws('TypeMismatchError', () => crypto.getRandomValues(new DataView(new ArrayBuffer(1))));
  throws(TypeError, () => crypto.getRandomValues(new ArrayBuffer(1)));
  throws(TypeError, () => crypto.getRandomValues([1]));
});
fact('65,536 bytes are given, one more is refused', () => {
  same(crypto.getRandomValues(new Uint8Array(65536)).length, 65536);
  throws('QuotaExceededError', () => crypto.getRandomValues(new Uint8Array(65537)));
});
fact('a UUID is of version 4 and never the same', () => {
  const seen = new Set();
  for (let i = 0; i < 1000; i++) {
    const uuid = crypto.randomUUID();
    holds(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(uuid), uuid);
    seen.add(uuid);
  }
  same(seen.size, 1000);
});
fact('the receiver is checked', () => {
  throws(TypeError, () => crypto.randomUUID.call({}));
  throws(TypeError, () => new Crypto());
});
end();
