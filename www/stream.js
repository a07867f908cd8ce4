import { connectSSE } from './holdfast-sse/index.js';

export function openStream(client, onEvent, callbacks) {
  return connectSSE(`/stream?client=${client}`, {
    onEvent,                       // each event once, in order
    persistLastEventId: true,      // a reload goes on from here
    persistKey: `demo:${client}`,  // one place for each tab
    livenessTimeoutMs: 5_000,      // silence is a failure
    retryPolicy: { maxDelayMs: 8_000 },
    ...callbacks,                  // shown in the log
  });
}
