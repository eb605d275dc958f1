// URLPattern. https://urlpattern.spec.whatwg.org/

import { fact, end, same, alike, holds, throws } from './facts.js';

fact('constructor strings are taken apart', () => {
  const pattern = new URLPattern('https://*.example.com:8443/books/:id(\\d+)\\?q=*#:part');
  alike(
    [pattern.protocol, pattern.username, pattern.password, pattern.hostname, pattern.port, pattern.pathname, pattern.search, pattern.hash],
    ['https', '*', '*', '*.example.com', '8443', '/books/:id(\\d+)', 'q=*', ':part'],
  );
  same(pattern.hasRegExpGroups, true);
  const { hostname, pathname, search } = pattern.exec('https://a.b.example.com:8443/books/42?q=x#y');
  alike([hostname.groups, pathname.groups, pathname.input, search.groups], [{ 0: 'a.b' }, { id: '42' }, '/books/42', { 0: 'x' }]);
  same(pattern.test('https://a.example.com:8443/books/x?q=1#y'), false);
});
fact('parts that are missing match anything, but those before one that is given', () => {
  const pattern = new URLPattern({ pathname: '/a/:b' });
  alike([pattern.protocol, pattern.hostname, pattern.search], ['*', '*', '*']);
  same(pattern.test('http://x/a/b?c#d'), true);
  same(new URLPattern('http://x/a').test('http://x/a?b'), true);
  same(new URLPattern('http://x#a').test('http://x/b#a'), false);
  same(new URLPattern('/a', 'http://x/y?z').test('http://x/a'), true);
});
fact('modifiers, groups and wildcards', () => {
  for (const [pathname, matching, failing] of [
    ['/a{/b}?', ['/a', '/a/b'], ['/a/', '/a/b/b']],
    ['/a/:b*', ['/a', '/a/b', '/a/b/c'], ['/ab']],
    ['/a/:b+', ['/a/b', '/a/b/c'], ['/a', '/a/']],
    ['/*.:ext(png|jpg)', ['/x/y.png'], ['/x.gif']],
    ['/\\:a', ['/:a'], ['/x']],
    ['/:a-:b', ['/x-y'], ['/x']],
  ]) {
    const pattern = new URLPattern({ pathname });
    for (const path of matching) holds(pattern.test({ pathname: path }), `${pathname} on ${path}`);
    for (const path of failing) holds(!pattern.test({ pathname: path }), `${pathname} not on ${path}`);
  }
});
fact('expressions are those of the language', () => {
  const pattern = new URLPattern({ pathname: '/([\\p{Lu}--[Q]]+)' });
  alike([pattern.test({ pathname: '/ABC' }), pattern.test({ pathname: '/AQ' })], [true, false]);
  throws(TypeError, () => new URLPattern({ pathname: '/(*)' }));
  throws(TypeError, () => new URLPattern({ pathname: '/([)' }));
});
fact('fixed text is written as in URLs', () => {
  alike([new URLPattern({ pathname: '/ä b' }).pathname, new URLPattern({ hostname: 'EXÄMPLE.com' }).hostname], ['/%C3%A4%20b', 'xn--exmple-cua.com']);
  same(new URLPattern({ protocol: 'http', port: '80' }).port, '');
  same(new URLPattern('http://[\\:\\:1]/').test('http://[::1]/'), true);
  same(new URLPattern({ protocol: 'data', pathname: 'a b' }).pathname, 'a b');
});
fact('an option ignores case, of paths, queries and fragments', () => {
  const pattern = new URLPattern('https://a.b/Path?Query#Hash', { ignoreCase: true });
  same(pattern.test('https://a.b/pATH?qUERY#hASH'), true);
  same(new URLPattern('https://a.b/Path').test('https://a.b/path'), false);
});
fact('inputs are told as they were given', () => {
  const pattern = new URLPattern({ pathname: '/a' });
  alike(pattern.exec('/a', 'http://x').inputs, ['/a', 'http://x']);
  alike(pattern.exec({ pathname: '/a' }).inputs, [{ pathname: '/a' }]);
  same(pattern.exec('no URL'), null);
  same(pattern.test({ pathname: 'b', baseURL: 'nothing' }), false);
  const groups = new URLPattern({ pathname: '{/:a}?' }).exec({ pathname: '' }).pathname.groups;
  holds('a' in groups && groups.a === undefined);
});
fact('wrong uses are type errors', () => {
  throws(TypeError, () => new URLPattern('/relative'));
  throws(TypeError, () => new URLPattern({ pathname: '/a' }, 'http://x'));
  throws(TypeError, () => new URLPattern({ pathname: '/a' }).test({ pathname: '/a' }, 'http://x'));
  throws(TypeError, () => new URLPattern({ pathname: '/:a/:a' }));
  throws(TypeError, () => new URLPattern({ pathname: '/{a' }));
  throws(TypeError, () => new URLPattern({ baseURL: 'x' }));
  throws(TypeError, () => URLPattern('http://x'));
  throws(TypeError, () => URLPattern.prototype.pathname);
  same(URLPattern.length, 0);
});
end();
