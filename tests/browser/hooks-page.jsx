// The page of hooks.test.mjs: components that a test mounts, changes and unmounts, and what they saw.

import { QueryClient, QueryClientProvider, useQuery } from '@tanstack/react-query';
import { Activity, StrictMode, useState } from 'react';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';
import { useSSEConnection } from 'holdfast-sse/react';
import { useSSEQueryInvalidation } from 'holdfast-sse/tanstack-query';

export const log = { events: [], connected: [], errors: [], gaps: [], renders: 0 };

/** Each render brings functions of its own, which know in which render they were made. */
function Stream({ round, plain, keep, ...props }) {
  log.renders += 1;
  const { connected, state, connector } = useSSEConnection({
    ...props,
    ...(plain ? { parse: ({ data }) => `plain ${data}` } : {}),
    onEvent: (event, { id, type }) => { log.events.push([event, id ?? null, type, round]); },
    onConnectionChange: (is) => { log.connected.push(is); },
    onError: ({ code, message }) => { log.errors.push([code, message]); },
    options: {
      retryPolicy: { baseDelayMs: 20 },
      onControl: null,
      persistLastEventId: keep ?? false,
      headers: async () => ({ 'x-round': String(round) }),
    },
  });
  window.connector = connector;
  return <p id="state">{`${connected} ${state}`}</p>;
}

const client = new QueryClient({ defaultOptions: { queries: { retry: false } } });

function Query({ name }) {
  const { data } = useQuery({ queryKey: ['count', name], queryFn: async () => (await fetch(`/count?${name}`)).text() });
  return <p id={name}>{data}</p>;
}

function Queries({ by, onGap, ...props }) {
  const { connected } = useSSEQueryInvalidation({
    ...props,
    queryKeys: by === 'event' ? ({ topic }, { type }) => [['count', topic], ['nothing', type]] : [['count', 'a'], ['count', 'c']],
    onError: ({ code }) => { log.errors.push(code); },
    options: {
      retryPolicy: { baseDelayMs: 20 },
      onCannotResume: ({ reason }) => { log.gaps.push(reason); },
    },
  });
  return <>{['a', 'b', 'c'].map((name) => <Query key={name} name={name} />)}<p id="state">{String(connected)}</p></>;
}

const parts = { Stream, Queries };
let root;
let change;

function Page({ initial }) {
  const [{ part, strict, hidden, ...props }, set] = useState(initial);
  change = (more) => flushSync(() => set((now) => ({ ...now, ...more })));
  const Part = parts[part];
  const shown = <Activity mode={hidden ? 'hidden' : 'visible'}><Part {...props} /></Activity>;
  return <QueryClientProvider client={client}>{strict ? <StrictMode>{shown}</StrictMode> : shown}</QueryClientProvider>;
}

Object.assign(window, {
  log,
  mount(initial) {
    root = createRoot(document.getElementById('root'));
    flushSync(() => root.render(<Page initial={initial} />));
  },
  change: (more) => change(more),
  unmount: () => flushSync(() => root.unmount()),
});
