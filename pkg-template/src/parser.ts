// The connector's own parser, for bytes that come from elsewhere: a file, a test, a proxy.

import { instanceNow, loadCore } from './core.js';
import { StreamParser } from './glue/core.js';

/** One event, as the parser found it. */
export interface ParsedEvent {
  /** The event name; `message` where there was none. */
  event: string;
  /** The data lines, joined by line feeds. */
  data: string;
  /** The event's own id, undefined where it had none. */
  id: string | undefined;
  /** Its own id, or the one inherited from before. */
  lastEventId: string;
  /** The reconnection time in milliseconds, where one came with it or since the event before. */
  retry: number | undefined;
}

export interface ParserOptions {
  /** Default 4 MiB. */
  maxLineBytes?: number;
  /** Default 4 MiB. */
  maxEventBytes?: number;
}

const LIMIT = 4 << 20;
const VALUES = 5;

/** Reads one body piece by piece; however it is cut, the events are the same. Made by `createSSEParser`. */
export class SSEParser {
  readonly #parser: StreamParser;
  readonly #instance = instanceNow();
  readonly #encoder = new TextEncoder();

  /** @internal */
  constructor(parser: StreamParser) {
    this.#parser = parser;
  }

  /**
   * The events that this piece completes. Text must not be cut within a surrogate pair.
   * @throws RangeError where a limit was reached; the parser reads no further then.
   */
  feed(chunk: string | Uint8Array): ParsedEvent[] {
    let values: unknown[];
    try {
      values = this.#parser.feed(typeof chunk === 'string' ? this.#encoder.encode(chunk) : chunk);
    } catch (error) {
      throw typeof error === 'string' ? new RangeError(error) : error;
    }
    const events: ParsedEvent[] = [];
    for (let at = 0; at < values.length; at += VALUES) {
      const [event, data, id, lastEventId, retry] = values.slice(at, at + VALUES) as
        [string, string, string | undefined, string, number | undefined];
      events.push({ event, data, id, lastEventId, retry });
    }
    return events;
  }

  /** Frees its memory in the core, which the garbage collector would do later. */
  free(): void {
    if (this.#instance === instanceNow()) this.#parser.free();
  }
}

/** A parser for one body. The core is loaded behind it, hence the promise. */
export async function createSSEParser(options: ParserOptions = {}): Promise<SSEParser> {
  await loadCore();
  return new SSEParser(new StreamParser(options.maxLineBytes ?? LIMIT, options.maxEventBytes ?? LIMIT));
}

/** The events in a text that is complete; what has no blank line at its end is none. For a stream: `createSSEParser`. */
export async function parseSSEChunk(chunk: string | Uint8Array): Promise<ParsedEvent[]> {
  const parser = await createSSEParser();
  try {
    return parser.feed(chunk);
  } finally {
    parser.free();
  }
}
