// What is in the package, and what it says of itself.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { inRepository } from '../support/paths.mjs';
import { makeApp } from './app.mjs';

const manifest = JSON.parse(readFileSync(inRepository('pkg/package.json'), 'utf8'));

const strict = { strict: true, noEmit: true, skipLibCheck: false, target: 'ES2022', lib: ['ES2022', 'DOM'], types: [] };
const files = {
  'main.ts': `
    import { version } from 'holdfast-sse';
    import { initialize, type WasmSource } from 'holdfast-sse/slim';
    const source: WasmSource = new URL('https://example.org/core.wasm');
    export const found: Promise<string> = initialize(source).then(version);
    // @ts-expect-error the version is not there at once
    export const early: string = version();
  `,
  'bundler.json': tsconfig({ module: 'ESNext', moduleResolution: 'Bundler' }),
  'node.json': tsconfig({ module: 'NodeNext', moduleResolution: 'NodeNext' }),
};

function tsconfig(resolution) {
  return JSON.stringify({ compilerOptions: { ...strict, ...resolution }, files: ['main.ts'] });
}

let app;
before(() => (app = makeApp(files)));
after(() => app?.remove());

test('publint has nothing to say', async () => {
  const { messages } = await publint({ pkgDir: inRepository('pkg'), strict: true });
  assert.deepEqual(messages.map((message) => formatMessage(message, manifest)), []);
});

test('the version is the crate\'s, and the package is free of side effects and dependencies', () => {
  const crate = /^version = "(.+)"$/m.exec(readFileSync(inRepository('Cargo.toml'), 'utf8'))[1];
  assert.equal(manifest.version, crate);
  assert.equal(manifest.sideEffects, false);
  assert.equal(manifest.dependencies, undefined);
  // Hooks bring no framework along: it is the app's, and an app without one is not asked for it.
  const optional = Object.entries(manifest.peerDependenciesMeta).filter(([, meta]) => meta.optional).map(([name]) => name);
  assert.deepEqual(Object.keys(manifest.peerDependencies).sort(), optional.sort());
});

test('the README has no link that leads nowhere, and no picture', () => {
  const readme = readFileSync(inRepository('pkg/README.md'), 'utf8');
  const links = [...readme.matchAll(/\]\(([^)]*)\)/g)].map(([, target]) => target);
  assert.ok(links.length > 0);
  assert.deepEqual(links.filter((target) => !/^https?:/.test(target)), []);
  assert.doesNotMatch(readme, /!\[|^\*The demo page/m);
});

test('the tarball brings all that it exports, and the licences', () => {
  const installed = (file) => `${app.folder}/node_modules/holdfast-sse/${file}`;
  const targets =
    Object.values(manifest.exports).flatMap((target) => (typeof target === 'string' ? target : Object.values(target)));
  for (const file of [...targets, 'LICENSE-MIT', 'LICENSE-APACHE', 'package.json']) {
    assert.ok(existsSync(installed(file)), file);
  }
});

for (const resolution of ['bundler', 'node']) {
  test(`the types hold under strict settings, resolved as by ${resolution}`, () => {
    const tsc = inRepository('node_modules/typescript/bin/tsc');
    const args = [tsc, '--project', `${resolution}.json`];
    const run = () => execFileSync(process.execPath, args, { cwd: app.folder, encoding: 'utf8', stdio: 'pipe' });
    assert.doesNotThrow(run, (error) => assert.fail(error.stdout));
  });
}

test('the lock file names no registry', () => {
  const lock = readFileSync(inRepository('package-lock.json'), 'utf8');
  assert.doesNotMatch(lock, /"resolved"|registry|\.tgz/);
});
