// Events that wait for the app's word that they are done (`ack: 'manual'`).
//
// Kept beside the events, so that those of streams without it carry nothing of it.

interface Pending {
  acked: boolean;
  /** Waits for the word. */
  listener: (() => void) | undefined;
}

const pending = new WeakMap<object, Pending>();

/** From here on the event waits for its ack. */
export function expectAck(event: object): void {
  if (!pending.has(event)) pending.set(event, { acked: false, listener: undefined });
}

/** The event is done; repeated calls and events that nobody waits for do nothing. */
export function ack(event: object): void {
  const state = pending.get(event);
  if (state === undefined || state.acked) return;
  state.acked = true;
  state.listener?.();
}

/** Whether nothing is waited for. */
export function isAcked(event: object): boolean {
  return pending.get(event)?.acked ?? true;
}

/** Calls `listener` at the ack, in place of an earlier listener. */
export function onAck(event: object, listener: () => void): void {
  const state = pending.get(event);
  if (state !== undefined) state.listener = listener;
}
