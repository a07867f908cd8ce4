// An app that is busy: nothing more is read, whatever becomes of the connection, and what is finished takes no room.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, event, events, headers, serve } from '../support/stream.mjs';

const { connectSSE } = await import(inRepository('pkg/index.js'));

const turn = () => new Promise((resolve) => setImmediate(resolve));
const until = async (predicate) => { while (!predicate()) await turn(); };
const heartbeat = 'event: system.heartbeat\ndata: {"payload":{"interval_ms":15000}}\n\n';

/** A connector whose handler for the first event waits for `release()`. */
function connect(t, url, options) {
  const [got, errors] = [[], []];
  const first = deferred();
  const connector = connectSSE(url, {
    retryPolicy: { baseDelayMs: 5, jitterPct: 0 },
    onError: ({ code }) => errors.push(code),
    ...options,
    onEvent: ({ id }) => {
      got.push(id);
      return id === '1' ? first.promise : undefined;
    },
  });
  t.after(() => connector.dispose());
  return { connector, got, errors, release: first.resolve };
}

test('a stream that is closed in a pause is made anew once the app has caught up', async (t) => {
  const closed = [];
  const { url, requests } = await serve(t, (request, response) => {
    const after = Number(request.headers['last-event-id'] ?? 0);
    response.on('close', () => closed.push(after));
    response.writeHead(200, headers);
    if (after === 0) response.end(events(1, 3));
    else response.write(event(after + 1));
  });
  const { connector, got, release } = connect(t, url, {});
  await until(() => got.length === 1 && closed.length === 1);
  for (let turns = 0; turns < 100; turns += 1) await turn();
  assert.deepEqual([requests.length, got, connector.getStats().eventsDelivered], [1, ['1'], 3]);
  release();
  await until(() => got.length === 4);
  assert.deepEqual(requests.map((request) => request.headers['last-event-id']), [undefined, '3']);
});

test('reconnect() again and again does not queue more with each connection', async (t) => {
  const { url, requests } = await serve(t, (request, response) => {
    const after = Number(request.headers['last-event-id'] ?? 0);
    response.writeHead(200, headers).write(events(after + 1, Math.min(after + 100, 300)) || ': end\n\n');
  });
  const states = [];
  const { connector, got, release } = connect(t, url, { onStateChange: ({ to }) => states.push(to) });
  await until(() => got.length === 1);
  for (let attempt = 1; attempt <= 5; attempt += 1) {
    states.length = 0;
    connector.reconnect();
    await until(() => states.includes('open'));
    await turn();
  }
  // What was queued and not begun was given back; no connection brought more of it.
  const { eventsDelivered } = connector.getStats();
  assert.deepEqual([got, eventsDelivered, requests.length], [['1'], 100, 6]);
  assert.deepEqual(requests.map((request) => request.headers['last-event-id']), [undefined, ...Array(5).fill('1')]);
  release();
  await until(() => got.length === 101);
  assert.deepEqual(got, Array.from({ length: 101 }, (_, index) => String(index + 1)));
});

test('heartbeats and finished events take no place of handlers', async (t) => { // K9
  const responses = [];
  const { url } = await serve(t, (_, response) => {
    responses.push(response);
    response.writeHead(200, headers).write(event(1) + heartbeat);
  });
  const { connector, got } = connect(t, url, { handlerConcurrency: 2 });
  await until(() => got.length === 1);
  for (let n = 2; n <= 30; n += 1) {
    responses[0].write(heartbeat + event(n));
    await until(() => got.length === n);
  }
  await turn();
  assert.equal(connector.lastEventId, '');
});

test('an event without an ack does not hold up those behind it, and after a reload only it comes again', async (t) => {
  const { url } = await serve(t, async (request, response) => {
    response.writeHead(200, headers);
    for (let n = Number(request.headers['last-event-id'] ?? 0) + 1; n <= 1_500 && !response.destroyed; n += 1) {
      response.write(event(n));
      if (n % 10 === 0) await turn();
    }
  });
  let record;
  const eventIdStorage = { get: () => record, set: (text) => { record = text; }, clear: () => {} };
  const options = (got) => ({
    ack: 'manual',
    maxUnacked: 1_500,
    eventIdStorage,
    onEvent: (event) => {
      got.push(event.id);
      if (event.id !== '1') event.ack();
    },
  });
  const before = [];
  const first = connectSSE(url, options(before));
  t.after(() => first.dispose());
  await until(() => before.length === 1_500);
  first.stop();
  const { cursor, done } = JSON.parse(record);
  assert.deepEqual([cursor, done.length, done.at(-1)], ['', 1_499, '1500']);
  const again = [];
  const second = connectSSE(url, options(again));
  t.after(() => second.dispose());
  await until(() => second.getStats().eventsReceived === 1_500);
  assert.deepEqual(again, ['1']);
});

test('half a handler is an error', async () => {
  for (const [options, option] of [
    [{ handlerConcurrency: 2.5 }, 'handlerConcurrency'],
    [{ ack: 'manual', maxUnacked: 1.5 }, 'maxUnacked'],
  ]) {
    const error = await new Promise((resolve) => connectSSE('http://127.0.0.1:9/', { ...options, onError: resolve }));
    assert.deepEqual([error.code, error.option], ['invalid_option', option]);
    assert.match(error.message, /a whole number from 1 to /);
  }
});
