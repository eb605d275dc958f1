// FormData and forms in bodies. https://xhr.spec.whatwg.org/#interface-formdata
// https://fetch.spec.whatwg.org/#dom-body-formdata

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

const multipart = (text, boundary = 'b') =>
  new Response(text, { headers: { 'content-type': `multipart/form-data; boundary=${boundary}` } });

fact('entries are kept in their order', () => {
  const form = new FormData();
  form.append('a', 1);
  form.append('b', '\ud800');
  form.append('a', 'x');
  alike([...form], [['a', '1'], ['b', '\ufffd'], ['a', 'x']]);
  same(form.get('a'), '1');
  same(form.get('z'), null);
  alike(form.getAll('a'), ['1', 'x']);
  alike(form.getAll('z'), []);
  form.set('a', 'y');
  alike([...form.entries()], [['a', 'y'], ['b', '\ufffd']]);
  form.set('c', 'new');
  alike([...form.keys()], ['a', 'b', 'c']);
  form.append('b', '2');
  form.delete('b');
  alike([...form.values()], ['y', 'new']);
  alike([form.has('a'), form.has('b')], [true, false]);
});
fact('set replaces the first of many and drops the others', () => {
  const form = new FormData();
  for (const name of ['x', 'a', 'y', 'a', 'z', 'a']) form.append(name, '0');
  form.set('a', '1');
  alike([...form], [['x', '0'], ['a', '1'], ['y', '0'], ['z', '0']]);
});
fact('blobs become files', () => {
  const form = new FormData();
  const file = new File(['a'], 'f', { type: 'x/y', lastModified: 7 });
  form.append('blob', new Blob(['b'], { type: 'b/c' }));
  form.append('file', file);
  form.append('file', file, 'g');
  form.append('file', file, undefined);
  const blob = form.get('blob');
  holds(blob instanceof File);
  alike([blob.name, blob.type, blob.size], ['blob', 'b/c', 1]);
  same(form.get('blob'), blob);
  same(form.get('file'), file);
  const renamed = form.getAll('file')[1];
  alike([renamed.name, renamed.type, renamed.lastModified], ['g', 'x/y', 7]);
  same(form.getAll('file')[2], file);
  throws(TypeError, () => form.append('a', 'text', 'name'));
  throws(TypeError, () => form.set('a', {}, undefined));
});
fact('iteration is live and checks its receiver', () => {
  const form = new FormData();
  form.append('a', '1');
  const seen = [];
  for (const [name] of form) {
    seen.push(name);
    if (seen.length < 3) form.append(`n${seen.length}`, '');
  }
  alike(seen, ['a', 'n1', 'n2']);
  const rows = [];
  form.forEach(function (value, name, object) { rows.push([this.t, value, name, object === form]); }, { t: 1 });
  alike(rows[0], [1, '1', 'a', true]);
  const iterator = form.keys();
  same(Object.prototype.toString.call(iterator), '[object FormData Iterator]');
  same(iterator[Symbol.iterator](), iterator);
  same(form[Symbol.iterator], form.entries);
  throws(TypeError, () => iterator.next.call({}));
  throws(TypeError, () => iterator.next.call(new URLSearchParams('a').keys()));
  throws(TypeError, () => FormData.prototype.get.call({}, 'a'));
  throws(TypeError, () => new FormData(null));
  throws(TypeError, () => form.append('a'));
  throws(TypeError, () => form.forEach(1));
});
fact('a form is encoded with a boundary of its own', async () => {
  const form = new FormData();
  form.append('a"\n\r\nb', 'x\ny\rz\r\n');
  form.append('f', new File([new Uint8Array([0, 255])], 'n"\n.bin'));
  form.append('g', new File(['t'], 'é', { type: 'text/plain' }));
  const request = new Request('http://a/', { method: 'POST', body: form });
  const type = request.headers.get('content-type');
  const boundary = /^multipart\/form-data; boundary=([-\w]{20,70})$/.exec(type)[1];
  const bytes = await request.bytes();
  const text = [...bytes].map((byte) => String.fromCharCode(byte)).join('');
  same(text, `--${boundary}\r\nContent-Disposition: form-data; name="a%22%0D%0A%0D%0Ab"\r\n\r\nx\r\ny\r\nz\r\n\r\n`
    + `--${boundary}\r\nContent-Disposition: form-data; name="f"; filename="n%22%0A.bin"\r\nContent-Type: application/octet-stream\r\n\r\n\0\xff\r\n`
    + `--${boundary}\r\nContent-Disposition: form-data; name="g"; filename="\xc3\xa9"\r\nContent-Type: text/plain\r\n\r\nt\r\n`
    + `--${boundary}--\r\n`);
  const other = new Response(form).headers.get('content-type');
  holds(other !== type);
});
fact('what was encoded can be read', async () => {
  const form = new FormData();
  form.append('a"b', 'x\r\ny \ufeff\u20ac');
  form.append('', '');
  form.append('f', new File([new Uint8Array(70000).fill(13)], 'n "%41".bin', { type: 'q/r' }));
  const copy = await new Response(form).formData();
  holds(copy instanceof FormData);
  alike([...copy.keys()], ['a"b', '', 'f']);
  same(copy.get('a"b'), 'x\r\ny \ufeff\u20ac');
  const file = copy.get('f');
  alike([file.name, file.type, file.size], ['n "%41".bin', 'q/r', 70000]);
  holds((await file.bytes()).every((byte) => byte === 13));
  alike([...await new Response(new FormData()).formData()], []);
});
fact('a text keeps its byte order mark, a file without a type is plain text', async () => {
  const form = await multipart('--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\ufeffx\r\n'
    + '--b\r\nContent-Disposition: form-data; name=f; filename=g\r\n\r\n\r\n--b--').formData();
  same(form.get('a'), '\ufeffx');
  alike([form.get('f').type, form.get('f').name, form.get('f').size], ['text/plain', 'g', 0]);
});
fact('malformed forms and other types are refused', async () => {
  await rejects(TypeError, multipart('').formData());
  await rejects(TypeError, multipart('--b\r\n\r\n\r\n--b--').formData());
  await rejects(TypeError, multipart('--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx').formData());
  await rejects(TypeError, new Response('--b--', { headers: { 'content-type': 'multipart/form-data' } }).formData());
  await rejects(TypeError, new Response('a=b').formData());
  await rejects(TypeError, new Response().formData());
  await rejects(TypeError, Response.prototype.formData.call({}));
  const used = multipart('--b--');
  await used.formData();
  same(used.bodyUsed, true);
  await rejects(TypeError, used.formData());
});
fact('an urlencoded form is read from bytes', async () => {
  const form = await new Response(new URLSearchParams([['a', 'b c'], ['a', '\u20ac&']])).formData();
  alike([...form], [['a', 'b c'], ['a', '\u20ac&']]);
  const type = { headers: { 'content-type': 'application/x-www-form-urlencoded' } };
  alike([...await new Response(new Uint8Array([97, 61, 0xff]), type).formData()], [['a', '\ufffd']]);
  alike([...await new Response(null, type).formData()], []);
  await rejects(TypeError, new Response('a&'.repeat(16385), type).formData());
  same([...await new Response('a&'.repeat(16384), type).formData()].length, 16384);
});
fact('a form cannot be cloned', () => throws('DataCloneError', () => structuredClone(new FormData())));
end();
