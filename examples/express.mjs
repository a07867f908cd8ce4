// A stream of Express's own, which keeps its last events and goes on behind Last-Event-ID; and a page that follows it.
//
//   npm install express holdfast-sse
//   node express.mjs [PORT]            then open http://localhost:3000

import { fileURLToPath } from 'node:url';
import express from 'express';

const KEPT = 1_000;
const port = Number(process.argv[2] ?? 3000);
const log = [];
const streams = new Set();
let last = 0;

const written = ({ id, data }) => `id: ${id}\nevent: tick\ndata: ${JSON.stringify(data)}\n\n`;

setInterval(() => {
  last += 1;
  const event = { id: last, data: { n: last, at: new Date().toISOString() } };
  log.push(event);
  if (log.length > KEPT) log.shift();
  for (const response of streams) response.write(written(event));
}, 200);

const app = express();

app.get('/stream', (request, response) => {
  response.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no' });
  response.write('retry: 1000\n: hello\n\n');
  const cursor = request.get('Last-Event-ID');
  // Who comes for the first time begins with now.
  if (cursor !== undefined) response.write(log.filter(({ id }) => id > Number(cursor)).map(written).join('') || ': nothing new\n\n');
  streams.add(response);
  response.on('close', () => streams.delete(response));
});

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
app.get('/', (_, response) => response.sendFile(here('page.html')));
app.use('/holdfast-sse', express.static(here('node_modules/holdfast-sse')));

const server = app.listen(port, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
