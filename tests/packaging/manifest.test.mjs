// What is in the package, and what it says of itself.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { problemAffectsResolutionKind } from '@arethetypeswrong/core/problems';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { packPackage } from '../support/package.mjs';
import { inRepository } from '../support/paths.mjs';
import { makeApp } from './app.mjs';

const manifest = JSON.parse(readFileSync(inRepository('pkg/package.json'), 'utf8'));

const options = {
  strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noEmit: true, skipLibCheck: false,
  target: 'ES2022', lib: ['ES2022', 'DOM', 'DOM.Iterable'], types: [],
};
const tsconfig = (resolution) => JSON.stringify({ compilerOptions: { ...options, ...resolution }, include: ['*.ts'] });

/** An app's modules: our own tests of types, and here one of each entry point that they leave out. */
const files = {
  ...Object.fromEntries(readdirSync(inRepository('tests/types')).filter((name) => name.endsWith('.ts')).map((name) => [
    // Node wants the names of files written out.
    name, readFileSync(inRepository(`tests/types/${name}`), 'utf8').replace("from './events'", "from './events.js'"),
  ])),
  'main.ts': `
    import { version } from 'holdfast-sse';
    import { FileStorage } from 'holdfast-sse/node';
    import { DedupeCache, loadPolicies } from 'holdfast-sse/policies';
    import { connectSSE, initialize, type SSEConnector, type WasmSource } from 'holdfast-sse/slim';
    const source: WasmSource = new URL('https://example.org/core.wasm');
    export const found: Promise<string> = initialize(source).then(version);
    // @ts-expect-error the version is not there at once
    export const early: string = version();
    export const policies: Promise<DedupeCache> = loadPolicies().then(() => new DedupeCache());
    export const stream: SSEConnector = connectSSE('/stream', { eventIdStorage: new FileStorage('cursor.json') });
    // @ts-expect-error a path, not a number
    export const wrong = new FileStorage(1);
  `,
  'bundler.json': tsconfig({ module: 'ESNext', moduleResolution: 'Bundler' }),
  'node.json': tsconfig({ module: 'NodeNext', moduleResolution: 'NodeNext' }),
};

let app;
before(() => (app = makeApp(files, { tools: true })));
after(() => app?.remove());

test('publint has nothing to say', async () => {
  const { messages } = await publint({ pkgDir: inRepository('pkg'), strict: true });
  assert.deepEqual(messages.map((message) => formatMessage(message, manifest)), []);
});

test('arethetypeswrong has nothing to say of ES modules, entry point by entry point', async () => {
  const tarball = readFileSync(packPackage());
  const { entrypoints, problems } = await checkPackage(createPackageFromTarballData(tarball), { excludeEntrypoints: ['./core.wasm'] });
  const expected = Object.keys(manifest.exports).filter((name) => name !== './core.wasm');
  assert.deepEqual(Object.keys(entrypoints).sort(), expected.sort());
  // The package is of ES modules only: what reads none, such as TypeScript's `node10`, is not meant.
  const kinds = ['node16-esm', 'bundler'];
  const told = problems.filter((problem) => kinds.some((kind) => problemAffectsResolutionKind(problem, kind, { entrypoints, problems })));
  assert.deepEqual(told, []);
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
