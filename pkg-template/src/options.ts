// Options and callbacks, exactly typed. Names and defaults are stable; the core checks values at run time.

import type { SSEError } from './errors.js';
import type { EventMap, StreamEvent, StreamEventOf } from './event.js';
import type { LoggerLike } from './logger.js';
import type { MetricsSink } from './metrics.js';
import type { EventIdStorage } from './storage.js';
import type { StandardSchemaIssue, StandardSchemaV1 } from './schema.js';

/** A value, or a function that gives one, asked anew at each attempt; it may be asynchronous. */
export type Fresh<T> = T | (() => T | Promise<T>);

/** Where a connection stands. */
export const ConnectionState = {
  IDLE: 'idle',
  CONNECTING: 'connecting',
  OPEN: 'open',
  RETRYING: 'retrying',
  CLOSED: 'closed',
} as const;
export type ConnectionState = (typeof ConnectionState)[keyof typeof ConnectionState];

/** Why it moved. */
export const TransitionReason = {
  CONNECT: 'connect',
  ACCEPTED: 'accepted',
  LOST: 'lost',
  RETRY_DUE: 'retry_due',
  RECONNECT: 'reconnect',
  REFUSED: 'refused',
  ENDED: 'ended',
  GAVE_UP: 'gave_up',
  STOP: 'stop',
} as const;
export type TransitionReason = (typeof TransitionReason)[keyof typeof TransitionReason];

/**
 * Why no further attempt is made. A connector's `onGiveUp` hears of the first two; an end that the app asked for is no giving
 * up, and is told by `onClose`. The other two are what a `ReconnectManager` says after its `stop()`, and without
 * `autoReconnect`.
 */
export const GiveUpReason = {
  MAX_ATTEMPTS_REACHED: 'max_attempts_reached',
  MAX_RETRY_TIME_EXCEEDED: 'max_retry_time_exceeded',
  USER_STOPPED: 'user_stopped',
  INTENTIONAL_DISCONNECT: 'intentional_disconnect',
} as const;
export type GiveUpReason = (typeof GiveUpReason)[keyof typeof GiveUpReason];

/** What follows when the server cannot replay; `CALLBACK` lets `onCannotResume` decide. */
export const CannotResumeFallback = {
  START_FRESH: 'start_fresh',
  CLOSE: 'close',
  CALLBACK: 'callback',
} as const;
export type CannotResumeFallback = (typeof CannotResumeFallback)[keyof typeof CannotResumeFallback];

/**
 * By what envelopes of a server with ids of its own are ordered, within their `stream_id`, else within the connection:
 * by `sequence`, by `event_id` as text (UUIDv7, ULID), by `ts` as a moment (equal ones pass), or not at all.
 */
export const OrderingRule = {
  SEQUENCE: 'SEQUENCE',
  EVENT_ID: 'EVENT_ID',
  TIMESTAMP: 'TIMESTAMP',
  NONE: 'NONE',
} as const;
export type OrderingRule = (typeof OrderingRule)[keyof typeof OrderingRule];

/** What happens to an event that is out of order. */
export const OutOfOrderPolicy = {
  DROP: 'DROP',
  DROP_WITH_CALLBACK: 'DROP_WITH_CALLBACK',
  ACCEPT: 'ACCEPT',
  /** Ours: early events wait for the missing ones, which are fetched where that is possible; late ones as DROP_WITH_CALLBACK. */
  REORDER: 'REORDER',
} as const;
export type OutOfOrderPolicy = (typeof OutOfOrderPolicy)[keyof typeof OutOfOrderPolicy];

/** What `onInvalid` is told. */
export interface InvalidInfo {
  /** The event; its `payload` is what was refused. */
  event: StreamEvent;
  issues: readonly StandardSchemaIssue[];
}

/** How an event listener is held, as with DOM events. */
export interface ListenerOptions {
  /** For one event only. */
  once?: boolean;
  /** Removes the listener when it is aborted. */
  signal?: AbortSignal;
}

/** What the app makes of a response; `undefined` leaves it to the connector. */
export type ResponseDecision = 'accept' | 'retry' | 'stop' | undefined;

/** What differs from the first request when the stream is resumed. */
export interface ResumedRequest {
  /** Relative ones start from the URL of the stream. */
  url?: string | URL;
  method?: string;
  /** Set over those of the option `headers`. */
  headers?: HeadersInit;
  /** In place of the option `body`. */
  body?: BodyInit | null;
}

/** When to try again; times in milliseconds. */
export interface RetryPolicy {
  /** Delay before the first retry; a `retry` field of the server replaces it. Default 1,000. */
  baseDelayMs?: number;
  /** Longest delay, unless the server asks for more with `Retry-After`. Default 30,000. */
  maxDelayMs?: number;
  /** Retries in a row, after the first failure, before giving up; 0 is none. Default Infinity. */
  maxAttempts?: number;
  /** Time since the stream was lost after which no attempt is made. Default Infinity. */
  maxRetryTimeMs?: number;
  /** Delays are spread by this share to either side, 0–1. Default 0.2. */
  jitterPct?: number;
  /**
   * `full` spreads each delay between nothing and the whole of it, in place of `jitterPct`: a crowd that was cut off in one
   * moment comes back evenly. Default 'proportional'.
   */
  jitterKind?: 'proportional' | 'full';
  /** Growth from one delay to the next. Default 2. */
  multiplier?: number;
}

/** A policy with everything in it. */
export type FullRetryPolicy = Readonly<Required<Omit<RetryPolicy, 'jitterKind'>>>;

/** What holds where `retryPolicy` says nothing. */
export const DEFAULT_RETRY_POLICY: FullRetryPolicy = {
  baseDelayMs: 1_000,
  maxDelayMs: 30_000,
  maxAttempts: Infinity,
  maxRetryTimeMs: Infinity,
  jitterPct: 0.2,
  multiplier: 2,
};

/** The same as a class: `new RetryPolicy({ maxAttempts: 5 })` has all fields, those that are not given by default. */
export const RetryPolicy: new (policy?: RetryPolicy) => FullRetryPolicy & RetryPolicy = class {
  constructor(policy: RetryPolicy = {}) {
    Object.assign(this, DEFAULT_RETRY_POLICY, policy);
  }
} as never;

export interface OpenInfo {
  /** The address that was asked, absolute; without what `lastEventIdParam` adds. */
  url: string;
  /** Connections before this one. */
  reconnectCount: number;
  /** Failed attempts before this one. */
  attempt: number;
  /** The cursor that was sent. */
  lastEventId?: string;
}
export interface CloseInfo {
  /** A `DisconnectReason`, or what another server says in `control.close`. */
  reason: string;
  willReconnect: boolean;
  /** Milliseconds until the next attempt. */
  retryIn?: number;
}
export interface RetryInfo {
  /** Number of the attempt, from 1, since the last healthy connection. */
  attempt: number;
  delayMs: number;
  reason: string;
}
export interface GiveUpInfo {
  reason: GiveUpReason;
  attempts: number;
  elapsedMs: number;
}
export interface DuplicateInfo {
  eventId: string;
  eventType: string;
}
export interface OutOfOrderInfo {
  eventId?: string;
  eventType: string;
  /** By what it is late. */
  rule: OrderingRule;
  /** With rule SEQUENCE: the number before it, and its own, which is not higher. */
  lastSequence?: number;
  sequence?: number;
  /** With rules EVENT_ID and TIMESTAMP: what came before it, and its own, which is not later. */
  lastMark?: string;
  mark?: string;
  dropped: boolean;
}
export interface GapInfo {
  /** The first missing event: its id, or with policy REORDER its `sequence`. */
  firstMissing: string;
  lastMissing: string;
  count: number;
  /** With policy REORDER: the `stream_id` that the numbers belong to, if there is one. */
  streamId?: string;
}
export interface LivenessFailureInfo {
  failure: 'no_first_byte' | 'silence';
  /** Milliseconds without a byte. */
  silentMs: number;
  /** Whether the connection was cut; otherwise this is a report only. */
  cut: boolean;
}
export interface CannotResumeInfo {
  code: string;
  reason: string;
  message: string;
  requestedId?: string;
  oldestAvailable?: string;
  newestAvailable?: string;
  /** How many events are missing, where it is known. */
  missing?: number;
}
/** What `onCannotResume` may answer. */
export type CannotResumeDecision = 'start_fresh' | 'close';
export interface StateChangeInfo {
  from: ConnectionState;
  to: ConnectionState;
  reason: TransitionReason;
}

/** Everything that can be set. `null` counts as absent. */
export type ConnectOptions<Map extends object = EventMap> = {
  [Name in keyof GivenOptions<Map>]?: GivenOptions<Map>[Name] | null;
};

/** The same without null. */
export interface GivenOptions<Map extends object = EventMap> {
  // Callbacks. What they throw is reported and changes nothing, but for onEvent: see onHandlerError.
  /** Each event, once and in order. May return a promise: the next event waits for it, and so does the cursor. */
  onEvent?: (event: StreamEventOf<Map>) => unknown;
  onOpen?: (info: OpenInfo) => void;
  onClose?: (info: CloseInfo) => void;
  onError?: (error: SSEError) => void;
  onRetry?: (info: RetryInfo) => void;
  onGiveUp?: (info: GiveUpInfo) => void;
  /** `system.heartbeat` events. */
  onHeartbeat?: (event: StreamEvent) => void;
  /** `control.*` and other `system.*` events. */
  onControl?: (event: StreamEvent) => void;
  /**
   * `system.error` events: something failed on the server, and the stream goes on. Without this they are told to onError as
   * `server_error`. onControl hears of them, too.
   */
  onSystemError?: (event: StreamEvent) => void;
  onDuplicate?: (info: DuplicateInfo) => void;
  onOutOfOrder?: (info: OutOfOrderInfo) => void;
  /** Events are missing that the server does not have. */
  onGap?: (info: GapInfo) => void;
  onLivenessFailure?: (info: LivenessFailureInfo) => void;
  /**
   * The server can no longer replay from the cursor. With `cannotResumeFallback: 'callback'` the answer, or what its promise
   * resolves to, decides what follows; whatever is not 'close' goes on.
   */
  onCannotResume?: (info: CannotResumeInfo) => CannotResumeDecision | void | PromiseLike<CannotResumeDecision | void>;
  onResumeAttempt?: (info: { lastEventId: string }) => void;
  onStateChange?: (info: StateChangeInfo) => void;

  // Handling
  /**
   * Asked before each event is checked and handed out: false skips it, and counts it as processed. What it throws is treated
   * as what onEvent throws.
   */
  shouldProcess?: (event: StreamEventOf<Map>) => boolean;
  /** What follows when onEvent throws or rejects: report and go on, report and call again, report and stop. Default 'skip'. */
  onHandlerError?: 'skip' | 'retry' | 'stop';
  /**
   * Promises of onEvent that may be pending at once: at so many the reading pauses. It also pauses, whatever is free, where
   * 10,000 events and heartbeats came behind one that is unfinished. A whole number from 1 to 1,000. Default 1, which keeps
   * the order.
   */
  handlerConcurrency?: number;
  /**
   * 'manual': the cursor moves past an event when the app calls `event.ack()`, however its handler ended (one that
   * fails is followed by `onHandlerError`; a skipped event counts as acked). Events are handed out in order meanwhile,
   * and after a reload those behind the oldest one without an ack come again, except for acked ones (of the 1,000 events,
   * or `maxUnacked` where that is more, that follow it). Default 'auto'.
   */
  ack?: 'auto' | 'manual';
  /**
   * With manual acks: events that may wait for theirs. At so many the reading pauses, and where 10,000 events and heartbeats
   * came behind one without an ack. A whole number. Default 1,000.
   */
  maxUnacked?: number;

  // Validation
  /**
   * What the payloads of events must be, by event name: any Standard Schema (Zod, Valibot, ArkType …). What it makes of
   * a payload becomes `event.payload`. Names without one pass unchecked.
   */
  schemas?: { readonly [Type in keyof Map]?: StandardSchemaV1<unknown, Map[Type]> };
  /** A payload is not what its schema says. Without this it is told to onError, as `invalid_event`. */
  onInvalid?: (info: InvalidInfo) => void;
  /**
   * What follows: report and count it as processed, report and stop before it (onClose hears `invalid_event`), report and hand
   * it over as it came. There is no 'retry' as with onHandlerError: the same payload would be refused again. Default 'skip'.
   */
  onInvalidEvent?: 'skip' | 'stop' | 'deliver';

  // Retry
  retryPolicy?: { [Name in keyof RetryPolicy]?: RetryPolicy[Name] | null };
  /** Default true. */
  autoReconnect?: boolean;
  /** How long a connection must be up before earlier failures are forgiven. Default 5,000 ms. */
  stableAfterMs?: number;
  /** How long the response head may take. Default 60,000 ms. */
  timeout?: number;

  // Resume
  /**
   * Keep the cursor, so that a reload or a restart resumes: in `eventIdStorage`, else in sessionStorage for this tab and
   * localStorage for new ones. Where there is no page (a worker, Node) and no `eventIdStorage` it is kept in memory, and
   * ends with the connector. Default false; true where an `eventIdStorage` is given.
   */
  persistLastEventId?: boolean;
  /** Where the cursor is kept, in place of the browser's storage: one of ours, or any object with the three methods. */
  eventIdStorage?: EventIdStorage;
  /** Name of the stored cursor. Default: origin and path of the URL, never its query. */
  persistKey?: string;
  /**
   * What follows when the server cannot resume: go on with what it still has; close, with the cursor kept; or what
   * onCannotResume answers ('callback'). Until it has, no event is handed out and the stored cursor stays. Default
   * 'start_fresh'.
   */
  cannotResumeFallback?: CannotResumeFallback;

  // Liveness
  /** Default true. */
  enableLivenessCheck?: boolean;
  /** Default 30,000; at least 2.5 heartbeat intervals that the server announced. */
  livenessTimeoutMs?: number;
  /** Default 5,000. */
  livenessGracePeriodMs?: number;

  // Dedupe and order, for servers with ids of their own
  /** Default true. */
  enableDedupe?: boolean;
  /** Default 1,000. */
  dedupeMaxSize?: number;
  /** Default 0: without end. */
  dedupeTtlMs?: number;
  /** Default true. */
  enableOrdering?: boolean;
  /** Default 'SEQUENCE'. */
  orderingRule?: OrderingRule;
  /** Default 'DROP_WITH_CALLBACK'. 'REORDER' needs the rule 'SEQUENCE' and `enableDedupe`. */
  outOfOrderPolicy?: OutOfOrderPolicy;
  /**
   * Early events that wait for a missing one; with 'REORDER', those of other streams that pass meanwhile count, too.
   * When it is full, the gap is fetched or told at once. At most `dedupeMaxSize` with 'REORDER'. Default 256, or
   * `dedupeMaxSize` where that is less.
   */
  reorderMaxEvents?: number;
  /** Bytes of the events that wait. Default 4 MiB. */
  reorderMaxBytes?: number;
  /** Milliseconds for which a missing event is waited for before it is fetched, or told by `onGap`. Default 500. */
  reorderWindowMs?: number;

  // Limits
  /** Default 4 MiB. */
  maxLineBytes?: number;
  /** Default 4 MiB. */
  maxEventBytes?: number;

  // Transport
  /**
   * How the stream comes. 'eventsource' takes the browser's own EventSource, which sends no headers, method or body, and
   * tells no status, no comment and no `retry`: options that it cannot keep are errors, every failure is a
   * `network_error` that is tried again (`maxAttempts` bounds it), liveness goes by events, and a handler that falls
   * 1,000 events behind costs a reconnect. On a server that is not ours an id that comes twice running counts as inherited:
   * such a repeat is delivered. Default 'fetch'.
   */
  transport?: 'fetch' | 'eventsource';
  /** With 'eventsource': names of the events to listen to, beside 'message'. Events of other names are not seen. */
  eventTypes?: readonly (keyof Map & string)[];

  // Life of the page
  /**
   * What follows when the page has been hidden for `hiddenAfterMs`: the stream stays as it is; no more is read until the
   * page is seen again ('pause': the connection stays, and the server feels that it is not read); or the connection is
   * closed, with the cursor kept, and made anew as soon as the page is seen ('close'; onClose hears the reason `hidden`).
   * Default 'stay'.
   */
  whenHidden?: 'stay' | 'pause' | 'close';
  /** Default 5,000: who only glances at another tab keeps the stream. */
  hiddenAfterMs?: number;

  // Request
  /** Default 'GET'. A request of another method is sent again only with `replayRequest` or `resumeRequest`. */
  method?: string;
  /** Anything that fetch takes, or a function that gives it anew at each attempt. A stream given as such is sent once. */
  body?: Fresh<BodyInit | null | undefined>;
  /**
   * The request may be sent again although its method is not GET: then a failure or an end of the response is followed
   * by another attempt, as with GET. Otherwise its end is the end. Default false.
   */
  replayRequest?: boolean;
  /**
   * What to ask for instead when a stream is resumed; it may be asynchronous. Called before each request but the first
   * one of a stream without a cursor, with the cursor (empty where no event with an id was processed).
   */
  resumeRequest?: (cursor: string) => ResumedRequest | undefined | Promise<ResumedRequest | undefined>;
  /**
   * Looks at each response before the connector does and may decide about it: read it as an event stream, try again
   * (`Retry-After` is kept), or close. May be asynchronous; reads a body only from `response.clone()`.
   */
  onResponse?: (response: Response) => ResponseDecision | void | Promise<ResponseDecision | void>;
  /** Stops the connector for good when it is aborted; an aborted one lets nothing begin. */
  signal?: AbortSignal;
  /** More of fetch's own options: `mode`, `redirect`, `referrerPolicy`, `priority` … */
  requestInit?: Omit<RequestInit, 'method' | 'body' | 'headers' | 'signal' | 'credentials' | 'cache'>;
  /** Asked anew at each attempt where it is a function. */
  headers?: Fresh<HeadersInit>;
  /** Sent as `X-Trace-ID`. */
  traceId?: string;
  credentials?: RequestCredentials;
  /**
   * Send the cursor in this query parameter instead of the `Last-Event-ID` header: across origins it saves the preflight.
   * Default with 'eventsource': 'lastEventId', the name that our server reads.
   */
  lastEventIdParam?: string;
  /** In place of the global fetch. */
  fetch?: typeof fetch;

  /** Log what happens to the console. Default false. */
  debug?: boolean;
  /** Log what happens as structured entries: `createClientLogger()`, or any object with its methods. */
  logger?: LoggerLike;

  // Metrics
  /** Default true: what `metricsSink` is given for. */
  enableMetrics?: boolean;
  /** Takes the metrics, `sse_client_…`: one of ours, or any object with the three methods. Default: none are made. */
  metricsSink?: MetricsSink;
  /** Observe `sse_client_event_lag_ms` of each event: it costs a look into its JSON. Default true. */
  trackEventLag?: boolean;
}

/** Counters since the connector was made. */
export interface Stats {
  /** Events that came, duplicates and late ones included. */
  eventsReceived: number;
  /** Events that were handed to onEvent. */
  eventsDelivered: number;
  duplicatesIgnored: number;
  outOfOrder: number;
  /** Events that the server could not give, where their number is known. */
  eventsMissing: number;
  heartbeats: number;
  reconnectCount: number;
  connectionsOpened: number;
  livenessFailures: number;
  bytesReceived: number;
  clockRegressions: number;
  /** Milliseconds from the making of the latest event to its arrival; undefined before one that says when it was made. */
  lag: number | undefined;
  state: ConnectionState;
  /** The cursor: everything up to this id is processed. */
  lastEventId: string;
}
