// Payloads checked by Standard Schemas, and what the compiler knows of events and options.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';

const { connectSSE, SSEError } = await import(inRepository('pkg/index.js'));

const turn = () => new Promise((resolve) => setImmediate(resolve));
const until = async (predicate) => { while (!predicate()) await turn(); };

/** A schema as libraries make them: a positive number as text becomes a number. */
const price = (wait) => ({
  '~standard': {
    version: 1,
    vendor: 'test',
    validate(value) {
      const amount = Number(value?.amount);
      const result = amount > 0
        ? { value: { amount } }
        : { issues: [{ message: 'must be above 0', path: ['amount'] }, { message: 'and whole', path: [{ key: 'x' }, 0] }] };
      return wait === undefined ? result : wait().then(() => result);
    },
  },
});

async function serve(t) {
  const amounts = ['3', '-1', '5'];
  const all = [...amounts.map((amount) => ['price', JSON.stringify({ amount })]), ['free', '"anything"']];
  const server = createServer((request, response) => {
    const after = Number(request.headers['last-event-id'] ?? 0);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const text = all.map(([name, data], index) => `id: ${index + 1}\nevent: ${name}\ndata: ${data}\n\n`);
    response.write(text.slice(after).join('') || ': none\n\n');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${server.address().port}/`;
}

for (const [how, wait] of [['at once', undefined], ['later', turn]]) {
  test(`what a schema makes of a payload is the payload; what it refuses is skipped and reported (${how})`, async (t) => {
    const [got, errors] = [[], []];
    const connector = connectSSE(await serve(t), {
      schemas: { price: price(wait) },
      onEvent: (event) => { got.push(event.payload); },
      onError: (error) => errors.push(error),
    });
    t.after(() => connector.dispose());
    await until(() => connector.lastEventId === '4');
    assert.deepEqual(got, [{ amount: 3 }, { amount: 5 }, 'anything']);
    assert.equal(errors.length, 1);
    assert.ok(errors[0] instanceof SSEError);
    assert.deepEqual([errors[0].code, errors[0].event.id, errors[0].cause.length], ['invalid_event', '2', 2]);
    assert.match(errors[0].message, /event 2 is not valid: amount: must be above 0; x\.0: and whole/);
  });

  test(`onInvalidEvent 'deliver' hands the payload over as it came (${how})`, async (t) => {
    const [got, invalid, errors] = [[], [], []];
    const connector = connectSSE(await serve(t), {
      schemas: { price: price(wait) },
      onInvalidEvent: 'deliver',
      onInvalid: (info) => invalid.push([info.event.id, info.issues.length]),
      onEvent: (event) => { got.push(event.payload); },
      onError: (error) => errors.push(error),
    });
    t.after(() => connector.dispose());
    await until(() => connector.lastEventId === '4');
    assert.deepEqual(got, [{ amount: 3 }, { amount: '-1' }, { amount: 5 }, 'anything']);
    assert.deepEqual([invalid, errors], [[['2', 2]], []]);
  });

  test(`onInvalidEvent 'stop' stops before the event, and a loop throws it (${how})`, async (t) => {
    const got = [];
    const connector = connectSSE(await serve(t), { schemas: { price: price(wait) }, onInvalidEvent: 'stop', onError: () => {} });
    t.after(() => connector.dispose());
    await assert.rejects(async () => {
      for await (const event of connector) got.push(event.payload);
    }, { code: 'invalid_event' });
    assert.deepEqual([got, connector.state, connector.lastEventId], [[{ amount: 3 }], 'closed', '1']);
  });
}

test('an event whose handler is called again is checked once, and a schema that throws is a failed handler', async (t) => {
  let checks = 0;
  const schema = { '~standard': { version: 1, vendor: 'test', validate: (value) => {
    checks += 1;
    if (value.amount === '-1') throw new Error('in the schema');
    return { value };
  } } };
  const errors = [];
  let fails = 2;
  const connector = connectSSE(await serve(t), {
    schemas: { price: schema },
    onHandlerError: 'retry',
    onError: (error) => {
      errors.push(`${error.code} ${error.event.id}`);
      if (error.event.id === '2') connector.stop();
    },
    onEvent: () => { if ((fails -= 1) >= 0) throw new Error('not yet'); },
  });
  t.after(() => connector.dispose());
  await until(() => connector.state === 'closed');
  assert.deepEqual([errors, checks], [['handler_failed 1', 'handler_failed 1', 'handler_failed 2'], 2]);
});

for (const [options, option] of [
  [{ schemas: { price: {} } }, 'schemas.price'],
  [{ schemas: [] }, 'schemas'],
  [{ onInvalidEvent: 'retry' }, 'onInvalidEvent'],
]) {
  test(`${JSON.stringify(options)} is an error that names ${option}`, async () => {
    const error = await new Promise((resolve) => connectSSE('http://127.0.0.1:9/', { ...options, onError: resolve }));
    assert.deepEqual([error.code, error.option], ['invalid_option', option]);
    assert.match(error.message, /takes/);
  });
}

for (const [resolution, module] of [['Bundler', 'ESNext'], ['NodeNext', 'NodeNext']]) {
  test(`the compiler knows what an event carries and which options there are (${resolution})`, (t) => {
    // Through the package's own exports, as an app's compiler goes.
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-types-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    cpSync(inRepository('tests/types'), folder, { recursive: true });
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(inRepository('pkg'), join(folder, 'node_modules/holdfast-sse'));
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    const config = JSON.parse(readFileSync(join(folder, 'tsconfig.json'), 'utf8'));
    Object.assign(config.compilerOptions, { module, moduleResolution: resolution });
    delete config.compilerOptions.paths;
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
    // Prints what is wrong, and fails by its exit code.
    execFileSync(inRepository('node_modules/.bin/tsc'), ['--project', folder], { stdio: ['ignore', 'inherit', 'inherit'] });
  });
}

for (const [onInvalidEvent, amounts, cursor, state] of [
  ['skip', [3, 5], '4', 'open'], ['deliver', [3, '-1', 5], '4', 'open'], ['stop', [3], '1', 'closed'],
]) {
  test(`onInvalid hears of it before onInvalidEvent: '${onInvalidEvent}' decides`, async (t) => {
    const [told, errors, got, closes] = [[], [], [], []];
    const connector = connectSSE(await serve(t), {
      schemas: { price: price() },
      onInvalidEvent,
      onInvalid: ({ event, issues }) => told.push([event.id, event.payload, issues.length, got.length]),
      onError: (error) => errors.push(error.code),
      onEvent: (event) => { if (event.type === 'price') got.push(event.payload.amount); },
      onClose: ({ reason }) => closes.push(reason),
    });
    t.after(() => connector.dispose());
    await until(() => connector.lastEventId === cursor && connector.state === state);
    assert.deepEqual([told, errors, got], [[['2', { amount: '-1' }, 2, 1]], [], amounts]);
    assert.deepEqual(closes, onInvalidEvent === 'stop' ? ['invalid_event'] : []);
  });
}
