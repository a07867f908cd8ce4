// How often the core may fail under one stream, and how long that waits before it goes on.

const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 30_000;
const IN_A_ROW_MAX = 8;
const FORGIVEN_AFTER_MS = 120_000;

/** Failures of the core under one stream. */
export class Traps {
  #inARow = 0;
  #lastAt = 0;

  /** Counts one more; answers after how many milliseconds to go on, undefined where it has been too often. */
  next(now = Date.now()): number | undefined {
    this.#inARow = now - this.#lastAt > FORGIVEN_AFTER_MS ? 1 : this.#inARow + 1;
    this.#lastAt = now;
    if (this.#inARow > IN_A_ROW_MAX) return undefined;
    return Math.min(RETRY_MS_MIN * 2 ** (this.#inARow - 1), RETRY_MS_MAX);
  }
}
