// EventTarget and dispatch. https://dom.spec.whatwg.org/#interface-eventtarget

import { fact, end, same, alike, throws } from './facts.js';

const dispatch = (target, type = 'x', init) => {
  const event = new Event(type, init);
  target.dispatchEvent(event);
  return event;
};

fact('listeners run in order with the target as this', () => {
  const target = new EventTarget();
  const seen = [];
  target.addEventListener('x', function (event) { seen.push('function', this === target, event.eventPhase); });
  const object = { handleEvent() { seen.push('object', this === object); } };
  target.addEventListener('x', object);
  const event = dispatch(target);
  alike(seen, ['function', true, 2, 'object', true]);
  alike([event.target === target, event.currentTarget, event.eventPhase], [true, null, 0]);
});
fact('capturing listeners run first', () => {
  const target = new EventTarget();
  const seen = [];
  target.addEventListener('x', () => seen.push('bubble'));
  target.addEventListener('x', () => seen.push('capture'), true);
  dispatch(target);
  alike(seen, ['capture', 'bubble']);
});
fact('the same listener is added once per phase', () => {
  const target = new EventTarget();
  let calls = 0;
  const listener = () => calls++;
  target.addEventListener('x', listener);
  target.addEventListener('x', listener, { once: true });
  target.addEventListener('x', listener, true);
  dispatch(target);
  same(calls, 2);
  target.removeEventListener('x', listener, { capture: true });
  dispatch(target);
  same(calls, 3);
});
fact('a listener of once is gone before it is called', () => {
  const target = new EventTarget();
  let calls = 0;
  target.addEventListener('x', () => {
    if (calls++ < 5) dispatch(target);
  }, { once: true });
  dispatch(target);
  same(calls, 1);
});
fact('listeners removed during dispatch are not called, added ones neither', () => {
  const target = new EventTarget();
  const seen = [];
  const second = () => seen.push('second');
  target.addEventListener('x', () => {
    seen.push('first');
    target.removeEventListener('x', second);
    target.addEventListener('x', () => seen.push('third'));
  });
  target.addEventListener('x', second);
  dispatch(target);
  alike(seen, ['first']);
});
fact('a passive listener cannot cancel', () => {
  const target = new EventTarget();
  target.addEventListener('x', (event) => event.preventDefault(), { passive: true });
  same(dispatch(target, 'x', { cancelable: true }).defaultPrevented, false);
});
fact('dispatchEvent tells whether it was cancelled', () => {
  const target = new EventTarget();
  target.addEventListener('x', (event) => event.preventDefault());
  same(target.dispatchEvent(new Event('x', { cancelable: true })), false);
  same(target.dispatchEvent(new Event('x')), true);
});
fact('stopImmediatePropagation ends the dispatch, stopPropagation the phase', () => {
  const target = new EventTarget();
  const seen = [];
  target.addEventListener('x', (event) => { seen.push(1); event.stopImmediatePropagation(); });
  target.addEventListener('x', () => seen.push(2));
  target.addEventListener('y', (event) => { seen.push(3); event.stopPropagation(); }, true);
  target.addEventListener('y', () => seen.push(4), true);
  target.addEventListener('y', () => seen.push(5));
  dispatch(target);
  const event = dispatch(target, 'y');
  alike(seen, [1, 3, 4]);
  same(event.cancelBubble, false);
});
fact('an event stopped before its dispatch reaches nobody', () => {
  const target = new EventTarget();
  target.addEventListener('x', () => { throw new Error('called'); });
  const event = new Event('x');
  event.cancelBubble = true;
  target.dispatchEvent(event);
});
fact('an event cannot be dispatched while it is', () => {
  const target = new EventTarget();
  let failure;
  target.addEventListener('x', (event) => {
    try {
      target.dispatchEvent(event);
    } catch (error) {
      failure = error.name;
    }
  });
  dispatch(target);
  same(failure, 'InvalidStateError');
});
fact('an event can be dispatched again', () => {
  const target = new EventTarget();
  let calls = 0;
  target.addEventListener('x', () => calls++);
  const event = new Event('x');
  target.dispatchEvent(event);
  target.dispatchEvent(event);
  same(calls, 2);
});
fact('composedPath is the target during dispatch', () => {
  const target = new EventTarget();
  let path;
  target.addEventListener('x', (event) => { path = event.composedPath(); });
  const event = dispatch(target);
  same(path.length, 1);
  same(path[0], target);
  same(event.composedPath().length, 0);
});
fact('null is no listener, and arguments are checked', () => {
  const target = new EventTarget();
  target.addEventListener('x', null);
  target.removeEventListener('x', undefined);
  dispatch(target);
  throws(TypeError, () => target.addEventListener('x'));
  throws(TypeError, () => target.addEventListener('x', 1));
  throws(TypeError, () => target.dispatchEvent({}));
  throws(TypeError, () => target.dispatchEvent());
  throws(TypeError, () => EventTarget.prototype.addEventListener.call({}, 'x', () => {}));
});
fact('the global object is an event target', () => {
  const seen = [];
  const listener = (event) => seen.push(event.target === globalThis, event.currentTarget === self);
  addEventListener('custom', listener);
  self.addEventListener('custom', function () { seen.push(this === globalThis); });
  same(dispatchEvent(new Event('custom')), true);
  removeEventListener('custom', listener);
  EventTarget.prototype.dispatchEvent.call(undefined, new Event('custom'));
  alike(seen, [true, true, true, true]);
});
fact('EventTarget can be extended', () => {
  class Mine extends EventTarget {}
  const mine = new Mine();
  let calls = 0;
  mine.addEventListener('x', () => calls++);
  dispatch(mine);
  same(calls, 1);
});
end();
