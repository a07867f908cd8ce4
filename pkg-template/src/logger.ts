// A structured log: one line of JSON for each entry, without secrets.

import { redact } from './redact.js';

export const LogLevel = { DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const;
export type LogLevel = (typeof LogLevel)[keyof typeof LogLevel];

/** Who writes. */
export const LogComponent = {
  SERVER: 'server',
  STREAM: 'stream',
  CONNECTION: 'connection',
  HEARTBEAT: 'heartbeat',
  REPLAY: 'replay',
  METRICS: 'metrics',
  CLIENT: 'client',
  CONNECTOR: 'connector',
  RECONNECT: 'reconnect',
  LIVENESS: 'liveness',
  DEDUPE: 'dedupe',
  ORDERING: 'ordering',
  RESUME: 'resume',
} as const;
export type LogComponent = (typeof LogComponent)[keyof typeof LogComponent];

/** What happened. */
export const LogEvent = {
  STREAM_CONNECT: 'stream.connect',
  STREAM_OPEN: 'stream.open',
  STREAM_CLOSE: 'stream.close',
  STREAM_REJECT: 'stream.reject',
  CLIENT_CONNECTING: 'client.connecting',
  CLIENT_OPEN: 'client.open',
  CLIENT_RETRY_SCHEDULED: 'client.retry_scheduled',
  CLIENT_GIVE_UP: 'client.give_up',
  CLIENT_STOP: 'client.stop',
  CLIENT_CLOSE: 'client.close',
  CLIENT_ERROR: 'client.error',
  RESUME_ATTEMPT: 'resume.attempt',
  RESUME_SUCCESS: 'resume.success',
  RESUME_CANNOT_RESUME: 'resume.cannot_resume',
  RESUME_FAILURE: 'resume.failure',
  REPLAY_START: 'replay.start',
  REPLAY_END: 'replay.end',
  REPLAY_TRUNCATED: 'replay.truncated',
  HEARTBEAT_SENT: 'heartbeat.sent',
  HEARTBEAT_FAILED: 'heartbeat.failed',
  LIVENESS_FAILURE: 'liveness.failure',
  PARSE_ERROR: 'parse.error',
  VALIDATION_ERROR: 'validation.error',
  DUPLICATE_DETECTED: 'duplicate.detected',
  OUT_OF_ORDER: 'out_of_order.detected',
  GAP_DETECTED: 'gap.detected',
} as const;
export type LogEvent = (typeof LogEvent)[keyof typeof LogEvent];

/** One line. */
export interface LogEntry {
  ts: string;
  level: LogLevel;
  component: string;
  event: string;
  message: string;
  stream_id?: string;
  trace_id?: string;
  details?: Record<string, unknown>;
  [context: string]: unknown;
}

/** Takes the lines; `console` is one. */
export interface LogOutput {
  debug(line: string): void;
  log(line: string): void;
  warn(line: string): void;
  error(line: string): void;
}

/** What the option `logger` takes: a `Logger`, or any object with these methods. */
export interface LoggerLike {
  debug(event: string, message: string, details?: Record<string, unknown>): unknown;
  info(event: string, message: string, details?: Record<string, unknown>): unknown;
  warn(event: string, message: string, details?: Record<string, unknown>): unknown;
  error(event: string, message: string, details?: Record<string, unknown>): unknown;
  /** Told when the server names the stream: in `control.open`, else in the first envelope of a connection that does. */
  setStreamId?(streamId: string): void;
  /** Told of the option `traceId`, and when the server names the trace. */
  setTraceId?(traceId: string): void;
}

export interface LoggerOptions {
  component?: string;
  /** Default 'info'. */
  level?: LogLevel;
  streamId?: string;
  traceId?: string;
  /** Default true. */
  enabled?: boolean;
  /** Added to each entry. */
  context?: Record<string, unknown>;
  /** Default the console. */
  output?: LogOutput;
}

const PRIORITY = { debug: 0, info: 1, warn: 2, error: 3 } as const;

/** See above. */
export class Logger implements LoggerLike {
  readonly #options: LoggerOptions;

  constructor(options: LoggerOptions = {}) {
    this.#options = { ...options };
  }

  debug(event: string, message: string, details?: Record<string, unknown>): LogEntry | undefined {
    return this.#log('debug', event, message, details);
  }

  info(event: string, message: string, details?: Record<string, unknown>): LogEntry | undefined {
    return this.#log('info', event, message, details);
  }

  warn(event: string, message: string, details?: Record<string, unknown>): LogEntry | undefined {
    return this.#log('warn', event, message, details);
  }

  error(event: string, message: string, details?: Record<string, unknown>): LogEntry | undefined {
    return this.#log('error', event, message, details);
  }

  /** A logger like this one, with other options on top. */
  child(options: LoggerOptions): Logger {
    return new Logger({ ...this.#options, ...options, context: { ...this.#options.context, ...options.context } });
  }

  setStreamId(streamId: string): void {
    this.#options.streamId = streamId;
  }

  setTraceId(traceId: string): void {
    this.#options.traceId = traceId;
  }

  setLevel(level: LogLevel): void {
    this.#options.level = level;
  }

  setEnabled(enabled: boolean): void {
    this.#options.enabled = enabled;
  }

  #log(level: LogLevel, event: string, message: string, details: Record<string, unknown> = {}): LogEntry | undefined {
    const { enabled = true, level: least = 'info', component = 'app', streamId, traceId, context = {} } = this.#options;
    if (!enabled || PRIORITY[level] < PRIORITY[least]) return undefined;
    const entry: LogEntry = {
      ...(redact(context) as Record<string, unknown>),
      ts: new Date().toISOString(),
      level,
      component,
      event,
      message: redact(message) as string,
      ...(streamId === undefined ? {} : { stream_id: streamId }),
      ...(traceId === undefined ? {} : { trace_id: traceId }),
      ...(Object.keys(details).length === 0 ? {} : { details: redact(details) as Record<string, unknown> }),
    };
    const output = this.#options.output ?? console;
    const line = JSON.stringify(entry);
    if (level === 'info') output.log(line);
    else output[level](line);
    return entry;
  }
}

export function createLogger(options?: LoggerOptions): Logger {
  return new Logger(options);
}

/** A logger for the option `logger`: component `client`. */
export function createClientLogger(options: LoggerOptions = {}): Logger {
  return new Logger({ component: LogComponent.CLIENT, ...options });
}

let clientLogger: Logger | undefined;

/** The page's one client logger, made with `options` on the first call. */
export function getClientLogger(options?: LoggerOptions): Logger {
  clientLogger ??= createClientLogger(options);
  return clientLogger;
}
