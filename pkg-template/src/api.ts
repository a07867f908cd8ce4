// What both entry points offer.

import { loadCore } from './core.js';
import { version as coreVersion } from './glue/core.js';

export { connectSSE } from './connect.js';
export { SSEConnector } from './connector.js';
export * from './constants.js';
export * from './correlation.js';
export * from './envelope.js';
export * from './event-id.js';
export { type ErrorCode, SSEError } from './errors.js';
export { type EventMap, StreamEvent, type StreamEventOf } from './event.js';
export { WasmLoadError, type WasmSource } from './loader.js';
export * from './logger.js';
export * from './metrics.js';
export * from './options.js';
export { createSSEParser, type ParsedEvent, type ParserOptions, parseSSEChunk, type SSEParser } from './parser.js';
export {
  type EventIdStorage, IndexedDBStorage, LocalStorageAdapter, MemoryStorage, SessionStorageAdapter,
} from './storage.js';
export type { StandardSchemaIssue, StandardSchemaProps, StandardSchemaResult, StandardSchemaV1 } from './schema.js';

/** The version of the core. */
export async function version(): Promise<string> {
  await loadCore();
  return coreVersion();
}
