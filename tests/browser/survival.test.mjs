// The promise, end to end: a real browser, the packed package, a real server on a durable log. Thousands of events
// are published while the server is killed and the page is reloaded; the app's ledger shows each one once, in order.
//
// HOLDFAST_SURVIVAL_SEED=N replays the moments of a run.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { unpackPackage } from '../support/package.mjs';
import { randomFrom, seedFrom } from '../support/random.mjs';
import { startServer } from '../support/server.mjs';
import { serveSite } from '../support/site.mjs';

const EVENTS = 5_000;
const KILLS = 20;
const RELOADS = 10;
const PUBLISH_TOKEN = 'survival';

/** The app: a synchronous handler that appends to a ledger of its own. */
const page = (stream) => `<!doctype html><title>survival</title><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  const append = (key, text) => localStorage.setItem(key, (localStorage.getItem(key) ?? '') + text);
  append('loads', '|');
  window.connector = connectSSE('${stream}', {
    persistLastEventId: true,
    retryPolicy: { baseDelayMs: 50, maxDelayMs: 500 },
    onEvent: (event) => append('ledger', event.payload.n + ','),
    onOpen: () => append('opens', '|'),
    onCannotResume: (info) => append('problems', JSON.stringify(info)),
    onGap: (info) => append('problems', JSON.stringify(info)),
    onError: (error) => { if (!error.willRetry) append('problems', error.code + ' ' + error.message); },
  });
</script>`;

test('5,000 events survive 20 kills of the server and 10 reloads of the page', async (t) => {
  const seed = seedFrom('HOLDFAST_SURVIVAL_SEED');
  console.log(`survival seed: ${seed}`);
  const random = randomFrom(seed);
  const moments = (count) => Array.from({ length: count }, () => 1 + Math.floor(random() * (EVENTS - 1)));
  const troubles = [
    ...moments(KILLS).map((after) => ({ kind: 'kill', after, delayMs: random() * 20 })),
    ...moments(RELOADS).map((after) => ({ kind: 'reload', after, delayMs: random() * 20 })),
  ].sort((a, b) => a.after - b.after);

  const data = mkdtempSync(join(tmpdir(), 'holdfast-survival-'));
  t.after(() => rmSync(data, { recursive: true, force: true }));
  const unpacked = unpackPackage();
  t.after(unpacked.remove);

  const pages = {};
  const site = await serveSite({ mounts: { '/holdfast-sse/': unpacked.folder }, pages });
  t.after(() => site.close());
  const options = {
    args: ['--data-dir', data],
    env: { SSE_PUBLISH_TOKEN: PUBLISH_TOKEN, SSE_RETRY_TIMEOUT: '50', SSE_CORS_ORIGINS: site.address },
  };
  let server = await startServer(options);
  t.after(() => server.kill());
  const { address, port } = server;
  pages['/'] = page(`${address}/stream/survival?from=start`);

  const browser = await launchChromium();
  t.after(() => browser.close());
  const tab = await browser.newPage();
  const pageErrors = [];
  tab.on('pageerror', (error) => pageErrors.push(String(error)));
  await tab.goto(site.address);

  // Troubles come while publishing goes on, one after another.
  let troubled = Promise.resolve();
  const done = { kill: 0, reload: 0 };
  const make = async ({ kind, delayMs }) => {
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    if (kind === 'reload') {
      await tab.reload();
    } else {
      await server.kill();
      server = await startServer({ ...options, port });
    }
    done[kind] += 1;
  };
  for (let n = 1; n <= EVENTS; n += 1) {
    await publish(address, n);
    while (troubles[0]?.after === n) {
      const trouble = troubles.shift();
      troubled = troubled.then(() => make(trouble));
    }
  }
  await troubled;
  assert.deepEqual(done, { kill: KILLS, reload: RELOADS });

  const read = (key) => tab.evaluate((name) => localStorage.getItem(name) ?? '', key);
  await tab
    .waitForFunction((last) => localStorage.getItem('ledger')?.endsWith(`,${last},`), EVENTS, { timeout: 30_000 })
    .catch(() => {}); // The ledger itself tells what is missing.
  const ledger = (await read('ledger')).split(',').filter(Boolean).map(Number);
  const expected = Array.from({ length: EVENTS }, (_, index) => index + 1);
  const first = ledger.findIndex((n, index) => n !== expected[index]);
  const around = first < 0 ? '' : `at ${first}: ${ledger.slice(Math.max(0, first - 3), first + 4)}`;
  assert.deepEqual({ length: ledger.length, around }, { length: EVENTS, around: '' });
  assert.equal(await read('problems'), '');
  assert.deepEqual(pageErrors, []);
  const [opens, loads] = [(await read('opens')).length, (await read('loads')).length];
  assert.equal(loads, RELOADS + 1);
  // Had the kills not reached the stream, this would have proved nothing.
  assert.ok(opens > loads, `${opens} connections in ${loads} loads`);
  console.log(`${EVENTS} events, ${opens} connections, ${loads} page loads`);
});

/** Publishes until it is acknowledged; the key makes a repeat after a lost answer the same event. */
async function publish(address, n) {
  for (let attempt = 0; attempt < 2_000; attempt += 1) {
    try {
      const response = await fetch(`${address}/publish/survival`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          authorization: `Bearer ${PUBLISH_TOKEN}`,
          'idempotency-key': `event-${n}`,
        },
        body: JSON.stringify({ type: 'domain.counted', payload: { n } }),
      });
      const answer = await response.text();
      if (response.ok) return;
      assert.ok(response.status >= 500, `publishing ${n} answered ${response.status}: ${answer}`);
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
    }
    // The server is down or starting; it is asked again soon, not at once.
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`event ${n} could not be published`);
}
