// A Hono application in the service-worker form: it registers its own `fetch` listener.

import { Hono } from 'hono';
import { fire } from 'hono/service-worker';

const app = new Hono();
app.get('/', (c) => c.text('hello from a service worker'));
app.get('/:name', (c) => c.json({ name: c.req.param('name') }));
fire(app);
