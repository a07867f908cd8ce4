// The packed package in a webpack app, built for production and run in a browser.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { promisify } from 'node:util';
import webpack from 'webpack';
import { launchChromium } from '../support/chromium.mjs';
import { serveSite } from '../support/site.mjs';
import { makeApp } from './app.mjs';
import { checkPage, collecting, html, serveTicks } from './ticks.mjs';

const files = {
  'main.js': collecting("import { connectSSE } from 'holdfast-sse';"),
  'slim.js': collecting(`
    import { initialize, connectSSE } from 'holdfast-sse/slim';
    initialize(new URL('holdfast-sse/core.wasm', import.meta.url)).catch((error) => { document.title = error.message; });
  `),
};

test('webpack: with the module inside, and as a file of the build', async (t) => {
  const app = makeApp(files);
  t.after(app.remove);
  const compiler = webpack({
    mode: 'production',
    context: app.folder,
    entry: { main: './main.js', slim: './slim.js' },
    output: { path: `${app.folder}/dist` },
    performance: { hints: false },
  });
  const stats = await promisify(compiler.run.bind(compiler))();
  await promisify(compiler.close.bind(compiler))();
  const { errors, warnings, assets } = stats.toJson({ all: false, errors: true, warnings: true, assets: true });
  assert.deepEqual([errors, warnings].flat().map(({ message }) => message), []);
  const sizeOf = (name) => assets.find((asset) => asset.name === name).size;
  // slim does not bring the module along, nor does any bundle twice.
  assert.ok(sizeOf('slim.js') < 200_000 && sizeOf('main.js') < 600_000, `${sizeOf('slim.js')}, ${sizeOf('main.js')}`);

  const pages = { '/main.html': html('/main.js'), '/slim.html': html('/slim.js') };
  const site = await serveSite({ mounts: { '/': `${app.folder}/dist` }, pages });
  t.after(() => site.close());
  const browser = await launchChromium();
  t.after(() => browser.close());
  const ticks = await serveTicks();
  t.after(ticks.kill);
  for (const name of Object.keys(pages)) await checkPage(browser, site.address + name, ticks.url);
});
