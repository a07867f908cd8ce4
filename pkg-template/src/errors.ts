// What goes wrong, with stable codes.

/** Codes of errors. They do not change: an app may branch on them. */
export type ErrorCode =
  | 'invalid_option'
  | 'invalid_url'
  | 'http_status'
  | 'auth_required'
  | 'wrong_content_type'
  | 'network_error'
  | 'connect_timeout'
  | 'no_first_byte'
  | 'silence'
  | 'line_too_long'
  | 'event_too_large'
  | 'storage_unavailable'
  | 'handler_failed'
  | 'invalid_event'
  | 'server_error'
  | 'gave_up'
  | 'wasm_blocked'
  | 'wasm_trap'
  | 'cannot_resume';

/** What `onError` gets. */
export class SSEError extends Error {
  override readonly name = 'SSEError';
  /** Stable, to branch on. */
  readonly code: ErrorCode;
  /** The HTTP status, where there was one. */
  readonly status: number | undefined;
  /** Whether the connector goes on by itself. */
  readonly willRetry: boolean;
  /** The option that is wrong, for `invalid_option` and `invalid_url`. */
  readonly option: string | undefined;
  /** The event whose handler failed or whose payload is wrong, or the server's, for `handler_failed`, `invalid_event` and `server_error`. */
  readonly event: unknown;

  constructor(
    code: ErrorCode,
    message: string,
    more: { status?: number; willRetry?: boolean; option?: string; event?: unknown; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.code = code;
    this.status = more.status;
    this.willRetry = more.willRetry ?? false;
    this.option = more.option;
    this.event = more.event;
  }
}

/** An error that nobody handles, as the platform reports such: never swallowed, never in our own stack. */
export function reportUnhandled(error: unknown): void {
  if (typeof reportError === 'function') reportError(error);
  else queueMicrotask(() => { throw error; });
}

/** What the app is told of a handler that threw or rejected. */
export function handlerFailure(
  cause: unknown,
  event: { readonly id: string | undefined; readonly type: string },
  willRetry: boolean,
): SSEError {
  return new SSEError('handler_failed', `the handler failed for event ${event.id ?? event.type}: ${shown(cause)}`, { cause, event, willRetry });
}

/** What was thrown, in words. Anything can be thrown, also what cannot be turned into text. */
export function shown(cause: unknown): string {
  try {
    return cause instanceof Error ? String(cause.message) : String(cause);
  } catch {
    return 'something that has no text';
  }
}

const HANDLER_RETRY_MS_MIN = 100;
const HANDLER_RETRY_MS_MAX = 30_000;

/** How long a failed handler waits to be called again: doubled from the first time to the next. */
export function handlerRetryMs(tries: number): number {
  return Math.min(HANDLER_RETRY_MS_MIN * 2 ** (tries - 1), HANDLER_RETRY_MS_MAX);
}

/** What the app is told of a `system.error` event where nothing else hears of it: the stream goes on. */
export function serverError(event: { readonly payload: unknown }): SSEError {
  const { message, code } = (event.payload ?? {}) as { message?: unknown; code?: unknown };
  const said = typeof message === 'string' ? message : 'no message';
  const named = typeof code === 'string' ? ` (${code})` : '';
  return new SSEError('server_error', `the server reports an error${named}: ${said}`, { event, willRetry: true });
}

/** An error as the core tells it. */
export interface ErrorNotice {
  code: ErrorCode;
  message: string;
  status?: number;
  willRetry: boolean;
}

export function noticedError({ code, message, status, willRetry }: ErrorNotice): SSEError {
  return new SSEError(code, message, { willRetry, ...(status === undefined ? {} : { status }) });
}

/** Why there is no core: it refused an option, or could not be loaded. */
export function failureOf(cause: unknown): SSEError {
  const { code, option, message } = (cause ?? {}) as { code?: ErrorCode; option?: string; message?: string };
  const named = option === undefined ? {} : { option };
  return new SSEError(code ?? 'wasm_blocked', message ?? shown(cause), { cause, ...named });
}
