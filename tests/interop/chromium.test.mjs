// The packed package in a page, against servers of others at another origin: compressed streams, preflights, a server
// that is killed in the middle of an event, and a reload.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { unpackPackage } from '../support/package.mjs';
import { serveSite } from '../support/site.mjs';
import { expected, foreign } from './foreign.mjs';

const html = `<!doctype html><title>interop</title><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  // Outlives a reload, as the cursor does.
  window.ledger = () => JSON.parse(sessionStorage.ledger ?? '[]');
  window.follow = (url, options) => {
    connectSSE(url, {
      persistLastEventId: true,
      retryPolicy: { baseDelayMs: 20, maxDelayMs: 200 },
      ...options,
      onEvent: ({ type, id, data }) => { sessionStorage.ledger = JSON.stringify([...ledger(), [type, id, data]]); },
    });
  };
</script>`;

let unpacked;
let site;
let browser;
before(async () => {
  unpacked = unpackPackage();
  browser = await launchChromium();
  site = await serveSite({ mounts: { '/holdfast-sse/': unpacked.folder }, pages: { '/': html } });
});
after(async () => {
  await browser?.close();
  await site?.close();
  unpacked?.remove();
});

for (const [name, query, options] of [
  ['express', 'coding=gzip&eol=CRLF', {}],
  ['express', 'coding=br&eol=CR', { lastEventIdParam: 'lastEventId' }],
  ['better-sse', 'coding=gzip', {}],
  ['better-sse', 'coding=br', { lastEventIdParam: 'lastEventId' }],
  ['hono', 'compress=1', {}],
  ['hono', 'compress=', { lastEventIdParam: 'lastEventId' }],
]) {
  test(`${name}, ${query}, the cursor in ${options.lastEventIdParam ? 'the query' : 'a header'}`, async (t) => {
    const server = await foreign(t, name, 6);
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    const begin = async () => {
      await page.goto(site.address);
      await page.evaluate(([url, more]) => follow(url, more), [`${server.address}/stream?ids=1&resume=1&torn=1&${query}`, options]);
    };
    const events = (count) => page.waitForFunction((wanted) => ledger().length >= wanted, count);

    await begin();
    await events(5);
    await server.restart(9);
    await events(8);
    await begin();
    await server.publish();
    await events(9);
    await server.restart(13);
    await events(12);
    assert.deepEqual(await page.evaluate(() => ledger()), expected(name, 1, 12));
  });
}
