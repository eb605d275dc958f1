// Event and its kinds. https://dom.spec.whatwg.org/#interface-event

import { fact, end, same, alike, holds, throws } from './facts.js';

fact('an event has the attributes of its init', () => {
  const event = new Event('x', { bubbles: true, cancelable: 1, composed: 'yes' });
  alike([event.type, event.bubbles, event.cancelable, event.composed], ['x', true, true, true]);
  const plain = new Event(null);
  alike([plain.type, plain.bubbles, plain.cancelable, plain.composed], ['null', false, false, false]);
  alike([plain.target, plain.currentTarget, plain.srcElement, plain.eventPhase], [null, null, null, 0]);
  same(plain.isTrusted, false);
  const { get, set, enumerable, configurable } = Object.getOwnPropertyDescriptor(plain, 'isTrusted');
  alike([typeof get, set, enumerable, configurable], ['function', undefined, true, false]);
  same(get, Object.getOwnPropertyDescriptor(new CustomEvent('x'), 'isTrusted').get);
  same('isTrusted' in Event.prototype, false);
  holds(plain.timeStamp > 0 && plain.timeStamp <= performance.now());
});
fact('the type is required', () => {
  throws(TypeError, () => new Event());
  throws(TypeError, () => new Event('x', 1));
  throws(TypeError, () => Event('x'));
});
fact('preventDefault works on cancelable events only', () => {
  const event = new Event('x');
  event.preventDefault();
  same(event.defaultPrevented, false);
  const cancelable = new Event('x', { cancelable: true });
  cancelable.returnValue = false;
  same(cancelable.defaultPrevented, true);
  same(cancelable.returnValue, false);
});
fact('phases are constants', () => {
  alike([Event.NONE, Event.CAPTURING_PHASE, Event.AT_TARGET, Event.BUBBLING_PHASE], [0, 1, 2, 3]);
  same(new Event('x').AT_TARGET, 2);
});
fact('initEvent starts over, but not during dispatch', () => {
  const event = new Event('x', { cancelable: true });
  event.preventDefault();
  event.initEvent('y', true);
  alike([event.type, event.bubbles, event.cancelable, event.defaultPrevented], ['y', true, false, false]);
  const target = new EventTarget();
  target.addEventListener('y', () => event.initEvent('z'));
  target.dispatchEvent(event);
  same(event.type, 'y');
});
fact('CustomEvent carries a detail', () => {
  const detail = {};
  same(new CustomEvent('x', { detail }).detail, detail);
  same(new CustomEvent('x').detail, null);
  const event = new CustomEvent('x');
  event.initCustomEvent('y', false, true, 7);
  alike([event.type, event.cancelable, event.detail], ['y', true, 7]);
});
fact('ErrorEvent has its members', () => {
  const error = {};
  const event = new ErrorEvent('error', { message: 'm', filename: 'f', lineno: 3, colno: 4, error });
  alike([event.message, event.filename, event.lineno, event.colno], ['m', 'f', 3, 4]);
  same(event.error, error);
  alike([new ErrorEvent('e').message, new ErrorEvent('e').lineno], ['', 0]);
  same(new ErrorEvent('e').error, undefined);
});
fact('PromiseRejectionEvent needs a promise', () => {
  const promise = Promise.resolve();
  const event = new PromiseRejectionEvent('x', { promise, reason: 1 });
  same(event.promise, promise);
  same(event.reason, 1);
  throws(TypeError, () => new PromiseRejectionEvent('x'));
  throws(TypeError, () => new PromiseRejectionEvent('x', {}));
});
fact('MessageEvent has defaults and frozen ports', () => {
  const event = new MessageEvent('message', { data: 1, origin: 'o', lastEventId: 'i' });
  alike([event.data, event.origin, event.lastEventId, event.source], [1, 'o', 'i', null]);
  holds(Object.isFrozen(event.ports) && event.ports === event.ports);
  same(new MessageEvent('message').data, null);
});
fact('events can be extended', () => {
  class Mine extends Event {
    constructor() {
      super('mine');
      this.extra = 1;
    }
  }
  const target = new EventTarget();
  let seen;
  target.addEventListener('mine', (event) => { seen = event.extra; });
  target.dispatchEvent(new Mine());
  same(seen, 1);
});
end();
