// The demo page as a visitor meets it: the real server, the built package, and each button.

import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Ledger } from '../../www/ledger.js';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { startServer } from '../support/server.mjs';

const WAIT_MS = 30_000;
const PHONE = { width: 320, height: 640 };
const DESKTOP = { width: 1280, height: 900 };
/** What Chromium itself prints about a connection that the server cut or refused: it was ordered. */
const ORDERED = /Failed to load resource: (net::ERR_INCOMPLETE_CHUNKED_ENCODING|net::ERR_CONNECTION_REFUSED|the server responded with a status of 503)/;

let folder;
let server;
let browser;
const env = { SSE_TICK_INTERVAL: '100', SSE_HEARTBEAT_INTERVAL: '500', SSE_RETRY_TIMEOUT: '100' };
const start = (port) =>
  startServer({ port, args: ['--site', join(folder, 'site'), '--data-dir', join(folder, 'data'), '--debug-routes'], env });

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-demo-'));
  cpSync(inRepository('www'), join(folder, 'site'), { recursive: true });
  cpSync(inRepository('pkg'), join(folder, 'site/holdfast-sse'), { recursive: true });
  server = await start(0);
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await server?.kill();
  rmSync(folder, { recursive: true, force: true });
});

/** Opens the page as a new visitor, who has seen some events; `check` gets it, and the console's complaints. */
async function visit(options, check) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
  });
  try {
    await page.goto(server.address);
    await more(page, 3);
    await check(page, complaints);
  } finally {
    await context.close();
  }
}

const count = (page, id) => page.locator(`#${id}`).innerText().then((text) => Number(text.replaceAll(',', '')));
const press = (page, trouble) => page.locator(`[data-trouble="${trouble}"]`).click();

/** Waits until `#id` shows a number above `above`. */
const rises = (page, id, above) =>
  page.waitForFunction(([id, above]) => Number(document.getElementById(id).textContent.replaceAll(',', '')) > above, [id, above]);

/** Waits until the ledger has grown by so many events. */
const more = async (page, events) => rises(page, 'total', (await count(page, 'total')) + events - 1);

const state = (page, wanted) => page.waitForFunction((wanted) => document.getElementById('state').dataset.state === wanted, wanted);

/** Waits for an outcome that says so; answers its text. */
async function outcome(page, pattern) {
  const found = page.locator('#outcomes li').filter({ hasText: pattern }).first();
  await found.waitFor();
  return found.innerText();
}

async function flawless(page) {
  await more(page, 3);
  assert.equal(await page.locator('#verdict').getAttribute('data-flawless'), 'true', await page.locator('#findings').innerText());
  assert.match(await page.locator('.checks').innerText(), /none lost\s+none twice\s+none out of order/);
}

describe('the page', () => {
  test('loads under the strict policy without a word on the console, and shows what arrives', async () => {
    const policy = (await fetch(server.address)).headers.get('content-security-policy');
    assert.match(policy, /script-src 'self' 'wasm-unsafe-eval';/);
    assert.doesNotMatch(policy, /'unsafe-inline'|'unsafe-eval'/);
    await visit({}, async (page, complaints) => {
      await flawless(page);
      const [newest, next] = await page.locator('#events .id b').allInnerTexts();
      assert.equal(Number(newest), Number(next) + 1, 'newest on top');
      assert.match(await page.locator('#cursor').innerText(), /^\w+-\d+$/);
      assert.equal(await page.locator('#source').innerText(), readFileSync(inRepository('www/stream.js'), 'utf8').trimEnd());
      assert.deepEqual(complaints, []);
    });
  });

  test('grows no longer than its bounds, and nothing moves while events stream in', async () => {
    await visit({}, async (page) => {
      await page.evaluate(() => {
        globalThis.shifts = [];
        new PerformanceObserver((list) => shifts.push(...list.getEntries().map((entry) => entry.value))).observe({ type: 'layout-shift' });
      });
      const height = await page.evaluate(() => document.documentElement.scrollHeight);
      await more(page, 60);
      assert.equal(await page.locator('#events li').count(), 50);
      assert.equal(await page.evaluate(() => document.documentElement.scrollHeight), height);
      assert.ok((await page.evaluate(() => shifts.reduce((sum, value) => sum + value, 0))) < 0.01);
    });
  });

  test('the theme follows the system until it is chosen, and the choice survives a reload', async () => {
    await visit({ colorScheme: 'dark' }, async (page) => {
      const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const dark = await paper();
      await page.getByRole('button', { name: 'Light theme' }).click();
      const light = await paper();
      assert.notEqual(light, dark);
      await page.reload();
      assert.equal(await paper(), light);
      await page.getByRole('button', { name: 'Dark theme' }).click();
      assert.equal(await paper(), dark);
    });
  });
});

describe('trouble', () => {
  test('a dropped connection comes back, and what was missed is replayed', async () => {
    await visit({}, async (page, complaints) => {
      await press(page, 'drop');
      assert.match(await outcome(page, 'Connection cut'), /after event \d+; back after [\d.]+\ss; resumed from \d+; (\d+ events? replayed|nothing was missed)/);
      await state(page, 'open');
      assert.equal(await count(page, 'count-reconnectCount'), 1);
      assert.equal(await page.locator('#strip [data-state="retrying"]').count(), 1);
      await flawless(page);
      assert.deepEqual(complaints.filter((text) => !ORDERED.test(text)), []);
    });
  });

  test('a server that refuses is asked again when it says, not before', async () => {
    await visit({}, async (page, complaints) => {
      await press(page, 'refuse');
      await state(page, 'retrying');
      await page.waitForFunction(() => /next attempt in [5-9]\.\d\ss/.test(document.getElementById('state-note').textContent));
      assert.match(await outcome(page, 'refused'), /refused once, back after 1\d\ss; .*\d+ events replayed/);
      assert.ok((await page.locator('#events .replayed').count()) > 20, 'replayed events are marked');
      await flawless(page);
      assert.deepEqual(complaints.filter((text) => !ORDERED.test(text)), []);
    });
  });

  test('repeated events are dropped and counted', async () => {
    await visit({}, async (page, complaints) => {
      await more(page, 6);
      await press(page, 'repeat');
      assert.match(await outcome(page, 'second time'), /5 events came a second time \(\d+ to \d+\) and were dropped/);
      assert.equal(await count(page, 'count-duplicatesIgnored'), 5);
      assert.equal(await count(page, 'count-reconnectCount'), 0);
      await flawless(page);
      assert.deepEqual(complaints, []);
    });
  });

  test('swapped events are put in order', async () => {
    await visit({}, async (page, complaints) => {
      await press(page, 'swap');
      const [, first, second] = /held (\d+) back until (\d+) was out/.exec(await outcome(page, 'held'));
      assert.equal(Number(second), Number(first) + 1);
      await flawless(page);
      assert.deepEqual(complaints, []);
    });
  });

  test('a silent stream is found dead while its socket is still open', async () => {
    await visit({}, async (page) => {
      await press(page, 'silence');
      assert.match(await outcome(page, 'Silence noticed'), /connection cut after event \d+; .*replayed/);
      await page.locator('#log', { hasText: 'onLivenessFailure' }).waitFor();
      await flawless(page);
    });
  });

  test('a reload goes on where the page was', async () => {
    await visit({}, async (page, complaints) => {
      const before = await count(page, 'total');
      await press(page, 'reload');
      await outcome(page, 'Page went away');
      assert.ok((await count(page, 'total')) >= before);
      await flawless(page);
      assert.match(await page.locator('#ledger-range').innerText(), /through a reload/);
      assert.equal(await page.locator('#strip [data-state="away"]').count(), 1);
      assert.deepEqual(complaints, []);
    });
  });

  test('a stopped stream stays stopped, and goes on from there when asked', async () => {
    await visit({}, async (page) => {
      await press(page, 'stop');
      await state(page, 'closed');
      await outcome(page, 'Stopped by you');
      const again = page.getByRole('button', { name: 'Connect again' });
      assert.equal(await again.count(), 1);
      await again.click();
      await outcome(page, 'back after');
      await flawless(page);
    });
  });

  test('a forgotten cursor begins a new account', async () => {
    await visit({}, async (page, complaints) => {
      await more(page, 20);
      await press(page, 'forget');
      await outcome(page, 'Connected anew, without a cursor.');
      await page.waitForFunction(() => Number(document.getElementById('total').textContent) < 15);
      await flawless(page);
      assert.deepEqual(complaints, []);
    });
  });

  test('a server that was killed and started again is resumed from its log', async () => {
    await visit({}, async (page) => {
      const port = server.port;
      await server.kill();
      await state(page, 'retrying');
      server = await start(port);
      await outcome(page, 'back after');
      await flawless(page);
    });
  });

  test('a page whose core cannot be compiled says so', async () => {
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await page.route('**/', async (route) => {
        const response = await route.fetch();
        const headers = { ...response.headers(), 'content-security-policy': "script-src 'self'" };
        await route.fulfill({ response, headers });
      });
      await page.goto(server.address);
      await state(page, 'closed');
      await outcome(page, 'wasm-unsafe-eval');
    } finally {
      await context.close();
    }
  });

  test('a server without debug routes cannot be ordered about, and the page says so', async () => {
    await visit({}, async (page) => {
      await page.route('**/debug/**', (route) => route.fulfill({ status: 404 }));
      await press(page, 'drop');
      await outcome(page, 'without --debug-routes');
      await flawless(page);
    });
  });

  test('makes trouble for its own visitor only', async () => {
    await visit({}, (bystander) =>
      visit({}, async (page) => {
        await press(page, 'drop');
        await outcome(page, 'Connection cut');
        assert.equal(await count(bystander, 'count-reconnectCount'), 0);
        assert.notEqual(
          await page.evaluate(() => sessionStorage.getItem('holdfast-demo:client')),
          await bystander.evaluate(() => sessionStorage.getItem('holdfast-demo:client')),
        );
      }),
    );
  });
});

describe('for everybody', () => {
  test('the keyboard reaches each control, and one sees where one is', async () => {
    await visit({}, async (page) => {
      const wanted = await page.locator('button, [tabindex="0"]').count();
      const reached = new Set();
      for (let presses = 0; presses < wanted + 3; presses += 1) {
        await page.keyboard.press('Tab');
        const [name, outlined] = await page.evaluate(() => {
          const focused = document.activeElement;
          const name = focused.id || focused.dataset.trouble || focused.getAttribute('aria-labelledby') || focused.className;
          return [name, focused.matches(':focus-visible') && getComputedStyle(focused).outlineStyle === 'solid'];
        });
        if (name === '') break;
        assert.ok(outlined, `${name} shows its focus`);
        reached.add(name);
      }
      assert.deepEqual([...reached].slice(0, 4), ['skip', 'theme', 'drop', 'refuse']);
      assert.equal(reached.size, wanted + 1, [...reached].join(' '));
      await page.locator('[data-trouble="drop"]').focus();
      await page.keyboard.press('Enter');
      await outcome(page, 'Connection cut');
    });
  });

  test('screen readers hear what changed, in sentences, and not each event', async () => {
    await visit({}, async (page) => {
      assert.equal(await page.locator('[role="status"], [aria-live]').count(), 1);
      await press(page, 'drop');
      await page.waitForFunction(() => /^Connection cut after event/.test(document.getElementById('status').textContent));
      const said = await page.locator('#status').innerText();
      await more(page, 5);
      assert.equal(await page.locator('#status').innerText(), said);
      const levels = await page.locator('h1, h2').evaluateAll((all) => all.map((heading) => heading.tagName));
      assert.deepEqual([levels.filter((level) => level === 'H1').length, levels[0]], [1, 'H1']);
      for (const button of await page.locator('[aria-describedby]').all()) {
        assert.equal(await page.locator(`#${await button.getAttribute('aria-describedby')}`).count(), 1);
      }
    });
  });

  for (const [name, viewport] of [['a small phone', PHONE], ['a desktop at 200 %', { width: 640, height: 450 }], ['a wide desktop', { width: 1920, height: 1080 }]]) {
    test(`nothing is cut off at the side on ${name}`, async () => {
      await visit({ viewport }, async (page) => {
        await press(page, 'drop');
        await outcome(page, 'Connection cut');
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), viewport.width);
      });
    });
  }

  for (const colorScheme of ['light', 'dark']) {
    test(`text stands out from its ground, ${colorScheme}`, async () => {
      await visit({ colorScheme, reducedMotion: 'reduce' }, async (page) => {
        await press(page, 'stop');
        await state(page, 'closed');
        await press(page, 'stop');
        await outcome(page, 'back after');
        assert.deepEqual(await page.evaluate(faint), []);
        // The other face of the ledger, which one hopes never to see.
        await page.evaluate(() => {
          document.getElementById('verdict').dataset.flawless = 'false';
          document.getElementById('check-lost').dataset.bad = 'true';
        });
        assert.deepEqual(await page.evaluate(faint), []);
        assert.deepEqual(await page.evaluate(() => document.getAnimations().length), 0, 'reduced motion');
      });
    });
  }
});

/** In the page: texts whose contrast with the ground behind them is less than WCAG AA asks for. */
function faint() {
  const channels = (colour) => {
    const [r, g, b, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
    return { rgb: [r, g, b], alpha };
  };
  const luminance = ({ rgb }) => {
    const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour.alpha === 1) return colour;
    }
    return { rgb: [255, 255, 255] };
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim() !== '');
    if (!hasText || !element.checkVisibility() || element.matches('noscript')) continue;
    const style = getComputedStyle(element);
    const [a, b] = [luminance(channels(style.color)), luminance(ground(element))].sort((x, y) => y - x);
    const size = Number.parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < (large ? 3 : 4.5)) found.push(`${element.className || element.tagName} "${element.textContent.slice(0, 30)}" ${contrast.toFixed(2)}`);
  }
  return found;
}

describe('the ledger', () => {
  /** What it says about ids in this order; `!` announces a jump. */
  const judge = (...ids) => {
    const ledger = new Ledger({ getItem: () => null, setItem() {} }, 'key');
    for (const id of ids) {
      if (id === '!') ledger.announceJump();
      else ledger.record(id);
    }
    const { count, lost, twice, disordered, announced } = ledger.summary;
    return { count, lost, twice, disordered, announced };
  };
  const none = { lost: 0, twice: 0, disordered: 0, announced: 0 };

  for (const [name, ids, expected] of [
    ['an unbroken row', ['a-5', 'a-6', 'a-7'], { count: 3 }],
    ['a hole', ['a-5', 'a-9'], { count: 2, lost: 3 }],
    ['a repeat', ['a-5', 'a-6', 'a-5'], { count: 3, twice: 1 }],
    ['two swapped', ['a-5', 'a-7', 'a-6'], { count: 3, disordered: 1 }],
    ['late and then repeated', ['a-5', 'a-7', 'a-6', 'a-6'], { count: 4, disordered: 1, twice: 1 }],
    ['a hole half filled', ['a-1', 'a-9', 'a-4'], { count: 3, lost: 6, disordered: 1 }],
    ['a new epoch', ['a-5', 'b-1', 'b-2'], { count: 3 }],
    ['a hole behind the border of an epoch', ['a-5', 'b-3'], { count: 2, lost: 2 }],
    ['an earlier epoch', ['a-5', 'b-1', 'a-6'], { count: 3, twice: 1 }],
    ['a hole that was announced', ['a-5', '!', 'a-9', 'a-10'], { count: 3, announced: 3 }],
    ['an announcement is good for one jump', ['a-5', '!', 'a-6', 'a-9'], { count: 3, lost: 2 }],
  ]) {
    test(name, () => assert.deepEqual(judge(...ids), { ...none, ...expected }));
  }

  test('goes on after a reload, and does without what it cannot read', () => {
    const stored = new Map();
    const storage = { getItem: (key) => stored.get(key) ?? null, setItem: (key, text) => stored.set(key, text) };
    new Ledger(storage, 'key').record('a-1');
    const again = new Ledger(storage, 'key');
    again.record('a-3');
    assert.deepEqual([again.summary.count, again.summary.lost, again.summary.findings], [2, 1, ['a-2 never came']]);
    stored.set('key', '{"v":1');
    assert.equal(new Ledger(storage, 'key').summary.count, 0);
    const denied = new Ledger(undefined, 'key');
    denied.record('a-1');
    assert.equal(denied.summary.count, 1);
  });

  test('stays small, whatever comes', () => {
    let text = '';
    const ledger = new Ledger({ getItem: () => null, setItem: (_, value) => (text = value) }, 'key');
    for (let n = 1; n < 5_000; n += 2) ledger.record(`epoch-${n}`);
    assert.equal(ledger.summary.lost, 2_499);
    assert.ok(text.length < 4_000, `${text.length} characters`);
  });
});
