// The packed package in a Next.js app, built and started: a page that uses it while it is rendered on the server, a client
// component that streams, and a route that reads a stream on the server.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { makeApp } from './app.mjs';
import { assertTicks, serveTicks } from './ticks.mjs';

const root = inRepository('.');

const files = {
  // The frameworks are above the app's folder.
  'next.config.mjs': `export default { turbopack: { root: ${JSON.stringify(root)} }, outputFileTracingRoot: ${JSON.stringify(root)} };`,
  'app/layout.js': 'export default ({ children }) => <html><body>{children}</body></html>;',
  'app/page.js': `
    import { version } from 'holdfast-sse';
    import { Ticks } from './ticks.js';
    export default async function Page({ searchParams }) {
      const { stream } = await searchParams;
      return <main><p>{'rendered by ' + await version()}</p><Ticks endpoint={stream} /></main>;
    }
  `,
  'app/ticks.js': `
    'use client';
    import { useState } from 'react';
    import { useSSEConnection } from 'holdfast-sse/react';
    export function Ticks({ endpoint }) {
      const [ids, setIds] = useState([]);
      const { state } = useSSEConnection({ endpoint, onEvent: (_, { id }) => setIds((before) => [...before, id]) });
      return <output data-state={state}>{ids.join()}</output>;
    }
  `,
  'app/read/route.js': `
    import { SSEConnector } from 'holdfast-sse';
    export async function GET(request) {
      const ids = [];
      using stream = new SSEConnector(new URL(request.url).searchParams.get('stream'));
      for await (const { id } of stream) if (ids.push(id) === 10) break;
      return Response.json(ids);
    }
  `,
};

const NEXT = [inRepository('node_modules/next/dist/bin/next')];
const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1', NODE_ENV: 'production' };

test('next: rendered on the server, streamed in the browser, read in a route', { timeout: 180_000 }, async (t) => {
  const app = makeApp(files, { tools: true });
  t.after(app.remove);
  const built = () => execFileSync(process.execPath, [...NEXT, 'build'], { cwd: app.folder, env, encoding: 'utf8', stdio: 'pipe' });
  assert.doesNotThrow(built, (error) => assert.fail(error.stdout + error.stderr));

  const address = await start(t, app.folder);
  const ticks = await serveTicks();
  t.after(ticks.kill);
  const query = `?stream=${encodeURIComponent(ticks.url)}`;

  const rendered = await (await fetch(`${address}/${query}`)).text();
  const { version } = JSON.parse(readFileSync(inRepository('pkg/package.json'), 'utf8'));
  assert.ok(rendered.includes(`rendered by ${version}`) && rendered.includes('<output data-state="idle">'), rendered);
  assertTicks(await (await fetch(`${address}/read${query}`)).json());

  const browser = await launchChromium();
  t.after(() => browser.close());
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  await page.goto(`${address}/${query}`);
  const ids = () => document.querySelector('output[data-state=open]')?.textContent.split(',') ?? [];
  await page.waitForFunction(`(${ids})().length >= 10`);
  assertTicks(await page.evaluate(ids));
  assert.deepEqual(complaints.filter((text) => !text.includes('404')), []);
});

/** `next start` on a free port. */
async function start(t, folder) {
  const child = spawn(process.execPath, [...NEXT, 'start', '--hostname', '127.0.0.1', '--port', '0'], { cwd: folder, env, stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  return new Promise((resolve, reject) => {
    let printed = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      printed += text;
      const found = /Local:\s+(http:\S+:[1-9]\d*)\s/.exec(printed);
      if (found) resolve(found[1]);
    });
    child.once('exit', () => reject(new Error(`next start ended after:\n${printed}`)));
  });
}
