// Runs the app's event handler over batches: in order, at most so many promises at once, and keeps the account of
// what was finished.

import { type Batch, Kind } from './batch.js';
import type { StreamEvent } from './event.js';
import type { Notice } from './glue/core.js';

/** What the pump needs of its connector. */
export interface PumpHost {
  /** Runs onEvent. It may throw, or return a promise. */
  handle(event: StreamEvent): unknown;
  /** Tells the app something else; never throws. */
  tell(kind: number, event: StreamEvent): void;
  notice(notice: Notice): void;
  /** A handler failed; answers whether to call it again after so many milliseconds, or to stop. */
  failed(error: unknown, event: StreamEvent, tries: number): 'skip' | 'stop' | number;
  /** The record with this token was finished, not within `deliver`. */
  done(token: number): void;
}

/** One generation of deliveries: a stop or a reconnect ends it, and what was not begun by then never is. */
export class Pump {
  /** The last record that was given to the app. */
  started = 0;

  readonly #host: PumpHost;
  readonly #concurrency: number;
  readonly #batches: Batch[] = [];
  /** Records whose handler failed and is to be called again. */
  readonly #waiting = new Set<number>();
  #pending = 0;
  #running = false;
  #ended = false;

  constructor(host: PumpHost, concurrency: number, started: number) {
    this.#host = host;
    this.#concurrency = concurrency;
    this.started = started;
  }

  /**
   * Nothing more is given to the app; what it has begun it may finish. What waits to be called again goes back, and
   * with it all that was begun behind it: the cursor is one place, not a list of holes.
   */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#batches.length = 0;
    for (const token of this.#waiting) this.started = Math.min(this.started, token - 1);
  }

  /** Whether it gives nothing more to the app. */
  get hasEnded(): boolean {
    return this.#ended;
  }

  /** Takes a batch in; answers how many of its first records are finished already. */
  deliver(batch: Batch): number {
    this.#batches.push(batch);
    if (this.#running || this.#pending > 0) {
      this.#run(undefined);
      return 0;
    }
    return this.#run(batch);
  }

  /**
   * Goes on as far as it can. Records of `counted` that are finished in an unbroken row from its first are counted
   * and answered, all others are reported one by one.
   */
  #run(counted: Batch | undefined): number {
    if (this.#running) return 0;
    this.#running = true;
    let finished = 0;
    try {
      while (!this.#ended && this.#pending < this.#concurrency) {
        const batch = this.#batches[0];
        if (batch === undefined) break;
        const index = batch.next++;
        if (index >= batch.length) {
          this.#batches.shift();
          continue;
        }
        if (!this.#begin(batch, index)) continue;
        if (batch === counted && index === finished) finished += 1;
        else this.#host.done(batch.token(index));
      }
    } finally {
      this.#running = false;
    }
    return finished;
  }

  /** Gives one record to the app; answers whether it is finished. */
  #begin(batch: Batch, index: number): boolean {
    const token = batch.token(index);
    const kind = batch.kind(index);
    this.started = token;
    if (kind === Kind.event) return this.#attempt(batch.event(index), token, 1);
    if (kind === Kind.notice) this.#host.notice(batch.notice(index));
    else if (kind !== Kind.cursor) this.#host.tell(kind, batch.event(index));
    return true;
  }

  #attempt(event: StreamEvent, token: number, tries: number): boolean {
    let result: unknown;
    try {
      result = this.#host.handle(event);
    } catch (error) {
      return this.#failed(error, event, token, tries);
    }
    if (!isThenable(result)) return true;
    this.#pending += 1;
    result.then(
      () => this.#settled(token, true),
      (error: unknown) => {
        this.#settled(token, this.#failed(error, event, token, tries));
      },
    );
    return false;
  }

  #failed(error: unknown, event: StreamEvent, token: number, tries: number): boolean {
    const next = this.#host.failed(error, event, tries);
    if (next === 'skip') return true;
    this.#waiting.add(token);
    if (next === 'stop' || this.#ended) {
      // Not processed: the cursor stays before it, and a later connect() gets it again.
      this.started = Math.min(this.started, token - 1);
      return false;
    }
    this.#pending += 1;
    setTimeout(() => {
      this.#pending -= 1;
      if (this.#ended) return;
      this.#waiting.delete(token);
      if (this.#attempt(event, token, tries + 1)) this.#finish(token);
      this.#run(undefined);
    }, next);
    return false;
  }

  #settled(token: number, finished: boolean): void {
    this.#pending -= 1;
    if (finished) this.#finish(token);
    this.#run(undefined);
  }

  #finish(token: number): void {
    // What was given back comes again, perhaps under the same token.
    if (this.#ended && token > this.started) return;
    this.#host.done(token);
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function';
}
