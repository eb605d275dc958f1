// skipWaiting and clients. https://w3c.github.io/ServiceWorker/#clients-interface

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

fact('there are no clients', async () => {
  same(await clients.get('x'), undefined);
  const list = await clients.matchAll({ type: 'window', includeUncontrolled: true });
  holds(Array.isArray(list) && list.length === 0 && Object.isFrozen(list));
  await rejects('InvalidAccessError', clients.openWindow('http://a'));
});
fact('arguments are checked in the promise', async () => {
  await rejects(TypeError, clients.get());
  await rejects(TypeError, clients.matchAll({ type: 'other' }));
  await rejects(TypeError, clients.openWindow('http://['));
  await rejects(TypeError, Clients.prototype.claim.call({}));
  throws(TypeError, () => new Clients());
  throws(TypeError, () => { 'use strict'; self.clients = 1; });
});
end();
