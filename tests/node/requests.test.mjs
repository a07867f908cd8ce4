// What an app can say about its requests, and what it may decide about the answers.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';

const { connectSSE } = await import(inRepository('pkg/index.js'));

const headers = { 'content-type': 'text/event-stream' };
const retryPolicy = { baseDelayMs: 5, jitterPct: 0 };

/** A server that keeps each request with its body, and answers by `answer(request, response, attempt)`. */
async function serve(t, answer) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    requests.push({ method: request.method, url: request.url, headers: request.headers, body: Buffer.concat(chunks).toString() });
    answer(request, response, requests.length);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${server.address().port}/stream`, requests };
}

/** Connects and resolves when the stream is closed for good, with everything that was told. */
function run(t, url, options) {
  const told = { events: [], errors: [], closes: [] };
  const closed = new Promise((resolve) => {
    const connector = connectSSE(url, {
      retryPolicy,
      ...options,
      onEvent: (event) => {
        told.events.push(event.id ?? event.data);
        options.onEvent?.(event, connector);
      },
      onError: (error) => told.errors.push(`${error.code}${error.willRetry ? ' (again)' : ''}: ${error.message}`),
      onClose: (info) => {
        told.closes.push(info.reason);
        if (!info.willReconnect) resolve(told);
      },
    });
    t.after(() => connector.dispose());
  });
  return closed;
}

test('a POST and its clean end: sent once, and that is the end', async (t) => {
  const { url, requests } = await serve(t, (_, response) => response.writeHead(200, headers).end('data: a\n\ndata: b\n\n'));
  const told = await run(t, url, {
    method: 'POST', body: JSON.stringify({ ask: 1 }), headers: { 'content-type': 'application/json' },
  });
  assert.deepEqual([told.events, told.errors, told.closes], [['a', 'b'], [], ['stream_ended']]);
  assert.deepEqual(
    requests.map(({ method, body, headers: sent }) => [method, body, sent['content-type'], sent.accept]),
    [['POST', '{"ask":1}', 'application/json', 'text/event-stream']],
  );
});

for (const [what, answer, expected] of [
  ['a cut', (response) => response.writeHead(200, headers).write('data: a\n\n', () => response.destroy()), /^network_error: /],
  ['a 503', (response) => response.writeHead(503).end(), /^http_status: .*503/],
  ['a 401', (response) => response.writeHead(401).end(), /^auth_required: /],
]) {
  test(`a POST and ${what}: reported, not sent again`, async (t) => {
    const { url, requests } = await serve(t, (_, response) => answer(response));
    const told = await run(t, url, { method: 'POST', body: 'x', headers: () => ({}) });
    assert.equal(told.errors.length, 1);
    assert.match(told.errors[0], expected);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(requests.length, 1);
  });
}

test('replayRequest: a POST is sent again, with a body that a function gives anew', async (t) => {
  const { url, requests } = await serve(t, (_, response, attempt) => {
    response.writeHead(200, headers).end(`id: ${attempt}\ndata: x\n\n`);
  });
  let asked = 0;
  const told = await run(t, url, {
    method: 'POST',
    body: async () => new Blob([`body ${asked += 1}`]).stream(),
    replayRequest: true,
    onEvent: (event, connector) => { if (event.id === '3') connector.stop(); },
  });
  assert.deepEqual(told.events, ['1', '2', '3']);
  assert.deepEqual(requests.map(({ body, headers: sent }) => [body, sent['last-event-id']]), [
    ['body 1', undefined], ['body 2', '1'], ['body 3', '2'],
  ]);
});

test('a body that is a stream is sent once, replayRequest or not', async (t) => {
  const { url, requests } = await serve(t, (_, response) => response.writeHead(200, headers).end('data: a\n\n'));
  const body = new Blob(['streamed']).stream();
  const told = await run(t, url, { method: 'POST', body, replayRequest: true });
  assert.deepEqual([told.errors, requests.map((request) => request.body)], [[], ['streamed']]);
});

test('resumeRequest: what a stream is resumed with is the app\'s to say', async (t) => {
  const { url, requests } = await serve(t, (request, response, attempt) => {
    if (attempt === 1) return response.writeHead(503).end();
    response.writeHead(200, headers);
    if (attempt === 2) response.write('id: 7\ndata: x\n\n', () => response.destroy());
    else response.end('id: 8\ndata: y\n\n');
  });
  const cursors = [];
  await run(t, url, {
    method: 'POST', body: 'begin', headers: { 'x-app': 'a', 'x-kept': 'k' },
    resumeRequest: async (cursor) => {
      cursors.push(cursor);
      if (cursor !== '') return { url: `/resume?from=${cursor}`, method: 'GET', headers: { 'x-app': 'b' } };
    },
    onEvent: (event, connector) => { if (event.id === '8') connector.stop(); },
  });
  assert.deepEqual(cursors, ['', '7']);
  assert.deepEqual(requests.map(({ method, url: asked, headers: sent, body }) => [method, asked, sent['x-app'], sent['x-kept'], body]), [
    ['POST', '/stream', 'a', 'k', 'begin'],
    ['POST', '/stream', 'a', 'k', 'begin'],
    ['GET', '/resume?from=7', 'b', 'k', ''],
  ]);
});

test('onResponse decides, and where it does not the connector does', async (t) => {
  const { url, requests } = await serve(t, (_, response, attempt) => {
    if (attempt === 1) response.writeHead(404, { 'retry-after': '0' }).end('{"why":"not yet"}');
    else if (attempt === 2) response.writeHead(200, { 'content-type': 'text/plain' }).end('id: 1\ndata: plain\n\n');
    else if (attempt === 3) response.writeHead(503).end();
    else response.writeHead(200, headers).end('id: 2\ndata: refused\n\n');
  });
  const seen = [];
  const told = await run(t, url, {
    onResponse: async (response) => {
      seen.push([response.status, response.status === 404 ? (await response.json()).why : undefined]);
      return ['retry', 'accept', undefined, 'stop'][seen.length - 1];
    },
  });
  assert.deepEqual(seen, [[404, 'not yet'], [200, undefined], [503, undefined], [200, undefined]]);
  assert.deepEqual(told.events, ['1']);
  assert.deepEqual(told.errors.map((error) => error.split(':')[0]), ['http_status (again)', 'http_status (again)', 'http_status']);
  assert.equal(requests.length, 4);
});

test('an onResponse that throws is reported and changes nothing; one that reads the body is told so', async (t) => {
  const { url } = await serve(t, (_, response) => response.writeHead(200, headers).end('id: 1\ndata: a\n\n'));
  const reported = [];
  const { reportError: before } = globalThis;
  globalThis.reportError = (error) => reported.push(error.message);
  t.after(() => { globalThis.reportError = before; });
  await run(t, url, {
    autoReconnect: false,
    onResponse: () => { throw new Error('in onResponse'); },
  }).then((told) => assert.deepEqual(told.events, ['1']));
  assert.deepEqual(reported, ['in onResponse']);
  const told = await run(t, url, { onResponse: async (response) => void await response.text() });
  assert.match(told.errors[0], /^invalid_option: .*clone\(\)/);
});

test('signal stops the stream, and an aborted one lets none begin', async (t) => {
  const { url, requests } = await serve(t, (_, response) => response.writeHead(200, headers).write('id: 1\ndata: a\n\n'));
  const controller = new AbortController();
  const told = await run(t, url, { signal: controller.signal, onEvent: () => controller.abort() });
  assert.deepEqual([told.events, told.errors, told.closes], [['1'], [], ['client_abort']]);

  const never = await run(t, url, { signal: AbortSignal.abort() });
  assert.deepEqual([never.events, never.errors, never.closes], [[], [], ['client_abort']]);
  assert.equal(requests.length, 1);
  const connector = connectSSE(url, { signal: AbortSignal.abort() });
  t.after(() => connector.dispose());
  connector.connect();
  connector.reconnect();
  assert.equal(connector.state, 'closed');
});

test('requestInit and fetch get what the app gave', async (t) => {
  const { url } = await serve(t, (_, response) => response.writeHead(200, headers).end('data: a\n\n'));
  const inits = [];
  await run(t, url, {
    autoReconnect: false,
    credentials: 'omit',
    requestInit: { referrerPolicy: 'no-referrer', priority: 'high' },
    fetch: (address, init) => { inits.push(init); return fetch(address, init); },
  });
  const [init] = inits;
  assert.deepEqual([init.referrerPolicy, init.priority, init.credentials, init.cache], ['no-referrer', 'high', 'omit', 'no-store']);
});

for (const [options, option] of [
  [{ body: 'x' }, 'body'],
  [{ method: 'get', body: 'x' }, 'body'],
  [{ method: '' }, 'method'],
  [{ requestInit: { headers: {} } }, 'requestInit.headers'],
  [{ requestInit: 'cors' }, 'requestInit'],
  [{ signal: {} }, 'signal'],
  [{ onResponse: 'accept' }, 'onResponse'],
  [{ resumeRequest: {} }, 'resumeRequest'],
]) {
  test(`${JSON.stringify(options)} is an error that names ${option}`, async (t) => {
    const error = await new Promise((resolve) => {
      const connector = connectSSE('http://127.0.0.1:9/', { ...options, onError: resolve });
      t.after(() => connector.dispose());
    });
    assert.deepEqual([error.code, error.option], ['invalid_option', option]);
    assert.match(error.message, /^(option )?\S+ takes /);
  });
}
