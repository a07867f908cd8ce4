// The promise, end to end: a real browser, the packed package, a real server on a durable log. Thousands of events
// are published while the server is killed and the page is reloaded; the app's ledger shows each one once, in order.
//
// HOLDFAST_SURVIVAL_SEED=N replays the moments of a run.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unpackPackage } from './package.mjs';
import { randomFrom, seedFrom } from './random.mjs';
import { startServer } from './server.mjs';
import { serveSite } from './site.mjs';

const PUBLISH_TOKEN = 'survival';

/** The app: a synchronous handler that appends to a ledger of its own. */
const page = (stream) => `<!doctype html><title>survival</title><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  const append = (key, text) => localStorage.setItem(key, (localStorage.getItem(key) ?? '') + text);
  const problem = (text) => append('problems', text + ' ');
  addEventListener('error', ({ message }) => problem(message));
  addEventListener('unhandledrejection', ({ reason }) => problem(reason));
  append('loads', '|');
  window.connector = connectSSE('${stream}', {
    persistLastEventId: true,
    retryPolicy: { baseDelayMs: 50, maxDelayMs: 500 },
    onEvent: (event) => append('ledger', event.payload.n + ','),
    onOpen: () => append('opens', '|'),
    onCannotResume: (info) => problem(JSON.stringify(info)),
    onGap: (info) => problem(JSON.stringify(info)),
    onError: (error) => { if (!error.willRetry) problem(error.code + ' ' + error.message); },
  });
</script>`;

/**
 * Publishes `events` while the server is killed and the page reloaded so many times. `tab` is the browser's: `goto(url)`, `reload()`,
 * `evaluate(fn, argument)` and `until(fn, argument)`, which resolves once that is truthy.
 */
export async function survive(t, tab, { events, kills, reloads }) {
  const seed = seedFrom('HOLDFAST_SURVIVAL_SEED');
  console.log(`survival seed: ${seed}`);
  const random = randomFrom(seed);
  const moments = (count) => Array.from({ length: count }, () => 1 + Math.floor(random() * (events - 1)));
  const troubles = [
    ...moments(kills).map((after) => ({ kind: 'kill', after, delayMs: random() * 20 })),
    ...moments(reloads).map((after) => ({ kind: 'reload', after, delayMs: random() * 20 })),
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
  for (let n = 1; n <= events; n += 1) {
    await publish(address, n);
    while (troubles[0]?.after === n) {
      const trouble = troubles.shift();
      troubled = troubled.then(() => make(trouble));
    }
  }
  await troubled;
  assert.deepEqual(done, { kill: kills, reload: reloads });

  const read = (key) => tab.evaluate((name) => localStorage.getItem(name) ?? '', key);
  const arrived = tab.until((last) => localStorage.getItem('ledger')?.endsWith(`,${last},`), events);
  await arrived.catch(() => {}); // The ledger itself tells what is missing.
  const ledger = (await read('ledger')).split(',').filter(Boolean).map(Number);
  const expected = Array.from({ length: events }, (_, index) => index + 1);
  const first = ledger.findIndex((n, index) => n !== expected[index]);
  const around = first < 0 ? '' : `at ${first}: ${ledger.slice(Math.max(0, first - 3), first + 4)}`;
  assert.deepEqual({ length: ledger.length, around }, { length: events, around: '' });
  assert.equal(await read('problems'), '');
  const [opens, loads] = [(await read('opens')).length, (await read('loads')).length];
  assert.equal(loads, reloads + 1);
  // Had the kills not reached the stream, this would have proved nothing.
  assert.ok(opens > loads, `${opens} connections in ${loads} loads`);
  console.log(`${events} events, ${opens} connections, ${loads} page loads`);
}

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
