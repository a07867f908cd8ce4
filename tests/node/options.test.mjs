// Options as they are documented: each is accepted, does what it says, and null counts as absent.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, event, headers, serve } from '../support/stream.mjs';

const {
  CannotResumeFallback, connectSSE, createClientLogger, createInMemorySink, DEFAULT_RETRY_POLICY, MemoryStorage, OrderingRule,
  RetryPolicy,
} = await import(inRepository('pkg/index.js'));
const { FileStorage } = await import(inRepository('pkg/node.js'));

const turn = () => new Promise((resolve) => setImmediate(resolve));
const envelope = (n, more = {}) => ({
  event_id: `0191a7c0-0000-7000-8000-00000000000${n}`, type: 'domain.tick', ts: new Date().toISOString(), payload: { n }, sequence: n, ...more,
});
const send = (n, more) => `id: ${n}\nevent: domain.tick\ndata: ${JSON.stringify(envelope(n, more))}\n\n`;

/** Every option but callbacks, with a value that is accepted. */
const documented = {
  retryPolicy: { baseDelayMs: 10, maxDelayMs: 20, maxAttempts: 3, maxRetryTimeMs: 300_000, jitterPct: 0.5, jitterKind: 'full', multiplier: 3 },
  autoReconnect: false, timeout: 1_000, stableAfterMs: 10, headers: { a: 'b' }, traceId: 'trace', debug: false,
  logger: createClientLogger({ enabled: false }), enableMetrics: false, metricsSink: createInMemorySink(), trackEventLag: false,
  persistLastEventId: true, persistKey: 'key', eventIdStorage: new MemoryStorage(), cannotResumeFallback: 'callback',
  enableLivenessCheck: false, livenessTimeoutMs: 1_000, livenessGracePeriodMs: 0, enableDedupe: false, dedupeMaxSize: 5,
  dedupeTtlMs: 60_000, enableOrdering: false, orderingRule: 'TIMESTAMP', outOfOrderPolicy: 'ACCEPT', reorderMaxEvents: 3,
  reorderMaxBytes: 100, reorderWindowMs: 10, maxLineBytes: 1_000, maxEventBytes: 1_000, onHandlerError: 'retry',
  handlerConcurrency: 2, credentials: 'omit', lastEventIdParam: 'cursor', method: 'GET', replayRequest: true,
  requestInit: { redirect: 'follow' }, signal: new AbortController().signal, ack: 'manual', schemas: {}, onInvalidEvent: 'deliver',
  transport: 'fetch', whenHidden: 'pause', hiddenAfterMs: 1,
  fetch, resumeRequest: () => undefined, onResponse: () => undefined, shouldProcess: () => true,
};

/** Opens a stream and answers once it is open, or with the error. */
async function opens(t, options) {
  const { url } = await serve(t, (_, response) => response.writeHead(200, headers).write(': here\n\n'));
  const { promise, resolve } = deferred();
  const connector = connectSSE(url, { onError: resolve, onOpen: () => resolve(undefined), ...options });
  const error = await promise;
  connector.dispose();
  return error;
}

for (const [option, value] of Object.entries(documented)) {
  test(`${option} is accepted, and null is as if it were not there`, async (t) => {
    assert.equal(await opens(t, { [option]: value }), undefined);
    assert.equal(await opens(t, { [option]: null }), undefined);
  });
}

test('null is absent in every callback and within retryPolicy, too', async (t) => {
  const callbacks = [
    'onEvent', 'onClose', 'onRetry', 'onGiveUp', 'onHeartbeat', 'onControl', 'onSystemError', 'onDuplicate', 'onOutOfOrder',
    'onGap', 'onLivenessFailure', 'onCannotResume', 'onResumeAttempt', 'onStateChange', 'onResponse', 'onInvalid',
    'resumeRequest', 'shouldProcess', 'fetch', 'body', 'maxUnacked', 'eventTypes',
  ];
  assert.equal(await opens(t, Object.fromEntries(callbacks.map((name) => [name, null]))), undefined);
  const policy = Object.fromEntries(Object.keys(documented.retryPolicy).map((name) => [name, null]));
  assert.equal(await opens(t, { retryPolicy: policy }), undefined);
});

test('RetryPolicy is a policy with everything in it', async (t) => { // K3
  assert.deepEqual({ ...new RetryPolicy() }, { ...DEFAULT_RETRY_POLICY });
  const policy = new RetryPolicy({ baseDelayMs: 7, maxAttempts: 1, jitterPct: 0 });
  assert.ok(policy instanceof RetryPolicy);
  assert.deepEqual([policy.baseDelayMs, policy.maxAttempts, policy.maxDelayMs], [7, 1, 30_000]);
  const { url } = await serve(t, (_, response) => response.writeHead(500).end());
  const told = await new Promise((resolve) => {
    const delays = [];
    const connector = connectSSE(url, {
      retryPolicy: policy, onError: () => {}, onRetry: ({ delayMs }) => delays.push(delayMs), onGiveUp: (info) => resolve({ delays, info }),
    });
    t.after(() => connector.dispose());
  });
  assert.deepEqual([told.delays, told.info.attempts], [[7], 1]);
});

test('a small dedupeMaxSize bounds the window of REORDER by itself', async (t) => { // K11
  assert.equal(await opens(t, { outOfOrderPolicy: 'REORDER', dedupeMaxSize: 100 }), undefined);
  assert.equal(await opens(t, { outOfOrderPolicy: 'REORDER', dedupeMaxSize: 1_000 }), undefined);
});

/** Runs a stream of these texts to its end; answers what came. */
async function follow(t, texts, options) {
  const { url } = await serve(t, (_, response) => response.writeHead(200, headers).end(texts.join('')));
  const got = [];
  const closed = deferred();
  const connector = connectSSE(url, {
    autoReconnect: false, onError: () => {}, ...options, onEvent: (e) => got.push(e.payload?.n ?? e.data), onClose: closed.resolve,
  });
  t.after(() => connector.dispose());
  await closed.promise;
  return { got, stats: connector.getStats() };
}

test('dedupe: on, off, by size, by time', async (t) => { // K10
  const repeats = [event(1), event(2), event(1)];
  assert.deepEqual((await follow(t, repeats, {})).got, ['e1', 'e2']);
  assert.deepEqual((await follow(t, repeats, { enableDedupe: false })).got, ['e1', 'e2', 'e1']);
  assert.deepEqual((await follow(t, repeats, { dedupeMaxSize: 1 })).got, ['e1', 'e2', 'e1'], 'the first was forgotten');
  assert.deepEqual((await follow(t, repeats, { dedupeTtlMs: 60_000 })).got, ['e1', 'e2']);
  const { url } = await serve(t, (_, response) => {
    response.writeHead(200, headers).write(event(1));
    again = () => response.write(event(1));
  });
  let again;
  const got = deferred();
  const times = [];
  const connector = connectSSE(url, {
    dedupeTtlMs: 1, onEvent: () => { times.push(Date.now()); if (times.length === 2) got.resolve(); },
  });
  t.after(() => connector.dispose());
  while (times.length === 0 || Date.now() <= times[0] + 5) await turn();
  again();
  await got.promise;
});

test('ordering: on and off', async (t) => { // K11
  const swapped = [send(1), send(3), send(2)];
  assert.deepEqual((await follow(t, swapped, {})).got, [1, 3]);
  assert.deepEqual((await follow(t, swapped, { enableOrdering: false })).got, [1, 3, 2]);
  assert.deepEqual((await follow(t, swapped, { orderingRule: 'NONE' })).got, [1, 3, 2]);
});

test('liveness: on and off', async (t) => { // K9
  const { url } = await serve(t, (_, response) => response.writeHead(200, headers).write('event: system.heartbeat\ndata: {}\n\n'));
  const run = (options) => {
    const failed = deferred();
    const connector = connectSSE(url, {
      livenessTimeoutMs: 20, livenessGracePeriodMs: 0, onError: () => {}, ...options, onLivenessFailure: failed.resolve,
    });
    t.after(() => connector.dispose());
    return { connector, failed: failed.promise };
  };
  const off = run({ enableLivenessCheck: false });
  const { failure, cut, silentMs } = await run({}).failed;
  assert.deepEqual([failure, cut, silentMs >= 20], ['silence', true, true]);
  // It had as long.
  assert.equal(off.connector.getStats().livenessFailures, 0);
});

test('the documented example with all options', async (t) => { // K1–K13, K33
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-options-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'last-event-id.txt');
  const { url, requests } = await serve(t, (_, response) => {
    response.writeHead(200, headers).write(`event: control.open\ndata: {"payload":{}}\n\n${send(1)}${send(2)}`);
  });
  const got = [];
  const second = deferred();
  const metricsSink = createInMemorySink();

  const connector = connectSSE(url, {
    // === Retry Policy ===
    retryPolicy: {
      baseDelayMs: 1000, // Initial retry delay
      maxDelayMs: 30000, // Maximum retry delay
      maxAttempts: 10, // Give up after N attempts
      maxRetryTimeMs: 300000, // Give up after 5 minutes total
      jitterPct: 0.2, // 20% jitter
    },

    // === Resume ===
    persistLastEventId: true,
    eventIdStorage: new FileStorage(file),
    cannotResumeFallback: CannotResumeFallback.START_FRESH,

    // === Liveness ===
    enableLivenessCheck: true,
    livenessTimeoutMs: 30000,
    livenessGracePeriodMs: 5000,

    // === Deduplication ===
    enableDedupe: true,
    dedupeMaxSize: 1000,
    dedupeTtlMs: 60000,

    // === Ordering ===
    enableOrdering: true,
    orderingRule: OrderingRule.SEQUENCE,

    // === Metrics ===
    enableMetrics: true,
    metricsSink: metricsSink,
    trackEventLag: true,

    // === Correlation ===
    traceId: 'my-trace-123',

    // === Callbacks ===
    onEvent: (event) => {
      got.push([event.type, event.payload.n]);
      if (got.length === 2) second.resolve();
    },
    onOpen: (info) => {
      /* ... */
    },
    onClose: (info) => {
      /* ... */
    },
    onError: (err) => {
      second.reject(err);
    },
    onRetry: (info) => {
      /* ... */
    },
    onGiveUp: (info) => {
      /* ... */
    },
    onHeartbeat: (event) => {
      /* ... */
    },
    onControl: (event) => {
      /* ... */
    },
    onDuplicate: (info) => {
      /* ... */
    },
    onOutOfOrder: (info) => {
      /* ... */
    },
    onLivenessFailure: (info) => {
      /* ... */
    },
    onCannotResume: (info) => {
      /* ... */
    },
  });

  await second.promise;
  await turn();
  const stats = connector.getStats();
  connector.stop();
  assert.deepEqual(got, [['domain.tick', 1], ['domain.tick', 2]]);
  assert.deepEqual([stats.eventsReceived, stats.reconnectCount, stats.duplicatesIgnored], [2, 0, 0]);
  assert.ok(stats.lag >= 0);
  const { counters, histograms } = metricsSink.toJSON();
  assert.equal(counters.sse_client_events_processed_total, 2);
  assert.equal(histograms.sse_client_event_lag_ms.length, 2);
  assert.equal(requests[0].headers['x-trace-id'], 'my-trace-123');
  assert.equal(JSON.parse(readFileSync(file, 'utf8')).cursor, '2');
});

test('getStats() has all its fields, before and after', async (t) => { // K1
  const names = [
    'bytesReceived', 'clockRegressions', 'connectionsOpened', 'duplicatesIgnored', 'eventsDelivered', 'eventsMissing',
    'eventsReceived', 'heartbeats', 'lag', 'lastEventId', 'livenessFailures', 'outOfOrder', 'reconnectCount', 'state',
  ];
  const texts = [send(1), send(1), send(3), send(2), 'event: system.heartbeat\ndata: {}\n\n'];
  const { stats } = await follow(t, texts, {});
  assert.deepEqual(Object.keys(stats).sort(), names);
  const { lag, ...counted } = stats;
  assert.ok(lag >= 0 && lag < 60_000, `${lag}`);
  assert.deepEqual(counted, {
    eventsReceived: 4, eventsDelivered: 2, duplicatesIgnored: 1, outOfOrder: 1, eventsMissing: 0, heartbeats: 1, reconnectCount: 0,
    connectionsOpened: 1, livenessFailures: 0, bytesReceived: texts.join('').length, clockRegressions: 0, state: 'closed', lastEventId: '3',
  });
  const before = connectSSE('http://127.0.0.1:1/', { onError: () => {} });
  t.after(() => before.dispose());
  assert.deepEqual(Object.keys(before.getStats()).sort(), names);
});
