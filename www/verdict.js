// The ledger in large type: flawless, or exactly what is wrong.

import { element } from './feed.js';

const number = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const FINDINGS_SHOWN_MAX = 5;
const at = (id) => document.getElementById(id);
const set = (id, text) => {
  // An unchanged text is left alone: a selection in it survives.
  if (at(id).textContent !== text) at(id).textContent = text;
};
let shown = '';

export function showLedger({ count, lost, twice, disordered, announced, reloads, first, last, since, findings }) {
  const flawless = lost + twice + disordered === 0;
  at('verdict').dataset.flawless = String(flawless);
  set('total', number.format(count));
  set('total-unit', `${count === 1 ? 'event' : 'events'} handed to this page`);
  check('check-lost', lost, 'lost');
  check('check-twice', twice, 'twice');
  check('check-order', disordered, 'out of order');
  set('ledger-range', count === 0 ? 'Waiting for the first event.' : range({ first, last, since, reloads, announced }));
  const key = findings.join('\n');
  if (key === shown) return;
  shown = key;
  at('findings').hidden = findings.length === 0;
  at('findings').replaceChildren(...findings.slice(0, FINDINGS_SHOWN_MAX).map((text) => element('li', '', text)));
}

function check(id, count, what) {
  set(id, `${count === 0 ? 'none' : number.format(count)} ${what}`);
  at(id).dataset.bad = String(count > 0);
}

/** The epoch is worth its letters only where it changed. */
function span(first, last) {
  const [from, to] = [first, last].map((id) => [id.slice(0, id.lastIndexOf('-')), id.slice(id.lastIndexOf('-') + 1)]);
  if (from[0] !== to[0]) return `${first} to ${last}`;
  return first === last ? from[1] : `${from[1]} to ${to[1]}`;
}

function range({ first, last, since, reloads, announced }) {
  const survived = reloads === 0 ? '' : `, through ${reloads === 1 ? 'a reload' : `${reloads} reloads`}`;
  const missing = announced === 0 ? '' : ` ${number.format(announced)} reported missing by the connector.`;
  return `${first === last ? 'Event' : 'Events'} ${span(first, last)}, since ${clock.format(since)}${survived}.${missing}`;
}
