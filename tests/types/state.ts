// The types of a state's view. Compiled by tests/node/schemas.test.mjs; nothing runs.

import { SharedState } from 'holdfast-sse/state';

const users = new SharedState<number>('/stream/user-count', {
  key: 'count',
  onChange: ({ value, previous, status }) => [value?.toFixed(), previous?.toFixed(), status === 'stale'],
});
const value: number | undefined = users.value;
const end: () => void = users.subscribe(() => {});
// @ts-expect-error: the cursor of a view is not kept
new SharedState('/stream/x', { persistLastEventId: true });
// @ts-expect-error: not a number
const text: string | undefined = users.value;
export { end, text, value };
