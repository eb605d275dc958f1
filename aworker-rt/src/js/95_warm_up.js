//! Representative use of the built-ins, run by a seed before it waits for forks: what is compiled and
//! optimised here is shared by every worker, and compiled by none.
//! Nothing may be left behind: no timer, no listener, no entry, no output.

const { Error, JSONParse, JSONStringify, Map, Promise, PromisePrototypeThen, Set, Symbol, Uint8Array } = primordials;
const {
  AbortController,
  CustomEvent,
  EventTarget,
  ReadableStream,
  TextDecoder,
  TextEncoder,
  TransformStream,
  URL,
  URLSearchParams,
  addEventListener,
  atob,
  btoa,
  clearInterval,
  clearTimeout,
  crypto,
  performance,
  queueMicrotask,
  removeEventListener,
  setInterval,
  setTimeout,
  structuredClone,
} = globalThis;
const { inspect } = internals;

const nothing = () => {};

function language(i) {
  const text = JSONStringify({ id: i, name: `user ${i}`, tags: ['a', 'b'], nested: { ok: true, none: null, n: i / 3 } });
  const value = JSONParse(text);
  return value.name.split(' ').map((word) => word.toUpperCase()).join('-') + [...value.tags, 'c'].length;
}

function urls(i) {
  const url = new URL(`http://localhost:8080/path/${i}?q=${i}&r=a%20b#f`);
  url.searchParams.get('q');
  url.searchParams.set('r', 'x');
  const parameters = new URLSearchParams({ a: '1', b: `${i}` });
  parameters.append('c', 'd');
  return url.pathname + url.search + url.href + parameters;
}

function bytes(i) {
  const encoded = new TextEncoder().encode(`text ${i} \u00e4`);
  const text = new TextDecoder().decode(encoded);
  return atob(btoa(`${i}`)) + text + new Uint8Array(8).fill(i).subarray(2, 4).length;
}

function events(i) {
  // As programs do: the global object is the target, and there are no options.
  addEventListener('warm-up', nothing);
  removeEventListener('warm-up', nothing);
  const target = new EventTarget();
  target.addEventListener('x', nothing);
  target.dispatchEvent(new CustomEvent('x', { detail: i }));
  target.removeEventListener('x', nothing);
  const controller = new AbortController();
  controller.signal.addEventListener('abort', nothing, { once: true });
  controller.abort();
  return controller.signal.aborted;
}

function timers() {
  clearTimeout(setTimeout(nothing, 1000));
  clearInterval(setInterval(nothing, 1000));
  queueMicrotask(nothing);
  return performance.now();
}

function formatting(i) {
  inspect(`text ${i}`);
  inspect({ i, list: [1, 'two', { three: 3 }], text: 'x', nothing: undefined, f: nothing, s: Symbol('s') });
  inspect([new Map([[1, { a: 2 }]]), new Set(['x']), new Uint8Array(4), null, true, 1n]);
  return inspect(new Error('message'));
}

async function asynchronous(i) {
  const value = await i;
  const [a, b] = await Promise.all([value, PromisePrototypeThen(Promise.resolve(1), (x) => x)]);
  return a + b;
}

async function streams(i) {
  const source = new ReadableStream({
    start(controller) {
      controller.enqueue(new Uint8Array([i & 255]));
      controller.enqueue('text');
      controller.close();
    },
  });
  const reader = source.pipeThrough(new TransformStream()).getReader();
  while (!(await reader.read()).done);
}

/** What a worker does before its program, with the values there are already. */
function life() {
  begin();
  globalThis.addEventListener('warm-up', (event) => event.waitUntil(1), { once: true });
  internals.callbacks.dispatchLifecycleEvent('warm-up');
}

function begin() {
  const { becomeWorker, handlesFetch, setLocation } = internals.callbacks;
  becomeWorker([], { __proto__: null }, undefined);
  setLocation('about:blank');
  handlesFetch();
}

/**
 * () at the end of the crate's build, with operations that do nothing: a small worker's beginning, and a request to a module. None to a
 * listener: had a FetchEvent been made before the snapshot, V8 would keep the fields of each later event in a dictionary.
 */
internals.callbacks.rehearse = () => {
  const { dispatchLifecycleEvent, httpDispatch, httpWarmUp, setDefaultExport } = internals.callbacks;
  begin();
  setDefaultExport({});
  dispatchLifecycleEvent('rehearsal');
  httpWarmUp(0);
  httpDispatch(0);
  httpWarmUp(-1);
};

/** Rounds of the slow subjects: enough for bytecode and baseline code, no more. */
const SLOW_ROUNDS = 200;

/** (round): one round of everything; the engine runs the microtasks after it. */
internals.callbacks.warmUp = (round) => {
  language(round);
  urls(round);
  bytes(round);
  events(round);
  timers();
  asynchronous(round);
  if (round >= SLOW_ROUNDS) return;
  formatting(round);
  structuredClone({ round, list: [1, 2] });
  crypto.randomUUID();
  streams(round);
  life();
};
