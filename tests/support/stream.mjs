// Servers whose responses a test writes by hand, and a way to wait for what a connector tells.

import { createServer } from 'node:http';

export const headers = { 'content-type': 'text/event-stream' };
export const event = (n, data = `e${n}`) => `id: ${n}\ndata: ${data}\n\n`;
export const events = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => event(from + index)).join('');

/** A server whose `answer(request, response, attempt)` writes each response. Ends with the test `t`. */
export async function serve(t, answer) {
  const requests = [];
  const server = createServer((request, response) => {
    requests.push(request);
    answer(request, response, requests.length);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${server.address().port}/stream`, requests };
}

/** Replays events 1 to `last` behind the cursor, and then keeps the stream open. */
export const replaying = (last) => (request, response) => {
  const after = Number(request.headers['last-event-id'] ?? 0);
  response.writeHead(200, headers);
  response.write(after < last ? events(after + 1, last) : ': nothing new\n\n');
};

/** A promise with its functions. */
export function deferred() {
  let settle;
  const promise = new Promise((resolve, reject) => { settle = { resolve, reject }; });
  return { promise, ...settle };
}
