// Streams that run stay alive without the app's holding on to them, and are stopped by their signal. A signal may live as
// long as the page: it holds those that run, and no others.

const running = new Set<object>();

export function hold(stream: object, signal: AbortSignal | undefined, stop: () => void): void {
  running.add(stream);
  // The core says so where it is no signal.
  signal?.addEventListener?.('abort', stop);
}

export function letGo(stream: object, signal: AbortSignal | undefined, stop: () => void): void {
  running.delete(stream);
  signal?.removeEventListener?.('abort', stop);
}
