// In place of inline.ts where WebAssembly must not be compiled at run time (Cloudflare Workers): the file beside the
// package, which the platform's own tools compile at deployment. See xtask/js/bundle.mjs.

import imported from './glue/core.wasm';

/** The compiled module. */
export function inlineWasm(): WebAssembly.Module {
  return imported as unknown as WebAssembly.Module;
}
