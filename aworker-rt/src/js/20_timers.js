//! setTimeout, setInterval and their counterparts, queueMicrotask.
//! The event loop keeps times and order; functions stay here, under the timer's id.
//! https://html.spec.whatwg.org/#timers

const {
  FunctionPrototypeCall,
  ReflectApply,
  TypeError,
} = primordials;
const { converters, requiredArguments } = internals.webidl;
const indirectEval = eval;

/** Active timers by id. */
const timers = new internals.NumberTable();
let lastId = 0;

/** Deeper nesting clamps the delay to 4 ms. */
const NESTING_CLAMP_LEVEL = 5;
let currentNesting = 0;

/** Starts a timer. `handler` is a function or, as the standard allows, source text. */
function start(handler, timeout, args, repeat) {
  let delay = timeout === undefined ? 0 : converters.long(timeout);
  if (delay < 0) delay = 0;
  const nesting = currentNesting;
  if (nesting > NESTING_CLAMP_LEVEL && delay < 4) delay = 4;
  const id = ++lastId;
  const ofRequest = ops.timer_start(id, delay);
  timers.set(id, { handler, args, delay, repeat, nesting: nesting + 1, ofRequest });
  return id;
}

function clear(id) {
  if (id === undefined || id === null) return;
  id = converters.long(id);
  if (timers.take(id) !== undefined) ops.timer_cancel(id);
}

/** A timer's time has come. Exceptions propagate to the engine, which reports them. */
function fire(id) {
  const timer = timers.get(id);
  if (timer === undefined) return;
  if (!timer.repeat) timers.take(id);
  currentNesting = timer.nesting;
  if (timer.ofRequest) ops.enter_request();
  try {
    run(timer);
  } finally {
    currentNesting = 0;
    if (timer.repeat && timers.get(id) === timer) rearm(id, timer);
  }
}

function run({ handler, args }) {
  if (typeof handler !== 'function') indirectEval(handler);
  else if (args === undefined) FunctionPrototypeCall(handler, globalThis);
  else ReflectApply(handler, globalThis, args);
}

function rearm(id, timer) {
  timer.nesting += 1;
  const delay = timer.nesting > NESTING_CLAMP_LEVEL && timer.delay < 4 ? 4 : timer.delay;
  ops.timer_start(id, delay);
}

function toHandler(handler, prefix) {
  return typeof handler === 'function' ? handler : converters.DOMString(handler, prefix, 'Argument 1');
}

// Methods, and so no constructors.
const functions = {
  setTimeout(handler, timeout = 0, ...args) {
    requiredArguments(arguments.length, 1, "Failed to execute 'setTimeout'");
    return start(toHandler(handler, "Failed to execute 'setTimeout'"), timeout, args.length === 0 ? undefined : args, false);
  },

  setInterval(handler, timeout = 0, ...args) {
    requiredArguments(arguments.length, 1, "Failed to execute 'setInterval'");
    return start(toHandler(handler, "Failed to execute 'setInterval'"), timeout, args.length === 0 ? undefined : args, true);
  },

  clearTimeout(id = 0) {
    clear(id);
  },

  clearInterval(id = 0) {
    clear(id);
  },

  queueMicrotask(callback) {
    requiredArguments(arguments.length, 1, "Failed to execute 'queueMicrotask'");
    if (typeof callback !== 'function') {
      throw new TypeError("Failed to execute 'queueMicrotask': Argument 1 is not a function");
    }
    ops.queue_microtask(callback);
  },
};

/** Runs a built-in's function after `delay` milliseconds, which may exceed 2^31. */
function runAfter(delay, callback) {
  const id = ++lastId;
  const ofRequest = ops.timer_start(id, delay);
  timers.set(id, { handler: callback, args: undefined, delay, repeat: false, nesting: 0, ofRequest });
  return id;
}

internals.timers = {
  functions,
  runAfter,
  cancel: clear,
};
/** (id): called by the event loop when a timer is due. */
internals.callbacks.timer = fire;
