// Copies a batch out of wasm memory. The layout is that of `src/client/batch.rs`.

import type { Notice } from './glue/core.js';
import { StreamEvent } from './event.js';

const RECORD_WORDS = 6;
const PIECE_WORDS = 3;
const NO_NAME_INDEX = 0xffff_ffff;
const KIND_MASK = 0b111;
const OWN_ID = 0b1000;
const NAME_LENGTH_SHIFT = 4;

/** What a record is. */
export const Kind = { event: 0, heartbeat: 1, control: 2, notice: 3, cursor: 4 } as const;

/** Bytes are what they are: a byte order mark within the stream is text. */
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * Where the records of a batch stand while it is run: most batches are through before their call returns, and a table
 * of its own for each would cost more than all else that is done here.
 */
let shared: Uint32Array | undefined;
let isSharedTaken = false;

/** A batch that no longer depends on wasm memory. */
export class Batch {
  readonly firstToken: number;
  readonly length: number;
  /** The next record to hand to the app. */
  next = 0;

  #records: Uint32Array;
  #isBorrowed = false;
  readonly #texts: string[] = [];
  /** Index of the first record behind each piece. */
  readonly #pieceEnds: number[] = [];
  readonly #names: readonly string[];
  readonly #notices: readonly Notice[];
  readonly #receivedAt: number;
  readonly #attempt: number;
  #piece = 0;

  constructor(
    memory: WebAssembly.Memory,
    records: number, recordWords: number,
    pieces: number, pieceWords: number,
    text: number,
    firstToken: number,
    names: readonly string[],
    notices: readonly Notice[],
    attempt: number,
  ) {
    // The buffer is taken anew each time: any growth of the memory detaches the old one.
    const { buffer } = memory;
    const words = new Uint32Array(buffer, records, recordWords);
    if (isSharedTaken) {
      this.#records = words.slice();
    } else {
      if (shared === undefined || shared.length < recordWords) shared = new Uint32Array(Math.max(4_096, recordWords * 2));
      shared.set(words);
      this.#records = shared;
      this.#isBorrowed = isSharedTaken = true;
    }
    this.length = recordWords / RECORD_WORDS;
    const table = new Uint32Array(buffer, pieces, pieceWords);
    let end = 0;
    for (let at = 0; at < pieceWords; at += PIECE_WORDS) {
      const bytes = new Uint8Array(buffer, text + table[at]!, table[at + 1]!);
      this.#texts.push(decoder.decode(bytes));
      end += table[at + 2]!;
      this.#pieceEnds.push(end);
    }
    this.firstToken = firstToken;
    this.#names = names;
    this.#notices = notices;
    this.#receivedAt = Date.now();
    this.#attempt = attempt;
  }

  /** The call that delivered it ends: what is left is kept in a table of its own. */
  settle(): void {
    if (!this.#isBorrowed) return;
    if (this.next < this.length) this.#records = this.#records.slice(0, this.length * RECORD_WORDS);
    this.#isBorrowed = isSharedTaken = false;
  }

  /** The token of the record at `index`. */
  token(index: number): number {
    return this.firstToken + index;
  }

  /** What the record at `index` is. */
  kind(index: number): number {
    return this.#records[index * RECORD_WORDS + 5]! & KIND_MASK;
  }

  /** The notice that the record at `index` stands for. */
  notice(index: number): Notice {
    return this.#notices[this.#records[index * RECORD_WORDS]!]!;
  }

  /** The event at `index`; indices are asked for in ascending order. */
  event(index: number): StreamEvent {
    while (index >= this.#pieceEnds[this.#piece]!) this.#piece += 1;
    const text = this.#texts[this.#piece]!;
    const records = this.#records;
    const at = index * RECORD_WORDS;
    const dataStart = records[at + 1]!;
    const idStart = records[at + 3]!;
    const idEnd = idStart + records[at + 4]!;
    const flags = records[at + 5]!;
    const nameIndex = records[at]!;
    const name = nameIndex === NO_NAME_INDEX
      ? text.slice(idEnd, idEnd + (flags >>> NAME_LENGTH_SHIFT))
      : this.#names[nameIndex]!;
    const data = text.slice(dataStart, dataStart + records[at + 2]!);
    const id = (flags & OWN_ID) === 0 ? undefined : text.slice(idStart, idEnd);
    return new StreamEvent(name, data, id, this.#receivedAt, this.#attempt);
  }
}
