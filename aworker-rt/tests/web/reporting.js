// Errors and rejections that nobody handles. https://html.spec.whatwg.org/#runtime-script-errors

import { fact, end, same, alike, holds, throws } from './facts.js';

function nextError() {
  return new Promise((resolve) => {
    addEventListener('error', (event) => {
      event.preventDefault();
      resolve(event);
    }, { once: true });
  });
}

fact('reportError fires a cancelable error event at the global object', async () => {
  const error = new TypeError('reported');
  const seen = nextError();
  reportError(error);
  const event = await seen;
  same(event.error, error);
  holds(event instanceof ErrorEvent && event.cancelable && event.isTrusted);
  holds(event.message.includes('reported'), event.message);
  holds(event.filename.endsWith('reporting.js'), event.filename);
  holds(event.lineno > 0 && event.colno > 0);
  throws(TypeError, () => reportError());
});
fact('any value can be reported', async () => {
  for (const value of [undefined, null, 1, 'text', Symbol('s'), Object.create(null)]) {
    const seen = nextError();
    reportError(value);
    const event = await seen;
    same(event.error, value);
    holds(event.filename.endsWith('reporting.js'), event.filename);
  }
});
fact('what a listener throws is reported, and the others run', async () => {
  const target = new EventTarget();
  const order = [];
  target.addEventListener('x', () => { throw new Error('first'); });
  target.addEventListener('x', () => order.push('second'));
  target.addEventListener('x', { handleEvent: 5 });
  const messages = [];
  const listener = (event) => {
    event.preventDefault();
    messages.push(event.error.message);
  };
  addEventListener('error', listener);
  target.dispatchEvent(new Event('x'));
  removeEventListener('error', listener);
  alike(order, ['second']);
  same(messages.length, 2);
  same(messages[0], 'first');
});
fact('onerror gets five arguments and handles with true', () => {
  let seen;
  onerror = (...args) => {
    seen = args;
    return true;
  };
  const error = new Error('e');
  reportError(error);
  onerror = null;
  same(seen.length, 5);
  same(seen[4], error);
});
fact('an unhandled rejection is announced and can be handled', async () => {
  const seen = new Promise((resolve) => {
    addEventListener('unhandledrejection', (event) => {
      event.preventDefault();
      resolve(event);
    }, { once: true });
  });
  const promise = Promise.reject('why');
  const event = await seen;
  same(event.promise, promise);
  same(event.reason, 'why');
  const late = new Promise((resolve) => addEventListener('rejectionhandled', resolve, { once: true }));
  promise.catch(() => {});
  same((await late).promise, promise);
});
end();
