// The loaded core, and its replacement when it fails.
//
// All connectors of a page share one instance. A trap (a panic, memory that ran out) leaves its memory in a state
// that nobody can vouch for, so the instance is replaced and each connector goes on from its cursor.

import { setTrapHook } from './glue/core.js';
import { type CoreExports, loadWasm, resetWasm } from './loader.js';

/** Held weakly: that its core may fail is no reason to keep a stream that nobody uses. */
const listeners = new Set<WeakRef<TrapListener>>();
/** How the connection of a listener's stream is ended without its core. */
const connections = new WeakMap<TrapListener, () => void>();
let hooked = false;
let replacing = false;

/** The core, with the watch over its failures set up. */
export async function loadCore(): Promise<CoreExports> {
  const core = await loadWasm();
  if (!hooked) {
    hooked = true;
    setTrapHook(trapped);
  }
  return core;
}

/** Hears of a failure that lost the instance, after it has been replaced. */
export interface TrapListener {
  /** Lets go of all that is of the lost instance. No app code may run: other streams still hold theirs. */
  lost(): void;
  /** Tells the app, and goes on. */
  trapped(message: string): void;
}

/** A stream was connected anew; `end` ends the connection without the core. */
export function connected(listener: TrapListener, end: () => void): void {
  connections.set(listener, end);
}

/** Answers how to listen no more. */
export function onTrap(listener: TrapListener): () => void {
  const weak = new WeakRef(listener);
  listeners.add(weak);
  gone.register(listener, weak, weak);
  return () => {
    gone.unregister(weak);
    listeners.delete(weak);
  };
}

const gone = new FinalizationRegistry<WeakRef<TrapListener>>((weak) => listeners.delete(weak));

/** Calls into the core. It never throws by design, so whatever it throws means that the instance is broken. */
export function guarded(call: () => void): void {
  try {
    call();
  } catch (error) {
    trapped(String(error));
  }
}

let depth = 0;

/** The core begins to work, perhaps in a task of its own, where nobody would see it fail. */
export function enterCore(): void {
  depth += 1;
  if (depth > 1) return;
  queueMicrotask(() => {
    if (depth > 0) trapped('it ended in the middle of its work');
  });
}

/** It has come to its end. Where it failed further in, the account is closed already. */
export function leaveCore(): void {
  if (depth > 0) depth -= 1;
}

let instances = 0;

/** Which instance this is, counted from the first one: objects of an earlier one must not be freed in a later. */
export function instanceNow(): number {
  return instances;
}

/** Replaces the instance in a later task: a panic calls this from within the one that is about to end. */
function trapped(message: string): void {
  depth = 0;
  if (replacing) return;
  replacing = true;
  setTimeout(() => {
    replacing = false;
    resetWasm();
    instances += 1;
    setTrapHook(trapped);
    const lost = [...listeners].flatMap((weak) => weak.deref() ?? []);
    // Whatever the app is told by one of them, it may ask of any other.
    for (const listener of lost) listener.lost();
    // The lost instance reads it no more, and would hold one of the few that a browser has for each host.
    for (const listener of lost) connections.get(listener)?.();
    for (const listener of lost) listener.trapped(message);
  }, 0);
}
