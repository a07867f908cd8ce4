// What a server answers and when, told through the whole client: a wish to be left alone until some date, and headers
// behind which nothing comes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, event, headers, serve } from '../support/stream.mjs';

const { connectSSE } = await import(inRepository('pkg/index.js'));

/** The delay that follows a 503 with this `Retry-After`. */
async function delayAfter(t, retryAfter) {
  const { url } = await serve(t, (_, response) => response.writeHead(503, { 'retry-after': retryAfter }).end());
  const retry = deferred();
  const connector = connectSSE(url, {
    retryPolicy: { baseDelayMs: 7, jitterPct: 0 },
    onRetry: ({ delayMs }) => retry.resolve(delayMs),
    onError: () => {},
  });
  t.after(() => connector.dispose());
  return retry.promise;
}

test('Retry-After may be a date', async (t) => { // K3
  const hour = 3_600_000;
  // Dates have whole seconds, and a fifth at most is added, so that not all come back at once.
  const delay = await delayAfter(t, new Date(Date.now() + hour).toUTCString());
  assert.ok(delay > hour - 5_000 && delay <= hour * 1.2, `${delay} ms`);
  assert.equal(await delayAfter(t, new Date(Date.now() - hour).toUTCString()), 7, 'a date that is past asks for nothing');
  assert.equal(await delayAfter(t, 'when it is done'), 7);
});

test('headers behind which nothing comes are told apart from silence, and cut where the server is known to beat', async (t) => { // K9
  const { url } = await serve(t, (_, response, attempt) => {
    response.writeHead(200, headers);
    if (attempt === 1) response.end(`${event(1)}event: system.heartbeat\ndata: {"payload":{"interval_ms":10}}\n\n`);
    else if (attempt === 2) response.flushHeaders();
    else response.write(event(2));
  });
  const [failures, errors, got] = [[], [], []];
  const second = deferred();
  const connector = connectSSE(url, {
    retryPolicy: { baseDelayMs: 5, jitterPct: 0 },
    livenessTimeoutMs: 50,
    livenessGracePeriodMs: 0,
    onLivenessFailure: ({ failure, cut }) => failures.push([failure, cut]),
    onError: ({ code, message, willRetry }) => errors.push([code, /a proxy on the way/.test(message), willRetry]),
    onEvent: ({ id }) => {
      got.push(id);
      if (id === '2') second.resolve();
    },
  });
  t.after(() => connector.dispose());
  await second.promise;
  assert.deepEqual([failures[0], errors[0], got], [['no_first_byte', true], ['no_first_byte', true, true], ['1', '2']]);
});
