// The entry point `holdfast-sse`: works everywhere without set-up, since it carries the WebAssembly module.
//
// Whatever starts the loading is wrapped here and names the inline module as it is called. Naming it once at import
// would be shorter, but a side effect: bundlers that trust `"sideEffects": false` drop a module of which only
// re-exports are used, and the source would be missing in exactly the production build.

import * as api from './api.js';
import { inlineWasm } from './inline.js';
import { provideSource } from './loader.js';

export * from './api.js';

export const version: typeof api.version = () => {
  provideSource(inlineWasm);
  return api.version();
};
