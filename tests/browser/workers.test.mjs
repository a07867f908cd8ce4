// The packed package in workers, which have no window and no localStorage: the stream comes, and goes on from its stored
// cursor when the worker was ended and made anew.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { unpackPackage } from '../support/package.mjs';
import { serveSite } from '../support/site.mjs';
import { events, headers } from '../support/stream.mjs';

/** Follows the stream until an event's id is stored, and answers with what it got. */
const script = `
  import { connectSSE, IndexedDBStorage } from '/holdfast-sse/index.js';

  const follow = ({ until, options }) => new Promise((resolve) => {
    const told = { got: [], errors: [], place: self.constructor.name, missing: [typeof window, typeof localStorage] };
    const database = new IndexedDBStorage('worker');
    const end = () => { connector.dispose(); resolve(told); };
    const eventIdStorage = {
      get: () => database.get(),
      clear: () => database.clear(),
      set: async (text) => {
        await database.set(text);
        if (JSON.parse(text).cursor === until) end();
      },
    };
    const connector = connectSSE('/stream', {
      ...(options.persistLastEventId ? {} : { eventIdStorage }),
      ...options,
      onError: ({ code }) => told.errors.push(code),
      onEvent: ({ id }) => {
        told.got.push(id);
        if (options.persistLastEventId && id === until) setTimeout(end, 0);
      },
    });
  });
  self.addEventListener('message', (message) => {
    const answered = follow(message.data).then((told) => (message.source ?? self).postMessage(told));
    message.waitUntil?.(answered);
  });
`;

let unpacked;
let browser;
let site;
let last;

before(async () => {
  unpacked = unpackPackage();
  browser = await launchChromium();
  site = await serveSite({
    mounts: { '/holdfast-sse/': unpacked.folder },
    pages: {
      '/': '<!doctype html><title>workers</title>',
      '/worker.js': (_, response) => response.writeHead(200, { 'content-type': 'text/javascript' }).end(script),
      '/stream': (request, response) => {
        const query = new URL(request.url, site.address).searchParams;
        const from = Number(request.headers['last-event-id'] ?? query.get('lastEventId') ?? 0) + 1;
        response.writeHead(200, headers).write(from <= last ? events(from, last) : ': nothing\n\n');
      },
    },
  });
});
after(async () => {
  await browser?.close();
  await site?.close();
  unpacked?.remove();
});

async function open(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(site.address);
  return { context, page };
}

/** Runs a dedicated worker until it has stored `until`; it ends then. */
const inWorker = (page, until, options = {}) => page.evaluate((order) => new Promise((resolve, reject) => {
  const worker = new Worker('/worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => { worker.terminate(); resolve(data); };
  worker.onerror = (error) => reject(new Error(error.message));
  worker.postMessage(order);
}), { until: String(until), options });

for (const options of [{}, { transport: 'eventsource' }]) {
  test(`a dedicated worker, ${options.transport ?? 'fetch'}`, { timeout: 20_000 }, async (t) => {
    const { page } = await open(t);
    last = 2;
    assert.deepEqual(await inWorker(page, 2, options), {
      got: ['1', '2'], errors: [], place: 'DedicatedWorkerGlobalScope', missing: ['undefined', 'undefined'],
    });
    last = 4;
    assert.deepEqual((await inWorker(page, 4, options)).got, ['3', '4']);
  });
}

test('where there is no page the cursor is kept in memory, which is no error', { timeout: 20_000 }, async (t) => {
  const { page } = await open(t);
  last = 2;
  const { got, errors } = await inWorker(page, 2, { persistLastEventId: true });
  assert.deepEqual([got, errors], [['1', '2'], []]);
});

test('a service worker', { timeout: 30_000 }, async (t) => {
  const { context, page } = await open(t);
  await page.evaluate(async () => {
    await navigator.serviceWorker.register('/worker.js', { type: 'module' });
    await navigator.serviceWorker.ready;
  });
  const follow = (until) => page.evaluate(async (order) => {
    const { active } = await navigator.serviceWorker.ready;
    return new Promise((resolve) => {
      navigator.serviceWorker.addEventListener('message', ({ data }) => resolve(data), { once: true });
      active.postMessage(order);
    });
  }, { until: String(until), options: {} });
  last = 2;
  assert.deepEqual(await follow(2), {
    got: ['1', '2'], errors: [], place: 'ServiceWorkerGlobalScope', missing: ['undefined', 'undefined'],
  });

  const cdp = await context.newCDPSession(page);
  const stopped = new Promise((resolve) => {
    cdp.on('ServiceWorker.workerVersionUpdated', ({ versions }) => {
      if (versions.some(({ runningStatus }) => runningStatus === 'stopped')) resolve();
    });
  });
  await cdp.send('ServiceWorker.enable');
  await cdp.send('ServiceWorker.stopAllWorkers');
  await stopped;
  last = 4;
  assert.deepEqual((await follow(4)).got, ['3', '4']);
});
