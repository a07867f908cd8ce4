// The WebAssembly module as text inside the bundle. It is decoded on first use, not at import.

import base64 from './glue/core.wasm';

/** The bytes of the module. */
export function inlineWasm(): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
