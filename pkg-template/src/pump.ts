// Runs the app's event handler over batches: in order, at most so many promises at once, and keeps the account of
// what was finished.

import { type Batch, Kind } from './batch.js';
import type { StreamEvent } from './event.js';
import type { Notice } from './glue/core.js';

/** What the pump needs of its connector. */
export interface PumpHost {
  /** The app's handler. It may throw, or return a promise. */
  readonly onEvent: (event: StreamEvent) => unknown;
  /** App code runs from here on: the core must not be called. */
  enter(): void;
  /** Out of app code again. */
  leave(): void;
  /** Tells the app of a heartbeat or control event; never throws. */
  tell(kind: number, event: StreamEvent): void;
  notice(notice: Notice): void;
  /** A handler failed: skip the event, stop, or call the handler again after so many milliseconds. */
  failed(error: unknown, event: StreamEvent, tries: number): 'skip' | 'stop' | number;
  /** The record with this token was finished, not within the call that delivered it. */
  done(token: number): void;
}

/** One generation of deliveries: a stop or a reconnect ends it, and what was not begun by then never is. */
export class Pump {
  /** The last record that was given to the app. */
  started: number;
  /** The last event that was given to the app. */
  latest: StreamEvent | undefined;

  readonly #host: PumpHost;
  readonly #concurrency: number;
  readonly #batches: Batch[] = [];
  /** Records whose handler failed and is to be called again, or was the reason to stop. */
  readonly #unfinished = new Set<number>();
  #pending = 0;
  #running = false;
  #ended = false;

  constructor(host: PumpHost, concurrency: number, started: number) {
    this.#host = host;
    this.#concurrency = concurrency;
    this.started = started;
  }

  /** Whether it gives nothing more to the app. */
  get hasEnded(): boolean {
    return this.#ended;
  }

  /**
   * Nothing more is given to the app; what it has begun it may finish. What waits to be called again goes back, and
   * with it all that was begun behind it: the cursor is one place, not a list of holes.
   */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#batches.length = 0;
    for (const token of this.#unfinished) this.started = Math.min(this.started, token - 1);
  }

  /** Takes a batch in; answers how many of its first records are finished already. */
  deliver(batch: Batch): number {
    const idle = !this.#running && this.#pending === 0;
    this.#batches.push(batch);
    return this.#run(idle ? batch : undefined);
  }

  /**
   * Goes on as far as it can. Records of `counted` that are finished in an unbroken row from its first are counted
   * and answered, all others are reported one by one.
   */
  #run(counted?: Batch): number {
    if (this.#running) return 0;
    this.#running = true;
    let finished = 0;
    while (!this.#ended && this.#pending < this.#concurrency) {
      const batch = this.#batches[0];
      if (batch === undefined) break;
      const from = batch.next;
      if (from >= batch.length) {
        this.#batches.shift();
        continue;
      }
      const inRow = batch === counted && from === finished;
      const allFinished = batch.kind(from) === Kind.event ? this.#events(batch) : this.#other(batch);
      const through = allFinished ? batch.next : batch.next - 1;
      if (inRow) finished = through;
      else for (let index = from; index < through; index += 1) this.#finish(batch.token(index));
    }
    this.#running = false;
    return finished;
  }

  /** Gives events to the app until something else comes or a handler does not simply return: the hot path. */
  #events(batch: Batch): boolean {
    const { onEvent } = this.#host;
    let event!: StreamEvent;
    let result: unknown;
    let failure: { error: unknown } | undefined;
    this.#host.enter();
    try {
      do {
        event = batch.event(batch.next);
        this.started = batch.token(batch.next);
        batch.next += 1;
        result = onEvent(event);
        if (this.#ended || (typeof result === 'object' && result !== null)) break;
      } while (batch.next < batch.length && batch.kind(batch.next) === Kind.event);
    } catch (error) {
      failure = { error };
    }
    this.latest = event;
    this.#host.leave();
    return this.#outcome(result, failure, event, this.started, 1);
  }

  #other(batch: Batch): boolean {
    const index = batch.next;
    const kind = batch.kind(index);
    batch.next += 1;
    this.started = batch.token(index);
    if (kind === Kind.notice) this.#host.notice(batch.notice(index));
    else if (kind !== Kind.cursor) this.#host.tell(kind, batch.event(index));
    return true;
  }

  /** Whether the record is finished, now that its handler returned or threw. */
  #outcome(
    result: unknown,
    failure: { error: unknown } | undefined,
    event: StreamEvent,
    token: number,
    tries: number,
  ): boolean {
    if (failure !== undefined) return this.#failed(failure.error, event, token, tries);
    if (!isThenable(result)) return true;
    this.#pending += 1;
    const settled = (finished: boolean): void => {
      this.#pending -= 1;
      if (finished) this.#finish(token);
      this.#run();
    };
    result.then(
      () => settled(true),
      (error: unknown) => settled(this.#failed(error, event, token, tries)),
    );
    return false;
  }

  #failed(error: unknown, event: StreamEvent, token: number, tries: number): boolean {
    const next = this.#host.failed(error, event, tries);
    if (next === 'skip') return true;
    // Not processed: the cursor stays before it, and a later connect() gets it again.
    this.#unfinished.add(token);
    if (next === 'stop' || this.#ended) {
      this.started = Math.min(this.started, token - 1);
      return false;
    }
    this.#pending += 1;
    setTimeout(() => {
      this.#pending -= 1;
      if (this.#ended) return;
      this.#unfinished.delete(token);
      if (this.#again(event, token, tries + 1)) this.#finish(token);
      this.#run();
    }, next);
    return false;
  }

  #again(event: StreamEvent, token: number, tries: number): boolean {
    let result: unknown;
    let failure: { error: unknown } | undefined;
    this.#host.enter();
    try {
      result = this.#host.onEvent(event);
    } catch (error) {
      failure = { error };
    }
    this.#host.leave();
    return this.#outcome(result, failure, event, token, tries);
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
