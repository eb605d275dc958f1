//! skipWaiting and Clients. A worker has no clients here: nothing waits for it, and it controls nobody.
//! https://w3c.github.io/ServiceWorker/#clients-interface

const { ObjectFreeze, PromiseReject, PromiseResolve, TypeError } = primordials;
const { converters, dictionaryConverter, enumConverter, isObject, requiredArguments, defineInterface, kConstruct } = internals.webidl;
const { DOMException, exposeAttribute, exposeFunction, exposeInterface, workerScope } = internals;

const toQueryOptions = dictionaryConverter('ClientQueryOptions', [
  { key: 'includeUncontrolled', converter: converters.boolean },
  { key: 'type', converter: enumConverter('ClientType', ['window', 'worker', 'sharedworker', 'all']) },
]);

let isClients;

/** Runs the steps of an operation that returns a promise: what they throw rejects it. */
function operation(receiver, steps) {
  try {
    if (!isClients(receiver)) throw new TypeError('Illegal invocation: not a Clients');
    return PromiseResolve(steps());
  } catch (error) {
    return PromiseReject(error);
  }
}

class Clients {
  #brand;

  static {
    isClients = (value) => isObject(value) && #brand in value;
  }

  constructor(token = undefined) {
    if (token !== kConstruct) throw new TypeError("Failed to construct 'Clients': Illegal constructor");
  }

  get(id) {
    const given = arguments.length;
    return operation(this, () => {
      const prefix = "Failed to execute 'get' on 'Clients'";
      requiredArguments(given, 1, prefix);
      converters.DOMString(id, prefix, 'Argument 1');
    });
  }

  matchAll(options = {}) {
    return operation(this, () => {
      toQueryOptions(options, "Failed to execute 'matchAll' on 'Clients'", 'Argument 1');
      return ObjectFreeze([]);
    });
  }

  openWindow(url) {
    const given = arguments.length;
    return operation(this, () => {
      const prefix = "Failed to execute 'openWindow' on 'Clients'";
      requiredArguments(given, 1, prefix);
      new internals.url.URL(converters.USVString(url, prefix, 'Argument 1'), workerScope.baseURL());
      throw new DOMException(`${prefix}: no user has asked for a window`, 'InvalidAccessError');
    });
  }

  claim() {
    return operation(this, () => {
      if (workerScope.isActive()) return;
      throw new DOMException("Failed to execute 'claim' on 'Clients': the worker is not active", 'InvalidStateError');
    });
  }
}

defineInterface(Clients);
exposeInterface(Clients);

const clients = new Clients(kConstruct);
exposeAttribute('clients', () => clients);
// A method, and so no constructor.
const { skipWaiting } = {
  skipWaiting() {
    return PromiseResolve();
  },
};
exposeFunction('skipWaiting', skipWaiting);
