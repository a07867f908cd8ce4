// Acks by hand: the cursor is the app's to move, within bounds.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';

const { connectSSE } = await import(inRepository('pkg/index.js'));

const turn = () => new Promise((resolve) => setImmediate(resolve));
const until = async (predicate) => { while (!predicate()) await turn(); };

/** Serves events 1 to `last` behind the cursor, each in a chunk of its own; `sent()` tells how far it got. */
async function serve(t, last) {
  let sent = 0;
  const cursors = [];
  const server = createServer(async (request, response) => {
    cursors.push(request.headers['last-event-id']);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (let n = Number(request.headers['last-event-id'] ?? 0) + 1; n <= last && !response.destroyed; n += 1) {
      response.write(`id: ${n}\ndata: ${n}\n\n`);
      sent = n;
      await turn();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${server.address().port}/`, cursors, sent: () => sent };
}

function connect(t, url, options) {
  const got = [];
  const errors = [];
  const connector = connectSSE(url, {
    ack: 'manual',
    retryPolicy: { baseDelayMs: 5, jitterPct: 0 },
    ...options,
    onError: (error) => errors.push(error.code),
    onEvent: (event) => {
      got.push(event);
      return options?.onEvent?.(event);
    },
  });
  t.after(() => connector.dispose());
  return { connector, got, errors, ids: () => got.map((event) => event.id) };
}

test('the cursor stays behind the oldest event without an ack', async (t) => {
  const { url } = await serve(t, 5);
  const { connector, got } = connect(t, url);
  await until(() => got.length === 5);
  assert.equal(connector.lastEventId, '');
  got[1].ack();
  got[2].ack();
  assert.equal(connector.lastEventId, '');
  got[0].ack();
  assert.equal(connector.lastEventId, '3');
  got[0].ack();
  got[4].ack();
  assert.equal(connector.lastEventId, '3');
  got[3].ack();
  assert.equal(connector.lastEventId, '5');
});

test('acks within the handler, early and late in an asynchronous one', async (t) => {
  const { url } = await serve(t, 3);
  let release;
  const { connector, got } = connect(t, url, {
    onEvent: async (event) => {
      if (event.id === '1') event.ack();
      await turn();
      event.ack();
      if (event.id === '2') await new Promise((resolve) => { release = resolve; });
    },
  });
  await until(() => release !== undefined);
  assert.deepEqual([connector.lastEventId, got.length], ['2', 2], 'acked, and the next waits for the handler');
  release();
  await until(() => connector.lastEventId === '3');

  const atOnce = connect(t, url, { onEvent: (event) => event.ack() });
  await until(() => atOnce.connector.lastEventId === '3');
  assert.deepEqual(atOnce.ids(), ['1', '2', '3']);
});

test('at maxUnacked events the handing out and the reading pause', async (t) => {
  const { url } = await serve(t, 2_000);
  const { connector, got } = connect(t, url, { maxUnacked: 10 });
  await until(() => got.length === 10);
  for (let turns = 0; turns < 50; turns += 1) await turn();
  assert.equal(got.length, 10);
  const { eventsDelivered } = connector.getStats();
  assert.ok(eventsDelivered < 1_000, `${eventsDelivered} events were read ahead`);
  got[0].ack();
  await until(() => got.length === 11);
  for (let n = 1; n < 2_000; n += 1) {
    await until(() => got.length > n);
    got[n].ack();
  }
  assert.equal(connector.lastEventId, '2000');
});

test('reconnect() does not bring what waits for its ack again; the ack still counts', async (t) => {
  const { url, cursors } = await serve(t, 4);
  const { connector, got, ids } = connect(t, url);
  await until(() => got.length === 4);
  got[0].ack();
  connector.reconnect();
  await until(() => cursors.length === 2);
  assert.deepEqual([cursors, ids(), connector.lastEventId], [[undefined, '4'], ['1', '2', '3', '4'], '1']);
  for (const event of got) event.ack();
  assert.equal(connector.lastEventId, '4');
});

test('a handler that fails: a skipped event counts as acked, a repeated one may be acked in between', async (t) => {
  const { url } = await serve(t, 3);
  for (const fail of [() => { throw new Error('no'); }, () => Promise.reject(new Error('no'))]) {
    const { connector, errors } = connect(t, url, {
      onEvent: (event) => { event.id === '2' ? undefined : event.ack(); return event.id === '2' ? fail() : undefined; },
    });
    await until(() => connector.lastEventId === '3');
    assert.deepEqual(errors, ['handler_failed']);
  }
  const { connector, ids } = connect(t, url, {
    onHandlerError: 'retry',
    onEvent: (event) => {
      if (event.id !== '2') return event.ack();
      setTimeout(() => event.ack(), 10);
      throw new Error('no');
    },
  });
  await until(() => connector.lastEventId === '3');
  assert.deepEqual(ids(), ['1', '2', '3']);
});

for (const how of ['throws', 'rejects']) {
  test(`what was given back is acked in vain, and takes no room any more (a handler ${how})`, async (t) => {
    const { url } = await serve(t, 6);
    let fails = true;
    const { connector, got, ids, errors } = connect(t, url, {
      maxUnacked: 3,
      handlerConcurrency: 3,
      onHandlerError: 'retry',
      onEvent: (event) => {
        if (event.id !== '1' || !fails) return undefined;
        if (how === 'throws') throw new Error('not now');
        return Promise.reject(new Error('not now'));
      },
    });
    await until(() => got.length === 3 && errors.length === 1);
    // The first waits to be called again: it goes back, and with it what was begun behind it.
    connector.stop();
    fails = false;
    connector.connect();
    await until(() => got.length === 6);
    assert.deepEqual(ids(), ['1', '2', '3', '1', '2', '3']);
    for (const event of got.slice(0, 3)) event.ack();
    await turn();
    assert.deepEqual([connector.lastEventId, got.length], ['', 6], 'these were given back');
    for (const event of got.slice(3)) event.ack();
    await until(() => got.length === 9);
    assert.equal(connector.lastEventId, '3');
  });
}

test('a loop and acks by hand: asking for the next event does not ack', async (t) => {
  const { url } = await serve(t, 3);
  const connector = connectSSE(url, { ack: 'manual' });
  t.after(() => connector.dispose());
  const got = [];
  for await (const event of connector) {
    got.push(event);
    if (event.id === '3') break;
  }
  assert.equal(connector.lastEventId, '');
  for (const event of got) event.ack();
  assert.equal(connector.lastEventId, '3');
});

test('events that nobody takes need no ack', async (t) => {
  const { url } = await serve(t, 3);
  const connector = connectSSE(url, { ack: 'manual' });
  t.after(() => connector.dispose());
  connector.addEventListener('other', () => {});
  await until(() => connector.lastEventId === '3');
});

test('maxUnacked without manual acks is an error', async (t) => {
  const { url } = await serve(t, 1);
  const error = await new Promise((resolve) => connectSSE(url, { maxUnacked: 5, onError: resolve }));
  assert.deepEqual([error.code, error.option], ['invalid_option', 'maxUnacked']);
  assert.match(error.message, /ack: 'manual'/);
});

test('an event that is no longer to be processed when its handler is called again needs no ack', async (t) => { // K6
  const { url } = await serve(t, 2);
  let failed = false;
  const { connector, ids } = connect(t, url, {
    onHandlerError: 'retry',
    shouldProcess: () => !failed,
    onEvent: () => {
      failed = true;
      throw new Error('not yet');
    },
  });
  await until(() => connector.lastEventId === '2');
  assert.deepEqual(ids(), ['1']);
});
