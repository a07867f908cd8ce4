// Follows a stream and prints what comes.
//
//   holdfast serve                     or: node express.mjs
//   node basic.mjs [http://localhost:3000]

import { connectSSE } from 'holdfast-sse';

const server = process.argv[2] ?? 'http://localhost:3000';

connectSSE(`${server}/stream`, {
  onOpen: ({ url, reconnectCount }) => console.log(`connected to ${url} (reconnect #${reconnectCount})`),
  onEvent: (event) => console.log(`[${event.type}] ${event.id}`, JSON.stringify(event.payload)),
  onError: (error) => console.error(`${error.code}: ${error.message}`),
});
