// A stream that was stopped, or ended, and that the app has let go of leaves nothing behind.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';

/** Connects, gets an event, ends the stream and lets go of it, many times; answers how many are still held. */
const scenario = (end) => `
  import { createServer } from 'node:http';
  import { connectSSE } from './pkg/index.js';

  const server = createServer((request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('id: 1\\ndata: ' + 'x'.repeat(1_000) + '\\n\\n');
    if (request.url.startsWith('/ends')) response.end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = 'http://127.0.0.1:' + server.address().port;
  const made = [];
  const one = () => new Promise((resolve) => {
    const options = {
      autoReconnect: false,
      // A function that knows its connector.
      headers: () => ({ 'x-state': connector.state }),
      onEvent: () => { if (${JSON.stringify(end)} !== 'close') connector[${JSON.stringify(end)}](); },
      onClose: resolve,
    };
    const path = ${JSON.stringify(end)} === 'close' ? '/ends' : '/';
    const connector = connectSSE(() => address + path + '?' + connector.state, options);
    made.push(new WeakRef(connector));
  });
  for (let round = 0; round < 200; round += 1) await one();
  for (let turn = 0; turn < 10; turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    globalThis.gc();
  }
  console.log(made.filter((weak) => weak.deref() !== undefined).length);
  process.exit(0);
`;

for (const end of ['stop', 'dispose', 'close']) {
  test(`after ${end} nothing holds a connector`, () => {
    const args = ['--expose-gc', '--input-type=module', '--eval', scenario(end)];
    const held = Number(execFileSync(process.execPath, args, { cwd: inRepository('.'), encoding: 'utf8' }));
    // The last few may still be on somebody's stack.
    assert.ok(held <= 10, `${held} of 200 are still held`);
  });
}
