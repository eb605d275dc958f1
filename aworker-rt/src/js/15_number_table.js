//! A table from numbers of native code (timers, requests, exchanges) to what JavaScript keeps for them.
//!
//! Not a Map: when V8 makes room in a Map whose entries come and go, the old table refers to the new one, for iterators. Once such a
//! table is old enough for the old generation, it keeps its dead successors alive, each with all that it held, until the whole heap is
//! marked: of a worker with 500 requests that wait for timers, a sixth of all that it allocated stayed that way.

const { Array, ArrayPrototypeFill } = primordials;

/** Fewest buckets: a power of two, as all their numbers. */
const FEWEST = 16;

/** Every element is its own, so that no prototype is asked. */
function bucketsOf(count) {
  return ArrayPrototypeFill(new Array(count), undefined);
}

class NumberTable {
  /** Lists of { key, value, next }. */
  #buckets = bucketsOf(FEWEST);
  #size = 0;

  get size() {
    return this.#size;
  }

  get(key) {
    const buckets = this.#buckets;
    let entry = buckets[key & (buckets.length - 1)];
    while (entry !== undefined && entry.key !== key) entry = entry.next;
    return entry === undefined ? undefined : entry.value;
  }

  set(key, value) {
    const buckets = this.#buckets;
    const index = key & (buckets.length - 1);
    let entry = buckets[index];
    while (entry !== undefined && entry.key !== key) entry = entry.next;
    if (entry !== undefined) {
      entry.value = value;
      return;
    }
    buckets[index] = { key, value, next: buckets[index] };
    if (++this.#size > buckets.length) this.#resize(buckets.length * 2);
  }

  /** Removes a key; its value, or undefined. */
  take(key) {
    const buckets = this.#buckets;
    const index = key & (buckets.length - 1);
    let before;
    let entry = buckets[index];
    while (entry !== undefined && entry.key !== key) {
      before = entry;
      entry = entry.next;
    }
    if (entry === undefined) return undefined;
    if (before === undefined) buckets[index] = entry.next;
    else before.next = entry.next;
    // A dead entry keeps no living one.
    entry.next = undefined;
    if (--this.#size * 8 < buckets.length && buckets.length > FEWEST) this.#resize(buckets.length / 2);
    return entry.value;
  }

  #resize(count) {
    const old = this.#buckets;
    const buckets = bucketsOf(count);
    for (let i = 0; i < old.length; i++) {
      let entry = old[i];
      while (entry !== undefined) {
        const { next } = entry;
        const index = entry.key & (count - 1);
        entry.next = buckets[index];
        buckets[index] = entry;
        entry = next;
      }
      old[i] = undefined;
    }
    this.#buckets = buckets;
  }
}

internals.NumberTable = NumberTable;
