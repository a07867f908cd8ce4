// A real stream for the apps of these tests: ticks from the first on, each of which an app must see once and in order.

import assert from 'node:assert/strict';
import { startServer } from '../support/server.mjs';

const WANTED = 10;

/** A server whose ticks pages of any origin may read. Answers `{ url, kill() }`. */
export async function serveTicks() {
  const server = await startServer({ args: ['--memory', '--cors-origins', '*'], env: { SSE_TICK_INTERVAL: '20' } });
  return { url: `${server.address}/stream?from=start`, kill: server.kill };
}

/** The code of an app that writes the ids of the first ticks into the page's title, or what went wrong. */
export const collecting = (imported) => `
  ${imported}
  const ids = [];
  connectSSE(new URLSearchParams(location.search).get('stream'), {
    onEvent({ id }) {
      ids.push(id);
      if (ids.length === ${WANTED}) document.title = ids.join();
    },
    onError: ({ message }) => { document.title = message; },
  });
`;

export const html = (script) => `<!doctype html><title>waiting</title><script type="module" src="${script}"></script>`;

/** Opens such an app; the page must not complain. */
export async function checkPage(browser, address, url) {
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  await page.goto(`${address}?stream=${encodeURIComponent(url)}`);
  await page.waitForFunction(() => document.title !== 'waiting', undefined, { timeout: 30_000 });
  assertTicks((await page.title()).split(','));
  // Browsers ask for an icon that the app does not have.
  assert.deepEqual(complaints.filter((text) => !text.includes('404')), []);
  await page.close();
}

/** Holds when these are the ids of the first ticks. */
export function assertTicks(ids) {
  const found = ids.map((id) => /^\S+-(\d+)$/.exec(id)?.[1] ?? id);
  assert.ok(found.length >= WANTED, found.join());
  assert.deepEqual(found, found.map((_, index) => String(index + 1)));
}
