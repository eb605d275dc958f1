// TextEncoder and TextDecoder. https://encoding.spec.whatwg.org/

import { fact, end, same, alike, throws } from './facts.js';

fact('encode gives UTF-8', () => {
  alike([...new TextEncoder().encode('h\u00e9\u20ac\u{1f600}')], [104, 195, 169, 226, 130, 172, 240, 159, 152, 128]);
  same(new TextEncoder().encode().length, 0);
  same(new TextEncoder().encoding, 'utf-8');
  alike([...new TextEncoder().encode('\ud800a\udc00')], [239, 191, 189, 97, 239, 191, 189]);
});
fact('encodeInto writes whole characters only', () => {
  const encoder = new TextEncoder();
  const bytes = new Uint8Array(5);
  alike(encoder.encodeInto('\u20ac\u20ac', bytes), { read: 1, written: 3 });
  alike(encoder.encodeInto('\u{1f600}a', new Uint8Array(4)), { read: 2, written: 4 });
  alike(encoder.encodeInto('\u{1f600}', new Uint8Array(3)), { read: 0, written: 0 });
  alike(encoder.encodeInto('\ud800x', new Uint8Array(9)), { read: 2, written: 4 });
  const part = new Uint8Array(10).subarray(4, 6);
  alike(encoder.encodeInto('abc', part), { read: 2, written: 2 });
  alike([...new Uint8Array(part.buffer)], [0, 0, 0, 0, 97, 98, 0, 0, 0, 0]);
  throws(TypeError, () => encoder.encodeInto('a', new Uint16Array(1)));
});
fact('labels are matched without case and white space', () => {
  for (const [label, name] of [
    ['UTF8', 'utf-8'], [' latin1\n', 'windows-1252'], ['ascii', 'windows-1252'], ['sjis', 'shift_jis'], ['utf-16', 'utf-16le'],
    ['gb2312', 'gbk'], ['x-user-defined', 'x-user-defined'], ['koi8-u', 'koi8-u'], ['iso-8859-8-i', 'iso-8859-8-i'],
  ]) same(new TextDecoder(label).encoding, name, label);
  throws(RangeError, () => new TextDecoder('nothing'));
  throws(RangeError, () => new TextDecoder('replacement'));
  throws(RangeError, () => new TextDecoder('\u00a0utf-8'));
});
fact('legacy encodings are decoded', () => {
  const decode = (label, bytes) => new TextDecoder(label).decode(new Uint8Array(bytes));
  same(decode('windows-1252', [0x80, 0xe9]), '\u20ac\u00e9');
  same(decode('shift_jis', [0x83, 0x65]), '\u30c6');
  same(decode('gb18030', [0xd6, 0xd0]), '\u4e2d');
  same(decode('euc-kr', [0xb0, 0xa1]), '\uac00');
  same(decode('utf-16be', [0, 65, 0xd8, 0]), 'A\ufffd');
});
fact('errors are replaced, or thrown if fatal', () => {
  const bad = new Uint8Array([97, 0xff, 98, 0xe2, 0x82]);
  same(new TextDecoder().decode(bad), 'a\ufffdb\ufffd');
  throws(TypeError, () => new TextDecoder('utf-8', { fatal: true }).decode(bad));
  throws(TypeError, () => new TextDecoder('utf-16le', { fatal: true }).decode(new Uint8Array([0])));
  same(new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([0xc3, 0xa9])), '\u00e9');
});
fact('surrogates and overlong forms are errors', () => {
  same(new TextDecoder().decode(new Uint8Array([0xed, 0xa0, 0x80])), '\ufffd\ufffd\ufffd');
  same(new TextDecoder().decode(new Uint8Array([0xc0, 0x80])), '\ufffd\ufffd');
  same(new TextDecoder().decode(new Uint8Array([0xf4, 0x90, 0x80, 0x80])), '\ufffd\ufffd\ufffd\ufffd');
});
fact('the byte order mark is dropped unless it is ignored', () => {
  const bytes = new Uint8Array([0xef, 0xbb, 0xbf, 97]);
  same(new TextDecoder().decode(bytes), 'a');
  same(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes), '\ufeffa');
  same(new TextDecoder('utf-16le').decode(bytes.subarray(0, 2)).length, 1);
});
fact('a character may be split over chunks', () => {
  const decoder = new TextDecoder();
  let text = '';
  for (const byte of [0xef, 0xbb, 0xbf, 0xf0, 0x9f, 0x98, 0x80]) text += decoder.decode(new Uint8Array([byte]), { stream: true });
  same(text + decoder.decode(), '\u{1f600}');
  decoder.decode(new Uint8Array([0xe2]), { stream: true });
  same(decoder.decode(), '\ufffd');
  same(decoder.decode(new Uint8Array([97])), 'a');
  const fatal = new TextDecoder('utf-8', { fatal: true });
  fatal.decode(new Uint8Array([0xe2]), { stream: true });
  throws(TypeError, () => fatal.decode());
  same(fatal.decode(new Uint8Array([97])), 'a');
});
fact('any buffer source is decoded, nothing else', () => {
  const bytes = new Uint8Array([120, 97, 98, 120]);
  const decoder = new TextDecoder();
  same(decoder.decode(bytes.buffer), 'xabx');
  same(decoder.decode(new DataView(bytes.buffer, 1, 2)), 'ab');
  same(decoder.decode(new Uint8Array(new SharedArrayBuffer(2))), '\0\0');
  same(decoder.decode(undefined), '');
  throws(TypeError, () => decoder.decode('text'));
  throws(TypeError, () => decoder.decode(null));
});
fact('large inputs are decoded whole', () => {
  const text = '\u00e9\u20acx'.repeat(100000);
  same(new TextDecoder().decode(new TextEncoder().encode(text)) === text, true);
});
fact('many unfinished decoders are possible', () => {
  for (let i = 0; i < 5000; i++) new TextDecoder().decode(new Uint8Array([0xe2]), { stream: true });
});
end();
