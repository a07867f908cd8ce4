// The promise, in Chromium; in other browsers: tests/browsers.

import { test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { survive } from '../support/survival.mjs';

test('5,000 events survive 20 kills of the server and 10 reloads of the page', async (t) => {
  const browser = await launchChromium();
  t.after(() => browser.close());
  const page = await browser.newPage();
  await survive(t, {
    goto: (url) => page.goto(url),
    reload: () => page.reload(),
    evaluate: (fn, argument) => page.evaluate(fn, argument),
    until: (fn, argument) => page.waitForFunction(fn, argument, { timeout: 30_000 }),
  }, { events: 5_000, kills: 20, reloads: 10 });
});
