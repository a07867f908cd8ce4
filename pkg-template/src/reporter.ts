// Tells the app what went wrong, and the log and the console with it.

import { reportUnhandled, serverError, type SSEError } from './errors.js';
import type { StreamEvent } from './event.js';
import type { Observer } from './observer.js';
import type { GivenOptions } from './options.js';
import type { StandardSchemaIssue } from './schema.js';

/** Runs app code; nothing that it throws gets out. */
type Call = <Info>(callback: (info: Info) => unknown, info: Info) => void;

/** See above. */
export class Reporter {
  readonly #options: GivenOptions;
  readonly #observer: Observer | undefined;
  readonly #call: Call;

  constructor(options: GivenOptions, observer: Observer | undefined, call: Call) {
    this.#options = options;
    this.#observer = observer;
    this.#call = call;
  }

  debug(...told: unknown[]): void {
    if (this.#options.debug === true) console.debug('[holdfast]', ...told);
  }

  error(error: SSEError): void {
    const { onError } = this.#options;
    this.debug(error);
    this.#observer?.error(error);
    if (typeof onError === 'function') this.#call(onError, error);
    // Errors that the connector deals with by itself are no news to a page that does not ask for them.
    else if (!error.willRetry) reportUnhandled(error);
  }

  /** A schema refused this event's payload. */
  invalid(told: SSEError, event: StreamEvent, issues: readonly StandardSchemaIssue[]): void {
    const { onInvalid } = this.#options;
    if (onInvalid === undefined) return this.error(told);
    this.#observer?.error(told);
    this.#call(onInvalid, { event, issues });
  }

  /** The server says that something failed there. */
  systemError(event: StreamEvent): void {
    const told = serverError(event);
    const { onSystemError } = this.#options;
    if (onSystemError === undefined) return this.error(told);
    this.#observer?.error(told);
    this.#call(onSystemError, event);
  }
}
