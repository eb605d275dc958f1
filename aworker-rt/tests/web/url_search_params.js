// URLSearchParams. https://url.spec.whatwg.org/#interface-urlsearchparams

import { fact, end, same, alike, throws } from './facts.js';

fact('text is parsed as a form', () => {
  alike([...new URLSearchParams('?a=1&b=%20+%zz&c&=d&&e=f=g')], [['a', '1'], ['b', '  %zz'], ['c', ''], ['', 'd'], ['e', 'f=g']]);
  alike([...new URLSearchParams('??a')], [['?a', '']]);
  alike([...new URLSearchParams('%ff=%e2%82%ac')], [['\ufffd', '\u20ac']]);
});
fact('pairs, records and other parameters are taken', () => {
  alike([...new URLSearchParams([['a', 1], new Set(['b', 2])])], [['a', '1'], ['b', '2']]);
  alike([...new URLSearchParams({ x: 1, y: null })], [['x', '1'], ['y', 'null']]);
  alike([...new URLSearchParams(new URLSearchParams('a=b'))], [['a', 'b']]);
  alike([...new URLSearchParams(new Map([['k', 'v']]))], [['k', 'v']]);
  same(new URLSearchParams(undefined).size, 0);
  same(new URLSearchParams(null).toString(), 'null=');
  same(new URLSearchParams({ '\ud800': 1, '\udbff': 2 }).toString(), '%EF%BF%BD=2');
  throws(TypeError, () => new URLSearchParams([['a']]));
  throws(TypeError, () => new URLSearchParams([['a', 'b', 'c']]));
  throws(TypeError, () => new URLSearchParams([1]));
});
fact('text comes out encoded', () => {
  same(new URLSearchParams([['a b', "*-._~!'()"], ['\u00e9', '\u{1f600}&=']]).toString(), 'a+b=*-._%7E%21%27%28%29&%C3%A9=%F0%9F%98%80%26%3D');
});
fact('values are found, set and deleted', () => {
  const params = new URLSearchParams('a=1&b=2&a=3');
  same(params.get('a'), '1');
  same(params.get('x'), null);
  alike(params.getAll('a'), ['1', '3']);
  alike([params.has('a'), params.has('a', '3'), params.has('a', '2'), params.has('x')], [true, true, false, false]);
  params.set('a', '9');
  same(params.toString(), 'a=9&b=2');
  params.append('a', '10');
  params.delete('a', '9');
  same(params.toString(), 'b=2&a=10');
  params.delete('a', undefined);
  same(params.toString(), 'b=2');
  same(params.size, 1);
  throws(TypeError, () => params.append('a'));
});
fact('sort is stable and by code units', () => {
  const params = new URLSearchParams('z=1&\ufffd=2&a=3&z=0&\u{1f600}=4');
  params.sort();
  alike([...params.values()], ['3', '1', '0', '4', '2']);
});
fact('iterators are live', () => {
  const params = new URLSearchParams('a=1&b=2');
  const seen = [];
  for (const [name] of params) {
    seen.push(name);
    if (name === 'a') params.append('c', '3');
  }
  alike(seen, ['a', 'b', 'c']);
  const iterator = params.keys();
  same(Object.prototype.toString.call(iterator), '[object URLSearchParams Iterator]');
  same(iterator[Symbol.iterator](), iterator);
  same(params[Symbol.iterator], params.entries);
  throws(TypeError, () => iterator.next.call({}));
  const rows = [];
  params.forEach(function (value, name, object) { rows.push([this.x, value, name, object === params]); }, { x: 1 });
  alike(rows[0], [1, '1', 'a', true]);
  throws(TypeError, () => params.forEach(1));
});
end();
