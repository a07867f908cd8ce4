// The event that an app sees: one class, whatever the server speaks.

import { ack } from './ack.js';

/** The names of an app's events, and what each carries as `payload`. */
export type EventMap = Record<string, unknown>;

interface Envelope {
  readonly event_id?: unknown;
  readonly ts?: unknown;
  readonly sequence?: unknown;
  readonly stream_id?: unknown;
  readonly trace_id?: unknown;
  readonly correlation_id?: unknown;
  readonly payload?: unknown;
}

/** One event of a stream. What needs its JSON is parsed on first use, and only then. */
export class StreamEvent<Type extends string = string, Payload = unknown> {
  /** The event name; `message` where the server gave none. */
  readonly type: Type;
  /** The text as it came, data lines joined by line feeds. */
  readonly data: string;
  /** The event's own id, and the idempotency key; undefined where the server gave none. */
  readonly id: string | undefined;
  /** When the chunk with this event arrived, in milliseconds since 1970. */
  readonly receivedAt: number;
  /** Failed attempts before the connection that brought it. */
  readonly attempt: number;

  #json: { value: unknown } | { error: SyntaxError } | undefined;

  constructor(type: Type, data: string, id: string | undefined, receivedAt: number, attempt: number) {
    this.type = type;
    this.data = data;
    this.id = id;
    this.receivedAt = receivedAt;
    this.attempt = attempt;
  }

  /**
   * The data as JSON.
   * @throws SyntaxError with the event's name and id, where it is none.
   */
  json(): unknown {
    const parsed = this.#parsed();
    if ('error' in parsed) throw parsed.error;
    return parsed.value;
  }

  /**
   * The envelope's payload where the data is an envelope (an object with `event_id` and `payload`), else the data as JSON,
   * else undefined.
   */
  get payload(): Payload {
    const envelope = this.#envelope();
    if (envelope !== undefined) return envelope.payload as Payload;
    const parsed = this.#parsed();
    return ('value' in parsed ? parsed.value : undefined) as Payload;
  }

  /** The envelope's `sequence`. */
  get sequence(): number | undefined {
    const sequence = this.#envelope()?.sequence;
    return typeof sequence === 'number' ? sequence : undefined;
  }

  /** The envelope's `ts`: when the server made the event, ISO 8601. */
  get ts(): string | undefined {
    return text(this.#envelope()?.ts);
  }

  /** The envelope's `event_id`. */
  get eventId(): string | undefined {
    return text(this.#envelope()?.event_id);
  }

  /** The envelope's `stream_id`. */
  get streamId(): string | undefined {
    return text(this.#envelope()?.stream_id);
  }

  /** The envelope's `trace_id`. */
  get traceId(): string | undefined {
    return text(this.#envelope()?.trace_id);
  }

  /** The envelope's `correlation_id`. */
  get correlationId(): string | undefined {
    return text(this.#envelope()?.correlation_id);
  }

  /** `eventId`, in the envelope's own spelling. */
  get event_id(): string | undefined {
    return this.eventId;
  }

  /** `streamId`, in the envelope's own spelling. */
  get stream_id(): string | undefined {
    return this.streamId;
  }

  /** `traceId`, in the envelope's own spelling. */
  get trace_id(): string | undefined {
    return this.traceId;
  }

  /** `correlationId`, in the envelope's own spelling. */
  get correlation_id(): string | undefined {
    return this.correlationId;
  }

  /** With the option `ack: 'manual'`: the app is done with this event, and the cursor may move past it. */
  ack(): void {
    ack(this);
  }

  /** Milliseconds from `ts` to `receivedAt`, by two clocks that need not agree; undefined without `ts`. */
  get lagMs(): number | undefined {
    const made = Date.parse(this.ts ?? '');
    return Number.isNaN(made) ? undefined : this.receivedAt - made;
  }

  /** The event with its parsed fields, those of an envelope in its own spelling, for `JSON.stringify` and the console. */
  toJSON(): Record<string, unknown> {
    const { type, id, data, payload, event_id, ts, sequence, stream_id, trace_id, correlation_id, receivedAt } = this;
    return { type, id, data, payload, event_id, ts, sequence, stream_id, trace_id, correlation_id, receivedAt };
  }

  #parsed(): { value: unknown } | { error: SyntaxError } {
    if (this.#json === undefined) {
      try {
        this.#json = { value: JSON.parse(this.data) };
      } catch (cause) {
        const name = this.id === undefined ? this.type : `${this.type} ${this.id}`;
        this.#json = { error: new SyntaxError(`the data of event ${name} is not JSON: ${String(cause)}`) };
      }
    }
    return this.#json;
  }

  /** An app's own events may well have a payload, a type and a time: what tells an envelope is its `event_id`. */
  #envelope(): Envelope | undefined {
    const parsed = this.#parsed();
    if (!('value' in parsed) || typeof parsed.value !== 'object' || parsed.value === null) return undefined;
    const value = parsed.value as Envelope;
    return 'payload' in value && (typeof value.event_id === 'string' || isReserved(this.type)) ? value : undefined;
  }
}

/** What servers say about a stream, always as envelopes, if some without id. */
function isReserved(type: string): boolean {
  return type.startsWith('control.') || type.startsWith('system.');
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** The events of a map: `event.type` decides what `event.payload` is. */
export type StreamEventOf<Map extends object> = {
  [Type in keyof Map & string]: StreamEvent<Type, Map[Type]>;
}[keyof Map & string];
