//! How `console` shows instances of the platform's interfaces: by the attributes a person looks
//! for, read through getters captured here.

const { ArrayPrototypePush, ReflectGetOwnPropertyDescriptor, uncurryThis } = primordials;
const { setInspection, streams } = internals;

/** Shows the named attributes; those of a parent interface are found on its prototype. */
function showAttributes(constructor, names) {
  if (constructor === undefined) return;
  const getters = [];
  for (let i = 0; i < names.length; i++) {
    for (let prototype = constructor.prototype; prototype !== null; prototype = primordials.ObjectGetPrototypeOf(prototype)) {
      const descriptor = ReflectGetOwnPropertyDescriptor(prototype, names[i]);
      if (descriptor === undefined) continue;
      ArrayPrototypePush(getters, names[i], uncurryThis(descriptor.get));
      break;
    }
  }
  setInspection(constructor, (value) => {
    const pairs = [];
    for (let i = 0; i < getters.length; i += 2) ArrayPrototypePush(pairs, getters[i], getters[i + 1](value));
    return pairs;
  });
}

/** Shows an iterable of names and values by its own forEach. */
function showEntries(constructor) {
  if (constructor === undefined) return;
  const forEach = uncurryThis(constructor.prototype.forEach);
  setInspection(constructor, (object) => {
    const pairs = [];
    forEach(object, (value, name) => ArrayPrototypePush(pairs, name, value));
    return pairs;
  });
}

const eventAttributes = ['type', 'defaultPrevented', 'cancelable', 'timeStamp'];
showAttributes(internals.events.Event, eventAttributes);
showAttributes(internals.events.CustomEvent, ['type', 'detail', 'defaultPrevented', 'cancelable', 'timeStamp']);
showAttributes(internals.errorEvents.ErrorEvent, ['type', 'message', 'filename', 'lineno', 'colno', 'error']);
showAttributes(internals.errorEvents.PromiseRejectionEvent, ['type', 'promise', 'reason']);
showAttributes(internals.errorEvents.MessageEvent, ['type', 'data', 'origin']);
showAttributes(internals.abort.AbortSignal, ['aborted', 'reason']);
showAttributes(internals.url.URL, [
  'href', 'origin', 'protocol', 'username', 'password', 'host', 'hostname', 'port', 'pathname', 'search', 'hash',
]);
showEntries(internals.url.URLSearchParams);
showAttributes(internals.encoding.TextDecoder, ['encoding', 'fatal', 'ignoreBOM']);
showAttributes(internals.encoding.TextEncoder, ['encoding']);
showAttributes(internals.blob.Blob, ['size', 'type']);
showAttributes(internals.blob.File, ['name', 'size', 'type', 'lastModified']);
showAttributes(globalThis.CryptoKey, ['type', 'extractable', 'algorithm', 'usages']);
showEntries(internals.formData.FormData);
showAttributes(internals.performanceEntries.PerformanceEntry, ['name', 'entryType', 'startTime', 'duration']);
showAttributes(globalThis.FetchEvent, ['type', 'request']);
showEntries(globalThis.Headers);
showAttributes(globalThis.Request, ['method', 'url', 'headers']);
showAttributes(globalThis.Response, ['status', 'statusText', 'ok', 'url', 'headers']);

setInspection(streams.ReadableStream, (stream) => {
  const record = streams.readableRecordOf(stream);
  return ['locked', record.reader !== undefined, 'state', record.state];
});
setInspection(streams.WritableStream, (stream) => {
  const record = streams.writableRecordOf(stream);
  return ['locked', record.writer !== undefined, 'state', record.state];
});
showAttributes(streams.TransformStream, ['readable', 'writable']);
