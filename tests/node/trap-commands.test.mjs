// What an app may ask for around a failure of the core: of a stream that has not heard of it yet, and of one whose core cannot
// do it any more.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { bundleCore } from '../support/core-bundle.mjs';
import { deferred, events, headers, serve } from '../support/stream.mjs';

let bundle;
let core;
before(async () => {
  bundle = await bundleCore();
  core = await import(bundle.url);
});
after(() => bundle?.remove());

/** Each connection brings the next three events, and stays open. */
const nextThree = (request, response) => {
  const cursor = Number(request.headers['last-event-id'] ?? 0);
  response.writeHead(200, headers).write(events(cursor + 1, cursor + 3));
};

/** A stream and what it told. `until(holds)` resolves once it holds. */
function follow(t, url, options = {}) {
  const stream = { got: [], errors: [], closes: [], states: [] };
  const waiting = new Set();
  const told = (list, value) => {
    list.push(value);
    for (const look of waiting) look();
  };
  stream.until = (holds) => new Promise((resolve) => {
    const look = () => {
      if (!holds(stream)) return;
      waiting.delete(look);
      resolve();
    };
    waiting.add(look);
    look();
  });
  stream.connector = core.connectSSE(url, {
    ...options,
    onEvent: ({ id }) => told(stream.got, id),
    onError: (error) => {
      told(stream.errors, [error.code, error.willRetry]);
      options.onError?.(error);
    },
    onClose: ({ reason, willReconnect }) => told(stream.closes, [reason, willReconnect]),
    onStateChange: ({ from, to }) => told(stream.states, [from, to]),
  });
  t.after(() => stream.connector.dispose());
  return stream;
}

const retried = { errors: [['wasm_trap', true]], closes: [['wasm_trap', true]], state: 'open' };
const ended = { got: ['1', '2', '3'], errors: [['wasm_trap', false]], closes: [['client_close', false]], state: 'closed' };
/** What becomes of the second stream, by what the first asks of it. */
const commands = {
  connect: { ...retried, got: ['1', '2', '3', '4', '5', '6'] },
  reconnect: { ...retried, got: ['1', '2', '3', '4', '5', '6'] },
  clearCursor: { ...retried, got: ['1', '2', '3', '1', '2', '3'] },
  stop: ended,
  dispose: ended,
};

for (const [command, expected] of Object.entries(commands)) {
  test(`one stream that hears of a failure may ${command}() another`, async (t) => {
    const { url } = await serve(t, nextThree);
    const told = deferred();
    const first = follow(t, url, {
      onError: () => {
        second.connector[command]();
        told.resolve();
      },
    });
    await first.until(({ got }) => got.length === 3);
    const second = follow(t, url);
    await second.until(({ got }) => got.length === 3);
    const instance = core.instanceNow();
    setTimeout(core.enterCore, 0);
    await told.promise;
    await Promise.all([
      first.until(({ got }) => got.length === 6), second.until(({ got }) => got.length === expected.got.length),
    ]);
    const { got, errors, closes, connector } = second;
    assert.deepEqual({ got, errors, closes, state: connector.state }, expected);
    assert.deepEqual([first.got, first.connector.state], [['1', '2', '3', '4', '5', '6'], 'open']);
    assert.equal(core.instanceNow(), instance + 1, 'one failure, one new instance');
  });
}

/** Ways to stop a stream whose core cannot do it any more, and the reason that is told. */
const stops = {
  'a stop that fails': [(connector) => connector.stop(), 'client_close'],
  'a signal whose stop fails': [(_, controller) => controller.abort(), 'client_abort'],
  'a stop behind a failure': [
    (connector) => {
      connector.reconnect();
      connector.stop();
    },
    'client_close',
  ],
};

for (const [name, [stop, reason]] of Object.entries(stops)) {
  test(`${name} is told once the core is replaced, and connect() goes on from the cursor`, async (t) => {
    const { url } = await serve(t, nextThree);
    const controller = new AbortController();
    const stream = follow(t, url, { signal: controller.signal });
    await stream.until(({ got }) => got.length === 3);
    stream.states.length = 0;
    new Uint8Array(core.memory().buffer).fill(0xff);
    stop(stream.connector, controller);
    await stream.until(({ closes }) => closes.length === 1);
    assert.deepEqual([stream.errors, stream.closes], [[['wasm_trap', false]], [[reason, false]]]);
    assert.deepEqual([stream.states, stream.connector.state], [[['open', 'closed']], 'closed']);
    stream.connector.stop();
    if (reason === 'client_abort') return;
    stream.connector.connect();
    await stream.until(({ got }) => got.length === 6);
    assert.deepEqual(stream.got, ['1', '2', '3', '4', '5', '6']);
    assert.equal(stream.closes.length, 1, 'nothing was left to stop');
  });
}
