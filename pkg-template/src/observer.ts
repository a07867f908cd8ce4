// The one place where metrics and log entries of a connector are made: from its notices, and once for each batch from
// its counters. Only the lag is asked of each event.

import { type ErrorCode, reportUnhandled, type SSEError } from './errors.js';
import type { StreamEvent } from './event.js';
import type { LoggerLike } from './logger.js';
import { ClientMetrics, type MetricsSink } from './metrics.js';
import type { ConnectionState, Stats } from './options.js';

export interface ObserverOptions {
  enableMetrics?: boolean;
  metricsSink?: MetricsSink;
  trackEventLag?: boolean;
  logger?: LoggerLike;
  traceId?: string;
}

/** What an observer needs of its connector. Sinks and loggers are app code. */
export interface ObserverHost {
  enter(): void;
  leave(): void;
}

type Level = 'debug' | 'info' | 'warn';
type Info = Readonly<Record<string, unknown>>;

/** How notices are logged. */
const ENTRIES: Readonly<Record<string, readonly [Level, string, string]>> = {
  open: ['info', 'client.open', 'the stream is open'],
  retry: ['info', 'client.retry_scheduled', 'another attempt is scheduled'],
  giveUp: ['warn', 'client.give_up', 'no further attempt is made'],
  resumeAttempt: ['info', 'resume.attempt', 'the request carries a cursor'],
  cannotResume: ['warn', 'resume.cannot_resume', 'the server cannot replay from the cursor'],
  livenessFailure: ['warn', 'liveness.failure', 'the stream seems dead'],
  duplicate: ['debug', 'duplicate.detected', 'an event came again'],
  outOfOrder: ['debug', 'out_of_order.detected', 'an event came late'],
  gap: ['warn', 'gap.detected', 'events are missing that the server does not have'],
};

/** How errors are logged that have a name of their own. */
const ERRORS: Readonly<Partial<Record<ErrorCode, string>>> = {
  line_too_long: 'parse.error',
  event_too_large: 'parse.error',
  invalid_event: 'validation.error',
};

const PROTOCOL = 'holdfast/1';

/**
 * Whether the server says that it goes on from `cursor`: our own begins there, others tell the end of the replay, or that
 * none was needed. A server that says nothing may have ignored the cursor, and nobody can tell.
 */
function provesResume(type: string, payload: Readonly<Record<string, unknown>>, cursor: string): boolean {
  const { protocol, position, reason, truncated } = payload;
  switch (type) {
    case 'control.open': return protocol === PROTOCOL && typeof position === 'string' && isSame(position, cursor);
    case 'control.replay_start': return reason === 'no_replay_needed';
    case 'control.replay_end': return truncated !== true;
    default: return false;
  }
}

/** Cursors of several channels hold the same parts, in any order. */
function isSame(one: string, other: string): boolean {
  return one.split(',').sort().join() === other.split(',').sort().join();
}

/** See above. */
export class Observer {
  /** Whether it wants to see each event. */
  readonly tracksLag: boolean;
  readonly #metrics: ClientMetrics | undefined;
  readonly #logger: LoggerLike | undefined;
  readonly #host: ObserverHost;
  /** The cursor that was sent, as long as it is not known whether the server could go on from there. */
  #resuming: string | undefined;
  #isOpen = false;
  /** Our server, with several channels: one of them may resume where another cannot, and its position says it for all. */
  #isOfSeveral = false;
  /** The connection's stream has a name, or its first envelope has none. */
  #isNamed = false;
  #received = 0;
  #outOfOrder = 0;
  #processed = 0;
  /** Events whose handler is called again are not new. */
  readonly #seen = new WeakSet<StreamEvent>();

  constructor(options: ObserverOptions, host: ObserverHost) {
    const { enableMetrics = true, metricsSink, logger, trackEventLag = true } = options;
    if (enableMetrics && metricsSink !== undefined) this.#metrics = new ClientMetrics({ sink: metricsSink });
    this.#logger = logger;
    this.tracksLag = this.#metrics !== undefined && trackEventLag;
    this.#host = host;
    const { traceId } = options;
    if (typeof traceId === 'string') this.#run(() => logger?.setTraceId?.(traceId));
  }

  /** Whether the counters are wanted after each batch. */
  get wantsCounters(): boolean {
    return this.#metrics !== undefined || (this.#logger !== undefined && !this.#isNamed);
  }

  /** An event is about to be handed out. */
  event(event: StreamEvent): void {
    // What has no `ts` is not worth a look into its JSON.
    if (!event.data.includes('"ts"') || this.#seen.has(event)) return;
    this.#seen.add(event);
    const { lagMs } = event;
    // Two clocks that do not agree may make it negative.
    if (lagMs !== undefined) this.#run(() => this.#metrics?.recordEventLag(Math.max(0, lagMs)));
  }

  notice(kind: string, info: Info): void {
    this.#run(() => {
      this.#count(kind, info);
      this.#log(kind, info);
    });
  }

  error(error: SSEError): void {
    this.#run(() => {
      const { code, message, status, willRetry } = error;
      const event = ERRORS[code] ?? 'client.error';
      this.#logger?.[willRetry ? 'warn' : 'error'](event, message, { code, ...(status === undefined ? {} : { status }) });
    });
  }

  control(event: StreamEvent): void {
    const payload = (event.payload ?? {}) as Readonly<Record<string, unknown>>;
    if (event.type === 'control.open') this.#isOfSeveral = payload['protocol'] === PROTOCOL && Array.isArray(payload['channels']);
    const isOfOneChannel = this.#isOfSeveral && payload['channel'] !== undefined;
    if (this.#resuming !== undefined && !isOfOneChannel && provesResume(event.type, payload, this.#resuming)) this.#run(() => this.#resumed());
    if (event.type !== 'control.open') return;
    const { stream_id: streamId, trace_id: traceId } = payload;
    if (typeof streamId === 'string') this.#name(streamId);
    if (typeof traceId === 'string') this.#run(() => this.#logger?.setTraceId?.(traceId));
  }

  /** The counters as they are now. A core that was replaced counts from nothing. */
  counters(stats: Pick<Stats, 'eventsReceived' | 'outOfOrder'>, processed: number, latest: StreamEvent | undefined): void {
    this.#run(() => {
      const received = since(this.#received, stats.eventsReceived);
      const outOfOrder = since(this.#outOfOrder, stats.outOfOrder);
      const finished = processed - this.#processed;
      this.#received = stats.eventsReceived;
      this.#outOfOrder = stats.outOfOrder;
      this.#processed = processed;
      this.#metrics?.incEventsReceived(received);
      this.#metrics?.incOutOfOrderEvents(outOfOrder);
      this.#metrics?.incEventsProcessed(finished);
    });
    if (latest === undefined || this.#logger === undefined || this.#isNamed || !this.#isOpen) return;
    // Once a connection: what its first envelopes do not say is not looked for for ever.
    this.#isNamed = true;
    const { streamId } = latest;
    if (streamId !== undefined) this.#name(streamId);
  }

  #name(streamId: string): void {
    this.#isNamed = true;
    this.#run(() => this.#logger?.setStreamId?.(streamId));
  }

  #resumed(): void {
    this.#resuming = undefined;
    this.#metrics?.incResumeSuccess();
    this.#logger?.info('resume.success', 'the stream goes on behind the cursor');
  }

  /** A request with a cursor that did not become a stream. What an open stream of another server resumed is not known. */
  #resumeFailed(reason: string): void {
    const lastEventId = this.#resuming;
    if (lastEventId === undefined || this.#isOpen || reason.startsWith('client_')) return;
    this.#resuming = undefined;
    this.#metrics?.incResumeFailure(reason);
    this.#logger?.warn('resume.failure', 'the request with the cursor did not become a stream', { lastEventId, reason });
  }

  #count(kind: string, info: Info): void {
    const metrics = this.#metrics;
    const text = (name: string): string => String(info[name]);
    const wasOpen = this.#isOpen;
    if (kind === 'resumeAttempt') this.#resuming = text('lastEventId');
    if (kind === 'open') {
      this.#isOpen = true;
      this.#isNamed = false;
      this.#isOfSeveral = false;
    }
    if (kind === 'retry' || kind === 'close') {
      this.#resumeFailed(text('reason'));
      this.#resuming = undefined;
    }
    if (kind === 'close') this.#isOpen = false;
    if (kind === 'cannotResume') this.#resuming = undefined;
    if (metrics === undefined) return;
    switch (kind) {
      case 'stateChange': return metrics.setConnectionState(text('to') as ConnectionState);
      case 'open': return metrics.incConnectionsOpened();
      // An attempt that never opened was no connection.
      case 'close': return wasOpen ? metrics.incConnectionsClosed(text('reason')) : undefined;
      case 'retry': return metrics.incReconnectAttempts(text('reason'));
      case 'cannotResume': return metrics.incResumeFailure(text('code'));
      case 'duplicate': return metrics.incDuplicateEvents(text('eventType'));
      case 'livenessFailure': return metrics.incLivenessFailures();
    }
  }

  #log(kind: string, info: Info): void {
    const logger = this.#logger;
    if (logger === undefined) return;
    const entry = ENTRIES[kind];
    if (entry !== undefined) logger[entry[0]](entry[1], entry[2], info);
    else if (kind === 'stateChange' && info['to'] === 'connecting') logger.info('client.connecting', 'connecting', info);
    else if (kind === 'close' && (info['reason'] === 'client_close' || info['reason'] === 'client_abort')) logger.info('client.stop', 'the app stopped the stream', info);
    else if (kind === 'close') logger.info('client.close', 'the stream ended', info);
  }

  #run(act: () => void): void {
    this.#host.enter();
    try {
      act();
    } catch (error) {
      reportUnhandled(error);
    } finally {
      this.#host.leave();
    }
  }
}

function since(before: number, now: number): number {
  return now >= before ? now - before : now;
}
