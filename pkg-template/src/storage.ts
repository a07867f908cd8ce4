// Stores for the cursor that an app picks or brings along, and what drives them. What a browser keeps by default is
// in `src/web/storage.rs`.

import type { GivenOptions } from './options.js';

/**
 * A store for one stream's cursor: any object with these three methods, each of which may be asynchronous.
 *
 * What is stored is a short text, JSON `{v, cursor, done, at}`: the store need not look into it. With synchronous methods
 * the record is stored before the next task runs, which is what "each event once, across restarts" needs; with
 * asynchronous ones writes follow one another, of several that wait only the newest is made, and after a crash the
 * last few events may come again.
 *
 * A store that throws, rejects or does not answer is reported once (`storage_unavailable`), and the stream goes on.
 */
export interface EventIdStorage {
  /** What was set last; null or undefined where there is nothing. */
  get(): string | null | undefined | PromiseLike<string | null | undefined>;
  /** Stores the record in place of the one before it. */
  set(record: string): unknown;
  /** Forgets the record. */
  clear(): unknown;
}

/** Keeps the record as long as the object lives: for tests, and for connectors that come and go within one page. */
export class MemoryStorage implements EventIdStorage {
  #record: string | undefined;

  get(): string | undefined {
    return this.#record;
  }

  set(record: string): void {
    this.#record = record;
  }

  clear(): void {
    this.#record = undefined;
  }
}

/** Keeps the record in localStorage, under exactly this key. All tabs write it: see `persistLastEventId` for the default. */
export class LocalStorageAdapter implements EventIdStorage {
  readonly #key: string;

  constructor(key: string) {
    this.#key = key;
  }

  get(): string | null {
    return localStorage.getItem(this.#key);
  }

  set(record: string): void {
    localStorage.setItem(this.#key, record);
  }

  clear(): void {
    localStorage.removeItem(this.#key);
  }
}

/** Keeps the record in sessionStorage, under exactly this key: it ends with the tab. */
export class SessionStorageAdapter implements EventIdStorage {
  readonly #key: string;

  constructor(key: string) {
    this.#key = key;
  }

  get(): string | null {
    return sessionStorage.getItem(this.#key);
  }

  set(record: string): void {
    sessionStorage.setItem(this.#key, record);
  }

  clear(): void {
    sessionStorage.removeItem(this.#key);
  }
}

const DATABASE = 'holdfast-sse';
const RECORDS = 'cursors';

/** Keeps the record in IndexedDB, which workers have, too. Asynchronous: after a crash the last events may come again. */
export class IndexedDBStorage implements EventIdStorage {
  readonly #key: string;
  #database: Promise<IDBDatabase> | undefined;

  constructor(key: string) {
    this.#key = key;
  }

  async get(): Promise<string | undefined> {
    const record: unknown = await this.#do('readonly', (records) => records.get(this.#key));
    return typeof record === 'string' ? record : undefined;
  }

  async set(record: string): Promise<void> {
    await this.#do('readwrite', (records) => records.put(record, this.#key));
  }

  async clear(): Promise<void> {
    await this.#do('readwrite', (records) => records.delete(this.#key));
  }

  /** Resolves when the transaction is through, not just its request. */
  async #do<Result>(
    mode: IDBTransactionMode,
    act: (records: IDBObjectStore) => IDBRequest<Result>,
  ): Promise<Result> {
    this.#database ??= this.#open();
    const database = await this.#database;
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(RECORDS, mode);
      const request = act(transaction.objectStore(RECORDS));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error ?? new Error('the transaction was aborted'));
    });
  }

  #open(): Promise<IDBDatabase> {
    const opened = new Promise<IDBDatabase>((resolve, reject) => {
      const request = indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(RECORDS);
      request.onerror = () => reject(request.error ?? new Error('the database cannot be opened'));
      request.onsuccess = () => resolve(request.result);
    });
    // Opened anew where it could not be, was closed by the browser, or somebody wants to delete it.
    const forget = (): void => {
      if (this.#database === opened) this.#database = undefined;
    };
    opened.then((database) => {
      database.onclose = forget;
      database.onversionchange = () => {
        forget();
        database.close();
      };
    }, forget);
    return opened;
  }
}

/** The format's version; any other is treated as absent. */
const VERSION = 1;
/** How long a store may take. A stream does not wait for ever for a place to keep its cursor. */
const WAIT_MS_MAX = 5_000;

/** What a keeper needs of its connector. */
export interface KeeperHost {
  /** App code runs from here on. */
  enter(): void;
  leave(): void;
  /** Told once. */
  failed(message: string, cause: unknown): void;
}

/** Drives a store: one call at a time, the newest record last. */
export class StoreKeeper {
  readonly #storage: EventIdStorage;
  readonly #waitMs: number;
  readonly #host: KeeperHost;
  #told = false;
  /** A write is under way. One that hangs stays so: what it writes late must not lie over something newer. */
  #writing = false;
  /** The newest record that waits for it. */
  #next: { record: string | undefined } | undefined;

  constructor(storage: EventIdStorage, timeoutMs: number | undefined, host: KeeperHost) {
    this.#storage = storage;
    this.#waitMs = Math.min(timeoutMs ?? WAIT_MS_MAX, WAIT_MS_MAX);
    this.#host = host;
  }

  /** What is stored; undefined where there is nothing, or nothing that can be had. Never rejects. */
  async load(): Promise<{ cursor: string; done: string[] } | undefined> {
    try {
      const text = await this.#bounded(this.#call(() => this.#storage.get()));
      return text === undefined || text === null || text === '' ? undefined : read(text);
    } catch (error) {
      this.#failed('cannot be read', error);
      return undefined;
    }
  }

  /** Stores, at once where the store is synchronous and free. */
  save(cursor: string, done: string[]): void {
    const isEmpty = cursor === '' && done.length === 0;
    this.#next = { record: isEmpty ? undefined : JSON.stringify({ v: VERSION, cursor, done, at: Date.now() }) };
    if (!this.#writing) this.#write();
  }

  #write(): void {
    while (this.#next !== undefined) {
      const { record } = this.#next;
      this.#next = undefined;
      let result: unknown;
      try {
        result = this.#call(() => (record === undefined ? this.#storage.clear() : this.#storage.set(record)));
      } catch (error) {
        this.#failed('cannot be written', error);
        continue;
      }
      if (!isThenable(result)) continue;
      this.#writing = true;
      const settled = (): void => {
        this.#writing = false;
        this.#write();
      };
      const failed = (error: unknown): void => this.#failed('cannot be written', error);
      this.#bounded(result).catch(failed);
      result.then(settled, settled);
      return;
    }
  }

  #call<Result>(act: () => Result): Result {
    this.#host.enter();
    try {
      return act();
    } finally {
      this.#host.leave();
    }
  }

  async #bounded<Result>(result: Result | PromiseLike<Result>): Promise<Result> {
    if (!isThenable(result)) return result;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${this.#waitMs} ms`)), this.#waitMs);
    });
    try {
      return await Promise.race([result, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #failed(what: string, error: unknown): void {
    if (this.#told) return;
    this.#told = true;
    const reason = error instanceof Error ? error.message : String(error);
    this.#host.failed(`the cursor ${what} in eventIdStorage (${reason}): it is kept in memory`, error);
  }
}

function read(text: string): { cursor: string; done: string[] } | undefined {
  const record: unknown = JSON.parse(text);
  if (typeof record !== 'object' || record === null || !('v' in record)) throw new Error('it is no record of ours');
  if (record.v !== VERSION) return undefined;
  const { cursor, done } = record as { cursor?: unknown; done?: unknown };
  if (typeof cursor !== 'string') throw new Error('it is no record of ours');
  return { cursor, done: Array.isArray(done) ? done.filter((id) => typeof id === 'string') : [] };
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function';
}

/** Whether the cursor is to be kept where there is no place for it but memory. */
export function isForgetful({ eventIdStorage, persistLastEventId }: GivenOptions): boolean {
  return persistLastEventId === true && eventIdStorage === undefined && typeof document === 'undefined';
}

/** What drives the app's own store, where it brought one along and did not switch it off. */
export function keeperFor(options: GivenOptions, host: KeeperHost): StoreKeeper | undefined {
  const { eventIdStorage, persistLastEventId, timeout } = options;
  if (eventIdStorage === undefined || persistLastEventId === false) return undefined;
  return new StoreKeeper(eventIdStorage, timeout, host);
}
