// The page's life in a real browser: it is left, cached and comes back, also after a stop and a new connect().

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { serveSite } from '../support/site.mjs';

let browser;
let site;
const requests = [];

before(async () => {
  browser = await launchChromium();
  const pages = {
    '/': '<!doctype html><title>lifecycle</title>',
    // Each connection brings the next event and stays open.
    '/stream': (request, response) => {
      const after = Number(request.headers['last-event-id'] ?? 0);
      requests.push(after);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`: beats\n\nid: ${after + 1}\ndata: x\n\n`);
    },
  };
  site = await serveSite({ mounts: { '/holdfast-sse/': inRepository('pkg') }, pages });
});

after(async () => {
  await browser.close();
  await site.close();
});

/** A page with a connector in `window.connector` and what it was told in `window.told`. */
async function connected(t) {
  requests.length = 0;
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(site.address);
  await page.evaluate(async () => {
    const { connectSSE, DisconnectReason } = await import('/holdfast-sse/index.js');
    window.told = { events: [], states: [], closes: [] };
    window.connector = connectSSE('/stream', {
      persistLastEventId: true,
      retryPolicy: { baseDelayMs: 10 },
      onEvent: (event) => told.events.push(event.id),
      onStateChange: ({ to }) => told.states.push(to),
      onClose: ({ reason }) => told.closes.push(Object.keys(DisconnectReason).find((name) => DisconnectReason[name] === reason)),
    });
  });
  const events = (count) => page.waitForFunction((wanted) => told.events.length >= wanted, count);
  await events(1);
  return { page, events };
}

/** Says to the page what a browser would when the page is frozen in the cache and comes back. */
const comeBack = (page) => page.evaluate(() => {
  dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }));
  dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }));
});

test('a page that comes back from the cache does not trust its socket', async (t) => {
  const { page, events } = await connected(t);
  await comeBack(page);
  await events(2);
  assert.deepEqual(await page.evaluate(() => [told.events, told.closes]), [['1', '2'], ['PAGE_LEFT']]); // K22
  assert.deepEqual(requests, [0, 1]);
});

test('a pageshow that is just a load means nothing', async (t) => {
  const { page } = await connected(t);
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: false })));
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 0)));
  assert.deepEqual([requests.length, await page.evaluate(() => connector.state)], [1, 'open']);
});

for (const restart of ['connect', 'reconnect']) {
  test(`after stop() and ${restart}() the page is listened to again`, async (t) => {
    const { page, events } = await connected(t);
    await page.evaluate(() => connector.stop());
    await page.evaluate((method) => connector[method](), restart);
    await events(2);
    await comeBack(page);
    await events(3);
    assert.deepEqual(await page.evaluate(() => told.events), ['1', '2', '3']);
  });
}

test('a stopped connector leaves the page alone', async (t) => {
  const { page } = await connected(t);
  await page.evaluate(() => connector.stop());
  await comeBack(page);
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 0)));
  assert.deepEqual([requests.length, await page.evaluate(() => connector.state)], [1, 'closed']);
});

/** What a browser does to a page that it leaves, hides or freezes. Headless ones show every page: here it is done by hand. */
const leaving = {
  pagehide: () => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: false })),
  visibilitychange: () => {
    Object.defineProperty(document, 'visibilityState', { configurable: true, value: 'hidden' });
    document.dispatchEvent(new Event('visibilitychange'));
  },
  freeze: () => document.dispatchEvent(new Event('freeze')),
};

for (const [name, leave] of Object.entries(leaving)) test(`${name} stores what an asynchronous handler has finished`, async (t) => { // K7
  const { page } = await connected(t);
  const before = await page.evaluate(async () => {
    const { connectSSE } = await import('/holdfast-sse/index.js');
    const [key, body] = ['asynchronous', new ReadableStream({
      start(controller) { controller.enqueue(new TextEncoder().encode('id: 7\ndata: x\n\n')); },
    })];
    window.read = () => localStorage.getItem(`holdfast:1:${key}`);
    // The timer for it fires much later here: only the page's end can store it.
    const { setTimeout } = window;
    window.setTimeout = (call, ms, ...rest) => setTimeout(call, ms >= 100 ? 3_600_000 : ms, ...rest);
    await new Promise((resolve) => {
      connectSSE('/other', {
        persistLastEventId: true,
        persistKey: key,
        fetch: async () => new Response(body, { headers: { 'content-type': 'text/event-stream' } }),
        onEvent: async () => { setTimeout(resolve, 0); },
      });
    });
    return read();
  });
  assert.equal(before, null, 'at most every 250 ms otherwise');
  await page.evaluate(leave);
  assert.equal(JSON.parse(await page.evaluate(() => read())).cursor, '7');
});

test('while the app is busy the page may come back as often as it likes: its connection is made anew once, later', async (t) => {
  const { page, events } = await connected(t);
  await page.evaluate(async () => {
    connector.stop();
    const { connectSSE } = await import('/holdfast-sse/index.js');
    window.connector = connectSSE('/stream?busy', {
      onEvent: (event) => {
        told.events.push(event.id);
        if (told.events.length === 2) return new Promise((resolve) => { window.release = resolve; });
      },
    });
  });
  await events(2);
  for (let times = 0; times < 5; times += 1) {
    await page.evaluate(() => dispatchEvent(new Event('online')));
    await comeBack(page);
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 5)));
  }
  assert.deepEqual(requests, [0, 0]);
  await page.evaluate(() => release());
  await events(3);
  assert.deepEqual(requests, [0, 0, 1]);
});
