// Shows what happens while the server is away. Start it, kill the server (Ctrl-C), start the server again: the events
// that were made meanwhile come first, and none comes twice.
//
//   holdfast serve --data-dir events
//   node reconnect.mjs [http://localhost:3000]

import { connectSSE, RetryPolicies } from 'holdfast-sse';

const server = process.argv[2] ?? 'http://localhost:3000';

connectSSE(`${server}/stream`, {
  retryPolicy: { ...RetryPolicies.STANDARD, baseDelayMs: 200 },
  onStateChange: ({ from, to, reason }) => console.log(`${from} → ${to} (${reason})`),
  onRetry: ({ attempt, delayMs, reason }) => console.log(`attempt ${attempt} in ${delayMs} ms: ${reason}`),
  onResumeAttempt: ({ lastEventId }) => console.log(`resuming behind ${lastEventId}`),
  onCannotResume: ({ missing }) => console.log(`${missing ?? 'an unknown number of'} events are gone`),
  onEvent: (event) => console.log(`event ${event.id}`),
  // Attempts that fail are told by onRetry.
  onError: (error) => { if (!error.willRetry) console.error(`${error.code}: ${error.message}`); },
});
