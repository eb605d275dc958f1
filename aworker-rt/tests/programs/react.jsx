// React's streaming server render: a shell with a fallback first, what it waited for later.

import { Suspense, use } from 'react';
import { renderToReadableStream } from 'react-dom/server';

/** What a slow part of a page waits for, by name. */
const waiting = new Map();

function promiseOf(name) {
  if (!waiting.has(name)) {
    const entry = Promise.withResolvers();
    waiting.set(name, entry);
  }
  return waiting.get(name).promise;
}

function Slow({ name }) {
  return <p>{use(promiseOf(name))}</p>;
}

function Page({ name, count }) {
  return (
    <html lang="en">
      <head>
        <title>{`Page of ${name}`}</title>
      </head>
      <body>
        <h1>Hello, {name} &amp; others</h1>
        <ul>{Array.from({ length: count }, (_, i) => <li key={i} className={i % 2 ? 'odd' : 'even'}>{`item ${i}`}</li>)}</ul>
        <Suspense fallback={<em>loading</em>}>
          <Slow name={name} />
        </Suspense>
      </body>
    </html>
  );
}

function Broken() {
  throw new Error('a component threw');
}

async function render(element, request) {
  const failures = [];
  const stream = await renderToReadableStream(element, {
    bootstrapScripts: ['/client.js'],
    signal: request.signal,
    onError: (error) => failures.push(error.message),
  });
  const headers = { 'content-type': 'text/html; charset=utf-8' };
  if (request.headers.get('x-whole') !== null) await stream.allReady;
  return new Response(stream, { headers });
}

export default {
  async fetch(request) {
    const url = new URL(request.url);
    const name = url.searchParams.get('name') ?? 'nobody';
    switch (url.pathname) {
      case '/':
        return render(<Page name={name} count={Number(url.searchParams.get('count') ?? 3)} />, request);
      case '/release':
        promiseOf(name);
        waiting.get(name).resolve(`${name} has come`);
        return new Response('released');
      case '/broken':
        try {
          return await render(<Broken />, request);
        } catch (error) {
          return new Response(`caught: ${error.message}`, { status: 500 });
        }
      default:
        return new Response('not here', { status: 404 });
    }
  },
};
