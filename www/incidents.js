// From a button, or from trouble that nobody ordered, to one sentence about how it went. An incident is over when
// events flow again; its sentence is made from what was seen, never from what should have happened.

import { seconds } from './timeline.js';

const REPEAT_WAIT_MS = 10_000;
const SWAP_WAIT_MS = 10_000;
const QUIET_WAIT_MS = 15_000;

const events = (count) => `${count} ${count === 1 ? 'event' : 'events'}`;
const short = (id) => id?.slice(id.lastIndexOf('-') + 1) ?? 'none';

const CAUSES = {
  network_error: 'Connection cut',
  client_timeout: 'Server did not answer',
  http_status: 'Server refused',
  rate_limited: 'Server refused',
  overload_reject: 'Server is full',
  server_error: 'Server failed',
  liveness_timeout: 'Silence noticed and connection cut',
  gap: 'A hole was noticed and the connection made anew',
  server_shutdown: 'Server said goodbye',
  stream_ended: 'Stream ended',
  reconnect: 'Connection made anew',
  hidden: 'Connection closed while the page was hidden',
  page_left: 'Connection closed while the page was left',
  client_close: 'Stopped by you',
};

export class Incidents {
  #tell;
  #current;
  #timer;
  #lastId;
  #replaying = false;

  /** `tell` takes a finished sentence. */
  constructor(tell) {
    this.#tell = tell;
  }

  /** Whether something is going on whose outcome is open. */
  get pending() {
    return this.#current !== undefined;
  }

  /** A button was pressed. */
  order(kind) {
    // Two troubles at once are one incident: it tells what came of both.
    this.#current ??= this.#begin(kind);
    this.#current.kind = kind;
    const waits = { repeat: REPEAT_WAIT_MS, swap: SWAP_WAIT_MS, silence: QUIET_WAIT_MS, drop: QUIET_WAIT_MS, refuse: QUIET_WAIT_MS };
    clearTimeout(this.#timer);
    if (waits[kind] !== undefined) this.#timer = setTimeout(() => this.#expire(), waits[kind]);
  }

  /** The page came back after a reload that began at `at`. */
  reloaded(at, lastId) {
    this.#lastId = lastId;
    this.#current = { ...this.#begin('reload'), lostAt: at, cause: 'Page went away' };
  }

  closed({ reason, willReconnect }) {
    this.#current ??= this.#begin('unordered');
    this.#current.lostAt ??= Date.now();
    this.#current.cause ??= CAUSES[reason] ?? `Connection lost (${reason})`;
    this.#current.afterId ??= this.#lastId;
    if (!willReconnect) {
      const next = reason === 'client_close' ? '. Connect again when you like: the cursor is kept.' : `: ${reason}. It does not come back by itself.`;
      this.#tell(`${this.#current.cause} after event ${short(this.#lastId)}${next}`);
    }
  }

  refused(status) {
    if (this.#current !== undefined && status !== undefined) this.#current.refusals += 1;
  }

  opened(lastEventId) {
    this.#replaying = false;
    if (this.#current?.kind === 'forget' && lastEventId === undefined) {
      this.#end('Connected anew, without a cursor.');
      return;
    }
    if (this.#current?.lostAt === undefined) return;
    this.#current.openedAt = Date.now();
    this.#current.resumedFrom = lastEventId;
  }

  control(type) {
    if (type === 'control.replay_start') this.#replaying = true;
    if (type !== 'control.replay_end') return;
    this.#replaying = false;
    if (this.#current?.openedAt !== undefined) this.#finish();
  }

  cannotResume({ requestedId, missing }) {
    const count = missing === undefined ? 'some events' : events(missing);
    this.#tell(`The server no longer has what follows ${requestedId ?? 'the cursor'}: ${count} missing, and the connector said so.`);
  }

  duplicate(id) {
    if (this.#current === undefined) return;
    this.#current.duplicates += 1;
    this.#current.firstDuplicate ??= id;
    this.#current.lastDuplicate = id;
    // They come in one burst, and all of them belong into one sentence.
    if (this.#current.kind === 'repeat' && this.#current.lostAt === undefined) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#expire(), 500);
    }
  }

  /** An event was handed over; answers whether it was replayed. */
  event(id, receivedAt) {
    const current = this.#current;
    if (current !== undefined) {
      if (this.#replaying) current.replayed += 1;
      else if (current.openedAt !== undefined) queueMicrotask(() => this.#finish());
      // The connector does not report what it put in order. A swapped pair comes in one piece, so that tells.
      if (current.kind === 'swap' && current.lostAt === undefined && current.previous?.receivedAt === receivedAt) {
        const [first, second] = [short(current.previous.id), short(id)];
        this.#end(`The server held ${first} back until ${second} was out. The app got ${first}, then ${second}.`);
      }
      current.previous = { id, receivedAt };
    }
    this.#lastId = id;
    return this.#replaying;
  }

  /** The cursor was given up on purpose: nothing is awaited any more but a connection. */
  forgotten() {
    this.#end('Cursor forgotten. The stream and the ledger begin anew, with the next event that is published.');
    this.#current = this.#begin('forget');
  }

  /** The order itself did not get through. */
  failed(why) {
    this.#end(`That did not work: ${why}.`);
  }

  #begin(kind) {
    return { kind, at: Date.now(), duplicates: 0, replayed: 0, refusals: 0 };
  }

  /** What was ordered has not cut the connection within its time, or never was going to. */
  #expire() {
    const current = this.#current;
    if (current === undefined || current.lostAt !== undefined) return;
    if (current.duplicates > 0) {
      const { duplicates, firstDuplicate, lastDuplicate } = current;
      const which = duplicates === 1 ? short(firstDuplicate) : `${short(firstDuplicate)} to ${short(lastDuplicate)}`;
      this.#end(`${events(duplicates)} came a second time (${which}) and ${duplicates === 1 ? 'was' : 'were'} dropped. The app saw none of it.`);
      return;
    }
    this.#end('Nothing to see this time: the trouble passed without a trace.');
  }

  #finish() {
    const current = this.#current;
    if (current === undefined) return;
    const parts = [`${current.cause} after event ${short(current.afterId ?? current.resumedFrom)}`];
    const away = `back after ${seconds(current.openedAt - current.lostAt)}`;
    parts.push(current.refusals > 0 ? `${current.refusals === 1 ? 'refused once' : `refused ${current.refusals} times`}, ${away}` : away);
    parts.push(current.resumedFrom === undefined ? 'without a cursor' : `resumed from ${short(current.resumedFrom)}`);
    parts.push(current.replayed === 0 ? 'nothing was missed' : `${events(current.replayed)} replayed`);
    if (current.duplicates > 0) parts.push(`${events(current.duplicates)} came twice and dropped`);
    this.#end(`${parts.join('; ')}.`);
  }

  #end(sentence) {
    clearTimeout(this.#timer);
    this.#current = undefined;
    this.#tell(sentence);
  }
}
