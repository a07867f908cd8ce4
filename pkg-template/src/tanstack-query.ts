// The entry point `holdfast-sse/tanstack-query`: queries that are fetched again when an event says that they are stale.

/// <reference lib="esnext.disposable" preserve="true" />

import { type QueryKey, useQueryClient } from '@tanstack/react-query';
import type { StreamEvent } from './event.js';
import { type SSEConnection, type SSEConnectionOptions, useSSEConnection } from './react.js';

/** What `useSSEQueryInvalidation` takes: all of `useSSEConnection`, with keys in place of a handler. */
export interface SSEQueryInvalidationOptions<Event = unknown> extends Omit<SSEConnectionOptions<Event>, 'onEvent'> {
  /**
   * The queries that an event makes stale: always the same, or what a function says of the event. With an array they are
   * invalidated, too, when events may be missing: the server cannot replay, or a stream without ids was made anew.
   */
  queryKeys: readonly QueryKey[] | ((event: Event, source: StreamEvent) => readonly QueryKey[]);
}

/**
 * Invalidates queries at each event, while the component is mounted. The stream does not wait for what they then fetch.
 * The client is that of the next `QueryClientProvider`.
 */
export function useSSEQueryInvalidation<Event = unknown>(props: SSEQueryInvalidationOptions<Event>): SSEConnection {
  const { queryKeys, options, ...connection } = props;
  const client = useQueryClient();
  const invalidate = (keys: readonly QueryKey[]): void => {
    for (const queryKey of keys) void client.invalidateQueries({ queryKey });
  };
  const maybeMissed = (): void => {
    if (typeof queryKeys !== 'function') invalidate(queryKeys);
  };
  return useSSEConnection<Event>({
    ...connection,
    // Keys that are always the same need nothing of the data, which may be anything then.
    ...(typeof queryKeys === 'function' ? {} : { parse: () => undefined as Event }),
    onEvent: (event, source) => invalidate(typeof queryKeys === 'function' ? queryKeys(event, source) : queryKeys),
    options: {
      ...options,
      onOpen: (info) => {
        if (info.reconnectCount > 0 && info.lastEventId === undefined) maybeMissed();
        options?.onOpen?.(info);
      },
      onGap: (info) => {
        maybeMissed();
        options?.onGap?.(info);
      },
      onCannotResume: (info) => {
        maybeMissed();
        return options?.onCannotResume?.(info);
      },
    },
  });
}
