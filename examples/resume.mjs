// Keeps the cursor in a file. End it at any time (Ctrl-C, kill -9) and start it again: it goes on behind the last event
// that it has printed.
//
//   holdfast serve --data-dir events
//   node resume.mjs [http://localhost:3000 [last-event-id.json]]

import { connectSSE } from 'holdfast-sse';
import { FileStorage } from 'holdfast-sse/node';

const [server = 'http://localhost:3000', file = './last-event-id.json'] = process.argv.slice(2);

const connector = connectSSE(`${server}/stream`, {
  persistLastEventId: true,
  eventIdStorage: new FileStorage(file),
  onResumeAttempt: ({ lastEventId }) => console.log(`resuming behind ${lastEventId}`),
  onEvent: (event) => console.log(`event ${event.id}`),
  onError: (error) => console.error(`${error.code}: ${error.message}`),
});

process.once('SIGINT', () => {
  console.log('stopping');
  connector.dispose();
});
