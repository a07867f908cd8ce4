// `for await` over a stream. The loop takes one event after another, and what it has not asked for is not read.

import type { SSEError } from './errors.js';
import type { StreamEvent } from './event.js';

/** Thrown towards the pump: nobody has handled the event, it must come again. */
export const GIVEN_BACK = Symbol('given back');

/** What a loop needs of its stream. */
export interface LoopHost {
  /** Somebody waits for an event. */
  asked(): void;
  /** The loop takes no more. Answers whether nobody is left who would take the next event. */
  leave(loop: EventLoop): boolean;
  stop(): void;
}

interface Item {
  readonly event: StreamEvent;
  readonly finish: () => void;
  readonly giveBack: () => void;
}

interface Waiter {
  readonly resolve: (result: IteratorResult<StreamEvent, undefined>) => void;
  readonly reject: (error: SSEError) => void;
}

const DONE = { done: true, value: undefined } as const;

/** See above. The event that the loop has in hand is finished once it asks for the next, or breaks off. */
export class EventLoop implements AsyncIterableIterator<StreamEvent, undefined> {
  readonly #host: LoopHost;
  readonly #types: ReadonlySet<string> | undefined;
  /** Handed over and not asked for yet: at most as many as handlers may work at once. */
  #queue: Item[] = [];
  #taken: Item[] = [];
  #waiting: Waiter[] = [];
  #ended: { error: SSEError | undefined } | undefined;

  constructor(host: LoopHost, types: readonly string[] | undefined) {
    this.#host = host;
    this.#types = types === undefined ? undefined : new Set(types);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Whether the loop wants events of this name. */
  wants(type: string): boolean {
    return this.#types?.has(type) ?? true;
  }

  /** Hands an event over; the promise resolves when the loop is through with it. */
  readonly take = (event: StreamEvent): Promise<void> => new Promise((resolve, reject) => {
    const item = { event, finish: resolve, giveBack: () => reject(GIVEN_BACK) };
    const waiter = this.#waiting.shift();
    if (waiter === undefined) this.#queue.push(item);
    else waiter.resolve(this.#give(item));
  });

  next(): Promise<IteratorResult<StreamEvent, undefined>> {
    this.#finishTaken();
    const item = this.#queue.shift();
    if (item !== undefined) return Promise.resolve(this.#give(item));
    if (this.#ended !== undefined) {
      const { error } = this.#ended;
      this.#ended = { error: undefined };
      return error === undefined ? Promise.resolve(DONE) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#host.asked();
    });
  }

  /** The loop was left: by `break`, `return` or an error of its body. */
  async return(): Promise<IteratorResult<StreamEvent, undefined>> {
    if (this.#ended === undefined) {
      this.#ended = { error: undefined };
      const isLast = this.#host.leave(this);
      // Before the event in hand is finished: else the next one would be handed to nobody, and counted as processed.
      if (isLast && this.#queue.length === 0) this.#host.stop();
      for (const item of this.#queue) isLast ? item.giveBack() : item.finish();
      this.#queue = [];
      this.#finishTaken();
      for (const waiter of this.#waiting) waiter.resolve(DONE);
      this.#waiting = [];
      // The account is settled in the microtasks of the promises above: behind the loop the cursor is right.
      for (let turn = 0; turn < 4; turn += 1) await undefined;
    }
    return DONE;
  }

  /** The stream closed for good, and everything was handed over. */
  end(error: SSEError | undefined): void {
    if (this.#ended !== undefined) return;
    const [first, ...others] = this.#waiting;
    this.#waiting = [];
    this.#ended = { error: first === undefined ? error : undefined };
    if (error === undefined) first?.resolve(DONE);
    else first?.reject(error);
    for (const waiter of others) waiter.resolve(DONE);
  }

  /** What was not asked for yet will be handed over once more. */
  forget(): void {
    for (const item of this.#queue) item.giveBack();
    this.#queue = [];
  }

  #give(item: Item): IteratorResult<StreamEvent, undefined> {
    this.#taken.push(item);
    return { done: false, value: item.event };
  }

  #finishTaken(): void {
    for (const item of this.#taken) item.finish();
    this.#taken = [];
  }
}
