// Hono's streamSSE on Node. Its query is that of express.mjs, as far as streamSSE can: ids, resume, torn;
// compress=1 puts hono's compress() before it.

import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import { bearerAuth } from 'hono/bearer-auth';
import { compress } from 'hono/compress';
import { cors } from 'hono/cors';
import { streamSSE } from 'hono/streaming';
import { eventAt, head, listening, Log, port, written } from './log.mjs';

const log = new Log(head);
const app = new Hono();
const compressing = compress();

// Pages of any origin may read it.
app.use('*', cors({ origin: '*', allowHeaders: ['Last-Event-ID', 'Authorization'] }));
app.use('/stream', (c, next) => (c.req.query('compress') === '1' ? compressing(c, next) : next()));

const stream = (c) => streamSSE(c, async (out) => {
  const { ids, resume, torn } = c.req.query();
  let sent = resume === '1' ? Number(c.req.header('Last-Event-ID') ?? c.req.query('lastEventId') ?? 0) : 0;
  let isOpen = true;
  let rest = '';
  let changed = () => {};
  const ended = () => {
    isOpen = false;
    changed();
  };
  const published = () => changed();
  log.addEventListener('published', published);
  log.addEventListener('end', ended);
  out.onAbort(ended);
  await out.write('retry: 30\n\n: hello\n\n');
  while (isOpen) {
    if (sent < log.head) {
      await out.write(rest);
      rest = '';
    }
    while (sent < log.head) {
      sent += 1;
      const { type, id, data } = eventAt(sent);
      if (torn === '1' && sent === log.head) {
        const text = written(eventAt(sent), ids === '1');
        rest = text.slice(-3);
        await out.write(text.slice(0, -3));
        break;
      }
      await out.writeSSE({ data, ...(type === 'message' ? {} : { event: type }), ...(ids === '1' ? { id } : {}) });
    }
    if (c.req.path === '/finite') break;
    await new Promise((resolve) => { changed = resolve; });
  }
  log.removeEventListener('published', published);
  log.removeEventListener('end', ended);
});

app.get('/stream', stream);
app.get('/finite', (c) => (Number(c.req.header('Last-Event-ID') ?? 0) >= log.head ? c.body(null, 204) : stream(c)));
app.get('/private', bearerAuth({ token: 'fresh' }), stream);
app.post('/publish', (c) => {
  log.publish();
  return c.body(null, 204);
});
app.post('/end', (c) => {
  log.end();
  return c.body(null, 204);
});

serve({ fetch: app.fetch, hostname: '127.0.0.1', port }, listening);
