// Server-side rendering imports the package where there is no browser: nothing may run then.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { inRepository } from '../support/paths.mjs';

/** Runs a module in a fresh Node at the repository's root and answers with what it printed. */
function run(code) {
  const args = ['--input-type=module', '--eval', code];
  return execFileSync(process.execPath, args, { cwd: inRepository('.'), encoding: 'utf8' }).trim();
}

const trapEverything = `
  const touched = [];
  for (const name of [
    'WebAssembly', 'fetch', 'setTimeout', 'queueMicrotask', 'atob', 'localStorage', 'document', 'TextDecoder', 'TextEncoder',
    'EventSource',
  ]) {
    Object.defineProperty(globalThis, name, { configurable: true, get() { touched.push(name); } });
  }
`;

const { entryPoints } = await import(inRepository('xtask/js/exports.mjs'));
const manifest = JSON.parse(await readFile(inRepository('pkg/package.json'), 'utf8'));

for (const entry of entryPoints(manifest)) {
  test(`importing ${entry}.js touches nothing of the platform`, () => {
    // React and TanStack Query are the app's own, and do as they like.
    const peers = "await import('react'); await import('@tanstack/react-query');";
    assert.equal(run(`${peers} ${trapEverything} await import('./pkg/${entry}.js'); console.log(touched.join())`), '');
  });
}

test('the package works in Node, without set-up', () => {
  const { version } = JSON.parse(run(`
    import { readFileSync } from 'node:fs';
    console.log(readFileSync('pkg/package.json', 'utf8'));
  `));
  assert.equal(run("import { version } from './pkg/index.js'; console.log(await version())"), version);
});

test('both entry points share one instance', () => {
  assert.notEqual(run(`
    import { version } from './pkg/index.js';
    import * as slim from './pkg/slim.js';
    await version();
    console.log(await slim.version());
  `), '');
});

test('slim takes bytes or a compiled module, and says so when it got neither', () => {
  for (const source of ['bytes', 'bytes.buffer', 'await WebAssembly.compile(bytes)']) {
    assert.notEqual(run(`
      import { readFileSync } from 'node:fs';
      import { initialize, version } from './pkg/slim.js';
      const bytes = new Uint8Array(readFileSync('pkg/core.wasm'));
      await initialize(${source});
      console.log(await version());
    `), '');
  }
  const told = run(`
    import { version } from './pkg/slim.js';
    await version().catch((error) => console.log(error.code, error.message));
  `);
  assert.match(told, /^invalid_option .*initialize\(source\)/);
});

test('without WebAssembly the code is wasm_blocked', () => {
  const told = run(`
    delete globalThis.WebAssembly;
    const { version } = await import('./pkg/index.js');
    await version().catch((error) => console.log(error.code, error.message));
  `);
  assert.match(told, /^wasm_blocked there is no WebAssembly here/);
});
