// Over TLS a browser speaks HTTP/2 with the server, and so one page can have more than the six streams that it opens
// to a host over HTTP/1.1.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { startServer } from '../support/server.mjs';

const STREAMS = 12;

// Scripts of their own files: the site's policy allows no others.
const page = '<!doctype html><title>streams</title><script type="module" src="/page.js"></script>';
const script = `
  import { connectSSE } from '/pkg/index.js';
  window.got = {};
  window.open = 0;
  for (let n = 0; n < ${STREAMS}; n += 1) {
    connectSSE('/stream/c' + n + '?from=start', {
      onOpen: () => { window.open += 1; },
      onEvent: (event) => { window.got[n] = event.data; },
    });
  }`;

test(`${STREAMS} streams of one page are open at once over HTTP/2, compressed`, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-http2-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  execFileSync('openssl', [...made, '-subj', '/CN=localhost', '-keyout', key, '-out', cert], { stdio: 'ignore' });
  const site = join(folder, 'site');
  cpSync(inRepository('pkg'), join(site, 'pkg'), { recursive: true });
  writeFileSync(join(site, 'index.html'), page);
  writeFileSync(join(site, 'page.js'), script);

  const server = await startServer({
    args: ['--memory', '--compress', '--site', site, '--tls-cert', cert, '--tls-key', key],
    env: { SSE_PUBLISH_TOKEN: 'http2' },
  });
  t.after(() => server.kill());

  const browser = await launchChromium();
  t.after(() => browser.close());
  const tab = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
  await tab.goto(server.address);
  // All are open before the first event is published.
  await tab.waitForFunction((count) => window.open === count, STREAMS, { timeout: 30_000 });
  const active = await tab.evaluate(async () => (await (await fetch('/health')).json()).active_streams);
  assert.equal(active, STREAMS);
  for (let n = 0; n < STREAMS; n += 1) {
    const status = await tab.evaluate(async (channel) => {
      const headers = { authorization: 'Bearer http2', 'content-type': 'application/json' };
      const body = JSON.stringify({ data: channel });
      return (await fetch('/publish/' + channel, { method: 'POST', headers, body })).status;
    }, `c${n}`);
    assert.equal(status, 200);
  }
  await tab.waitForFunction((count) => Object.keys(window.got).length === count, STREAMS, { timeout: 30_000 });
  assert.deepEqual(await tab.evaluate(() => window.got),
    Object.fromEntries(Array.from({ length: STREAMS }, (_, n) => [n, `c${n}`])));
  const protocols = await tab.evaluate(() => performance.getEntriesByType('navigation').map((e) => e.nextHopProtocol));
  assert.deepEqual(protocols, ['h2']);
  const coding = await tab.evaluate(async () => {
    const stop = new AbortController();
    const { headers } = await fetch('/stream/c0', { signal: stop.signal });
    stop.abort();
    return headers.get('content-encoding');
  });
  assert.equal(coding, 'zstd');
});
