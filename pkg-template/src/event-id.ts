// Event ids: UUIDs of version 7 (RFC 9562), which sort by the time of their making.

const FORMAT = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;

/** 12 bits behind the version and 14 behind the variant. */
const COUNTER_MAX = 2 ** 26 - 1;

let lastMs = 0;
let counter = 0;

/**
 * A new id. Those of one process grow strictly, also within a millisecond and when the clock goes back: a counter behind
 * the time begins anew at a random place with each millisecond (RFC 9562, section 6.2, method 1).
 */
export function generateEventId(): string {
  const random = crypto.getRandomValues(new Uint8Array(10));
  const now = Date.now();
  if (now > lastMs) {
    lastMs = now;
    // The lower half of its range, so that there is room to count.
    counter = ((random[0]! << 16) | (random[1]! << 8) | random[2]!) & (COUNTER_MAX >> 1);
  } else if (counter < COUNTER_MAX) {
    counter += 1;
  } else {
    lastMs += 1;
    counter = 0;
  }
  const time = hex(lastMs, 12);
  const high = hex(0x7000 | (counter >>> 14), 4);
  const low = hex(0x8000 | (counter & 0x3fff), 4);
  const rest = Array.from(random.subarray(4), (byte) => hex(byte, 2)).join('');
  return `${time.slice(0, 8)}-${time.slice(8)}-${high}-${low}-${rest}`;
}

/**
 * When an id was made.
 * @throws TypeError where it is no UUIDv7.
 */
export function extractTimestamp(eventId: string): Date {
  if (!isValidEventId(eventId)) throw new TypeError(`not an event id (a UUID of version 7): ${String(eventId)}`);
  return new Date(parseInt(eventId.slice(0, 8) + eventId.slice(9, 13), 16));
}

/** Whether this is a UUID of version 7. */
export function isValidEventId(eventId: unknown): eventId is string {
  return typeof eventId === 'string' && FORMAT.test(eventId);
}

function hex(number: number, digits: number): string {
  return number.toString(16).padStart(digits, '0');
}
