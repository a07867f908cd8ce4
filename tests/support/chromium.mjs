// Debian's Chromium, driven by playwright-core. Nothing here downloads a browser.

import { chromium } from 'playwright-core';

// As root there is no sandbox; the rest keeps Chromium from calling home. The same as in webdriver.json.
const args = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Starts a headless browser. `options` are playwright's launch options; their `args` are added to ours. */
export function launchChromium({ args: more = [], ...options } = {}) {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  return chromium.launch({ executablePath, args: [...args, ...more], ...options });
}
