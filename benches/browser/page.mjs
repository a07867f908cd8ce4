// Runs in the page; see run.mjs.

import { createParser } from 'eventsource-parser';
import { connectSSE } from 'holdfast-sse';

const EVENTS = 100_000;
/** Payloads that are kept, of how many. */
const KEPT = 2_000;
const KEPT_OF = 400_000;
const CHUNK_BYTES = 64 << 10;
const encoder = new TextEncoder();
const payload = 'x'.repeat(100);
const uuid = (n) => `0191a7c0-0000-7000-8000-${String(n).padStart(12, '0')}`;
const announcement = JSON.stringify({
  event_id: uuid(0),
  type: 'control.open',
  ts: '2026-01-01T00:00:00.000Z',
  payload: { protocol: 'holdfast/1', position: 'bench-0', heartbeat_interval: 15_000, replayable: true },
});

/** Streams by name: how each event is written, and what stands before all. */
const STREAMS = {
  'data only': { event: () => `data: ${payload}\n\n` },
  'data of its own each': { event: (n) => `data: ${String(n).padStart(payload.length, 'x')}\n\n`, isHidden: true },
  'id and data, foreign server': { event: (n) => `id: ${n}\ndata: ${payload}\n\n` },
  'id, event and JSON, foreign server': {
    event: (n) => `id: ${n}\nevent: domain.tick\ndata: {"n":${n},"text":"${payload}"}\n\n`,
  },
  'the same, cursor in localStorage': {
    event: (n) => STREAMS['id, event and JSON, foreign server'].event(n),
    options: { persistLastEventId: true },
  },
  'id, event and envelope, our server': {
    before: `event: control.open\ndata: ${announcement}\n\n`,
    event: (n) =>
      `id: bench-${n}\nevent: domain.tick\ndata: {"event_id":"${uuid(n)}","type":"domain.tick",` +
      `"ts":"2026-01-01T00:00:00.000Z","payload":{"n":${n}},"sequence":${n}}\n\n`,
  },
  'id and data, not ASCII': { event: (n) => `id: ${n}\ndata: ${'é€😀'.repeat(14)}\n\n` },
};

function chunksOf(name, events = EVENTS) {
  const { before = '', event } = STREAMS[name];
  let text = before;
  for (let n = 1; n <= events; n += 1) text += event(n);
  const bytes = encoder.encode(text);
  const chunks = [];
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) chunks.push(bytes.subarray(at, at + CHUNK_BYTES));
  return chunks;
}

function response(chunks) {
  let next = 0;
  const body = new ReadableStream({
    pull(controller) {
      if (next < chunks.length) controller.enqueue(chunks[next++]);
      else controller.close();
    },
  });
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
}

/** The handler of both sides: it touches what a handler would. */
function counter() {
  const seen = { events: 0, units: 0 };
  return { seen, onEvent: (event) => { seen.events += 1; seen.units += event.data.length + (event.id?.length ?? 0); } };
}

async function theirs(chunks) {
  const { seen, onEvent } = counter();
  const parser = createParser({ onEvent });
  const decoder = new TextDecoder();
  const reader = response(chunks).body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parser.feed(decoder.decode(value, { stream: true }));
  }
  return seen;
}

function ours(chunks, { onEach, options } = {}) {
  const { seen, onEvent } = counter();
  return new Promise((resolve, reject) => {
    const connector = connectSSE('/stream', {
      autoReconnect: false,
      ...options,
      fetch: async () => response(chunks),
      onEvent: onEach ?? onEvent,
      onError: reject,
      onClose: () => {
        const { eventsDelivered } = connector.getStats();
        connector.clearCursor();
        connector.dispose();
        resolve(onEach === undefined ? seen : { events: eventsDelivered });
      },
    });
  });
}

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

globalThis.bench = {
  streams: () => Object.keys(STREAMS).filter((name) => STREAMS[name].isHidden !== true),

  /** Million events a second of both sides, measured in turns. */
  async run(name, rounds) {
    const chunks = chunksOf(name);
    const { options } = STREAMS[name];
    const rates = { theirs: [], ours: [] };
    // Two rounds to warm up.
    for (let round = -2; round < rounds; round += 1) {
      for (const [side, run] of Object.entries({ theirs, ours })) {
        const start = performance.now();
        const seen = await run(chunks);
        const seconds = (performance.now() - start) / 1_000;
        if (seen.events < EVENTS) throw new Error(`${side} saw ${seen.events} events of ${name}`);
        if (round >= 0) rates[side].push(seen.events / seconds / 1e6);
      }
    }
    return { theirs: median(rates.theirs), ours: median(rates.ours) };
  },

  /**
   * What an app that keeps a few payloads holds on to, in KiB beyond the payloads themselves. Decoded text lies outside
   * of the JavaScript heap, so the browser's own account of the page's memory is asked.
   */
  async retained() {
    const chunks = chunksOf('data of its own each', KEPT_OF);
    const kept = [];
    let seen = 0;
    const before = await pageBytes();
    await ours(chunks, { onEach: (event) => {
      seen += 1;
      if (seen % (KEPT_OF / KEPT) === 0) kept.push(event.data);
    } });
    const after = await pageBytes();
    const own = kept.reduce((sum, text) => sum + text.length, 0);
    return { kept: kept.length, events: seen, ownKilobytes: Math.round(own / 1_024), heldKilobytes: Math.round((after - before) / 1_024) };
  },
};

async function pageBytes() {
  globalThis.gc?.();
  return (await performance.measureUserAgentSpecificMemory()).bytes;
}
