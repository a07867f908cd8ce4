// The option `transport` where there is no EventSource, and the options that go with it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';

const { connectSSE } = await import(inRepository('pkg/index.js'));

/** The error that a connector with these options tells, and its state. */
const refused = (options) => new Promise((resolve) => {
  const connector = connectSSE('http://127.0.0.1:9/', {
    ...options,
    onError: ({ code, option, message }) => resolve({ code, option, message, state: connector.state }),
  });
});

for (const [options, option, says] of [
  [{ transport: 'websocket' }, 'transport', /takes 'fetch', 'eventsource', got "websocket"/],
  [{ transport: 'eventsource' }, 'transport', /there is no EventSource/],
  [{ eventTypes: ['a'] }, 'eventTypes', /only beside transport: 'eventsource'/],
]) {
  test(`${JSON.stringify(options)} is refused here`, async () => {
    const told = await refused(options);
    assert.deepEqual([told.code, told.option, told.state], ['invalid_option', option, 'closed']);
    assert.match(told.message, says);
  });
}
