// What follows when the server cannot resume, against the real server and its real cursor.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { startServer } from '../support/server.mjs';
import { deferred } from '../support/stream.mjs';

const { CannotResumeFallback, connectSSE, MemoryStorage } = await import(inRepository('pkg/index.js'));

const GONE = 'long-gone-7';
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A stream whose stored cursor the server does not know. `position` is where the server goes on instead. */
async function refused(t, { made, ...options }) {
  const server = await startServer({ args: ['--memory'], env: { SSE_PUBLISH_TOKEN: 'secret' } });
  t.after(() => server.kill());
  const store = new MemoryStorage();
  store.set(JSON.stringify({ v: 1, cursor: GONE, done: [], at: 0 }));
  const told = { times: 0, events: [], errors: [], closes: [] };
  const asked = deferred();
  const connector = connectSSE(`${server.address}/stream/k8`, {
    retryPolicy: { baseDelayMs: 5, jitterPct: 0 },
    eventIdStorage: store,
    ...options,
    onEvent: (event) => { told.events.push(event.payload.n); told.wake?.(); },
    onError: (error) => told.errors.push(error.code),
    onClose: (info) => { told.closes.push(info.reason); told.wake?.(); },
    onCannotResume: (info) => {
      told.times += 1;
      asked.resolve(info);
      return options.onCannotResume?.(info);
    },
  });
  t.after(() => connector.dispose());
  made?.(connector);
  const until = async (holds) => {
    while (!holds()) await new Promise((resolve) => { told.wake = resolve; });
  };
  const publish = (n) => fetch(`${server.address}/publish/k8`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: 'Bearer secret' },
    body: JSON.stringify({ type: 'domain.tick', payload: { n } }),
  }).then((response) => assert.ok(response.ok, `publishing: ${response.status}`));
  const info = await asked.promise;
  return { connector, store, told, info, until, publish, stored: () => JSON.parse(store.get() ?? '{}').cursor };
}

test('start_fresh goes on, and the cursor is where the server goes on', async (t) => { // K8
  const { told, publish, until, stored, info } = await refused(t, { cannotResumeFallback: CannotResumeFallback.START_FRESH });
  assert.deepEqual([info.requestedId, typeof info.code, typeof info.message], [GONE, 'string', 'string']);
  await publish(1);
  await until(() => told.events.length === 1);
  await turn();
  assert.deepEqual([told.events, told.errors, told.closes], [[1], [], []]);
  assert.notEqual(stored(), GONE);
});

test('close ends it, and the cursor stays', async (t) => { // K8
  const { connector, told, until, stored } = await refused(t, { cannotResumeFallback: CannotResumeFallback.CLOSE });
  await until(() => told.closes.length === 1);
  assert.deepEqual([told.closes, told.errors, connector.state, stored()], [['cannot_resume'], ['cannot_resume'], 'closed', GONE]);
});

for (const [name, decide, goesOn] of [
  ['nothing', () => undefined, true],
  ['start_fresh', () => 'start_fresh', true],
  ['close', () => 'close', false],
  ['a promise of start_fresh', async () => 'start_fresh', true],
  ['a promise of close', async () => 'close', false],
]) {
  test(`callback: ${name} decides`, async (t) => { // K8
    const { connector, told, publish, until, stored } = await refused(t, {
      cannotResumeFallback: CannotResumeFallback.CALLBACK, onCannotResume: decide,
    });
    if (goesOn) {
      await publish(1);
      await until(() => told.events.length === 1);
      await turn();
      assert.deepEqual([told.events, told.errors, told.closes, connector.state], [[1], [], [], 'open']);
      assert.notEqual(stored(), GONE);
    } else {
      await until(() => told.closes.length === 1);
      await turn();
      assert.deepEqual([told.closes, told.errors, connector.state], [['cannot_resume'], ['cannot_resume'], 'closed']);
      assert.equal(stored(), GONE);
      assert.equal(connector.lastEventId, GONE);
      connector.connect();
      await until(() => told.closes.length === 2);
      assert.equal(told.times, 2, 'asked anew');
    }
  });
}

test('callback: until it is decided nothing is handed out and the stored cursor stays', async (t) => { // K8
  const decision = deferred();
  const { connector, told, publish, until, stored } = await refused(t, {
    cannotResumeFallback: 'callback', handlerConcurrency: 5, onCannotResume: () => decision.promise,
  });
  await publish(1);
  await publish(2);
  await turn();
  assert.deepEqual([told.events, stored(), connector.state], [[], GONE, 'open']);
  decision.resolve('start_fresh');
  await until(() => told.events.length === 2);
  assert.deepEqual(told.events, [1, 2]);
});

for (const command of ['stop', 'reconnect']) {
  for (const when of ['in the callback', 'later']) {
    test(`callback: ${command}() ${when} leaves the question open`, async (t) => { // K8
      const decisions = [deferred(), deferred()];
      const answers = decisions.map(({ promise }) => promise);
      let times = 0;
      let stream;
      const { connector, told, publish, until, stored } = await refused(t, {
        cannotResumeFallback: 'callback',
        made: (connector) => { stream = connector; },
        onCannotResume: () => {
          times += 1;
          if (when === 'in the callback' && times === 1) stream[command]();
          return answers[times - 1];
        },
      });
      if (when === 'later') connector[command]();
      await turn();
      decisions[0].resolve('close');
      await turn();
      assert.equal(stored(), GONE);
      if (command === 'stop') {
        assert.deepEqual([connector.state, told.errors], ['closed', []]);
        connector.connect();
      }
      while (told.times < 2) await turn();
      decisions[1].resolve('start_fresh');
      await publish(3);
      await until(() => told.events.length === 1);
      assert.deepEqual([told.events, told.errors, connector.state], [[3], [], 'open']);
    });
  }
}

test('callback: one that throws or rejects is reported, and the stream goes on', async (t) => { // K8
  const { reportError: before } = globalThis;
  t.after(() => { globalThis.reportError = before; });
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  for (const onCannotResume of [() => { throw new Error('thrown'); }, () => Promise.reject(new Error('rejected'))]) {
    const { told, publish, until } = await refused(t, { cannotResumeFallback: 'callback', onCannotResume });
    await publish(1);
    await until(() => told.events.length === 1);
  }
  assert.deepEqual(reported, ['thrown', 'rejected']);
});
