// The interface of Standard Schema (standardschema.dev, version 1), which Zod, Valibot, ArkType and others implement.
// Written out here as its specification allows, so that there is nothing to install.

import { SSEError } from './errors.js';
import type { StreamEvent } from './event.js';

/** A schema of any library that follows the specification. */
export interface StandardSchemaV1<Input = unknown, Output = Input> {
  readonly '~standard': StandardSchemaProps<Input, Output>;
}

export interface StandardSchemaProps<Input = unknown, Output = Input> {
  readonly version: 1;
  readonly vendor: string;
  readonly validate: (value: unknown) => StandardSchemaResult<Output> | Promise<StandardSchemaResult<Output>>;
  /** There for the compiler only. */
  readonly types?: { readonly input: Input; readonly output: Output } | undefined;
}

export type StandardSchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly StandardSchemaIssue[] };

export interface StandardSchemaIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** What is wrong with a payload, as one line. */
export function describeIssues(issues: readonly StandardSchemaIssue[]): string {
  return issues.map(({ message, path = [] }) => {
    const keys = path.map((part) => String(typeof part === 'object' ? part.key : part));
    return keys.length === 0 ? message : `${keys.join('.')}: ${message}`;
  }).join('; ');
}

/** What the app is told of an event whose payload its schema refuses. */
export function invalidEvent(event: StreamEvent, issues: readonly StandardSchemaIssue[]): SSEError {
  const message = `the payload of event ${event.id ?? event.type} is not valid: ${describeIssues(issues)}`;
  return new SSEError('invalid_event', message, { event, cause: issues });
}
