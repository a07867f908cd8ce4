// The constants, presets and rules that apps pass in.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, headers, serve } from '../support/stream.mjs';

const {
  CannotResumeReason, connectSSE, DEDUPE_DEFAULTS, DEFAULT_RETRY_POLICY, DisconnectReason, GiveUpReason, OrderingRule,
  RetryPolicies,
} = await import(inRepository('pkg/index.js'));

test('the presets have the documented numbers, and all are valid', async () => { // K3, K4
  assert.deepEqual(DEFAULT_RETRY_POLICY, {
    baseDelayMs: 1000, maxDelayMs: 30000, maxAttempts: Infinity, maxRetryTimeMs: Infinity, jitterPct: 0.2, multiplier: 2,
  });
  // The herd (tests/client_herd.rs) is played with what stands in this file; null is without end.
  const file = JSON.parse(await readFile(inRepository('tests/fixtures/retry-presets.json'), 'utf8'));
  for (const [preset, expected] of Object.entries(file)) {
    const value = RetryPolicies[preset];
    const finite = Object.entries(typeof value === 'function' ? value() : value);
    assert.deepEqual(Object.fromEntries(finite.map(([name, n]) => [name, n === Infinity ? null : n])), expected, preset);
  }
  const numbers = ({ baseDelayMs, maxDelayMs, maxAttempts }) => [baseDelayMs, maxDelayMs, maxAttempts];
  assert.equal(RetryPolicies.STANDARD, DEFAULT_RETRY_POLICY);
  for (const [preset, expected] of [
    ['AGGRESSIVE', [500, 10000, 20]], ['CONSERVATIVE', [2000, 60000, 5]], ['STANDARD', [1000, 30000, Infinity]],
    ['aggressive', [500, 10000, 20]], ['conservative', [2000, 60000, 5]], ['default', [1000, 30000, Infinity]],
    ['timeCapped', [1000, 30000, Infinity]], ['balanced', [1000, 15000, 10]], ['none', [1000, 30000, 0]],
    ['persistent', [1000, 60000, Infinity]],
  ]) {
    const value = RetryPolicies[preset];
    const policy = typeof value === 'function' ? value() : value;
    assert.deepEqual(numbers(policy), expected, preset);
    assert.equal(await firstError({ retryPolicy: policy }), 'network_error', preset);
  }
  assert.notEqual(RetryPolicies.default(), RetryPolicies.default(), 'to be changed at will');
});

/** The code of the first error that a connector to nowhere tells. */
function firstError(options) {
  return new Promise((resolve) => {
    const connector = connectSSE('http://127.0.0.1:1/', {
      ...options,
      fetch: () => Promise.reject(new TypeError('nobody there')),
      onError: ({ code, option }) => { connector.dispose(); resolve(code === 'invalid_option' ? option : code); },
    });
  });
}

test('full jitter is offered beside jitterPct', async () => { // K3
  assert.equal(await firstError({ retryPolicy: { jitterKind: 'half' } }), 'retryPolicy.jitterKind');
  const delays = [];
  const { promise, resolve } = deferred();
  for (let n = 0; n < 40; n += 1) {
    const connector = connectSSE('http://127.0.0.1:1/', {
      retryPolicy: { jitterKind: 'full', baseDelayMs: 1000 },
      fetch: () => Promise.reject(new TypeError('nobody there')),
      onError() {},
      onRetry: ({ delayMs }) => {
        delays.push(delayMs);
        connector.dispose();
        if (delays.length === 40) resolve();
      },
    });
  }
  await promise;
  assert.ok(Math.min(...delays) < 500 && Math.max(...delays) > 500, delays.join());
  assert.ok(delays.every((delay) => delay >= 0 && delay <= 1000));
});

test('the reasons have all their names', () => { // K5, K21, K22
  assert.deepEqual(Object.values(GiveUpReason), [
    'max_attempts_reached', 'max_retry_time_exceeded', 'user_stopped', 'intentional_disconnect',
  ]);
  for (const reason of [
    'client_close', 'client_abort', 'client_timeout', 'server_shutdown', 'server_restart', 'server_error', 'idle_timeout',
    'network_error', 'heartbeat_missed', 'liveness_timeout', 'overload_reject', 'rate_limited', 'auth_expired',
    'stream_ended', 'parse_error', 'invalid_event',
  ]) {
    assert.equal(DisconnectReason[reason.toUpperCase()], reason);
  }
  assert.deepEqual(Object.values(CannotResumeReason), [
    'event_not_found', 'buffer_expired', 'replay_too_large', 'resume_disabled', 'invalid_event_id', 'stream_not_found',
    'no_buffer',
  ]);
  assert.deepEqual([DEDUPE_DEFAULTS.MAX_SIZE, DEDUPE_DEFAULTS.TTL_MS], [1000, 0]); // K10
});

const ids = [1, 2, 3].map((n) => `0191a7c0-0000-7000-8000-00000000000${n}`);
const times = ['2026-01-01T00:00:00Z', '2026-01-01T01:00:00.5+01:00', '2026-01-01T00:00:01Z'];
/** The middle event comes last. */
const swapped = [0, 2, 1].map((n) => ({ event_id: ids[n], ts: times[n], sequence: n, type: 'a', payload: { n } }));

for (const [orderingRule, late] of [
  ['SEQUENCE', { lastSequence: 2, sequence: 1 }],
  ['EVENT_ID', { lastMark: ids[2], mark: ids[1] }],
  ['TIMESTAMP', { lastMark: times[2], mark: times[1] }],
  ['NONE', undefined],
]) {
  for (const outOfOrderPolicy of ['DROP', 'DROP_WITH_CALLBACK', 'ACCEPT']) {
    test(`order by ${orderingRule}, policy ${outOfOrderPolicy}`, async (t) => { // K11
      const { url } = await serve(t, (_, response) => {
        response.writeHead(200, headers);
        response.end(`${swapped.map((envelope) => `event: a\ndata: ${JSON.stringify(envelope)}\n\n`).join('')}event: end\ndata:\n\n`);
      });
      const got = [];
      const told = [];
      const { promise, resolve } = deferred();
      const connector = connectSSE(url, {
        orderingRule,
        outOfOrderPolicy,
        onOutOfOrder: (info) => told.push(info),
        onEvent: (e) => (e.type === 'end' ? resolve() : got.push(e.payload.n)),
      });
      t.after(() => connector.dispose());
      await promise;
      const dropped = outOfOrderPolicy !== 'ACCEPT';
      assert.deepEqual(got, late !== undefined && dropped ? [0, 2] : [0, 2, 1]);
      const expected = late === undefined || outOfOrderPolicy === 'DROP'
        ? [] : [{ eventType: 'a', rule: OrderingRule[orderingRule], ...late, dropped }];
      assert.deepEqual(told, expected);
      assert.equal(connector.getStats().outOfOrder, late === undefined ? 0 : 1);
    });
  }
}

/** What a client with policy REORDER gets of a server that numbers its events but not as holdfast does. */
async function reordered(t, respond, options = {}) {
  const requests = [];
  const { url } = await serve(t, (request, response) => {
    requests.push(request.headers['last-event-id']);
    response.writeHead(200, headers);
    respond(response, requests.length);
  });
  const got = [];
  const gaps = [];
  const { promise, resolve } = deferred();
  const connector = connectSSE(url, {
    outOfOrderPolicy: 'REORDER',
    reorderWindowMs: 20,
    retryPolicy: { baseDelayMs: 1 },
    ...options,
    onGap: (info) => gaps.push(info),
    onEvent: (e) => {
      got.push(e.sequence);
      if (e.type === 'end') resolve();
    },
  });
  t.after(() => connector.dispose());
  await promise;
  return { got, gaps, requests, lastEventId: connector.lastEventId };
}

function numbered(sequence, { id = sequence, type = 'a' } = {}) {
  const envelope = { event_id: ids[0], ts: times[0], sequence, stream_id: 's', type, payload: {} };
  return `${id === null ? '' : `id: ${id}\n`}event: ${type}\ndata: ${JSON.stringify(envelope)}\n\n`;
}

test('REORDER puts early events in their place', async (t) => { // K11
  const outcome = await reordered(t, (response) => {
    response.write([1, 4, 3, 2].map((n) => numbered(n)).join('') + numbered(5, { type: 'end' }));
  });
  assert.deepEqual(outcome, { got: [1, 2, 3, 4, 5], gaps: [], requests: [undefined], lastEventId: '5' });
});

test('REORDER fetches what is missing by a new connection from before it', async (t) => { // K11
  const outcome = await reordered(t, (response, connection) => {
    if (connection === 1) response.write(numbered(1) + numbered(4));
    else response.write([2, 3, 4].map((n) => numbered(n)).join('') + numbered(5, { type: 'end' }));
  });
  assert.deepEqual([outcome.got, outcome.gaps, outcome.requests], [[1, 2, 3, 4, 5], [], [undefined, '1']]);
});

test('REORDER tells what cannot be had, and goes on', async (t) => { // K11
  const gap = { firstMissing: '2', lastMissing: '3', count: 2, streamId: 's' };
  const without = await reordered(t, (response) => {
    response.write(numbered(1, { id: null }) + numbered(4, { id: null, type: 'end' }));
  });
  assert.deepEqual([without.got, without.gaps, without.requests.length], [[1, 4], [gap], 1]);
  const gone = await reordered(t, (response, connection) => {
    response.write((connection === 1 ? numbered(1) : '') + numbered(4, { type: 'end' }));
  });
  assert.deepEqual([gone.got, gone.gaps, gone.requests], [[1, 4], [gap], [undefined, '1']]);
  const full = await reordered(t, (response) => {
    response.write([1, 3, 4, 5].map((n) => numbered(n, { id: null })).join('') + numbered(6, { id: null, type: 'end' }));
  }, { reorderWindowMs: 1e9, reorderMaxEvents: 3 });
  assert.deepEqual([full.got, full.gaps.length], [[1, 3, 4, 5, 6], 1], 'a window that is full is not waited for');
});

test('REORDER is refused where it could not keep its word', async () => { // K11
  const outOfOrderPolicy = 'REORDER';
  for (const [options, option, says] of [
    [{ orderingRule: 'EVENT_ID' }, 'outOfOrderPolicy', /unless orderingRule is 'SEQUENCE': the other rules do not know/],
    [{ orderingRule: 'TIMESTAMP' }, 'outOfOrderPolicy', /unless orderingRule is 'SEQUENCE'/],
    [{ orderingRule: 'NONE' }, 'outOfOrderPolicy', /unless orderingRule is 'SEQUENCE'/],
    [{ enableOrdering: false }, 'outOfOrderPolicy', /unless orderingRule is 'SEQUENCE'/],
    [{ enableDedupe: false }, 'outOfOrderPolicy', /unless enableDedupe is true/],
    [{ dedupeMaxSize: 100, reorderMaxEvents: 101 }, 'reorderMaxEvents', /at most dedupeMaxSize \(100\).*got 101/],
    [{ reorderWindowMs: 0 }, 'reorderWindowMs', /a number from 1 /],
    [{ reorderMaxEvents: '3' }, 'reorderMaxEvents', /a number from 1 /],
    [{ reorderMaxBytes: -1 }, 'reorderMaxBytes', /a number from 1 /],
  ]) {
    const { promise, resolve } = deferred();
    const connector = connectSSE('http://127.0.0.1:1/', { outOfOrderPolicy, ...options, onError: resolve });
    const error = await promise;
    connector.dispose();
    assert.deepEqual([error.code, error.option], ['invalid_option', option]);
    assert.match(error.message, says);
  }
});
