// The policies by themselves (`holdfast-sse/policies`), in virtual time.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mock, test } from 'node:test';
import { build } from 'esbuild';
import { inRepository } from '../support/paths.mjs';

const { connectSSE, MemoryStorage } = await import(inRepository('pkg/index.js'));
const {
  createDedupeCache, createEventIdStore, createLivenessMonitor, createOrderingGuard, createReconnectManager, DedupeCache,
  EventIdStore, loadPolicies, OrderingGuard, StateMachine,
} = await import(inRepository('pkg/policies.js'));
await loadPolicies();

/** Timers and a clock that a test moves on. */
function virtualTime(t) {
  mock.timers.enable({ apis: ['setTimeout'] });
  t.after(() => mock.timers.reset());
  let ms = 1_000;
  const pass = (by) => {
    for (let left = by; left > 0; left -= 1) {
      ms += 1;
      mock.timers.tick(1);
    }
  };
  return { now: () => ms, pass };
}

test('constructors are synchronous, once the core is loaded', () => {
  const told = execFileSync(process.execPath, ['--input-type=module', '--eval', `
    import { DedupeCache, loadPolicies, StateMachine } from './pkg/policies.js';
    for (const Class of [DedupeCache, StateMachine]) try { new Class(); } catch (error) { console.log(error.message); }
    const { OrderingGuard } = await loadPolicies();
    console.log(new DedupeCache().isDuplicate('1'), new OrderingGuard().check('{}'), new StateMachine().state);
  `], { cwd: inRepository('.'), encoding: 'utf8' });
  assert.match(told, /^(the core is not loaded yet: await loadPolicies.*\n){2}false true idle\n$/);
});

test('StateMachine goes the ways of the table, and no others', () => { // K2
  const told = [];
  const machine = new StateMachine({ onStateChange: ({ from, to, reason }) => told.push(`${from} ${reason} ${to}`) });
  for (const [reason, moved, state] of [
    ['accepted', false, 'idle'], ['connect', true, 'connecting'], ['connect', false, 'connecting'],
    ['reconnect', true, 'connecting'], ['accepted', true, 'open'], ['lost', true, 'retrying'],
    ['retry_due', true, 'connecting'], ['gave_up', true, 'closed'], ['lost', false, 'closed'], ['connect', true, 'connecting'],
    ['nonsense', false, 'connecting'],
  ]) {
    assert.equal(machine.after(reason) !== undefined, moved, reason);
    assert.deepEqual([machine.transition(reason), machine.state], [moved, state], reason);
  }
  assert.deepEqual(told, [
    'idle connect connecting', 'connecting accepted open', 'open lost retrying', 'retrying retry_due connecting',
    'connecting gave_up closed', 'closed connect connecting',
  ]);
});

test('ReconnectManager waits longer and longer, gives up, and begins again after a reset', (t) => { // K5
  const { now, pass } = virtualTime(t);
  const told = [];
  let connects = 0;
  const manager = createReconnectManager({
    now,
    retryPolicy: { baseDelayMs: 100, maxDelayMs: 300, maxAttempts: 3, jitterPct: 0 },
    onRetry: ({ attempt, delayMs, reason }) => told.push([attempt, delayMs, reason]),
    onGiveUp: ({ reason, attempts, elapsedMs }) => told.push([reason, attempts, elapsedMs]),
  });
  const fail = (more) => manager.schedule(() => { connects += 1; }, more);
  for (const delay of [100, 200, 300]) {
    assert.equal(fail(), true);
    pass(delay - 1);
    assert.equal(manager.isPending, true);
    pass(1);
    assert.equal(manager.isPending, false);
  }
  assert.deepEqual([connects, fail(), fail(), manager.giveUpReason], [3, false, false, 'max_attempts_reached']);
  assert.deepEqual(told, [
    [1, 100, 'network_error'], [2, 200, 'network_error'], [3, 300, 'network_error'], ['max_attempts_reached', 3, 600],
  ]);

  manager.reset();
  assert.deepEqual([manager.attempts, manager.giveUpReason], [0, undefined]);
  manager.setServerRetry(0);
  fail({ reason: 'http_status', retryAfterMs: 5_000 });
  const [attempt, delayMs, reason] = told.at(-1);
  assert.deepEqual([attempt, delayMs >= 5_000 && delayMs <= 6_000, reason], [1, true, 'http_status'], `${delayMs}`);
  manager.reset();
  fail();
  assert.deepEqual(told.at(-1), [1, 50, 'network_error'], 'retry: 0 makes no hot loop');
  manager.stop();
  pass(60_000);
  assert.deepEqual([connects, fail(), manager.giveUpReason], [3, false, 'user_stopped']);
});

test('ReconnectManager gives up by time, and where reconnecting is off', (t) => { // K5
  const { now, pass } = virtualTime(t);
  const manager = createReconnectManager({ now, retryPolicy: { baseDelayMs: 100, maxRetryTimeMs: 250, jitterPct: 0 } });
  while (manager.schedule(() => {})) pass(120);
  assert.equal(manager.giveUpReason, 'max_retry_time_exceeded');
  const off = createReconnectManager({ autoReconnect: false });
  assert.deepEqual([off.schedule(() => {}), off.giveUpReason], [false, 'intentional_disconnect']);
  assert.throws(() => createReconnectManager({ retryPolicy: { maxAttempts: -1 } }), { code: 'invalid_option', option: 'retryPolicy.maxAttempts' });
});

test('LivenessMonitor reports a silence, and cuts once the stream has shown that it beats', (t) => { // K9
  const { now, pass } = virtualTime(t);
  const told = [];
  const monitor = createLivenessMonitor({ now, onLivenessFailure: ({ failure, silentMs, cut }) => told.push([failure, silentMs, cut]) });
  monitor.start();
  pass(29_999);
  assert.deepEqual(told, [], 'the default is 30 s');
  pass(1);
  assert.deepEqual(told.splice(0), [['no_first_byte', 30_000, false]]);
  monitor.activity();
  pass(20_000);
  monitor.heartbeat(20_000);
  pass(49_999);
  assert.deepEqual(told, [], '2.5 announced intervals are more than the timeout');
  pass(1);
  assert.deepEqual(told.splice(0), [['silence', 50_000, true]]);
  monitor.start();
  monitor.stop();
  pass(100_000);
  assert.deepEqual(told, []);
});

test('DedupeCache knows the same id with the same content, within its bounds', () => { // K10
  let ms = 0;
  const cache = createDedupeCache({ maxSize: 2, ttlMs: 100, now: () => ms });
  const check = (id, data, expected) => assert.equal(cache.isDuplicate(id, 'message', data), expected, `${id} ${data} at ${ms}`);
  check('1', 'a', false);
  check('1', 'a', true);
  check('1', 'b', false);
  check('2', 'a', false);
  check('3', 'a', false);
  check('1', 'b', false);
  ms = 150;
  check('1', 'b', false);
  cache.forget('1');
  check('1', 'b', false);
  check('1', 'b', true);
  cache.clear();
  check('1', 'b', false);
  const plain = new DedupeCache();
  for (let n = 0; n <= 1_000; n += 1) plain.isDuplicate(String(n));
  assert.deepEqual([plain.isDuplicate('1000'), plain.isDuplicate('0')], [true, false], '1,000 are remembered');
});

test('OrderingGuard knows what is late, by rule and policy', () => { // K11
  for (const [orderingRule, envelopes] of [
    ['SEQUENCE', [{ sequence: 2 }, { sequence: 1 }, { sequence: 1, stream_id: 'other' }, {}]],
    ['EVENT_ID', [{ event_id: 'b' }, { event_id: 'a' }, { event_id: 'c' }, 'no object']],
    ['TIMESTAMP', [{ ts: '2026-01-01T12:00:00Z' }, { ts: '2026-01-01T11:00:00Z' }, { ts: '2026-01-01T12:00:00Z' }, {}]],
    ['NONE', [{ sequence: 2 }, { sequence: 1 }, {}, {}]],
  ]) {
    for (const [outOfOrderPolicy, passes, tells] of [['DROP', false, 0], ['DROP_WITH_CALLBACK', false, 1], ['ACCEPT', true, 1]]) {
      const told = [];
      const guard = createOrderingGuard({ orderingRule, outOfOrderPolicy, onOutOfOrder: (info) => told.push(info) });
      const isNone = orderingRule === 'NONE';
      assert.deepEqual(envelopes.map((envelope) => guard.check(envelope)), [true, passes || isNone, true, true], orderingRule);
      assert.deepEqual(told.map(({ dropped }) => dropped), isNone ? [] : Array(tells).fill(!passes));
      guard.reset();
      assert.equal(guard.check(envelopes[1]), true, 'a new connection');
    }
  }
  let late;
  const guard = new OrderingGuard({ onOutOfOrder: (info) => { late = info; } });
  assert.deepEqual([guard.check('{"sequence":7}'), guard.check({ sequence: 7 })], [true, false]);
  assert.deepEqual(late, { mark: 7, last: 7, dropped: true });
  assert.throws(() => new OrderingGuard({ outOfOrderPolicy: 'REORDER' }), { code: 'invalid_option', option: 'outOfOrderPolicy' });
  assert.throws(() => new OrderingGuard({ orderingRule: 'BY_SIZE' }), { code: 'invalid_option', option: 'orderingRule' });
});

test('EventIdStore keeps the cursor, where a connector finds it', async (t) => { // K7
  const storage = new MemoryStorage();
  const store = createEventIdStore(storage);
  assert.equal(await store.load(), '');
  store.set('41');
  store.set('42');
  assert.equal(await new EventIdStore(storage).load(), '42');
  const asked = await new Promise((resolve) => {
    const connector = connectSSE('http://127.0.0.1:9/', {
      eventIdStorage: storage,
      fetch: async (_, { headers }) => { resolve(headers.get('last-event-id')); return new Response(null, { status: 204 }); },
    });
    t.after(() => connector.dispose());
  });
  assert.equal(asked, '42');
  store.clear();
  assert.deepEqual([store.lastEventId, await new EventIdStore(storage).load()], ['', '']);

  const failed = [];
  const broken = { get: () => { throw new Error('no disk'); }, set: async () => { throw new Error('full'); }, clear() {} };
  const fallback = new EventIdStore(broken, { onError: (error) => failed.push(error.message) });
  assert.equal(await fallback.load(), '');
  fallback.set('7');
  assert.equal(fallback.lastEventId, '7');
  assert.match(failed.join(), /no disk/);
});

test('a store that answers late does not undo a clear() or set()', async () => { // K7
  for (const [act, expected] of [[(store) => store.clear(), ''], [(store) => store.set('9'), '9'], [() => {}, '7']]) {
    let answer;
    const store = createEventIdStore({ get: () => new Promise((resolve) => { answer = resolve; }), set() {}, clear() {} });
    const loading = store.load();
    act(store);
    answer('{"v":1,"cursor":"7","done":[],"at":0}');
    assert.deepEqual([await loading, store.lastEventId], [expected, expected]);
  }
});

test('all of it comes from the main entry point, too, and it is the same', async () => { // K2, K3, K5, K7, K9–K13
  const main = await import(inRepository('pkg/index.js'));
  const policies = await import(inRepository('pkg/policies.js'));
  for (const [name, value] of Object.entries(policies)) assert.equal(main[name], value, name);
  // The documented imports of a client, but for FileStorage, which needs Node: `holdfast-sse/node`.
  for (const name of [
    'SSEConnector', 'connectSSE', 'ConnectionState', 'TransitionReason', 'StateMachine', 'RetryPolicy', 'RetryPolicies',
    'DEFAULT_RETRY_POLICY', 'ReconnectManager', 'GiveUpReason', 'LivenessMonitor', 'createLivenessMonitor', 'EventIdStore',
    'createEventIdStore', 'MemoryStorage', 'LocalStorageAdapter', 'CannotResumeFallback', 'DedupeCache', 'createDedupeCache',
    'DEDUPE_DEFAULTS', 'OrderingGuard', 'createOrderingGuard', 'OrderingRule', 'OutOfOrderPolicy', 'ClientMetrics',
    'createClientMetrics', 'MetricsSink', 'ConsoleMetricsSink', 'InMemoryMetricsSink', 'createConsoleSink', 'createInMemorySink',
    'createClientLogger', 'getClientLogger',
    // And those shared with a server.
    'ReservedEventTypes', 'RESERVED_PREFIXES', 'isDomainEventType', 'isHeartbeatEvent', 'Defaults', 'DisconnectReason',
    'CannotResumeReason', 'generateEventId', 'extractTimestamp', 'isValidEventId', 'eventEnvelopeSchema', 'validateEvent',
    'createEnvelope', 'createHeartbeat', 'createError', 'createControl', 'createDomainEvent', 'encodeSSE', 'decodeSSE',
    'parseSSEChunk', 'Logger', 'createLogger', 'LogLevel', 'LogComponent', 'LogEvent', 'generateStreamId', 'extractTraceId',
    'createCorrelationContext',
  ]) assert.notEqual(main[name], undefined, name);
});

test('an app that uses none of the classes does not carry them', async () => {
  const bundled = async (contents) => {
    const { outputFiles: [{ text }] } = await build({
      stdin: { contents, resolveDir: inRepository('.') }, bundle: true, format: 'esm', minify: true, write: false, logLevel: 'error',
    });
    return text;
  };
  const lean = await bundled("import { connectSSE } from './pkg/index.js'; connectSSE('/');");
  for (const part of ['isDuplicate', 'loadPolicies()', 'isPending', 'giveUpReason']) assert.ok(!lean.includes(part), part);
  const full = await bundled("import { connectSSE, DedupeCache } from './pkg/index.js'; connectSSE('/'); new DedupeCache();");
  assert.match(full, /isDuplicate/);
});
