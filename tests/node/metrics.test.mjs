// Metrics and the structured log of a connector.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, event, events, headers, serve } from '../support/stream.mjs';

const {
  connectSSE, ConsoleMetricsSink, createClientLogger, createClientMetrics, createConsoleSink, createInMemorySink,
  createLogger, getClientLogger, InMemoryMetricsSink, LogComponent, LogEvent, LogLevel, MetricsSink, NoOpSink,
} = await import(inRepository('pkg/index.js'));

const quick = { retryPolicy: { baseDelayMs: 5, jitterPct: 0 } };
const envelope = (n, ts, sequence = n) =>
  `id: ${n}\nevent: tick\ndata: ${JSON.stringify({ event_id: `e${n}`, type: 'tick', ts, payload: {}, sequence })}\n\n`;
const control = (name, payload) => `event: control.${name}\ndata: ${JSON.stringify({ ts: '2026-01-01T00:00:00Z', payload })}\n\n`;

/** First connection: three events, one of them again, one late, then a cut. Second: what follows. Third: no resume. */
async function story(t, options) {
  const made = new Date(Date.now() - 5_000).toISOString();
  const { url } = await serve(t, (request, response, attempt) => {
    response.writeHead(200, headers);
    if (attempt === 1) {
      const late = envelope(9, made, 1);
      response.write(`${envelope(1, made)}${envelope(2, made)}${envelope(2, made)}${envelope(3, made)}${late}`);
      response.end();
    } else if (attempt === 2) {
      const replayed = control('replay_end', { reason: 'replay_complete', eventCount: 1, truncated: false });
      response.end(control('open', { stream_id: 'stream-x' }) + envelope(4, made, 4) + replayed);
    } else {
      response.write(control('open', { stream_id: 'stream-x' }) + control('cannot_resume', { code: 'buffer_expired' }));
      response.write(event(5));
    }
  });
  const { promise, resolve } = deferred();
  const connector = connectSSE(`${url}?token=hidden`, {
    ...quick,
    ...options,
    onError: (error) => options.onError?.(error),
    onEvent: (e) => {
      if (e.id === '2') throw new Error('cannot, token=x');
      if (e.id === '5') queueMicrotask(() => setImmediate(resolve));
    },
  });
  t.after(() => connector.dispose());
  await promise;
  connector.stop();
  await new Promise((done) => setImmediate(done));
  return connector;
}

test('a connector records all the metrics under their names', async (t) => { // K12
  const metricsSink = createInMemorySink();
  assert.ok(metricsSink instanceof InMemoryMetricsSink && metricsSink instanceof MetricsSink);
  const connector = await story(t, { metricsSink });
  const { counters, gauges, histograms } = metricsSink.toJSON();
  assert.deepEqual(counters, {
    'sse_client_connections_opened_total': 3,
    'sse_client_connections_closed_total{reason="stream_ended"}': 2,
    'sse_client_connections_closed_total{reason="client_close"}': 1,
    'sse_client_reconnect_attempts_total{reason="stream_ended"}': 2,
    'sse_client_resume_success_total': 1,
    'sse_client_resume_failure_total{reason="buffer_expired"}': 1,
    'sse_client_duplicate_events_total{type="tick"}': 1,
    'sse_client_out_of_order_events_total': 1,
    'sse_client_events_received_total': 7,
    'sse_client_events_processed_total': 5,
  });
  assert.deepEqual(gauges, { sse_client_connection_state: 4 });
  const lags = histograms.sse_client_event_lag_ms;
  assert.ok(lags.length === 4 && lags.every((lag) => lag >= 4_900 && lag < 60_000), `each event with a time: ${lags}`);
  assert.equal(counters.sse_client_events_received_total, connector.getStats().eventsReceived);
  assert.equal(metricsSink.getCounter('sse_client_reconnect_attempts_total', { reason: 'stream_ended' }), 2);
  assert.equal(metricsSink.getGauge('sse_client_connection_state'), 4);
});

test('metrics are made only where they are wanted', async (t) => { // K12
  const off = createInMemorySink();
  await story(t, { metricsSink: off, enableMetrics: false });
  assert.deepEqual(off.toJSON(), { counters: {}, gauges: {}, histograms: {} });
  const withoutLag = createInMemorySink();
  await story(t, { metricsSink: withoutLag, trackEventLag: false });
  assert.deepEqual(withoutLag.toJSON().histograms, {});
  await story(t, { metricsSink: new NoOpSink() });
});

test('promises count when they are kept', async (t) => { // K12
  const { url } = await serve(t, (_, response) => response.writeHead(200, headers).write(events(1, 3)));
  const metricsSink = createInMemorySink();
  const { promise, resolve } = deferred();
  const connector = connectSSE(url, {
    metricsSink,
    onEvent: async (e) => { await null; if (e.id === '3') setImmediate(resolve); },
  });
  t.after(() => connector.dispose());
  await promise;
  connector.stop();
  await new Promise((done) => setImmediate(done));
  assert.equal(metricsSink.getCounter('sse_client_events_processed_total'), 3);
});

test('liveness failures are counted', async (t) => { // K12
  const { url } = await serve(t, (_, response) => response.writeHead(200, headers).write('data: x\n\n'));
  const metricsSink = createInMemorySink();
  const { promise, resolve } = deferred();
  const connector = connectSSE(url, {
    metricsSink, livenessTimeoutMs: 20, livenessGracePeriodMs: 0, onLivenessFailure: resolve,
  });
  t.after(() => connector.dispose());
  await promise;
  assert.equal(metricsSink.getCounter('sse_client_liveness_failures_total'), 1);
});

test('a sink of the app\'s own may be any object, and may throw', async (t) => { // K12
  const names = new Set();
  const { reportError: before } = globalThis;
  t.after(() => { globalThis.reportError = before; });
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  const fail = (name) => { names.add(name); throw new Error('no metrics today'); };
  await story(t, { metricsSink: { incCounter: fail, setGauge: fail, observe: fail } });
  assert.ok(names.has('sse_client_connections_opened_total') && names.has('sse_client_connection_state'));
  assert.ok(reported.length > 0 && reported.every((message) => message === 'no metrics today'));
  const { promise, resolve } = deferred();
  connectSSE('http://127.0.0.1:9/', { metricsSink: { incCounter() {} }, onError: resolve });
  const error = await promise;
  assert.deepEqual([error.code, error.option], ['invalid_option', 'metricsSink']);
});

test('Prometheus text', () => { // K12
  const sink = createInMemorySink();
  const metrics = createClientMetrics({ sink });
  metrics.incReconnectAttempts('b');
  metrics.incReconnectAttempts('a"\\\n');
  metrics.incConnectionsOpened();
  metrics.setConnectionState('open');
  for (let n = 1; n <= 1_500; n += 1) metrics.recordEventLag(n);
  assert.equal(sink.toPrometheus(), [
    '# TYPE sse_client_connections_opened_total counter',
    'sse_client_connections_opened_total 1',
    '# TYPE sse_client_reconnect_attempts_total counter',
    'sse_client_reconnect_attempts_total{reason="a\\"\\\\\\n"} 1',
    'sse_client_reconnect_attempts_total{reason="b"} 1',
    '# TYPE sse_client_connection_state gauge',
    'sse_client_connection_state 2',
    '# TYPE sse_client_event_lag_ms summary',
    'sse_client_event_lag_ms{quantile="0.5"} 1001',
    'sse_client_event_lag_ms{quantile="0.95"} 1451',
    'sse_client_event_lag_ms{quantile="0.99"} 1491',
    'sse_client_event_lag_ms_sum 1125750',
    'sse_client_event_lag_ms_count 1500',
    '',
  ].join('\n'));
  sink.reset();
  assert.equal(sink.toPrometheus(), '');
});

test('a server cannot make series without end', () => { // K12
  const sink = createInMemorySink();
  const metrics = createClientMetrics({ sink, prefix: 'x' });
  for (let n = 0; n < 1_000; n += 1) metrics.incConnectionsClosed(`reason ${n}`);
  assert.equal(Object.keys(sink.toJSON().counters).length, 101);
  assert.equal(sink.getCounter('x_connections_closed_total', { reason: 'other' }), 900);
});

test('the console sink', (t) => { // K12
  const lines = [];
  t.mock.method(console, 'log', (line) => lines.push(line));
  const sink = createConsoleSink({ prefix: 'M' });
  sink.incCounter('a', 2, { b: 'c' });
  sink.setGauge('d', 1);
  sink.observe('e', 3);
  assert.ok(sink instanceof ConsoleMetricsSink);
  assert.deepEqual(lines, ['M COUNTER a{b="c"} +2', 'M GAUGE d = 1', 'M HISTOGRAM e 3']);
});

/** Takes lines as a console would. */
function recorder() {
  const lines = [];
  const take = (method) => (line) => lines.push({ method, ...JSON.parse(line) });
  return { lines, output: { debug: take('debug'), log: take('log'), warn: take('warn'), error: take('error') } };
}

test('the log of a stream', async (t) => { // K13, K27
  const { lines, output } = recorder();
  await story(t, { logger: createClientLogger({ level: LogLevel.DEBUG, output }) });
  const count = (name) => lines.filter(({ event: of }) => of === name).length;
  assert.deepEqual(
    Object.fromEntries([...new Set(lines.map((line) => line.event))].sort().map((name) => [name, count(name)])),
    {
      'client.close': 2, 'client.connecting': 3, 'client.error': 1, 'client.open': 3, 'client.retry_scheduled': 2,
      'client.stop': 1, 'duplicate.detected': 1, 'out_of_order.detected': 1, 'resume.attempt': 2, 'resume.cannot_resume': 1,
      'resume.success': 1,
    },
  );
  assert.ok(lines.every(({ ts, component }) => component === LogComponent.CLIENT && !Number.isNaN(Date.parse(ts))));
  assert.equal(lines.at(-1).stream_id, 'stream-x');
  const open = lines.find((line) => line.event === LogEvent.CLIENT_OPEN);
  assert.deepEqual([open.level, open.method, open.details.reconnectCount], ['info', 'log', 0]);
  assert.match(open.details.url, /^http:\/\/127\.0\.0\.1:\d+\/stream\?\[REDACTED\]$/);
  assert.equal(lines.find((line) => line.event === LogEvent.RESUME_CANNOT_RESUME).method, 'warn');
  assert.ok(!JSON.stringify(lines).includes('hidden'), 'no token of the address');
});

/** A stream of answers, one a connection, until the last has been given and `until` holds. */
async function observed(t, answers, options, until) {
  const metricsSink = createInMemorySink();
  const { lines, output } = recorder();
  const { url } = await serve(t, (request, response, attempt) => answers[Math.min(attempt, answers.length) - 1](response, request));
  const connector = connectSSE(url, {
    ...quick, metricsSink, logger: createClientLogger({ level: LogLevel.DEBUG, output }), onError: () => {}, ...options,
  });
  t.after(() => connector.dispose());
  const logged = () => lines.map((line) => line.event);
  while (!until(logged(), connector)) await new Promise((resolve) => setImmediate(resolve));
  return { connector, lines, logged, counters: metricsSink.toJSON().counters, sink: metricsSink };
}
const stream = (...texts) => (response) => {
  response.writeHead(200, headers);
  for (const text of texts) response.write(text);
};
const ended = (...texts) => (response) => response.writeHead(200, headers).end(texts.join(''));

test('a close without an open is not counted as one', async (t) => { // K12
  const { counters, logged } = await observed(t, [(response) => response.writeHead(404).end()], {}, (log) => log.includes('client.close'));
  assert.equal(logged().filter((name) => name === 'client.close').length, 1);
  assert.deepEqual(counters, {});
});

test('a resume is a success where the server shows it, and only there', async (t) => { // K12, K27
  const open = (payload) => control('open', payload);
  const ours = { protocol: 'holdfast/1', replayable: true };
  for (const [name, texts, successes] of [
    ['a server that ignores the cursor', [event(1, 'again'), event(2)], 0],
    ['a server that says nothing', [event(2)], 0],
    ['ours, from the cursor', [open({ ...ours, position: '1' }), event(2)], 1],
    ['ours, from elsewhere', [open({ ...ours, position: '7' }), event(2)], 0],
    ['ours, of several channels, one of which cannot', [
      open({ ...ours, channels: ['a', 'b'], position: 'a:x-9,b:y-1' }), control('replay_start', { channel: 'b', reason: 'no_replay_needed' }),
      control('replay_end', { channel: 'b', truncated: false }), control('cannot_resume', { channel: 'a', code: 'buffer_expired' }), event(2),
    ], 0],
    ['ours, of several channels, from the cursor', [
      open({ ...ours, channels: ['a', 'b'], position: '1' }), control('replay_end', { channel: 'b', truncated: false }), event(2),
    ], 1],
    ['one that says what it replays', [open({}), event(2), control('replay_end', { reason: 'replay_complete' })], 1],
    ['one that cut the replay short', [open({}), event(2), control('replay_end', { truncated: true })], 0],
    ['one that has nothing to replay', [control('replay_start', { reason: 'no_replay_needed' }), event(2)], 1],
    ['one that cannot', [control('cannot_resume', { code: 'buffer_expired' }), event(2), control('replay_end', {})], 0],
  ]) {
    let isThrough = false;
    const { counters, logged } = await observed(
      t, [ended(event(1)), stream(...texts, 'event: end\ndata:\n\n')], { onEvent: (e) => { isThrough ||= e.type === 'end'; } }, () => isThrough,
    );
    assert.equal(counters.sse_client_resume_success_total ?? 0, successes, name);
    assert.equal(logged().filter((entry) => entry === 'resume.success').length, successes, name);
    assert.equal(counters['sse_client_resume_failure_total{reason="buffer_expired"}'] ?? 0, /cannot$/.test(name) ? 1 : 0, name);
  }
});

test('the lag of each event is observed, once', async (t) => { // K12
  const ts = new Date(Date.now() - 5_000).toISOString();
  let tries = 0;
  const { sink } = await observed(
    t, [stream(envelope(1, ts), envelope(2, ts), 'data: plain\n\n', 'data: {"ts":"broken\n\n', envelope(3, ts))],
    { onHandlerError: 'retry', onEvent: (e) => { if (e.id === '2' && (tries += 1) < 3) throw new Error('not yet'); } },
    (_, connector) => connector.lastEventId === '3',
  );
  assert.equal(tries, 3);
  assert.equal(sink.getHistogram('sse_client_event_lag_ms').length, 3);
});

test('every entry of the client\'s list is written once something like it happens', async (t) => { // K27
  const refuses = { '~standard': { version: 1, vendor: 't', validate: () => ({ issues: [{ message: 'wrong' }] }) } };
  const ts = new Date().toISOString();
  const seen = new Set();
  const run = async (answers, options, until) => {
    const { lines, connector } = await observed(t, answers, options, until);
    connector.stop();
    await new Promise((resolve) => setImmediate(resolve));
    for (const line of lines) seen.add(line.event);
    return lines;
  };
  const has = (...names) => (log) => names.every((name) => log.includes(name));
  await run([ended(event(1)), (response) => response.writeHead(500).end(), stream(control('replay_end', {}))], {}, has('resume.failure', 'resume.success'));
  await run([ended(event(1)), stream(control('cannot_resume', {}))], {}, has('resume.cannot_resume'));
  await run([(response) => response.writeHead(500).end()], { retryPolicy: { maxAttempts: 0 } }, has('client.give_up', 'client.close'));
  await run([stream(`data: ${'x'.repeat(200)}\n\n`)], { maxLineBytes: 100 }, has('parse.error'));
  await run([stream(event(1))], { schemas: { message: refuses } }, has('validation.error'));
  await run([stream(event(1))], { schemas: { message: refuses }, onInvalid: () => {} }, has('validation.error'));
  await run([stream(event(1), event(1))], {}, has('duplicate.detected'));
  await run([stream(envelope(3, ts), envelope(2, ts))], {}, has('out_of_order.detected'));
  await run([stream(control('open', {}))], { livenessTimeoutMs: 20, livenessGracePeriodMs: 0 }, has('liveness.failure'));
  await run([stream(envelope(1, ts, 1), envelope(4, ts, 4))], { outOfOrderPolicy: 'REORDER', reorderWindowMs: 5 }, has('gap.detected'));
  await run([stream(event(1))], { onEvent: () => { throw new Error('x'); } }, has('client.error'));
  const servers = /^(stream|replay|heartbeat)\./;
  assert.deepEqual(Object.values(LogEvent).filter((name) => !servers.test(name) && !seen.has(name)), []);
});

test('entries bear the names of stream and trace', async (t) => { // K13, K27
  const named = (n) => `id: ${n}\ndata: ${JSON.stringify({ event_id: `e${n}`, stream_id: 'from-envelope', ts: '', payload: {} })}\n\n`;
  const isDone = (log) => log.filter((name) => name === 'client.close').length >= 1;
  const last = async (texts, options) => {
    const { lines } = await observed(t, [ended(...texts)], { autoReconnect: false, ...options }, isDone);
    const { stream_id: stream_, trace_id: trace } = lines.at(-1);
    return [stream_, trace];
  };
  assert.deepEqual(await last([event(1)], {}), [undefined, undefined]);
  assert.deepEqual(await last([event(1)], { traceId: 'mine' }), [undefined, 'mine']);
  assert.deepEqual(await last([named(1)], {}), ['from-envelope', undefined]);
  assert.deepEqual(await last([named(1)], { metricsSink: null }), ['from-envelope', undefined]);
  const open = control('open', { stream_id: 'from-open', trace_id: 'theirs' });
  assert.deepEqual(await last([open, named(1)], { traceId: 'mine' }), ['from-open', 'theirs']);
});

test('secrets and long texts do not get into the log', () => { // K27
  const { lines, output } = recorder();
  const logger = createLogger({ output, context: { apiKey: 'hidden', region: 'eu' } });
  const cyclic = { name: 'x' };
  cyclic.self = cyclic;
  logger.warn('a', 'see http://h/p?token=hidden for it', {
    Authorization: 'hidden', userPassword: 'hidden', refresh_token: 'hidden', SECRET: 'hidden', credentials: ['hidden'],
    nested: { list: [{ accessToken: 'hidden', ok: 1 }] }, url: 'https://h/p?x=hidden#f', long: 'x'.repeat(600), cyclic,
    failure: new Error('at http://h/?hidden'), big: 7n,
  });
  assert.ok(!JSON.stringify(lines).includes('hidden'), JSON.stringify(lines));
  const [{ details, message, region }] = lines;
  assert.deepEqual(
    [message, region, details.nested, details.long.length, details.big],
    ['see http://h/p?[REDACTED] for it', 'eu', { list: [{ accessToken: '[REDACTED]', ok: 1 }] }, 514, '7'],
  );
});

test('levels, children and the one logger of a page', () => { // K13
  const { lines, output } = recorder();
  const logger = createClientLogger({ output });
  assert.equal(logger.debug('a', 'below the level'), undefined);
  logger.setLevel('error');
  logger.warn('b', 'below it, too');
  logger.error('c', 'above');
  logger.setEnabled(false);
  logger.error('d', 'switched off');
  const child = logger.child({ enabled: true, streamId: 's', context: { part: 1 } });
  child.error('e', 'of the child');
  assert.deepEqual(lines.map((line) => [line.event, line.stream_id, line.part]), [['c', undefined, undefined], ['e', 's', 1]]);
  assert.equal(getClientLogger({ output }), getClientLogger());
});

test('debug output has no secrets, either', async (t) => { // K13, K27
  const shown = [];
  t.mock.method(console, 'debug', (...parts) => shown.push(JSON.stringify(parts)));
  await story(t, { debug: true });
  assert.ok(shown.some((line) => line.includes('"open"')));
  assert.ok(!shown.join().includes('hidden'));
});
