// The packed package in a fresh Vite app: what a user's browser gets, in dev and in a production build.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { build, createServer, preview } from 'vite';
import { launchChromium } from '../support/chromium.mjs';
import { makeApp } from './app.mjs';

const html = (script) => `<!doctype html><title>waiting</title><script type="module" src="/${script}"></script>`;

const files = {
  'index.html': html('main.js'),
  'main.js': `
    import { version } from 'holdfast-sse';
    version().then((found) => (document.title = found), (error) => (document.title = error.message));
  `,
  'slim.html': html('slim.js'),
  'slim.js': `
    import { initialize, version } from 'holdfast-sse/slim';
    import url from 'holdfast-sse/core.wasm?url';
    initialize(url).then(version)
      .then((found) => (document.title = found), (error) => (document.title = error.message));
  `,
  // Two entry points in one app: slim loads, the other finds the core there.
  'both.html': html('both.js'),
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
let config;
before(async () => {
  app = makeApp(files);
  browser = await launchChromium();
  config = {
    root: app.folder,
    configFile: false,
    logLevel: 'error',
    server: { host: '127.0.0.1', port: 0 },
    preview: { host: '127.0.0.1', port: 0 },
    build: { rollupOptions: { input: ['index', 'slim', 'both'].map((name) => `${app.folder}/${name}.html`) } },
  };
});
after(async () => {
  await browser?.close();
  app?.remove();
});

async function check(address) {
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  for (const [path, expected] of [['', /^\d+\.\d+\.\d+$/], ['slim.html', /^\d+\.\d+\.\d+$/], ['both.html', / 1$/]]) {
    await page.goto(address + path);
    await page.waitForFunction(() => document.title !== 'waiting', undefined, { timeout: 30_000 });
    assert.match(await page.title(), expected, path);
  }
  // Browsers ask for an icon that the app does not have.
  assert.deepEqual(complaints.filter((text) => !text.includes('404')), []);
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
