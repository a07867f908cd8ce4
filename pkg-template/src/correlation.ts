// Ids that tie the logs of several services together.

const TRACE_ID = /^[a-zA-Z0-9-]{1,128}$/;

/** `stream-<time>-<random>`, both in base 36: names one connection. */
export function generateStreamId(): string {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2)) as unknown as [number, number];
  return `stream-${Date.now().toString(36)}-${(high * 2 ** 20 + (low >>> 12)).toString(36)}`;
}

/** What a trace id is read from: a `Request`, or a request of Node and of the frameworks on it. */
export interface TracedRequest {
  headers?: Headers | Readonly<Record<string, string | string[] | undefined>>;
  /** Parsed, as by Express. */
  query?: Readonly<Record<string, unknown>>;
  url?: string;
}

/** The first valid trace id in `X-Trace-ID`, `X-Request-ID`, `traceparent` and the query's `trace_id`; else null. */
export function extractTraceId(request: TracedRequest): string | null {
  const candidates = [
    header(request, 'x-trace-id'),
    header(request, 'x-request-id'),
    header(request, 'traceparent')?.split('-')[1],
    request.query?.['trace_id'],
    new URLSearchParams(/\?([^#]*)/.exec(request.url ?? '')?.[1]).get('trace_id'),
  ];
  return candidates.find(isValidTraceId) ?? null;
}

function header({ headers }: TracedRequest, name: string): string | undefined {
  if (headers === undefined) return undefined;
  if (typeof Headers === 'function' && headers instanceof Headers) return headers.get(name) ?? undefined;
  const value = (headers as Readonly<Record<string, string | string[] | undefined>>)[name];
  return Array.isArray(value) ? value[0] : value;
}

function isValidTraceId(value: unknown): value is string {
  return typeof value === 'string' && TRACE_ID.test(value);
}

/** The ids of one connection, as fields for logs and envelopes. */
export class CorrelationContext {
  streamId: string | null;
  traceId: string | null = null;

  constructor(options: { streamId?: string | null; traceId?: string | null } = {}) {
    this.streamId = options.streamId ?? null;
    this.setTraceId(options.traceId ?? null);
  }

  setStreamId(streamId: string): void {
    this.streamId = streamId;
  }

  /** One that is not valid is ignored. */
  setTraceId(traceId: string | null): void {
    if (isValidTraceId(traceId)) this.traceId = traceId;
  }

  hasStreamId(): boolean {
    return this.streamId !== null;
  }

  hasTraceId(): boolean {
    return this.traceId !== null;
  }

  /** What is known, under the names that logs have for it. */
  toLogFields(): { stream_id?: string; trace_id?: string } {
    return {
      ...(this.streamId === null ? {} : { stream_id: this.streamId }),
      ...(this.traceId === null ? {} : { trace_id: this.traceId }),
    };
  }

  /** What is known, as options for `createEnvelope`. */
  toEventFields(): { stream_id?: string; trace_id?: string } {
    return this.toLogFields();
  }
}

export function createCorrelationContext(options?: { streamId?: string | null; traceId?: string | null }): CorrelationContext {
  return new CorrelationContext(options);
}
