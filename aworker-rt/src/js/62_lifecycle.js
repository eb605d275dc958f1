//! The life of a worker as scripts see it: ExtendableEvent, `install`, `activate`, `serialize`,
//! `deserialize`, the default export, and what the worker was started with.
//! https://w3c.github.io/ServiceWorker/#extendableevent-interface

const {
  ObjectDefineProperty,
  ObjectFreeze,
  Promise,
  PromisePrototypeThen,
  PromiseResolve,
} = primordials;
const { defineInterface, requiredArguments, isObject } = internals.webidl;
const { Event, defineEventHandler, dispatchTrusted, hasGlobalListener, isDispatching, isTrusted } = internals.events;
const { DOMException, exposeInterface } = internals;

let extendLifetime;
let whenSettled;

class ExtendableEvent extends Event {
  /** Promises that have not settled yet. */
  #pending = 0;
  /** The first rejection, as `{ reason }`. */
  #rejection = undefined;
  /** Resolves what `whenSettled` returned. */
  #settled = undefined;

  constructor(type, eventInitDict = undefined) {
    requiredArguments(arguments.length, 1, "Failed to construct 'ExtendableEvent'");
    super(type, eventInitDict);
  }

  waitUntil(f) {
    const prefix = "Failed to execute 'waitUntil' on 'ExtendableEvent'";
    requiredArguments(arguments.length, 1, prefix);
    if (!isTrusted(this) || (this.#pending === 0 && !isDispatching(this))) {
      throw new DOMException(`${prefix}: the event is not active`, 'InvalidStateError');
    }
    extendLifetime(this, f);
  }

  static {
    extendLifetime = (event, value) => {
      event.#pending += 1;
      ops.hold();
      const release = () => {
        ops.release();
        event.#pending -= 1;
        if (event.#pending === 0) event.#settled?.(event.#rejection);
      };
      PromisePrototypeThen(PromiseResolve(value), release, (reason) => {
        if (event.#settled === undefined) reportRejection(event.type, reason);
        else event.#rejection ??= { reason };
        release();
      });
    };

    whenSettled = (event) => {
      if (event.#pending === 0) return undefined;
      return new Promise((resolve, reject) => {
        event.#settled = (rejection) => {
          if (rejection === undefined) resolve();
          else reject(rejection.reason);
        };
      });
    };
  }
}

defineInterface(ExtendableEvent);
exposeInterface(ExtendableEvent);
for (const type of ['serialize', 'deserialize']) defineEventHandler(globalThis, type);

/** Nobody waits for the outcome, as with `fetch`: the rejection is only told. */
function reportRejection(type, reason) {
  ops.print(2, `Uncaught (in waitUntil of ${type}) ${internals.inspect(reason)}\n`);
}

/** The object with a `fetch` method that a module exports by default. */
let defaultExport;

/** (type) -> promise of what the listeners wait for, or undefined if they wait for nothing. */
internals.callbacks.dispatchLifecycleEvent = (type) => {
  if (type === 'activate') internals.workerScope.installed();
  if (!hasGlobalListener(type)) return undefined;
  const event = new ExtendableEvent(type);
  dispatchTrusted(globalThis, event);
  return whenSettled(event);
};

/** (value): the default export of the worker's main module. */
internals.callbacks.setDefaultExport = (value) => {
  if (!isObject(value) || value.fetch === undefined) return;
  if (typeof value.fetch !== 'function') {
    throw new primordials.TypeError("The default export's 'fetch' is not a function");
  }
  defaultExport = value;
};

/** () -> whether anything would answer a request. */
internals.callbacks.handlesFetch = () => defaultExport !== undefined || hasGlobalListener('fetch');

/** (meta, url, filename, dirname, main): fills an `import.meta`. */
internals.callbacks.initialiseImportMeta = (meta, url, filename, dirname, main) => {
  meta.url = url;
  meta.filename = filename;
  meta.dirname = dirname;
  meta.main = main;
  meta.resolve = function resolve(specifier) {
    return ops.module_resolve(`${specifier}`, url);
  };
};

/** (place of a module) -> promise of its namespace: what `import()` gives. */
internals.callbacks.importLater = (place) =>
  PromisePrototypeThen(PromiseResolve(undefined), () => {
    const { 0: evaluated, 1: namespace } = ops.module_run(place);
    return PromisePrototypeThen(evaluated, () => namespace);
  });

let environment = ObjectFreeze({ __proto__: null });
let scriptArguments = ObjectFreeze([]);

/** (arguments, environment, location): this process is a worker of its own from here on. */
internals.callbacks.becomeWorker = (args, env, location) => {
  internals.forgetRandomState();
  internals.workerScope.becomeWorker(location);
  scriptArguments = ObjectFreeze(args);
  environment = ObjectFreeze(env);
};

const Aworker = {
  get args() {
    return scriptArguments;
  },
  get env() {
    return environment;
  },
  get version() {
    return ops.version();
  },
};
ObjectDefineProperty(globalThis, 'Aworker', {
  __proto__: null, value: Aworker, writable: true, enumerable: false, configurable: true,
});

internals.lifecycle = {
  ExtendableEvent,
  /** (event, promise): as waitUntil, without its checks. */
  extendLifetime,
  /** () -> the main module's default export with its `fetch`, or undefined. */
  defaultExport: () => defaultExport,
  /** () -> what `fetch(request, env)` gets. */
  environment: () => environment,
};
