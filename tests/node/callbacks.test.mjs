// Every callback, told once and with all its fields, and what an app may do inside of one.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { startServer } from '../support/server.mjs';
import { deferred, event, headers, serve } from '../support/stream.mjs';

const { connectSSE, createClientLogger, SSEConnector, SSEError, StreamEvent } = await import(inRepository('pkg/index.js'));

const quick = { retryPolicy: { baseDelayMs: 5, jitterPct: 0 } };
const turn = () => new Promise((resolve) => setImmediate(resolve));
/** Waits until it holds, for as long as the runner lets it. */
async function until(holds) {
  while (!holds()) await turn();
}
const control = (name, payload) => `event: ${name}\ndata: ${JSON.stringify({ event_id: 'x', type: name, ts: '2026-01-01T00:00:00Z', payload })}\n\n`;
const envelope = (n, sequence = n) => (
  `id: ${n}\nevent: tick\ndata: ${JSON.stringify({ event_id: `e${n}`, type: 'tick', ts: '2026-01-01T00:00:00Z', payload: { n }, sequence })}\n\n`
);

/** Catches what is reported to the page. */
function reports(t) {
  const { reportError: before } = globalThis;
  t.after(() => { globalThis.reportError = before; });
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message ?? String(error));
  return reported;
}

test('each callback is told once, with its fields', async (t) => { // K6
  const { url } = await serve(t, (request, response, attempt) => {
    if (attempt === 2) return response.writeHead(500).end();
    response.writeHead(200, headers);
    if (attempt === 1) {
      response.end(control('control.open', {}) + control('system.heartbeat', { interval_ms: 60_000 }) + control('system.error', { message: 'm', code: 'C' })
        + envelope(1) + envelope(1) + envelope(3) + envelope(2));
    } else if (attempt === 3) {
      const refusal = { code: 'event_not_found', reason: 'r', message: 'm', requestedId: '3', oldestAvailable: '8', newestAvailable: '9', missing: 4 };
      response.write(control('control.cannot_resume', refusal));
    }
  });
  const told = {};
  const names = [
    'onEvent', 'onOpen', 'onClose', 'onError', 'onRetry', 'onGiveUp', 'onHeartbeat', 'onControl', 'onSystemError', 'onDuplicate',
    'onOutOfOrder', 'onLivenessFailure', 'onCannotResume', 'onResumeAttempt', 'onStateChange', 'onGap', 'onInvalid',
  ];
  const done = deferred();
  const callbacks = Object.fromEntries(names.map((name) => [name, (info) => {
    (told[name] ??= []).push(info instanceof StreamEvent ? [info.type, info.payload] : info instanceof SSEError ? [info.code, info.status, info.willRetry] : info);
    if (name === 'onCannotResume') done.resolve();
  }]));
  const connector = connectSSE(url, { ...quick, ...callbacks });
  t.after(() => connector.dispose());
  await done.promise;
  connector.stop();
  assert.deepEqual(told, {
    onStateChange: [
      { from: 'idle', to: 'connecting', reason: 'connect' }, { from: 'connecting', to: 'open', reason: 'accepted' },
      { from: 'open', to: 'retrying', reason: 'lost' }, { from: 'retrying', to: 'connecting', reason: 'retry_due' },
      { from: 'connecting', to: 'retrying', reason: 'lost' }, { from: 'retrying', to: 'connecting', reason: 'retry_due' },
      { from: 'connecting', to: 'open', reason: 'accepted' }, { from: 'open', to: 'closed', reason: 'stop' },
    ],
    onOpen: [{ url, reconnectCount: 0, attempt: 0 }, { url, reconnectCount: 1, attempt: 2, lastEventId: '3' }],
    onControl: [
      ['control.open', {}], ['system.error', { message: 'm', code: 'C' }],
      ['control.cannot_resume', { code: 'event_not_found', reason: 'r', message: 'm', requestedId: '3', oldestAvailable: '8', newestAvailable: '9', missing: 4 }],
    ],
    onSystemError: [['system.error', { message: 'm', code: 'C' }]],
    onHeartbeat: [['system.heartbeat', { interval_ms: 60_000 }]],
    onEvent: [['tick', { n: 1 }], ['tick', { n: 3 }]],
    onDuplicate: [{ eventId: '1', eventType: 'tick' }],
    onOutOfOrder: [{ eventId: '2', eventType: 'tick', rule: 'SEQUENCE', lastSequence: 3, sequence: 2, dropped: true }],
    onClose: [{ reason: 'stream_ended', willReconnect: true, retryIn: 5 }, { reason: 'client_close', willReconnect: false }],
    onRetry: [{ attempt: 1, delayMs: 5, reason: 'stream_ended' }, { attempt: 2, delayMs: 10, reason: 'server_error' }],
    onError: [['http_status', 500, true]],
    onResumeAttempt: [{ lastEventId: '3' }, { lastEventId: '3' }],
    onCannotResume: [{
      code: 'event_not_found', reason: 'r', message: 'm', requestedId: '3', oldestAvailable: '8', newestAvailable: '9', missing: 4,
    }],
  });
});

test('against the real server: events, heartbeats, what it says of the stream', async (t) => { // K6
  const server = await startServer({
    args: ['--memory', '--heartbeat-interval', '20'], env: { SSE_PUBLISH_TOKEN: 'secret' },
  });
  t.after(() => server.kill());
  const beaten = deferred();
  const came = deferred();
  const controls = [];
  const connector = connectSSE(`${server.address}/stream/k6`, {
    ...quick,
    onOpen: () => void fetch(`${server.address}/publish/k6`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer secret' },
      body: JSON.stringify({ type: 'domain.tick', payload: { n: 1 } }),
    }),
    onHeartbeat: beaten.resolve,
    onControl: (e) => controls.push(e),
    onEvent: came.resolve,
  });
  t.after(() => connector.dispose());
  const beat = await beaten.promise;
  assert.deepEqual([beat.type, beat.payload.interval_ms], ['system.heartbeat', 20]);
  const open = controls.find(({ type }) => type === 'control.open');
  assert.deepEqual([open.payload.protocol, typeof open.payload.stream_id], ['holdfast/1', 'string']);
  const got = await came.promise;
  assert.deepEqual([got.type, got.payload, got.sequence], ['domain.tick', { n: 1 }, 1]);
  assert.equal(got.event_id, got.eventId);
  assert.ok(connector.getStats().heartbeats > 0);
});

test('system.error is told: to onSystemError, else to onError as server_error; the stream goes on', async (t) => { // K6
  const { url } = await serve(t, (_, response) => {
    response.writeHead(200, headers).write(control('system.error', { message: 'the disk is full', code: 'DISK' }) + event(1));
  });
  const run = async (options) => {
    const [errors, entries, came] = [[], [], deferred()];
    const output = { debug() {}, log() {}, error() {}, warn: (line) => entries.push(JSON.parse(line)) };
    const connector = connectSSE(url, {
      logger: createClientLogger({ output }), ...options, onError: (error) => errors.push(error), onEvent: came.resolve,
    });
    t.after(() => connector.dispose());
    await came.promise;
    assert.equal(connector.state, 'open');
    assert.deepEqual([entries.map((entry) => [entry.event, entry.details.code])], [[['client.error', 'server_error']]]);
    return errors;
  };
  const [error] = await run({});
  assert.deepEqual([error.code, error.willRetry, error.event.payload.code], ['server_error', true, 'DISK']);
  assert.match(error.message, /\(DISK\): the disk is full/);
  const events = [];
  assert.deepEqual(await run({ onSystemError: (e) => events.push(e.payload.message) }), []);
  assert.deepEqual(events, ['the disk is full']);
});

test('to the drop-in for EventSource a system.error is an event, and no failure of its own', async (t) => {
  const { EventSource } = await import(inRepository('pkg/eventsource.js'));
  const { url } = await serve(t, (_, response) => response.writeHead(200, headers).end(control('system.error', { message: 'm' })));
  const source = new EventSource(url);
  t.after(() => source.close());
  const heard = deferred();
  source.addEventListener('system.error', heard.resolve);
  const failed = new Promise((resolve) => { source.onerror = resolve; });
  assert.equal(JSON.parse((await heard.promise).data).payload.message, 'm');
  assert.equal((await failed).error, undefined);
});

for (const ack of ['auto', 'manual']) {
  test(`shouldProcess skips events, which count as processed (ack: ${ack})`, async (t) => { // K6
    const { url } = await serve(t, (_, response) => response.writeHead(200, headers).write([1, 2, 3].map((n) => event(n)).join('')));
    const reported = reports(t);
    const got = [];
    const errors = [];
    const connector = connectSSE(url, {
      ack,
      shouldProcess: (e) => {
        if (e.id === '2') throw new Error('cannot tell');
        return e.id !== '3';
      },
      onEvent: (e) => { got.push(e.id); e.ack(); },
      onError: (error) => errors.push(error.code),
    });
    t.after(() => connector.dispose());
    await until(() => connector.lastEventId === '3');
    assert.deepEqual([got, errors, reported], [['1'], ['handler_failed'], []]);
  });
}

const late = (n) => envelope(n).replace(/^id: /, 'id: late ');
const endsOnce = { answer: (response, n, attempt) => (attempt === 1 ? response.writeHead(200, headers).end(event(n)) : undefined) };
const failsOnce = { answer: (response, n, attempt) => (attempt === 1 ? response.writeHead(500).end() : undefined) };
/** What calls back, and what makes a server's first answer lead to it. Each connection brings the event behind the cursor. */
const places = {
  onOpen: {}, onStateChange: {}, onEvent: {},
  onClose: endsOnce,
  onRetry: endsOnce,
  onError: failsOnce,
  onGiveUp: { ...failsOnce, options: { retryPolicy: { maxAttempts: 0 } } },
  onControl: { before: control('control.other', {}) },
  onSystemError: { before: control('system.error', {}) },
  onHeartbeat: { before: control('system.heartbeat', {}) },
  onCannotResume: { before: control('control.cannot_resume', {}) },
  onResumeAttempt: endsOnce,
  onDuplicate: { before: `${event('x')}${event('x')}` },
  onOutOfOrder: { before: `${late(2)}${late(1)}` },
  onInvalid: {
    options: { schemas: { bad: { '~standard': { version: 1, vendor: 't', validate: () => ({ issues: [{ message: 'no' }] }) } } } },
    before: 'id: bad\nevent: bad\ndata: 1\n\n',
  },
  onResponse: {}, fetch: {}, headers: {}, url: {}, shouldProcess: {},
};

for (const [place, { options, before = '', answer = () => undefined }] of Object.entries(places)) {
  for (const command of ['stop', 'reconnect', 'connect', 'dispose']) {
    test(`${command}() inside ${place}: nothing is thrown, nothing is lost`, async (t) => {
      let sent;
      const { url, requests } = await serve(t, (request, response, attempt) => {
        const cursor = Number(request.headers['last-event-id']);
        sent = String(Number.isNaN(cursor) ? attempt : cursor + 1);
        if (answer(response, sent, attempt) === undefined) response.writeHead(200, headers).write(before + event(sent));
      });
      const reported = reports(t);
      const got = [];
      let acted = false;
      const act = (value) => {
        if (!acted) {
          acted = true;
          connector[command]();
          if (command === 'stop' || command === 'dispose') assert.equal(connector.state, 'closed');
        }
        return value;
      };
      const told = [];
      const inside = {
        onResponse: () => act(undefined), fetch: (...args) => { act(); return fetch(...args); }, headers: () => act({}), shouldProcess: () => act(true),
      };
      const connector = new SSEConnector(place === 'url' ? () => act(url) : url, {
        ...quick,
        onError: () => {},
        ...options,
        onEvent: (e) => { got.push(e.id); },
        onClose: (info) => told.push(info),
        ...(place === 'url' ? {} : {
          [place]: inside[place] ?? ((info) => {
            if (place === 'onEvent') got.push(info.id);
            if (place === 'onClose') told.push(info);
            act();
          }),
        }),
      });
      t.after(() => connector.dispose());
      const state = () => `${connector.state}, got ${got}, ${requests.length} requests, told ${JSON.stringify(told)}`;
      connector.connect();
      await until(() => acted);
      const isThere = () => connector.state === 'open' && got.includes(sent);
      if (command === 'stop' || command === 'dispose') {
        const count = requests.length;
        for (let n = 0; n < 20; n += 1) await turn();
        assert.deepEqual([connector.state, requests.length], ['closed', count], 'no request after the end');
        assert.ok(told.every(({ reason, willReconnect }) => reason !== 'client_close' || !willReconnect), state());
      }
      if (command === 'stop') connector.connect();
      if (command !== 'dispose') await until(isThere);
      const numbers = got.map(Number).filter((n) => !Number.isNaN(n));
      assert.deepEqual(numbers, [...new Set(numbers)].sort((a, b) => a - b), 'each once, in order');
      assert.deepEqual(reported, []);
    });
  }
}
