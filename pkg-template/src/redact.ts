// What must not stand in a log.

const SENSITIVE = /password|token|secret|key|auth|credential/i;
const TEXT_MAX = 500;
const DEPTH_MAX = 4;
/** The query of an address within a text. */
const QUERY = /(https?:\/\/[^\s"'?#]*)\?[^\s"'#)]*/gi;

/** A copy without secrets: fields with a telling name, queries of addresses; long texts are cut. */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') {
    const text = value.replace(QUERY, '$1?[REDACTED]');
    return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}...[truncated]` : text;
  }
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= DEPTH_MAX) return '[...]';
  if (Array.isArray(value)) return value.slice(0, 100).map((item) => redact(item, depth + 1));
  if (value instanceof Error) return redact(value.message);
  return Object.fromEntries(
    Object.entries(value).map(([name, field]) => [name, SENSITIVE.test(name) ? '[REDACTED]' : redact(field, depth + 1)]),
  );
}
