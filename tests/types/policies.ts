// The policies by themselves, from either entry point, and what options may be. Compiled by tests/node/schemas.test.mjs;
// nothing runs.

import * as main from 'holdfast-sse';
import {
  type CannotResumeInfo, CannotResumeFallback, connectSSE, type ConnectOptions, DisconnectReason, type GiveUpInfo, RetryPolicies,
  RetryPolicy,
} from 'holdfast-sse';
import {
  createDedupeCache, createEventIdStore, DedupeCache, type LateInfo, LivenessMonitor, loadPolicies, OrderingGuard,
  ReconnectManager, StateMachine,
} from 'holdfast-sse/policies';
import { same } from './events.js';

same<typeof main.DedupeCache, typeof DedupeCache>(true);
same<typeof main.loadPolicies, typeof loadPolicies>(true);

export async function policies(): Promise<void> {
  const all = await loadPolicies();
  same<typeof all.DedupeCache, typeof DedupeCache>(true);
  same<ReturnType<DedupeCache['isDuplicate']>, boolean>(true);
  const machine = new StateMachine({ onStateChange: ({ from, to }) => [from, to] });
  if (machine.after('connect') === 'connecting') machine.transition('connect');
  // @ts-expect-error: not a reason
  machine.transition('because');
  new ReconnectManager({ retryPolicy: RetryPolicies.balanced(), onGiveUp: (info) => same<typeof info, GiveUpInfo>(true) })
    .schedule(() => {}, { reason: 'mine', retryAfterMs: 5 });
  new LivenessMonitor({ onLivenessFailure: ({ cut }) => same<typeof cut, boolean>(true) }).heartbeat(5);
  new OrderingGuard({ orderingRule: 'EVENT_ID', onOutOfOrder: (info) => same<typeof info, LateInfo>(true) }).check({ event_id: 'x' });
  // @ts-expect-error: needs a connector
  new OrderingGuard({ outOfOrderPolicy: 'REORDER' });
  createDedupeCache({ maxSize: 5, ttlMs: 0 }).clear();
  same<string, Awaited<ReturnType<ReturnType<typeof createEventIdStore>['load']>>>(true);
}

// A policy as a class, and null for absent.
const policy: RetryPolicy = new RetryPolicy({ maxAttempts: 5 });
const options: ConnectOptions = { traceId: null, headers: null, eventIdStorage: null, onEvent: null, retryPolicy: { maxDelayMs: null } };
connectSSE('/stream', { ...options, retryPolicy: policy });
// @ts-expect-error: null is absent, and 'none' is not
connectSSE('/stream', { timeout: 'none' });
// @ts-expect-error: not a field of it
new RetryPolicy({ attempts: 5 });

// What the app decides.
connectSSE('/stream', {
  cannotResumeFallback: CannotResumeFallback.CALLBACK,
  onCannotResume: async (info) => {
    same<typeof info, CannotResumeInfo>(true);
    return info.missing === undefined ? 'close' : 'start_fresh';
  },
});
connectSSE('/stream', { onCannotResume: () => {} });
// @ts-expect-error: not a decision
connectSSE('/stream', { onCannotResume: () => 'again' });
connectSSE<{ a: number; b: string }>('/stream', {
  shouldProcess: (event) => event.type === 'a' && event.payload > 5,
  onSystemError: (event) => event.payload,
  onClose: ({ reason }) => reason === DisconnectReason.CLIENT_TIMEOUT,
});
// @ts-expect-error: true or false
connectSSE('/stream', { shouldProcess: (event) => event.type });
