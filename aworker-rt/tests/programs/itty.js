// An API on itty-router.

import { AutoRouter, cors, error, json, StatusError, withContent } from 'itty-router';

const items = new Map([['1', { id: '1', text: 'first' }]]);
const { preflight } = cors({ origin: 'https://other.example' });
const router = AutoRouter({
  base: '/api',
  before: [preflight],
  missing: () => error(404, 'no such thing here'),
});

router
  .get('/items', () => [...items.values()])
  .get('/items/:id', ({ id }) => items.get(id) ?? error(404, `no item ${id}`))
  .post('/items', withContent, ({ content }) => {
    if (!content?.text) throw new StatusError(400, { error: 'a text is needed', given: typeof content });
    const item = { id: String(items.size + 1), text: content.text };
    items.set(item.id, item);
    return json(item, { status: 201, headers: { location: `/api/items/${item.id}` } });
  })
  .delete('/items/:id', ({ id }) => (items.delete(id) ? new Response(null, { status: 204 }) : error(404)))
  .get('/search', ({ query }) => ({ query }))
  .get('/files/:path+', ({ path }) => ({ path }))
  .get('/throws', () => {
    throw new Error('on purpose');
  });

export default { ...router };
