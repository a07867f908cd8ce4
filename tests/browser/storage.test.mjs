// Where the cursor is kept in a browser: tabs on one key, and a logout.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { unpackPackage } from '../support/package.mjs';
import { serveSite } from '../support/site.mjs';
import { events, headers } from '../support/stream.mjs';

const html = `<!doctype html><title>storage</title><script>
  // Notes the memory of the core: the package gives none out.
  window.memories = [];
  const { instantiate } = WebAssembly;
  WebAssembly.instantiate = async (...given) => {
    const made = await instantiate(...given);
    memories.push((made.instance ?? made).exports.memory);
    return made;
  };
</script><script type="module">
  import * as holdfast from '/holdfast-sse/index.js';
  window.holdfast = holdfast;
  window.got = [];
  window.follow = (last, options = {}) => new Promise((resolve) => {
    window.connector = holdfast.connectSSE('/stream', {
      persistLastEventId: true,
      ...options,
      onEvent: (event) => { window.got.push(event.id); if (event.id === String(last)) setTimeout(resolve, 0); },
    });
  });
  window.cursorIn = (storage) => {
    const text = storage.getItem('holdfast:1:' + location.origin + '/stream');
    return text === null ? null : JSON.parse(text).cursor;
  };
  window.holder = () => navigator.locks.query().then(({ held }) => held.length);
</script>`;

let unpacked;
let site;
let browser;
let last = 3;
const responses = new Set();
before(async () => {
  unpacked = unpackPackage();
  browser = await launchChromium();
  site = await serveSite({
    mounts: { '/holdfast-sse/': unpacked.folder },
    pages: {
      '/': html,
      '/stream': (request, response) => {
        const from = Number(request.headers['last-event-id'] ?? 0) + 1;
        response.writeHead(200, headers).write(from <= last ? events(from, last) : ': nothing\n\n');
        responses.add(response);
        response.on('close', () => responses.delete(response));
      },
    },
  });
});
after(async () => {
  await browser?.close();
  await site?.close();
  unpacked?.remove();
});

/** One more event, to all tabs. */
function publish() {
  last += 1;
  for (const response of responses) response.write(events(last, last));
}

async function open(context) {
  const tab = await context.newPage();
  await tab.goto(site.address);
  return tab;
}

const cursors = (tab) => tab.evaluate(() => [cursorIn(localStorage), cursorIn(sessionStorage)]);
const reached = (tab, id) => tab.waitForFunction((wanted) => got.at(-1) === wanted, String(id));

test('of several tabs one writes for new tabs, and each keeps its own cursor', { timeout: 20_000 }, async (t) => { // K7
  last = 3;
  const context = await browser.newContext();
  t.after(() => context.close());
  const first = await open(context);
  await first.evaluate(() => follow(3));
  await first.waitForFunction(() => cursorIn(localStorage) === '3');
  const second = await open(context);
  assert.deepEqual(await second.evaluate(async () => { await Promise.race([follow(9), new Promise((r) => setTimeout(r, 300))]); return got; }),
    [], 'a new tab begins where the first has come to');

  await first.evaluate(() => connector.stop());
  await second.waitForFunction(async () => (await navigator.locks.query()).pending.length === 0);
  publish();
  await reached(second, 4);
  await second.waitForFunction(() => cursorIn(localStorage) === '4');
  // Tabs are processes of their own: what one writes reaches the other a little later.
  await first.waitForFunction(() => cursorIn(localStorage) === '4');
  assert.deepEqual(await cursors(first), ['4', '3'], 'the second took over, the first keeps its own');

  await first.evaluate(() => { connector.connect(); });
  await reached(first, 4);
  publish();
  await reached(first, 5);
  await reached(second, 5);
  await second.evaluate(() => connector.stop());
  publish();
  await reached(first, 6);
  await first.waitForFunction(() => cursorIn(localStorage) === '6');
  await second.waitForFunction(() => cursorIn(localStorage) === '6');
  assert.deepEqual(await cursors(second), ['6', '5']);

  // A reload goes on at the tab's own place, not at the other's.
  await second.reload();
  assert.deepEqual(await second.evaluate(async () => { await follow(6); return got; }), ['6']);
});

test('a tab without the lock does not write for new tabs', { timeout: 20_000 }, async (t) => { // K7
  last = 2;
  const context = await browser.newContext();
  t.after(() => context.close());
  const holder = await open(context);
  await holder.evaluate(() => {
    const key = 'holdfast:1:' + location.origin + '/stream';
    return new Promise((resolve) => { navigator.locks.request(key, () => { resolve(); return new Promise(() => {}); }); });
  });
  const tab = await open(context);
  await tab.evaluate(() => follow(2));
  // Until it knows of the other tab it may write.
  await tab.waitForFunction(async () => (await navigator.locks.query()).pending.length === 1);
  publish();
  await reached(tab, 3);
  await tab.waitForFunction(() => cursorIn(sessionStorage) === '3');
  assert.notEqual((await cursors(tab))[0], '3');
  await holder.close();
  await tab.waitForFunction(() => cursorIn(localStorage) === '3');
});

test('a core that failed gives its lock back: the new one writes for new tabs', { timeout: 20_000 }, async (t) => { // K7
  last = 2;
  const context = await browser.newContext();
  t.after(() => context.close());
  const tab = await open(context);
  await tab.evaluate(() => follow(2));
  await tab.waitForFunction(async () => cursorIn(localStorage) === '2' && await holder() === 1);
  await tab.evaluate(() => {
    new Uint8Array(memories[0].buffer).fill(0xff);
    connector.reconnect();
  });
  await tab.waitForFunction(() => connector.getStats().connectionsOpened === 1 && connector.state === 'open');
  publish();
  await reached(tab, 3);
  await tab.waitForFunction(async () => (await navigator.locks.query()).pending.length === 0 && await holder() === 1);
  await tab.waitForFunction(() => cursorIn(localStorage) === '3');
});

test('clearCursor() clears both, also in a tab without the lock', { timeout: 20_000 }, async (t) => { // K7
  last = 2;
  const context = await browser.newContext();
  t.after(() => context.close());
  const first = await open(context);
  await first.evaluate(() => follow(2));
  await first.waitForFunction(() => cursorIn(localStorage) === '2');
  const second = await open(context);
  await second.evaluate(() => { void follow(9); });
  await second.evaluate(() => { sessionStorage.setItem('holdfast:1:' + location.origin + '/stream', '{}'); });
  await second.waitForFunction(() => connector.state === 'open');
  await second.evaluate(() => { connector.stop(); connector.clearCursor(); });
  assert.deepEqual(await cursors(second), [null, null]);
});

for (const store of ['IndexedDBStorage', 'LocalStorageAdapter', 'SessionStorageAdapter']) {
  test(`${store} carries the cursor over a reload`, { timeout: 20_000 }, async (t) => { // K7
    last = 3;
    const context = await browser.newContext();
    t.after(() => context.close());
    const tab = await open(context);
    await tab.evaluate((name) => follow(3, { eventIdStorage: new holdfast[name]('mine') }), store);
    await tab.waitForFunction(async (name) => {
      const text = await new holdfast[name]('mine').get();
      return text != null && JSON.parse(text).cursor === '3';
    }, store);
    last = 4;
    await tab.reload();
    assert.deepEqual(await tab.evaluate(async (name) => {
      await follow(4, { eventIdStorage: new holdfast[name]('mine') });
      connector.stop();
      connector.clearCursor();
      return got;
    }, store), ['4']);
    await tab.waitForFunction(async (name) => (await new holdfast[name]('mine').get()) == null, store);
  });
}

test('by default the key is origin and path: a token in the query is stored nowhere', { timeout: 20_000 }, async (t) => { // K7
  last = 3;
  const context = await browser.newContext();
  t.after(() => context.close());
  const tab = await open(context);
  const follow = (token) => tab.evaluate((query) => new Promise((resolve) => {
    got.length = 0;
    window.connector = holdfast.connectSSE(`/stream?access_token=${query}#part`, {
      persistLastEventId: true,
      onEvent: (event) => { got.push(event.id); if (event.id === '3' || event.id === '4') setTimeout(resolve, 0); },
    });
  }), token);
  await follow('secret-1');
  const stored = await tab.evaluate(async () => {
    const locks = (await navigator.locks.query()).held.map(({ name }) => name);
    return { keys: [localStorage, sessionStorage].map((storage) => Object.keys(storage)), locks, text: JSON.stringify([localStorage, sessionStorage]) };
  });
  const key = `holdfast:1:${site.address}/stream`;
  assert.deepEqual(stored.keys, [[key], [key]]);
  assert.deepEqual(stored.locks, [key]);
  assert.doesNotMatch(stored.text, /secret|token|part/);
  // Another token is the same stream.
  await tab.evaluate(() => connector.stop());
  publish();
  await follow('secret-2');
  assert.deepEqual(await tab.evaluate(() => got), ['4']);
});

test('a URL function with persistLastEventId and no key is an error that names persistKey', async (t) => { // K7
  const context = await browser.newContext();
  t.after(() => context.close());
  const tab = await open(context);
  const told = await tab.evaluate(() => new Promise((resolve) => {
    const connector = holdfast.connectSSE(() => '/stream', {
      persistLastEventId: true,
      onError: ({ code, message, willRetry }) => resolve({ code, message, willRetry, state: connector.state }),
    });
  }));
  assert.deepEqual([told.code, told.willRetry, told.state], ['invalid_option', false, 'closed']);
  assert.match(told.message, /persistKey takes a string, since the URL is a function/);
  const keys = await tab.evaluate(async () => {
    await new Promise((resolve) => {
      const onEvent = () => { setTimeout(resolve, 0); };
      holdfast.connectSSE(() => '/stream?token=x', { persistLastEventId: true, persistKey: 'mine', onEvent });
    });
    return Object.keys(localStorage);
  });
  assert.deepEqual(keys, ['holdfast:1:mine']);
});
