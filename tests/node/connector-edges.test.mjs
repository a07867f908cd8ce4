// A connector at the edges of its life: a core that does not load, a stop before anything began or in mid-request, and what
// it shows of addresses and envelopes.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, headers, replaying, serve } from '../support/stream.mjs';

const { connectSSE } = await import(inRepository('pkg/index.js'));

/** Runs a module in a fresh Node at the repository's root, against a server of its own; answers with what it printed. */
async function alone(t, code) {
  const { url } = await serve(t, replaying(1));
  const child = spawn(process.execPath, ['--input-type=module', '--eval', code(url)], { cwd: inRepository('.'), stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill());
  let printed = '';
  for await (const text of child.stdout.setEncoding('utf8')) printed += text;
  return printed.trim();
}

test('connect() in a callback, after the core could not be loaded, tries again', async (t) => {
  for (const place of ['onError', 'onStateChange', 'onClose']) {
    assert.equal(await alone(t, (url) => `
      import { readFileSync } from 'node:fs';
      import { connectSSE, initialize } from './pkg/slim.js';
      initialize('http://127.0.0.1:1/core.wasm').catch(() => {});
      let tried = false;
      const again = () => {
        if (tried) return;
        tried = true;
        initialize(readFileSync('pkg/core.wasm'));
        connector.connect();
      };
      const connector = connectSSE(${JSON.stringify(url)}, {
        onError: () => {}, ${place}: ({ to }) => { if (to !== 'open') again(); },
        onEvent: (event) => { console.log(event.id, connector.state); process.exit(0); },
      });
    `), '1 open', place);
  }
});

test('stop() and dispose() of what never began load nothing, and dispose() is the last that is heard of', async (t) => {
  assert.equal(await alone(t, (url) => `
    import { connectSSE, SSEConnector } from './pkg/slim.js';
    const told = [];
    globalThis.reportError = (error) => told.push(error.code);
    const options = (name) => Object.fromEntries(['onError', 'onClose', 'onStateChange'].map((callback) => [
      callback, ({ code, reason, to }) => told.push([name, callback, code ?? reason, to].join(' ').trim()),
    ]));
    const url = ${JSON.stringify(url)};
    const stopped = new SSEConnector(url, options('stopped'));
    stopped.stop();
    told.push(stopped.state);
    new SSEConnector(url, options('disposed')).dispose();
    connectSSE(url, options('begun')).dispose();
    setTimeout(() => console.log(JSON.stringify(told)), 200);
  `), JSON.stringify(['closed', 'stopped onStateChange stop closed', 'stopped onClose client_close']));
});

for (const option of ['resumeRequest', 'body', 'headers', 'url']) {
  test(`nothing is fetched for a stream that is stopped while ${option} is asked`, async (t) => {
    const asked = deferred();
    let fetches = 0;
    let answer;
    const slow = (value) => () => new Promise((resolve) => { answer = () => resolve(value); asked.resolve(); });
    const values = { resumeRequest: slow({}), body: slow('x'), headers: slow({}) };
    const connector = connectSSE(option === 'url' ? slow('http://127.0.0.1:9/') : 'http://127.0.0.1:9/', {
      ...(option === 'body' ? { method: 'POST' } : {}),
      ...(option === 'url' ? {} : { [option]: values[option] }),
      ...(option === 'resumeRequest' ? { eventIdStorage: { get: () => '{"v":1,"cursor":"7","done":[],"at":0}', set() {}, clear() {} } } : {}),
      fetch: async () => { fetches += 1; throw new TypeError('nobody there'); },
      onError: () => {},
    });
    t.after(() => connector.dispose());
    await asked.promise;
    connector.stop();
    answer();
    for (let n = 0; n < 5; n += 1) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(fetches, 0);
  });
}

test('onOpen tells the address that was asked', async (t) => {
  const { url } = await serve(t, replaying(1));
  const { origin, pathname } = new URL(url);
  const told = async (given) => new Promise((resolve) => {
    const connector = connectSSE(given, { onError: resolve, onOpen: (info) => resolve(info.url) });
    t.after(() => connector.dispose());
  });
  assert.equal(await told(url), url);
  assert.equal(await told(new URL(url)), url);
  assert.equal(await told(async () => `${url}?now`), `${url}?now`);
  globalThis.location = { href: `${origin}/page/` };
  t.after(() => { delete globalThis.location; });
  assert.equal(await told(pathname), url);
  assert.equal(await told(() => `..${pathname}`), url);
});

test('what is no envelope is not unwrapped; what is has its fields in both spellings', async (t) => { // K16, S12
  const union = { type: 'vote', payload: { yes: 1 }, ts: '2026-01-01T00:00:00Z' };
  const envelope = { event_id: 'e', type: 'a', ts: union.ts, payload: null, sequence: 3, stream_id: 's', trace_id: 't', correlation_id: 'c' };
  const { url } = await serve(t, (_, response) => {
    response.writeHead(200, headers);
    for (const data of [union, { event_id: 7, payload: 1 }, envelope]) response.write(`event: a\ndata: ${JSON.stringify(data)}\n\n`);
  });
  const got = [];
  const third = deferred();
  const connector = connectSSE(url, { onEvent: (e) => { if (got.push(e) === 3) third.resolve(); } });
  t.after(() => connector.dispose());
  await third.promise;
  assert.deepEqual(got.map((e) => e.payload), [union, { event_id: 7, payload: 1 }, null]);
  const [, , e] = got;
  assert.deepEqual(
    [e.event_id, e.stream_id, e.trace_id, e.correlation_id, e.eventId, e.streamId, e.traceId, e.correlationId],
    ['e', 's', 't', 'c', 'e', 's', 't', 'c'],
  );
  const { data, receivedAt, ...shown } = JSON.parse(JSON.stringify(e));
  assert.deepEqual(shown, envelope);
  assert.deepEqual(Object.keys(JSON.parse(JSON.stringify(got[0]))), ['type', 'data', 'payload', 'receivedAt']);
});
