// Counts what happens, and prints it as Prometheus would read it.
//
//   holdfast serve
//   node metrics.mjs [http://localhost:3000 [every so many milliseconds]]

import { connectSSE, createInMemorySink } from 'holdfast-sse';

const [server = 'http://localhost:3000', everyMs = 10_000] = process.argv.slice(2);
const metricsSink = createInMemorySink();

const connector = connectSSE(`${server}/stream`, {
  metricsSink,
  onEvent: () => {},
  onError: (error) => console.error(`${error.code}: ${error.message}`),
});

setInterval(() => {
  const { eventsReceived, reconnectCount, duplicatesIgnored, lag } = connector.getStats();
  console.log('stats', JSON.stringify({ eventsReceived, reconnectCount, duplicatesIgnored, lag }));
  console.log('metrics', JSON.stringify(metricsSink.toJSON()));
}, Number(everyMs));
