// Names and presets that apps branch on or pass in. Plain values: what an app does not use is not in its bundle.

import { DEFAULT_RETRY_POLICY, type FullRetryPolicy, type RetryPolicy } from './options.js';

const AGGRESSIVE: FullRetryPolicy =
  { ...DEFAULT_RETRY_POLICY, baseDelayMs: 500, maxDelayMs: 10_000, maxAttempts: 20, jitterPct: 0.3 };
const CONSERVATIVE: FullRetryPolicy =
  { ...DEFAULT_RETRY_POLICY, baseDelayMs: 2_000, maxDelayMs: 60_000, maxAttempts: 5 };

/** Ready-made values for `retryPolicy`. A function's answer is the caller's own, to change as it likes. */
export const RetryPolicies = {
  /** Back soon, 20 attempts. For a stream that somebody is looking at. */
  AGGRESSIVE,
  /** The default: for ever, at most 30 s apart. */
  STANDARD: DEFAULT_RETRY_POLICY,
  /** Slowly, 5 attempts. For streams that are nice to have. */
  CONSERVATIVE,
  default: (): RetryPolicy => ({ ...DEFAULT_RETRY_POLICY }),
  aggressive: (): RetryPolicy => ({ ...AGGRESSIVE }),
  conservative: (): RetryPolicy => ({ ...CONSERVATIVE }),
  /** Any number of attempts within five minutes. */
  timeCapped: (): RetryPolicy => ({ ...DEFAULT_RETRY_POLICY, maxRetryTimeMs: 300_000, jitterPct: 0.25 }),
  /** Ten attempts within two minutes. */
  balanced: (): RetryPolicy =>
    ({ ...DEFAULT_RETRY_POLICY, maxDelayMs: 15_000, maxAttempts: 10, maxRetryTimeMs: 120_000 }),
  /** No retry at all. */
  none: (): RetryPolicy => ({ ...DEFAULT_RETRY_POLICY, maxAttempts: 0 }),
  /** For ever, at most a minute apart. */
  persistent: (): RetryPolicy => ({ ...DEFAULT_RETRY_POLICY, maxDelayMs: 60_000, jitterPct: 0.25 }),
} as const;

/** What holds where `dedupeMaxSize` and `dedupeTtlMs` say nothing. */
export const DEDUPE_DEFAULTS = { MAX_SIZE: 1_000, TTL_MS: 0 } as const;

/** Defaults of client and server. */
export const Defaults = {
  HEARTBEAT_INTERVAL_MS: 15_000,
  CLIENT_TIMEOUT_MS: 60_000,
  LIVENESS_TIMEOUT_MS: 30_000,
  LIVENESS_GRACE_PERIOD_MS: 5_000,
  RETRY_INTERVAL_MS: 3_000,
  MAX_RETRY_ATTEMPTS: Infinity,
  MAX_REPLAY_EVENTS: 1_000,
} as const;

/** Why a stream ended, as `onClose` tells it. Another server may give reasons of its own in `control.close`. */
export const DisconnectReason = {
  /** The app's `stop()`. */
  CLIENT_CLOSE: 'client_close',
  /** The option `signal` was aborted. */
  CLIENT_ABORT: 'client_abort',
  /** No response head within `timeout`. */
  CLIENT_TIMEOUT: 'client_timeout',
  SERVER_SHUTDOWN: 'server_shutdown',
  SERVER_RESTART: 'server_restart',
  /** Status 500 or above, or the server's own word. */
  SERVER_ERROR: 'server_error',
  IDLE_TIMEOUT: 'idle_timeout',
  NETWORK_ERROR: 'network_error',
  HEARTBEAT_MISSED: 'heartbeat_missed',
  LIVENESS_TIMEOUT: 'liveness_timeout',
  /** Status 503. */
  OVERLOAD_REJECT: 'overload_reject',
  /** Status 429, or the server's own word. */
  RATE_LIMITED: 'rate_limited',
  AUTH_EXPIRED: 'auth_expired',
  STREAM_ENDED: 'stream_ended',
  /** A line or event over the limit. */
  PARSE_ERROR: 'parse_error',
  /** A schema refused a payload, and `onInvalidEvent` is `stop`. */
  INVALID_EVENT: 'invalid_event',
  /** Ours: a handler failed, and `onHandlerError` is `stop`. */
  HANDLER_FAILED: 'handler_failed',
  /** Ours: a new connection replaces the open one. */
  RECONNECT: 'reconnect',
  /** Ours: events were missing, and are fetched by a new connection. */
  GAP: 'gap',
  /** Ours: the page was hidden, and `whenHidden` is `close`. */
  HIDDEN: 'hidden',
  /** Ours: the page was left, and may come back out of the browser's cache. */
  PAGE_LEFT: 'page_left',
  /** Ours: the server cannot replay, and `cannotResumeFallback` or `onCannotResume` says `close`. */
  CANNOT_RESUME: 'cannot_resume',
  /** Ours: any other status that is no stream, or `onResponse` said so. */
  HTTP_STATUS: 'http_status',
  /** Ours: 401 or 403, and no fresh credentials. */
  AUTH_REQUIRED: 'auth_required',
  /** Ours: an answer that is no event stream. */
  WRONG_CONTENT_TYPE: 'wrong_content_type',
  /** Ours: an option cannot be used. */
  INVALID_OPTION: 'invalid_option',
  /** Ours: the URL, or what a function gave as one, cannot be used. */
  INVALID_URL: 'invalid_url',
  /** Ours: there is no WebAssembly here, or a policy forbids it. */
  WASM_BLOCKED: 'wasm_blocked',
  /** Ours: the core failed too often, or under a request that may not be sent again. */
  WASM_TRAP: 'wasm_trap',
} as const;
export type DisconnectReason = (typeof DisconnectReason)[keyof typeof DisconnectReason];

/** Why a server cannot replay: `code` of `onCannotResume`. */
export const CannotResumeReason = {
  EVENT_NOT_FOUND: 'event_not_found',
  BUFFER_EXPIRED: 'buffer_expired',
  REPLAY_TOO_LARGE: 'replay_too_large',
  RESUME_DISABLED: 'resume_disabled',
  INVALID_EVENT_ID: 'invalid_event_id',
  STREAM_NOT_FOUND: 'stream_not_found',
  NO_BUFFER: 'no_buffer',
} as const;
export type CannotResumeReason = (typeof CannotResumeReason)[keyof typeof CannotResumeReason];
