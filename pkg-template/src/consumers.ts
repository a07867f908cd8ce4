// Who gets an event: the handler of the options, listeners by event name, and loops. One event is finished when all
// of them are through with it. Streams with a plain onEvent do without this.

import { ack, expectAck } from './ack.js';
import type { SSEError } from './errors.js';
import type { StreamEvent } from './event.js';
import { EventLoop, GIVEN_BACK, type LoopHost } from './loop.js';
import type { ListenerOptions } from './options.js';
import { isThenable } from './pump.js';
import type { StandardSchemaIssue, StandardSchemaResult, StandardSchemaV1 } from './schema.js';

type Handle = (event: StreamEvent) => unknown;

interface Listening {
  readonly listener: Handle;
  readonly handle: Handle;
  readonly forget: () => void;
}

/** What the consumers need of their stream. */
export interface ConsumersHost {
  readonly onEvent: Handle | undefined;
  readonly schemas: Readonly<Record<string, StandardSchemaV1>> | undefined;
  readonly isManual: boolean;
  /** The payload is not what its schema says: tells the app and answers what is to follow. */
  invalid(event: StreamEvent, issues: readonly StandardSchemaIssue[]): 'skip' | 'stop' | 'deliver';
  /** A loop waits for an event. */
  asked(): void;
  stop(): void;
}

/** See above. */
export class Consumers {
  readonly #host: ConsumersHost;
  readonly #listeners = new Map<string, Listening[]>();
  readonly #loops = new Set<EventLoop>();
  /** Payloads that were checked; an event whose handler is called again is not checked again. */
  readonly #checked = new WeakSet<StreamEvent>();
  /** Who failed: only these are called again. */
  readonly #failed = new WeakMap<StreamEvent, Handle[]>();

  constructor(host: ConsumersHost) {
    this.#host = host;
  }

  /** Hands an event to all who want it: what the pump calls. */
  dispatch(event: StreamEvent): unknown {
    const { isManual, schemas } = this.#host;
    if (isManual) expectAck(event);
    const schema = schemas !== undefined && Object.hasOwn(schemas, event.type) ? schemas[event.type] : undefined;
    return schema === undefined || this.#checked.has(event) ? this.#hand(event) : this.#check(event, schema);
  }

  add(type: string, listener: Handle, { once = false, signal }: ListenerOptions = {}): void {
    const listening = this.#listeners.get(type) ?? [];
    if (signal?.aborted === true || listening.some((known) => known.listener === listener)) return;
    const remove = (): void => this.remove(type, listener);
    const handle: Handle = once ? (event) => (remove(), listener(event)) : (event) => listener(event);
    signal?.addEventListener('abort', remove);
    const forget = (): void => signal?.removeEventListener('abort', remove);
    this.#listeners.set(type, [...listening, { listener, handle, forget }]);
  }

  remove(type: string, listener: Handle): void {
    const listening = this.#listeners.get(type) ?? [];
    listening.find((known) => known.listener === listener)?.forget();
    const left = listening.filter((known) => known.listener !== listener);
    if (left.length > 0) this.#listeners.set(type, left);
    else this.#listeners.delete(type);
  }

  loop(types: readonly string[] | undefined): EventLoop {
    const host: LoopHost = {
      asked: () => this.#host.asked(),
      leave: (loop) => {
        this.#loops.delete(loop);
        return this.#host.onEvent === undefined && this.#listeners.size === 0 && this.#loops.size === 0;
      },
      stop: () => this.#host.stop(),
    };
    const loop = new EventLoop(host, types);
    this.#loops.add(loop);
    return loop;
  }

  /** The stream closed for good, and everything was handed over. */
  end(error: SSEError | undefined): void {
    for (const loop of this.#loops) loop.end(error);
    this.#loops.clear();
  }

  /** What was handed over and not asked for will come once more. */
  forget(): void {
    for (const loop of this.#loops) loop.forget();
  }

  #check(event: StreamEvent, schema: StandardSchemaV1): unknown {
    const result = schema['~standard'].validate(event.payload);
    if (!('then' in result)) return this.#judge(event, result);
    return result.then((later) => this.#judge(event, later));
  }

  #judge(event: StreamEvent, result: StandardSchemaResult<unknown>): unknown {
    if (result.issues === undefined) {
      Object.defineProperty(event, 'payload', { value: result.value, enumerable: true });
    } else {
      const next = this.#host.invalid(event, result.issues);
      if (next === 'stop') throw GIVEN_BACK;
      if (next === 'skip') return ack(event);
    }
    this.#checked.add(event);
    return this.#hand(event);
  }

  #hand(event: StreamEvent): unknown {
    const handles = this.#failed.get(event) ?? this.#handlesOf(event);
    const [first] = handles;
    if (handles.length === 1) return first!(event);
    if (first === undefined) return ack(event);
    const [failed, errors, waiting]: [Handle[], unknown[], PromiseLike<void>[]] = [[], [], []];
    for (const handle of handles) {
      const fail = (error: unknown): void => {
        failed.push(handle);
        errors.push(error);
      };
      try {
        const result = handle(event);
        if (isThenable(result)) waiting.push(result.then(undefined, fail) as PromiseLike<void>);
      } catch (error) {
        fail(error);
      }
    }
    const finish = (): void => {
      if (errors.length === 0) return;
      this.#failed.set(event, failed);
      throw errors.length === 1 ? errors[0] : new AggregateError(errors, `${errors.length} handlers failed`);
    };
    return waiting.length === 0 ? finish() : Promise.all(waiting).then(finish);
  }

  #handlesOf(event: StreamEvent): Handle[] {
    const { onEvent } = this.#host;
    const handles = onEvent === undefined ? [] : [onEvent];
    for (const { handle } of this.#listeners.get(event.type) ?? []) handles.push(handle);
    for (const loop of this.#loops) if (loop.wants(event.type)) handles.push(loop.take);
    return handles;
  }
}
