// URL. https://url.spec.whatwg.org/#url-class

import { fact, end, same, alike, holds, throws } from './facts.js';

const parts = (url) => [
  url.href, url.origin, url.protocol, url.username, url.password, url.host, url.hostname, url.port, url.pathname, url.search, url.hash,
];

fact('a URL has its components', () => {
  alike(parts(new URL('https://us%20er:pa@ex\u00e4mple.com:8080/a/../b%7f?q=1&\u00e9#f r')), [
    'https://us%20er:pa@xn--exmple-cua.com:8080/b%7f?q=1&%C3%A9#f%20r', 'https://xn--exmple-cua.com:8080', 'https:', 'us%20er', 'pa',
    'xn--exmple-cua.com:8080', 'xn--exmple-cua.com', '8080', '/b%7f', '?q=1&%C3%A9', '#f%20r',
  ]);
  alike(parts(new URL('HTTP://host:80')), ['http://host/', 'http://host', 'http:', '', '', 'host', 'host', '', '/', '', '']);
  alike(parts(new URL('mailto:a@b?c#d')), ['mailto:a@b?c#d', 'null', 'mailto:', '', '', '', '', '', 'a@b', '?c', '#d']);
  alike(parts(new URL('file:///c/d')), ['file:///c/d', 'null', 'file:', '', '', '', '', '', '/c/d', '', '']);
  alike(parts(new URL('http://user@h/?#')), ['http://user@h/?#', 'http://h', 'http:', 'user', '', 'h', 'h', '', '/', '', '']);
  alike(parts(new URL('http://:pw@h')).slice(3, 5), ['', 'pw']);
  alike(parts(new URL('web+demo:/.//p')).slice(5, 9), ['', '', '', '//p']);
  alike(parts(new URL('foo://h:1/p')).slice(1, 9), ['null', 'foo:', '', '', 'h:1', 'h', '1', '/p']);
});
fact('hosts are normalised', () => {
  for (const [input, host] of [
    ['http://0x7f.1', '127.0.0.1'], ['http://[::0:1]', '[::1]'], ['http://EXAMPLE.com', 'example.com'], ['http://%65x', 'ex'], ['http://2130706433', '127.0.0.1'],
  ]) same(new URL(input).host, host, input);
});
fact('a base resolves relative references', () => {
  for (const [input, href] of [
    ['../x?y#z', 'http://a/b/x?y#z'], ['//h/p', 'http://h/p'], ['?q', 'http://a/b/c/d?q'], ['#f', 'http://a/b/c/d#f'], ['', 'http://a/b/c/d'],
    ['/r', 'http://a/r'], ['g:h', 'g:h'], ['\\x', 'http://a/x'], ['http:x', 'http://a/b/c/x'],
  ]) same(new URL(input, 'http://a/b/c/d').href, href, input);
  same(new URL('x', new URL('http://a/b')).href, 'http://a/x');
});
fact('what is no URL is refused', () => {
  for (const input of ['', 'x', '//h', 'http://', 'http://a b', 'http://[::1', 'http://h:65536', 'http://1.2.3.256', 'http://a%00b', 'http://xn--']) {
    throws(TypeError, () => new URL(input), input);
    same(URL.canParse(input), false, input);
    same(URL.parse(input), null, input);
  }
  throws(TypeError, () => new URL('/x', 'mailto:a'));
  throws(TypeError, () => new URL());
  same(URL.canParse('x', 'http://a'), true);
  same(URL.parse('x', 'http://a').href, 'http://a/x');
});
fact('setters change their component only', () => {
  const url = new URL('http://u:p@h:81/p?q#f');
  url.protocol = 'https';
  url.username = 'me@';
  url.password = '';
  url.host = 'other:82';
  url.hostname = 'third';
  url.port = '83x';
  url.pathname = 'a b';
  url.search = 'x=\u00e9';
  url.hash = '';
  same(url.href, 'https://me%40@third:83/a%20b?x=%C3%A9');
  url.port = '443';
  same(url.port, '');
});
fact('setters ignore what they cannot take', () => {
  const url = new URL('http://h:81/');
  url.protocol = 'mailto';
  url.host = 'a b';
  url.hostname = '';
  url.port = 'x';
  same(url.href, 'http://h:81/');
  const mail = new URL('mailto:x');
  mail.pathname = '/y';
  mail.host = 'h';
  same(mail.href, 'mailto:x');
  throws(TypeError, () => { url.href = 'x'; });
  same(url.href, 'http://h:81/');
});
fact('searchParams is one live object', () => {
  const url = new URL('http://h/?a=1&b=2#f');
  const { searchParams } = url;
  same(url.searchParams, searchParams);
  searchParams.set('a', 'x y');
  same(url.href, 'http://h/?a=x+y&b=2#f');
  url.search = '?c=3';
  alike([...searchParams], [['c', '3']]);
  url.href = 'http://h/?d=4';
  same(searchParams.get('d'), '4');
  searchParams.delete('d');
  same(url.href, 'http://h/');
  url.search = '';
  same(searchParams.size, 0);
});
fact('a URL is its href in text and JSON', () => {
  const url = new URL('http://h');
  same(`${url}`, 'http://h/');
  same(JSON.stringify({ url }), '{"url":"http://h/"}');
  holds(!Object.keys(url).length);
});
fact('lone surrogates are replaced', () => same(new URL('http://h/\ud800').pathname, '/%EF%BF%BD'));
fact('the origin of a blob URL is that of a page within', () => {
  const origins = ['blob:https://a.b/x', 'blob:ftp://a.b/x', 'blob:blob:https://a.b/x', 'blob:x'].map((url) => new URL(url).origin);
  same(origins.join(), 'https://a.b,null,null,null');
});
fact('file URLs keep hosts, drives and empty segments', () => {
  for (const [text, base, href] of [
    ['file:////a//b', undefined, 'file:////a//b'],
    ['/', 'file://h/C:/a', 'file://h/C:/'],
    ['C|/x', 'file://h/d/f', 'file://h/C:/x'],
    ['file://localhost/x?a#b', undefined, 'file:///x?a#b'],
  ]) {
    same(new URL(text, base).href, href);
  }
  const url = new URL('file:///a/b?c#d');
  url.pathname = '//x';
  url.hostname = 'Host';
  url.search = '';
  url.hash = 'e f';
  url.port = '80';
  same(url.href, 'file://host//x#e%20f');
  same([url.protocol, url.host, url.port, url.pathname, url.search, url.hash, url.origin].join(), 'file:,host,,//x,,#e%20f,null');
});
fact('all slashes before an authority are one', () => same(new URL('///a/b', 'http://c/').href, 'http://a/b'));
fact('a path with two slashes in front does not become a host', () => {
  const changed = (text, key, value) => {
    const url = new URL(text);
    url[key] = value;
    return url.href;
  };
  same(changed('a:/b?c#d', 'pathname', '//e'), 'a:/.//e?c#d');
  same(changed('a:/.//b', 'pathname', 'c'), 'a:/c');
  same(changed('a:/.//b', 'hostname', 'h'), 'a://h//b');
  same(changed('a:/b', 'pathname', ''), 'a:/');
  same(changed('a:///b', 'pathname', ''), 'a://');
});
fact('paths are encoded as the standard has it', () => {
  same(new URL('http://h/a^b?^#^').href, 'http://h/a%5Eb?^#^');
  same(new URL('a://h/^').href, 'a://h/%5E');
  same(new URL('a:^  ?q').href, 'a:^ %20?q');
  same(new URL('a:b #f').href, 'a:b%20#f');
  same(new URL('a:b c').href, 'a:b c');
  const url = new URL('a:b ?q');
  url.search = '';
  same(url.href, 'a:b%20');
});
end();
