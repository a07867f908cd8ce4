// The drop-in EventSource beside the browser's own: the same page code against the same server, with equal
// observations.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium } from '../support/chromium.mjs';
import { inRepository } from '../support/paths.mjs';
import { serveSite } from '../support/site.mjs';

const headers = { 'content-type': 'text/event-stream', 'cache-control': 'no-store' };

/** What the server saw, by the name of the client. */
const seen = new Map();

/** Answers `n` of the client named in the query, counted from 1. */
const script = (...answers) => (request, response) => {
  const client = new URL(request.url, 'http://x').searchParams.get('client');
  const requests = seen.get(client) ?? [];
  seen.set(client, requests);
  requests.push({
    at: Date.now(),
    cursor: request.headers['last-event-id'] === undefined ? undefined : Buffer.from(request.headers['last-event-id'], 'latin1').toString(),
    accept: request.headers.accept,
    cookie: request.headers.cookie,
  });
  answers[Math.min(requests.length, answers.length) - 1](response, request);
};
const stream = (text) => (response) => response.writeHead(200, headers).end(text);
const open = (text) => (response) => response.writeHead(200, headers).write(text);
const status = (code, type = 'text/plain') => (response) => response.writeHead(code, { 'content-type': type }).end('x');

let browser;
let site;
let elsewhere;

before(async () => {
  browser = await launchChromium();
  elsewhere = await serveSite({
    pages: {
      '/there': (request, response) => response.writeHead(200, {
        ...headers, 'access-control-allow-origin': request.headers.origin, 'access-control-allow-credentials': 'true',
      }).end('data: from there\n\n'),
    },
  });
  site = await serveSite({
    mounts: { '/pkg/': inRepository('pkg') },
    pages: {
      '/': '<!doctype html>',
      '/events': script(
        stream('retry: 30\n\ndata: plain\n\n: note\n\nevent: tick\nid: 1\ndata: a\ndata: b\n\ndata: same id\n\n'
          + 'id: 1\nevent: tick\ndata: a\ndata: b\n\nid: only\n\ndata: after an id\n\nevent: empty\n\n'
          + 'event: control.close\ndata: {}\n\nevent: error\ndata: of the server\n\nid: ключ\ndata: ü\n\n'),
        stream('data: without an id\n\nid\ndata: cleared\n\n'),
        status(204),
      ),
      '/html': script(status(200, 'text/html')),
      '/missing': script(status(404)),
      '/stay': script(open('data: 1\n\ndata: 2\n\ndata: 3\n\n')),
      '/moved': (_, response) => response.writeHead(302, { location: `${elsewhere.address}/there` }).end(),
    },
  });
});

after(async () => {
  await browser?.close();
  await site?.close();
  await elsewhere?.close();
});

/** Runs the same code in a page with either class; `inPage(path, native)` answers with what was observed. */
async function both(t, path, inPage) {
  const observed = {};
  for (const client of ['native', 'ours']) {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    await page.goto(site.address);
    await page.evaluate(async (native) => {
      document.cookie = 'a=b';
      window.Source = native ? EventSource : (await import('/pkg/eventsource.js')).EventSource;
    }, client === 'native');
    const name = `${client} ${path}`;
    const told = await page.evaluate(inPage, `${path}?client=${encodeURIComponent(name)}`);
    observed[client] = { told, requests: (seen.get(name) ?? []).map(({ at, ...request }) => request), at: (seen.get(name) ?? []).map(({ at }) => at) };
  }
  return observed;
}

/** Everything that a page sees until the stream is closed or `enough` events came. */
const observe = (path) => new Promise((resolve) => {
  const log = [];
  const source = new window.Source(path);
  log.push(['url', source.url.replace(/client=.*/, ''), source.withCredentials, source.readyState, source.CLOSED, window.Source.OPEN]);
  const note = (event) => {
    log.push([event.constructor.name, event.type, source.readyState, event.data, event.lastEventId, event.origin, event.target === source]);
    if (source.readyState === 2) setTimeout(() => resolve(log), 200);
  };
  source.onopen = note;
  source.onmessage = note;
  source.onerror = note;
  for (const type of ['tick', 'empty', 'control.close']) source.addEventListener(type, note);
});

test('events, ids, reconnects with Last-Event-ID, retry and 204', async (t) => {
  const { native, ours } = await both(t, '/events', observe);
  assert.deepEqual(ours.told, native.told);
  assert.deepEqual(ours.requests, native.requests);
  assert.deepEqual(ours.requests.map(({ cursor }) => cursor), [undefined, 'ключ', undefined]);
  assert.equal(ours.told.filter(([, type]) => type === 'tick').length, 2, 'what the server sends twice comes twice');
  for (const { at } of [native, ours]) assert.ok(at[1] - at[0] < 900, `retry: 30 is kept, not ${at[1] - at[0]} ms`);
});

for (const path of ['/html', '/missing']) {
  test(`${path}: an error, and closed`, async (t) => {
    const { native, ours } = await both(t, path, observe);
    assert.deepEqual(ours.told, native.told);
    assert.deepEqual([ours.told.length, ours.requests], [2, native.requests]);
  });
}

test('handlers and listeners: order, replacement, once, objects; close() in the middle of a chunk', async (t) => {
  const { native, ours } = await both(t, '/stay', (path) => new Promise((resolve) => {
    const log = [];
    const source = new window.Source(path);
    source.addEventListener('message', { handleEvent: (event) => log.push(`object ${event.data}`) }, { once: true });
    source.onmessage = () => log.push('replaced');
    source.addEventListener('message', (event) => {
      log.push(`listener ${event.data}`);
      if (event.data !== '2') return;
      source.close();
      source.close();
      log.push(`closed ${source.readyState}`);
      setTimeout(() => resolve(log), 100);
    });
    source.onmessage = (event) => log.push(`handler ${event.data}`);
    source.onerror = () => log.push('error');
    log.push(typeof source.onmessage, String(source.onopen));
  }));
  assert.deepEqual(ours.told, native.told);
  assert.deepEqual(ours.told, [
    'function', 'null', 'object 1', 'handler 1', 'listener 1', 'handler 2', 'listener 2', 'closed 2',
  ]);
});

test('a redirect: the origin is that of the stream', async (t) => {
  const { native, ours } = await both(t, '/moved', (path) => new Promise((resolve) => {
    const source = new window.Source(path, { withCredentials: true });
    source.onmessage = (event) => {
      source.close();
      resolve([event.origin, event.data, source.withCredentials]);
    };
    source.onerror = () => resolve('error');
  }));
  assert.deepEqual(ours.told, native.told);
  assert.deepEqual(ours.told, [elsewhere.address, 'from there', true]);
});

test('a URL that cannot be parsed throws the same', async (t) => {
  const { native, ours } = await both(t, '/none', () => {
    try {
      return new window.Source('http://[');
    } catch (error) {
      return [error.constructor.name, error.name];
    }
  });
  assert.deepEqual(ours.told, native.told);
});

test('what the native one cannot say: the error, and headers of one\'s own', async (t) => {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(site.address);
  const told = await page.evaluate(async () => {
    const { EventSource } = await import('/pkg/eventsource.js');
    return new Promise((resolve) => {
      new EventSource('/missing?client=headers', { headers: { 'x-own': 'y' } }).onerror = ({ error }) => resolve([error.code, error.status]);
    });
  });
  assert.deepEqual(told, ['http_status', 404]);
});
