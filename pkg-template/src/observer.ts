// The one place where metrics and log entries of a connector are made: from its notices, and once for each batch from
// its counters. Nothing here runs for each event.

import { reportUnhandled, type SSEError } from './errors.js';
import type { StreamEvent } from './event.js';
import type { LoggerLike } from './logger.js';
import { ClientMetrics, type MetricsSink } from './metrics.js';
import type { ConnectionState, Stats } from './options.js';

export interface ObserverOptions {
  enableMetrics?: boolean;
  metricsSink?: MetricsSink;
  trackEventLag?: boolean;
  logger?: LoggerLike;
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

/** See above. */
export class Observer {
  readonly #metrics: ClientMetrics | undefined;
  readonly #logger: LoggerLike | undefined;
  readonly #tracksLag: boolean;
  readonly #host: ObserverHost;
  /** The connection resumes from a cursor, and it is not known yet whether the server could. */
  #resuming = false;
  #received = 0;
  #outOfOrder = 0;
  #processed = 0;
  #latest: StreamEvent | undefined;

  constructor(options: ObserverOptions, host: ObserverHost) {
    const { enableMetrics = true, metricsSink, logger, trackEventLag = true } = options;
    if (enableMetrics && metricsSink !== undefined) this.#metrics = new ClientMetrics({ sink: metricsSink });
    this.#logger = logger;
    this.#tracksLag = trackEventLag;
    this.#host = host;
  }

  /** Whether the counters are wanted after each batch. */
  get wantsCounters(): boolean {
    return this.#metrics !== undefined || this.#resuming;
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
      const event = code === 'line_too_long' || code === 'event_too_large' ? 'parse.error' : 'client.error';
      this.#logger?.[willRetry ? 'warn' : 'error'](event, message, { code, ...(status === undefined ? {} : { status }) });
    });
  }

  control(event: StreamEvent): void {
    if (event.type === 'control.replay_end') this.#run(() => this.#resumed());
    if (event.type !== 'control.open' || this.#logger === undefined) return;
    const { stream_id: streamId } = (event.payload ?? {}) as { stream_id?: unknown };
    if (typeof streamId === 'string') this.#run(() => this.#logger?.setStreamId?.(streamId));
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
      if (received > 0) this.#resumed();
      this.#metrics?.incEventsReceived(received);
      this.#metrics?.incOutOfOrderEvents(outOfOrder);
      this.#metrics?.incEventsProcessed(finished);
      if (this.#metrics === undefined || !this.#tracksLag || latest === this.#latest) return;
      this.#latest = latest;
      const lagMs = latest?.lagMs;
      // Two clocks that do not agree may make it negative.
      if (lagMs !== undefined) this.#metrics.recordEventLag(Math.max(0, lagMs));
    });
  }

  #resumed(): void {
    if (!this.#resuming) return;
    this.#resuming = false;
    this.#metrics?.incResumeSuccess();
    this.#logger?.info('resume.success', 'the stream goes on behind the cursor');
  }

  #count(kind: string, info: Info): void {
    const metrics = this.#metrics;
    if (kind === 'open') this.#resuming = info['lastEventId'] !== undefined;
    if (kind === 'close' || kind === 'cannotResume') this.#resuming = false;
    if (metrics === undefined) return;
    const text = (name: string): string => String(info[name]);
    switch (kind) {
      case 'stateChange': return metrics.setConnectionState(text('to') as ConnectionState);
      case 'open': return metrics.incConnectionsOpened();
      case 'close': return metrics.incConnectionsClosed(text('reason'));
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
    else if (kind === 'close' && info['reason'] === 'client_close') logger.info('client.stop', 'the app stopped the stream', info);
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
