// Blob and File. https://w3c.github.io/FileAPI/

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

fact('parts are joined', async () => {
  const blob = new Blob(['a\u00e9', new Uint8Array([98]), new Uint8Array([99]).buffer, new Blob(['d']), 5], { type: 'Text/PLAIN' });
  same(await blob.text(), 'a\u00e9bcd5');
  alike([blob.size, blob.type], [7, 'text/plain']);
  same(new Blob([], { type: 'a\u00e9' }).type, '');
  same(new Blob(undefined).size, 0);
  throws(TypeError, () => new Blob('text'));
  throws(TypeError, () => new Blob(1));
});
fact('later changes of a part are not seen', async () => {
  const bytes = new Uint8Array([97]);
  const blob = new Blob([bytes]);
  bytes[0] = 98;
  (await blob.bytes())[0] = 99;
  new Uint8Array(await blob.arrayBuffer())[0] = 100;
  same(await blob.text(), 'a');
});
fact('slices count from either end', async () => {
  const blob = new Blob(['0123456789']);
  for (const [args, text] of [[[2, 5], '234'], [[-3], '789'], [[5, 2], ''], [[0, -8], '01'], [[100], ''], [[NaN, 1], '0']]) {
    same(await blob.slice(...args).text(), text, String(args));
  }
  same(blob.slice(0, 1, 'A/b').type, 'a/b');
});
fact('a blob can be streamed', async () => {
  const blob = new Blob([new Uint8Array(200000).fill(7)]);
  let length = 0;
  for await (const chunk of blob.stream()) {
    holds(chunk instanceof Uint8Array && chunk[0] === 7);
    length += chunk.length;
  }
  same(length, 200000);
  const reader = new Blob(['ab']).stream().getReader({ mode: 'byob' });
  alike([...(await reader.read(new Uint8Array(9))).value], [97, 98]);
  same((await reader.read(new Uint8Array(1))).done, true);
  same(await blob.slice(0, 0).text(), '');
});
fact('native line endings are line feeds', async () => {
  same(await new Blob(['a\r\nb\rc\n'], { endings: 'native' }).text(), 'a\nb\nc\n');
  throws(TypeError, () => new Blob([], { endings: 'x' }));
});
fact('a file is a blob with a name', () => {
  const file = new File(['a'], 'n/\ud800', { type: 'x/y', lastModified: 5 });
  alike([file.name, file.lastModified, file.type, file.size], ['n/\ufffd', 5, 'x/y', 1]);
  holds(file instanceof Blob && Math.abs(new File([], 'f').lastModified - Date.now()) < 1000);
  throws(TypeError, () => new File([]));
  throws(TypeError, () => new File(undefined, 'x'));
});
fact('the receiver is checked', async () => {
  await rejects(TypeError, Blob.prototype.text.call({}));
  throws(TypeError, () => Blob.prototype.slice.call({}));
});
fact('parts may be views of any type', async () => {
  const views = [Float16Array, Float32Array, BigInt64Array, DataView].map((View) => new View(new ArrayBuffer(8)));
  same(new Blob(views).size, 32);
});
end();
