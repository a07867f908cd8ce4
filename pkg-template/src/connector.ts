// One stream, as an app holds it.

import type { EventMap, StreamEvent, StreamEventOf } from './event.js';
import type { ConnectionState, ConnectOptions, Fresh, ListenerOptions, Stats } from './options.js';
import { Stream } from './stream.js';

/**
 * A stream that survives: it reconnects, resumes from its cursor, drops what came again and keeps the order.
 * Create it with `connectSSE`, or by hand and then call `connect()`.
 */
export class SSEConnector<Map extends object = EventMap> implements AsyncIterable<StreamEventOf<Map>> {
  readonly #stream: Stream<Map>;

  constructor(url: Fresh<string | URL>, options?: ConnectOptions<Map> | null) {
    this.#stream = new Stream(url, options);
  }

  /**
   * Hears of ids without an event, which are part of what the native EventSource shows.
   * @internal
   */
  set onCursor(listener: (id: string) => void) {
    this.#stream.onCursor = listener;
  }

  /** Where the connection stands. */
  get state(): ConnectionState {
    return this.#stream.state;
  }

  /** The cursor: everything up to this id is processed. Empty where there is none. */
  get lastEventId(): string {
    return this.#stream.lastEventId;
  }

  /** Connects, unless it is connected or about to; after a stop or a give-up it starts again at the cursor. */
  connect(): void {
    this.#stream.connect();
  }

  /** Ends the stream. The cursor stays; may be called twice. */
  stop(): void {
    this.#stream.stop();
  }

  /** Makes a new connection at once, from the cursor. */
  reconnect(): void {
    this.#stream.reconnect();
  }

  /**
   * Forgets the cursor, the stored one too: for a logout, after `stop()`. An open stream goes on, and its next event
   * is a cursor again; with `reconnect()` behind it the stream begins as for a new client.
   */
  clearCursor(): void {
    this.#stream.clearCursor();
  }

  /**
   * Calls `listener` with each event of this name, beside `onEvent` and as a handler like it: its promise is awaited
   * before the next event, and when it fails `onHandlerError` says what follows.
   */
  addEventListener<Type extends keyof Map & string>(
    type: Type, listener: (event: StreamEvent<Type, Map[Type]>) => unknown, options?: ListenerOptions,
  ): void;
  addEventListener(type: 'message', listener: (event: StreamEvent<'message'>) => unknown, options?: ListenerOptions): void;
  addEventListener(type: string, listener: (event: never) => unknown, options?: ListenerOptions): void {
    this.#stream.consume().add(type, listener as (event: StreamEvent) => unknown, options);
  }

  removeEventListener<Type extends keyof Map & string>(
    type: Type, listener: (event: StreamEvent<Type, Map[Type]>) => unknown,
  ): void;
  removeEventListener(type: 'message', listener: (event: StreamEvent<'message'>) => unknown): void;
  removeEventListener(type: string, listener: (event: never) => unknown): void {
    this.#stream.consumers?.remove(type, listener as (event: StreamEvent) => unknown);
  }

  /**
   * The events one by one, for `for await`. The cursor moves past an event when the loop asks for the next one, and a
   * loop that takes its time pauses the reading of the stream. It begins with this call, and connects an idle
   * connector. It ends when the stream closes for good; where an error closed it, the loop throws that.
   *
   * Breaking off counts the event in hand as processed. If nobody else takes events (no onEvent, listener or other
   * loop), the connector stops: the next event would be lost. After `connect()` a new loop goes on from there.
   */
  events<Type extends keyof Map & string = keyof Map & string>(
    options: { types?: readonly Type[] } = {},
  ): AsyncIterableIterator<StreamEventOf<Pick<Map, Type>>> {
    return this.#stream.consume().loop(options.types) as unknown as AsyncIterableIterator<StreamEventOf<Pick<Map, Type>>>;
  }

  /** The same as `events()`. */
  [Symbol.asyncIterator](): AsyncIterableIterator<StreamEventOf<Map>> {
    return this.events() as AsyncIterableIterator<StreamEventOf<Map>>;
  }

  /** Counters since the connector was made. */
  getStats(): Stats {
    return this.#stream.getStats();
  }

  /** The same as `dispose()`, for `using`; where the platform has no `Symbol.dispose` it is not there. */
  declare [Symbol.dispose]: () => void;

  static {
    if (typeof Symbol.dispose === 'symbol') {
      Object.defineProperty(this.prototype, Symbol.dispose, { value: this.prototype.dispose });
    }
  }

  /** Ends the stream for good and frees what it holds. */
  dispose(): void {
    this.#stream.dispose();
  }
}
