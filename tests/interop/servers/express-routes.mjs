// What the two servers on Express have in common, besides their streams.

import express from 'express';
import { listening, port } from './log.mjs';

/** Serves `stream(request, response)`, an Express handler, and the orders of the test. Pages of any origin may read it. */
export function serveLog(log, stream) {
  const app = express();
  app.use((request, response, next) => {
    response.set({ 'Access-Control-Allow-Origin': '*', 'Access-Control-Allow-Headers': 'Last-Event-ID, Authorization' });
    if (request.method === 'OPTIONS') response.sendStatus(204);
    else next();
  });
  app.get('/stream', stream);
  app.get('/finite', async (request, response) => {
    if (Number(request.get('Last-Event-ID') ?? 0) >= log.head) return response.sendStatus(204);
    await stream(request, response);
    return log.end();
  });
  app.get('/private', (request, response) => {
    if (request.get('Authorization') === 'Bearer fresh') return stream(request, response);
    return response.status(401).json({ error: 'the token is stale' });
  });
  app.post('/publish', (_, response) => {
    log.publish();
    response.sendStatus(204);
  });
  app.post('/end', (_, response) => {
    log.end();
    response.sendStatus(204);
  });
  const server = app.listen(port, '127.0.0.1', () => listening(server.address()));
}
