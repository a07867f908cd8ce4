// A cursor and its store, for apps that drive a connection of their own. The record is a connector's, so that either can
// go on from the other's.

import { reportUnhandled } from './errors.js';
import { type EventIdStorage, MemoryStorage, StoreKeeper } from './storage.js';

export interface EventIdStoreOptions {
  /** Told once, where the store fails: the cursor is kept in memory then. Default: `reportError`. */
  onError?: (error: Error) => void;
}

/** The last event ID, in memory and in a store. */
export class EventIdStore {
  readonly #keeper: StoreKeeper;
  #lastEventId = '';
  /** Set or cleared, so that what the store still answers is of the past. */
  #isSet = false;

  constructor(storage: EventIdStorage = new MemoryStorage(), options: EventIdStoreOptions = {}) {
    const onError = options.onError ?? reportUnhandled;
    this.#keeper = new StoreKeeper(storage, undefined, {
      enter() {},
      leave() {},
      failed: (message, cause) => onError(new Error(message, { cause })),
    });
  }

  /** Empty where there is none. */
  get lastEventId(): string {
    return this.#lastEventId;
  }

  /** Reads the store, and answers with what it held. An id that was set or cleared meanwhile stays so. */
  async load(): Promise<string> {
    const stored = await this.#keeper.load();
    if (!this.#isSet) this.#lastEventId = stored?.cursor ?? '';
    return this.#lastEventId;
  }

  /** Stores an id, at once where the store is synchronous; of several that wait only the newest is written. */
  set(id: string): void {
    this.#lastEventId = id;
    this.#isSet = true;
    this.#keeper.save(id, []);
  }

  /** Forgets it, in the store, too. */
  clear(): void {
    this.set('');
  }
}

export const createEventIdStore = (storage?: EventIdStorage, options?: EventIdStoreOptions): EventIdStore =>
  new EventIdStore(storage, options);
