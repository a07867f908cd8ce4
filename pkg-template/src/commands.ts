// What was asked of a stream, and waits for its core, or for app code to end.

export type Command = 'connect' | 'stop' | 'reconnect' | 'clearCursor';

/** See above: oldest first. */
export class Commands {
  #waiting: Command[] = [];

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** What the connection is to be, if anything is asked of it. */
  get last(): Command | undefined {
    return this.#waiting.filter((command) => command !== 'clearCursor').at(-1);
  }

  push(command: Command): void {
    this.#waiting.push(command);
  }

  take(): Command | undefined {
    return this.#waiting.shift();
  }

  has(...commands: readonly Command[]): boolean {
    return this.#waiting.some((command) => commands.includes(command));
  }

  clear(): void {
    this.#waiting = [];
  }

  /** There is nothing left that could be stopped. */
  dropStops(): void {
    const last = this.#waiting.lastIndexOf('stop');
    this.#waiting = this.#waiting.filter((command, index) => index > last || command === 'clearCursor');
  }
}
