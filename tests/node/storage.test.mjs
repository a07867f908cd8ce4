// Where the cursor is kept: stores that an app picks or brings along.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, replaying, serve } from '../support/stream.mjs';

const { connectSSE, MemoryStorage } = await import(inRepository('pkg/index.js'));
const { FileStorage } = await import(inRepository('pkg/node.js'));

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Connects and waits until event `last` was handled. */
async function follow(t, url, last, options) {
  const got = [];
  const errors = [];
  const { promise, resolve } = deferred();
  const connector = connectSSE(url, {
    persistLastEventId: true,
    ...options,
    onEvent: (e) => {
      got.push(e.id);
      options.onEvent?.(e);
      if (e.id === String(last)) resolve();
    },
    onError: (error) => errors.push(error),
  });
  t.after(() => connector.dispose());
  await promise;
  return { connector, got, errors };
}

test('a memory store carries the cursor from one connector to the next', async (t) => { // K7
  const { url, requests } = await serve(t, (request, response) => replaying(requests.length * 3)(request, response));
  const eventIdStorage = new MemoryStorage();
  const first = await follow(t, url, 3, { eventIdStorage });
  first.connector.dispose();
  const { v, cursor, done, at } = JSON.parse(eventIdStorage.get());
  assert.deepEqual([v, cursor, done, typeof at], [1, '3', [], 'number']);
  const second = await follow(t, url, 6, { eventIdStorage });
  assert.deepEqual([second.got, requests[1].headers['last-event-id']], [['4', '5', '6'], '3']);
});

test('a store that is given is used, unless persistLastEventId says no', async (t) => { // K7
  const { url } = await serve(t, replaying(1));
  for (const [persistLastEventId, kept] of [[undefined, true], [false, false]]) {
    const eventIdStorage = new MemoryStorage();
    const options = persistLastEventId === undefined ? {} : { persistLastEventId };
    const { promise, resolve } = deferred();
    const connector = connectSSE(url, { eventIdStorage, ...options, onEvent: () => resolve() });
    t.after(() => connector.dispose());
    await promise;
    await turn();
    assert.equal(eventIdStorage.get() !== undefined, kept);
  }
});

test('a synchronous store is written before the next task', async (t) => { // K7
  const { url } = await serve(t, replaying(2));
  const stored = [];
  const eventIdStorage = { get: () => null, set: (record) => stored.push(JSON.parse(record).cursor), clear() {} };
  let atNextTask;
  await follow(t, url, 2, {
    eventIdStorage,
    onEvent: (e) => {
      if (e.id === '2') queueMicrotask(() => queueMicrotask(() => { atNextTask = [...stored]; }));
    },
  });
  await turn();
  assert.deepEqual(atNextTask, ['2'], 'one write a batch');
});

test('an asynchronous store is loaded before the first request, and its writes never overtake each other', async (t) => { // K7
  const { url, requests } = await serve(t, replaying(60));
  const loaded = deferred();
  const writes = [];
  const eventIdStorage = {
    get: () => loaded.promise,
    set(record) {
      const write = { cursor: Number(JSON.parse(record).cursor), ...deferred() };
      writes.push(write);
      return write.promise;
    },
    clear: async () => {},
  };
  const following = follow(t, url, 60, { eventIdStorage });
  await turn();
  assert.equal(requests.length, 0, 'waits for the store');
  loaded.resolve(JSON.stringify({ v: 1, cursor: '40', done: ['42'], at: 0 }));
  const { connector, got } = await following;
  assert.equal(requests[0].headers['last-event-id'], '40');
  assert.deepEqual(got.slice(0, 3), ['41', '43', '44'], 'what was processed beyond the cursor does not come again');

  await turn();
  assert.equal(writes.length, 1, 'the second waits for the first');
  connector.clearCursor();
  connector.stop();
  writes[0].resolve();
  await turn();
  assert.deepEqual(writes.map((write) => write.cursor), [60]);
});

test('of several records that wait only the newest is written', async (t) => { // K7
  let response;
  const { url } = await serve(t, (_, answer) => {
    response = answer;
    answer.writeHead(200, { 'content-type': 'text/event-stream' }).write('id: 1\ndata: x\n\n');
  });
  const writes = [];
  const eventIdStorage = {
    get: async () => undefined,
    set(record) {
      const write = { cursor: JSON.parse(record).cursor, ...deferred() };
      writes.push(write);
      return write.promise;
    },
    clear: async () => {},
  };
  const next = new Map();
  const seen = (id) => new Promise((resolve) => next.set(id, resolve));
  const first = seen('1');
  const connector = connectSSE(url, { eventIdStorage, onEvent: (e) => next.get(e.id)?.() });
  t.after(() => connector.dispose());
  await first;
  for (const id of ['2', '3', '4']) {
    const came = seen(id);
    response.write(`id: ${id}\ndata: x\n\n`);
    await came;
    await turn();
  }
  assert.deepEqual(writes.map((write) => write.cursor), ['1']);
  writes[0].resolve();
  await turn();
  assert.deepEqual(writes.map((write) => write.cursor), ['1', '4']);
});

const never = new Promise(() => {});
const failing = {
  throws: () => { throw new Error('no'); },
  rejects: () => Promise.reject(new Error('no')),
  hangs: () => never,
};
for (const [how, method] of Object.entries(failing)) {
  test(`a store that ${how} is told of once, and the stream goes on`, async (t) => { // K7
    const { url } = await serve(t, replaying(5));
    const { got, errors, connector } = await follow(t, url, 5, {
      eventIdStorage: { get: method, set: method, clear: method },
      timeout: 300,
    });
    connector.clearCursor();
    await turn();
    assert.deepEqual(got, ['1', '2', '3', '4', '5']);
    assert.deepEqual(errors.map((error) => [error.code, error.willRetry]), [['storage_unavailable', true]]);
    assert.match(errors[0].message, how === 'hangs' ? /cannot be read .*no answer within 300 ms/ : /cannot be read .*no/);
  });
}

test('what a store holds may be anything', async (t) => { // K7
  const { url, requests } = await serve(t, replaying(1));
  for (const [text, told] of [
    ['{', true], ['7', true], ['{"v":1}', true], ['{"v":2,"cursor":{}}', false], ['', false], [null, false],
  ]) {
    const eventIdStorage = { get: () => text, set() {}, clear() {} };
    const { errors, connector } = await follow(t, url, 1, { eventIdStorage });
    assert.equal(errors.length, told ? 1 : 0, text);
    assert.equal(requests.at(-1).headers['last-event-id'], undefined);
    connector.dispose();
  }
});

test('a store may call the connector', async (t) => { // K7
  const { url } = await serve(t, replaying(3));
  let connector;
  const stored = deferred();
  const eventIdStorage = { get: () => null, set: () => { connector.stop(); stored.resolve(); }, clear() {} };
  connector = connectSSE(url, { eventIdStorage, onEvent() {} });
  t.after(() => connector.dispose());
  await stored.promise;
  await turn();
  assert.equal(connector.state, 'closed');
});

test('a store without its methods is an invalid option', async () => { // K7
  const { promise, resolve } = deferred();
  connectSSE('http://127.0.0.1:9/', { eventIdStorage: { get() {} }, onError: resolve });
  const error = await promise;
  assert.deepEqual([error.code, error.option], ['invalid_option', 'eventIdStorage']);
  assert.match(error.message, /methods get, set, clear/);
});

test('clearCursor() clears the store', async (t) => { // K7
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-storage-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'cursor');
  const { url } = await serve(t, replaying(2));
  const { connector } = await follow(t, url, 2, { eventIdStorage: new FileStorage(path) });
  await turn();
  assert.equal(JSON.parse(readFileSync(path, 'utf8')).cursor, '2');
  connector.stop();
  connector.clearCursor();
  assert.equal(existsSync(path), false);
});

test('a file store that is killed in the middle of a write leaves a whole record', async (t) => { // K7
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-storage-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'cursor');
  // Records of two lengths, so that a torn one cannot pass for a whole one.
  const code = `
    import { FileStorage } from '${inRepository('pkg/node.js')}';
    const store = new FileStorage(${JSON.stringify(path)});
    for (let n = 1; ; n += 1) {
      store.set(JSON.stringify({ v: 1, cursor: String(n), done: Array(n % 2 * 20_000).fill('x'.repeat(20)), at: n }));
      if (n === 2) console.log('writing');
    }`;
  let before = 0;
  for (let round = 0; round < 15; round += 1) {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', code], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    await new Promise((resolve) => setTimeout(resolve, round * 3));
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    const record = JSON.parse(new FileStorage(path).get());
    assert.equal(record.done.length, Number(record.cursor) % 2 * 20_000);
    before = Math.max(before, Number(record.cursor));
  }
  assert.ok(before > 2);
  writeFileSync(path, '');
});

test('where there is no page and no store the cursor is kept in memory, which is no error', async (t) => { // K7
  const { url, requests } = await serve(t, replaying(1));
  const [errors, shown, opened] = [[], [], []];
  t.mock.method(console, 'debug', (...parts) => shown.push(parts.join(' ')));
  const connector = connectSSE(url, {
    persistLastEventId: true, debug: true, onError: (error) => errors.push(error.code), onOpen: () => opened.push(1),
  });
  t.after(() => connector.dispose());
  while (connector.lastEventId !== '1') await turn();
  connector.stop();
  connector.connect();
  while (opened.length < 2) await turn();
  assert.deepEqual([errors, requests[1].headers['last-event-id']], [[], '1']);
  assert.equal(shown.filter((line) => line.includes('no eventIdStorage: the cursor is kept in memory')).length, 1);
});
