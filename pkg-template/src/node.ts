// The entry point `holdfast-sse/node`: what needs Node's own modules.

import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { EventIdStorage } from './storage.js';

export type { EventIdStorage } from './storage.js';

/**
 * Keeps the record in a file, for one process at a time. Synchronous: it is on disk before the next task runs. Each record
 * is written beside the file and renamed over it, so that a process killed at any moment leaves the old or the new one.
 */
export class FileStorage implements EventIdStorage {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  get(): string | undefined {
    try {
      return readFileSync(this.#path, 'utf8');
    } catch (error) {
      if ((error as { code?: unknown }).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  set(record: string): void {
    const beside = `${this.#path}.tmp`;
    const file = openSync(beside, 'w');
    try {
      writeFileSync(file, record);
      // Else the name may reach the disk before the content does.
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(beside, this.#path);
  }

  clear(): void {
    rmSync(this.#path, { force: true });
  }
}
