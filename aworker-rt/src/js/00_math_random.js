//! Math.random with state of its own. V8's generator would go on identically in every clone of a
//! seed, and there is no way to seed it again.
//! xoshiro128** 1.1 (Blackman and Vigna), two steps for the 53 bits of a double.

const state = new Int32Array(4);
const { imul } = Math;
let seeded = false;

function seed() {
  do {
    ops.random_fill(state);
  } while ((state[0] | state[1] | state[2] | state[3]) === 0);
  seeded = true;
}

function step() {
  const s1 = state[1];
  const product = imul(s1, 5);
  const result = imul((product << 7) | (product >>> 25), 9);
  const s2 = state[2] ^ state[0];
  const s3 = state[3] ^ s1;
  state[1] = s1 ^ s2;
  state[0] ^= s3;
  state[2] = s2 ^ (s1 << 9);
  state[3] = (s3 << 11) | (s3 >>> 21);
  return result;
}

const { random } = {
  random() {
    if (!seeded) seed();
    const high = step() >>> 6;
    const low = step() >>> 5;
    return (high * 0x8000000 + low) / 0x20000000000000;
  },
};

Object.defineProperty(Math, 'random', {
  __proto__: null, value: random, writable: true, enumerable: false, configurable: true,
});

/** Forgets the state: the next call seeds again. */
internals.forgetRandomState = () => {
  seeded = false;
};
