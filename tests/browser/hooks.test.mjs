// The hooks with the real React and TanStack Query, in a page that an app's bundler made of the packed package.

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { build } from 'esbuild';
import { launchChromium } from '../support/chromium.mjs';
import { unpackPackage } from '../support/package.mjs';
import { inRepository } from '../support/paths.mjs';
import { serveSite } from '../support/site.mjs';
import { headers } from '../support/stream.mjs';

let unpacked;
let site;
let browser;
/** The streams that the server was asked for, and those that are open. */
const requests = [];
const open = new Set();
/** How often each count was fetched. */
const counts = new Map();
/** Written at the beginning of a stream, given the request. */
let greeting = () => ': hello\n\n';

function stream(request, response) {
  const { pathname } = new URL(request.url, 'http://x');
  requests.push({ path: pathname, cursor: request.headers['last-event-id'], round: request.headers['x-round'] });
  response.writeHead(200, headers).write(greeting(request));
  open.add(response);
  response.on('close', () => open.delete(response));
}

before(async () => {
  unpacked = unpackPackage();
  const { outputFiles: [bundle] } = await build({
    entryPoints: [inRepository('tests/browser/hooks-page.jsx')],
    bundle: true,
    write: false,
    format: 'esm',
    jsx: 'automatic',
    define: { 'process.env.NODE_ENV': '"development"' },
    alias: { 'holdfast-sse': unpacked.folder },
    nodePaths: [inRepository('node_modules')],
    logLevel: 'error',
  });
  browser = await launchChromium();
  site = await serveSite({
    pages: {
      '/': '<!doctype html><title>hooks</title><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="/page.js"></script>',
      '/page.js': (_, response) => response.writeHead(200, { 'content-type': 'text/javascript' }).end(bundle.contents),
      '/stream': stream,
      '/other': stream,
      '/count': (request, response) => {
        const name = new URL(request.url, 'http://x').search.slice(1);
        counts.set(name, (counts.get(name) ?? 0) + 1);
        response.end(String(counts.get(name)));
      },
    },
  });
});
after(async () => {
  await browser?.close();
  await site?.close();
  unpacked?.remove();
});
beforeEach(() => {
  cut();
  requests.length = 0;
  counts.clear();
  greeting = () => ': hello\n\n';
});

/** A page with the part mounted; what the console or an error says ends up in `complaints`. */
async function mount(t, props) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  await page.goto(site.address);
  await page.evaluate((initial) => mount(initial), { part: 'Stream', endpoint: '/stream', round: 0, ...props });
  const state = (wanted) => page.waitForFunction((text) => document.getElementById('state').textContent === text, wanted);
  const events = (count) => page.waitForFunction((wanted) => log.events.length >= wanted, count);
  const change = (more) => page.evaluate((changed) => change(changed), more);
  return { page, complaints, state, events, change, log: () => page.evaluate(() => log) };
}

const send = (text) => { for (const response of open) response.write(text); };
const cut = () => {
  for (const response of open) {
    response.destroy();
    open.delete(response);
  }
};
const json = (n, more = '') => `id: ${n}\n${more}data: {"n":${n}}\n\n`;

/** Resolves once `predicate` holds of the server; it is asked at each turn. */
async function until(predicate) {
  while (!predicate()) await new Promise((resolve) => { setTimeout(resolve, 5); });
}

for (const strict of [false, true]) {
  test(`events, the connection's state, a reconnect and the end; StrictMode: ${strict}`, async (t) => { // S10, S12, S13
    const { page, state, events, log, complaints } = await mount(t, { strict });
    await state('true open');
    assert.equal(requests.length, 1, 'however often effects run');
    send(json(1) + json(2, 'event: vote\n'));
    await events(2);
    cut();
    await until(() => open.size === 1);
    send(json(3));
    await events(3);
    await page.evaluate(() => unmount());
    await until(() => open.size === 0);
    assert.equal(await page.evaluate(() => { connector.connect(); return connector.state; }), 'closed', 'for good');
    const seen = await log();
    assert.deepEqual(seen.events, [[{ n: 1 }, '1', 'message', 0], [{ n: 2 }, '2', 'vote', 0], [{ n: 3 }, '3', 'message', 0]]);
    assert.deepEqual(seen.connected, [true, false, true, false]);
    assert.deepEqual(requests.map(({ cursor }) => cursor), [undefined, '2']);
    assert.deepEqual(complaints.filter((text) => !/ERR_INCOMPLETE_CHUNKED|DevTools/.test(text)), []);
  });
}

test('onEvent gets what the data says: an app\'s own union as it is, of an envelope its payload, also null', async (t) => { // S10, S12
  const { state, events, log } = await mount(t);
  await state('true open');
  const union = { type: 'comment-added', payload: { count: 3 }, ts: '2026-01-01T00:00:00Z' };
  const envelope = { ...union, event_id: '0191a7c0-0000-7000-8000-000000000001' };
  const all = [union, envelope, { ...envelope, payload: null }, null];
  send(all.map((data, index) => `id: ${index}\ndata: ${JSON.stringify(data)}\n\n`).join(''));
  await events(4);
  assert.deepEqual((await log()).events.map(([event]) => event), [union, { count: 3 }, null, null]);
});

test('new callbacks make no new connection, and it is the latest that is called', async (t) => { // S10
  const { state, events, change, log } = await mount(t);
  await state('true open');
  send(json(1));
  await events(1);
  for (let round = 1; round <= 20; round += 1) await change({ round });
  send(json(2));
  await events(2);
  assert.equal(requests.length, 1);
  cut();
  await until(() => requests.length === 2);
  const seen = await log();
  assert.deepEqual(seen.events.map(([{ n }, , , round]) => [n, round]), [[1, 0], [2, 20]]);
  assert.deepEqual(requests.map(({ round }) => round), ['0', '20'], 'headers, too');
  assert.ok(seen.renders >= 21 && seen.renders < 40, `${seen.renders} renders`);
});

test('enabled: no request without, and off and on again resumes', async (t) => { // S10
  const { state, events, change, log } = await mount(t, { enabled: false });
  await state('false idle');
  await change({ enabled: true, endpoint: '/other' });
  await state('true open');
  assert.deepEqual(requests.map(({ path }) => path), ['/other'], 'none was made before');
  send(json(1));
  await events(1);
  await change({ enabled: false });
  await state('false closed');
  await until(() => open.size === 0);
  greeting = () => json(2);
  await change({ enabled: true });
  await events(2);
  assert.deepEqual(requests.map(({ cursor }) => cursor), [undefined, '1']);
  assert.deepEqual((await log()).connected, [true, false, true]);
});

test('another endpoint is another stream, and one that is hidden ends', async (t) => { // S10
  const { page, state, events, change, log } = await mount(t);
  await state('true open');
  const first = await page.evaluateHandle(() => connector);
  await change({ endpoint: '/other' });
  await until(() => open.size === 1 && requests.length === 2);
  await state('true open');
  send(json(1));
  await events(1);
  assert.deepEqual(requests, [
    { path: '/stream', cursor: undefined, round: '0' }, { path: '/other', cursor: undefined, round: '0' },
  ]);
  assert.deepEqual(await page.evaluate((before) => [before === connector, before.state, connector.state, connector.lastEventId], first),
    [false, 'closed', 'open', '1']);
  await change({ hidden: true });
  await until(() => open.size === 0);
  await change({ hidden: false });
  await state('true open');
  assert.deepEqual((await log()).connected, [true, false, true, false, true]);
});

test('data that is no JSON is told, and nothing is lost behind it', async (t) => { // S10, S12
  const { state, events, change, log } = await mount(t);
  await state('true open');
  send(`id: 1\ndata: oops\n\nid: 2\ndata: null\n\nid: 3\ndata: {"event_id":"x","type":"t","ts":"2026-01-01T00:00:00Z","payload":{"n":3}}\n\n`);
  await events(2);
  await change({ plain: true });
  send('id: 4\ndata: oops\n\n');
  await events(3);
  const seen = await log();
  assert.deepEqual(seen.events.map(([event]) => event), [null, { n: 3 }, 'plain oops']);
  assert.equal(seen.errors.length, 1);
  assert.equal(seen.errors[0][0], 'handler_failed');
  assert.match(seen.errors[0][1], /event 1: the data of event message 1 is not JSON/);
});

const shown = (page, wanted) => page.waitForFunction(
  (texts) => ['a', 'b', 'c'].every((name, index) => document.getElementById(name).textContent === texts[index]), wanted);

for (const strict of [false, true]) {
  test(`an array of keys: each event fetches these queries again; StrictMode: ${strict}`, async (t) => { // S11
    const { page, state } = await mount(t, { part: 'Queries', by: 'array', strict });
    await state('true');
    await shown(page, ['1', '1', '1']);
    send('data: {"topic":"b"}\n\n');
    await shown(page, ['2', '1', '2']);
    send('data: any text\n\n');
    await shown(page, ['3', '1', '3']);
    assert.equal(requests.length, 1);
  });
}

test('a function of the event says which queries are stale', async (t) => { // S11
  const { page, state, log } = await mount(t, { part: 'Queries', by: 'event' });
  await state('true');
  await shown(page, ['1', '1', '1']);
  send('data: {"topic":"b"}\n\n');
  await shown(page, ['1', '2', '1']);
  send('data: oops\n\ndata: {"topic":"c"}\n\n');
  await shown(page, ['1', '2', '2']);
  assert.deepEqual((await log()).errors, ['handler_failed']);
});

for (const [name, first, second, expected] of [
  ['a stream without ids was made anew', 'data: 1\n\n', ': hello\n\n', ['3', '1', '3']],
  ['a stream with ids was resumed', 'id: 7\ndata: 1\n\n', ': hello\n\n', ['2', '1', '2']],
  ['the server cannot replay', 'id: 7\ndata: 1\n\n',
    'event: control.cannot_resume\ndata: {"type":"control.cannot_resume","payload":{"reason":"buffer_expired","requestedId":"7"}}\n\n',
    ['3', '1', '3']],
]) {
  test(`an array of keys is stale, too, where events may be missing: ${name}`, async (t) => { // S11
    const { page, state, log } = await mount(t, { part: 'Queries', by: 'array' });
    await state('true');
    await shown(page, ['1', '1', '1']);
    send(first);
    await shown(page, ['2', '1', '2']);
    greeting = () => second;
    cut();
    await until(() => requests.length === 2);
    await state('true');
    await shown(page, expected);
    // A query of another key shows that nothing more was asked for before it.
    send('data: end\n\n');
    await shown(page, expected.map((count, index) => (index === 1 ? count : String(Number(count) + 1))));
    assert.deepEqual((await log()).gaps, second.includes('cannot_resume') ? ['buffer_expired'] : []);
  });
}
