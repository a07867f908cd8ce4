// A trap of the core in a page, with the packed package and a real server: all streams go on from their cursors, and storing goes on,
// so that a reload and a new tab begin where this one was.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { unpackPackage } from '../support/package.mjs';
import { startServer } from '../support/server.mjs';
import { serveSite } from '../support/site.mjs';

/** Notes the memory of every instance of the core, so that a test can fill it with rubbish. */
const page = (stream) => `<!doctype html><title>trap</title><script>
  window.memories = [];
  const { instantiate, Instance } = WebAssembly;
  WebAssembly.instantiate = async (...given) => {
    const made = await instantiate(...given);
    memories.push((made.instance ?? made).exports.memory);
    return made;
  };
  WebAssembly.Instance = function (...given) {
    const made = new Instance(...given);
    memories.push(made.exports.memory);
    return made;
  };
  WebAssembly.Instance.prototype = Instance.prototype;
</script><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  window.streams = ['a', 'b'].map((name) => {
    const stream = { ledger: [], errors: [], name };
    stream.connector = connectSSE('${stream}', {
      ...(location.hash === '#eventsource' ? { transport: 'eventsource', eventTypes: ['domain.tick'] } : {}),
      persistLastEventId: true,
      persistKey: name,
      retryPolicy: { baseDelayMs: 20 },
      onEvent: ({ id }) => { stream.ledger.push(Number(id.split('-').pop())); },
      onError: ({ code }) => { stream.errors.push(code); },
    });
    return stream;
  });
  window.cursor = (storage, name) => Number(JSON.parse(storage.getItem('holdfast:1:' + name))?.cursor.split('-').pop());
</script>`;

let unpacked;
let browser;
let server;
let site;
before(async () => {
  unpacked = unpackPackage();
  browser = await launchChromium();
  server = await startServer({ args: ['--memory', '--cors-origins', '*'], env: { SSE_TICK_INTERVAL: '30' } });
  site = await serveSite({ mounts: { '/holdfast-sse/': unpacked.folder }, pages: { '/': page(`${server.address}/stream?from=start`) } });
});
after(async () => {
  await browser?.close();
  await server?.kill();
  await site?.close();
  unpacked?.remove();
});

for (const transport of ['fetch', 'eventsource']) test(`${transport}: a trap costs no event, and the cursor is stored on`, { timeout: 60_000 }, async (t) => {
  const context = await browser.newContext();
  t.after(() => context.close());
  const tab = await context.newPage();
  await tab.goto(`${site.address}/#${transport}`);
  const further = (count, of = tab) => of.evaluate(async (wanted) => {
    const lengths = streams.map(({ ledger }) => ledger.length + wanted);
    while (streams.some(({ ledger }, index) => ledger.length < lengths[index])) await new Promise((resolve) => { setTimeout(resolve, 10); });
  }, count);
  await further(5);
  for (let round = 1; round <= 2; round += 1) {
    await tab.evaluate(() => {
      new Uint8Array(memories.at(-1).buffer).fill(0xff);
      streams[0].connector.reconnect();
    });
    await tab.waitForFunction((wanted) => memories.length === wanted, round + 1);
    await further(5);
  }
  const told = await tab.evaluate(() => streams.map(({ ledger, errors, connector }) => ({ ledger, errors, state: connector.state })));
  for (const { ledger, errors, state } of told) {
    assert.deepEqual(ledger, ledger.map((_, index) => index + 1));
    assert.deepEqual([errors, state], [['wasm_trap', 'wasm_trap'], 'open']);
  }
  const stored = await tab.evaluate(() => streams.map(({ ledger, name }) => [ledger.at(-1), cursor(sessionStorage, name)]));
  for (const [last, own] of stored) assert.equal(own, last);
  // Nor is any connection of the lost instances left open, of which a browser has six for a host.
  for (;;) {
    const metrics = await (await fetch(`${server.address}/metrics`)).text();
    if (metrics.includes('\nsse_server_active_streams 2\n')) break;
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }

  await tab.evaluate(() => addEventListener('pagehide', () => { sessionStorage.last = JSON.stringify(streams.map(({ ledger }) => ledger.at(-1))); }));
  await tab.reload();
  await further(3);
  const [lasts, firsts] = await tab.evaluate(() => [JSON.parse(sessionStorage.last), streams.map(({ ledger }) => ledger[0])]);
  assert.deepEqual(firsts, lasts.map((last) => last + 1));
});
