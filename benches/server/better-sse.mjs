// better-sse as its users run it: one channel, broadcast to all sessions, the latest events kept for who comes back.

import { createServer } from 'node:http';
import { createChannel, createSession } from 'better-sse';

const KEPT_MAX = 200_000;

const channel = createChannel();
/** Everything that was published, by number from 1. */
const kept = [];

const server = createServer(async (request, response) => {
  if (request.method === 'POST') {
    let body = '';
    for await (const piece of request) body += piece;
    kept.push(body);
    if (kept.length > KEPT_MAX) kept.shift();
    channel.broadcast(body, 'message', { eventId: String(kept.length) });
    response.end('{}');
    return;
  }
  const session = await createSession(request, response);
  const from = Number(session.lastId);
  if (session.lastId !== '') {
    await session.batch((buffer) => {
      for (let at = from; at < kept.length; at += 1) buffer.push(kept[at], 'message', String(at + 1));
    });
  }
  channel.register(session);
});

// The publisher keeps its connection while thousands of subscribers are opened.
server.keepAliveTimeout = 600_000;

server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
