// A machine that slept: its timers are late by the wall clock, and its sockets may be dead without a sign.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, event, headers, serve } from '../support/stream.mjs';

const { connectSSE } = await import(inRepository('pkg/index.js'));

/** Connects to a quiet server, lets the wall clock jump by `jumpMs`, and answers the cursors of the requests made. */
async function cursorsAfter(t, jumpMs) {
  const second = deferred();
  const { url, requests } = await serve(t, (_, response, attempt) => {
    response.writeHead(200, headers).write(event(attempt));
    if (attempt === 2) second.resolve();
  });
  const { now } = Date;
  t.after(() => { Date.now = now; });
  const first = deferred();
  const quiet = deferred();
  const connector = connectSSE(url, {
    livenessTimeoutMs: 60,
    livenessGracePeriodMs: 0,
    onEvent: () => first.resolve(),
    onLivenessFailure: () => quiet.resolve(),
  });
  t.after(() => connector.dispose());
  await first.promise;
  Date.now = () => now() + jumpMs;
  await Promise.race([second.promise, quiet.promise]);
  return requests.map((request) => request.headers['last-event-id']);
}

test('a timer that fires long after its time tells of a sleep, and the connection is made anew', async (t) => {
  assert.deepEqual(await cursorsAfter(t, 3_600_000), [undefined, '1']);
});

test('a timer that a browser held back for a minute does not', async (t) => {
  assert.deepEqual(await cursorsAfter(t, 60_000), [undefined]);
});
