// The entry point `holdfast-sse/react`: a stream for as long as a component shows it. React is the app's own.
//
// Effects may run twice (StrictMode), be undone and run again (Activity), and never run (on a server): a stream begins
// and ends with them, and nowhere else. Its callbacks are looked up when they are called, so that a new function in
// each render costs no new connection.

/// <reference lib="esnext.disposable" preserve="true" />

import { useEffect, useInsertionEffect, useRef, useState } from 'react';
import { reportUnhandled, type SSEError } from './errors.js';
import type { StreamEvent } from './event.js';
import { SSEConnector } from './index.js';
import type { ConnectionState, ConnectOptions } from './options.js';

/** What `useSSEConnection` takes. `Event` is what the data of an event says: for several kinds, a union. */
export interface SSEConnectionOptions<Event = unknown> {
  /** The stream's URL; another one ends the stream and begins anew. */
  endpoint: string | URL;
  /**
   * Each event, once and in order: what `parse` makes of it, and the event as it came (its name, id, data …). May return
   * a promise: the next event waits for it, and so does the cursor.
   */
  onEvent?: ((event: Event, source: StreamEvent) => unknown) | undefined;
  /** The stream is open, or is not any more. */
  onConnectionChange?: ((connected: boolean) => void) | undefined;
  /** As with `connectSSE`; data that `parse` refuses is told as `handler_failed`, and the stream goes on. */
  onError?: ((error: SSEError) => void) | undefined;
  /** Whether to be connected. Off and on again resumes where the stream was. Default true. */
  enabled?: boolean | undefined;
  /** What `onEvent` gets. Default: the data as JSON; of an envelope its payload. For plain text: `({ data }) => data`. */
  parse?: ((source: StreamEvent) => Event) | undefined;
  /**
   * More options of the connector. They are read when a stream begins; a change has no effect on it, except that
   * functions among them (callbacks, `headers` …) are always called in their latest version.
   */
  options?: Omit<ConnectOptions, 'onEvent' | 'onError'> | undefined;
}

/** Where the stream stands. */
export interface SSEConnection {
  /** Whether the stream is open. */
  connected: boolean;
  /** `idle` before the first effect, and on a server. */
  state: ConnectionState;
  /** For `reconnect()`, `lastEventId`, `getStats()` …; undefined before the first effect. It ends with the component. */
  connector: SSEConnector | undefined;
}

/** Follows a stream while the component is mounted. */
export function useSSEConnection<Event = unknown>(props: SSEConnectionOptions<Event>): SSEConnection {
  const latest = useRef(props);
  // Before all other effects, so that those of the app meet the callbacks of the render that they belong to.
  useInsertionEffect(() => {
    latest.current = props;
  });
  const [{ connector, state }, setConnection] = useState<Omit<SSEConnection, 'connected'>>(NOT_YET);
  const endpoint = String(props.endpoint);
  const enabled = props.enabled ?? true;

  useEffect(() => {
    let connected = false;
    const made = new SSEConnector(endpoint, {
      ...alwaysLatest(() => latest.current.options ?? {}),
      onEvent: (source) => {
        const { onEvent, parse = jsonOf } = latest.current;
        return onEvent?.(parse(source) as Event, source);
      },
      onError: (error) => {
        const { onError } = latest.current;
        if (onError !== undefined) onError(error);
        else if (!error.willRetry) reportUnhandled(error);
      },
      onStateChange: (info) => {
        setConnection((now) => (now.connector === made ? { connector: made, state: info.to } : now));
        if (connected !== (info.to === 'open')) {
          connected = !connected;
          latest.current.onConnectionChange?.(connected);
        }
        latest.current.options?.onStateChange?.(info);
      },
    });
    setConnection({ connector: made, state: made.state });
    return () => made.dispose();
  }, [endpoint]);

  useEffect(() => {
    if (connector === undefined || !enabled) return undefined;
    connector.connect();
    return () => connector.stop();
  }, [connector, enabled]);

  return { connected: state === 'open', state, connector };
}

const NOT_YET = { connector: undefined, state: 'idle' } as const;

function jsonOf(source: StreamEvent): unknown {
  const { payload } = source;
  // What is no JSON throws here, with the event's name and id.
  return payload === undefined ? source.json() : payload;
}

/** The options as they are now, but each function as it is when it is called. */
function alwaysLatest(read: () => ConnectOptions): ConnectOptions {
  const first = read();
  const entries = Object.entries(first).map(([name, value]) => [name, typeof value !== 'function' ? value : (...args: unknown[]) => {
    const now: unknown = read()[name as keyof ConnectOptions];
    return (typeof now === 'function' ? now : value)(...args);
  }]);
  return Object.fromEntries(entries) as ConnectOptions;
}
