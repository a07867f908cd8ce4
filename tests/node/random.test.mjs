// The promise, against the package itself: random scripts of handlers that return, throw and reject, acks in any order,
// stop(), reconnect() and connect() at any moment, connections that are cut, and pages that are left. What the app saw and
// what was stored are compared with what was published. HOLDFAST_SCRIPT=7 runs one script, and prints it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';
import { deferred, event, headers, serve } from '../support/stream.mjs';

const { connectSSE, MemoryStorage } = await import(inRepository('pkg/index.js'));

const SCRIPTS = 150;
const STEPS = 60;
const DEADLINE_MS = 30_000;

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** SplitMix32: one seed, one script. */
function chance(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return (z ^ (z >>> 16)) >>> 0;
  };
  const below = (end) => next() % end;
  return { below, percent: (share) => below(100) < share, pick: (from) => from[below(from.length)] };
}

/** A log of numbered events, replayed behind the cursor and then sent as they are published. */
async function publisher(t, random) {
  const open = new Set();
  let last = 0;
  const write = (response, n) => response.write(`id: ${n}\ndata: ${n}\n\n`);
  const { url } = await serve(t, (request, response) => {
    response.writeHead(200, headers).write('retry: 5\n\n');
    // A fresh client gets all there is: it is there from the beginning.
    for (let n = Number(request.headers['last-event-id'] ?? 0) + 1; n <= last; n += 1) write(response, n);
    open.add(response);
    response.on('close', () => open.delete(response));
  });
  return {
    url,
    last: () => last,
    publish(count) {
      for (let n = 0; n < count; n += 1) {
        last += 1;
        for (const response of open) write(response, last);
      }
    },
    cut() {
      for (const response of open) {
        if (random.percent(50)) response.write(`id: ${last + 1}\ndata: cut off`);
        response.destroy();
      }
    },
  };
}

/** What the app has seen, over all pages, and what must hold of it. */
class Account {
  finished = new Set();
  broken = undefined;
  #page;

  constructor(trace, strict) {
    this.trace = trace;
    this.strict = strict;
    this.pageBegins({ cursor: 0, done: [] });
  }

  fail(what) {
    this.broken ??= what;
    this.trace.push(`BROKEN: ${what}`);
  }

  pageBegins(record) {
    this.#page = { begun: new Map(), highest: record.cursor, record, ends: 0 };
  }

  /** stop() or reconnect(): what is unfinished may be given back, and come again. */
  ends() {
    this.#page.ends += 1;
  }

  begins(n) {
    const { begun, record, ends, highest } = this.#page;
    const before = begun.get(n);
    if (before?.finished) this.fail(`event ${n} came again, though it was finished`);
    // With one handler at a time, what is under way keeps its place. With more, it goes back with what failed before it.
    const mayComeAgain = before !== undefined && (before.failed || (!this.strict && before.ends < ends));
    if (before !== undefined && !mayComeAgain) this.fail(`event ${n} came twice`);
    if (before === undefined && n <= record.cursor) this.fail(`event ${n} came again, though the cursor has passed it`);
    if (record.done.includes(n)) this.fail(`event ${n} came again, though it is stored as processed`);
    if (before === undefined && n < highest) this.fail(`event ${n} came after event ${highest}`);
    const call = { finished: false, failed: false, ends };
    begun.set(n, call);
    this.#page.highest = Math.max(highest, n);
    return call;
  }

  finishes(n, call) {
    // A call that was given back counts only as done once.
    this.finished.add(n);
    if (this.#page.begun.get(n) === call && call.ends === this.#page.ends) call.finished = true;
  }

  stored({ cursor, done }) {
    for (let n = 1; n <= cursor; n += 1) {
      if (!this.finished.has(n)) return this.fail(`the cursor ${cursor} is stored, and event ${n} is not finished`);
    }
    for (const n of done) {
      if (!this.finished.has(n)) this.fail(`event ${n} is stored as processed, and is not finished`);
    }
  }
}

const parse = (text) => {
  const { cursor, done } = JSON.parse(text ?? '{"cursor":"","done":[]}');
  return { cursor: Number(cursor), done: done.map(Number) };
};

async function run(t, seed) {
  const random = chance(seed);
  const trace = [];
  const plan = {
    handlerConcurrency: random.pick([1, 1, 2, 4]),
    onHandlerError: random.pick(['skip', 'retry', 'stop']),
    ...(random.percent(30) ? { ack: 'manual', maxUnacked: random.pick([1, 3, 8]) } : {}),
  };
  const manual = plan.ack === 'manual';
  const failing = random.pick([0, 0, 10, 25]);
  trace.push(`seed ${seed}: ${JSON.stringify(plan)}, ${failing} % fail`);
  const server = await publisher(t, random);
  // Acks overtake each other as concurrent handlers do.
  const account = new Account(trace, plan.handlerConcurrency === 1 && !manual);
  const kept = new MemoryStorage();
  const eventIdStorage = {
    get: () => kept.get(),
    set(record) {
      trace.push(`stored ${record}`);
      account.stored(parse(record));
      kept.set(record);
    },
    clear: () => kept.clear(),
  };
  let calm = false;
  let connector;
  let page = 0;

  const command = (name) => {
    trace.push(`${name}()`);
    account.ends();
    connector[name]();
  };

  const load = () => {
    page += 1;
    account.pageBegins(parse(kept.get()));
    trace.push(`page ${page}`);
    // A page that is left finishes what it has begun, and stores that.
    const finish = (n, call) => {
      trace.push(`finished ${n}`);
      account.finishes(n, call);
    };
    connector = connectSSE(server.url, {
      ...plan,
      eventIdStorage,
      retryPolicy: { baseDelayMs: 5, jitterPct: 0 },
      onError: () => {},
      onEvent(event) {
        const n = Number(event.id);
        trace.push(`begins ${n}`);
        const call = account.begins(n);
        if (!calm && random.percent(2)) command(random.pick(['stop', 'reconnect']));
        const fails = !calm && random.percent(failing);
        const ends = () => {
          call.failed = fails;
          if (fails) {
            trace.push(`fails ${n}`);
            if (plan.onHandlerError === 'stop') account.ends();
            if (plan.onHandlerError === 'skip') finish(n, call);
            throw new Error('as the script has it');
          }
          if (!manual) finish(n, call);
        };
        const later = async (turns) => {
          for (let left = turns; left > 0; left -= 1) await turn();
        };
        if (manual) {
          void later(calm ? 1 : random.below(20)).then(() => {
            // An ack of what was given back does nothing.
            finish(n, call);
            event.ack();
          });
        }
        if (random.percent(50)) return ends();
        return later(calm ? 1 : random.below(12)).then(ends);
      },
    });
  };

  load();
  t.after(() => connector.dispose());
  for (let step = 0; step < STEPS && account.broken === undefined; step += 1) {
    const what = random.below(20);
    if (what < 9) server.publish(1 + random.below(4));
    else if (what < 10) server.cut();
    else if (what < 11) command('reconnect');
    else if (what < 12) command('stop');
    else if (what < 14) connector.connect();
    else if (what < 15 && random.percent(40)) {
      connector.dispose();
      load();
    }
    for (let turns = random.below(6); turns >= 0; turns -= 1) await turn();
  }
  calm = true;
  server.publish(3);
  const isThrough = () => {
    for (let n = 1; n <= server.last(); n += 1) if (!account.finished.has(n)) return false;
    return connector.lastEventId === String(server.last());
  };
  const deadline = Date.now() + DEADLINE_MS;
  while (account.broken === undefined && !isThrough()) {
    if (Date.now() > deadline) account.fail(`event ${server.last()} is not reached; the cursor is ${connector.lastEventId}`);
    if (connector.state === 'closed' || connector.state === 'idle') connector.connect();
    await turn();
  }
  connector.dispose();
  return { broken: account.broken, trace };
}

test('random scripts lose nothing, repeat nothing and store nothing too early', async (t) => {
  const only = process.env.HOLDFAST_SCRIPT;
  const seeds = only === undefined ? Array.from({ length: SCRIPTS }, (_, seed) => seed) : [Number(only)];
  for (const seed of seeds) {
    const { broken, trace } = await run(t, seed);
    if (broken !== undefined || only !== undefined) console.log(trace.slice(only === undefined ? -60 : 0).join('\n'));
    assert.equal(broken, undefined, `script ${seed}: HOLDFAST_SCRIPT=${seed} runs it alone`);
  }
});

test('a handler that ends the stream itself is no account of what comes in its place', async (t) => {
  let open;
  const { url, requests } = await serve(t, (_, response, attempt) => {
    open = response.writeHead(200, headers);
    open.write(attempt === 1 ? event(1) : `event: system.heartbeat\ndata: {}\n\n${event(1)}${event(2)}`);
  });
  const [earlier, later] = [deferred(), deferred()];
  const begun = [];
  let failures = 0;
  const connector = connectSSE(url, {
    handlerConcurrency: 3,
    onHandlerError: 'retry',
    retryPolicy: { baseDelayMs: 5 },
    onError: () => { failures += 1; },
    onEvent(e) {
      begun.push(e.id);
      if (requests.length > 1) return later.promise;
      if (e.id === '1') return Promise.reject(new Error('once'));
      connector.reconnect();
      return earlier.promise;
    },
  });
  t.after(() => connector.dispose());
  while (failures === 0) await turn();
  // The first event waits to be called again when the second begins.
  open.write(event(2));
  while (begun.length < 4) await turn();
  earlier.resolve();
  for (let turns = 0; turns < 5; turns += 1) await turn();
  assert.deepEqual([begun, connector.lastEventId], [['1', '2', '1', '2'], '']);
});
