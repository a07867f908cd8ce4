// The hooks: what an event is, as the app says, and which options there are.

import { useSSEConnection } from 'holdfast-sse/react';
import { useSSEQueryInvalidation } from 'holdfast-sse/tanstack-query';
import type { ConnectionState, SSEConnector, SSEError, StreamEvent } from 'holdfast-sse';
import { same } from './events.js';

type DiscussionEvent =
  | { type: 'comment-added'; commentCount: number }
  | { type: 'vote-changed'; votes: { yes: number; no: number } };

export function Typed(enabled: boolean | undefined): void {
  const connection = useSSEConnection<DiscussionEvent>({
    endpoint: '/api/sse/discussion/7',
    onEvent: (event, source) => { // S12
      if (event.type === 'comment-added') same<typeof event.commentCount, number>(true);
      else same<typeof event.votes, { yes: number; no: number }>(true);
      // @ts-expect-error: no such event
      if (event.type === 'nothing') return;
      same<typeof source, StreamEvent>(true);
    },
    onConnectionChange: (connected) => same<typeof connected, boolean>(true),
    onError: (error) => same<typeof error, SSEError>(true),
    enabled,
    options: { persistLastEventId: true, headers: async () => ({ authorization: 'Bearer x' }) },
  });
  same<typeof connection, { connected: boolean; state: ConnectionState; connector: SSEConnector | undefined }>(true);

  useSSEConnection({ endpoint: new URL('https://example.org'), parse: ({ data }) => data, onEvent: (text: string) => text });
  // @ts-expect-error: without an endpoint
  useSSEConnection({ onEvent: () => {} });
  // @ts-expect-error: has an option of its own
  useSSEConnection({ endpoint: '/', options: { onEvent: () => {} } });
  // @ts-expect-error: nothing is any
  useSSEConnection({ endpoint: '/', onEvent: (event) => event.type });

  useSSEQueryInvalidation({ endpoint: '/', queryKeys: [['comments', 7], ['counts']] });
  const { connected } = useSSEQueryInvalidation<DiscussionEvent>({ endpoint: '/', queryKeys: (event) => [['counts', event.type]] });
  same<typeof connected, boolean>(true);
  // @ts-expect-error: a key is an array
  useSSEQueryInvalidation({ endpoint: '/', queryKeys: ['comments'] });
  // @ts-expect-error: keys are needed
  useSSEQueryInvalidation({ endpoint: '/' });
}
