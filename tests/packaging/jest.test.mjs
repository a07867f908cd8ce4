// The packed package in an app's Jest: as ES modules, and transpiled to CommonJS as most set-ups do; in Node's environment, and
// in jsdom, which lacks fetch, streams and TextDecoder unless the app's set-up hands Node's in.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { inRepository } from '../support/paths.mjs';
import { makeApp } from './app.mjs';
import { assertTicks, serveTicks } from './ticks.mjs';

const IMPORT = "import { appendFileSync } from 'node:fs'; import { connectSSE } from 'holdfast-sse';";

/** What the app tests: the first ten ticks, told to this one by a file. */
const streams = `
  ${IMPORT}
  test('streams', async () => {
    const ids = await new Promise((resolve, reject) => {
      const ids = [];
      const stream = connectSSE(process.env.STREAM, {
        onEvent: ({ id }) => { if (ids.push(id) === 10) resolve(ids); },
        onError: reject,
        onClose: () => resolve(ids),
      });
      ended = () => stream.dispose();
    });
    appendFileSync('ids.txt', ids.join() + '\\n');
  });
  let ended = () => {};
  afterEach(() => ended());
`;

/** In plain jsdom importing does no harm, and connecting says what is missing. */
const bare = `
  ${IMPORT}
  test('says what is missing', async () => {
    expect([typeof fetch, typeof TextDecoder]).toEqual(['undefined', 'undefined']);
    const error = await new Promise((resolve) => connectSSE('http://127.0.0.1:1/stream', { onError: resolve, autoReconnect: false }));
    appendFileSync('told.txt', error.code + ' ' + error.message + '\\n');
  });
`;

const files = {
  // Set-ups that transpile have a line of this kind for packages that are ES modules.
  'transpile.cjs': `
    const { transformSync } = require('esbuild');
    exports.process = (text) => ({ code: transformSync(text, { format: 'cjs', target: 'node20' }).code });
  `,
  'with-fetch.cjs': `
    const { default: JSDOM } = require('jest-environment-jsdom');
    module.exports = class extends JSDOM {
      async setup() {
        await super.setup();
        const { fetch, Request, Response, Headers, ReadableStream, TextDecoder, TextEncoder } = globalThis;
        Object.assign(this.global, { fetch, Request, Response, Headers, ReadableStream, TextDecoder, TextEncoder });
      }
    };
  `,
  'node.mjs': streams,
  'bare.mjs': bare,
  'jest.config.json': JSON.stringify({
    projects: [
      { displayName: 'esm', testEnvironment: 'node', testMatch: ['<rootDir>/node.mjs'], transform: {} },
      { displayName: 'esm-jsdom', testEnvironment: './with-fetch.cjs', testMatch: ['<rootDir>/node.mjs'], transform: {} },
      { displayName: 'esm-bare-jsdom', testEnvironment: 'jsdom', testMatch: ['<rootDir>/bare.mjs'], transform: {} },
      { displayName: 'cjs', testEnvironment: 'node', testMatch: ['<rootDir>/node.js'] },
      { displayName: 'cjs-jsdom', testEnvironment: './with-fetch.cjs', testMatch: ['<rootDir>/node.js'] },
      { displayName: 'cjs-bare-jsdom', testEnvironment: 'jsdom', testMatch: ['<rootDir>/bare.js'] },
    ].map((project) => (
      project.transform ? project : { ...project, transform: { '\\.js$': './transpile.cjs' }, transformIgnorePatterns: [] }
    )),
  }),
  'package.json': JSON.stringify({ name: 'app', private: true }),
  'node.js': streams,
  'bare.js': bare,
};

test('jest: ES modules and CommonJS, in Node and in jsdom', { timeout: 120_000 }, async (t) => {
  const app = makeApp(files, { tools: true });
  t.after(app.remove);
  const ticks = await serveTicks();
  t.after(ticks.kill);
  const args = ['--experimental-vm-modules', '--no-warnings', inRepository('node_modules/jest/bin/jest.js'), '--runInBand', '--ci'];
  const env = { ...process.env, STREAM: ticks.url };
  const { stderr } = await promisify(execFile)(process.execPath, args, { cwd: app.folder, env }).catch((error) => assert.fail(error.stderr + error.stdout));
  assert.match(stderr, /Tests:\s+6 passed, 6 total/);
  const lines = (name) => readFileSync(join(app.folder, name), 'utf8').trim().split('\n');
  assert.equal(lines('ids.txt').length, 4);
  for (const ids of lines('ids.txt')) assertTicks(ids.split(','));
  assert.equal(lines('told.txt').length, 2);
  for (const told of lines('told.txt')) assert.match(told, /^wasm_blocked there is no TextDecoder here; in jsdom, /);
});
