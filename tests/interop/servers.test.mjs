// The built package against servers that nobody here wrote: a plain Express handler, better-sse and hono's streamSSE, each
// a process of its own. What counts is the ledger: the name, id and data of each event that the app's handler saw.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { expected, foreign } from './foreign.mjs';

const { connectSSE } = await import(inRepository('pkg/index.js'));

/** Follows a stream; `until(predicate)` resolves once it holds after a callback. */
function follow(t, url, options = {}) {
  const seen = { ledger: [], states: [], duplicates: [], errors: [], closes: [], opens: [] };
  const waiting = new Set();
  const check = () => {
    for (const waiter of [...waiting]) {
      if (!waiter.predicate(seen)) continue;
      waiting.delete(waiter);
      waiter.resolve();
    }
  };
  const into = (list, entry) => (info) => {
    list.push(entry(info));
    queueMicrotask(check);
  };
  const connector = connectSSE(url, {
    retryPolicy: { baseDelayMs: 20, maxDelayMs: 200 },
    ...options,
    onEvent: into(seen.ledger, ({ type, id, data }) => [type, id, data]),
    onStateChange: into(seen.states, ({ to }) => to),
    onDuplicate: into(seen.duplicates, ({ eventId }) => eventId),
    onError: into(seen.errors, ({ code }) => code),
    onClose: into(seen.closes, ({ reason }) => reason),
    onOpen: into(seen.opens, ({ lastEventId }) => lastEventId),
  });
  t.after(() => connector.dispose());
  const until = (predicate) => new Promise((resolve) => {
    waiting.add({ predicate, resolve });
    check();
  });
  const events = (count) => until(({ ledger }) => ledger.length >= count);
  return { ...seen, connector, until, events };
}

const plain = [
  // K33; ids, ends of lines, encodings and splits of the plain handler, all with all.
  ...['LF', 'CR', 'CRLF'].flatMap((eol) => ['', 'gzip', 'deflate', 'br'].flatMap((coding) => [['1', ''], ['', ''], ['1', '1'], ['', '7']].map(
    ([ids, piece]) => ['express', { eol, coding, ids, piece, bom: '1' }],
  ))),
  // These two end their lines with LF, always. hono's compress() leaves event streams as they are.
  ...['', '1'].flatMap((ids) => ['', 'gzip', 'deflate', 'br'].map((coding) => ['better-sse', { ids, coding }])),
  ...['', '1'].flatMap((ids) => ['', '1'].map((compress) => ['hono', { ids, compress }])),
];

const asQuery = (options) => new URLSearchParams(Object.entries(options).filter(([, value]) => value !== ''));

for (const name of ['express', 'better-sse', 'hono']) {
  test(`${name}: each event as it was sent, in every form`, async (t) => { // K10, K33
    const server = await foreign(t, name, 13);
    for (const [, options] of plain.filter(([of]) => of === name)) {
      await t.test(`${asQuery(options)}`, async (t) => {
        const codings = [];
        const { events, ledger, duplicates, errors } = follow(t, `${server.address}/stream?${asQuery(options)}`, {
          onResponse: ({ headers }) => { codings.push(headers.get('content-encoding') ?? ''); },
        });
        await events(13);
        assert.deepEqual(codings, [options.coding ?? '']);
        assert.deepEqual(ledger, expected(name, 1, 13, options.ids === '1'));
        assert.deepEqual([duplicates, errors], [[], []]);
      });
    }
  });

  test(`${name}: killed in the middle of an event, and resumed after its restart`, async (t) => {
    const server = await foreign(t, name, 6);
    const { events, ledger, duplicates, opens } = follow(t, `${server.address}/stream?ids=1&resume=1&torn=1`);
    await events(5);
    await server.restart(9);
    await events(8);
    await server.restart(12);
    await events(11);
    await server.publish();
    await events(12);
    assert.deepEqual(ledger, expected(name, 1, 12));
    assert.deepEqual([duplicates, opens], [[], [undefined, '5', '8']]);
  });

  test(`${name}: a replay from the start again is known by its ids`, async (t) => { // K10
    const server = await foreign(t, name, 6);
    const { events, ledger, duplicates, until } = follow(t, `${server.address}/stream?ids=1`);
    await events(6);
    await server.restart(8);
    await events(8);
    await server.end();
    await until(() => duplicates.length >= 14);
    await server.publish();
    await events(9);
    assert.deepEqual(ledger, expected(name, 1, 9));
    assert.deepEqual(duplicates, [...'123456', ...'12345678']);
  });

  test(`${name}: what has no ids is never taken for a duplicate`, async (t) => { // K10
    const server = await foreign(t, name, 6);
    const { events, ledger, duplicates, opens } = follow(t, `${server.address}/stream?resume=1`);
    await events(6);
    await server.restart(6);
    await events(12);
    assert.deepEqual(ledger, [...expected(name, 1, 6, false), ...expected(name, 1, 6, false)]);
    assert.deepEqual([duplicates, opens], [[], [undefined, undefined]]);
  });

  test(`${name}: the end of a response is not the end of the stream, 204 is`, async (t) => {
    const server = await foreign(t, name, 6);
    const open = follow(t, `${server.address}/stream?ids=1&resume=1`);
    await open.events(6);
    await server.end();
    await open.until(({ opens }) => opens.length === 2);
    await server.publish();
    await open.events(7);
    assert.deepEqual([open.ledger, open.opens, open.closes], [expected(name, 1, 7), [undefined, '6'], ['stream_ended']]);

    const finite = follow(t, `${server.address}/finite?ids=1&resume=1`);
    await finite.until(({ states }) => states.includes('closed'));
    assert.deepEqual([finite.ledger, finite.opens, finite.errors], [expected(name, 1, 7), [undefined], []]);
  });

  test(`${name}: a stale token is refreshed once`, async (t) => {
    const server = await foreign(t, name, 3);
    const asked = [];
    const tokens = ['stale', 'fresh'];
    const { events, ledger, errors, connector } = follow(t, `${server.address}/private?ids=1`, {
      headers: async () => {
        asked.push(tokens[asked.length] ?? 'no more');
        return { Authorization: `Bearer ${asked.at(-1)}` };
      },
    });
    await events(3);
    assert.deepEqual([ledger, asked, connector.state, errors], [expected(name, 1, 3), ['stale', 'fresh'], 'open', []]);

    const refused = follow(t, `${server.address}/private?ids=1`, { headers: { Authorization: 'Bearer stale' } });
    await refused.until(({ states }) => states.includes('closed'));
    assert.deepEqual([refused.ledger, refused.errors], [[], ['auth_required']]);
  });
}

test('better-sse: comments are life, and a server that hangs is left for one that does not', async (t) => { // K9
  const server = await foreign(t, 'better-sse', 3);
  const { events, ledger, errors, until, connector } = follow(t, `${server.address}/stream?ids=1&resume=1&keepAlive=50`, {
    livenessTimeoutMs: 1_000, livenessGracePeriodMs: 0, timeout: 1_000,
  });
  await events(3);
  // Forty comments of three bytes take two seconds.
  const enough = connector.getStats().bytesReceived + 40 * ':\n\n'.length;
  while (connector.getStats().bytesReceived < enough) await new Promise((resolve) => { setTimeout(resolve, 20); });
  assert.deepEqual(errors, [], 'nothing but comments for twice the timeout, and the stream is alive');
  server.signal('SIGSTOP');
  await until(() => errors.includes('silence'));
  server.signal('SIGCONT');
  await until(({ opens }) => opens.length > 1);
  await server.publish();
  await events(4);
  assert.deepEqual(ledger, expected('better-sse', 1, 4));
});

for (const bytes of [64 * 1024 + 1, 1_000_000, 4_000_000]) {
  for (const coding of ['', 'gzip']) {
    test(`an event of ${bytes} bytes, ${coding || 'as it is'}`, async (t) => { // K33
      const server = await foreign(t, 'express', 0);
      const { events, ledger, errors } = follow(t, `${server.address}/stream?${asQuery({ bytes, coding })}`);
      await events(2);
      assert.deepEqual(errors, []);
      assert.equal(ledger[0][2], 'x'.repeat(bytes));
      assert.equal(ledger[1][2].length, bytes);
      assert.ok(ledger[1][2].split('\n').every((line, index, all) => index === all.length - 1 || line === 'x'.repeat(999)));
    });
  }
}
