// The entry point `holdfast-sse/policies`, and part of `holdfast-sse`: the client's policies by themselves, for apps that drive
// a connection of their own. Each class is thin; what it decides is decided by the code that a connector runs.
//
// The core loads asynchronously and constructors are synchronous: await `loadPolicies()` once, before the first `new`.

/// <reference lib="esnext.disposable" preserve="true" />

import { instanceNow, loadCore } from './core.js';
import { createEventIdStore, EventIdStore } from './event-id-store.js';
import { failureOf } from './errors.js';
import { Policies, transitions } from './glue/core.js';
import { inlineWasm } from './inline.js';
import { isLoaded, provideSource } from './loader.js';
import {
  ConnectionState, GiveUpReason, type GiveUpInfo, type LivenessFailureInfo, type OrderingRule, OutOfOrderPolicy,
  type RetryInfo, type RetryPolicy, type StateChangeInfo, type TransitionReason,
} from './options.js';

export * from './event-id-store.js';

/** Milliseconds on a clock that does not go back. Default: `performance.now()`. */
export type Clock = () => number;

const monotonic: Clock = () => performance.now();

function policies(options: object): Policies {
  if (!isLoaded()) throw new Error('the core is not loaded yet: await loadPolicies() before the first policy is made');
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  try {
    return new Policies(Object.fromEntries(given));
  } catch (error) {
    throw failureOf(error);
  }
}

/** The states of a connection, and the ways between them: what is not in the core's table does nothing. */
export class StateMachine {
  readonly #onStateChange: ((info: StateChangeInfo) => void) | undefined;
  readonly #table: readonly StateChangeInfo[];
  #state: ConnectionState = ConnectionState.IDLE;

  constructor(options: { onStateChange?: (info: StateChangeInfo) => void } = {}) {
    if (!isLoaded()) policies({});
    this.#onStateChange = options.onStateChange;
    this.#table = transitions() as StateChangeInfo[];
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Where `reason` leads from here; undefined where it leads nowhere. */
  after(reason: TransitionReason): ConnectionState | undefined {
    return this.#table.find((row) => row.from === this.#state && row.reason === reason)?.to;
  }

  /** Goes there. False where there is no such way. */
  transition(reason: TransitionReason): boolean {
    const to = this.after(reason);
    if (to === undefined) return false;
    const from = this.#state;
    this.#state = to;
    if (from !== to) this.#onStateChange?.({ from, to, reason });
    return true;
  }
}

export interface ReconnectManagerOptions {
  retryPolicy?: RetryPolicy;
  /** False: the first failure is the end, as an intentional one. Default true. */
  autoReconnect?: boolean;
  onRetry?: (info: RetryInfo) => void;
  onGiveUp?: (info: GiveUpInfo) => void;
  now?: Clock;
}

/** When to try again, and when to give up. */
export class ReconnectManager {
  readonly #options: ReconnectManagerOptions;
  readonly #policy: Policies;
  readonly #now: Clock;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #gaveUp: GiveUpReason | undefined;

  constructor(options: ReconnectManagerOptions = {}) {
    this.#options = options;
    this.#policy = policies({ retryPolicy: options.retryPolicy });
    this.#now = options.now ?? monotonic;
    if (options.autoReconnect === false) this.#gaveUp = GiveUpReason.INTENTIONAL_DISCONNECT;
  }

  /** Failures since the last `reset()`. */
  get attempts(): number {
    return this.#policy.attempts;
  }

  /** Whether an attempt is due some day. */
  get isPending(): boolean {
    return this.#timer !== undefined;
  }

  /** Why no further attempt is made; undefined as long as there may be one. */
  get giveUpReason(): GiveUpReason | undefined {
    return this.#gaveUp;
  }

  /**
   * A connection failed: calls `connect` when it is time for the next attempt, not before `retryAfterMs`. False where
   * there is none, since it gave up or was stopped. A schedule takes the place of the one before.
   */
  schedule(connect: () => void, { reason = 'network_error', retryAfterMs }: { reason?: string; retryAfterMs?: number } = {}): boolean {
    this.#clear();
    if (this.#gaveUp !== undefined) return false;
    const now = this.#now();
    const delayMs = this.#policy.retryIn(now, retryAfterMs);
    if (delayMs < 0) {
      this.#gaveUp = delayMs === -1 ? GiveUpReason.MAX_ATTEMPTS_REACHED : GiveUpReason.MAX_RETRY_TIME_EXCEEDED;
      this.#options.onGiveUp?.({ reason: this.#gaveUp, attempts: this.attempts, elapsedMs: this.#policy.failingFor(now) });
      return false;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      connect();
    }, delayMs);
    this.#options.onRetry?.({ attempt: this.attempts, delayMs, reason });
    return true;
  }

  /** The server's `retry:` field, in place of `baseDelayMs`; clamped at both ends. */
  setServerRetry(ms: number): void {
    this.#policy.setServerRetry(ms);
  }

  /** A connection has been healthy, or the app begins anew: what failed before does not count, also after a give-up. */
  reset(): void {
    this.#clear();
    this.#gaveUp = undefined;
    this.#policy.forgive();
  }

  /** No further attempt before `reset()`. */
  stop(reason: GiveUpReason = GiveUpReason.USER_STOPPED): void {
    this.#clear();
    this.#gaveUp = reason;
  }

  #clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

export interface LivenessMonitorOptions {
  /** Default 30,000; at least 2.5 announced heartbeat intervals. */
  livenessTimeoutMs?: number;
  /** Default 5,000. */
  livenessGracePeriodMs?: number;
  /** The stream fell silent. `cut` is true once it has shown that it beats: before, a quiet stream may be a healthy one. */
  onLivenessFailure?: (info: LivenessFailureInfo) => void;
  now?: Clock;
}

/** Whether a stream is still alive. */
export class LivenessMonitor {
  readonly #policy: Policies;
  readonly #options: LivenessMonitorOptions;
  readonly #now: Clock;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOpen = false;

  constructor(options: LivenessMonitorOptions = {}) {
    this.#options = options;
    const { livenessTimeoutMs, livenessGracePeriodMs } = options;
    this.#policy = policies({ livenessTimeoutMs, livenessGracePeriodMs });
    this.#now = options.now ?? monotonic;
  }

  /** A connection opened. */
  start(): void {
    this.#isOpen = true;
    this.#policy.opened(this.#now());
    this.#watch();
  }

  /** Something came: any byte is a sign of life. */
  activity(): void {
    this.#policy.byte(this.#now());
    this.#watch();
  }

  /** A heartbeat came, which announces the next one within `intervalMs`. From now on a silence is a failure. */
  heartbeat(intervalMs?: number): void {
    this.#policy.beat(intervalMs);
    this.activity();
  }

  /** The connection ended. */
  stop(): void {
    this.#isOpen = false;
    this.#watch();
  }

  /** A timer that is early asks again: signs of life need not move it. */
  #watch(): void {
    const { deadline } = this.#policy;
    if (!this.#isOpen || deadline === undefined) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      return;
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const failed = this.#policy.silence(this.#now()) as [LivenessFailureInfo['failure'], number, boolean] | undefined;
      this.#watch();
      if (failed !== undefined) {
        const [failure, silentMs, cut] = failed;
        this.#options.onLivenessFailure?.({ failure, silentMs, cut });
      }
    }, Math.max(0, Math.ceil(deadline - this.#now())));
  }
}

export interface DedupeCacheOptions {
  /** Events remembered. Default 1,000. */
  maxSize?: number;
  /** Milliseconds for which one is remembered; 0 is without end. Default 0. */
  ttlMs?: number;
  now?: Clock;
}

/** Recognises events that come again: the same id with the same type and data. Bounded, the oldest go first. */
export class DedupeCache {
  readonly #options: DedupeCacheOptions;
  readonly #now: Clock;
  #policy: Policies;
  #instance = instanceNow();

  constructor(options: DedupeCacheOptions = {}) {
    this.#options = options;
    this.#now = options.now ?? monotonic;
    this.#policy = this.#fresh();
  }

  /** Whether this event was seen; remembers it if not. */
  isDuplicate(id: string, type = 'message', data = ''): boolean {
    return this.#policy.isRepeat(this.#now(), id, type, data);
  }

  /** Forgets one event. */
  forget(id: string): void {
    this.#policy.forget(id);
  }

  /** Forgets all. */
  clear(): void {
    // Its memory may be gone with a core that failed.
    if (this.#instance === instanceNow()) this.#policy.free();
    this.#policy = this.#fresh();
    this.#instance = instanceNow();
  }

  #fresh(): Policies {
    return policies({ dedupeMaxSize: this.#options.maxSize, dedupeTtlMs: this.#options.ttlMs });
  }
}

/** What `onOutOfOrder` of an OrderingGuard is told. */
export interface LateInfo {
  /** What the envelope is ordered by, … */
  mark: number | string;
  /** … and that of the one before it, which is not lower. */
  last: number | string;
  dropped: boolean;
}

export interface OrderingGuardOptions {
  /** Default 'SEQUENCE'. */
  orderingRule?: OrderingRule;
  /** Default 'DROP_WITH_CALLBACK'. Not 'REORDER': holding events back needs a connector. */
  outOfOrderPolicy?: Exclude<OutOfOrderPolicy, 'REORDER'>;
  onOutOfOrder?: (info: LateInfo) => void;
}

/** The order of envelopes, each within its `stream_id`. */
export class OrderingGuard {
  readonly #options: OrderingGuardOptions;
  readonly #policy: Policies;

  constructor(options: OrderingGuardOptions = {}) {
    this.#options = options;
    const { orderingRule, outOfOrderPolicy } = options;
    this.#policy = policies({ orderingRule, outOfOrderPolicy });
  }

  /** Whether this envelope (an object, or its JSON) is to be handed on. One without anything to be ordered by is. */
  check(envelope: object | string): boolean {
    const text = typeof envelope === 'string' ? envelope : JSON.stringify(envelope);
    const late = this.#policy.late(text) as [LateInfo['mark'], LateInfo['last']] | undefined;
    if (late === undefined) return true;
    const { outOfOrderPolicy = OutOfOrderPolicy.DROP_WITH_CALLBACK, onOutOfOrder } = this.#options;
    const dropped = outOfOrderPolicy !== OutOfOrderPolicy.ACCEPT;
    const [mark, last] = late;
    if (outOfOrderPolicy !== OutOfOrderPolicy.DROP) onOutOfOrder?.({ mark, last, dropped });
    return !dropped;
  }

  /** Counts anew, as for a new connection. */
  reset(): void {
    this.#policy.resetOrder();
  }
}

export const createReconnectManager = (options?: ReconnectManagerOptions): ReconnectManager => new ReconnectManager(options);
export const createLivenessMonitor = (options?: LivenessMonitorOptions): LivenessMonitor => new LivenessMonitor(options);
export const createDedupeCache = (options?: DedupeCacheOptions): DedupeCache => new DedupeCache(options);
export const createOrderingGuard = (options?: OrderingGuardOptions): OrderingGuard => new OrderingGuard(options);

const all = {
  StateMachine, ReconnectManager, LivenessMonitor, DedupeCache, OrderingGuard, EventIdStore,
  createReconnectManager, createLivenessMonitor, createDedupeCache, createOrderingGuard, createEventIdStore,
};

/** Loads the core; the classes can be made from then on, these or those imported by name. */
export async function loadPolicies(): Promise<typeof all> {
  provideSource(inlineWasm);
  await loadCore();
  return all;
}
