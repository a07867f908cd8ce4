// One stream: what its core, its pump and its app say to each other. What each call means is in `connector.ts`.

import { ack } from './ack.js';
import { AppCode } from './app-code.js';
import { Batch, Kind } from './batch.js';
import { type Command, Commands } from './commands.js';
import { DisconnectReason } from './constants.js';
import { Consumers } from './consumers.js';
import { NOTHING_COUNTED } from './counters.js';
import { type ErrorNotice, failureOf, handlerFailure, handlerRetryMs, noticedError, SSEError } from './errors.js';
import type { StreamEventOf } from './event.js';
import { Connector as Core, type Notice } from './glue/core.js';
import { guarded, loadCore, onTrap } from './core.js';
import { decisionOf } from './decision.js';
import { hostOf, type HostTarget } from './host.js';
import { memory, WasmLoadError } from './loader.js';
import { GIVEN_BACK } from './loop.js';
import { callbackFor } from './notices.js';
import { withoutNulls } from './nulls.js';
import { Observer } from './observer.js';
import type { ConnectionState, ConnectOptions, Fresh, GivenOptions, StateChangeInfo, Stats } from './options.js';
import { Pump, type PumpHost } from './pump.js';
import { redact } from './redact.js';
import { Reporter } from './reporter.js';
import { isRepeatable, Requests } from './request.js';
import { hold, letGo } from './running.js';
import { invalidEvent, type StandardSchemaV1 } from './schema.js';
import { isForgetful, keeperFor, type StoreKeeper } from './storage.js';
import { Traps } from './traps.js';

/** What an `SSEConnector` does. It knows nothing of its face, so that a stream that nobody holds can be collected. */
export class Stream<Map extends object> {
  /** Hears of ids without an event. */
  onCursor: ((id: string) => void) | undefined;

  readonly #url: Fresh<string | URL>;
  readonly #options: GivenOptions<Map>;
  #core: Core | undefined;
  readonly #pump: Pump;
  /** What was asked for before the core was there, or while app code ran. */
  readonly #commands = new Commands();
  readonly #app = new AppCode(() => !this.#commands.isEmpty, () => this.#goOn());
  #state: ConnectionState = 'idle';
  #loading = false;
  #failed = false;
  #disposed = false;
  /** Names of events by the index that the core knows them by. */
  readonly #names: string[] = [];
  #attempt = 0;
  /** The cursor and the ids processed beyond it: should the core fail, the stream goes on from here in a new one. */
  #progress: string[] = [];
  #forgetTrap: (() => void) | undefined;
  /** What the app wants, whatever became of it: a failed core is replaced by one that goes on, or by one that rests. */
  #wanted = false;
  /** What the next stop is told as. */
  #stopReason: string | undefined;
  /** Releases the lock that the core holds on the stored cursor, for when it cannot. */
  #releaseLock: (() => void) | undefined;
  /** The core failed, and the app has not heard of it yet: other streams are told first. */
  #isLost = false;
  readonly #traps = new Traps();
  readonly #requests: Requests;
  /** Listeners, loops, schemas and acks; undefined where onEvent is all there is. */
  consumers: Consumers | undefined;
  /** The error that closed the stream, or will. */
  #fatal: SSEError | undefined;
  /** Drives the app's own store, where there is one. */
  #keeper: StoreKeeper | undefined;
  /** Where there is a metricsSink or a logger. */
  readonly #observer: Observer | undefined;
  readonly #reporter: Reporter;

  constructor(url: Fresh<string | URL>, given?: ConnectOptions<Map> | null) {
    const options = withoutNulls<GivenOptions<Map>>(given ?? {});
    this.#url = url;
    this.#options = options;
    this.#requests = new Requests(url, options as GivenOptions);
    const isManual = options.ack === 'manual';
    this.#pump = new Pump(this.#pumpHost, options.handlerConcurrency ?? 1, isManual ? options.maxUnacked ?? 1_000 : undefined);
    if (isManual || options.schemas !== undefined) this.consume();
    if (options.metricsSink !== undefined || options.logger !== undefined) this.#observer = new Observer(options, this.#app);
    this.#reporter = new Reporter(options as GivenOptions, this.#observer, (callback, info) => void this.#app.call(callback, info));
  }

  get state(): ConnectionState {
    const asked = this.#commands.last;
    if (this.#failed || this.#disposed) return 'closed';
    if (asked !== undefined) return asked === 'stop' ? 'closed' : 'connecting';
    return this.#state;
  }

  get lastEventId(): string {
    return this.#ask((core) => core.lastEventId, this.#progress[0] ?? '');
  }

  connect(): void {
    this.#begin('connect');
  }

  stop(): void {
    this.#stop();
  }

  reconnect(): void {
    this.#begin('reconnect');
  }

  clearCursor(): void {
    this.#do('clearCursor');
  }

  getStats(): Stats {
    const counters = this.#ask((core) => core.stats() as Partial<Stats>, {});
    return { ...NOTHING_COUNTED, ...counters, lag: this.#pump.latest?.lagMs, state: this.state, lastEventId: this.lastEventId };
  }

  dispose(): void {
    if (this.#disposed) return;
    // One that never began has nothing to end.
    if (this.#hasBegun) this.stop();
    letGo(this, this.#options.signal, this.#aborted);
    this.#disposed = true;
    this.#endLoops();
    this.#release();
  }

  /** What hands events to others than onEvent; made when the first of them comes. */
  consume(): Consumers {
    const options = this.#options;
    return this.consumers ??= new Consumers({
      onEvent: options.onEvent === undefined ? undefined : (event) => options.onEvent?.(event as StreamEventOf<Map>),
      schemas: options.schemas as Readonly<Record<string, StandardSchemaV1>> | undefined,
      isManual: options.ack === 'manual',
      asked: () => {
        if (this.state === 'idle') this.connect();
        else this.#endLoops();
      },
      stop: () => this.stop(),
      invalid: (event, issues) => {
        const next = options.onInvalidEvent ?? 'skip';
        const told = invalidEvent(event, issues);
        if (next === 'stop') {
          this.#fatal = told;
          this.#stopReason ??= DisconnectReason.INVALID_EVENT;
        }
        this.#reporter.invalid(told, event, issues);
        return next;
      },
    });
  }

  /** Loops end once the stream is closed and all that it brought was handed over. */
  #endLoops(): void {
    if (this.consumers !== undefined && this.state === 'closed' && this.#pump.isIdle) this.consumers.end(this.#fatal);
  }

  readonly #aborted = (): void => this.#stop(DisconnectReason.CLIENT_ABORT);

  #begin(command: 'connect' | 'reconnect'): void {
    if (this.#options.signal?.aborted === true) return this.#aborted();
    // Of a stop that was found to be no longer needed.
    if (this.#commands.isEmpty) this.#stopReason = undefined;
    this.#do(command);
  }

  #stop(reason?: string): void {
    if (reason !== undefined) this.#stopReason ??= reason;
    if (this.#hasBegun) this.#do('stop');
    else this.#stopUnbegun();
  }

  /** Whether there is a core, or will be. */
  get #hasBegun(): boolean {
    return this.#core !== undefined || this.#isLost || this.#loading || !this.#commands.isEmpty;
  }

  /** No core is loaded just to hear that there is nothing to stop. */
  #stopUnbegun(): void {
    const reason = this.#stopReason ?? DisconnectReason.CLIENT_CLOSE;
    this.#stopReason = undefined;
    if (this.#state !== 'idle' || this.#disposed || this.#failed) return;
    this.#state = 'closed';
    setTimeout(() => {
      if (this.#hasBegun || this.#disposed) return;
      this.#notice({ kind: 'stateChange', from: 'idle', to: 'closed', reason: 'stop' });
      this.#notice({ kind: 'close', reason, willReconnect: false });
    }, 0);
  }

  /** Reads from the core, also while app code runs. Right after a trap there is none to ask. */
  #ask<Answer>(read: (core: Core) => Answer, otherwise: Answer): Answer {
    if (this.#core === undefined) return otherwise;
    try {
      return read(this.#core);
    } catch {
      return otherwise;
    }
  }

  #do(command: Command): void {
    if (this.#disposed || this.#failed) return;
    // What was not begun yet never is; what is asked for while app code runs is done right behind it.
    if (command === 'stop' || command === 'reconnect') this.#pump.close();
    if (command !== 'clearCursor') this.#wanted = command !== 'stop';
    if (this.#wanted) hold(this, this.#options.signal, this.#aborted);
    this.#commands.push(command);
    if (!this.#app.isRunning) this.#goOn();
  }

  #goOn(): void {
    if (this.#core !== undefined) this.#flush();
    else void this.#load();
  }

  async #load(): Promise<void> {
    if (this.#loading) return;
    this.#loading = true;
    try {
      await loadCore();
    } catch (error) {
      return this.#fail(error);
    } finally {
      this.#loading = false;
    }
    // A logout may come before the core does.
    if (this.#disposed && !this.#commands.has('clearCursor')) return;
    // A failure of the core may have come in between, and a new one with it; or a stop that it made good.
    if (this.#core === undefined && !this.#commands.isEmpty) this.#create();
    if (this.#core !== undefined) this.#flush();
  }

  #create(): void {
    try {
      this.#core = new Core(this.#url, this.#options, hostOf(new WeakRef(this.#target)));
      if (this.#progress.length > 0) this.#core.beginAt([...this.#progress]);
    } catch (error) {
      return this.#fail(error);
    }
    if (isForgetful(this.#options as GivenOptions)) {
      this.#reporter.debug('storage', 'there is no page here, and no eventIdStorage: the cursor is kept in memory');
    }
    this.#keeper ??= keeperFor(this.#options as GivenOptions, {
      // A store of the app's is app code.
      ...this.#app,
      failed: (message, cause) => this.#reporter.error(new SSEError('storage_unavailable', message, { cause, willRetry: true })),
    });
    this.#forgetTrap = onTrap(this.#target);
  }

  /** Carries out what was asked for. Never while app code runs. */
  #flush(): void {
    guarded(() => this.#carryOut());
  }

  #carryOut(): void {
    for (;;) {
      const command = this.#commands.take();
      if (command === undefined || this.#core === undefined) break;
      if (command === 'connect') {
        this.#pump.open();
        this.#core.connect();
      } else if (command === 'clearCursor') {
        this.#core.clearCursor();
      } else {
        this.#pump.close();
        if (command === 'stop') {
          this.#stopCore(this.#core);
        } else {
          // Of a stop that was never asked for.
          if (!this.#commands.has('stop')) this.#stopReason = undefined;
          this.#pump.open();
          this.#core.reconnect(this.#pump.started);
        }
      }
    }
    // What the pump gave back was the last of a stream that had closed by itself.
    this.#endLoops();
    if (this.#disposed) this.#release();
  }

  #stopCore(core: Core): void {
    const reason = this.#stopReason;
    this.#stopReason = undefined;
    try {
      core.stop(this.#pump.started, reason);
    } catch (error) {
      // The stop is told once the core is replaced.
      this.#stopReason = reason;
      throw error;
    }
  }

  /** Frees the core, once the app's handlers have ended and their account is stored. */
  #release(): void {
    if (this.#app.isRunning || !this.#pump.isIdle) return;
    this.#forgetTrap?.();
    this.#progress = this.#ask((core) => core.progress(), this.#progress);
    guarded(() => this.#core?.free());
    this.#core = undefined;
  }

  /** What cannot be helped by another attempt: told in a later task, and the state is closed. */
  #fail(error: unknown): void {
    // A core that could not be fetched may be there the next time; a wrong option stays wrong.
    this.#failed = !(error instanceof WasmLoadError);
    this.#wanted = false;
    this.#stopReason = undefined;
    letGo(this, this.#options.signal, this.#aborted);
    this.#commands.clear();
    const told = failureOf(error);
    this.#fatal = told;
    setTimeout(() => {
      if (this.#disposed) return;
      const from = this.#state;
      this.#state = 'closed';
      this.#reporter.error(told);
      this.#notice({ kind: 'stateChange', from, to: 'closed', reason: 'refused' });
      this.#notice({ kind: 'close', reason: told.code, willReconnect: false });
    }, 0);
  }

  #stateChanged(info: StateChangeInfo): void {
    this.#state = info.to;
    if (info.to === 'closed') {
      this.#requests.closed();
      // A callback before this one may have asked for a new beginning.
      this.#wanted = this.#commands.has('connect', 'reconnect');
      if (!this.#wanted) letGo(this, this.#options.signal, this.#aborted);
    }
    // Some closes are told by a callback of their own.
    if (info.reason === 'refused') this.#fatal ??= new SSEError('cannot_resume', 'the server cannot resume from the cursor');
    else if (info.reason === 'connect' || info.reason === 'reconnect') this.#fatal = undefined;
    this.#app.call(this.#options.onStateChange, info);
    this.#endLoops();
  }

  /** The instance is lost, and nothing of it may be touched any more. */
  #lose(): void {
    this.#isLost = true;
    this.#core = undefined;
    this.#names.length = 0;
    this.#pump.forget();
    this.consumers?.forget();
    this.#forgetTrap?.();
    this.#releaseLock?.();
    this.#releaseLock = undefined;
  }

  /** This stream goes on in a new instance, from its cursor, unless that keeps happening. */
  #trapped(message: string): void {
    this.#isLost = false;
    const from = this.#state;
    const wasWanted = this.#wanted;
    const delayMs = isRepeatable(this.#options as GivenOptions) ? this.#traps.next() : undefined;
    const willRetry = wasWanted && delayMs !== undefined;
    const told = new SSEError('wasm_trap', `the core failed and was started anew: ${message}`, { willRetry });
    this.#reporter.error(told);
    if (!wasWanted || !this.#wanted) {
      this.#restAfterTrap(from);
    } else if (willRetry) {
      this.#create();
      this.#notice({ kind: 'stateChange', from, to: 'retrying', reason: 'lost' });
      if (from === 'open') this.#notice({ kind: 'close', reason: told.code, willReconnect: true, retryIn: delayMs });
      setTimeout(() => {
        if (this.#wanted) this.#do('connect');
      }, delayMs);
    } else {
      this.#fatal = told;
      this.#notice({ kind: 'stateChange', from, to: 'closed', reason: 'refused' });
      this.#notice({ kind: 'close', reason: told.code, willReconnect: false });
    }
  }

  /** One that is to be closed needs no core; but what the lost one did not live to tell is told. */
  #restAfterTrap(from: ConnectionState): void {
    const reason = this.#stopReason ?? DisconnectReason.CLIENT_CLOSE;
    this.#stopReason = undefined;
    this.#commands.dropStops();
    if (from === 'idle' || from === 'closed') return;
    this.#notice({ kind: 'stateChange', from, to: 'closed', reason: 'stop' });
    this.#notice({ kind: 'close', reason, willReconnect: false });
  }

  /** What the core calls, by way of a host that holds it weakly. */
  readonly #target: HostTarget = {
    deliver: (...batch) => this.#deliver(...batch),
    notify: (notice) => this.#notice(notice),
    lost: () => this.#lose(),
    trapped: (message) => this.#trapped(message),
    ask: (option) => this.#requests.ask(option),
    request: (url, init, cursor) => this.#requests.send(url, init, cursor),
    committed: (cursor, done = []) => {
      this.#progress = [cursor, ...done];
      this.#keeper?.save(cursor, done);
    },
    restore: () => {
      const core = this.#core;
      void this.#keeper?.load().then((record) => {
        if (core === this.#core) guarded(() => core?.restored(record?.cursor, record?.done));
      });
    },
    lockHeld: (release) => { this.#releaseLock = release; },
  };

  #deliver(...[
    records, recordWords, pieces, pieceWords, text, , firstToken, newNames, notices,
  ]: Parameters<HostTarget['deliver']>): number {
    if (newNames !== undefined) this.#names.push(...newNames);
    const batch = new Batch(
      memory(), records, recordWords, pieces, pieceWords, text, firstToken,
      this.#names, notices ?? [], this.#attempt,
    );
    // The core is up the stack all the while: what the app asks for waits, also where no app code runs.
    this.#app.enter();
    try {
      return this.#pump.deliver(batch);
    } finally {
      if (this.#observer?.wantsCounters === true) this.#observeCounters();
      this.#app.leave();
    }
  }

  /** Answers what the callback does. */
  #notice(notice: Notice): unknown {
    const { kind, ...rest } = notice as Notice & Record<string, never>;
    const info = kind === 'open' ? { url: this.#requests.address, ...rest } : rest;
    this.#reporter.debug(kind, redact(info));
    if (kind === 'close' && this.#observer?.wantsCounters === true) this.#observeCounters();
    this.#observer?.notice(kind, info);
    if (kind === 'open') this.#attempt = (info as unknown as { attempt: number }).attempt;
    switch (kind) {
      case 'stateChange':
        return this.#stateChanged(info as unknown as StateChangeInfo);
      case 'error': {
        const error = noticedError(info as unknown as ErrorNotice);
        if (!error.willRetry) this.#fatal = error;
        return this.#reporter.error(error);
      }
      default:
        return this.#app.call(callbackFor(this.#options as GivenOptions, kind), info as never);
    }
  }

  #observeCounters(): void {
    const { eventsReceived = 0, outOfOrder = 0 } = this.#ask((core) => core.stats() as Partial<Stats>, {});
    this.#observer?.counters({ eventsReceived, outOfOrder }, this.#pump.processed, this.#pump.latest);
  }

  readonly #pumpHost: PumpHost = {
    onEvent: (event) => {
      if (this.#observer?.tracksLag === true) this.#observer.event(event);
      // One that nobody is given needs no ack, either.
      if (this.#options.shouldProcess?.(event as StreamEventOf<Map>) === false) return ack(event);
      if (this.consumers !== undefined) return this.consumers.dispatch(event);
      return this.#options.onEvent?.(event as StreamEventOf<Map>);
    },
    ...this.#app,
    tell: (kind, event) => {
      if (kind === Kind.control) this.#observer?.control(event);
      if (kind === Kind.cursor) this.onCursor?.(event.id ?? '');
      else this.#app.call(kind === Kind.heartbeat ? this.#options.onHeartbeat : this.#options.onControl, event);
      if (kind === Kind.control && event.type === 'system.error') this.#reporter.systemError(event);
    },
    notice: (notice) => {
      const answer = this.#notice(notice);
      const isAsked = notice.kind === 'cannotResume' && this.#options.cannotResumeFallback === 'callback';
      return isAsked ? decisionOf(answer) : undefined;
    },
    failed: (error, event, tries) => {
      if (error === GIVEN_BACK) return 'stop';
      const reaction = this.#options.onHandlerError ?? 'skip';
      const told = handlerFailure(error, event, reaction === 'retry');
      if (reaction === 'stop') {
        this.#fatal = told;
        this.#stopReason ??= DisconnectReason.HANDLER_FAILED;
      }
      this.#reporter.error(told);
      return reaction === 'retry' ? handlerRetryMs(tries) : reaction;
    },
    stop: (reason) => {
      if (reason === DisconnectReason.CANNOT_RESUME) {
        this.#fatal = new SSEError('cannot_resume', 'the server cannot resume from the cursor, and onCannotResume answered close');
        this.#reporter.error(this.#fatal);
      }
      this.#stop(reason);
    },
    givenBack: () => {
      if (!this.#commands.has('stop', 'reconnect')) guarded(() => this.#core?.stop(this.#pump.started));
    },
    done: (token) => guarded(() => {
      this.#core?.done(token);
      // The ids beyond it come with the next commit: there may be many, and acks by hand may be many, too.
      this.#progress[0] = this.#core?.lastEventId ?? '';
    }),
    idle: () => {
      this.#endLoops();
      if (this.#disposed) this.#release();
    },
  };
}
