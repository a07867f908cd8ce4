import { connectSSE } from './holdfast-sse/index.js';

export function openStream(client, onEvent, callbacks) {
  return connectSSE(`/stream?client=${client}`, {
    onEvent,                       // each event, once and in order
    persistLastEventId: true,      // a reload goes on where the page was
    persistKey: `demo:${client}`,  // a place of its own for every tab
    livenessTimeoutMs: 5_000,      // silent for so long: the stream is dead
    retryPolicy: { maxDelayMs: 8_000 },
    ...callbacks,                  // what the log on this page shows
  });
}
