// The examples, run as a reader would: in a folder with the installed package, against the real servers. // K33

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { startServer } from '../support/server.mjs';
import { makeApp } from './app.mjs';

const names = readdirSync(inRepository('examples'));

let app;
before(() => {
  app = makeApp(Object.fromEntries(names.map((name) => [name, readFileSync(inRepository(`examples/${name}`), 'utf8')])));
  symlinkSync(inRepository('node_modules/express'), join(app.folder, 'node_modules/express'));
});
after(() => app?.remove());

/** Runs an example. `until(predicate)` resolves once it holds of the lines that it has printed. */
function run(t, name, ...args) {
  const lines = [];
  const waiting = new Set();
  let printed = '';
  const child = spawn(process.execPath, [name, ...args], { cwd: app.folder, stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const check = () => {
    for (const waiter of [...waiting]) {
      if (!waiter.predicate(lines)) continue;
      waiting.delete(waiter);
      waiter.resolve();
    }
  };
  child.stdout.setEncoding('utf8').on('data', (text) => {
    const parts = (printed + text).split('\n');
    printed = parts.pop();
    lines.push(...parts);
    check();
  });
  child.once('exit', (code) => {
    for (const { reject } of waiting) reject(new Error(`${name} ended with ${code} after:\n${lines.join('\n')}`));
  });
  const end = async (signal) => {
    child.kill(signal);
    await exited;
  };
  t.after(() => end('SIGKILL'));
  const until = (predicate) => new Promise((resolve, reject) => {
    waiting.add({ predicate, resolve, reject });
    check();
  });
  return { lines, until, end, exited };
}

/** A server that ticks; with a folder of its own for the log, where it is to be restarted. */
async function serveTicks(t, args = []) {
  const options = { env: { SSE_TICK_INTERVAL: '40' }, args };
  let server = await startServer(options);
  const { address, port } = server;
  t.after(() => server.kill());
  return {
    address,
    async restart() {
      await server.kill();
      server = await startServer({ ...options, port });
    },
  };
}

function logFolder(t) {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-example-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return ['--data-dir', join(folder, 'events')];
}

/** The numbers of the events that were printed. */
const numbers = (lines) => lines.flatMap((line) => /^event \S+-(\d+)$/.exec(line)?.[1] ?? []).map(Number);
const consecutive = (found) => found.map((_, index) => found[0] + index);

test('basic: prints what comes', async (t) => {
  const { address } = await serveTicks(t, ['--memory']);
  const { lines, until } = run(t, 'basic.mjs', address);
  await until(() => lines.filter((line) => /^\[domain\.\S+\] \S+-\d+ \{.*\}$/.test(line)).length >= 3);
  assert.equal(lines[0], `connected to ${address}/stream (reconnect #0)`);
});

test('reconnect: nothing is lost while the server is away', async (t) => {
  const server = await serveTicks(t, logFolder(t));
  const { lines, until } = run(t, 'reconnect.mjs', server.address);
  await until(() => numbers(lines).length >= 5);
  await server.restart();
  const before = numbers(lines).length;
  await until(() => numbers(lines).length >= before + 5);
  assert.deepEqual(numbers(lines), consecutive(numbers(lines)));
  assert.ok(lines.includes('open → retrying (lost)') && lines.some((line) => line.startsWith('resuming behind ')), lines.join('\n'));
});

test('resume: a process that was killed goes on where it was', async (t) => {
  const server = await serveTicks(t, logFolder(t));
  const cursor = join(app.folder, 'cursor.json');
  const first = run(t, 'resume.mjs', server.address, cursor);
  await first.until(() => numbers(first.lines).length >= 5);
  await first.end('SIGKILL');
  const second = run(t, 'resume.mjs', server.address, cursor);
  await second.until(() => numbers(second.lines).length >= 5);
  assert.match(second.lines[0], /^resuming behind /);
  await second.end('SIGINT');
  assert.equal(second.lines.at(-1), 'stopping');
  // What was printed right before the kill may come again: at least once, and without a hole.
  const [last, seen] = [numbers(first.lines).at(-1), numbers(second.lines)];
  assert.ok(seen[0] > 1 && seen[0] <= last + 1, `${seen[0]} follows ${last}`);
  assert.deepEqual(seen, consecutive(seen));
});

test('metrics: counts what happens', async (t) => {
  const { address } = await serveTicks(t, ['--memory']);
  const { lines, until } = run(t, 'metrics.mjs', address, '100');
  const latest = (name) => JSON.parse(lines.findLast((line) => line.startsWith(name))?.slice(name.length) ?? '{}');
  await until(() => latest('stats').eventsReceived >= 3 && lines.at(-1).startsWith('metrics'));
  assert.match(lines.at(-1), /sse_client_events_received_total/);
  assert.equal(typeof latest('stats').lag, 'number');
});

test('faults: the handler sees none of them', async (t) => {
  const { address } = await serveTicks(t, ['--memory', '--debug-routes']);
  const { lines, exited } = run(t, 'faults.mjs', address);
  assert.deepEqual(await exited, [0, null]);
  assert.equal(lines.at(-1), '40 events, 0 of them lost, twice or out of order');
  assert.ok(lines.some((line) => line.startsWith('cut off')) && lines.some((line) => line.startsWith('dropped a repeated')), lines.join('\n'));
});

test('express and page: a page that is reloaded goes on, and one that forgot begins with now', async (t) => {
  const { lines, until } = run(t, 'express.mjs', '0');
  await until(() => lines.length > 0);
  const address = lines[0].slice('listening on '.length);
  const browser = await launchChromium();
  t.after(() => browser.close());
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  const shown = () => page.evaluate(() => [...document.querySelectorAll('#events li')].map((item) => parseInt(item.textContent, 10)));
  const items = (count) => page.waitForFunction((wanted) => document.querySelectorAll('#events li').length >= wanted, count);
  await page.goto(address);
  await items(2);
  await page.click('#reconnect');
  await items(4);
  // What the page has shown when it is left.
  await page.evaluate(() => addEventListener('pagehide', () => { sessionStorage.left = document.querySelector('#events li:last-child').textContent; }));
  const first = await shown();
  assert.deepEqual(first, consecutive(first));
  await page.reload();
  await items(2);
  const second = await shown();
  assert.deepEqual(second, consecutive(second));
  assert.equal(second[0], 1 + await page.evaluate(() => parseInt(sessionStorage.left, 10)));
  await page.click('#forget');
  assert.equal(await page.evaluate(() => document.getElementById('state').value), 'closed');
  assert.deepEqual(await page.evaluate(() => [localStorage, sessionStorage].flatMap(Object.keys).filter((key) => key.startsWith('holdfast:'))), []);
  assert.deepEqual(complaints, []);
});

test('no example of the client is longer than a page', () => {
  for (const name of names.filter((name) => !name.endsWith('.rs'))) assert.ok(readFileSync(inRepository(`examples/${name}`), 'utf8').split('\n').length <= 61, name);
});
