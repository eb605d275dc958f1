// atob and btoa. https://infra.spec.whatwg.org/#forgiving-base64

import { fact, end, same, throws } from './facts.js';

fact('btoa encodes Latin-1', () => {
  same(btoa(''), '');
  same(btoa('a'), 'YQ==');
  same(btoa('\xff\xfe'), '//4=');
  same(btoa(12), 'MTI=');
  throws('InvalidCharacterError', () => btoa('\u0100'));
  throws(TypeError, () => btoa());
});
fact('atob forgives white space and missing padding', () => {
  same(atob(' Y\tQ = = \n'), 'a');
  same(atob('YQ'), 'a');
  same(atob('//4='), '\xff\xfe');
  same(atob(''), '');
  same(atob(null), '\x9e\xe9e');
});
fact('atob refuses everything else', () => {
  for (const text of ['Y', 'YQ=', '=', 'YQ===', 'Y-_Q', 'ab\u00a0cd', '\u0100', 'abcd=']) {
    throws('InvalidCharacterError', () => atob(text), text);
  }
  throws(TypeError, () => atob());
});
fact('all bytes survive', () => {
  let text = '';
  for (let i = 0; i < 256; i++) text += String.fromCharCode(i);
  same(atob(btoa(text)), text);
});
end();
