// The app's code as one stream runs it: while it does, the core is not called.

import { reportUnhandled } from './errors.js';

/** See above. */
export class AppCode {
  #depth = 0;
  readonly #isAwaited: () => boolean;
  readonly #goOn: () => void;

  /** Once the app's code is through, `goOn` is called where `isAwaited` says that something waits for it. */
  constructor(isAwaited: () => boolean, goOn: () => void) {
    this.#isAwaited = isAwaited;
    this.#goOn = goOn;
  }

  get isRunning(): boolean {
    return this.#depth > 0;
  }

  readonly enter = (): void => {
    this.#depth += 1;
  };

  readonly leave = (): void => {
    this.#depth -= 1;
    if (this.#depth > 0 || !this.#isAwaited()) return;
    // The core may be further up the stack: its call ends first, then ours begin.
    queueMicrotask(() => {
      if (this.#depth === 0 && this.#isAwaited()) this.#goOn();
    });
  };

  /** Nothing that the app throws gets out. */
  call<Info>(callback: ((info: Info) => unknown) | undefined, info: Info): unknown {
    if (callback === undefined) return undefined;
    this.enter();
    try {
      return callback(info);
    } catch (error) {
      reportUnhandled(error);
      return undefined;
    } finally {
      this.leave();
    }
  }
}
