// What both entry points offer.

import { version as coreVersion } from './glue/core.js';
import { loadWasm } from './loader.js';

export { WasmLoadError, type WasmSource } from './loader.js';

/** The version of the core. */
export async function version(): Promise<string> {
  await loadWasm();
  return coreVersion();
}
