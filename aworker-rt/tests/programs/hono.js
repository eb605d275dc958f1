// A Hono application with the middleware that people use; the module form.

import { Hono } from 'hono';
import { basicAuth } from 'hono/basic-auth';
import { bodyLimit } from 'hono/body-limit';
import { compress } from 'hono/compress';
import { getSignedCookie, setSignedCookie } from 'hono/cookie';
import { cors } from 'hono/cors';
import { etag } from 'hono/etag';
import { HTTPException } from 'hono/http-exception';
import { html } from 'hono/html';
import { jwt, sign } from 'hono/jwt';
import { poweredBy } from 'hono/powered-by';
import { requestId } from 'hono/request-id';
import { secureHeaders } from 'hono/secure-headers';
import { stream, streamSSE } from 'hono/streaming';
import { timing } from 'hono/timing';
import { validator } from 'hono/validator';

const secret = 'a secret of the tests';
const app = new Hono();

app.use(poweredBy(), requestId(), timing(), secureHeaders());
app.use('/api/*', cors({ origin: 'https://other.example', allowMethods: ['GET', 'PUT'] }));
app.use('/tagged/*', etag());
app.use('/packed/*', compress({ threshold: 0 }));
app.use('/private/*', basicAuth({ username: 'user', password: 'pass' }));
app.use('/token/*', jwt({ secret, alg: 'HS256' }));

app.get('/', (c) => c.text('hello from hono'));
app.get('/users/:id{[0-9]+}/posts/:slug?', (c) => c.json({ ...c.req.param(), tags: c.req.queries('tag'), q: c.req.query('q') }));
app.get('/page/:name', (c) => c.html(html`<p>${c.req.param('name')}</p>`));
app.get('/api/data', (c) => c.json({ id: c.get('requestId').length }));
app.get('/tagged/text', (c) => c.text('the same every time'));
app.get('/packed/text', (c) => c.text('squeeze me '.repeat(500)));
app.get('/private/room', (c) => c.text('inside'));
app.get('/token/who', (c) => c.json(c.get('jwtPayload')));
app.get('/issue', async (c) => c.text(await sign({ sub: 'me', exp: 4102444800 }, secret, 'HS256')));
app.get('/cookie/set', async (c) => {
  await setSignedCookie(c, 'name', 'value', secret, { httpOnly: true, path: '/' });
  return c.body(null, 204);
});
app.get('/cookie/get', async (c) => c.json({ value: await getSignedCookie(c, secret, 'name') }));
app.get('/lines', (c) =>
  stream(c, async (out) => {
    for (let i = 0; i < 5; i++) {
      await out.write(`line ${i}\n`);
      await out.sleep(1);
    }
  }));
app.get('/events', (c) =>
  streamSSE(c, async (out) => {
    for (let i = 0; i < 3; i++) await out.writeSSE({ data: `message ${i}`, event: 'tick', id: String(i) });
  }));
app.post(
  '/json',
  validator('json', (value, c) => (typeof value.name === 'string' ? value : c.text('a name, please', 422))),
  (c) => c.json({ hello: c.req.valid('json').name }, 201),
);
app.post('/form', async (c) => {
  const { text, file } = await c.req.parseBody();
  return c.json({ text, name: file.name, type: file.type, content: await file.text() });
});
app.put('/limited', bodyLimit({ maxSize: 10, onError: (c) => c.text('too long', 413) }), async (c) => c.text(await c.req.text()));
app.get('/moved', (c) => c.redirect('/', 301));
app.get('/broken', () => {
  throw new Error('on purpose');
});
app.get('/teapot', () => {
  throw new HTTPException(418, { message: 'short and stout' });
});
app.route('/sub', new Hono().basePath('/deep').get('/*', (c) => c.text(new URL(c.req.url).pathname)));
app.notFound((c) => c.json({ missing: c.req.path }, 404));
app.onError((error, c) => (error instanceof HTTPException ? error.getResponse() : c.text(`caught: ${error.message}`, 500)));

export default app;
