// How the package loads in a real browser: content security policies, streams of bytes, missing files.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { serveSite } from '../support/site.mjs';

let browser;
before(async () => (browser = await launchChromium()));
after(() => browser?.close());

/** Runs `inPage` in a page of its own, served with this policy; answers with its result. */
async function onPage(policy, inPage) {
  const headers = policy === undefined ? {} : { 'content-security-policy': policy };
  const site = await serveSite({ mounts: { '/pkg/': inRepository('pkg') }, pages: { '/': '' }, headers });
  const page = await browser.newPage();
  try {
    await page.goto(site.address);
    return await page.evaluate(inPage);
  } finally {
    await page.close();
    await site.close();
  }
}

async function inline() {
  const { version } = await import('/pkg/index.js');
  return version().catch((error) => [error.code, error.message]);
}

async function slim() {
  const { initialize, version } = await import('/pkg/slim.js');
  await initialize(new URL('/pkg/core.wasm', location.href));
  return version();
}

test('loads without a policy', async () => {
  assert.match(await onPage(undefined, inline), /^\d+\.\d+\.\d+/);
  assert.match(await onPage(undefined, slim), /^\d+\.\d+\.\d+/);
});

test("loads under a strict policy that has 'wasm-unsafe-eval'", async () => {
  const policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'";
  assert.match(await onPage(policy, inline), /^\d+\.\d+\.\d+/);
  assert.match(await onPage(`${policy}; connect-src 'self'`, slim), /^\d+\.\d+\.\d+/);
});

test('names the directive that is missing where the policy blocks WebAssembly', async () => {
  const [code, message] = await onPage("script-src 'self'", inline);
  assert.equal(code, 'wasm_blocked');
  assert.match(message, /'wasm-unsafe-eval'.*script-src/);
});

test('slim tells a missing file by its status, and loads when it is there', async () => {
  const told = await onPage(undefined, async () => {
    const { initialize, version } = await import('/pkg/slim.js');
    const refused = await initialize('/pkg/nowhere.wasm').catch((error) => error.code);
    await initialize('/pkg/core.wasm');
    return [refused, typeof (await version())];
  });
  assert.deepEqual(told, ['http_status', 'string']);
});
