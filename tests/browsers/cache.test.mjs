// The back/forward cache of each engine, for real: a page with a stream is left and come back to. Whether the browser kept it or loads
// it anew, each event is seen once and in order, on one connection. And a page that is frozen where it is.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { unpackPackage } from '../support/package.mjs';
import { startServer } from '../support/server.mjs';
import { serveSite } from '../support/site.mjs';
import { launch } from '../support/webdriver.mjs';

const html = `<!doctype html><title>app</title><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  // Of all the loads of this page: the numbers of the events, and what else was told.
  const add = (key, text) => { sessionStorage[key] = (sessionStorage[key] ?? '') + text + ' '; };
  const { stream, options } = JSON.parse(sessionStorage.app);
  addEventListener('pageshow', ({ persisted }) => add('shown', persisted ? 'cached' : 'loaded'));
  window.connector = connectSSE(stream, {
    ...options,
    retryPolicy: { baseDelayMs: 50 },
    onEvent: ({ id }) => add('ledger', id.split('-').pop()),
    onOpen: () => add('told', 'open'),
    onClose: ({ reason }) => add('told', reason),
    onError: ({ code }) => add('told', code),
    onGap: () => add('told', 'gap'),
  });
</script>`;

let unpacked;
let site;
before(async () => {
  unpacked = unpackPackage();
  site = await serveSite({ mounts: { '/holdfast-sse/': unpacked.folder }, pages: { '/app': html, '/other': '<!doctype html><title>other</title>' } });
});
after(async () => {
  await site?.close();
  unpacked?.remove();
});

/** A tab that follows the ticks of a server. `words(key)` is what the page noted, `further()` resolves after five more events. */
async function follow(t, name, options) {
  const server = await startServer({ args: ['--memory', '--cors-origins', '*'], env: { SSE_TICK_INTERVAL: '40' } });
  t.after(() => server.kill());
  const tab = await launch(name);
  t.after(tab.close);
  const words = (key) => tab.evaluate((of) => (sessionStorage[of] ?? '').split(' ').filter(Boolean), key);
  const further = async () => {
    const { length } = await words('ledger');
    await tab.until((count) => sessionStorage.ledger?.split(' ').length > count + 5, length);
  };
  await tab.goto(`${site.address}/other`);
  await tab.evaluate((app) => { sessionStorage.app = app; }, JSON.stringify({ stream: `${server.address}/stream?from=start`, options }));
  await tab.goto(`${site.address}/app`);
  await further();
  return { server, tab, words, further };
}

/** Goes to another page and back, twice. Answers what came of it. */
async function visit(t, name, options) {
  const { server, tab, words, further } = await follow(t, name, options);
  for (let round = 0; round < 2; round += 1) {
    await tab.goto(`${site.address}/other`);
    // What a page in the cache holds would be seen here.
    assert.deepEqual(await tab.evaluate(async () => (await navigator.locks.query()).held), []);
    await connections(server, 0);
    await tab.back();
    await further();
    await connections(server, 1);
  }
  assert.equal(await tab.evaluate(() => connector.state), 'open');
  const held = await tab.evaluate(async () => (await navigator.locks.query()).held.map((lock) => lock.mode));
  assert.deepEqual(held, options.persistLastEventId ? ['exclusive'] : []);
  return { ledger: (await words('ledger')).map(Number), shown: await words('shown'), told: await words('told') };
}

/** Resolves once the server has so many streams open. */
async function connections(server, wanted) {
  for (;;) {
    const text = await (await fetch(`${server.address}/metrics`)).text();
    if (Number(/^sse_server_active_streams (\d+)/m.exec(text)?.[1]) === wanted) return;
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

/** How a page comes back. Firefox keeps none that had a connection. */
const engines = { chromium: 'cached', webkit: 'cached', firefox: 'loaded' };

for (const [name, returned] of Object.entries(engines)) {
  test(`${name}: a page that is left and comes back`, { timeout: 60_000 }, async (t) => {
    const { ledger, shown, told } = await visit(t, name, { persistLastEventId: true });
    assert.deepEqual(ledger, ledger.map((_, index) => index + 1));
    assert.deepEqual(shown, ['loaded', returned, returned]);
    if (name === 'chromium') {
      assert.deepEqual(told, ['open', 'page_left', 'open', 'page_left', 'open']);
    } else {
      // They end its requests about when the page hears that it is left: what is told of it, and how often, is theirs.
      assert.deepEqual(told.filter((word) => !['open', 'network_error', 'page_left'].includes(word)), []);
      assert.equal(told.at(-1), 'open');
    }
  });
}

test('chromium: so does one that stores no cursor', { timeout: 60_000 }, async (t) => {
  const { ledger, shown } = await visit(t, 'chromium', {});
  assert.deepEqual([ledger, shown], [ledger.map((_, index) => index + 1), ['loaded', 'cached', 'cached']]);
});

test('chromium: a page that is frozen does not trust its connection when it runs again', { timeout: 60_000 }, async (t) => {
  const { server, tab, words, further } = await follow(t, 'chromium', { persistLastEventId: true });
  await tab.evaluate(() => {
    for (const name of ['freeze', 'resume']) document.addEventListener(name, () => { sessionStorage.shown += `${name} `; });
  });
  // Only what nobody sees is frozen.
  await tab.minimize();
  for (let round = 0; round < 2; round += 1) {
    await tab.cdp('Page.setWebLifecycleState', { state: 'frozen' });
    await tab.cdp('Page.setWebLifecycleState', { state: 'active' });
    await further();
    await connections(server, 1);
  }
  const ledger = (await words('ledger')).map(Number);
  assert.deepEqual(ledger, ledger.map((_, index) => index + 1));
  assert.deepEqual(await words('shown'), ['loaded', 'freeze', 'resume', 'freeze', 'resume']);
  assert.deepEqual(await words('told'), ['open', 'reconnect', 'open', 'reconnect', 'open']);
});
