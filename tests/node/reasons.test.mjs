// Why a stream ended: each way to end one, through the real core, and the name that onClose and onRetry tell.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { startServer } from '../support/server.mjs';
import { deferred, event, headers, serve } from '../support/stream.mjs';

const { connectSSE, DisconnectReason, TransitionReason, ConnectionState, GiveUpReason, SSEConnector } =
  await import(inRepository('pkg/index.js'));

const quick = { retryPolicy: { baseDelayMs: 5, jitterPct: 0 } };
const status = (code) => (_, response) => response.writeHead(code).end();
const writes = (...texts) => (_, response) => {
  response.writeHead(200, headers);
  for (const text of texts) response.write(text);
};
const control = (name, payload) => `event: control.${name}\ndata: ${JSON.stringify({ payload })}\n\n`;
const once = (t, url, options) => {
  const { promise, resolve } = deferred();
  const connector = connectSSE(url, {
    ...quick,
    ...options,
    onError: () => {},
    onRetry: (info) => { resolve(info.reason); options.onRetry?.(info); },
    onClose: (info) => resolve(info.reason),
  });
  t.after(() => connector.dispose());
  return { connector, promise };
};

/** What a server answers, options, and what the app does on its first event. */
const ways = [
  ['CLIENT_CLOSE', writes(event(1)), {}, (connector) => connector.stop()],
  ['RECONNECT', writes(event(1)), {}, (connector) => connector.reconnect()],
  ['CLIENT_TIMEOUT', () => {}, { timeout: 30 }],
  ['CLIENT_TIMEOUT', () => {}, { timeout: 30, method: 'POST' }],
  ['RATE_LIMITED', status(429)],
  ['OVERLOAD_REJECT', status(503)],
  ['OVERLOAD_REJECT', status(503), { autoReconnect: false }],
  ['SERVER_ERROR', status(500)],
  ['SERVER_ERROR', status(599)],
  ['HTTP_STATUS', status(408)],
  ['HTTP_STATUS', status(404)],
  ['HTTP_STATUS', writes(event(1)), { onResponse: () => 'stop' }],
  ['AUTH_REQUIRED', status(401)],
  ['WRONG_CONTENT_TYPE', (_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>')],
  ['STREAM_ENDED', (_, response) => response.writeHead(200, headers).end(event(1))],
  ['STREAM_ENDED', status(204)],
  ['NETWORK_ERROR', (request) => request.socket.destroy()],
  ['NETWORK_ERROR', (_, response) => response.writeHead(200, headers).write(event(1), () => response.destroy())],
  ['PARSE_ERROR', writes(`data: ${'x'.repeat(200)}\n\n`), { maxLineBytes: 100 }],
  ['INVALID_EVENT', writes(event(1)), {
    onInvalidEvent: 'stop', schemas: { message: { '~standard': { version: 1, vendor: 't', validate: () => ({ issues: [{ message: 'no' }] }) } } },
  }],
  ['HANDLER_FAILED', writes(event(1)), { onHandlerError: 'stop' }, () => { throw new Error('cannot'); }],
  ['CANNOT_RESUME', writes(control('cannot_resume', { code: 'event_not_found' })), { cannotResumeFallback: 'close' }],
  ['CANNOT_RESUME', writes(control('cannot_resume', {})), { cannotResumeFallback: 'callback', onCannotResume: () => 'close' }],
  ['LIVENESS_TIMEOUT', writes(control('open', {})), { livenessTimeoutMs: 20, livenessGracePeriodMs: 0 }],
  ['GAP', writes(...['1', '3'].map((n) => (
    `id: ${n}\ndata: ${JSON.stringify({ event_id: n, stream_id: 's', sequence: Number(n), payload: {} })}\n\n`
  ))), { outOfOrderPolicy: 'REORDER', reorderWindowMs: 10 }],
  ['INVALID_OPTION', status(200), { timeout: -1 }],
  ['INVALID_URL', status(200), { url: 'ftp://nowhere/' }],
  ['INVALID_URL', status(200), { url: () => 'ftp://nowhere/' }],
  // What a server says of itself, ours or another.
  ...['SERVER_SHUTDOWN', 'SERVER_RESTART', 'SERVER_ERROR', 'IDLE_TIMEOUT', 'HEARTBEAT_MISSED', 'OVERLOAD_REJECT', 'RATE_LIMITED', 'AUTH_EXPIRED']
    .map((name) => [name, (_, response) => response.writeHead(200, headers).end(control('close', { reason: name.toLowerCase() }))]),
];

for (const [index, [name, answer, { url: given, ...options } = {}, onEvent]] of ways.entries()) {
  test(`${name} (${index})`, async (t) => { // K22
    const { url } = await serve(t, answer);
    const { connector, promise } = once(t, given ?? url, { ...options, onEvent: () => onEvent?.(connector) });
    assert.equal(await promise, DisconnectReason[name]);
  });
}

test('CLIENT_ABORT', async (t) => { // K22
  const { url } = await serve(t, writes(event(1)));
  const controller = new AbortController();
  const { promise } = once(t, url, { signal: controller.signal, onEvent: () => controller.abort() });
  assert.equal(await promise, DisconnectReason.CLIENT_ABORT);
});

/** What one handler asks for, with `onHandlerError: 'stop'`, and what is told of it and of a stop() behind it. */
const mixed = {
  'reconnect() and an abort': [(connector, controller) => { connector.reconnect(); controller.abort(); }, ['reconnect', 'client_abort']],
  'reconnect() and a failure': [(connector) => { connector.reconnect(); throw new Error('cannot'); }, ['reconnect', 'client_close']],
};

for (const [name, [ask, reasons]] of Object.entries(mixed)) {
  test(`${name} in one handler: each end has its own reason`, async (t) => { // K22
    const { url } = await serve(t, (_, response, n) => writes(event(n))(_, response));
    const controller = new AbortController();
    const told = [];
    const { promise, resolve } = deferred();
    let asked = false;
    const connector = connectSSE(url, {
      ...quick,
      signal: controller.signal,
      onHandlerError: 'stop',
      onError: () => {},
      onEvent: () => {
        if (asked) return connector.stop();
        asked = true;
        return ask(connector, controller);
      },
      onClose: ({ reason, willReconnect }) => {
        told.push(reason);
        if (!willReconnect) resolve();
      },
    });
    t.after(() => connector.dispose());
    await promise;
    assert.deepEqual(told, reasons);
  });
}

test('each reason is provoked here, or in a test that is named', () => { // K22
  const elsewhere = {
    CLIENT_ABORT: 'above', HIDDEN: 'browser/visibility', PAGE_LEFT: 'browser/lifecycle', WASM_BLOCKED: 'node/loader', WASM_TRAP: 'node/trap',
  };
  const provoked = new Set([...ways.map(([name]) => name), ...Object.keys(elsewhere)]);
  assert.deepEqual(Object.keys(DisconnectReason).filter((name) => !provoked.has(name)), []);
  for (const [name, value] of Object.entries(DisconnectReason)) assert.equal(name, value.toUpperCase());
});

test('each reason that the core tells is a constant', () => { // K22
  const sources = ['connection', 'machine', 'visibility', 'watch'].map((name) => readFileSync(inRepository(`src/client/${name}.rs`), 'utf8'));
  const told = [...sources.join('').matchAll(/(?:\.(?:close|close_for_now|lost|retry_in|stop)\([^";]*|reason: )"([a-z_]+)"/g)].map(([, reason]) => reason);
  for (const reason of ['stream_ended', 'reconnect', 'hidden', 'gap', 'client_close']) assert.ok(told.includes(reason), `${reason} is not found`);
  assert.deepEqual(told.filter((reason) => !Object.values(DisconnectReason).includes(reason)), []);
});

test('our own server says why it goes', async (t) => { // K22
  const server = await startServer({ args: ['--memory'] });
  t.after(() => server.kill());
  const closed = deferred();
  const connector = connectSSE(`${server.address}/stream`, {
    ...quick, onError: () => {}, onOpen: () => void server.stop(), onClose: (info) => closed.resolve(info),
  });
  t.after(() => connector.dispose());
  const { reason, willReconnect } = await closed.promise;
  assert.deepEqual([reason, willReconnect], [DisconnectReason.SERVER_SHUTDOWN, true]);
});

test('states and their reasons are those of the core', async (t) => { // K2
  const seen = new Set();
  const reasons = new Set();
  const run = async (answer, options = {}, act = () => {}) => {
    const { url } = await serve(t, answer);
    const { promise, resolve } = deferred();
    const connector = new SSEConnector(url, {
      ...quick,
      ...options,
      onError: () => {},
      onEvent: () => act(connector),
      onStateChange: ({ from, to, reason }) => {
        seen.add(from).add(to);
        reasons.add(reason);
        if (to === 'closed') resolve();
      },
    });
    t.after(() => connector.dispose());
    connector.connect();
    await promise;
  };
  await run(status(404));
  await run(status(204));
  await run(status(500), { retryPolicy: { maxAttempts: 1, baseDelayMs: 1 } });
  let times = 0;
  await run((_, response, n) => writes(event(n))(_, response), {}, (connector) => ((times += 1) === 1 ? connector.reconnect() : connector.stop()));
  assert.deepEqual([...seen].sort(), Object.values(ConnectionState).sort());
  assert.deepEqual([...reasons].sort(), Object.values(TransitionReason).sort());
});

for (const [retryPolicy, reason] of [
  [{ maxAttempts: 2, baseDelayMs: 1 }, GiveUpReason.MAX_ATTEMPTS_REACHED],
  [{ maxAttempts: 0 }, GiveUpReason.MAX_ATTEMPTS_REACHED],
  [{ maxRetryTimeMs: 30, baseDelayMs: 20, jitterPct: 0 }, GiveUpReason.MAX_RETRY_TIME_EXCEEDED],
]) {
  test(`giving up: ${JSON.stringify(retryPolicy)}; connect() begins again`, async (t) => { // K5
    const { url, requests } = await serve(t, (_, response, n) => (
      up ? writes(event(n))(_, response) : response.writeHead(500).end()
    ));
    let up = false;
    const gaveUp = deferred();
    const got = deferred();
    const connector = connectSSE(url, { retryPolicy, onError: () => {}, onGiveUp: gaveUp.resolve, onEvent: got.resolve });
    t.after(() => connector.dispose());
    const info = await gaveUp.promise;
    assert.deepEqual([info.reason, info.attempts], [reason, requests.length - 1]);
    assert.ok(info.elapsedMs >= 0);
    up = true;
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(connector.state, 'closed');
    connector.connect();
    await got.promise;
    assert.equal(connector.state, 'open');
  });
}

test('autoReconnect: false ends with the first failure; a stop is no giving up', async (t) => { // K5
  const { url, requests } = await serve(t, (_, response) => response.writeHead(200, headers).end(event(1)));
  const told = [];
  const run = (options) => new Promise((resolve) => {
    const connector = connectSSE(url, {
      ...quick,
      ...options,
      onEvent: () => options.onEvent?.(connector),
      onGiveUp: () => told.push('gave up'),
      onClose: (info) => { told.push(info); if (!info.willReconnect) resolve(); },
    });
    t.after(() => connector.dispose());
  });
  await run({ autoReconnect: false });
  assert.deepEqual([told, requests.length], [[{ reason: 'stream_ended', willReconnect: false }], 1]);
  told.length = 0;
  await run({ onEvent: (connector) => connector.stop() });
  assert.deepEqual(told, [{ reason: 'client_close', willReconnect: false }]);
});
