// FileReader and ProgressEvent. https://w3c.github.io/FileAPI/#APIASynch

import { fact, end, same, alike, holds, throws } from './facts.js';

function next(target, type) {
  return new Promise((resolve) => { target.addEventListener(type, resolve, { once: true }); });
}

async function read(how, blob, ...rest) {
  const reader = new FileReader();
  reader[how](blob, ...rest);
  await next(reader, 'loadend');
  return reader.result;
}

fact('a blob is read in every way', async () => {
  const blob = new Blob([new Uint8Array([0xe4, 0x41])], { type: 'text/plain;charset=windows-1252' });
  same(await read('readAsText', blob), 'äA');
  same(await read('readAsText', blob, 'utf-8'), '\ufffdA');
  same(await read('readAsText', new Blob(['\ufeffü'])), 'ü');
  same(await read('readAsBinaryString', blob), '\xe4A');
  same(await read('readAsDataURL', new Blob(['hi'], { type: 'a/b' })), 'data:a/b;base64,aGk=');
  same(await read('readAsDataURL', new Blob(['hi'])), 'data:application/octet-stream;base64,aGk=');
  alike([...new Uint8Array(await read('readAsArrayBuffer', blob))], [0xe4, 0x41]);
});
fact('events come in order, with how far it is', async () => {
  const reader = new FileReader();
  const seen = [];
  for (const type of ['loadstart', 'progress', 'load', 'loadend']) {
    reader[`on${type}`] = (event) => seen.push(`${type} ${event.loaded}/${event.total} ${reader.readyState} ${event instanceof ProgressEvent}`);
  }
  reader.readAsText(new Blob(['abc']));
  same(reader.readyState, FileReader.LOADING);
  throws('InvalidStateError', () => reader.readAsText(new Blob(['abc'])));
  await next(reader, 'loadend');
  alike(seen, ['loadstart 0/3 1 true', 'progress 3/3 1 true', 'load 3/3 2 true', 'loadend 3/3 2 true']);
});
fact('an abort ends a read', async () => {
  const reader = new FileReader();
  const seen = [];
  for (const type of ['load', 'abort', 'loadend']) reader.addEventListener(type, () => seen.push(type));
  reader.readAsText(new Blob(['abc']));
  reader.abort();
  alike([seen, reader.readyState, reader.result, reader.error.name], [['abort', 'loadend'], 2, null, 'AbortError']);
  await new Promise((resolve) => setTimeout(resolve, 1));
  alike(seen, ['abort', 'loadend']);
});
fact('only blobs are read, and progress has numbers', () => {
  throws(TypeError, () => new FileReader().readAsText('x'));
  const event = new ProgressEvent('x', { lengthComputable: 1, loaded: 2.5, total: 7 });
  alike([event.lengthComputable, event.loaded, event.total], [true, 2.5, 7]);
  holds(event instanceof Event);
});
end();
