// A driver that cannot run: the test that wants it fails, and leaves nothing behind that waits.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { launch } from '../support/webdriver.mjs';

test('a driver that ends at once is not waited for', async (t) => {
  const { CHROMEDRIVER } = process.env;
  t.after(() => {
    if (CHROMEDRIVER === undefined) delete process.env.CHROMEDRIVER;
    else process.env.CHROMEDRIVER = CHROMEDRIVER;
  });
  process.env.CHROMEDRIVER = 'false';
  await assert.rejects(launch('chromium'), /false ended at once/);
});
