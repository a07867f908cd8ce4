// Several tabs on one key, with real Web Locks: one that dies in the middle of storing the cursor, and a logout.

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { unpackPackage } from '../support/package.mjs';
import { serveSite } from '../support/site.mjs';
import { events, headers } from '../support/stream.mjs';

const html = `<!doctype html><title>tabs</title><link rel="icon" href="data:,"><script type="module">
  import { connectSSE } from '/holdfast-sse/index.js';
  const key = 'holdfast:1:' + location.origin + '/stream';
  window.got = [];
  window.held = new Map();
  window.follow = ({ holds } = {}) => {
    window.connector = connectSSE('/stream', {
      persistLastEventId: true,
      retryPolicy: { baseDelayMs: 20 },
      onEvent: ({ id }) => {
        got.push(id);
        if (holds === id) return new Promise((resolve) => held.set(id, resolve));
      },
    });
  };
  window.record = (storage) => JSON.parse(storage.getItem(key));
  // Logging out, as an app does it for all of its tabs.
  const tabs = new BroadcastChannel('logout');
  const leave = () => { connector.stop(); connector.clearCursor(); window.isOut = true; };
  tabs.onmessage = leave;
  window.logOut = () => { leave(); tabs.postMessage('out'); };
  // The tab hangs while it stores this cursor: between the two stores, or behind them.
  window.hang = (cursor, moment) => {
    const { setItem } = Storage.prototype;
    const stall = () => { const request = new XMLHttpRequest(); request.open('GET', '/hang', false); request.send(); };
    Storage.prototype.setItem = function (name, text) {
      const isLast = name === key && JSON.parse(text).cursor === cursor;
      if (isLast && moment === 'before both' && this === sessionStorage) stall();
      if (isLast && moment === 'between' && this === localStorage) stall();
      setItem.call(this, name, text);
      if (isLast && moment === 'behind both' && this === localStorage) stall();
    };
  };
</script>`;

let unpacked;
let site;
let browser;
let last;
let hangs;
const requests = [];
const responses = new Set();
before(async () => {
  unpacked = unpackPackage();
  browser = await launchChromium();
  site = await serveSite({
    mounts: { '/holdfast-sse/': unpacked.folder },
    pages: {
      '/': html,
      // Never answered: the tab is killed while it waits.
      '/hang': () => hangs(),
      '/stream': (request, response) => {
        const cursor = request.headers['last-event-id'];
        requests.push(cursor);
        const from = Number(cursor ?? 0) + 1;
        response.writeHead(200, headers).write(from <= last ? events(from, last) : ': nothing\n\n');
        responses.add(response);
        response.on('close', () => responses.delete(response));
      },
    },
  });
});
after(async () => {
  await browser?.close();
  await site?.close();
  unpacked?.remove();
});
beforeEach(() => {
  last = 3;
  requests.length = 0;
});

function publish() {
  last += 1;
  for (const response of responses) response.write(events(last, last));
}

async function newContext(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return context;
}

/** A tab that follows the stream. */
async function open(context, options) {
  const tab = await context.newPage();
  await tab.goto(site.address);
  await tab.evaluate((given) => follow(given), options);
  return tab;
}

const reached = (tab, id) => tab.waitForFunction((wanted) => got.at(-1) === wanted, String(id));
const stored = (tab, cursor) => tab.waitForFunction((wanted) => record(localStorage)?.cursor === wanted, String(cursor));
const got = (tab) => tab.evaluate(() => got);

for (const [moment, alone] of [
  ['before both', '3'], ['between', '3'], ['behind both', '4'],
]) {
  for (const others of [0, 1]) {
    test(`a tab dies in mid-write, ${moment}, with ${others} other: the next one goes on from a sound record`, { timeout: 30_000 }, async (t) => { // K7
      const context = await newContext(t);
      const victim = await open(context);
      await reached(victim, 3);
      await stored(victim, 3);
      const other = others === 1 ? await open(context) : undefined;
      // It asks for the lock, which the victim has.
      await other?.waitForFunction(async () => (await navigator.locks.query()).pending.length === 1);
      await other?.waitForFunction(() => connector.state === 'open');

      const debug = await context.newCDPSession(victim);
      const hanging = new Promise((resolve) => { hangs = resolve; });
      await victim.evaluate((when) => hang('4', when), moment);
      publish();
      await hanging;
      if (other !== undefined) await reached(other, 4);
      const crashed = victim.waitForEvent('crash');
      debug.send('Page.crash').catch(() => {});
      await crashed;

      // Alone, the record is what the victim came to; another one takes over and writes what it has processed.
      if (other !== undefined) await stored(other, 4);
      const third = await open(context);
      await third.waitForFunction(() => connector.state === 'open');
      const cursor = other === undefined ? alone : '4';
      assert.equal(requests.at(-1), cursor);
      publish();
      await reached(third, 5);
      assert.deepEqual(await got(third), cursor === '3' ? ['4', '5'] : ['5']);
      await stored(third, 5);
      const { v, done, at } = await third.evaluate(() => record(localStorage));
      assert.deepEqual([v, done, typeof at], [1, [], 'number']);
      if (other !== undefined) assert.deepEqual(await got(other), ['4', '5']);
    });
  }
}

test('a tab that is closed in a flood of events leaves what it has processed', { timeout: 60_000 }, async (t) => { // K7
  const context = await newContext(t);
  let cursor;
  for (let round = 0; round < 5; round += 1) {
    const tab = await open(context);
    await tab.waitForFunction(() => connector.state === 'open');
    assert.equal(requests.at(-1), cursor, 'begins where the tab before it ended');
    const begun = last;
    const flood = setInterval(publish, 1);
    await tab.waitForFunction((id) => Number(got.at(-1)) > id, begun + 20 + round * 7);
    await (round % 2 === 0 ? tab.close() : closeHard(context, tab));
    clearInterval(flood);
    const reader = await context.newPage();
    await reader.goto(site.address);
    // What a dying process stored may be seen a little later: the lock goes with it, and the stores before it.
    await reader.waitForFunction(async () => (await navigator.locks.query()).held.length === 0);
    const { v, cursor: left, done } = await reader.evaluate(() => record(localStorage));
    await reader.close();
    assert.deepEqual([v, done], [1, []]);
    assert.ok(Number(left) > begun && Number(left) <= last, `${begun} < ${left} <= ${last}`);
    cursor = left;
  }
});

async function closeHard(context, tab) {
  const debug = await context.newCDPSession(tab);
  const crashed = tab.waitForEvent('crash');
  debug.send('Page.crash').catch(() => {});
  await crashed;
}

const nothing = (tab) => tab.evaluate(() => [record(localStorage), record(sessionStorage)]);

test('logging out in one tab logs out all, and nobody goes on from there', { timeout: 30_000 }, async (t) => { // K7
  const context = await newContext(t);
  const first = await open(context);
  await reached(first, 3);
  await stored(first, 3);
  const second = await open(context);
  await second.waitForFunction(() => connector.state === 'open');
  publish();
  await Promise.all([reached(first, 4), reached(second, 4)]);

  await first.evaluate(() => logOut());
  await second.waitForFunction(() => window.isOut);
  publish();
  assert.deepEqual([await nothing(first), await nothing(second)], [[null, null], [null, null]]);
  // Leaving a page stores what is to be stored: nothing any more.
  for (const tab of [first, second]) {
    await tab.reload();
    assert.deepEqual(await nothing(tab), [null, null]);
  }
  const fresh = await open(context);
  await reached(fresh, 5);
  await first.evaluate(() => follow());
  await fresh.evaluate(() => connector.stop());
  await first.waitForFunction(() => connector.state === 'open');
  assert.equal(requests.at(-2), undefined, 'a new tab begins as a new client');
});

test('a tab that hears of the logout late writes nothing behind it', { timeout: 30_000 }, async (t) => { // K7
  const context = await newContext(t);
  const first = await open(context);
  await reached(first, 3);
  await stored(first, 3);
  const second = await open(context);
  await second.waitForFunction(async () => (await navigator.locks.query()).pending.length === 1);
  await first.evaluate(() => { connector.stop(); connector.clearCursor(); });
  // It has the lock now, and stores the next event.
  publish();
  await stored(second, 4);
  await second.evaluate(() => logOut());
  assert.deepEqual([await nothing(first), await nothing(second)], [[null, null], [null, null]]);
});

test('a handler that ends after the logout stores nothing', { timeout: 30_000 }, async (t) => { // K7
  const context = await newContext(t);
  const tab = await open(context, { holds: '3' });
  await reached(tab, 3);
  await stored(tab, 2);
  await tab.evaluate(async () => {
    logOut();
    held.get('3')();
    // Asynchronous handlers are stored by a timer; leaving the page does it at once.
    await new Promise((resolve) => { setTimeout(resolve, 0); });
    window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }));
  });
  assert.deepEqual(await nothing(tab), [null, null]);
  await tab.reload();
  assert.deepEqual(await nothing(tab), [null, null]);
});

for (const others of [0, 1]) {
  test(`what a handler ends after stop() is stored, with ${others} other tab that writes meanwhile`, { timeout: 30_000 }, async (t) => { // K7
    const context = await newContext(t);
    const first = await open(context, { holds: '3' });
    await reached(first, 3);
    await stored(first, 2);
    await first.evaluate(() => connector.stop());
    if (others === 1) {
      const second = await open(context);
      await reached(second, 3);
      publish();
      await stored(second, 4);
    }
    await first.evaluate(() => held.get('3')());
    await first.waitForFunction(() => record(sessionStorage).cursor === '3');
    assert.equal(await first.evaluate(() => record(localStorage).cursor), others === 1 ? '4' : '3');
  });
}

test('what a handler ends on a page that was left is stored beside what another tab has written since', { timeout: 30_000 }, async (t) => { // K7
  const context = await newContext(t);
  const first = await open(context, { holds: '3' });
  await reached(first, 3);
  await stored(first, 2);
  await first.evaluate(() => window.dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })));
  const second = await open(context);
  await reached(second, 3);
  publish();
  await stored(second, 4);
  await first.evaluate(() => held.get('3')());
  await first.waitForFunction(() => record(sessionStorage).cursor === '3');
  assert.equal(await first.evaluate(() => record(localStorage).cursor), '4');
});
