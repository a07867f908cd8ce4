// Envelope, ids, and the event-stream format both ways.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';

const {
  createControl, createCorrelationContext, createDomainEvent, createEnvelope, createError, createHeartbeat,
  createSSEParser, decodeSSE, encodeSSE, eventEnvelopeSchema, extractTimestamp, extractTraceId, generateEventId,
  generateStreamId, isDomainEventType, isHeartbeatEvent, isValidEventId, parseSSEChunk, RESERVED_PREFIXES,
  ReservedEventTypes, validateEvent,
} = await import(inRepository('pkg/index.js'));

test('event ids are UUIDs of version 7, and grow also within one millisecond', (t) => { // K17
  const before = Date.now();
  const ids = Array.from({ length: 100_000 }, generateEventId);
  assert.ok(ids.every(isValidEventId));
  for (let n = 1; n < ids.length; n += 1) assert.ok(ids[n - 1] < ids[n], `${ids[n - 1]} ${ids[n]}`);
  const made = extractTimestamp(ids[0]).getTime();
  assert.ok(made >= before && made <= Date.now());

  // A clock that goes back, and one that stands still.
  const { now } = Date;
  t.after(() => { Date.now = now; });
  Date.now = () => before - 1000;
  const later = generateEventId();
  assert.ok(later > ids.at(-1));
  assert.equal(new Set([...ids, later]).size, 100_001);
});

test('what is no event id', () => { // K17
  // The example of RFC 9562, appendix A.6.
  assert.equal(extractTimestamp('017F22E2-79B0-7CC3-98C4-DC0C0C07398F').toISOString(), '2022-02-22T19:22:22.000Z');
  for (const id of ['', 'x', '0191a7c0-0000-4000-8000-000000000001', '0191a7c0-0000-7000-c000-000000000001', 7, null]) {
    assert.equal(isValidEventId(id), false, String(id));
    assert.throws(() => extractTimestamp(id), /not an event id/);
  }
});

const full = {
  event_id: '0191a7c0-0000-7000-8000-000000000001', type: 'domain.order.created', ts: '2026-01-01T00:00:00.000Z',
  payload: { n: 1 }, stream_id: 's', trace_id: 't', correlation_id: '0191a7c0-0000-4000-8000-000000000001', sequence: 0,
  retry: 300_000,
};

test('envelopes are checked against the schema', () => { // K16
  assert.deepEqual(validateEvent(full), { valid: true, errors: null });
  assert.deepEqual(Object.keys(full).sort(), Object.keys(eventEnvelopeSchema.properties).sort());
  for (const [change, path, keyword] of [
    [{ event_id: undefined }, '', 'required'],
    [{ event_id: '0191a7c0-0000-4000-8000-000000000001' }, '/event_id', 'pattern'],
    [{ type: 'Order' }, '/type', 'pattern'],
    [{ type: 'a..b' }, '/type', 'pattern'],
    [{ type: 'a'.repeat(101) }, '/type', 'maxLength'],
    [{ type: 1 }, '/type', 'type'],
    [{ ts: '2026-01-01' }, '/ts', 'format'],
    [{ ts: '2026-13-01T00:00:00Z' }, '/ts', 'format'],
    [{ payload: [] }, '/payload', 'type'],
    [{ payload: null }, '/payload', 'type'],
    [{ stream_id: '' }, '/stream_id', 'minLength'],
    [{ correlation_id: 'x' }, '/correlation_id', 'pattern'],
    [{ sequence: -1 }, '/sequence', 'minimum'],
    [{ sequence: 1.5 }, '/sequence', 'type'],
    [{ retry: 300_001 }, '/retry', 'maximum'],
    [{ more: 1 }, '', 'additionalProperties'],
    [{ constructor: 1 }, '', 'additionalProperties'],
  ]) {
    const { valid, errors } = validateEvent({ ...full, ...change });
    assert.equal(valid, false);
    assert.deepEqual(errors.map((e) => [e.instancePath, e.keyword]), [[path, keyword]], JSON.stringify(change));
    assert.match(errors[0].message, new RegExp(Object.keys(change)[0]));
  }
  for (const event of [null, 'x', [], 1]) assert.equal(validateEvent(event).valid, false);
});

test('reserved names', () => { // K18
  assert.deepEqual(Object.values(ReservedEventTypes).sort(), [
    'control.close', 'control.open', 'control.reconnect', 'system.ack', 'system.error', 'system.heartbeat',
  ]);
  assert.deepEqual(RESERVED_PREFIXES, ['system.', 'control.']);
  assert.deepEqual(['domain.a.b', 'tick', 'system.x', 'control.x'].map(isDomainEventType), [true, true, false, false]);
  assert.deepEqual(['system.heartbeat', 'system.error'].map(isHeartbeatEvent), [true, false]);
});

test('envelopes are made whole, trace_id included', () => { // K19
  const options = { stream_id: 's', trace_id: 't', correlation_id: full.correlation_id, sequence: 0, retry: 0 };
  const made = createEnvelope('a.b', { n: 1 }, options);
  assert.ok(isValidEventId(made.event_id) && Math.abs(Date.parse(made.ts) - Date.now()) < 10_000);
  const { event_id, ts, ...rest } = made;
  assert.deepEqual(rest, { type: 'a.b', payload: { n: 1 }, ...options });
  assert.deepEqual([createHeartbeat().type, createControl('cannot_resume', { code: 'x' }).type,
    createControl('open').type, createDomainEvent('order', 'created', {}).type],
  ['system.heartbeat', 'control.cannot_resume', 'control.open', 'domain.order.created']);
  const error = createError('no', undefined, { trace_id: 't' });
  assert.deepEqual([error.type, error.payload, error.trace_id], ['system.error', { message: 'no', code: 'UNKNOWN_ERROR' }, 't']);
  for (const envelope of [made, error, createHeartbeat(options), createDomainEvent('a', 'b')]) {
    assert.deepEqual(validateEvent(envelope).errors, null);
  }
});

test('an envelope written is an envelope read', async () => { // K19
  const envelope = { ...full, payload: { text: 'a\r\nb\u2028\0é😀' } };
  const text = encodeSSE(envelope);
  const [event, ...more] = await parseSSEChunk(text);
  assert.deepEqual(more, []);
  assert.deepEqual(
    [event.event, event.id, event.retry, decodeSSE(event.data)],
    [full.type, full.event_id, 300_000, { envelope, error: null }],
  );
  assert.doesNotMatch(encodeSSE(createHeartbeat()), /^id:/m, 'nothing can be resumed from a heartbeat');
  for (const change of [{ type: 'a\ndata: x' }, { event_id: 'a\r' }, { event_id: 'a\0' }, { retry: '1\ndata: x' }, { retry: 1.5 }]) {
    assert.throws(() => encodeSSE({ ...full, ...change }), TypeError);
  }
  assert.match(decodeSSE('{').error, /^not JSON: /);
  assert.match(decodeSSE('{"type":"x"}').error, /^not an envelope: event_id is missing; ts is missing; payload is missing$/);
});

const stream = [
  '\ufeffid: 1\r\ndata: a\rdata:b\n\n', ': comment\nretry: 20\nretry: x\n\n', 'event: e\ndata: \ndata\n\n', 'id\ndata: é😀\r\r',
  'id: 2\n\n', 'data: c\n\n', 'data: unfinished\n',
].join('');
const expected = [
  { event: 'message', data: 'a\nb', id: '1', lastEventId: '1', retry: undefined },
  { event: 'e', data: '\n', id: undefined, lastEventId: '1', retry: 20 },
  { event: 'message', data: 'é😀', id: '', lastEventId: '', retry: undefined },
  { event: 'message', data: 'c', id: undefined, lastEventId: '2', retry: undefined },
];

test('a stream is parsed the same, however it is cut', async () => { // K19
  assert.deepEqual(await parseSSEChunk(stream), expected);
  const bytes = new TextEncoder().encode(stream);
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    const parser = await createSSEParser();
    const found = [...parser.feed(bytes.subarray(0, cut)), ...parser.feed(bytes.subarray(cut))];
    assert.deepEqual(found, expected, String(cut));
    parser.free();
  }
});

test('the parser has limits', async () => { // K19
  const parser = await createSSEParser({ maxLineBytes: 64 });
  assert.throws(() => parser.feed(`data: ${'x'.repeat(100)}`), { name: 'RangeError', message: /longer than 64 bytes/ });
  assert.throws(() => parser.feed('\n\n'), RangeError);
});

test('stream and trace ids', () => { // K28
  assert.match(generateStreamId(), /^stream-[0-9a-z]+-[0-9a-z]+$/);
  assert.notEqual(generateStreamId(), generateStreamId());
  const check = (request, id) => assert.equal(extractTraceId(request), id, JSON.stringify(request));
  check({ headers: { 'x-trace-id': 'a', 'x-request-id': 'b' }, query: { trace_id: 'd' } }, 'a');
  check({ headers: { 'x-trace-id': 'not valid!', 'x-request-id': 'b' } }, 'b');
  check({ headers: { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' } }, '0af7651916cd43dd8448eb211c80319c');
  check({ headers: {}, query: { trace_id: 'd' } }, 'd');
  check({ headers: new Headers({ 'X-Trace-ID': 'e' }) }, 'e');
  check({ url: '/stream?x=1&trace_id=f#trace_id=g' }, 'f');
  check({ url: '/stream?trace_id=%0a' }, null);
  check({ headers: { 'x-trace-id': 'x'.repeat(129) } }, null);
  check({}, null);
  const context = createCorrelationContext({ streamId: 's', traceId: 'no good' });
  assert.deepEqual([context.toLogFields(), context.hasTraceId()], [{ stream_id: 's' }, false]);
  context.setTraceId('t');
  assert.deepEqual(createEnvelope('a', {}, context.toEventFields()).trace_id, 't');
});
