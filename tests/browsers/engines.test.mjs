// What may differ from engine to engine, in Firefox and WebKit: loading and its refusal, the ways to consume, the stores, workers.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { unpackPackage } from '../support/package.mjs';
import { startServer } from '../support/server.mjs';
import { serveSite } from '../support/site.mjs';
import { launch } from '../support/webdriver.mjs';

/** The first ticks of a stream, by each way to get them: a function of the page that answers their numbers. */
const html = `<!doctype html><title>engines</title><script type="module">
  import { connectSSE, IndexedDBStorage } from '/holdfast-sse/index.js';
  import { EventSource } from '/holdfast-sse/eventsource.js';
  import * as slim from '/holdfast-sse/slim.js';
  const numberOf = (id) => Number(id.split('-').pop());
  const collect = (connect, url, options, wanted = 10) => new Promise((resolve, reject) => {
    const numbers = [];
    const stream = connect(url, {
      ...options,
      onEvent: ({ id }) => {
        numbers.push(numberOf(id));
        if (numbers.length === wanted) { resolve(numbers); stream.stop(); }
      },
      onError: reject,
    });
  });
  window.ways = {
    callback: (url) => collect(connectSSE, url),
    eventsource: (url) => collect(connectSSE, url, { transport: 'eventsource', eventTypes: ['domain.tick'] }),
    async slim(url) {
      await slim.initialize(new URL('/holdfast-sse/core.wasm', location));
      return collect(slim.connectSSE, url);
    },
    async loop(url) {
      const numbers = [];
      for await (const { id } of connectSSE(url)) if (numbers.push(numberOf(id)) === 10) break;
      return numbers;
    },
    class: (url) => new Promise((resolve, reject) => {
      const numbers = [];
      const source = new EventSource(url);
      source.addEventListener('domain.tick', ({ lastEventId }) => {
        if (numbers.push(numberOf(lastEventId)) === 10) { source.close(); resolve(numbers); }
      });
      source.onerror = ({ error }) => reject(error);
    }),
    async stored(url) {
      const eventIdStorage = new IndexedDBStorage('engines');
      const options = { eventIdStorage };
      const first = await collect(connectSSE, url, options, 5);
      // A store of a database's is written a little later.
      while (!(await eventIdStorage.get())?.includes('-5"')) await new Promise((resolve) => { setTimeout(resolve, 10); });
      return [...first, ...await collect(connectSSE, url, options, 5)];
    },
    worker: (url) => new Promise((resolve, reject) => {
      const worker = new Worker('/worker.mjs', { type: 'module' });
      worker.onmessage = ({ data }) => { worker.terminate(); resolve(data); };
      worker.onerror = ({ message }) => reject(new Error(message));
      worker.postMessage(url);
    }),
    refused: (url) => new Promise((resolve) => {
      const stream = connectSSE(url, { onError: ({ code, message }) => resolve([code, message, stream.state]) });
    }),
  };
</script>`;

const worker = `
  import { connectSSE } from '/holdfast-sse/index.js';
  onmessage = async ({ data }) => {
    const numbers = [];
    for await (const { id } of connectSSE(data)) if (numbers.push(Number(id.split('-').pop())) === 10) break;
    postMessage(numbers);
  };
`;

let unpacked;
let server;
let site;
let strict;
before(async () => {
  unpacked = unpackPackage();
  server = await startServer({ args: ['--memory', '--cors-origins', '*'], env: { SSE_TICK_INTERVAL: '20' } });
  const mounts = { '/holdfast-sse/': unpacked.folder };
  const script = (_, response) => response.writeHead(200, { 'content-type': 'text/javascript' }).end(worker);
  site = await serveSite({ mounts, pages: { '/': html, '/worker.mjs': script } });
  strict = await serveSite({ mounts, pages: { '/': html }, headers: { 'content-security-policy': "script-src 'self' 'unsafe-inline'" } });
});
after(async () => {
  await site?.close();
  await strict?.close();
  await server?.kill();
  unpacked?.remove();
});

for (const name of ['firefox', 'webkit']) {
  test(name, { timeout: 120_000 }, async (t) => {
    const tab = await launch(name);
    t.after(tab.close);
    const run = (way) => tab.evaluate(async (which, url) => ways[which](url), way, `${server.address}/stream?from=start`);
    for (const way of ['callback', 'eventsource', 'slim', 'loop', 'class', 'stored', 'worker']) {
      await t.test(way, async () => {
        // A page of its own for each: the module is loaded once a page.
        await tab.goto(site.address);
        await tab.until(() => window.ways);
        assert.deepEqual(await run(way), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
      });
    }
    await t.test('a policy that forbids WebAssembly is named', async () => {
      await tab.goto(strict.address);
      await tab.until(() => window.ways);
      const [code, message, state] = await run('refused');
      assert.deepEqual([code, state], ['wasm_blocked', 'closed']);
      assert.match(message, /'wasm-unsafe-eval'/);
    });
  });
}
