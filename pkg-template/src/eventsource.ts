// The entry point `holdfast-sse/eventsource`: the browser's EventSource, over a connector. To try it, import it in
// place of the native one; nothing else changes.
//
// It follows the HTML standard (section 9.2) in all that a page can see, with these differences, all of which keep a
// stream alive where the native one gives up or repeats itself: answers 408, 425, 429 and 5xx are tried again, the
// delay between attempts grows while they fail, and a stream that sends heartbeats and falls silent is made anew.

/// <reference lib="esnext.disposable" preserve="true" />

import { SSEConnector } from './connector.js';
import type { SSEError } from './errors.js';
import type { StreamEvent } from './event.js';
import { inlineWasm } from './inline.js';
import { provideSource } from './loader.js';
import type { ConnectOptions, StateChangeInfo } from './options.js';

/** The second argument: the native one, and options of the connector that the native one ignores. */
export interface EventSourceOptions extends Pick<
  ConnectOptions,
  | 'headers' | 'traceId' | 'lastEventIdParam' | 'fetch' | 'requestInit' | 'retryPolicy' | 'timeout' | 'stableAfterMs'
  | 'persistLastEventId' | 'persistKey' | 'enableLivenessCheck' | 'livenessTimeoutMs' | 'livenessGracePeriodMs'
  | 'maxLineBytes' | 'maxEventBytes' | 'enableDedupe' | 'debug'
> {
  /** Send cookies to other origins, too. Default false. */
  withCredentials?: boolean;
}

/** An `error` event; `error` says what happened, which the native one keeps to itself. */
export interface EventSourceError extends Event {
  readonly error?: SSEError | undefined;
}

export interface EventSourceEvents {
  open: Event;
  message: MessageEvent;
  error: EventSourceError;
}

type Handler<Type extends keyof EventSourceEvents> = ((event: EventSourceEvents[Type]) => unknown) | null;

/** A drop-in for the browser's `EventSource`. */
export class EventSource extends EventTarget {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSED = 2;
  readonly CONNECTING = 0;
  readonly OPEN = 1;
  readonly CLOSED = 2;

  /** The address, made absolute. */
  readonly url: string;
  readonly withCredentials: boolean;

  readonly #connector: SSEConnector;
  readonly #handlers: { [Type in keyof EventSourceEvents]?: Handler<Type> } = {};
  /** Handlers that have their place among the listeners; as the standard wants it, they keep it. */
  readonly #placed = new Set<string>();
  #readyState: 0 | 1 | 2 = 0;
  #lastEventId = '';
  #origin: string;
  #error: SSEError | undefined;

  /** @throws DOMException `SyntaxError` where the URL cannot be parsed. */
  constructor(url: string | URL, { withCredentials = false, ...options }: EventSourceOptions = {}) {
    provideSource(inlineWasm);
    super();
    const base = typeof location === 'undefined' ? undefined : location.href;
    try {
      this.url = new URL(url, base).href;
    } catch {
      throw new DOMException(`cannot parse the URL ${JSON.stringify(String(url))}`, 'SyntaxError');
    }
    this.withCredentials = withCredentials;
    this.#origin = new URL(this.url).origin;
    const show = (event: StreamEvent): void => this.#show(event);
    const connector = new SSEConnector(this.url, {
      // Ids are the server's own affair here: what it sends twice comes twice.
      enableDedupe: false,
      ...options,
      enableOrdering: false,
      credentials: withCredentials ? 'include' : 'same-origin',
      onEvent: show,
      // To the native one these are events as any other.
      onControl: show,
      onHeartbeat: show,
      // It is one of these, not a failure of the stream.
      onSystemError: () => {},
      onResponse: (response) => {
        if (response.url !== '') this.#origin = new URL(response.url).origin;
      },
      onError: (error) => {
        this.#error = error;
      },
      onOpen: () => {
        this.#readyState = 1;
        this.dispatchEvent(new Event('open'));
      },
      onStateChange: (info) => this.#stateChanged(info),
    });
    connector.onCursor = (id) => {
      this.#lastEventId = id;
    };
    this.#connector = connector;
    connector.connect();
  }

  /** CONNECTING, OPEN or CLOSED. */
  get readyState(): 0 | 1 | 2 {
    return this.#readyState;
  }

  get onopen(): Handler<'open'> {
    return this.#handlers.open ?? null;
  }

  set onopen(handler: Handler<'open'>) {
    this.#setHandler('open', handler);
  }

  get onmessage(): Handler<'message'> {
    return this.#handlers.message ?? null;
  }

  set onmessage(handler: Handler<'message'>) {
    this.#setHandler('message', handler);
  }

  get onerror(): Handler<'error'> {
    return this.#handlers.error ?? null;
  }

  set onerror(handler: Handler<'error'>) {
    this.#setHandler('error', handler);
  }

  /** Ends the stream; no event follows. */
  close(): void {
    this.#readyState = 2;
    this.#connector.dispose();
  }

  override addEventListener<Type extends keyof EventSourceEvents>(
    type: Type, listener: (event: EventSourceEvents[Type]) => unknown, options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(
    type: string, listener: (event: MessageEvent) => unknown, options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(type: string, listener: unknown, options?: boolean | AddEventListenerOptions): void {
    super.addEventListener(type, listener as EventListener | null, options);
  }

  override removeEventListener<Type extends keyof EventSourceEvents>(
    type: Type, listener: (event: EventSourceEvents[Type]) => unknown, options?: boolean | EventListenerOptions,
  ): void;
  override removeEventListener(
    type: string, listener: (event: MessageEvent) => unknown, options?: boolean | EventListenerOptions,
  ): void;
  override removeEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions,
  ): void;
  override removeEventListener(type: string, listener: unknown, options?: boolean | EventListenerOptions): void {
    super.removeEventListener(type, listener as EventListener | null, options);
  }

  #setHandler<Type extends keyof EventSourceEvents>(type: Type, handler: Handler<Type>): void {
    const handlers: { [Name in Type]?: Handler<Name> } = this.#handlers;
    handlers[type] = typeof handler === 'function' ? handler : null;
    if (handler === null || this.#placed.has(type)) return;
    this.#placed.add(type);
    super.addEventListener(type, (event) => handlers[type]?.call(this, event as EventSourceEvents[Type]));
  }

  #show({ type, data, id }: StreamEvent): void {
    if (id !== undefined) this.#lastEventId = id;
    this.dispatchEvent(new MessageEvent(type, { data, lastEventId: this.#lastEventId, origin: this.#origin }));
  }

  #stateChanged({ from, to, reason }: StateChangeInfo): void {
    if (reason === 'stop') return;
    if (to === 'closed') {
      this.#readyState = 2;
      this.#connector.dispose();
    } else if (to === 'retrying' || (to === 'connecting' && from === 'open')) {
      this.#readyState = 0;
    } else {
      return;
    }
    const event = Object.assign(new Event('error'), { error: this.#error });
    this.#error = undefined;
    this.dispatchEvent(event);
  }
}
