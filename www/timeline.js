// Two lanes over the last minutes: the states of the connection, and the events where they were published. The first
// may have breaks. That the second has none is what the library is for.

/** Grows with what there is to show, so that a first visit is not a strip of nothing. */
const WINDOWS_MS = [60_000, 120_000, 180_000];
const WINDOW_NARROW_MS = 60_000;
const NARROW_PX = 560;
const SEGMENTS_MAX = 400;
const MARKS_MAX = 4_000;
/** Kept over a reload: two rows of numbers must not fill the storage. */
const MARKS_KEPT_MAX = 600;
const KEY = 'holdfast-demo:timeline';
const LABEL_PX_PER_LETTER = 8;
const NAMES = { away: 'page away' };

export class Timeline {
  #strip;
  #ticks;
  #axis;
  /** `{state, from}`: each ends where the next begins. */
  #segments = [];
  /** `[published, late]` of each event. */
  #marks = [];
  #width = 0;
  #drawn = '';

  constructor({ strip, ticks, axis }) {
    this.#strip = strip;
    this.#ticks = ticks;
    this.#axis = axis;
    new ResizeObserver(([entry]) => {
      this.#width = entry.contentRect.width;
      this.draw();
    }).observe(strip);
  }

  /** Takes over what the page before the reload saw; answers when it went away, if it was there at all. */
  restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY));
      if (kept === null || Date.now() - kept.at > WINDOWS_MS.at(-1)) return kept?.at;
      this.#segments = [...kept.segments, { state: 'away', from: kept.at }];
      this.#marks = kept.marks;
      return kept.at;
    } catch {
      return undefined;
    }
  }

  /** The page goes away. */
  keep() {
    const kept = { at: Date.now(), segments: this.#segments, marks: this.#marks.slice(-MARKS_KEPT_MAX) };
    try {
      sessionStorage.setItem(KEY, JSON.stringify(kept));
    } catch {
      // Then the strip begins anew; the ledger does not depend on it.
    }
  }

  enter(state) {
    if (this.#segments.at(-1)?.state === state) return;
    this.#segments.push({ state, from: Date.now() });
    if (this.#segments.length > SEGMENTS_MAX) this.#segments.shift();
    this.draw();
  }

  mark(publishedAt, late) {
    this.#marks.push([publishedAt, late]);
    if (this.#marks.length > 2 * MARKS_MAX) this.#marks = this.#marks.slice(-MARKS_MAX);
  }

  forget() {
    this.#marks = [];
  }

  draw() {
    if (this.#width === 0) return;
    const now = Date.now();
    const span = this.#span(now);
    const place = (at) => ((at - (now - span)) / span) * this.#width;
    this.#drawStrip(now, span, place);
    this.#drawTicks(now - span, place);
    this.#drawAxis(span);
  }

  #span(now) {
    if (this.#width < NARROW_PX) return WINDOW_NARROW_MS;
    const seen = now - (this.#segments[0]?.from ?? now);
    return WINDOWS_MS.find((span) => seen <= span) ?? WINDOWS_MS.at(-1);
  }

  #drawStrip(now, span, place) {
    const shown = [];
    this.#segments.forEach(({ state, from }, index) => {
      const to = this.#segments[index + 1]?.from ?? now;
      if (to < now - span) return;
      const left = Math.max(0, place(from));
      // What lasted a few milliseconds must be seen all the same.
      const width = Math.max(state === 'away' ? 6 : 3, place(to) - left);
      const name = NAMES[state] ?? state;
      const segment = document.createElement('span');
      segment.dataset.state = state;
      segment.style.left = `${left.toFixed(1)}px`;
      segment.style.width = `${width.toFixed(1)}px`;
      segment.title = `${name}, ${seconds(to - from)}`;
      if (width > name.length * LABEL_PX_PER_LETTER + 14) segment.append(label(name));
      shown.push(segment);
    });
    this.#strip.replaceChildren(...shown);
  }

  #drawTicks(oldest, place) {
    const paths = { live: '', replayed: '' };
    for (const [at, late] of this.#marks) {
      if (at < oldest) continue;
      const x = place(at).toFixed(1);
      // Replayed ones carry a head, so that colour is not all that tells them apart.
      if (late) paths.replayed += `M${x} 24V7m-1.8 0h3.6`;
      else paths.live += `M${x} 24V12`;
    }
    this.#ticks.setAttribute('viewBox', `0 0 ${this.#width} 24`);
    for (const [kind, path] of Object.entries(paths)) {
      this.#ticks.querySelector(`.${kind}`).setAttribute('d', path);
    }
  }

  #drawAxis(span) {
    const key = `${span}`;
    if (this.#drawn === key) return;
    this.#drawn = key;
    const step = span / 3;
    const texts = [3, 2, 1].map((n) => `${Math.round((n * step) / 1000)} s ago`).concat('now');
    this.#axis.replaceChildren(...texts.map((text) => label(text)));
    this.#strip.setAttribute('aria-label', `Connection states over the last ${span / 1000} seconds; the log below tells them in words`);
  }
}

function label(text) {
  const element = document.createElement('b');
  element.textContent = text;
  return element;
}

/** With a no-break space: a number does not part from its unit. */
export const seconds = (ms) => `${ms < 9_950 ? (ms / 1000).toFixed(1) : Math.round(ms / 1000)}\u00a0s`;
