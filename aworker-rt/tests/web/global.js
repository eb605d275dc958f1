// The global object. https://html.spec.whatwg.org/#the-workerglobalscope-common-interface

import { fact, end, same, alike, holds, throws } from './facts.js';

fact('the global object is a ServiceWorkerGlobalScope', () => {
  holds(globalThis instanceof ServiceWorkerGlobalScope);
  holds(globalThis instanceof WorkerGlobalScope);
  holds(globalThis instanceof EventTarget);
  same(Object.prototype.toString.call(globalThis), '[object ServiceWorkerGlobalScope]');
  same(self, globalThis);
  throws(TypeError, () => new ServiceWorkerGlobalScope());
});
fact('attributes of the global object are read-only or replaceable', () => {
  throws(TypeError, () => { 'use strict'; self.crypto = 1; });
  throws(TypeError, () => { 'use strict'; self.navigator = 1; });
  const { performance } = globalThis;
  globalThis.performance = 5;
  same(globalThis.performance, 5);
  globalThis.performance = performance;
});
fact('navigator names the runtime', () => {
  holds(/^Aworker\/\d+\.\d+\.\d+$/.test(navigator.userAgent), navigator.userAgent);
  throws(TypeError, () => WorkerNavigator.prototype.userAgent);
});
fact('the location is the script and cannot be replaced', () => {
  same(location.href, import.meta.url);
  same(String(location), location.href);
  alike([location.protocol, location.host, location.port, location.search, location.hash, location.origin], ['file:', '', '', '', '', 'null']);
  same(location.pathname, new URL(import.meta.url).pathname);
  holds(location instanceof WorkerLocation);
  throws(TypeError, () => new WorkerLocation());
  throws(TypeError, () => { 'use strict'; self.location = 'http://a'; });
  alike([origin, isSecureContext, crossOriginIsolated], ['null', true, true]);
});
fact('navigator knows the language of Intl', () => {
  same(navigator.language, new Intl.NumberFormat().resolvedOptions().locale);
  alike(navigator.languages, [navigator.language]);
  holds(Object.isFrozen(navigator.languages) && navigator.languages === navigator.languages);
});
fact('a module may not import scripts', () => {
  throws(TypeError, () => importScripts());
});
fact('queueMicrotask runs before promises that come later', async () => {
  const seen = [];
  queueMicrotask(() => seen.push('microtask'));
  Promise.resolve().then(() => seen.push('promise'));
  await null;
  await null;
  alike(seen, ['microtask', 'promise']);
  throws(TypeError, () => queueMicrotask());
  throws(TypeError, () => queueMicrotask({}));
});
fact('event handlers of the global object take functions or null', () => {
  same(onerror, null);
  const handler = () => {};
  onerror = handler;
  same(onerror, handler);
  onerror = 5;
  same(onerror, null);
});
fact('what a worker without an origin cannot have is not there at all', () => {
  for (const name of ['caches', 'Cache', 'CacheStorage', 'registration', 'ServiceWorker', 'ServiceWorkerRegistration', 'Client', 'WindowClient']) {
    same(name in globalThis, false, name);
  }
});
end();
