// The loaded core, and its replacement when it fails.

import { setTrapHook } from './glue/core.js';
import { type CoreExports, loadWasm, resetWasm } from './loader.js';

const listeners = new Set<(message: string) => void>();
let hooked = false;

/** The core, with the watch over its failures set up. */
export async function loadCore(): Promise<CoreExports> {
  const core = await loadWasm();
  if (!hooked) {
    hooked = true;
    setTrapHook(trapped);
  }
  return core;
}

/** Hears of a failure that lost the instance, after it has been replaced. Answers how to listen no more. */
export function onTrap(listener: (message: string) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Called from within the failing instance, right before it ends: replacing it has to wait until it has. */
function trapped(message: string): void {
  setTimeout(() => {
    resetWasm();
    setTrapHook(trapped);
    for (const listener of [...listeners]) listener(message);
  }, 0);
}
