// The store that needs Node. Compiled by tests/node/schemas.test.mjs; nothing runs.

import { connectSSE } from 'holdfast-sse';
import { type EventIdStorage, FileStorage } from 'holdfast-sse/node';

const store: EventIdStorage = new FileStorage('./last-event-id.txt');
connectSSE('/stream', { persistLastEventId: true, eventIdStorage: store });
// @ts-expect-error: a path is needed
new FileStorage();
// @ts-expect-error: not a store
connectSSE('/stream', { eventIdStorage: { get: () => '' } });
