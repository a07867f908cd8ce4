// The entry point `holdfast-sse/slim`: the same without the WebAssembly module inside, for apps that serve it as
// a file (`holdfast-sse/core.wasm`) or whose platform hands it over compiled.

// `Symbol.dispose` in the declarations; without this an app's own settings would have to name it.
/// <reference lib="esnext.disposable" preserve="true" />

import { loadFrom, type WasmSource } from './loader.js';

export * from './api.js';

/**
 * Says where the WebAssembly module comes from, and loads it. Call it once, before or together with the first use;
 * when the core is there already (or on its way) that one stays. A rejected call may be repeated.
 */
export async function initialize(source: WasmSource): Promise<void> {
  await loadFrom(source);
}
