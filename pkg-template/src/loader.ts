// Gets the WebAssembly module, compiles it once and instantiates it: on first use, never at import.
//
// All entry points share this module, and so one instance. They differ only in where the bytes come from, which
// they say with `provideSource`. No top-level await: it would hold up every module that imports us, and some
// bundlers and all service workers refuse it.

import instantiate, { __wbg_reset_state, initSync } from './glue/core.js';

/** Where the WebAssembly module can come from. */
export type WasmSource = URL | string | Response | WebAssembly.Module | BufferSource;

/** What the driver needs of the instance beside the functions of the glue. */
export interface CoreExports {
  readonly memory: WebAssembly.Memory;
}

/** Why there is no core. `wasm_blocked`: it cannot run here; the others: it could not be fetched. */
export class WasmLoadError extends Error {
  override readonly name = 'WasmLoadError';
  readonly code: 'wasm_blocked' | 'network_error' | 'http_status' | 'invalid_option';

  constructor(code: WasmLoadError['code'], message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

let source: (() => WasmSource) | undefined;
let loading: Promise<CoreExports> | undefined;
let compiled: WebAssembly.Module | undefined;
let instance: CoreExports | undefined;

/** Says where the module comes from, unless that has been said before: the first source stays. */
export function provideSource(provided: () => WasmSource): void {
  source ??= provided;
}

/** Says where the module comes from and loads it, unless it is being loaded already. */
export function loadFrom(given: WasmSource): Promise<CoreExports> {
  if (loading === undefined) source = () => given;
  return loadWasm();
}

/** The instance, made on the first call. After a failure the next call tries again. */
export function loadWasm(): Promise<CoreExports> {
  loading ??= load().catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/** The memory of the running instance. It changes with `resetWasm`, and its buffer with every growth: keep neither. */
export function memory(): WebAssembly.Memory {
  if (instance === undefined) throw new Error('the WebAssembly core is not loaded yet');
  return instance.memory;
}

/** Whether the core has been loaded, so that calls into it are possible now. */
export function isLoaded(): boolean {
  return instance !== undefined;
}

/**
 * Drops the instance and makes a new one of the same compiled module, at once: after a trap the old one's memory
 * cannot be trusted. Every object of the old instance is dead from here on.
 */
export function resetWasm(): CoreExports {
  if (compiled === undefined) throw new Error('the WebAssembly core is not loaded yet');
  __wbg_reset_state();
  // The glue has an instance and so only returns it.
  instance = initSync({ module: compiled });
  return instance;
}

async function load(): Promise<CoreExports> {
  if (typeof WebAssembly === 'undefined') {
    throw new WasmLoadError('wasm_blocked', 'there is no WebAssembly here (an old browser, or one in lockdown mode)');
  }
  // The global one: in the package the bare name is lazy-text.ts's.
  if (typeof globalThis.TextDecoder !== 'function') {
    const advice = "hand Node's in where the test environment is set up, with fetch and ReadableStream";
    throw new WasmLoadError('wasm_blocked', `there is no TextDecoder here; in jsdom, ${advice}`);
  }
  if (source === undefined) {
    const advice = "call its initialize(source) first, or import from 'holdfast-sse'";
    throw new WasmLoadError('invalid_option', `holdfast-sse/slim carries no WebAssembly: ${advice}`);
  }
  const given = source();
  const fetched = typeof given === 'string' || given instanceof URL ? await fetchModule(given) : given;
  try {
    compiled = await compile(fetched);
    instance = await instantiate({ module_or_path: compiled });
    return instance;
  } catch (error) {
    throw error instanceof WasmLoadError ? error : blocked(error);
  }
}

async function fetchModule(url: URL | string): Promise<Response> {
  try {
    return await fetch(url);
  } catch (error) {
    throw unreachable(String(url), error);
  }
}

async function compile(given: Exclude<WasmSource, URL | string>): Promise<WebAssembly.Module> {
  if (typeof Response === 'function' && given instanceof Response) {
    if (!given.ok) {
      const message = `cannot fetch the WebAssembly core from ${given.url}: status ${given.status}`;
      throw new WasmLoadError('http_status', message);
    }
    try {
      // Streaming insists on this very media type, and plain file servers do not always know it.
      const streamable = given.headers.get('content-type')?.toLowerCase() === 'application/wasm';
      if (streamable && typeof WebAssembly.compileStreaming === 'function') {
        return await WebAssembly.compileStreaming(given);
      }
      return await WebAssembly.compile(await given.arrayBuffer());
    } catch (error) {
      // Bytes that cannot be read are a TypeError, bytes that cannot be compiled are not.
      throw error instanceof TypeError ? unreachable(given.url, error) : error;
    }
  }
  return given instanceof WebAssembly.Module ? given : WebAssembly.compile(given as BufferSource);
}

function unreachable(url: string, error: unknown): WasmLoadError {
  const message = `cannot fetch the WebAssembly core from ${url}: ${text(error)}`;
  return new WasmLoadError('network_error', message, error);
}

/** Chromium, Firefox and Safari word the refusal differently, but each names the policy or the keyword. */
function blocked(error: unknown): WasmLoadError {
  const reason = text(error);
  const message = /content security policy|\bcsp\b|unsafe-eval/i.test(reason)
    ? "the page's Content-Security-Policy blocks WebAssembly: add 'wasm-unsafe-eval' to its script-src directive"
    : `the WebAssembly core cannot run here (it needs a browser of 2023 or later, with WebAssembly SIMD): ${reason}`;
  return new WasmLoadError('wasm_blocked', message, error);
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
