// Makes trouble and shows what the handler saw of it: nothing. The server repeats events, swaps them and cuts the
// connection, by its debug routes; the numbers that are printed still follow each other.
//
//   holdfast serve --debug-routes --tick-interval 100
//   node faults.mjs [http://localhost:3000]

import { connectSSE } from 'holdfast-sse';

const server = process.argv[2] ?? 'http://localhost:3000';
const FAULTS = ['repeat?count=5', 'swap', 'drop-connections'];
const EVENTS_BETWEEN = 10;

let previous;
let seen = 0;
let wrong = 0;

const connector = connectSSE(`${server}/stream`, {
  retryPolicy: { baseDelayMs: 100 },
  onDuplicate: ({ eventId }) => console.log(`dropped a repeated ${eventId}`),
  onRetry: ({ reason }) => console.log(`cut off (${reason}), trying again`),
  onError: (error) => { if (!error.willRetry) console.error(`${error.code}: ${error.message}`); },
  onEvent: async ({ id }) => {
    const number = Number(id.split('-').at(-1));
    if (previous !== undefined && number !== previous + 1) wrong += 1;
    previous = number;
    seen += 1;
    if (seen % EVENTS_BETWEEN !== 0) return;
    const fault = FAULTS.shift();
    if (fault === undefined) {
      console.log(`${seen} events, ${wrong} of them lost, twice or out of order`);
      connector.stop();
      return;
    }
    console.log(`now: ${fault}`);
    await fetch(`${server}/debug/${fault}`, { method: 'POST' });
  },
});
