// DOMException. https://webidl.spec.whatwg.org/#idl-DOMException

import { fact, end, same, holds, throws, alike } from './facts.js';

fact('message and name have defaults', () => {
  const exception = new DOMException();
  same(exception.message, '');
  same(exception.name, 'Error');
  same(exception.code, 0);
});
fact('names have their legacy codes', () => {
  same(new DOMException('m', 'NotFoundError').code, 8);
  same(new DOMException('m', 'DataCloneError').code, 25);
  same(new DOMException('m', 'NotAllowedError').code, 0);
  same(new DOMException('m', 'toString').code, 0);
  same(DOMException.DATA_CLONE_ERR, 25);
  same(DOMException.prototype.ABORT_ERR, 20);
});
fact('it is an Error with a stack', () => {
  const exception = new DOMException('text', 'AbortError');
  holds(exception instanceof Error);
  holds(Error.isError(exception));
  same(String(exception), 'AbortError: text');
  holds(exception.stack.startsWith('AbortError: text\n    at '), exception.stack);
  holds(exception.stack.includes('dom_exception.js'), exception.stack);
  same(Object.prototype.toString.call(exception), '[object DOMException]');
});
fact('its attributes live on the prototype', () => {
  const exception = new DOMException('a', 'b');
  same(Object.hasOwn(exception, 'message'), false);
  same(Object.hasOwn(exception, 'name'), false);
  throws(TypeError, () => { exception.name = 'changed'; });
  same(exception.name, 'b');
});
fact('it can be extended', () => {
  class Mine extends DOMException {}
  const mine = new Mine('m', 'AbortError');
  holds(mine instanceof Mine && mine instanceof DOMException);
  same(mine.code, 20);
});
fact('it needs new, and its getters a DOMException', () => {
  throws(TypeError, () => DOMException('x'));
  throws(TypeError, () => DOMException.prototype.name);
  throws(TypeError, () => new DOMException(Symbol()));
});
fact('QuotaExceededError is a class with its numbers', () => {
  const error = new QuotaExceededError('full', { quota: 1, requested: 2.5 });
  alike([error.name, error.code, error.message, error.quota, error.requested], ['QuotaExceededError', 22, 'full', 1, 2.5]);
  holds(error instanceof DOMException && error instanceof Error);
  alike([new QuotaExceededError().quota, new QuotaExceededError().requested], [null, null]);
  for (const options of [{ quota: -1 }, { requested: -1 }, { quota: 2, requested: 1 }]) {
    throws(RangeError, () => new QuotaExceededError('', options));
  }
  throws(TypeError, () => new QuotaExceededError('', { quota: Infinity }));
  throws(TypeError, () => QuotaExceededError.prototype.quota);
});
end();
