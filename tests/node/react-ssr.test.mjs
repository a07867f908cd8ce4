// The hooks where effects never run: rendering on a server asks for nothing and leaves nothing behind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { createElement } from 'react';
import { renderToString } from 'react-dom/server';
import { inRepository } from '../support/paths.mjs';
import { headers, serve } from '../support/stream.mjs';

const { useSSEConnection } = await import(inRepository('pkg/react.js'));
const { useSSEQueryInvalidation } = await import(inRepository('pkg/tanstack-query.js'));
const { connectSSE } = await import(inRepository('pkg/index.js'));

const hooks = {
  useSSEConnection: (endpoint) => useSSEConnection({ endpoint, onEvent: () => {} }),
  useSSEQueryInvalidation: (endpoint) => useSSEQueryInvalidation({ endpoint, queryKeys: [['comments']] }),
};

for (const [name, use] of Object.entries(hooks)) {
  test(`${name} makes no request while rendering to a string`, async (t) => { // S10, S11
    const { url, requests } = await serve(t, (_, response) => response.writeHead(200, headers).end('data: 1\n\n'));
    const Part = () => {
      const { connected, state, connector } = use(`${url}/${name}`);
      return createElement('p', null, `${connected} ${state} ${connector}`);
    };
    const client = new QueryClient();
    const text = renderToString(createElement(QueryClientProvider, { client }, createElement(Part)));
    assert.equal(text, '<p>false idle undefined</p>');
    // A request that begins later is answered later: the first that the server saw is this one.
    await new Promise((resolve) => {
      const connector = connectSSE(`${url}/last`, { onEvent: () => resolve(connector.dispose()) });
    });
    assert.deepEqual(requests.map((request) => request.url), ['/stream/last']);
  });
}
