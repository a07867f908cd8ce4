// The drop-in can stand wherever the DOM's type is asked for.

import { EventSource } from 'holdfast-sse/eventsource';

const source = new EventSource('/stream', { withCredentials: true, headers: { authorization: 'Bearer x' } });
export const native: globalThis.EventSource = source;
const made: typeof globalThis.EventSource = EventSource;

source.onmessage = (event) => event.data;
source.onerror = (event) => event.error?.code;
source.addEventListener('tick', (event) => event.lastEventId);
// @ts-expect-error: not an option of it
new made('/stream', { with: true });
// @ts-expect-error: a wrong type
new EventSource('/stream', { withCredentials: 'yes' });
