// Timers and microtasks. https://html.spec.whatwg.org/#timers

import { fact, end, same, alike, holds, throws } from './facts.js';

fact('timers fire in the order of their times', async () => {
  const seen = [];
  await new Promise((resolve) => {
    setTimeout(() => seen.push('b'), 3);
    setTimeout(() => seen.push('a'), 1);
    setTimeout(() => seen.push('a2'), 1);
    setTimeout(resolve, 5);
  });
  alike(seen, ['a', 'a2', 'b']);
});
fact('arguments reach the handler, this is the global object', async () => {
  const seen = await new Promise((resolve) => setTimeout(function (...args) { resolve([this === globalThis, args]); }, 0, 1, 'x'));
  alike(seen, [true, [1, 'x']]);
});
fact('a cleared timer does not fire', async () => {
  const fail = () => { throw new Error('fired'); };
  clearTimeout(setTimeout(fail, 0));
  clearInterval(setTimeout(fail, 0));
  clearTimeout(undefined);
  clearTimeout('no id');
  clearTimeout();
  await new Promise((resolve) => setTimeout(resolve, 2));
});
fact('an interval fires until it is cleared, even by itself', async () => {
  let count = 0;
  await new Promise((resolve) => {
    const id = setInterval(() => {
      if (++count === 3) {
        clearInterval(id);
        setTimeout(resolve, 3);
      }
    }, 0);
  });
  same(count, 3);
});
fact('ids are positive and all different', () => {
  const first = setTimeout(() => {}, 0);
  const second = setInterval(() => {}, 0);
  clearInterval(second);
  holds(Number.isInteger(first) && first > 0 && second > first);
});
fact('delays are longs: negative and huge ones are as 0', async () => {
  for (const delay of [-5, 2 ** 32, NaN, 'x', null]) await new Promise((resolve) => setTimeout(resolve, delay));
});
fact('a string is compiled as the standard says', async () => {
  globalThis.fromString = 0;
  setTimeout('globalThis.fromString = 7', 0);
  await new Promise((resolve) => setTimeout(resolve, 1));
  same(globalThis.fromString, 7);
});
fact('a handler is required', () => {
  throws(TypeError, () => setTimeout());
  throws(TypeError, () => setInterval());
});
fact('microtasks run between two timers', async () => {
  const seen = [];
  await new Promise((resolve) => {
    setTimeout(() => {
      seen.push(1);
      queueMicrotask(() => seen.push(2));
      Promise.resolve().then(() => seen.push(3));
    }, 0);
    setTimeout(() => {
      seen.push(4);
      resolve();
    }, 0);
  });
  alike(seen, [1, 2, 3, 4]);
});
fact('what a timer throws reaches the error event', async () => {
  const seen = new Promise((resolve) => {
    addEventListener('error', (event) => {
      event.preventDefault();
      resolve(event.error);
    }, { once: true });
  });
  setTimeout(() => { throw 'thrown'; }, 0);
  same(await seen, 'thrown');
});
end();
