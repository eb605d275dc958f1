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
end();
