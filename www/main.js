// Puts the page together: the stream's callbacks on one side, what is shown on the other.

import { element, Feed, time } from './feed.js';
import { Incidents } from './incidents.js';
import { Ledger } from './ledger.js';
import { describe, REPORTED } from './reports.js';
import { showSource } from './source.js';
import { openStream } from './stream.js';
import { seconds, Timeline } from './timeline.js';
import { bindTrouble } from './trouble.js';
import { showLedger } from './verdict.js';
import { ledgerKey, visitor } from './visitor.js';

const EVENTS_SHOWN_MAX = 50;
const REPORTS_SHOWN_MAX = 100;
const OUTCOMES_SHOWN_MAX = 4;
const COUNTERS = ['eventsReceived', 'eventsDelivered', 'duplicatesIgnored', 'reconnectCount', 'eventsMissing'];
const SAY_DELAY_MS = 400;

const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat('en');

const client = await visitor();
const ledger = new Ledger(storage(), ledgerKey(client));
const timeline = new Timeline({ strip: at('strip'), ticks: at('ticks'), axis: at('axis') });
const outcomes = new Feed(at('outcomes'), OUTCOMES_SHOWN_MAX, (text) => element('li', '', time(Date.now()), ' ', text));
const incidents = new Incidents((sentence) => {
  outcomes.add(sentence);
  say(sentence);
});
const eventRows = new Feed(at('events'), EVENTS_SHOWN_MAX, renderEvent);
const reportRows = new Feed(at('log'), REPORTS_SHOWN_MAX, ({ when, callback, text }) =>
  element('li', '', time(when), element('code', '', callback), element('span', '', text)));

let shownState;
let retryDueAt;
let stale = true;

const leftAt = timeline.restore();
if (leftAt !== undefined) {
  ledger.countReload();
  incidents.reloaded(leftAt, ledger.summary.last);
}

const connector = openStream(client, onEvent, callbacks());
bindTrouble({ client, connector, incidents, forget });
addEventListener('pagehide', () => timeline.keep());
showSource(at('source'), 'stream.js');
show();
setInterval(() => {
  timeline.draw();
  show();
}, 1000);
setInterval(showState, 200);

/** Synchronous, so that the ledger is written before the connector stores its cursor. */
function onEvent(event) {
  ledger.record(event.id);
  const replayed = incidents.event(event.id, event.receivedAt);
  timeline.mark(Date.parse(event.ts ?? '') || event.receivedAt, replayed);
  eventRows.add({ id: event.id, type: event.type, receivedAt: event.receivedAt, lagMs: event.lagMs, replayed });
  changed();
}

/** Every report goes to the log; some move other things as well. */
function callbacks() {
  const effects = {
    onStateChange: ({ to }) => enterState(to),
    onOpen: ({ lastEventId }) => incidents.opened(lastEventId),
    onClose: (info) => incidents.closed(info),
    onRetry: ({ delayMs }) => (retryDueAt = Date.now() + delayMs),
    onError({ status, message, willRetry }) {
      incidents.refused(status);
      if (!willRetry) outcomes.add(message);
    },
    onControl: ({ type }) => incidents.control(type),
    onDuplicate: ({ eventId }) => incidents.duplicate(eventId),
    onGap: () => ledger.announceJump(),
    onCannotResume(info) {
      ledger.announceJump();
      incidents.cannotResume(info);
    },
  };
  const report = (callback) => (info) => {
    effects[callback]?.(info);
    reportRows.add({ when: Date.now(), callback, text: describe(callback, info) });
    changed();
  };
  return Object.fromEntries(REPORTED.map((callback) => [callback, report(callback)]));
}

function enterState(state) {
  if (state === shownState) return;
  shownState = state;
  if (state !== 'retrying') retryDueAt = undefined;
  timeline.enter(state);
  at('state').textContent = state;
  at('state').dataset.state = state;
  showState();
  const spoken = { open: 'Stream open.', retrying: 'Connection lost, trying again.', closed: 'Stream closed.' }[state];
  if (spoken !== undefined) say(spoken);
}

function forget() {
  connector.clearCursor();
  ledger.reset();
  eventRows.clear();
  timeline.forget();
  incidents.forgotten();
  connector.reconnect();
  changed();
}

/** Shows at the next frame; however much happens until then, once. */
function changed() {
  if (stale) return;
  stale = true;
  requestAnimationFrame(show);
}

function show() {
  stale = false;
  const stats = connector.getStats();
  for (const name of COUNTERS) at(`count-${name}`).textContent = number.format(stats[name]);
  at('count-lag').textContent = stats.lag === undefined ? '–' : stats.lag < 1000 ? `${stats.lag} ms` : seconds(stats.lag);
  at('cursor').textContent = connector.lastEventId || 'none yet';
  showLedger(ledger.summary);
}

function showState() {
  // Not every change is announced: while the core loads, or cannot be loaded, there is nobody to announce it.
  enterState(connector.state);
  const left = retryDueAt === undefined ? 0 : retryDueAt - Date.now();
  const note = left > 0 ? `next attempt in ${seconds(left)}` : '';
  if (at('state-note').textContent !== note) at('state-note').textContent = note;
  // Said again beside the outcomes: on a phone the connection is out of sight while its buttons are pressed.
  const now = note === '' ? connector.state : `${connector.state}, ${note}`;
  if (at('now').textContent !== now) at('now').textContent = now;
  at('outcomes').dataset.pending = String(incidents.pending);
}

function renderEvent({ id, type, receivedAt, lagMs, replayed }) {
  const how = replayed ? 'replayed' : 'live';
  const lag = lagMs === undefined ? '' : lagMs < 1000 ? `${Math.max(0, lagMs)} ms` : seconds(lagMs);
  const row = element('li', how, numbered(id), element('span', 'type', type));
  row.append(time(receivedAt), element('span', 'how', how), element('span', 'lag', lag));
  return row;
}

/** The number is what one reads; the epoch before it gives way where room is short. */
function numbered(id = 'no id') {
  const cut = id.lastIndexOf('-') + 1;
  return element('code', 'id', element('span', '', id.slice(0, cut)), element('b', '', id.slice(cut)));
}

let sayTimer;
/** One polite sentence for screen readers; of several in quick succession, the last. */
function say(sentence) {
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => (at('status').textContent = sentence), SAY_DELAY_MS);
}

/** localStorage, or nothing where the browser denies even the mention of it. */
function storage() {
  try {
    return localStorage;
  } catch {
    return undefined;
  }
}
