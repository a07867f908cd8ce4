// The view of a shared state against the real server: what the server's SharedState publishes, from its own log.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { startServer } from '../support/server.mjs';

const { SharedState } = await import(inRepository('pkg/shared-state.js'));

const quick = { retryPolicy: { baseDelayMs: 20, maxDelayMs: 100, jitterPct: 0 }, onError: () => {} };

/** A server on a log of its own. Ends with the test. */
async function server(t, port = 0) {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-state-'));
  const env = { SSE_PUBLISH_TOKEN: 'secret', SSE_RETRY_TIMEOUT: '20' };
  const started = await startServer({ port, args: ['--data-dir', folder], env });
  t.after(async () => {
    await started.kill();
    await rm(folder, { recursive: true });
  });
  const publish = async (event, data) => {
    const response = await fetch(`${started.address}/publish/light`, {
      method: 'POST',
      headers: { authorization: 'Bearer secret', 'content-type': 'application/json' },
      body: JSON.stringify({ event, data: JSON.stringify(data) }),
    });
    assert.equal(response.status, 200);
  };
  return { ...started, folder, env, publish, url: `${started.address}/stream/light?last=1` };
}

/** A view whose changes are kept; `seen(count)` waits for so many. */
function view(t, url, options) {
  const changes = [];
  let wake = () => {};
  const state = new SharedState(url, {
    ...quick,
    ...options,
    onChange: (change) => {
      changes.push(change);
      wake();
    },
  });
  t.after(() => state.dispose());
  const seen = async (count) => {
    while (changes.length < count) await new Promise((resolve) => { wake = resolve; });
    return changes;
  };
  return { state, changes, seen };
}

// E13
test('a view begins with the present value and follows it, each change once', async (t) => {
  const { url, publish } = await server(t);
  await publish('light', { value: 'off' });
  await publish('light', { value: { on: true } });
  const { state, seen, changes } = view(t, url);
  assert.equal(state.value, undefined);
  assert.equal(state.status, 'loading');
  let told = 0;
  const { subscribe } = state;
  const unsubscribe = subscribe(() => { told += 1; });
  await seen(1);
  assert.deepEqual(changes, [{ value: { on: true }, previous: undefined, status: 'live' }]);
  // The snapshot stays the same object, also when the value comes again; other events are none of ours.
  const first = state.value;
  await publish('light', { value: { on: true } });
  await publish('other', { value: 'not this' });
  await publish('light', { another: 'nor this' });
  await publish('light', [1]);
  await publish('state.removed', { key: 'another' });
  await publish('light', { value: null });
  await seen(2);
  assert.deepEqual(changes[1], { value: null, previous: { on: true }, status: 'live' });
  assert.equal(changes[1].previous, first);
  assert.equal(told, 2);
  unsubscribe();
  // E15
  await publish('state.removed', { key: 'value' });
  await publish('light', { value: 'back' });
  await seen(4);
  assert.deepEqual(changes.slice(2), [
    { value: undefined, previous: null, status: 'removed' },
    { value: 'back', previous: undefined, status: 'live' },
  ]);
  assert.equal(told, 2);
});

// E13
test('a view of a key of its own ignores the others', async (t) => {
  const { url, publish } = await server(t);
  const { state, seen } = view(t, url.replace('last=1', 'from=start'), { key: 'dim', channel: 'light' });
  await publish('light', { value: 1 });
  await publish('light', { dim: 2 });
  await seen(1);
  assert.equal(state.value, 2);
});

test('a restart of the server changes nothing; one that lost its log is followed from its own value on', async (t) => {
  const first = await server(t);
  await first.publish('light', { value: 1 });
  const { state, seen, changes } = view(t, first.url);
  await seen(1);
  await first.kill();
  const again = await startServer({ port: first.port, args: ['--data-dir', first.folder], env: first.env });
  t.after(() => again.kill());
  await first.publish('light', { value: [2] });
  await seen(2);
  await again.kill();

  const other = await server(t, first.port);
  await other.publish('light', { value: [2] });
  await seen(4);
  await other.publish('light', { value: 'of another log' });
  await seen(5);
  assert.deepEqual(changes.map(({ value, status }) => [value, status]), [
    [1, 'live'], [[2], 'live'], [[2], 'stale'], [[2], 'live'], ['of another log', 'live'],
  ]);
  assert.equal(changes[3].value, changes[1].value, 'the same object until it differs');
  assert.equal(state.status, 'live');
});

test('an error in a callback is reported, and the other listeners are told', async (t) => {
  const { url, publish } = await server(t);
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  t.after(() => { delete globalThis.reportError; });
  const { state, seen } = view(t, url);
  let told = 0;
  state.subscribe(() => { throw new Error('mine'); });
  state.subscribe(() => { told += 1; });
  await publish('light', { value: 1 });
  await seen(1);
  await publish('light', { value: 2 });
  await seen(2);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(reported, ['mine', 'mine']);
  assert.equal(told, 2);
});
