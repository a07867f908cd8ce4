// Runs the app's event handler over batches: in order, at most so many promises at once, and keeps the account of
// what was finished.

import { isAcked, onAck } from './ack.js';
import { type Batch, Kind } from './batch.js';
import { reportUnhandled } from './errors.js';
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
  /** Tells of a notice. A promise holds all that follows back; if it gives a reason, the stream stops before the notice. */
  notice(notice: Notice): PromiseLike<string | undefined> | undefined;
  /** A handler failed: skip the event, stop, or call the handler again after so many milliseconds. */
  failed(error: unknown, event: StreamEvent, tries: number): 'skip' | 'stop' | number;
  /** Stops the stream, as a handler's failure wants it, or for this reason. */
  stop(reason?: string): void;
  /** `started` has gone back while the stream is closed: the core must hear of it before the next connection. */
  givenBack(): void;
  /** The record with this token was finished, not within the call that delivered it. */
  done(token: number): void;
  /** Nothing is left to hand out, and no handler is at work. */
  idle(): void;
}

/** An event on its way from the first call of its handler to its end. */
interface Flight {
  readonly event: StreamEvent;
  readonly token: number;
  tries: number;
  /** What the core knows of it. Once it is finished or given back, nothing that comes later counts. */
  account: 'open' | 'finished' | 'given back';
  /** Calls the handler again, after it failed. */
  timer: ReturnType<typeof setTimeout> | undefined;
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
  /** Their handler is at work, or is to be called again. */
  readonly #working = new Set<Flight>();
  /** A notice that the app has to decide about; nothing is handed out meanwhile. */
  #undecided: { readonly token: number } | undefined;
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
    if (this.#undecided !== undefined) this.#giveBack(this.#undecided.token);
    this.#undecided = undefined;
    for (const { timer, token } of this.#working) if (timer !== undefined) this.#giveBack(token);
  }

  /** Goes on with what will be delivered from now. Handlers that are still at work keep their place before it. */
  open(): void {
    this.#open = true;
  }

  /** Begins anew with a core that knows nothing of what was given to the app before. */
  forget(): void {
    this.close();
    this.#giveBack(1);
    this.open();
  }

  /** Takes a batch in; answers how many of its first records are finished already. */
  deliver(batch: Batch): number {
    if (!this.#open) {
      batch.settle();
      return 0;
    }
    this.#batches.push(batch);
    try {
      return this.#run(this.#batches.length === 1 ? batch : undefined);
    } finally {
      batch.settle();
    }
  }

  /** Whether there is nothing to hand out and no handler at work. */
  get isIdle(): boolean {
    return !this.#running && this.#undecided === undefined && this.#batches.length === 0 && this.#working.size === 0;
  }

  get #isBusy(): boolean {
    if (this.#undecided !== undefined || this.#working.size >= this.#concurrency) return true;
    return this.#unackedMax !== undefined && this.#working.size + this.#unacked.size >= this.#unackedMax;
  }

  /**
   * Goes on as far as it can. Records of `counted` that are finished in an unbroken row from its first are counted
   * and answered, all others are reported one by one.
   */
  #run(counted?: Batch): number {
    if (this.#running) return 0;
    this.#running = true;
    let finished = 0;
    try {
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
    } finally {
      this.#running = false;
    }
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
        // An ack by hand belongs to one event.
        this.#open && (typeof result !== 'object' || result === null) && this.#unackedMax === undefined
        && batch.next < batch.length && batch.kind(batch.next) === Kind.event
      );
      outcome = { result };
    } catch (error) {
      outcome = { failure: { error } };
    }
    this.latest = event;
    this.processed += batch.next - from - 1;
    this.#host.leave();
    return this.#judge(outcome, { event, token: batch.token(batch.next - 1), tries: 1, account: 'open', timer: undefined });
  }

  #other(batch: Batch): boolean {
    const index = batch.next;
    const kind = batch.kind(index);
    batch.next += 1;
    this.started = batch.token(index);
    try {
      if (kind === Kind.notice) {
        const decision = this.#host.notice(batch.notice(index));
        if (decision !== undefined) return this.#await(decision, batch.token(index));
      } else {
        this.#host.tell(kind, batch.event(index));
      }
    } catch (error) {
      // A flaw of ours: no reason for the stream to stand still.
      reportUnhandled(error);
    }
    return true;
  }

  /** The record is not finished before the app has decided; a stop or reconnect gives it back. */
  #await(decision: PromiseLike<string | undefined>, token: number): false {
    if (!this.#open) {
      this.#giveBack(token);
      return false;
    }
    const undecided = { token };
    this.#undecided = undecided;
    void decision.then((reason) => {
      if (this.#undecided !== undecided) return;
      if (reason !== undefined) {
        this.#host.stop(reason);
        return;
      }
      this.#undecided = undefined;
      this.#host.done(token);
      this.#run();
    });
    return false;
  }

  /** Whether the record is finished, now that its handler returned or threw. */
  #judge({ result, failure }: Outcome, flight: Flight): boolean {
    const isManual = this.#unackedMax !== undefined;
    if (isManual && isAcked(flight.event)) this.#finish(flight);
    else if (isManual) onAck(flight.event, () => this.#acked(flight));
    const isAtWork = failure === undefined && isThenable(result);
    if (flight.account === 'open' && flight.token > this.started && (isAtWork || isManual)) {
      // Its handler ended the stream while an earlier event waits to be called again: it goes back with that one.
      flight.account = 'given back';
    }

    if (failure !== undefined) {
      this.#failed(failure.error, flight);
    } else if (isAtWork) {
      this.#working.add(flight);
      Promise.resolve(result).then(() => this.#ended(flight), (error: unknown) => this.#ended(flight, { error }));
    } else if (!isManual) {
      this.#finish(flight);
    } else if (flight.account === 'open') {
      this.#unacked.add(flight);
    }
    return flight.account === 'finished';
  }

  /** A handler's promise has settled. */
  #ended(flight: Flight, failure?: { error: unknown }): void {
    this.#working.delete(flight);
    const wasOpen = flight.account === 'open';
    if (failure !== undefined) this.#failed(failure.error, flight);
    else if (this.#unackedMax === undefined) this.#finish(flight);
    else if (wasOpen) this.#unacked.add(flight);
    if (wasOpen && flight.account === 'finished') this.#host.done(flight.token);
    this.#run();
  }

  #failed(error: unknown, flight: Flight): void {
    const next = this.#host.failed(error, flight.event, flight.tries);
    if (flight.account === 'given back') return;
    if (next === 'skip') {
      this.#finish(flight);
    } else if (!this.#open || next === 'stop') {
      // Not processed: the cursor stays before it, and a later connect() gets it again.
      if (flight.account === 'open') this.#giveBack(flight.token, flight);
      if (this.#open) this.#host.stop();
      else this.#host.givenBack();
    } else if (flight.account === 'open') {
      flight.tries += 1;
      flight.timer = setTimeout(() => this.#again(flight), next);
      this.#working.add(flight);
    }
  }

  #again(flight: Flight): void {
    this.#working.delete(flight);
    flight.timer = undefined;
    let outcome: Outcome;
    this.#host.enter();
    try {
      outcome = { result: this.#host.onEvent(flight.event) };
    } catch (error) {
      outcome = { failure: { error } };
    }
    this.#host.leave();
    const wasOpen = flight.account === 'open';
    if (this.#judge(outcome, flight) && wasOpen) this.#host.done(flight.token);
    this.#run();
  }

  /** The app acked an event that was handed out: in the middle of anything that it does. */
  #acked(flight: Flight): void {
    if (flight.account !== 'open') return;
    this.#finish(flight);
    this.#unacked.delete(flight);
    this.#rest(flight);
    this.#host.done(flight.token);
    queueMicrotask(() => this.#run());
  }

  #finish(flight: Flight): void {
    if (flight.account !== 'open') return;
    flight.account = 'finished';
    this.processed += 1;
  }

  /** The record with this token goes back, and with it all that was begun behind it. Handlers at work stay so. */
  #giveBack(token: number, ended?: Flight): void {
    this.started = Math.min(this.started, token - 1);
    for (const flight of [...this.#working, ...this.#unacked, ...(ended === undefined ? [] : [ended])]) {
      if (flight.token <= this.started || flight.account !== 'open') continue;
      flight.account = 'given back';
      this.#unacked.delete(flight);
      this.#rest(flight);
    }
  }

  /** It is not called again. */
  #rest(flight: Flight): void {
    if (flight.timer === undefined) return;
    clearTimeout(flight.timer);
    flight.timer = undefined;
    this.#working.delete(flight);
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
