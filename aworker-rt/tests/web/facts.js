// What the scripts of this directory assert with. Facts are checked in order; the first that
// does not hold ends the script with status 1.

let last = Promise.resolve();
let count = 0;

/** States a fact: `check` throws or rejects if it does not hold. */
export function fact(name, check) {
  last = last.then(async () => {
    try {
      await check();
    } catch (error) {
      throw new Error(`${name}: ${error?.message ?? error}`, { cause: error });
    }
    count++;
  });
}

/** Prints how many facts hold; the last statement of every script. */
export function end() {
  last = last.then(() => console.log(`${count} facts hold`));
}

function show(value) {
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

export function same(actual, expected, what = '') {
  if (!Object.is(actual, expected)) throw new Error(`${what}${what ? ': ' : ''}${show(actual)} is not ${show(expected)}`);
}

/** Compares by JSON text. */
export function alike(actual, expected, what = '') {
  const left = JSON.stringify(actual);
  const right = JSON.stringify(expected);
  if (left !== right) throw new Error(`${what}${what ? ': ' : ''}${left} is not ${right}`);
}

export function holds(value, what = 'it') {
  if (!value) throw new Error(`${what} does not hold`);
}

function matches(error, kind) {
  if (error === kind) return;
  if (typeof kind === 'string') {
    if (!(error instanceof DOMException) || error.name !== kind) throw new Error(`threw ${error}, not a DOMException ${kind}`);
  } else if (typeof kind === 'function') {
    if (error?.constructor !== kind) throw new Error(`threw ${error}, not a ${kind.name}`);
  } else {
    throw new Error(`threw ${error}, not ${kind}`);
  }
}

/** `kind` is a constructor, the name of a DOMException or the very value. */
export function throws(kind, action, what = 'the action') {
  let thrown;
  try {
    action();
  } catch (error) {
    thrown = { error };
  }
  if (thrown === undefined) throw new Error(`${what} threw nothing`);
  matches(thrown.error, kind);
}

export async function rejects(kind, promise, what = 'the promise') {
  let thrown;
  try {
    await promise;
  } catch (error) {
    thrown = { error };
  }
  if (thrown === undefined) throw new Error(`${what} was not rejected`);
  matches(thrown.error, kind);
}
