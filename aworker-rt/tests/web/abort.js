// AbortController and AbortSignal. https://dom.spec.whatwg.org/#aborting-ongoing-activities

import { fact, end, same, alike, holds, throws } from './facts.js';

fact('a new signal is not aborted', () => {
  const { signal } = new AbortController();
  same(signal.aborted, false);
  same(signal.reason, undefined);
  same(signal.throwIfAborted(), undefined);
});
fact('the signal of a controller is always the same', () => {
  const controller = new AbortController();
  same(controller.signal, controller.signal);
});
fact('abort without a reason gives an AbortError', () => {
  const controller = new AbortController();
  controller.abort();
  same(controller.signal.reason.name, 'AbortError');
  same(controller.signal.reason.code, 20);
  throws(controller.signal.reason, () => controller.signal.throwIfAborted());
});
fact('any value is a reason', () => {
  for (const reason of [null, 0, '', false]) {
    const controller = new AbortController();
    controller.abort(reason);
    same(controller.signal.reason, reason);
    same(AbortSignal.abort(reason).reason, reason);
  }
});
fact('the abort event is fired once, trusted, at the signal', () => {
  const { signal, abort } = (() => {
    const controller = new AbortController();
    return { signal: controller.signal, abort: () => controller.abort() };
  })();
  const seen = [];
  signal.addEventListener('abort', (event) => seen.push([event.type, event.target === signal, event.isTrusted, event.bubbles]));
  signal.onabort = () => seen.push('handler');
  abort();
  abort();
  alike(seen, [['abort', true, true, false], 'handler']);
});
fact('AbortSignal.abort is aborted and fires nothing', () => {
  const signal = AbortSignal.abort('x');
  signal.onabort = () => { throw new Error('fired'); };
  same(signal.aborted, true);
});
fact('timeout aborts with a TimeoutError', async () => {
  const signal = AbortSignal.timeout(1);
  same(signal.aborted, false);
  await new Promise((resolve) => { signal.onabort = resolve; });
  same(signal.reason.name, 'TimeoutError');
});
fact('timeout refuses what is no unsigned long long', () => {
  for (const value of [-1, Infinity, NaN, 2 ** 53, 'x']) throws(TypeError, () => AbortSignal.timeout(value), String(value));
  throws(TypeError, () => AbortSignal.timeout());
});
fact('any follows the first of its signals', () => {
  const first = new AbortController();
  const second = new AbortController();
  const any = AbortSignal.any([first.signal, second.signal]);
  same(any.aborted, false);
  second.abort('second');
  first.abort('first');
  same(any.reason, 'second');
});
fact('any of an aborted signal is aborted at once', () => {
  same(AbortSignal.any([AbortSignal.abort('a'), AbortSignal.abort('b')]).reason, 'a');
  same(AbortSignal.any([]).aborted, false);
});
fact('any of any is aborted with its source, after the source', () => {
  const controller = new AbortController();
  const inner = AbortSignal.any([controller.signal]);
  const outer = AbortSignal.any([inner]);
  const order = [];
  outer.onabort = () => order.push('outer', inner.aborted);
  inner.onabort = () => order.push('inner', outer.aborted);
  controller.signal.onabort = () => order.push('source', inner.aborted, outer.aborted);
  controller.abort();
  alike(order, ['source', true, true, 'inner', true, 'outer', true]);
});
fact('a signal of any lives as long as somebody listens to it', async () => {
  const source = new AbortController();
  let heard = 0;
  for (let i = 0; i < 100; i++) AbortSignal.any([source.signal]).addEventListener('abort', () => heard++);
  AbortSignal.any([source.signal]).onabort = () => heard++;
  const unheard = new WeakRef(AbortSignal.any([source.signal]));
  // A turn of its own lets go of what WeakRefs held in this one.
  await new Promise((resolve) => setTimeout(resolve, 0));
  gc();
  await new Promise((resolve) => setTimeout(resolve, 0));
  same(unheard.deref(), undefined);
  source.abort();
  same(heard, 101);
});
fact('any refuses what is no signal', () => {
  throws(TypeError, () => AbortSignal.any([{}]));
  throws(TypeError, () => AbortSignal.any(1));
  throws(TypeError, () => AbortSignal.any());
});
fact('a listener added with a signal goes with it', () => {
  const controller = new AbortController();
  const target = new EventTarget();
  let calls = 0;
  target.addEventListener('x', () => calls++, { signal: controller.signal });
  target.dispatchEvent(new Event('x'));
  controller.abort();
  target.dispatchEvent(new Event('x'));
  same(calls, 1);
  target.addEventListener('x', () => calls++, { signal: controller.signal });
  target.dispatchEvent(new Event('x'));
  same(calls, 1);
  throws(TypeError, () => target.addEventListener('x', () => {}, { signal: null }));
});
fact('signals are not made by new', () => {
  throws(TypeError, () => new AbortSignal());
  holds(AbortSignal.abort() instanceof EventTarget);
});
end();
