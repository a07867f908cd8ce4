// The entry point `holdfast-sse/state`: the value of a shared state, as the server's `SharedState` keeps it.
//
// The server's stream begins, for a newcomer, with the event that holds the value; from there the view follows. It never
// stores its cursor: a page that was reloaded has forgotten the value, and is a newcomer again.

/// <reference lib="esnext.disposable" preserve="true" />

import { SSEConnector } from './connector.js';
import { reportUnhandled } from './errors.js';
import type { StreamEvent } from './event.js';
import { inlineWasm } from './inline.js';
import { provideSource } from './loader.js';
import type { ConnectOptions, Fresh } from './options.js';

/**
 * How much is known: nothing yet, the value, the value as it was before the server lost track of this page (the
 * present one is on its way), or that the state was removed.
 */
export type SharedStateStatus = 'loading' | 'live' | 'stale' | 'removed';

/** What changed. */
export interface SharedStateChange<T> {
  value: T | undefined;
  previous: T | undefined;
  status: SharedStateStatus;
}

/** The connector's options, without those that say what becomes of events and cursor. */
export interface SharedStateOptions<T> extends Omit<
  ConnectOptions,
  | 'onEvent' | 'persistLastEventId' | 'persistKey' | 'eventIdStorage' | 'ack' | 'maxUnacked' | 'schemas' | 'onInvalid'
  | 'onInvalidEvent' | 'handlerConcurrency' | 'onHandlerError' | 'cannotResumeFallback'
> {
  /** The field of the event's data that holds the value. Default `value`. */
  key?: string;
  /** The channel, whose name the events bear. Default: the one that the server announces; else any event with the key. */
  channel?: string;
  /** Called after each change of the value or the status. */
  onChange?: (change: SharedStateChange<T>) => void;
}

const REMOVED = 'state.removed';

/**
 * A value that the server shares. It connects at once.
 *
 * ```js
 * const users = new SharedState('/stream/user-count', { onChange: ({ value }) => show(value) });
 * // In React: useSyncExternalStore(users.subscribe, () => users.value)
 * ```
 */
export class SharedState<T = unknown> {
  /** The stream behind it: its state, its statistics, `reconnect()`. */
  readonly connector: SSEConnector;

  readonly #key: string;
  readonly #onChange: ((change: SharedStateChange<T>) => void) | undefined;
  readonly #listeners = new Map<object, () => void>();
  #channel: string | undefined;
  #value: T | undefined;
  /** The value as text, since a value that came again is no change. */
  #text: string | undefined;
  #status: SharedStateStatus = 'loading';

  constructor(url: Fresh<string | URL>, options: SharedStateOptions<T> = {}) {
    provideSource(inlineWasm);
    const { key = 'value', channel, onChange, onControl, onCannotResume, ...rest } = options;
    this.#key = key;
    this.#channel = channel;
    this.#onChange = onChange;
    this.connector = new SSEConnector(url, {
      ...rest,
      onEvent: (event) => this.#take(event),
      onControl: (event) => {
        if (channel === undefined && event.type === 'control.open') this.#channel = announced(event) ?? this.#channel;
        onControl?.(event);
      },
      onCannotResume: (info) => {
        if (this.#status === 'live') this.#change(this.#value, this.#text, 'stale');
        onCannotResume?.(info);
        // What it missed is of no interest: a newcomer gets the value at once.
        this.connector.clearCursor();
        this.connector.reconnect();
      },
    });
    this.connector.connect();
  }

  /** The value: the same object until it changes. Undefined while it is loading, and once it was removed. */
  get value(): T | undefined {
    return this.#value;
  }

  get status(): SharedStateStatus {
    return this.#status;
  }

  /** Calls `listener` after each change; answers with the function that ends that. Needs no `this`. */
  readonly subscribe = (listener: () => void): (() => void) => {
    const subscription = {};
    this.#listeners.set(subscription, listener);
    return () => { this.#listeners.delete(subscription); };
  };

  /** Ends the stream for good. The last value stays. */
  dispose(): void {
    this.connector.dispose();
    this.#listeners.clear();
  }

  /** The same as `dispose()`, for `using`; where the platform has no `Symbol.dispose` it is not there. */
  declare [Symbol.dispose]: () => void;

  static {
    if (typeof Symbol.dispose === 'symbol') {
      Object.defineProperty(this.prototype, Symbol.dispose, { value: this.prototype.dispose });
    }
  }

  #take(event: StreamEvent): void {
    const payload: unknown = event.payload;
    if (typeof payload !== 'object' || payload === null) return;
    if (event.type === REMOVED) {
      if ((payload as { key?: unknown }).key === this.#key) this.#change(undefined, undefined, 'removed');
      return;
    }
    if ((this.#channel !== undefined && event.type !== this.#channel) || !Object.hasOwn(payload, this.#key)) return;
    const value = (payload as Record<string, unknown>)[this.#key];
    const text = JSON.stringify(value);
    const isSame = text === this.#text;
    this.#change(isSame ? this.#value : value as T, text, 'live');
  }

  #change(value: T | undefined, text: string | undefined, status: SharedStateStatus): void {
    if (status === this.#status && text === this.#text) return;
    const change = { value, previous: this.#value, status };
    this.#value = value;
    this.#text = text;
    this.#status = status;
    // One listener's error is not the others'.
    for (const tell of [() => this.#onChange?.(change), ...this.#listeners.values()]) {
      try {
        tell();
      } catch (error) {
        reportUnhandled(error);
      }
    }
  }
}

function announced(event: StreamEvent): string | undefined {
  const { channel } = (event.payload ?? {}) as { channel?: unknown };
  return typeof channel === 'string' ? channel : undefined;
}
