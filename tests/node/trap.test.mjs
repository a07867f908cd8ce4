// A trap in the core poisons the one instance that all connectors share. Here its memory is filled with rubbish, which
// makes the next call fail for real, or it begins to work and never ends, as in a task of its own that trapped; all
// connectors must go on from their cursors in a new instance.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { bundleCore } from '../support/core-bundle.mjs';

/** Runs in a process of its own, which an error that nobody handles would end: a failure that is made good leaves none. */
const scenario = (bundle, failure) => `
  import { createServer } from 'node:http';
  import { connectSSE, createSSEParser, DedupeCache, enterCore, guarded, leaveCore, memory } from ${JSON.stringify(bundle)};

  // Each connection brings the next three events, and stays open.
  const asked = [];
  const server = createServer((request, response) => {
    const after = Number(request.headers['last-event-id'] ?? 0);
    asked.push([request.url, after]);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    for (let n = after + 1; n <= after + 3; n += 1) response.write('id: ' + n + '\\ndata: x\\n\\n');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

  const make = (path, options) => {
    const stream = { got: [], errors: [] };
    stream.connector = connectSSE('http://127.0.0.1:' + server.address().port + path, {
      ...options,
      onEvent: ['/loop', '/idle'].includes(path) ? undefined : (event) => { stream.got.push(event.id); stream.wake?.(); },
      onError: (error) => stream.errors.push(error.code),
    });
    if (path === '/loop') (async () => {
      for await (const event of stream.connector) { stream.got.push(event.id); stream.wake?.(); }
    })();
    stream.until = async (count) => {
      while (stream.got.length < count) await new Promise((resolve) => { stream.wake = resolve; });
    };
    return stream;
  };
  const once = make('/once', { method: 'POST', body: 'x' });
  const streams = [make('/a'), make('/b'), make('/loop')];
  // Holds the first event, asked for by nobody: the failure must not count it as being at work for ever.
  const idle = make('/idle');
  const later = idle.connector.events();
  await Promise.all([...streams, once].map((stream) => stream.until(3)));
  while (idle.connector.getStats().eventsDelivered < 3) await new Promise((resolve) => setImmediate(resolve));
  // A loop has finished what it had when it asks for more.
  await new Promise((resolve) => setImmediate(resolve));
  const parser = await createSSEParser();
  const cache = new DedupeCache();
  ${failure}
  await Promise.all(streams.map((stream) => stream.until(6)));
  for (let n = 0; n < 3; n += 1) idle.got.push((await later.next()).value.id);
  idle.connector.stop();
  idle.got.push((await later.next()).done);
  idle.connector.dispose();
  // What was made in the old instance is not freed in the new one, whose memory holds something else there.
  parser.free();
  cache.clear();
  if (cache.isDuplicate('1') || !cache.isDuplicate('1')) throw new Error('the cache does not work');
  const told = [...streams, once].map(({ got, errors, connector }) => ({ got: [...got], errors: [...errors], state: connector.state }));
  const first = [...asked];
  // The next failure is seen, too.
  setTimeout(enterCore, 0);
  await Promise.all(streams.map((stream) => stream.until(9)));
  console.log(JSON.stringify({ told, idle: idle.got, asked: first }));
  process.exit(0);
`;

/** How the core fails. */
const failures = {
  'a call into a poisoned core': 'new Uint8Array(memory().buffer).fill(0xff); streams[0].connector.reconnect();',
  'a task of the core that does not end': 'setTimeout(enterCore, 0);',
  'a call that fails within another': `
    enterCore();
    enterCore();
    guarded(() => { throw new Error('inside'); });
    leaveCore();
    leaveCore();`,
};

for (const [name, failure] of Object.entries(failures)) test(`after ${name} every connector goes on from its cursor, and after the next failure`, async (t) => {
  const bundle = await bundleCore();
  t.after(bundle.remove);
  const args = ['--input-type=module', '--eval', scenario(bundle.url, failure)];
  const { told, idle, asked } = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 }));
  const expected = { got: ['1', '2', '3', '4', '5', '6'], errors: ['wasm_trap'], state: 'open' };
  const once = { got: ['1', '2', '3'], errors: ['wasm_trap'], state: 'closed' };
  assert.deepEqual(told, [expected, expected, expected, once]);
  assert.deepEqual(idle, ['1', '2', '3', true], 'handed over once more, and at last the end');
  assert.deepEqual(asked.slice(5).sort(), [['/a', 3], ['/b', 3], ['/idle', 0], ['/loop', 3]]);
});
