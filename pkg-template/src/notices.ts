// Which callback hears of which notice of the core.

import type { GivenOptions } from './options.js';

/** The callback for notices of this kind; those of states and errors are dealt with by the connector itself. */
export function callbackFor(options: GivenOptions, kind: string): ((info: never) => unknown) | undefined {
  switch (kind) {
    case 'open': return options.onOpen;
    case 'close': return options.onClose;
    case 'retry': return options.onRetry;
    case 'giveUp': return options.onGiveUp;
    case 'resumeAttempt': return options.onResumeAttempt;
    case 'duplicate': return options.onDuplicate;
    case 'outOfOrder': return options.onOutOfOrder;
    case 'gap': return options.onGap;
    case 'livenessFailure': return options.onLivenessFailure;
    case 'cannotResume': return options.onCannotResume;
    default: return undefined;
  }
}
