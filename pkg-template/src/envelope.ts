// The envelope: the JSON object that many servers wrap their events in. Helpers for making, checking, writing and
// reading it; the connector itself needs none of them.

import { generateEventId } from './event-id.js';

/** Everything that an envelope may hold. */
export interface EventEnvelope<Payload extends object = Record<string, unknown>> {
  /** A UUIDv7. */
  event_id: string;
  /** Lower case, in dots: `domain.order.created`. */
  type: string;
  /** When it was made, ISO 8601. */
  ts: string;
  payload: Payload;
  stream_id?: string;
  trace_id?: string;
  /** A UUID that links related events. */
  correlation_id?: string;
  /** Counts the events of a stream. */
  sequence?: number;
  /** Reconnection time in milliseconds. */
  retry?: number;
}

/** What the maker of an envelope may set. */
export type EnvelopeOptions = Partial<Omit<EventEnvelope, 'type' | 'payload'>>;

/** Event names that never reach `onEvent`. */
export const ReservedEventTypes = {
  HEARTBEAT: 'system.heartbeat',
  ERROR: 'system.error',
  ACK: 'system.ack',
  CONTROL_OPEN: 'control.open',
  CONTROL_CLOSE: 'control.close',
  CONTROL_RECONNECT: 'control.reconnect',
} as const;

/** What the names of an app's own events must not begin with. */
export const RESERVED_PREFIXES = ['system.', 'control.'] as const;

/** Whether an app's own event may have this name. */
export function isDomainEventType(type: string): boolean {
  return !RESERVED_PREFIXES.some((prefix) => type.startsWith(prefix));
}

export function isHeartbeatEvent(type: string): boolean {
  return type === ReservedEventTypes.HEARTBEAT;
}

/** JSON schema (draft 7) of an envelope; `validateEvent` checks the same without a schema library. */
export const eventEnvelopeSchema = {
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: 'Event envelope',
  type: 'object',
  required: ['event_id', 'type', 'ts', 'payload'],
  properties: {
    event_id: {
      type: 'string',
      pattern: '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
    },
    type: { type: 'string', minLength: 1, maxLength: 100, pattern: '^[a-z][a-z0-9_]*([.][a-z][a-z0-9_]*)*$' },
    ts: { type: 'string', format: 'date-time' },
    payload: { type: 'object' },
    stream_id: { type: 'string', minLength: 1, maxLength: 100 },
    trace_id: { type: 'string', minLength: 1, maxLength: 128 },
    correlation_id: {
      type: 'string',
      pattern: '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$',
    },
    sequence: { type: 'integer', minimum: 0 },
    retry: { type: 'integer', minimum: 0, maximum: 300_000 },
  },
  additionalProperties: false,
} as const;

/** What is wrong, in the terms of JSON schema. */
export interface ValidationError {
  /** Where: `/type`; empty for the whole. */
  instancePath: string;
  /** What it breaks: `required`, `type`, `pattern` … */
  keyword: string;
  /** A sentence a person can act on. */
  message: string;
}

/** All that a rule of the schema above may say. */
interface Rule {
  readonly type: string;
  readonly pattern?: string;
  readonly format?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
}

const DATE_TIME = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/i;

/** Checks an envelope against `eventEnvelopeSchema`; all flaws are told, not just the first. */
export function validateEvent(event: unknown): { valid: boolean; errors: ValidationError[] | null } {
  const errors: ValidationError[] = [];
  if (!isObject(event)) {
    errors.push({ instancePath: '', keyword: 'type', message: 'an envelope is an object' });
    return { valid: false, errors };
  }
  const fields = event as Record<string, unknown>;
  const rules: Readonly<Record<string, Rule>> = eventEnvelopeSchema.properties;
  for (const name of eventEnvelopeSchema.required) {
    if (fields[name] === undefined) errors.push({ instancePath: '', keyword: 'required', message: `${name} is missing` });
  }
  for (const [name, value] of Object.entries(fields)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (rule === undefined) {
      errors.push({ instancePath: '', keyword: 'additionalProperties', message: `an envelope has no field ${name}` });
    } else if (value !== undefined) {
      check(name, value, rule, errors);
    }
  }
  return { valid: errors.length === 0, errors: errors.length === 0 ? null : errors };
}

function check(name: string, value: unknown, rule: Rule, errors: ValidationError[]): void {
  const fail = (keyword: string, message: string): void => {
    errors.push({ instancePath: `/${name}`, keyword, message: `${name} ${message}` });
  };
  if (rule.type === 'object') {
    if (!isObject(value)) fail('type', 'must be an object');
  } else if (rule.type === 'integer') {
    if (!Number.isInteger(value)) fail('type', 'must be a whole number');
    else if ((value as number) < (rule.minimum ?? -Infinity)) fail('minimum', `must be at least ${rule.minimum}`);
    else if ((value as number) > (rule.maximum ?? Infinity)) fail('maximum', `must be at most ${rule.maximum}`);
  } else if (typeof value !== 'string') {
    fail('type', 'must be a string');
  } else {
    if (value.length < (rule.minLength ?? 0)) fail('minLength', 'must not be empty');
    if (value.length > (rule.maxLength ?? Infinity)) fail('maxLength', `must not be longer than ${rule.maxLength}`);
    if (rule.pattern !== undefined && !new RegExp(rule.pattern).test(value)) fail('pattern', `must match ${rule.pattern}`);
    if (rule.format !== undefined && !(DATE_TIME.test(value) && !Number.isNaN(Date.parse(value)))) {
      fail('format', 'must be an ISO 8601 timestamp with date, time and zone');
    }
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A new envelope: with an id and a time of its own, unless `options` has them. */
export function createEnvelope<Payload extends object = Record<string, unknown>>(
  type: string,
  payload: Payload = {} as Payload,
  options: EnvelopeOptions = {},
): EventEnvelope<Payload> {
  const envelope: EventEnvelope<Payload> = {
    event_id: options.event_id ?? generateEventId(),
    type,
    ts: options.ts ?? new Date().toISOString(),
    payload,
  };
  if (options.stream_id !== undefined) envelope.stream_id = options.stream_id;
  if (options.trace_id !== undefined) envelope.trace_id = options.trace_id;
  if (options.correlation_id !== undefined) envelope.correlation_id = options.correlation_id;
  if (options.sequence !== undefined) envelope.sequence = options.sequence;
  if (options.retry !== undefined) envelope.retry = options.retry;
  return envelope;
}

export function createHeartbeat(options: EnvelopeOptions = {}): EventEnvelope {
  return createEnvelope(ReservedEventTypes.HEARTBEAT, {}, options);
}

export function createError(
  message: string,
  code = 'UNKNOWN_ERROR',
  options: EnvelopeOptions = {},
): EventEnvelope<{ message: string; code: string }> {
  return createEnvelope(ReservedEventTypes.ERROR, { message, code }, options);
}

/** `control.<controlType>`. */
export function createControl<Payload extends object = Record<string, unknown>>(
  controlType: string,
  payload: Payload = {} as Payload,
  options: EnvelopeOptions = {},
): EventEnvelope<Payload> {
  return createEnvelope(`control.${controlType}`, payload, options);
}

/** `domain.<entity>.<action>`. */
export function createDomainEvent<Payload extends object = Record<string, unknown>>(
  entity: string,
  action: string,
  payload: Payload = {} as Payload,
  options: EnvelopeOptions = {},
): EventEnvelope<Payload> {
  return createEnvelope(`domain.${entity}.${action}`, payload, options);
}

/**
 * The envelope as one event of a stream, ready to be written to a response. Heartbeats, errors and control events carry no
 * `id:`, since nothing can be resumed from them.
 * @throws TypeError where id or type hold a line end or NUL, or `retry` is no whole number.
 */
export function encodeSSE(envelope: EventEnvelope<object>): string {
  const { event_id: id, type, retry } = envelope;
  for (const [name, value] of [['event_id', id], ['type', type]] as const) {
    if (/[\r\n\0]/.test(value)) throw new TypeError(`${name} cannot hold a carriage return, a line feed or NUL`);
  }
  if (retry !== undefined && !(Number.isSafeInteger(retry) && retry >= 0)) {
    throw new TypeError(`retry takes milliseconds as a whole number, got ${String(retry)}`);
  }
  const idLine = isDomainEventType(type) ? `id: ${id}\n` : '';
  const retryLine = retry === undefined ? '' : `retry: ${retry}\n`;
  // JSON escapes line ends: its text is one line.
  return `${idLine}event: ${type}\n${retryLine}data: ${JSON.stringify(envelope)}\n\n`;
}

/** The envelope in an event's data, or what is wrong with it. */
export function decodeSSE(
  data: string,
): { envelope: EventEnvelope; error: null } | { envelope: null; error: string } {
  let envelope: unknown;
  try {
    envelope = JSON.parse(data);
  } catch (error) {
    return { envelope: null, error: `not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
  const { errors } = validateEvent(envelope);
  if (errors !== null) return { envelope: null, error: `not an envelope: ${errors.map((e) => e.message).join('; ')}` };
  return { envelope: envelope as EventEnvelope, error: null };
}
