// A page that nobody looks at, by the option `whenHidden`; and one without a network, which makes no request.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { serveSite } from '../support/site.mjs';
import { event, headers } from '../support/stream.mjs';

const html = `<!doctype html><title>visibility</title><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  window.told = { events: [], closes: [], errors: [], fetches: 0 };
  window.follow = (options) => {
    window.connector = connectSSE('/stream', {
      hiddenAfterMs: 20,
      retryPolicy: { baseDelayMs: 5, maxDelayMs: 5 },
      onEvent: ({ data }) => told.events.push(data),
      onClose: ({ reason, willReconnect }) => told.closes.push([reason, willReconnect]),
      onError: ({ code, option }) => told.errors.push(option ?? code),
      fetch: (...request) => { told.fetches += 1; return fetch(...request); },
      ...options,
    });
  };
  // Headless browsers show every page: what a browser would do is done here.
  window.show = (state) => {
    Object.defineProperty(document, 'visibilityState', { configurable: true, value: state });
    document.dispatchEvent(new Event('visibilitychange'));
  };
</script>`;

let browser;
let site;
let cursors = [];
let streams = [];
let closed;

before(async () => {
  // A name that is not the loopback's: that one counts as reachable without a network.
  browser = await launchChromium({ args: ['--host-resolver-rules=MAP app.test 127.0.0.1'] });
  site = await serveSite({
    mounts: { '/holdfast-sse/': inRepository('pkg') },
    pages: {
      '/': html,
      '/stream': (request, response) => {
        const cursor = Number(request.headers['last-event-id'] ?? 0);
        cursors.push(cursor);
        streams.push(response);
        response.on('close', () => closed?.());
        response.writeHead(200, headers).write(event(cursor + 1));
      },
    },
  });
});
after(async () => {
  await browser?.close();
  await site?.close();
});

async function open(t, options) {
  cursors = [];
  streams = [];
  const ended = new Promise((resolve) => { closed = resolve; });
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(site.address.replace('127.0.0.1', 'app.test'));
  await page.waitForFunction(() => window.follow !== undefined);
  await page.evaluate((given) => follow(given), options);
  const events = (count) => page.waitForFunction((wanted) => told.events.length >= wanted, count);
  if (options.whenHidden !== 'wrong') await events(1);
  return { context, page, events, ended };
}

const show = (page, state) => page.evaluate((now) => show(now), state);
const told = (page, key) => page.evaluate((name) => window.told[name], key);

test("'close' ends the connection of a hidden page and makes it anew when it is seen", { timeout: 20_000 }, async (t) => {
  const { page, events, ended } = await open(t, { whenHidden: 'close' });
  await show(page, 'hidden');
  await ended;
  await page.waitForFunction(() => connector.state === 'retrying');
  assert.deepEqual(await told(page, 'closes'), [['hidden', true]]);
  assert.deepEqual(cursors, [0]);
  await show(page, 'visible');
  await events(2);
  assert.deepEqual([cursors, await told(page, 'events'), await told(page, 'errors')], [[0, 1], ['e1', 'e2'], []]);
});

test("'pause' reads no more until the page is seen", { timeout: 20_000 }, async (t) => {
  const { page, events } = await open(t, { whenHidden: 'pause', hiddenAfterMs: 0 });
  await show(page, 'hidden');
  // The read that was under way when the pause began still ends.
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 20)));
  const [stream] = streams;
  stream.write(event(2));
  await events(2);
  // More than the buffers on the way hold.
  const data = 'x'.repeat(60_000);
  for (let n = 3; n <= 2_002; n += 1) stream.write(event(n, data));
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 200)));
  assert.equal((await told(page, 'events')).length, 2, 'nothing is read meanwhile');
  assert.ok(stream.writableLength > 10_000_000, `the server feels it: ${stream.writableLength} bytes wait`);
  await show(page, 'visible');
  await events(2_002);
  assert.deepEqual([cursors, await told(page, 'closes')], [[0], []], 'over the same connection');
});

test('without the option a hidden page stays connected', { timeout: 20_000 }, async (t) => {
  const { page, events } = await open(t, { hiddenAfterMs: 0 });
  await show(page, 'hidden');
  streams[0].write(event(2));
  await events(2);
  assert.deepEqual([cursors, await page.evaluate(() => connector.state)], [[0], 'open']);
});

test('what request or transport cannot keep is an invalid option', { timeout: 20_000 }, async (t) => {
  const { page } = await open(t, { whenHidden: 'wrong' });
  for (const options of [
    { whenHidden: 'close', method: 'POST' }, { whenHidden: 'pause', transport: 'eventsource', fetch: undefined },
  ]) await page.evaluate((given) => follow(given), options);
  await page.waitForFunction(() => told.errors.length === 3);
  assert.deepEqual(await told(page, 'errors'), ['whenHidden', 'whenHidden', 'whenHidden']);
});

test('no request is made while there is no network, and one at once when it is back', { timeout: 20_000 }, async (t) => {
  const { context, page, events } = await open(t, {});
  await context.setOffline(true);
  await page.waitForFunction(() => !navigator.onLine);
  streams[0].destroy();
  await page.waitForFunction(() => connector.state === 'retrying');
  const { fetches } = await page.evaluate(() => told);
  // Twenty times the longest delay.
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 100)));
  await page.evaluate(() => connector.reconnect());
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 50)));
  assert.deepEqual([await told(page, 'fetches'), await page.evaluate(() => connector.state)], [fetches, 'retrying']);
  assert.equal(fetches, 1);
  await context.setOffline(false);
  await events(2);
  assert.deepEqual([cursors, await told(page, 'events')], [[0, 1], ['e1', 'e2']]);
});

test('a connector that is made without a network waits for it', { timeout: 20_000 }, async (t) => {
  const { context, page, events } = await open(t, {});
  await page.evaluate(() => connector.stop());
  await context.setOffline(true);
  await page.waitForFunction(() => !navigator.onLine);
  await page.evaluate(() => connector.connect());
  await page.waitForFunction(() => connector.state === 'retrying');
  assert.equal(await told(page, 'fetches'), 1);
  await context.setOffline(false);
  await events(2);
  assert.deepEqual(cursors, [0, 1]);
});

test('a frozen page does not trust its socket when it goes on', { timeout: 20_000 }, async (t) => {
  const { page, events } = await open(t, {});
  await page.evaluate(() => {
    document.dispatchEvent(new Event('freeze'));
    document.dispatchEvent(new Event('resume'));
  });
  // The old one is not closed by the server, nor does it say anything more.
  await events(2);
  assert.deepEqual([cursors, await told(page, 'events')], [[0, 1], ['e1', 'e2']]);
});

test('a page that was frozen asks for the network when it goes on: it may have missed the event', { timeout: 20_000 }, async (t) => {
  const { context, page, events } = await open(t, {});
  await page.evaluate(() => {
    connector.stop();
    // Listeners of the window are called in the order in which they came.
    addEventListener('online', (event) => event.stopImmediatePropagation());
    connector.connect();
  });
  await events(2);
  await context.setOffline(true);
  await page.waitForFunction(() => !navigator.onLine);
  streams.at(-1).destroy();
  await page.waitForFunction(() => connector.state === 'retrying');
  await page.evaluate(() => document.dispatchEvent(new Event('freeze')));
  await context.setOffline(false);
  await page.waitForFunction(() => navigator.onLine);
  // Twenty times the longest delay.
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 100)));
  assert.deepEqual([cursors, await page.evaluate(() => connector.state)], [[0, 1], 'retrying']);
  await page.evaluate(() => document.dispatchEvent(new Event('resume')));
  await events(3);
  assert.deepEqual([cursors, await told(page, 'events')], [[0, 1, 2], ['e1', 'e2', 'e3']]);
});
