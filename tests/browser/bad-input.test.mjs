// What goes wrong outside of us, in a real browser: each case ends in a stable code, a sentence that helps, and the
// right decision whether to try again.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { serveSite } from '../support/site.mjs';

const streamHeaders = { 'content-type': 'text/event-stream', 'cache-control': 'no-store' };
const answer = (status, headers, body = '') => (_, response) => response.writeHead(status, headers).end(body);
const stream = (body) => answer(200, streamHeaders, body);

let browser;
let site;
let elsewhere;

before(async () => {
  browser = await launchChromium();
  const pages = {
    '/': '<!doctype html><title>bad input</title>',
    '/missing': answer(404, {}),
    '/gone': answer(410, {}),
    '/html': answer(200, { 'content-type': 'text/html' }, '<h1>Welcome</h1>'),
    '/broken': answer(500, {}),
    '/busy': answer(503, { 'retry-after': '7' }),
    '/forbidden': answer(403, {}),
    '/done': answer(204, {}),
    '/stream': stream('id: 1\ndata: x\n\n'),
    '/long-line': stream(`id: 1\ndata: before\n\nid: 2\ndata: ${'x'.repeat(5_000)}\n\n`),
    '/large-event': stream(`id: 1\ndata: before\n\nid: 2\n${'data: 0123456789\n'.repeat(500)}\n`),
    '/foreign': stream('id: 7\ndata: a\n\nid: 7\ndata: a\n\n: only a comment\n\nid: 8\ndata: b\n\n'),
  };
  const mounts = { '/holdfast-sse/': inRepository('pkg') };
  site = await serveSite({ mounts, pages });
  elsewhere = await serveSite({
    pages: {
      '/no-cors': stream('data: x\n\n'),
      // Answers the request itself, but not the preflight that a custom header needs.
      '/no-preflight': (request, response) => {
        const allowed = { 'access-control-allow-origin': '*' };
        if (request.method === 'OPTIONS') response.writeHead(204, allowed).end();
        else response.writeHead(200, { ...streamHeaders, ...allowed }).end('id: 1\ndata: x\n\n');
      },
    },
  });
});

after(async () => {
  await browser.close();
  await site.close();
  await elsewhere.close();
});

/** Opens a page, connects in it, and answers with what the app was told until `settled` is told. */
async function connect(t, url, options = '{}', { settled = 'error', prepare } = {}) {
  // A context of its own: no test sees the storage of another.
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(site.address);
  if (prepare) await page.evaluate(prepare);
  return page.evaluate(
    async ([address, optionsSource, until]) => {
      const { connectSSE } = await import('/holdfast-sse/index.js');
      const told = { errors: [], events: [], closes: [], retries: [], opens: 0 };
      return new Promise((resolve) => {
        const finish = () => setTimeout(() => {
          const { state, lastEventId } = connector;
          connector.stop();
          resolve({ ...told, state, lastEventId });
        }, 0);
        const listen = (name, record) => (info) => {
          record(info);
          if (name === until) finish();
        };
        const connector = connectSSE(address, {
          onError: listen('error', ({ code, message, status, willRetry, option }) =>
            told.errors.push({ code, message, status, willRetry, option })),
          onEvent: listen('event', ({ data, id }) => told.events.push({ data, id })),
          onClose: listen('close', (info) => told.closes.push(info)),
          onRetry: listen('retry', (info) => told.retries.push(info)),
          onOpen: listen('open', () => { told.opens += 1; }),
          ...eval(`(${optionsSource})`),
        });
      });
    },
    [url, options, settled],
  );
}

/** One failure: what is connected to, and what the app is told of it. */
const failures = [
  // Where trying again cannot help.
  { name: 'not found', url: () => '/missing', code: 'http_status', status: 404, says: /404/, retries: false },
  { name: 'gone', url: () => '/gone', code: 'http_status', status: 410, says: /410/, retries: false },
  { name: 'a page instead of a stream', url: () => '/html', code: 'wrong_content_type', status: 200, says: /text\/html.*address of a stream/, retries: false },
  { name: 'forbidden', url: () => '/forbidden', code: 'auth_required', status: 403, says: /fresh credentials/, retries: false },
  { name: 'a URL that is none', url: () => 'http://[', code: 'invalid_url', says: /cannot parse the URL/, retries: false },
  { name: 'a URL of another kind', url: () => 'ws://127.0.0.1/', code: 'invalid_url', says: /http or https/, retries: false },
  { name: 'an unknown option', url: () => '/stream', options: '{ retryPolcy: {} }', code: 'invalid_option', says: /unknown option retryPolcy; did you mean retryPolicy\?/, retries: false },
  { name: 'an ill-typed option', url: () => '/stream', options: "{ timeout: '5s' }", code: 'invalid_option', says: /option timeout takes a number from 1 to 2147483647, got "5s"/, retries: false },
  { name: 'a header that cannot be sent', url: () => '/stream', options: "{ headers: { 'x y': '1' } }", code: 'invalid_option', says: /headers/, retries: false },
  // Where it can.
  { name: 'a server error', url: () => '/broken', code: 'http_status', status: 500, says: /500/, retries: true },
  { name: 'a refused connection', url: () => 'http://127.0.0.1:9/', code: 'network_error', says: /is the server there/, retries: true },
  { name: 'no CORS', url: () => `${elsewhere.address}/no-cors`, code: 'network_error', says: /Access-Control-Allow-Origin/, retries: true },
  { name: 'headers that fail', url: () => '/stream', options: "{ headers: () => { throw new Error('no token') } }", code: 'network_error', says: /headers function failed: no token/, retries: true },
];

for (const { name, url, options, code, status, says, retries } of failures) {
  test(`${name}: ${code}, ${retries ? 'tried again' : 'not tried again'}`, async (t) => {
    const told = await connect(t, url(), options);
    assert.deepEqual(told.errors.map((error) => error.code), [code], JSON.stringify(told.errors));
    assert.match(told.errors[0].message, says);
    assert.equal(told.errors[0].status, status);
    assert.equal(told.errors[0].willRetry, retries);
    assert.equal(told.state, retries ? 'retrying' : 'closed');
    assert.deepEqual(told.events, []);
  });
}

test('Retry-After is a floor', async (t) => {
  const told = await connect(t, '/busy', '{ retryPolicy: { baseDelayMs: 10 } }', { settled: 'retry' });
  assert.ok(told.retries[0].delayMs >= 7_000, JSON.stringify(told.retries));
});

test('204 ends the stream without an error', async (t) => {
  const told = await connect(t, '/done', '{}', { settled: 'close' });
  assert.deepEqual([told.state, told.errors], ['closed', []]);
  assert.deepEqual(told.closes, [{ reason: 'stream_ended', willReconnect: false }]);
});

test('a preflight that forbids Last-Event-ID is named, and lastEventIdParam avoids it', async (t) => {
  const url = `${elsewhere.address}/no-preflight`;
  const resumed = "{ persistLastEventId: true, persistKey: 'preflight', ";
  const prepare = () => localStorage.setItem('holdfast:1:preflight', '{"v":1,"cursor":"5","done":[],"at":0}');
  const refused = await connect(t, url, `${resumed} }`, { prepare });
  assert.equal(refused.errors[0].code, 'network_error');
  assert.match(refused.errors[0].message, /preflight.*Last-Event-ID.*lastEventIdParam/);
  const avoided = await connect(t, url, `${resumed} lastEventIdParam: 'after' }`, { prepare, settled: 'event' });
  assert.deepEqual([avoided.errors, avoided.events.length], [[], 1]);
});

for (const [path, option, code] of [
  ['/long-line', 'maxLineBytes', 'line_too_long'],
  ['/large-event', 'maxEventBytes', 'event_too_large'],
]) {
  test(`${code}: the stream stops before it, and says which option raises the limit`, async (t) => {
    const told = await connect(t, path, `{ ${option}: 1000 }`);
    assert.deepEqual(told.events, [{ data: 'before', id: '1' }]);
    assert.deepEqual([told.errors[0].code, told.errors[0].willRetry], [code, false]);
    assert.match(told.errors[0].message, new RegExp(`1000 bytes.*cursor stays before it.*${option}`));
    assert.deepEqual([told.state, told.lastEventId], ['closed', '1']);
  });
}

/** localStorage in three bad moods; the stream goes on from memory and the app is told once. */
const moods = [
  ['corrupt', () => localStorage.setItem('holdfast:1:mood', '{"v":1,')],
  ['of another shape', () => localStorage.setItem('holdfast:1:mood', '{"v":1,"cursor":5}')],
  ['denied', () => Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied', 'SecurityError'); } })],
  ['full', () => {
    localStorage.clear();
    for (let size = 1 << 22; size > 0; size >>= 1) {
      try { for (;;) localStorage.setItem(`fill${size}-${localStorage.length}`, 'x'.repeat(size)); } catch { /* full */ }
    }
  }],
];
for (const [mood, prepare] of moods) {
  test(`localStorage ${mood}: told once, and the stream goes on`, async (t) => {
    const options = "{ persistLastEventId: true, persistKey: 'mood', autoReconnect: false }";
    const told = await connect(t, '/foreign', options, { prepare, settled: 'close' });
    assert.deepEqual(told.errors.map((error) => error.code), ['storage_unavailable']);
    assert.match(told.errors[0].message, /kept in memory/);
    assert.deepEqual(told.events, [{ data: 'a', id: '7' }, { data: 'b', id: '8' }]);
    assert.equal(told.lastEventId, '8');
  });
}
