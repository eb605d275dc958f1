// CompressionStream and DecompressionStream. https://compression.spec.whatwg.org/

import { fact, end, same, alike, holds, throws, rejects } from './facts.js';

const formats = ['gzip', 'deflate', 'deflate-raw'];
const bytesOf = (stream) => new Response(stream).bytes();
const through = (chunks, transform) => bytesOf(ReadableStream.from(chunks).pipeThrough(transform));
const text = (bytes) => new TextDecoder().decode(bytes);

fact('what was compressed can be decompressed', async () => {
  const original = new TextEncoder().encode('The quick brown fox. '.repeat(5000));
  for (const format of formats) {
    const compressed = await through([original.slice(0, 10), original.buffer.slice(10)], new CompressionStream(format));
    holds(compressed.length < original.length / 50, format);
    const halves = [compressed.slice(0, 7), compressed.slice(7)];
    same(text(await through(halves, new DecompressionStream(format))), text(original), format);
    const empty = await through([], new CompressionStream(format));
    holds(empty.length > 0);
    same((await through([empty], new DecompressionStream(format))).length, 0);
  }
});
fact('known data is understood', async () => {
  const expected = 'expected output';
  // Made by zlib.
  const known = {
    gzip: 'H4sIAAAAAAACA0utKEhNLklNUcgvLSkoLQEAsAE5sw8AAAA=',
    deflate: 'eJxLrShITS5JTVHILy0pKC0BADCtBiQ=',
    'deflate-raw': 'S60oSE0uSU1RyC8tKSgtAQA=',
  };
  for (const format of formats) {
    const bytes = Uint8Array.from(atob(known[format]), (character) => character.charCodeAt(0));
    same(text(await through([bytes], new DecompressionStream(format))), expected, format);
  }
});
fact('damaged, cut and continued data errors both sides', async () => {
  for (const format of formats) {
    const whole = await through([new Uint8Array(1000)], new CompressionStream(format));
    await rejects(TypeError, through([whole.slice(0, -1)], new DecompressionStream(format)), `${format} cut`);
    await rejects(TypeError, through([whole, new Uint8Array(1)], new DecompressionStream(format)), `${format} continued`);
    await rejects(TypeError, through([], new DecompressionStream(format)), `${format} of nothing`);
    const stream = new DecompressionStream(format);
    const writer = stream.writable.getWriter();
    const reader = stream.readable.getReader();
    const reading = rejects(TypeError, reader.read());
    await rejects(TypeError, writer.write(new Uint8Array([0xff, 0xff, 0xff, 0xff])));
    await reading;
    await rejects(TypeError, writer.closed);
  }
});
fact('only bytes are taken', async () => {
  await rejects(TypeError, through(['text'], new CompressionStream('gzip')));
  await rejects(TypeError, through([new SharedArrayBuffer(1)], new CompressionStream('gzip')));
  throws(TypeError, () => new CompressionStream('brotli'));
  throws(TypeError, () => new DecompressionStream());
});
fact('a large output waits for its reader', async () => {
  const bomb = await through([new Uint8Array(50_000_000)], new CompressionStream('gzip'));
  const stream = new DecompressionStream('gzip');
  const writer = stream.writable.getWriter();
  let written = false;
  const writing = writer.write(bomb).then(() => { written = true; });
  const reader = stream.readable.getReader();
  const { value } = await reader.read();
  holds(value.length <= 65536);
  await new Promise((resolve) => setTimeout(resolve, 5));
  same(written, false);
  await reader.cancel('enough');
  await writing.catch(() => {});
  let length = 0;
  for await (const chunk of ReadableStream.from([bomb]).pipeThrough(new DecompressionStream('gzip'))) length += chunk.length;
  same(length, 50_000_000);
});
fact('a reader may leave while the stream is being closed', async () => {
  for (const format of formats) {
    const stream = new CompressionStream(format);
    const writer = stream.writable.getWriter();
    const reader = stream.readable.getReader();
    const first = reader.read();
    await writer.write(new Uint8Array(10));
    const closing = writer.close();
    await first;
    await reader.cancel('left');
    await closing.catch(() => {});
  }
});
fact('streams that are left do not use up the handles', async () => {
  for (let i = 0; i < 3000; i++) {
    const stream = new CompressionStream('deflate');
    const writer = stream.writable.getWriter();
    stream.readable.getReader().read().catch(() => {});
    await writer.write(new Uint8Array(1));
    await writer.abort('over').catch(() => {});
  }
  alike([...await through([await through([new Uint8Array([1, 2])], new CompressionStream('gzip'))], new DecompressionStream('gzip'))], [1, 2]);
});
end();
