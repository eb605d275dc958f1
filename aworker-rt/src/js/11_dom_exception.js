//! DOMException and QuotaExceededError. Instances are real Error objects, so that they carry a stack and
//! `Error.isError` holds for them. https://webidl.spec.whatwg.org/#idl-DOMException,
//! https://webidl.spec.whatwg.org/#quotaexceedederror

const {
  Error,
  ErrorCaptureStackTrace,
  ErrorPrototype,
  ObjectDefineProperties,
  ObjectDefineProperty,
  ObjectSetPrototypeOf,
  RangeError,
  StringPrototypeIndexOf,
  StringPrototypeSlice,
  TypeError,
} = primordials;
const { converters, dictionaryConverter, defineConstants, defineInterface, defineToStringTag } = internals.webidl;

const legacyCodes = {
  __proto__: null,
  IndexSizeError: 1,
  HierarchyRequestError: 3,
  WrongDocumentError: 4,
  InvalidCharacterError: 5,
  NoModificationAllowedError: 7,
  NotFoundError: 8,
  NotSupportedError: 9,
  InUseAttributeError: 10,
  InvalidStateError: 11,
  SyntaxError: 12,
  InvalidModificationError: 13,
  NamespaceError: 14,
  InvalidAccessError: 15,
  TypeMismatchError: 17,
  SecurityError: 18,
  NetworkError: 19,
  AbortError: 20,
  URLMismatchError: 21,
  QuotaExceededError: 22,
  TimeoutError: 23,
  InvalidNodeTypeError: 24,
  DataCloneError: 25,
};

/** Returns its argument, so that a derived class stamps private fields on an existing object. */
function Identity(object) {
  return object;
}

/** The private slots of a DOMException. */
class Slots extends Identity {
  #message;
  #name;

  constructor(error, message, name) {
    super(error);
    this.#message = message;
    this.#name = name;
  }

  static message(exception) {
    return exception.#message;
  }

  static exceptionName(exception) {
    return exception.#name;
  }

  static isStamped(value) {
    return typeof value === 'object' && value !== null && #name in value;
  }
}

function DOMException(message = '', name = 'Error') {
  if (new.target === undefined) {
    throw new TypeError("Failed to construct 'DOMException': use the 'new' operator");
  }
  const prefix = "Failed to construct 'DOMException'";
  message = converters.DOMString(message, prefix, 'Argument 1');
  name = converters.DOMString(name, prefix, 'Argument 2');
  const exception = new Error();
  ObjectSetPrototypeOf(exception, new.target.prototype);
  new Slots(exception, message, name);
  ErrorCaptureStackTrace(exception, DOMException);
  defineStack(exception, message === '' ? name : `${name}: ${message}`);
  return exception;
}

/** V8 heads an Error's stack with its own `message`, which a DOMException has not. */
function defineStack(exception, header) {
  const stack = exception.stack;
  if (typeof stack !== 'string') return;
  const firstFrame = StringPrototypeIndexOf(stack, '\n    at ');
  const frames = firstFrame === -1 ? '' : StringPrototypeSlice(stack, firstFrame);
  ObjectDefineProperty(exception, 'stack', {
    __proto__: null, value: header + frames, writable: true, enumerable: false, configurable: true,
  });
}

/** What a clone is made of. */
function write(exception) {
  const stack = primordials.ReflectGetOwnPropertyDescriptor(exception, 'stack')?.value;
  return {
    name: Slots.exceptionName(exception),
    message: Slots.message(exception),
    quota: QuotaSlots.read(exception),
    stack: typeof stack === 'string' ? stack : undefined,
  };
}

/** The clone of an exception that `write` took apart. */
function read({ name, message, quota, stack }) {
  const exception = new Error();
  ObjectSetPrototypeOf(exception, quota === undefined ? DOMException.prototype : QuotaExceededError.prototype);
  new Slots(exception, message, name);
  if (quota !== undefined) new QuotaSlots(exception, quota);
  ObjectDefineProperty(exception, 'stack', { __proto__: null, value: stack, writable: true, enumerable: false, configurable: true });
  return exception;
}

function checked(value) {
  if (!Slots.isStamped(value)) throw new TypeError('Illegal invocation: not a DOMException');
  return value;
}

const accessors = {
  get name() {
    return Slots.exceptionName(checked(this));
  },
  get message() {
    return Slots.message(checked(this));
  },
  get code() {
    return legacyCodes[Slots.exceptionName(checked(this))] ?? 0;
  },
};

ObjectDefineProperties(DOMException.prototype, {
  name: primordials.ReflectGetOwnPropertyDescriptor(accessors, 'name'),
  message: primordials.ReflectGetOwnPropertyDescriptor(accessors, 'message'),
  code: primordials.ReflectGetOwnPropertyDescriptor(accessors, 'code'),
});
ObjectSetPrototypeOf(DOMException.prototype, ErrorPrototype);
ObjectDefineProperty(DOMException, 'prototype', { __proto__: null, writable: false });
defineInterface(DOMException);
defineToStringTag(DOMException.prototype, 'DOMException');
defineConstants(DOMException, {
  INDEX_SIZE_ERR: 1,
  DOMSTRING_SIZE_ERR: 2,
  HIERARCHY_REQUEST_ERR: 3,
  WRONG_DOCUMENT_ERR: 4,
  INVALID_CHARACTER_ERR: 5,
  NO_DATA_ALLOWED_ERR: 6,
  NO_MODIFICATION_ALLOWED_ERR: 7,
  NOT_FOUND_ERR: 8,
  NOT_SUPPORTED_ERR: 9,
  INUSE_ATTRIBUTE_ERR: 10,
  INVALID_STATE_ERR: 11,
  SYNTAX_ERR: 12,
  INVALID_MODIFICATION_ERR: 13,
  NAMESPACE_ERR: 14,
  INVALID_ACCESS_ERR: 15,
  VALIDATION_ERR: 16,
  TYPE_MISMATCH_ERR: 17,
  SECURITY_ERR: 18,
  NETWORK_ERR: 19,
  ABORT_ERR: 20,
  URL_MISMATCH_ERR: 21,
  QUOTA_EXCEEDED_ERR: 22,
  TIMEOUT_ERR: 23,
  INVALID_NODE_TYPE_ERR: 24,
  DATA_CLONE_ERR: 25,
});

/** The private slots of a QuotaExceededError. */
class QuotaSlots extends Identity {
  #quota;

  constructor(error, quota) {
    super(error);
    this.#quota = quota;
  }

  /** `{ quota, requested }`, or undefined if the object has none. */
  static read(error) {
    return typeof error === 'object' && error !== null && #quota in error ? error.#quota : undefined;
  }
}

const toQuotaOptions = dictionaryConverter('QuotaExceededErrorOptions', [
  { key: 'quota', converter: converters.double },
  { key: 'requested', converter: converters.double },
]);

class QuotaExceededError extends DOMException {
  constructor(message = '', options = {}) {
    const prefix = "Failed to construct 'QuotaExceededError'";
    super(message, 'QuotaExceededError');
    const { quota = null, requested = null } = toQuotaOptions(options, prefix, 'Argument 2');
    if (quota !== null && quota < 0) throw new RangeError(`${prefix}: 'quota' is negative`);
    if (requested !== null && requested < 0) throw new RangeError(`${prefix}: 'requested' is negative`);
    if (quota !== null && requested !== null && requested < quota) {
      throw new RangeError(`${prefix}: 'requested' is less than 'quota'`);
    }
    new QuotaSlots(this, { quota, requested });
  }

  get quota() {
    return quotaOf(this).quota;
  }

  get requested() {
    return quotaOf(this).requested;
  }
}

function quotaOf(value) {
  const quota = QuotaSlots.read(value);
  if (quota === undefined) throw new TypeError('Illegal invocation: not a QuotaExceededError');
  return quota;
}

defineInterface(QuotaExceededError);

/** How instances are cloned (21_structured_clone.js). */
internals.domExceptionCloning = { is: Slots.isStamped, write, read };
internals.QuotaExceededError = QuotaExceededError;
internals.DOMException = DOMException;
internals.isDOMException = Slots.isStamped;
internals.domExceptionName = Slots.exceptionName;
internals.domExceptionMessage = Slots.message;
