// What an app decides about a stream that cannot be resumed.

import { DisconnectReason } from './constants.js';
import { reportUnhandled } from './errors.js';
import { isThenable } from './pump.js';

/** The reason to stop for, or undefined to go on; undefined in place of a promise where it is clear at once. */
export function decisionOf(answer: unknown): Promise<string | undefined> | undefined {
  if (isThenable(answer)) {
    return Promise.resolve(answer).then(reasonOf, (error: unknown) => {
      reportUnhandled(error);
      return undefined;
    });
  }
  const reason = reasonOf(answer);
  return reason === undefined ? undefined : Promise.resolve(reason);
}

function reasonOf(answer: unknown): string | undefined {
  return answer === 'close' ? DisconnectReason.CANNOT_RESUME : undefined;
}
