// The entry point `holdfast-sse`: works everywhere without set-up, since it carries the WebAssembly module.
//
// Whatever starts the loading is wrapped here and names the inline module as it is called. Naming it once at import
// would be shorter, but a side effect: bundlers that trust `"sideEffects": false` drop a module of which only
// re-exports are used, and the source would be missing in exactly the production build.

// `Symbol.dispose` in the declarations; without this an app's own settings would have to name it.
/// <reference lib="esnext.disposable" preserve="true" />

import * as api from './api.js';
import type { EventMap } from './event.js';
import { inlineWasm } from './inline.js';
import { provideSource } from './loader.js';
import type { ConnectOptions, Fresh } from './options.js';

export * from './api.js';
// Classes that want the core loaded: `await loadPolicies()` first, or be behind a connector that has opened.
export * from './policies.js';

export const version: typeof api.version = () => {
  provideSource(inlineWasm);
  return api.version();
};

export const createSSEParser: typeof api.createSSEParser = (options) => {
  provideSource(inlineWasm);
  return api.createSSEParser(options);
};

export const parseSSEChunk: typeof api.parseSSEChunk = (chunk) => {
  provideSource(inlineWasm);
  return api.parseSSEChunk(chunk);
};

/** {@inheritDoc api.SSEConnector} */
export class SSEConnector<Map extends object = EventMap> extends api.SSEConnector<Map> {
  constructor(url: Fresh<string | URL>, options?: ConnectOptions<Map>) {
    provideSource(inlineWasm);
    super(url, options);
  }
}

/** Connects to an event stream at once and answers with its connector; the core is loaded behind it. */
export function connectSSE<Map extends object = EventMap>(
  url: Fresh<string | URL>,
  options?: ConnectOptions<Map>,
): SSEConnector<Map> {
  const connector = new SSEConnector<Map>(url, options);
  connector.connect();
  return connector;
}
