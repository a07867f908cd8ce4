// The whole client pipeline against eventsource-parser, in one Chromium, in one run, in turns.
//
// Both sides read the same Response body (64 KiB chunks from memory) and hand each event to a handler that looks at
// its data and id. eventsource-parser only parses. Ours also drops repeats, keeps the order, moves the cursor and
// stores it. What is printed is the ratio of medians; the absolute figures are this machine's and nobody else's.

import { build } from 'esbuild';
import { launchChromium } from '../../tests/support/chromium.mjs';
import { inRepository } from '../../tests/support/paths.mjs';
import { serveSite } from '../../tests/support/site.mjs';

const ROUNDS = Number(process.env.HOLDFAST_BENCH_ROUNDS ?? 15);

const bundle = await build({
  entryPoints: [inRepository('benches/browser/page.mjs')],
  alias: { 'holdfast-sse': inRepository('pkg/index.js') },
  bundle: true,
  format: 'esm',
  write: false,
});
const script = bundle.outputFiles[0].text;
const site = await serveSite({
  // Only an isolated page may ask what memory it takes.
  headers: { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' },
  pages: {
    '/': '<!doctype html><title>bench</title><script type="module" src="/page.js"></script>',
    '/page.js': (_, response) => response.writeHead(200, { 'content-type': 'text/javascript' }).end(script),
  },
});
const browser = await launchChromium({ args: ['--js-flags=--expose-gc', '--enable-precise-memory-info'] });
try {
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(String(error)));
  await page.goto(site.address);
  await page.waitForFunction(() => 'bench' in globalThis);
  console.log(`Chromium ${browser.version()}, ${ROUNDS} rounds in turns, medians, million events a second\n`);
  console.log('| stream | eventsource-parser | holdfast-sse | ratio |');
  console.log('|---|---|---|---|');
  for (const name of await page.evaluate(() => bench.streams())) {
    const { theirs, ours } = await page.evaluate(([stream, rounds]) => bench.run(stream, rounds), [name, ROUNDS]);
    const rate = (median) => median.toFixed(2);
    console.log(`| ${name} | ${rate(theirs)} | ${rate(ours)} | ${(ours / theirs).toFixed(2)} |`);
  }
  const { kept, events, ownKilobytes, heldKilobytes } = await page.evaluate(() => bench.retained());
  console.log(`\n${kept} payloads of ${ownKilobytes} KiB kept, one in ${events / kept} events, hold ${heldKilobytes} KiB`);
} finally {
  await browser.close();
  await site.close();
}
