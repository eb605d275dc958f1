// TextEncoderStream and TextDecoderStream. https://encoding.spec.whatwg.org/#interface-textdecoderstream

import { fact, end, same, alike, throws, rejects } from './facts.js';

const all = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
};

fact('text becomes bytes; a surrogate pair may be split', async () => {
  const chunks = await all(ReadableStream.from(['a', '\ud83d', '\ude00', '', '\ud800', 'b\ud800']).pipeThrough(new TextEncoderStream()));
  alike(chunks.map((chunk) => [...chunk]), [[97], [240, 159, 152, 128], [239, 191, 189, 98], [239, 191, 189]]);
  same(new TextEncoderStream().encoding, 'utf-8');
});
fact('bytes become text; a character may be split', async () => {
  const stream = new TextDecoderStream();
  const chunks = await all(ReadableStream.from([[0xe2], [0x82], [0xac, 97], [0xe2]].map((bytes) => new Uint8Array(bytes))).pipeThrough(stream));
  alike(chunks, ['\u20aca', '\ufffd']);
  alike([stream.encoding, stream.fatal, stream.ignoreBOM], ['utf-8', false, false]);
});
fact('fatal errors and wrong chunks error the stream', async () => {
  const bytes = ReadableStream.from([new Uint8Array([0xff])]);
  await rejects(TypeError, all(bytes.pipeThrough(new TextDecoderStream('utf-8', { fatal: true }))));
  await rejects(TypeError, all(ReadableStream.from(['text']).pipeThrough(new TextDecoderStream())));
  throws(RangeError, () => new TextDecoderStream('nothing'));
});
end();
