// The ways to take events beside onEvent: listeners by name, and loops whose pace is the stream's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { serve } from '../support/stream.mjs';

const { connectSSE, SSEConnector, SSEError } = await import(inRepository('pkg/index.js'));

const headers = { 'content-type': 'text/event-stream' };
const event = (n, name) => `id: ${n}\n${name === undefined ? '' : `event: ${name}\n`}data: ${n}\n\n`;
const events = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => event(from + index)).join('');
const quick = { retryPolicy: { baseDelayMs: 5, jitterPct: 0 } };
const turn = () => new Promise((resolve) => setImmediate(resolve));
const until = async (predicate) => { while (!predicate()) await turn(); };

/** A server that replays events 1 to `last` behind the cursor, and then keeps the stream open. */
const replaying = (last) => (request, response) => {
  const after = Number(request.headers['last-event-id'] ?? 0);
  response.writeHead(200, headers);
  response.write(after < last ? events(after + 1, last) : ': nothing new\n\n');
};

function connect(t, url, options = {}) {
  const connector = connectSSE(url, { ...quick, onError: () => {}, ...options });
  t.after(() => connector.dispose());
  return connector;
}

test('listeners get the events of their name, beside onEvent and in the same order', async (t) => {
  const { url } = await serve(t, (_, response) => {
    response.writeHead(200, headers).write(event(1) + event(2, 'tick') + event(3, 'other') + event(4, 'tick'));
  });
  const log = [];
  const connector = connect(t, url, { onEvent: (e) => { log.push(`onEvent ${e.id}`); } });
  const gone = (e) => { log.push(`gone ${e.id}`); };
  const tick = (e) => { log.push(`tick ${e.id}`); };
  const { signal } = new AbortController();
  connector.addEventListener('message', (e) => { log.push(`message ${e.type} ${e.id}`); });
  connector.addEventListener('tick', tick);
  connector.addEventListener('tick', tick);
  connector.addEventListener('tick', (e) => { log.push(`once ${e.id}`); }, { once: true });
  connector.addEventListener('tick', gone, { signal });
  connector.addEventListener('tick', gone, { signal: AbortSignal.abort() });
  connector.removeEventListener('tick', gone);
  await until(() => connector.lastEventId === '4');
  assert.deepEqual(log, [
    'onEvent 1', 'message message 1', 'onEvent 2', 'tick 2', 'once 2', 'onEvent 3', 'onEvent 4', 'tick 4',
  ]);
});

test('a signal removes its listener in the middle of a batch', async (t) => {
  const { url } = await serve(t, replaying(5));
  const controller = new AbortController();
  const got = [];
  const connector = connect(t, url, {});
  connector.addEventListener('message', (e) => {
    got.push(e.id);
    if (e.id === '2') controller.abort();
  }, { signal: controller.signal });
  await until(() => connector.lastEventId === '5');
  assert.deepEqual(got, ['1', '2']);
});

test('a listener counts as a handler: awaited, and called again alone when it fails', async (t) => {
  const { url } = await serve(t, replaying(2));
  const [log, errors] = [[], []];
  const connector = connect(t, url, {
    onHandlerError: 'retry',
    onError: (error) => errors.push([error.code, error.cause.message]),
    onEvent: (e) => { log.push(`onEvent ${e.id}`); },
  });
  connector.addEventListener('message', async (e) => {
    await turn();
    log.push(`slow ${e.id}, cursor ${connector.lastEventId}`);
  });
  let tries = 0;
  connector.addEventListener('message', (e) => {
    if (e.id === '1' && (tries += 1) < 3) throw new Error(`try ${tries}`);
    log.push(`fails ${e.id}`);
  });
  await until(() => connector.lastEventId === '2');
  assert.deepEqual(log, [
    'onEvent 1', 'slow 1, cursor ', 'fails 1', 'onEvent 2', 'fails 2', 'slow 2, cursor 1',
  ]);
  assert.deepEqual(errors, [['handler_failed', 'try 1'], ['handler_failed', 'try 2']]);
});

test('a loop gets each event, and the cursor moves when it asks for the next', async (t) => {
  const { url } = await serve(t, replaying(4));
  const log = [];
  for await (const e of connect(t, url)) {
    log.push(e.id);
    await turn();
    if (e.id === '4') break;
  }
  assert.deepEqual(log, ['1', '2', '3', '4']);

  const connector = connect(t, url);
  const loop = connector.events();
  assert.equal((await loop.next()).value.id, '1');
  await turn();
  assert.equal(connector.lastEventId, '');
  const second = loop.next();
  assert.equal((await second).value.id, '2');
  assert.equal(connector.lastEventId, '1');
});

test('a loop connects an idle connector, and takes the names it asked for', async (t) => {
  const { url } = await serve(t, (_, response) => {
    response.writeHead(200, headers).write(event(1) + event(2, 'a') + event(3, 'b') + event(4) + event(5, 'a'));
  });
  const connector = new SSEConnector(url, quick);
  t.after(() => connector.dispose());
  const got = [];
  for await (const e of connector.events({ types: ['a', 'b'] })) {
    got.push(`${e.type} ${e.id}`);
    if (e.id === '5') break;
  }
  assert.deepEqual([got, connector.lastEventId], [['a 2', 'b 3', 'a 5'], '5']);
});

for (const handlerConcurrency of [1, 3]) {
  test(`breaking out of the only loop stops, and a new one goes on behind it (${handlerConcurrency} at once)`, async (t) => {
    const { url, requests } = await serve(t, replaying(6));
    const connector = connect(t, url, { handlerConcurrency });
    const got = [];
    for await (const e of connector) {
      got.push(e.id);
      await turn();
      if (e.id === '2') break;
    }
    assert.deepEqual([connector.state, connector.lastEventId], ['closed', '2']);
    connector.connect();
    await assert.rejects(async () => {
      for await (const e of connector) {
        got.push(e.id);
        if (e.id === '4') throw new Error('in the body');
      }
    }, /in the body/);
    assert.equal(connector.lastEventId, '4', 'the event whose body threw counts as processed');
    connector.connect();
    for await (const e of connector) {
      got.push(e.id);
      if (e.id === '6') break;
    }
    assert.deepEqual(got, ['1', '2', '3', '4', '5', '6']);
    assert.deepEqual(requests.map((request) => request.headers['last-event-id']), [undefined, '2', '4']);
  });
}

test('breaking out of one of two consumers leaves the stream to the other', async (t) => {
  const { url } = await serve(t, replaying(5));
  const got = [];
  const connector = connect(t, url, { onEvent: (e) => { got.push(e.id); } });
  for await (const e of connector) if (e.id === '2') break;
  await until(() => connector.lastEventId === '5');
  assert.deepEqual([got, connector.state], [['1', '2', '3', '4', '5'], 'open']);
});

test('a loop ends with the stream, after its last event', async (t) => {
  const { url } = await serve(t, (request, response) => {
    if (request.headers['last-event-id'] === '9') response.writeHead(204).end();
    else response.writeHead(200, headers).end(events(1, 9));
  });
  const got = [];
  for await (const e of connect(t, url)) {
    got.push(e.id);
    await turn();
  }
  assert.equal(got.length, 9);

  const connector = connect(t, url);
  const stopped = [];
  for await (const e of connector) {
    stopped.push(e.id);
    if (e.id === '3') connector.stop();
  }
  assert.deepEqual([stopped, connector.lastEventId], [['1', '2', '3'], '3']);
  for await (const e of connector) assert.fail(`closed, but gave ${e.id}`);

  const disposed = connect(t, url);
  const next = disposed.events().next();
  disposed.dispose();
  assert.deepEqual(await next, { done: true, value: undefined });
});

for (const [code, answer, options] of [
  ['http_status', (response) => response.writeHead(404).end()],
  ['wrong_content_type', (response) => response.writeHead(200, { 'content-type': 'text/html' }).end()],
  ['gave_up', (response) => response.destroy(), { retryPolicy: { ...quick.retryPolicy, maxAttempts: 2 } }],
  ['line_too_long', (response) => response.writeHead(200, headers).write(`${events(1, 3)}data: ${'x'.repeat(2000)}`), { maxLineBytes: 1000 }],
  ['invalid_option', () => {}, { timeout: 'soon' }],
  ['handler_failed', (response) => response.writeHead(200, headers).write(events(1, 3)), {
    onHandlerError: 'stop', onEvent: () => { throw new Error('no'); },
  }],
]) {
  test(`a loop throws ${code} when that closed the stream`, async (t) => {
    const { url } = await serve(t, (_, response) => answer(response));
    const got = [];
    await assert.rejects(async () => {
      for await (const e of connect(t, url, options)) got.push(e.id);
    }, (error) => error instanceof SSEError && error.code === code);
    assert.deepEqual(got, { line_too_long: ['1', '2', '3'], handler_failed: ['1'] }[code] ?? []);
  });
}

test('a slow loop is not read ahead of: the socket of the server is not drained', async (t) => {
  const chunk = `id: 1\ndata: ${'x'.repeat(50_000)}\n\n`;
  let [written, full] = [0, false];
  const { url } = await serve(t, (_, response) => {
    response.writeHead(200, headers);
    const more = () => {
      while (!response.destroyed && written < 4_000) {
        written += 1;
        full = !response.write(`id: ${written}\ndata: ${'x'.repeat(50_000)}\n\n`);
        if (full) return response.once('drain', () => { full = false; more(); });
      }
    };
    more();
  });
  const connector = connect(t, url);
  const loop = connector.events();
  await loop.next();
  // Nothing moves any more once all buffers on the way are full.
  let before;
  do {
    before = written;
    await new Promise((resolve) => setTimeout(resolve, 200));
  } while (written !== before);
  assert.ok(full, 'the server waits for the socket');
  const sent = written * chunk.length;
  assert.ok(sent < 20_000_000, `${sent} bytes of 200 million were taken off the server`);
  const { eventsDelivered } = connector.getStats();
  assert.ok(eventsDelivered < 10, `${eventsDelivered} events were read ahead of the loop`);
  for (let n = 2; n <= 600; n += 1) assert.equal((await loop.next()).value.id, String(n));
  assert.ok(written > before, 'and goes on with the loop');
});

test('one handler that takes long does not hold up the reading for others', async (t) => {
  const { url } = await serve(t, async (_, response) => {
    response.writeHead(200, headers);
    for (let n = 1; n <= 3; n += 1) {
      response.write(event(n));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });
  const got = [];
  const connector = connect(t, url, {
    handlerConcurrency: 3,
    onEvent: (e) => {
      got.push(e.id);
      return new Promise((resolve) => { if (e.id !== '1') resolve(); });
    },
  });
  await until(() => got.length === 3);
  assert.equal(connector.lastEventId, '');
});

const held = {
  'an answer of onCannotResume': {
    body: 'event: control.cannot_resume\ndata: {"payload":{"code":"event_not_found"}}\n\n',
    options: { cannotResumeFallback: 'callback', onCannotResume: () => new Promise(() => {}) },
  },
  'a handler that is to be called again': {
    body: event(1),
    options: { handlerConcurrency: 2, onHandlerError: 'retry', onEvent: () => { throw new Error('not yet'); } },
  },
};

for (const [what, { body, options }] of Object.entries(held)) {
  test(`a loop over a stream that ended and waits for ${what} is ended by stop()`, async (t) => {
    const { url } = await serve(t, (_, response) => response.writeHead(200, headers).end(body));
    const connector = connect(t, url, { ...options, autoReconnect: false });
    const got = [];
    const loop = (async () => { for await (const { id } of connector) got.push(id); })();
    await until(() => connector.state === 'closed');
    connector.stop();
    await loop.catch(() => {});
    assert.ok(got.length <= 1);
  });
}
