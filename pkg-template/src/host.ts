// The core's side of a connector: what it calls, held so that neither keeps the other alive.

import { connected, enterCore, leaveCore, type TrapListener } from './core.js';
import { reportUnhandled } from './errors.js';
import type { Host } from './glue/core.js';

/** What a connector does for its core. */
export type HostTarget = Omit<Host, 'enter' | 'leave' | 'connected'> & TrapListener;

/**
 * The host that the core holds. It holds its connector weakly: the core hangs on the connector, and the two would keep
 * each other alive for ever across the border, which no collector sees over. Nothing that is thrown gets into the core.
 */
export function hostOf(weak: WeakRef<HostTarget>): Host {
  const safely = <Answer>(otherwise: Answer, call: (target: HostTarget) => Answer): Answer => {
    const target = weak.deref();
    if (target === undefined) return otherwise;
    try {
      return call(target);
    } catch (error) {
      reportUnhandled(error);
      return otherwise;
    }
  };
  return {
    enter: enterCore,
    leave: leaveCore,
    deliver: (...batch) => safely(0, (target) => target.deliver(...batch)),
    notify: (notice) => safely(undefined, (target) => target.notify(notice)),
    ask: (option) => safely<Promise<unknown> | undefined>(undefined, (target) => target.ask(option))
      ?? Promise.reject(new Error('nobody waits for it')),
    request: (...request) => safely<Promise<unknown> | undefined>(undefined, (target) => target.request(...request))
      ?? Promise.reject(new Error('nobody waits for it')),
    connected: (end) => safely(undefined, (target) => connected(target, end)),
    committed: (cursor, done) => safely(undefined, (target) => target.committed(cursor, done)),
    restore: () => safely(undefined, (target) => target.restore()),
    lockHeld: (release) => safely(undefined, (target) => target.lockHeld(release)),
  };
}
