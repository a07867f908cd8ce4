// What the compiler must know, and what it must refuse. Compiled by tests/node/schemas.test.mjs; nothing runs.

import { connectSSE, type SSEConnector, type StandardSchemaV1, type StreamEvent } from 'holdfast-sse';

type Events = {
  'price.changed': { amount: number };
  'note': { text: string };
};

/** Compiles only where both are the same type. */
export function same<A, B>(_: [A] extends [B] ? ([B] extends [A] ? true : false) : false): void {}

const connector = connectSSE<Events>('/stream', {
  onEvent: (event) => {
    if (event.type === 'price.changed') {
      same<typeof event.payload, { amount: number }>(true);
      // @ts-expect-error: the other event's payload
      event.payload.text;
    } else {
      same<typeof event.payload, { text: string }>(true);
    }
    // @ts-expect-error: no such event
    if (event.type === 'nothing') return;
    event.ack();
  },
  schemas: { note: {} as StandardSchemaV1<unknown, { text: string }> },
});

// By name.
connector.addEventListener('note', (event) => same<typeof event.payload, { text: string }>(true), { once: true });
connector.addEventListener('message', (event) => same<typeof event.type, 'message'>(true));
// @ts-expect-error: no such event
connector.addEventListener('nothing', () => {});
// @ts-expect-error: DOM's option without a meaning here
connector.addEventListener('note', () => {}, { capture: true });

// In a loop.
async function loops(): Promise<void> {
  for await (const event of connector) if (event.type === 'note') same<typeof event.payload, { text: string }>(true);
  for await (const event of connector.events({ types: ['note'] })) same<typeof event, StreamEvent<'note', { text: string }>>(true);
  // @ts-expect-error: no such event
  connector.events({ types: ['nothing'] });
}

// The map follows from the schemas.
const inferred = connectSSE('/stream', {
  schemas: {
    tick: {} as StandardSchemaV1<unknown, { n: number }>,
    log: {} as StandardSchemaV1<{ raw: string }, string[]>,
  },
});
same<typeof inferred, SSEConnector<{ tick: { n: number }; log: string[] }>>(true);

// Without a map everything is unknown, and nothing is any.
connectSSE('/stream', { onEvent: (event) => same<typeof event.payload, unknown>(true) });

// Options.
connectSSE('/stream', { method: 'POST', body: new URLSearchParams(), resumeRequest: (cursor) => ({ url: `?after=${cursor}` }) });
connectSSE('/stream', { body: async () => new Blob(), signal: AbortSignal.timeout(5), requestInit: { mode: 'cors', priority: 'low' } });
connectSSE('/stream', { onResponse: (response) => (response.status === 418 ? 'retry' : undefined) });
connectSSE('/stream', { onResponse: () => {} });
// @ts-expect-error: not a decision
connectSSE('/stream', { onResponse: () => 'again' });
// @ts-expect-error: has an option of its own
connectSSE('/stream', { requestInit: { method: 'POST' } });
// @ts-expect-error: a misspelt name
connectSSE('/stream', { timeOut: 5 });
// @ts-expect-error: a wrong type
connectSSE('/stream', { timeout: 'soon' });
// @ts-expect-error: not one of the choices
connectSSE('/stream', { ack: 'by hand' });
// @ts-expect-error: not a cursor
connectSSE('/stream', { resumeRequest: (cursor: number) => ({ url: String(cursor) }) });
// @ts-expect-error: the schema of another payload
connectSSE<Events>('/stream', { schemas: { note: {} as StandardSchemaV1<unknown, { text: number }> } });
