// The page's own account of what it was handed. It knows nothing of the connector: only ids, in the order in which
// they came. The server numbers its events `<epoch>-<sequence>`, so every flaw shows.

const HOLES_MAX = 20;
const FINDINGS_MAX = 20;
const EPOCHS_MAX = 8;

const empty = () => ({
  v: 1,
  at: 0, // when it was written last
  since: 0,
  count: 0,
  twice: 0,
  disordered: 0,
  announced: 0, // missing, and the connector said so
  reloads: 0,
  first: '',
  last: '',
  epoch: '',
  sequence: 0,
  epochs: [], // earlier ones: what comes from them now comes twice
  holes: [], // [epoch, from, to]: lost, unless they come later
  lostBefore: 0, // in holes that there was no room to remember
  findings: [],
});

export class Ledger {
  #storage;
  #key;
  #state;
  /** The connector has said that the server cannot go on where we were: the next jump is no surprise. */
  #jumpAnnounced = false;

  /** `storage` is localStorage, or anything with its getItem and setItem. */
  constructor(storage, key) {
    this.#storage = storage;
    this.#key = key;
    this.#state = this.#load();
  }

  get summary() {
    const { count, twice, disordered, announced, reloads, first, last, since, findings } = this.#state;
    const lost = this.#state.holes.reduce((sum, [, from, to]) => sum + to - from + 1, this.#state.lostBefore);
    return { count, lost, twice, disordered, announced, reloads, first, last, since, findings };
  }

  /** Enters one event. Called by the synchronous event handler, so that it is stored before the cursor moves. */
  record(id) {
    const state = this.#state;
    const cut = id?.lastIndexOf('-') ?? -1;
    const sequence = Number(id?.slice(cut + 1));
    if (cut > 0 && Number.isSafeInteger(sequence)) this.#place(id.slice(0, cut), sequence);
    else this.#find(`an event without a number: ${id ?? 'no id'}`);
    if (state.count === 0) [state.first, state.since] = [id, Date.now()];
    state.count += 1;
    this.#save();
  }

  /** The connector reported that events are missing: what follows is a jump that nobody was kept in the dark about. */
  announceJump() {
    this.#jumpAnnounced = true;
  }

  countReload() {
    if (this.#state.count === 0) return;
    this.#state.reloads += 1;
    this.#save();
  }

  reset() {
    this.#state = empty();
    this.#jumpAnnounced = false;
    this.#save();
  }

  #place(epoch, sequence) {
    const state = this.#state;
    const id = `${epoch}-${sequence}`;
    const begins = state.count === 0;
    if (!begins && (state.epochs.includes(epoch) || (epoch === state.epoch && sequence <= state.sequence))) {
      if (this.#fill(epoch, sequence)) {
        state.disordered += 1;
        this.#find(`${id} came after ${state.last}`);
      } else {
        state.twice += 1;
        this.#find(`${id} came twice`);
      }
      return;
    }
    if (!begins) {
      // An epoch numbers from 1, so a hole behind its border shows as well.
      const expected = epoch === state.epoch ? state.sequence + 1 : 1;
      if (epoch !== state.epoch) state.epochs = [...state.epochs, state.epoch].slice(-EPOCHS_MAX);
      if (sequence > expected) this.#miss(epoch, expected, sequence - 1);
    }
    this.#jumpAnnounced = false;
    state.epoch = epoch;
    state.sequence = sequence;
    state.last = id;
  }

  #miss(epoch, from, to) {
    const state = this.#state;
    const range = from === to ? `${epoch}-${from}` : `${epoch}-${from} to ${epoch}-${to}`;
    if (this.#jumpAnnounced) {
      state.announced += to - from + 1;
      this.#find(`${range}: no longer stored by the server, as the connector reported`);
      return;
    }
    state.holes.push([epoch, from, to]);
    if (state.holes.length > HOLES_MAX) {
      const [, first, last] = state.holes.shift();
      state.lostBefore += last - first + 1;
    }
    this.#find(`${range} never came`);
  }

  /** Takes an event out of the hole that it was missed in; false where it was not missed. */
  #fill(epoch, sequence) {
    const { holes } = this.#state;
    const at = holes.findIndex(([of, from, to]) => of === epoch && from <= sequence && sequence <= to);
    if (at < 0) return false;
    const [, from, to] = holes[at];
    const rest = [[epoch, from, sequence - 1], [epoch, sequence + 1, to]].filter((hole) => hole[1] <= hole[2]);
    holes.splice(at, 1, ...rest);
    return true;
  }

  #find(text) {
    this.#state.findings = [text, ...this.#state.findings].slice(0, FINDINGS_MAX);
  }

  #load() {
    try {
      const state = JSON.parse(this.#storage.getItem(this.#key));
      return state?.v === 1 ? state : empty();
    } catch {
      return empty();
    }
  }

  #save() {
    this.#state.at = Date.now();
    try {
      this.#storage.setItem(this.#key, JSON.stringify(this.#state));
    } catch {
      // Full or denied: the account goes on in memory, and a reload begins a new one.
    }
  }
}
