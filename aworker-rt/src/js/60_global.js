//! The global object: a ServiceWorkerGlobalScope in shape, with the interfaces of the files
//! before this one. Later files add their own with `internals.exposeInterface`.
//! https://html.spec.whatwg.org/#the-workerglobalscope-common-interface

const { ObjectDefineProperty, ObjectSetPrototypeOf, ReflectOwnKeys, TypeError } = primordials;
const { defineInterface } = internals.webidl;
const { EventTarget, defineEventHandler } = internals.events;

/** Defines a global that is no interface: a writable, configurable, enumerable value. */
function exposeFunction(name, value) {
  ObjectDefineProperty(globalThis, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
}

/** Defines an interface object: writable and configurable, not enumerable. */
function exposeInterface(constructor, name = constructor.name) {
  ObjectDefineProperty(globalThis, name, {
    __proto__: null, value: constructor, writable: true, enumerable: false, configurable: true,
  });
}

/** Defines a read-only attribute of the global object. */
function exposeAttribute(name, getter) {
  ObjectDefineProperty(globalThis, name, { __proto__: null, get: getter, set: undefined, enumerable: true, configurable: true });
}

/** Defines an attribute that assignment replaces by a plain property ([Replaceable]). */
function exposeReplaceable(name, getter) {
  const accessors = {
    set [name](value) {
      exposeFunction(name, value);
    },
  };
  const { set } = primordials.ReflectGetOwnPropertyDescriptor(accessors, name);
  ObjectDefineProperty(globalThis, name, { __proto__: null, get: getter, set, enumerable: true, configurable: true });
}

internals.exposeFunction = exposeFunction;
internals.exposeInterface = exposeInterface;
internals.exposeAttribute = exposeAttribute;
internals.exposeReplaceable = exposeReplaceable;

class WorkerGlobalScope extends EventTarget {
  constructor() {
    throw new TypeError("Failed to construct 'WorkerGlobalScope': Illegal constructor");
  }
}

class ServiceWorkerGlobalScope extends WorkerGlobalScope {
  constructor() {
    throw new TypeError("Failed to construct 'ServiceWorkerGlobalScope': Illegal constructor");
  }
}

defineInterface(WorkerGlobalScope);
defineInterface(ServiceWorkerGlobalScope);
ObjectSetPrototypeOf(globalThis, ServiceWorkerGlobalScope.prototype);

function exposeAll(group) {
  const names = ReflectOwnKeys(group);
  for (let i = 0; i < names.length; i++) exposeInterface(group[names[i]], names[i]);
}

const { Event, CustomEvent } = internals.events;
const { ErrorEvent, PromiseRejectionEvent, MessageEvent, reportError } = internals.errorEvents;
const { MessageChannel, MessagePort, BroadcastChannel } = internals.messaging;
const { AbortController, AbortSignal } = internals.abort;
const { Performance, performance } = internals.performance;
const { PerformanceEntry, PerformanceMark, PerformanceMeasure } = internals.performanceEntries;
const { PerformanceObserver, PerformanceObserverEntryList } = internals.performanceTimeline;
const { Crypto, crypto } = internals.crypto;
const { URL, URLSearchParams } = internals.url;
const { TextEncoder, TextDecoder } = internals.encoding;
const { streams } = internals;
const { Blob, File } = internals.blob;
const { FormData } = internals.formData;

exposeAll({
  DOMException: internals.DOMException,
  QuotaExceededError: internals.QuotaExceededError,
  Event,
  CustomEvent,
  EventTarget,
  ErrorEvent,
  PromiseRejectionEvent,
  MessageEvent,
  MessageChannel,
  MessagePort,
  BroadcastChannel,
  AbortController,
  AbortSignal,
  Performance,
  PerformanceEntry,
  PerformanceMark,
  PerformanceMeasure,
  PerformanceResourceTiming: internals.resourceTiming.PerformanceResourceTiming,
  PerformanceObserver,
  PerformanceObserverEntryList,
  Crypto,
  URL,
  URLSearchParams,
  URLPattern: internals.URLPattern,
  TextEncoder,
  TextDecoder,
  ReadableStream: streams.ReadableStream,
  ReadableStreamDefaultReader: streams.ReadableStreamDefaultReader,
  ReadableStreamBYOBReader: streams.ReadableStreamBYOBReader,
  ReadableStreamDefaultController: streams.ReadableStreamDefaultController,
  ReadableByteStreamController: streams.ReadableByteStreamController,
  ReadableStreamBYOBRequest: streams.ReadableStreamBYOBRequest,
  WritableStream: streams.WritableStream,
  WritableStreamDefaultWriter: streams.WritableStreamDefaultWriter,
  WritableStreamDefaultController: streams.WritableStreamDefaultController,
  TransformStream: streams.TransformStream,
  TransformStreamDefaultController: streams.TransformStreamDefaultController,
  ByteLengthQueuingStrategy: streams.ByteLengthQueuingStrategy,
  CountQueuingStrategy: streams.CountQueuingStrategy,
  Blob,
  File,
  FileReader: internals.fileReader.FileReader,
  ProgressEvent: internals.fileReader.ProgressEvent,
  FormData,
  TextEncoderStream: streams.TextEncoderStream,
  TextDecoderStream: streams.TextDecoderStream,
  CompressionStream: streams.CompressionStream,
  DecompressionStream: streams.DecompressionStream,
  WorkerGlobalScope,
  ServiceWorkerGlobalScope,
});

const functions = internals.timers.functions;
const functionNames = ReflectOwnKeys(functions);
for (let i = 0; i < functionNames.length; i++) exposeFunction(functionNames[i], functions[functionNames[i]]);
exposeFunction('structuredClone', internals.structuredClone);
exposeFunction('atob', internals.base64.atob);
exposeFunction('btoa', internals.base64.btoa);
exposeFunction('reportError', reportError);
ObjectDefineProperty(globalThis, 'console', {
  __proto__: null, value: internals.console, writable: true, enumerable: false, configurable: true,
});

exposeAttribute('self', () => globalThis);
exposeAttribute('crypto', () => crypto);
exposeReplaceable('performance', () => performance);

for (const type of ['error', 'unhandledrejection', 'rejectionhandled', 'install', 'activate', 'fetch', 'message', 'messageerror']) {
  defineEventHandler(globalThis, type);
}
