// The promise in the other engines, by each one's own WebDriver.

import { test } from 'node:test';
import { survive } from '../support/survival.mjs';
import { launch } from '../support/webdriver.mjs';

for (const name of ['firefox', 'webkit']) {
  test(`${name}: 2,000 events survive 8 kills of the server and 5 reloads of the page`, { timeout: 120_000 }, async (t) => {
    const tab = await launch(name);
    t.after(tab.close);
    await survive(t, tab, { events: 2_000, kills: 8, reloads: 5 });
  });
}
