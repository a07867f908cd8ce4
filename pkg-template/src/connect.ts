// The function that most apps begin with, for entry points that bring no WebAssembly along.

import { SSEConnector } from './connector.js';
import type { EventMap } from './event.js';
import type { ConnectOptions, Fresh } from './options.js';

/** Connects to an event stream at once and answers with its connector; the core is loaded behind it. */
export function connectSSE<Map extends object = EventMap>(
  url: Fresh<string | URL>,
  options?: ConnectOptions<Map>,
): SSEConnector<Map> {
  const connector = new SSEConnector<Map>(url, options);
  connector.connect();
  return connector;
}
