// What the servers of these tests serve. Event `n` follows from its number alone, so that a server which is killed and
// started again has the same log, and the test knows what it must hold.

const DATA = [
  (n) => `{"n":${n}}`,
  (n) => `line one of ${n}\nline two\n\nline four`,
  // Twice in a row: equal data does not make two events one.
  () => 'the same',
  () => 'the same',
  (n) => ` ünï 🐟 ${n}: not a field `,
  () => '',
];

/** Event `n`, from 1: its name, id and data. */
export const eventAt = (n) => ({ type: n % 4 === 1 ? 'tick' : 'message', id: String(n), data: DATA[n % DATA.length](n) });

/** As a server writes it by hand, with LF. */
export function written({ type, id, data }, withId) {
  const lines = data.split('\n').map((line) => `data: ${line}\n`).join('');
  return `${type === 'message' ? '' : `event: ${type}\n`}${withId ? `id: ${id}\n` : ''}${lines}\n`;
}

/** Where such a server stands: events up to `head` are published; who waits hears of more, and of the end. */
export class Log extends EventTarget {
  constructor(head) {
    super();
    this.head = head;
  }

  publish() {
    this.head += 1;
    this.dispatchEvent(new Event('published'));
  }

  /** Ends the responses that are open. */
  end() {
    this.dispatchEvent(new Event('end'));
  }
}

/** `node server.mjs PORT HEAD`: where to listen (0: a free port) and up to which event the log goes. */
export const [port, head] = process.argv.slice(2).map(Number);

/** Tells the test where the server is. A test that ends, in whatever way, takes it along. */
export function listening(address) {
  console.log(`listening on http://127.0.0.1:${address.port}`);
  process.stdin.on('end', () => process.exit()).resume();
}
