// A million events, and a thousand connects and stops in each way to use a stream, in one page: neither the memory of the
// core nor the heap grows.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { unpackPackage } from '../support/package.mjs';
import { startServer } from '../support/server.mjs';
import { serveSite } from '../support/site.mjs';

const MB = 1 << 20;
/** WebAssembly memory grows by pages of 64 KiB. A thousand cores that stayed would take 36 of them. */
const PAGE = 64 << 10;

/** Notes the memory of every WebAssembly instance of the page; the package gives none out. */
const html = `<!doctype html><title>leak</title><script>
  window.memories = [];
  const { instantiate } = WebAssembly;
  WebAssembly.instantiate = async (...given) => {
    const made = await instantiate(...given);
    memories.push((made.instance ?? made).exports.memory);
    return made;
  };
</script><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  import { EventSource } from '/holdfast-sse/eventsource.js';
  const encoder = new TextEncoder();
  // Streams from within the page: what is measured is the package, not the network.
  const answer = (body) => async () => new Response(body, { headers: { 'content-type': 'text/event-stream' } });

  /** So many events, each with an id of its own and 100 bytes of data, in chunks of 64 KiB. */
  window.events = (count) => new Promise((resolve) => {
    let made = 0;
    let got = 0;
    const body = new ReadableStream({
      pull(controller) {
        let text = '';
        while (made < count && text.length < 65_536) {
          made += 1;
          text += 'id: ' + made + '\\ndata: ' + String(made).padEnd(100, '.') + '\\n\\n';
        }
        if (text === '') controller.close();
        else controller.enqueue(encoder.encode(text));
      },
    });
    connectSSE('/events', {
      autoReconnect: false,
      fetch: answer(body),
      onEvent: () => { got += 1; },
      onClose: () => resolve(got),
    });
  });

  /** So many connectors, one after the other; each gets an event and is stopped. */
  window.connects = async (count) => {
    for (let n = 0; n < count; n += 1) {
      await new Promise((resolve) => {
        const body = new ReadableStream({
          start(controller) { controller.enqueue(encoder.encode('id: 1\\nevent: e' + n + '\\ndata: x\\n\\n')); },
        });
        const connector = connectSSE(() => '/connects', {
          fetch: answer(body),
          headers: () => ({ 'x-state': connector.state }),
          onEvent: () => connector.stop(),
          onClose: resolve,
        });
      });
    }
  };
  /** So many streams of the real server, one after the other; each gets an event in its own way and is ended. */
  window.streams = async (count, kind, url) => {
    for (let n = 0; n < count; n += 1) await ways[kind](url);
  };
  const ended = (connector) => new Promise((resolve) => { connector.on.closed = resolve; connector.stop(); });
  const begin = (url, options) => {
    const on = {};
    const connector = connectSSE(url, { ...options, onClose: () => on.closed?.() });
    return Object.assign(connector, { on });
  };
  const ways = {
    async loop(url) {
      const connector = begin(url);
      for await (const event of connector.events()) if (event.id) break;
      if (connector.state !== 'closed') await ended(connector);
    },
    async listener(url) {
      const connector = begin(url);
      await new Promise((resolve) => { connector.addEventListener('domain.tick', resolve); });
      await ended(connector);
    },
    async promise(url) {
      let connector;
      await new Promise((resolve) => {
        connector = begin(url, { onEvent: async () => { await null; resolve(); } });
      });
      await ended(connector);
    },
    async manual(url) {
      let connector;
      await new Promise((resolve) => {
        connector = begin(url, { ack: 'manual', onEvent: (event) => { event.ack(); resolve(); } });
      });
      await ended(connector);
    },
    async persistence(url) {
      let connector;
      await new Promise((resolve) => {
        connector = begin(url, { persistLastEventId: true, whenHidden: 'close', onEvent: resolve });
      });
      connector.stop();
      connector.clearCursor();
      await null;
    },
    async eventsource(url) {
      let connector;
      await new Promise((resolve) => {
        connector = begin(url, { transport: 'eventsource', eventTypes: ['domain.tick'], onEvent: resolve });
      });
      await ended(connector);
    },
    async class(url) {
      await new Promise((resolve) => {
        const source = new EventSource(url);
        source.addEventListener('domain.tick', () => { source.close(); resolve(); });
      });
    },
  };
  window.ready = true;
</script>`;

let unpacked;
let browser;
let site;
let server;
before(async () => {
  unpacked = unpackPackage();
  browser = await launchChromium();
  site = await serveSite({ mounts: { '/holdfast-sse/': unpacked.folder }, pages: { '/': html } });
  server = await startServer({ args: ['--memory', '--cors-origins', '*'], env: { SSE_TICK_INTERVAL: '10' } });
});
after(async () => {
  await browser?.close();
  await site?.close();
  await server?.kill();
  unpacked?.remove();
});

/**
 * Runs `work` in a page to warm it up, then with all of its size, `step` at once; answers by how much memory grew in that.
 * What waits for the collector takes memory, too: it runs after each step.
 */
async function measure(t, [work, ...args], warm, rounds, whole, step = whole) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(site.address);
  await page.waitForFunction(() => window.ready);
  const cdp = await context.newCDPSession(page);
  const take = async () => {
    // Objects of the core are freed by finalizers, which run in tasks of their own.
    for (let turn = 0; turn < 5; turn += 1) {
      await cdp.send('HeapProfiler.collectGarbage');
      await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 0)));
    }
    const { usedSize } = await cdp.send('Runtime.getHeapUsage');
    const [wasm, ...others] = await page.evaluate(() => memories.map((memory) => memory.buffer.byteLength));
    assert.deepEqual(others, [], 'one instance serves the page');
    return { heap: usedSize, wasm };
  };
  const run = (count) => page.evaluate(([name, ...given]) => window[name](...given), [work, count, ...args]);
  let before;
  for (let round = 0; round < rounds; round += 1) {
    await run(warm);
    before = await take();
  }
  let answer;
  let after;
  for (let done = 0; done < whole; done += step) {
    answer = await run(step);
    after = await take();
  }
  const grown = { heap: after.heap - before.heap, wasm: after.wasm - before.wasm };
  console.log(`${[work, args[0]].join(' ')} ${whole}: heap ${before.heap} + ${grown.heap}, wasm ${before.wasm} + ${grown.wasm} bytes`);
  return { answer, grown };
}

test('a million events', { timeout: 60_000 }, async (t) => {
  const { answer, grown } = await measure(t, ['events'], 20_000, 1, 1_000_000);
  assert.equal(answer, 1_000_000);
  assert.equal(grown.wasm, 0);
  assert.ok(grown.heap < MB, `${grown.heap} bytes`);
});

test('a thousand connects and stops', { timeout: 60_000 }, async (t) => {
  // Stopped cores wait for the collector, so that the memory first grows to what a thousand need at once.
  const { grown } = await measure(t, ['connects'], 1_000, 3, 1_000);
  assert.ok(grown.wasm <= PAGE, `${grown.wasm} bytes`);
  assert.ok(grown.heap < MB, `${grown.heap} bytes`);
});

for (const kind of ['loop', 'listener', 'promise', 'manual', 'persistence', 'eventsource', 'class']) {
  test(`a thousand streams of the real server, each ended: ${kind}`, { timeout: 60_000 }, async (t) => {
    const { grown } = await measure(t, ['streams', kind, `${server.address}/stream?last=1`], 100, 3, 1_000, 100);
    assert.ok(grown.wasm <= PAGE, `${grown.wasm} bytes`);
    assert.ok(grown.heap < MB / 2, `${grown.heap} bytes`);
  });
}
