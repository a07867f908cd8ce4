// The connector's reports in words, for the log. What is unknown is shown as it came.

import { seconds } from './timeline.js';

const sentences = {
  onOpen: ({ reconnectCount, lastEventId }) =>
    `${reconnectCount === 0 ? 'first connection' : `connection ${reconnectCount + 1}`}, ` +
    (lastEventId === undefined ? 'without a cursor' : `resumed from ${lastEventId}`),
  onClose: ({ reason, willReconnect, retryIn }) =>
    `${reason}; ${willReconnect ? `trying again in ${seconds(retryIn ?? 0)}` : 'not coming back by itself'}`,
  onError: ({ code, message }) => `${code}: ${message}`,
  onRetry: ({ attempt, delayMs, reason }) => `attempt ${attempt} in ${seconds(delayMs)}, because of ${reason}`,
  onGiveUp: ({ reason, attempts }) => `${reason} after ${attempts} attempts`,
  onDuplicate: ({ eventId }) => `${eventId} came again, dropped`,
  onOutOfOrder: ({ eventId, dropped }) => `${eventId} came late${dropped ? ', dropped' : ''}`,
  onGap: ({ firstMissing, lastMissing, count }) => `${count} missing: ${firstMissing} to ${lastMissing}`,
  onLivenessFailure: ({ failure, silentMs, cut }) =>
    `${failure}: no byte for ${seconds(silentMs)}${cut ? ', connection cut' : ''}`,
  onCannotResume: ({ requestedId, message, missing }) =>
    `${requestedId ?? 'no cursor'}: ${message}${missing === undefined ? '' : ` (${missing} missing)`}`,
  onResumeAttempt: ({ lastEventId }) => `asking for what follows ${lastEventId}`,
  onStateChange: ({ from, to, reason }) => `${from} → ${to} (${reason})`,
  onControl: ({ type, payload }) => `${type}${control(payload)}`,
};

function control(payload) {
  if (payload?.eventCount !== undefined) return `, ${payload.eventCount} events`;
  if (payload?.reason !== undefined) return `, ${payload.reason}`;
  if (payload?.heartbeat_interval !== undefined) return `, heartbeat every ${seconds(payload.heartbeat_interval)}`;
  return '';
}

export const REPORTED = Object.keys(sentences);

export const describe = (callback, info) => sentences[callback](info);
