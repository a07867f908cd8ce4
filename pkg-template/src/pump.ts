// Runs the app's event handler over batches: in order, at most so many promises at once, and keeps the account of
// what was finished.

import { ack, isAcked, onAck } from './ack.js';
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
  /** Tells of a heartbeat, a control event or an id without an event; never throws. */
  tell(kind: number, event: StreamEvent): void;
  notice(notice: Notice): void;
  /** A handler failed: skip the event, stop, or call the handler again after so many milliseconds. */
  failed(error: unknown, event: StreamEvent, tries: number): 'skip' | 'stop' | number;
  /** Stops the stream, as a handler's failure wants it. */
  stop(): void;
  /** The record with this token was finished, not within the call that delivered it. */
  done(token: number): void;
  /** Nothing is left to hand out, and no handler is at work. */
  idle(): void;
}

/** A handler at work, or one that is to be called again. */
interface Flight {
  readonly event: StreamEvent;
  readonly token: number;
  readonly tries: number;
  /** The core has been told that the app never got this: its end counts no more. */
  void: boolean;
}

/** How a handler ended. */
interface Outcome {
  readonly result?: unknown;
  readonly failure?: { readonly error: unknown };
}

/** See above. One pump serves a connector all its life. */
export class Pump {
  /** The last record that was given to the app. */
  started = 0;
  /** Events that the app has finished, failed ones that are skipped included. */
  processed = 0;
  /** The last event that was given to the app. */
  latest: StreamEvent | undefined;

  readonly #host: PumpHost;
  readonly #concurrency: number;
  /** Events that may wait for their ack; undefined where none does. */
  readonly #unackedMax: number | undefined;
  readonly #batches: Batch[] = [];
  readonly #working = new Set<Flight>();
  /** To be called again when their timer fires. */
  readonly #waiting = new Map<Flight, ReturnType<typeof setTimeout>>();
  /** Handled, and waiting for the app's ack. */
  readonly #unacked = new Set<Flight>();
  #open = true;
  #running = false;

  constructor(host: PumpHost, concurrency: number, unackedMax: number | undefined) {
    this.#host = host;
    this.#concurrency = concurrency;
    this.#unackedMax = unackedMax;
  }

  /**
   * Nothing more is given to the app; what it has begun it may finish. What waits to be called again goes back, and
   * with it all that was begun behind it: the cursor is one place, not a list of holes.
   */
  close(): void {
    this.#open = false;
    this.#batches.length = 0;
    for (const [flight, timer] of this.#waiting) {
      clearTimeout(timer);
      this.started = Math.min(this.started, flight.token - 1);
    }
    this.#waiting.clear();
    for (const flights of [this.#working, this.#unacked]) {
      for (const flight of flights) flight.void ||= flight.token > this.started;
    }
  }

  /** Goes on with what will be delivered from now. Handlers that are still at work keep their place before it. */
  open(): void {
    this.#open = true;
  }

  /** Begins anew with a core that knows nothing of what was given to the app before. */
  forget(): void {
    this.close();
    for (const flight of [...this.#working, ...this.#unacked]) flight.void = true;
    this.#unacked.clear();
    this.started = 0;
    this.open();
  }

  /** Takes a batch in; answers how many of its first records are finished already. */
  deliver(batch: Batch): number {
    if (!this.#open) {
      batch.settle();
      return 0;
    }
    this.#batches.push(batch);
    const finished = this.#run(this.#batches.length === 1 ? batch : undefined);
    batch.settle();
    return finished;
  }

  /** Whether there is nothing to hand out and no handler at work. */
  get isIdle(): boolean {
    return !this.#running && this.#batches.length === 0 && this.#working.size === 0 && this.#waiting.size === 0;
  }

  get #isBusy(): boolean {
    const atWork = this.#working.size + this.#waiting.size;
    if (atWork >= this.#concurrency) return true;
    return this.#unackedMax !== undefined && atWork + this.#unacked.size >= this.#unackedMax;
  }

  /**
   * Goes on as far as it can. Records of `counted` that are finished in an unbroken row from its first are counted
   * and answered, all others are reported one by one.
   */
  #run(counted?: Batch): number {
    if (this.#running) return 0;
    this.#running = true;
    let finished = 0;
    while (this.#open && !this.#isBusy) {
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
      else for (let index = from; index < through; index += 1) this.#host.done(batch.token(index));
    }
    this.#running = false;
    if (this.isIdle) this.#host.idle();
    return finished;
  }

  /** Gives events to the app until something else comes or a handler does not simply return: the hot path. */
  #events(batch: Batch): boolean {
    const { onEvent } = this.#host;
    const from = batch.next;
    let event!: StreamEvent;
    let outcome: Outcome = {};
    this.#host.enter();
    try {
      let result: unknown;
      do {
        event = batch.event(batch.next);
        this.started = batch.token(batch.next);
        batch.next += 1;
        result = onEvent(event);
      } while (
        this.#open && (typeof result !== 'object' || result === null)
        && batch.next < batch.length && batch.kind(batch.next) === Kind.event
      );
      outcome = { result };
    } catch (error) {
      outcome = { failure: { error } };
    }
    this.latest = event;
    this.processed += batch.next - from - 1;
    this.#host.leave();
    return this.#judge(outcome, { event, token: batch.token(batch.next - 1), tries: 1, void: false });
  }

  #other(batch: Batch): boolean {
    const index = batch.next;
    const kind = batch.kind(index);
    batch.next += 1;
    this.started = batch.token(index);
    if (kind === Kind.notice) this.#host.notice(batch.notice(index));
    else this.#host.tell(kind, batch.event(index));
    return true;
  }

  /** Whether the record is finished, now that its handler returned or threw. */
  #judge({ result, failure }: Outcome, flight: Flight): boolean {
    if (failure !== undefined) return this.#failed(failure.error, flight);
    if (this.#unackedMax !== undefined) return this.#awaitAck(result, flight);
    if (!isThenable(result)) {
      this.processed += 1;
      return true;
    }
    this.#working.add(flight);
    const settled = (finish: () => boolean): void => {
      this.#working.delete(flight);
      if (finish() && !flight.void) this.#host.done(flight.token);
      this.#run();
    };
    Promise.resolve(result).then(
      () => settled(() => {
        this.processed += 1;
        return true;
      }),
      (error: unknown) => settled(() => this.#failed(error, flight)),
    );
    return false;
  }

  /** The same where not the handler's end finishes the record, but the app's ack. */
  #awaitAck(result: unknown, flight: Flight): boolean {
    const { event, token } = flight;
    if (isThenable(result)) {
      this.#working.add(flight);
      const settled = (failure?: { error: unknown }): void => {
        this.#working.delete(flight);
        if (failure === undefined) {
          if (!isAcked(event)) this.#unacked.add(flight);
        } else if (this.#failed(failure.error, flight)) {
          ack(event);
        }
        this.#run();
      };
      Promise.resolve(result).then(() => settled(), (error: unknown) => settled({ error }));
    } else if (!isAcked(event)) {
      this.#unacked.add(flight);
    }
    if (isAcked(event)) {
      this.processed += 1;
      return true;
    }
    onAck(event, () => {
      this.processed += 1;
      this.#unacked.delete(flight);
      if (!flight.void) this.#host.done(token);
      // The ack may be given in the middle of anything that the app does.
      queueMicrotask(() => this.#run());
    });
    return false;
  }

  #failed(error: unknown, flight: Flight): boolean {
    const { event, token, tries } = flight;
    const next = this.#host.failed(error, event, tries);
    if (next === 'skip') {
      this.processed += 1;
      return true;
    }
    if (flight.void) return false;
    if (next === 'stop' || !this.#open) {
      // Not processed: the cursor stays before it, and a later connect() gets it again.
      this.started = Math.min(this.started, token - 1);
      if (next === 'stop') this.#host.stop();
      return false;
    }
    const again: Flight = { event, token, tries: tries + 1, void: false };
    this.#waiting.set(again, setTimeout(() => this.#again(again), next));
    return false;
  }

  #again(flight: Flight): void {
    this.#waiting.delete(flight);
    let outcome: Outcome;
    this.#host.enter();
    try {
      // It may have been acked before it was called again.
      outcome = this.#unackedMax !== undefined && isAcked(flight.event) ? {} : { result: this.#host.onEvent(flight.event) };
    } catch (error) {
      outcome = { failure: { error } };
    }
    this.#host.leave();
    if (this.#judge(outcome, flight)) this.#host.done(flight.token);
    this.#run();
  }
}

/** Whether a handler's result is to be waited for. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  if (typeof value !== 'object' || value === null) return false;
  try {
    return typeof (value as { then?: unknown }).then === 'function';
  } catch {
    // Waiting for it will say what is wrong with it.
    return true;
  }
}
