// The packed package in a fresh Vite app: what a user's browser gets, in dev and in a production build.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { build, createServer, preview } from 'vite';
import { launchChromium } from '../support/chromium.mjs';
import { makeApp } from './app.mjs';
import { checkPage, collecting, html, serveTicks } from './ticks.mjs';

const files = {
  'index.html': html('/main.js'),
  'main.js': collecting("import { connectSSE } from 'holdfast-sse';"),
  'slim.html': html('/slim.js'),
  'slim.js': collecting(`
    import { initialize, connectSSE } from 'holdfast-sse/slim';
    import url from 'holdfast-sse/core.wasm?url';
    initialize(url).catch((error) => { document.title = error.message; });
  `),
  // As the README has it.
  'url.html': html('/url.js'),
  'url.js': collecting(`
    import { initialize, connectSSE } from 'holdfast-sse/slim';
    initialize(new URL('holdfast-sse/core.wasm', import.meta.url)).catch((error) => { document.title = error.message; });
  `),
  // Two entry points in one app: slim loads, the other finds the core there.
  'both.html': html('/both.js'),
  'both.js': `
    import { version } from 'holdfast-sse';
    import { initialize } from 'holdfast-sse/slim';
    import url from 'holdfast-sse/core.wasm?url';
    const instantiated = [];
    const { instantiate } = WebAssembly;
    WebAssembly.instantiate = (...args) => (instantiated.push(args), instantiate(...args));
    initialize(url).then(version).then((found) => (document.title = found + ' ' + instantiated.length));
  `,
};

let app;
let browser;
let ticks;
let config;
before(async () => {
  app = makeApp(files);
  browser = await launchChromium();
  ticks = await serveTicks();
  config = {
    root: app.folder,
    configFile: false,
    logLevel: 'error',
    server: { host: '127.0.0.1', port: 0 },
    preview: { host: '127.0.0.1', port: 0 },
    build: { rollupOptions: { input: ['index', 'slim', 'url', 'both'].map((name) => `${app.folder}/${name}.html`) } },
  };
});
after(async () => {
  await browser?.close();
  await ticks?.kill();
  app?.remove();
});

async function check(address) {
  for (const path of ['', 'slim.html', 'url.html']) await checkPage(browser, address + path, ticks.url);
  const page = await browser.newPage();
  await page.goto(`${address}both.html`);
  await page.waitForFunction(() => document.title !== 'waiting', undefined, { timeout: 30_000 });
  assert.match(await page.title(), / 1$/);
  await page.close();
}

test('vite dev', async () => {
  const server = await createServer(config);
  await server.listen();
  try {
    await check(server.resolvedUrls.local[0]);
  } finally {
    await server.close();
  }
});

test('vite build', async () => {
  await build(config);
  const server = await preview(config);
  try {
    await check(server.resolvedUrls.local[0]);
  } finally {
    await server.close();
  }
});
