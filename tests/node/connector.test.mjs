// What a connector promises its app, against real HTTP servers: order, the cursor, handlers that wait or fail, and
// commands given in the middle of a batch. The same code runs in browsers; Node is just quicker to ask.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { event, events, headers, replaying, serve } from '../support/stream.mjs';

const { connectSSE, SSEConnector, SSEError, StreamEvent } = await import(inRepository('pkg/index.js'));

const quick = { retryPolicy: { baseDelayMs: 5, jitterPct: 0 } };

/** Connects; the connector ends with the test. `until(predicate)` resolves once it holds after a callback. */
function connect(t, url, options) {
  const waiting = new Set();
  const check = () => {
    for (const waiter of [...waiting]) if (waiter.predicate()) waiter.resolve();
  };
  const names = ['onEvent', 'onOpen', 'onClose', 'onError', 'onRetry', 'onStateChange', 'onDuplicate'];
  const wrapped = Object.fromEntries(names.map((name) => [name, (info) => {
    queueMicrotask(check);
    return options[name]?.(info);
  }]));
  const connector = connectSSE(url, { ...quick, ...options, ...wrapped });
  t.after(() => connector.dispose());
  const until = (predicate) => new Promise((resolve) => {
    waiting.add({ predicate, resolve });
    check();
  });
  return { connector, until, check };
}

test('events are what the parity list says', async (t) => { // K1, K16
  const envelope = {
    event_id: '0191a7c0-0000-7000-8000-000000000001', type: 'domain.tick', ts: '2026-01-01T00:00:00.000Z',
    payload: { n: 1 }, sequence: 4, stream_id: 's', trace_id: 't', correlation_id: 'c',
  };
  const { url } = await serve(t, (_, response) => {
    response.writeHead(200, headers);
    response.end(`id: 9\nevent: domain.tick\ndata: ${JSON.stringify(envelope)}\n\ndata: {"a":[1]}\n\ndata: plain\n\n`);
  });
  const got = [];
  const { until } = connect(t, url, { autoReconnect: false, onEvent: (e) => got.push(e) });
  await until(() => got.length === 3);
  const [wrapped, json, plain] = got;
  assert.ok(wrapped instanceof StreamEvent);
  assert.deepEqual(
    [wrapped.type, wrapped.id, wrapped.payload, wrapped.sequence, wrapped.ts, wrapped.eventId, wrapped.streamId,
      wrapped.traceId, wrapped.correlationId, wrapped.attempt],
    ['domain.tick', '9', { n: 1 }, 4, envelope.ts, envelope.event_id, 's', 't', 'c', 0],
  );
  assert.ok(wrapped.lagMs > 0 && wrapped.receivedAt > 0);
  assert.equal(wrapped.json(), wrapped.json(), 'parsed once');
  assert.deepEqual([json.type, json.id, json.payload, json.json()], ['message', undefined, { a: [1] }, { a: [1] }]);
  assert.deepEqual([plain.data, plain.payload, plain.lagMs, plain.sequence], ['plain', undefined, undefined, undefined]);
  assert.throws(() => plain.json(), /the data of event message is not JSON/);
});

test('an asynchronous handler is awaited: one at a time, and the cursor behind it', async (t) => {
  const { url } = await serve(t, replaying(5));
  const log = [];
  const { connector, until, check } = connect(t, url, {
    onEvent: async (e) => {
      log.push(`begin ${e.id}, cursor ${connector.lastEventId}`);
      await new Promise((resolve) => setImmediate(resolve));
      log.push(`end ${e.id}`);
      queueMicrotask(() => setImmediate(check));
    },
  });
  await until(() => connector.lastEventId === '5');
  const expected = [1, 2, 3, 4, 5].flatMap((n) => [`begin ${n}, cursor ${n === 1 ? '' : n - 1}`, `end ${n}`]);
  assert.deepEqual(log, expected);
});

test('several handlers at once, as many as allowed, and the cursor behind the oldest', async (t) => {
  const { url } = await serve(t, replaying(6));
  const release = new Map();
  let most = 0;
  const { connector, until } = connect(t, url, {
    handlerConcurrency: 3,
    onEvent: (e) => new Promise((resolve) => {
      release.set(e.id, resolve);
      most = Math.max(most, release.size);
    }),
  });
  const settle = async (id) => {
    release.get(id)();
    release.delete(id);
    await new Promise((resolve) => setImmediate(resolve));
  };
  await until(() => release.size === 3);
  await settle('2');
  assert.deepEqual([connector.lastEventId, [...release.keys()]], ['', ['1', '3', '4']]);
  await settle('1');
  assert.deepEqual([connector.lastEventId, [...release.keys()]], ['2', ['3', '4', '5']]);
  for (const id of ['3', '4', '5', '6']) await settle(id);
  assert.deepEqual([connector.lastEventId, most], ['6', 3]);
});

test('a handler that throws is skipped and reported', async (t) => {
  const { url } = await serve(t, replaying(3));
  const [got, errors] = [[], []];
  const { connector, until } = connect(t, url, {
    onError: (error) => errors.push(error),
    onEvent: (e) => {
      got.push(e.id);
      if (e.id === '2') throw new Error('cannot');
    },
  });
  await until(() => connector.lastEventId === '3');
  assert.deepEqual(got, ['1', '2', '3']);
  assert.equal(errors.length, 1);
  const [error] = errors;
  assert.ok(error instanceof SSEError);
  assert.deepEqual([error.code, error.event.id, error.cause.message], ['handler_failed', '2', 'cannot']);
});

test('a handler that fails is called again, and what follows waits', async (t) => {
  const { url } = await serve(t, replaying(3));
  const got = [];
  const { connector, until } = connect(t, url, {
    onHandlerError: 'retry',
    onError: () => {},
    onEvent: (e) => {
      got.push(e.id);
      if (e.id === '2' && got.length < 4) return Promise.reject(new Error('not yet'));
    },
  });
  await until(() => connector.lastEventId === '3');
  assert.deepEqual(got, ['1', '2', '2', '2', '3']);
});

test('a handler that fails stops the stream before its event, which comes again', async (t) => {
  const { url } = await serve(t, replaying(3));
  const got = [];
  const { connector, until } = connect(t, url, {
    onHandlerError: 'stop',
    onError: () => {},
    onEvent: (e) => {
      got.push(e.id);
      if (got.length === 2) throw new Error('cannot');
    },
  });
  await until(() => connector.state === 'closed');
  assert.equal(connector.lastEventId, '1');
  connector.connect();
  await until(() => connector.lastEventId === '3');
  assert.deepEqual(got, ['1', '2', '2', '3']);
});

for (const command of ['stop', 'reconnect']) {
  test(`${command}() in the middle of a batch: what was not begun comes again, nothing else`, async (t) => {
    const { url, requests } = await serve(t, replaying(50));
    const got = [];
    const { connector, until } = connect(t, url, {
      onEvent: (e) => {
        got.push(e.id);
        if (e.id === '20') connector[command]();
      },
    });
    if (command === 'stop') {
      await until(() => connector.state === 'closed' && requests.length === 1);
      assert.deepEqual([got.length, connector.lastEventId], [20, '20']);
      connector.connect();
    }
    await until(() => connector.lastEventId === '50');
    assert.deepEqual(got, Array.from({ length: 50 }, (_, index) => String(index + 1)));
    assert.deepEqual(requests.map((request) => request.headers['last-event-id']), [undefined, '20']);
  });
}

for (const [restart, onHandlerError] of [['connect', 'retry'], ['reconnect', 'retry'], ['connect', 'stop']]) {
  test(`a handler that fails after stop() gets its event again after ${restart}() ('${onHandlerError}')`, async (t) => {
    const { url } = await serve(t, replaying(3));
    const got = [];
    let fail;
    const { connector, until } = connect(t, url, {
      onHandlerError,
      onError: () => {},
      onEvent: (e) => {
        got.push(e.id);
        if (e.id === '2' && fail === undefined) return new Promise((_, reject) => { fail = reject; });
      },
    });
    await until(() => fail !== undefined);
    connector.stop();
    fail(new Error('the page has moved on'));
    await new Promise((resolve) => setImmediate(resolve));
    connector[restart]();
    await until(() => connector.lastEventId === '3');
    assert.deepEqual(got, ['1', '2', '2', '3']);
  });
}

test('a handler may throw what cannot be turned into text', async (t) => {
  const { url } = await serve(t, replaying(3));
  const errors = [];
  const { connector, until } = connect(t, url, {
    onError: (error) => errors.push(error.message),
    onEvent: (e) => {
      if (e.id === '1') throw Object.create(null);
      if (e.id === '2') return Promise.reject(Object.create(null));
    },
  });
  await until(() => connector.lastEventId === '3' || errors.length === 2);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([connector.lastEventId, errors.length], ['3', 2]);
  assert.match(errors[0], /failed for event 1: something that has no text/);
});

test('numbers beyond 2^53 do not stop the stream: they are told as JavaScript has them', async (t) => { // K11
  const clock = 1_795_000_000_000_000_000n;
  const numbered = (n, sequence) => event(n, JSON.stringify({ event_id: String(n), payload: n, sequence: 'S' }).replace('"S"', sequence));
  const open = (position) => `event: control.open\ndata: {"payload":{"protocol":"holdfast/1","position":"${position}","replayable":false}}\n\n`;
  const late = [];
  const gaps = [];
  const told = [];
  for (const body of [
    numbered(1, clock) + numbered(2, clock - 5n) + numbered(3, clock + 1n),
    `${open('a-1')}id: a-18000000000000000000\ndata: x\n\n`,
    `event: control.cannot_resume\ndata: {"payload":{"missing":18000000000000000000}}\n\n${event(3)}`,
  ]) {
    const { url } = await serve(t, (_, response) => { response.writeHead(200, headers).write(body); });
    const { connector, until } = connect(t, url, {
      reorderWindowMs: 1,
      onOutOfOrder: (info) => late.push([info.lastSequence, info.sequence, info.dropped]),
      onGap: (info) => gaps.push(info.count),
      onCannotResume: (info) => told.push(info.missing),
    });
    const last = body.includes('a-1') ? 'a-18000000000000000000' : '3';
    await until(() => connector.lastEventId === last);
    assert.equal(typeof connector.getStats().eventsMissing, 'number');
  }
  assert.deepEqual(late, [[Number(clock), Number(clock - 5n), true]]);
  assert.deepEqual([gaps, told], [[18e18 - 2], [18e18]]);
});

test('reconnect() while a handler is at work does not hand its event out twice', async (t) => {
  const { url, requests } = await serve(t, replaying(3));
  const got = [];
  let release;
  let opens = 0;
  const { connector, until } = connect(t, url, {
    onOpen: () => { opens += 1; },
    onEvent: (e) => {
      got.push(e.id);
      if (e.id === '1') return new Promise((resolve) => { release = resolve; });
    },
  });
  await until(() => release !== undefined);
  connector.reconnect();
  await until(() => opens === 2);
  assert.deepEqual([got, connector.lastEventId], [['1'], ''], 'the next waits for the one at work');
  release();
  await until(() => connector.lastEventId === '3');
  assert.deepEqual(got, ['1', '2', '3']);
  // It was in the app's hands when the second request was made, so that one asks for what follows.
  assert.equal(requests[1].headers['last-event-id'], '1');
});

test('a cut in mid-stream loses nothing and repeats nothing', async (t) => {
  const { url, requests } = await serve(t, (request, response, attempt) => {
    response.writeHead(200, headers);
    const after = Number(request.headers['last-event-id'] ?? 0);
    // Each connection brings three events and half of a fourth; the overlap is the server's.
    response.write(events(Math.max(1, after), after + 3) + `id: ${after + 4}\ndata: ha`, () => {
      if (attempt < 5) response.destroy();
    });
  });
  const [got, duplicates] = [[], []];
  const { until } = connect(t, url, {
    onError: () => {},
    onEvent: (e) => got.push(e.id),
    onDuplicate: (info) => duplicates.push(info),
  });
  await until(() => got.length >= 15);
  assert.deepEqual(got, Array.from({ length: 15 }, (_, index) => String(index + 1)));
  assert.equal(requests.length, 5);
  assert.deepEqual(duplicates[0], { eventId: '3', eventType: 'message' });
});

test('headers and URL may be functions, asked anew; 401 is answered with fresh credentials once', async (t) => {
  const { url, requests } = await serve(t, (request, response) => {
    if (request.headers.authorization !== 'Bearer 2') return response.writeHead(401).end();
    response.writeHead(200, headers).write(event(1));
  });
  let asked = 0;
  const got = [];
  const { until } = connect(t, () => Promise.resolve(`${url}?asked=${asked}`), {
    headers: async () => ({ authorization: `Bearer ${(asked += 1)}` }),
    traceId: 'trace-1', // K13
    onEvent: (e) => got.push(e.data),
  });
  await until(() => got.length === 1);
  assert.deepEqual(requests.map((request) => request.url), ['/stream?asked=0', '/stream?asked=1']);
  assert.equal(requests[0].headers['x-trace-id'], 'trace-1');
  assert.equal(requests[0].headers.accept, 'text/event-stream');
});

test('credentials that stay wrong are asked for once more, not for ever', async (t) => {
  const { url, requests } = await serve(t, (_, response) => response.writeHead(401).end());
  const errors = [];
  const { connector, until } = connect(t, url, { headers: () => ({}), onError: (error) => errors.push(error.code) });
  await until(() => connector.state === 'closed');
  assert.deepEqual([errors, requests.length], [['auth_required'], 2]);
});

test('ids travel as UTF-8 and come back', async (t) => {
  const { url, requests } = await serve(t, (_, response, attempt) => {
    response.writeHead(200, headers);
    response.end(attempt === 1 ? 'id: ключ-é\ndata: x\n\n' : ': end\n\n');
  });
  const { until } = connect(t, url, {});
  await until(() => requests.length === 2);
  assert.equal(Buffer.from(requests[1].headers['last-event-id'], 'latin1').toString('utf8'), 'ключ-é');
});

test('errors thrown in other callbacks are reported and change nothing', async (t) => {
  const { url } = await serve(t, replaying(1));
  const reported = [];
  const { reportError: before } = globalThis;
  globalThis.reportError = (error) => reported.push(error.message);
  const got = [];
  const { connector, until } = connect(t, url, {
    onOpen: () => { throw new Error('in onOpen'); },
    onStateChange: () => { throw new Error('in onStateChange'); },
    onEvent: (e) => got.push(e.id),
  });
  await until(() => got.length === 1);
  // Its last words, too, while they are still listened to.
  connector.dispose();
  globalThis.reportError = before;
  assert.deepEqual(reported.slice(0, 3), ['in onStateChange', 'in onStateChange', 'in onOpen']);
});

test('whatever fails while something about the stream is told, the stream goes on', async (t) => {
  const { url } = await serve(t, (_, response) => {
    response.writeHead(200, headers).write(event(1) + event(1) + event(2));
  });
  const reported = [];
  const { reportError: before } = globalThis;
  t.after(() => { globalThis.reportError = before; });
  globalThis.reportError = (error) => reported.push(error.message);
  t.mock.method(console, 'debug', (_, kind) => {
    if (kind === 'duplicate') throw new Error('the console is full');
  });
  const { connector, until } = connect(t, url, { debug: true, onDuplicate: () => {} });
  await until(() => connector.lastEventId === '2');
  assert.deepEqual(reported, ['the console is full']);
});

test('an error that nobody listens for is not swallowed', async (t) => {
  const reported = [];
  const { reportError: before } = globalThis;
  t.after(() => { globalThis.reportError = before; });
  await new Promise((resolve) => {
    globalThis.reportError = (error) => { reported.push(error); resolve(); };
    connectSSE('http://127.0.0.1:9/', { timeOut: 5 });
  });
  assert.deepEqual([reported[0].code, reported[0].option], ['invalid_option', 'timeOut']);
});

test('state, stop() and dispose() at every moment', async (t) => {
  const { url } = await serve(t, replaying(1));
  const idle = new SSEConnector(url);
  assert.equal(idle.state, 'idle');
  idle.stop();
  idle.stop();
  idle.dispose();
  assert.equal(idle.state, 'closed');
  idle.connect();
  assert.equal(idle.state, 'closed', 'disposed is for good');

  const got = [];
  const { connector, until } = connect(t, url, {
    onEvent: (e) => {
      got.push(e.id);
      connector.dispose();
      assert.equal(connector.state, 'closed', 'known at once');
    },
  });
  assert.equal(connector.state, 'connecting');
  await until(() => got.length === 1);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([connector.state, connector.lastEventId], ['closed', '1']);
  assert.equal(connector.getStats().state, 'closed');
  assert.equal(connector[Symbol.dispose], Symbol.dispose && connector.dispose);
  assert.equal(connector.undefined, undefined, 'no method of that name where there is no such symbol');
});

test('clearCursor() begins anew', async (t) => {
  const { url, requests } = await serve(t, replaying(2));
  const got = [];
  const { connector, until } = connect(t, url, { onEvent: (e) => got.push(e.id) });
  await until(() => got.length === 2);
  connector.stop();
  connector.clearCursor();
  assert.equal(connector.lastEventId, '');
  connector.connect();
  await until(() => requests.length === 2);
  assert.equal(requests[1].headers['last-event-id'], undefined);
});

test('a result whose then throws is a handler that failed, and the stream goes on', async (t) => {
  const { url } = await serve(t, replaying(3));
  const [errors, got] = [[], []];
  const { connector, until } = connect(t, url, {
    onError: (error) => errors.push(error.code),
    onEvent: (e) => {
      got.push(e.id);
      if (e.id === '1') return { then() { throw new Error('in then'); } };
      if (e.id === '2') return { get then() { throw new Error('getting then'); } };
    },
  });
  await until(() => connector.lastEventId === '3');
  assert.deepEqual([got, errors], [['1', '2', '3'], ['handler_failed', 'handler_failed']]);
});

/** A store that an app might have. */
const keeping = (record) => ({
  record,
  get() { return this.record; },
  set(text) { this.record = text; },
  clear() { this.record = undefined; },
});

test('what a handler finishes after dispose() is stored', async (t) => {
  const { url } = await serve(t, replaying(1));
  const store = keeping();
  let release;
  const { connector, until } = connect(t, url, {
    eventIdStorage: store,
    onEvent: () => new Promise((resolve) => { release = resolve; }),
  });
  await until(() => release !== undefined);
  connector.dispose();
  release();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(JSON.parse(store.record).cursor, '1');
});

test('a logout forgets the cursor also before the core is there', async (t) => {
  const { url, requests } = await serve(t, replaying(1));
  const store = keeping('{"v":1,"cursor":"7","done":[],"at":0}');
  const connector = new SSEConnector(url, { eventIdStorage: store });
  connector.clearCursor();
  connector.dispose();
  for (let turn = 0; turn < 50 && store.record !== undefined; turn += 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual([store.record, requests.length], [undefined, 0]);
});

test('a fetch that does not heed its signal has its body cancelled', async (t) => {
  const cancelled = [];
  const got = [];
  const { connector, until } = connect(t, 'http://127.0.0.1:9/', {
    // A response of another library: only its shape is that of the platform's.
    fetch: async () => ({
      status: 200,
      headers: new Headers(headers),
      body: new ReadableStream({
        start: (controller) => controller.enqueue(new TextEncoder().encode(event(1))),
        cancel: () => { cancelled.push(true); },
      }),
      bodyUsed: false,
    }),
    onEvent: (e) => got.push(e.id),
  });
  await until(() => got.length === 1);
  connector.stop();
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(cancelled, [true]);
});
