// The browser's own EventSource as transport, driven by the same core: what it keeps, and what it refuses.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { startServer } from '../support/server.mjs';
import { serveSite } from '../support/site.mjs';
import { event, headers } from '../support/stream.mjs';

const html = `<!doctype html><title>transport</title><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  window.follow = (url, options = {}) => {
    window.told = { events: [], states: [], errors: [], closes: [], duplicates: [], names: [] };
    window.connector = connectSSE(url, {
      transport: 'eventsource',
      retryPolicy: { baseDelayMs: 1, jitterPct: 0 },
      onEvent: (event) => { told.events.push(event.data); told.names.push(event.type); },
      onStateChange: ({ to }) => told.states.push(to),
      onError: ({ code, message, option, willRetry }) => told.errors.push({ code, message, option, willRetry }),
      onClose: (info) => told.closes.push(info),
      onDuplicate: ({ eventId }) => told.duplicates.push(eventId),
      ...options,
    });
  };
</script>`;

let browser;
let site;
/** What the server of the running test answers. */
let answer;
let requests = [];

before(async () => {
  browser = await launchChromium();
  site = await serveSite({
    mounts: { '/holdfast-sse/': inRepository('pkg') },
    pages: {
      '/': html,
      '/stream': (request, response) => {
        requests.push(new URL(request.url, site.address).search);
        answer(request, response, requests.length);
      },
    },
  });
});
after(async () => {
  await browser?.close();
  await site?.close();
});

/** A page that has not connected yet, and the stream that it will find. */
async function open(t, answering) {
  answer = answering;
  requests = [];
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(site.address);
  await page.waitForFunction(() => window.follow !== undefined);
  return page;
}

const told = (page, key) => page.evaluate((name) => window.told[name], key);
const until = (page, count) => page.waitForFunction((wanted) => told.events.length >= wanted, count);

test('events come once and in order over cuts, the cursor going into the query', { timeout: 20_000 }, async (t) => {
  const page = await open(t, (_, response, attempt) => {
    response.writeHead(200, headers);
    if (attempt === 1) response.end(event(1) + event(2));
    // The server begins before the cursor: that is seen.
    else response.write(event(2) + event(3, 'a\ndata: b') + 'event: price\ndata: 7\n\nevent: unheard\ndata: 8\n\n' + event(4));
  });
  await page.evaluate(() => follow('/stream?room=7', { eventTypes: ['price'] }));
  await until(page, 5);
  assert.deepEqual(await told(page, 'events'), ['e1', 'e2', 'a\nb', '7', 'e4']);
  assert.deepEqual(await told(page, 'names'), ['message', 'message', 'message', 'price', 'message']);
  assert.deepEqual(await told(page, 'duplicates'), ['2']);
  assert.deepEqual(await told(page, 'states'), ['connecting', 'open', 'retrying', 'connecting', 'open']);
  assert.deepEqual(requests, ['?room=7', '?room=7&lastEventId=2']);
  assert.equal(await page.evaluate(() => connector.lastEventId), '4');
});

test('an id that is inherited makes no event a repeat', { timeout: 20_000 }, async (t) => {
  const page = await open(t, (_, response) => {
    response.writeHead(200, headers).write(`${event(1, 'tick')}data: tick\n\ndata: tick\n\nid:\ndata: end\n\n`);
  });
  await page.evaluate(() => follow('/stream'));
  await until(page, 4);
  assert.deepEqual(await told(page, 'events'), ['tick', 'tick', 'tick', 'end']);
  assert.equal(await page.evaluate(() => connector.lastEventId), '', 'an empty id clears the cursor');
});

test('a stream that fails is tried again by our policy, not by the browser\'s', { timeout: 20_000 }, async (t) => {
  const page = await open(t, (_, response, attempt) => {
    // The browser would give up on the first three, and wait for seconds after the fourth.
    if (attempt === 1) response.writeHead(401).end();
    else if (attempt === 2) response.writeHead(503).end();
    else if (attempt === 3) response.writeHead(200, { 'content-type': 'text/html' }).end('sorry');
    else if (attempt === 4) response.writeHead(200, headers).end('event: error\ndata: is no failure\n\n');
    else response.writeHead(200, headers).write(event(1));
  });
  const params = ['a', 'b', 'c', 'd', 'e'];
  await page.evaluate((given) => {
    follow(async () => `/stream?${given.shift()}`, { lastEventIdParam: 'after' });
  }, params);
  await until(page, 1);
  assert.deepEqual(requests, params.map((name) => `?${name}`), 'the URL is asked anew each time');
  assert.deepEqual(await told(page, 'events'), ['e1'], 'nobody listens to events named error');
  const errors = await told(page, 'errors');
  assert.deepEqual(errors.map(({ code, willRetry }) => [code, willRetry]), Array(4).fill(['network_error', true]));
  assert.match(errors[1].message, /EventSource does not tell which, nor the status/);
  assert.match(errors[3].message, /ended or broke off/);
});

test('maxAttempts ends it, and stop() closes the connection', { timeout: 20_000 }, async (t) => {
  const closed = [];
  const page = await open(t, (request, response) => {
    response.on('close', () => closed.push(request.url));
    if (request.url.includes('refused')) response.writeHead(404).end();
    else response.writeHead(200, headers).write(event(1));
  });
  await page.evaluate(() => follow('/stream?refused', { retryPolicy: { baseDelayMs: 1, maxAttempts: 2 } }));
  await page.waitForFunction(() => connector.state === 'closed');
  assert.equal(requests.length, 3);
  assert.equal((await told(page, 'errors')).at(-1).code, 'gave_up');

  await page.evaluate(() => follow('/stream?open'));
  await until(page, 1);
  const ended = new Promise((resolve) => { closed.push = (url) => resolve(url); });
  await page.evaluate(() => connector.stop());
  assert.equal(await ended, '/stream?open');
  assert.deepEqual((await told(page, 'closes')).map(({ reason }) => reason), ['client_close']);
});

test('an app that is far behind is caught up with over a new connection', { timeout: 20_000 }, async (t) => {
  const page = await open(t, (request, response) => {
    const from = Number(new URL(request.url, site.address).searchParams.get('lastEventId') ?? 0) + 1;
    response.writeHead(200, headers);
    for (let n = from; n <= 3_000; n += 1) response.write(event(n, String(n)));
  });
  await page.evaluate(() => {
    follow('/stream', {
      onEvent: async ({ data }) => {
        if (data === '1') await new Promise((resolve) => { window.goOn = resolve; });
        told.events.push(Number(data));
      },
    });
  });
  await page.waitForFunction(() => connector.getStats().eventsReceived >= 1_000);
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 50)));
  const received = await page.evaluate(() => connector.getStats().eventsReceived);
  assert.equal(received, 1_000, 'no more is taken in');
  await page.evaluate(() => goOn());
  await until(page, 3_000);
  assert.deepEqual(await told(page, 'events'), Array.from({ length: 3_000 }, (_, index) => index + 1));
  assert.match((await told(page, 'errors'))[0].message, /1000 events behind/);
});

test('an app that may have more in hand is not closed before it has that much', { timeout: 20_000 }, async (t) => {
  const page = await open(t, (request, response) => {
    const from = Number(new URL(request.url, site.address).searchParams.get('lastEventId') ?? 0) + 1;
    response.writeHead(200, headers);
    for (let n = from; n <= 3_000; n += 1) response.write(event(n, String(n)));
  });
  await page.evaluate(() => {
    window.events = [];
    follow('/stream', {
      ack: 'manual',
      maxUnacked: 2_000,
      onEvent: (event) => {
        told.events.push(Number(event.data));
        events.push(event);
      },
    });
  });
  await until(page, 2_000);
  // What the network does meanwhile opens nothing.
  await page.evaluate(async () => {
    for (let n = 0; n < 5; n += 1) {
      dispatchEvent(new Event('online'));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  });
  assert.deepEqual([requests, await told(page, 'errors')], [[''], []]);
  assert.equal(await page.evaluate(() => connector.getStats().eventsReceived), 2_000);
  await page.evaluate(() => { for (const event of events) event.ack(); });
  await until(page, 3_000);
  assert.deepEqual(await told(page, 'events'), Array.from({ length: 3_000 }, (_, index) => index + 1));
  assert.deepEqual(requests, ['', '?lastEventId=2000']);
});

test('all that our server itself says is heard: a channel that is added keeps its place', { timeout: 20_000 }, async (t) => {
  const says = (name, payload) => `event: control.${name}\ndata: ${JSON.stringify({ payload })}\n\n`;
  const page = await open(t, (_, response, attempt) => {
    response.writeHead(200, headers);
    if (attempt > 1) return response.write(': nothing new\n\n');
    response.write(says('open', { protocol: 'holdfast/1', position: 'a:e-3,b:e-7', replayable: true }));
    response.write(says('presence', { channel: 'a', count: 2 }) + says('unlisten', { channel: 'b' }));
    response.write(says('listen', { channel: 'c', position: 'c:e-0', replayable: true }));
    response.end('id: c:e-1,a:e-3\ndata: c1\n\nid: a:e-4,c:e-1\ndata: a4\n\n');
  });
  await page.evaluate(() => follow('/stream', { onControl: ({ type }) => told.names.push(type) }));
  await until(page, 2);
  await page.waitForFunction(() => connector.state === 'open' && connector.getStats().reconnectCount === 1);
  const cursor = new URLSearchParams(requests[1]).get('lastEventId');
  assert.deepEqual(cursor.split(',').sort(), ['a:e-4', 'c:e-1']);
  const names = ['open', 'presence', 'unlisten', 'listen'].map((name) => `control.${name}`);
  assert.deepEqual((await told(page, 'names')).filter((name) => name !== 'message'), names);
});

test('our server is followed exactly: its own events are heard, repeats dropped, kills survived', { timeout: 30_000 }, async (t) => {
  const data = mkdtempSync(join(tmpdir(), 'holdfast-transport-'));
  t.after(() => rmSync(data, { recursive: true, force: true }));
  const options = {
    args: ['--data-dir', data, '--debug-routes'],
    env: { SSE_PUBLISH_TOKEN: 'secret', SSE_CORS_ORIGINS: site.address },
  };
  let server = await startServer(options);
  t.after(() => server.kill());
  const { address, port } = server;
  const publish = async (n) => {
    const response = await fetch(`${address}/publish/news`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer secret' },
      body: JSON.stringify({ type: 'domain.counted', payload: { n } }),
    });
    assert.ok(response.ok, await response.text());
  };
  const page = await open(t, () => {});
  await publish(1);
  await page.evaluate((url) => follow(url, {
    eventTypes: ['domain.counted'],
    onEvent: ({ payload }) => told.events.push(payload.n),
    onControl: ({ type }) => told.names.push(type),
  }), `${address}/stream/news?from=start`);
  await publish(2);
  await until(page, 2);
  // The same id twice running: on our server that is a repeat.
  const repeated = await fetch(`${address}/debug/repeat?count=1`, { method: 'POST' });
  assert.ok(repeated.ok, await repeated.text());
  await page.waitForFunction(() => told.duplicates.length === 1);
  await server.kill();
  server = await startServer({ ...options, port });
  await publish(3);
  await until(page, 3);
  assert.deepEqual(await told(page, 'events'), [1, 2, 3]);
  const names = await told(page, 'names');
  assert.equal(names.filter((name) => name === 'control.open').length, 2, names.join());
});

test('what EventSource cannot keep is an error that names it', { timeout: 20_000 }, async (t) => {
  const page = await open(t, () => {});
  for (const [options, option] of [
    [{ method: 'POST' }, 'method'],
    [{ body: 'x' }, 'body'],
    [{ headers: {} }, 'headers'],
    [{ traceId: 'x' }, 'traceId'],
    [{ requestInit: {} }, 'requestInit'],
    [{ replayRequest: true }, 'replayRequest'],
    [{ credentials: 'omit' }, 'credentials'],
    [{ eventTypes: ['a\nb'] }, 'eventTypes'],
    [{ eventTypes: 'a' }, 'eventTypes'],
  ]) {
    await page.evaluate((given) => follow('/stream', given), options);
    await page.waitForFunction(() => told.errors.length > 0);
    const [error] = await told(page, 'errors');
    assert.deepEqual([error.code, error.option, requests.length], ['invalid_option', option, 0], JSON.stringify(options));
  }
});
