// The loader by itself: what the package does not export, but recovers from traps with.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { inRepository } from '../support/paths.mjs';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-loader-'));
after(() => rmSync(folder, { recursive: true }));
let copies = 0;

/** A fresh loader with a state of its own. */
async function loader() {
  copies += 1;
  const outfile = join(folder, `loader-${copies}.mjs`);
  await build({
    stdin: {
      contents: "export * from './loader.js'; export { version } from './glue/core.js'",
      resolveDir: inRepository('pkg-template/src'),
    },
    bundle: true,
    format: 'esm',
    outfile,
  });
  return import(pathToFileURL(outfile));
}

const bytes = await readFile(inRepository('pkg/core.wasm'));
const response = (type, status = 200) => new Response(bytes, { status, headers: { 'content-type': type } });

/** A response whose body fails after some bytes. */
function brokenOff() {
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(bytes.subarray(0, 100));
      controller.error(new TypeError('broke off'));
    },
  });
  return new Response(body, { headers: { 'content-type': 'application/wasm' } });
}

test('loads once, whoever asks', async () => {
  const core = await loader();
  assert.equal(core.isLoaded(), false);
  assert.throws(() => core.memory(), /not loaded yet/);
  let asked = 0;
  core.provideSource(() => (asked += 1, bytes));
  const [first, second] = await Promise.all([core.loadWasm(), core.loadWasm()]);
  assert.equal(first, second);
  assert.equal(asked, 1);
  assert.equal(core.isLoaded(), true);
  assert.equal(core.memory(), first.memory);
});

test('a reset makes a new instance of the same module, at once', async () => {
  const core = await loader();
  const before = await core.loadFrom(bytes);
  const version = core.version();
  const after = core.resetWasm();
  assert.notEqual(after.memory, before.memory);
  assert.equal(core.memory(), after.memory);
  assert.equal(core.version(), version);
  assert.throws(await loader().then((fresh) => fresh.resetWasm), /not loaded yet/);
});

test('takes a response of any media type', async () => {
  for (const type of ['application/wasm', 'application/wasm; charset=x', 'application/octet-stream', 'text/html']) {
    const core = await loader();
    await core.loadFrom(response(type));
    assert.ok(core.version(), type);
  }
});

test('says why there is no core, and tries again when asked', async () => {
  const cases = [
    [response('text/html', 404), 'http_status', /status 404/],
    ['http://127.0.0.1:1/core.wasm', 'network_error', /127\.0\.0\.1:1/],
    [brokenOff(), 'network_error', /broke off/],
    [new Uint8Array([1, 2, 3]), 'wasm_blocked', /cannot run here/],
  ];
  for (const [source, code, message] of cases) {
    const core = await loader();
    await assert.rejects(core.loadFrom(source), (error) => {
      assert.ok(error instanceof core.WasmLoadError);
      assert.equal(error.code, code);
      assert.match(error.message, message);
      return true;
    });
    assert.equal(core.isLoaded(), false);
    await core.loadFrom(bytes);
    assert.ok(core.version());
  }
});
