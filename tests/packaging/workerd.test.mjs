// The packed package in a Cloudflare Worker: bundled as its own tools do, under the condition `workerd` and with WebAssembly left
// to be a module of the deployment, and run by the runtime itself, where compiling at run time is forbidden.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { build } from 'esbuild';
import workerd from 'workerd';
import { makeApp } from './app.mjs';
import { assertTicks, serveTicks } from './ticks.mjs';

/** Answers with what it read of the stream in its query, by way of each entry point. */
const worker = `
  import { connectSSE, version } from 'holdfast-sse';
  import { EventSource } from 'holdfast-sse/eventsource';
  import { loadPolicies, DedupeCache } from 'holdfast-sse/policies';
  import { SharedState } from 'holdfast-sse/state';
  export default {
    async fetch(request) {
      const url = new URL(request.url).searchParams.get('stream');
      const compiling = await WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])).then(() => 'allowed', () => 'forbidden');
      const loop = [];
      const stream = connectSSE(url);
      for await (const { id } of stream) if (loop.push(id) === 10) break;
      stream.dispose();
      const native = await new Promise((resolve, reject) => {
        const ids = [];
        const source = new EventSource(url);
        const collect = ({ lastEventId }) => { if (ids.push(lastEventId) === 10) { source.close(); resolve(ids); } };
        for (const type of ['message', 'domain.tick']) source.addEventListener(type, collect);
        source.addEventListener('error', ({ error }) => reject(error));
      });
      await loadPolicies();
      return Response.json({ compiling, version: await version(), loop, native, policies: typeof new DedupeCache(), state: typeof SharedState });
    },
  };
`;

test('workerd: streams, with the module imported', async (t) => {
  const app = makeApp({ 'worker.js': worker });
  t.after(app.remove);
  const outdir = `${app.folder}/dist`;
  await build({
    entryPoints: [`${app.folder}/worker.js`],
    outdir,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    conditions: ['workerd', 'worker', 'browser'],
    loader: { '.wasm': 'copy' },
    logLevel: 'warning',
  });
  const wasm = readdirSync(outdir).filter((name) => name.endsWith('.wasm'));
  assert.equal(wasm.length, 1);
  writeFileSync(`${outdir}/config.capnp`, `
    using Workerd = import "/workerd/workerd.capnp";
    const config :Workerd.Config = (
      services = [
        (name = "main", worker = (
          compatibilityDate = "2026-01-01",
          globalOutbound = "network",
          modules = [
            (name = "worker.js", esModule = embed "worker.js"),
            (name = "${wasm[0]}", wasm = embed "${wasm[0]}"),
          ],
        )),
        (name = "network", network = (allow = ["private"])),
      ],
      sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
    );
  `);
  const address = await start(t, outdir);
  const ticks = await serveTicks();
  t.after(ticks.kill);
  const answer = await fetch(`${address}/?stream=${encodeURIComponent(ticks.url)}`);
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  const { compiling, version, loop, native, policies, state } = JSON.parse(text);
  assert.match(version, /^\d+\.\d+\.\d+$/);
  assert.deepEqual([compiling, policies, state], ['forbidden', 'object', 'function']);
  for (const ids of [loop, native]) assertTicks(ids);
});

/** The runtime on a free port, which it tells on the descriptor it is given for that. */
async function start(t, cwd) {
  const child = spawn(workerd.default, ['serve', 'config.capnp', '--control-fd=3'], { cwd, stdio: ['ignore', 'inherit', 'inherit', 'pipe'] });
  const exited = once(child, 'exit');
  t.after(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  return new Promise((resolve, reject) => {
    let told = '';
    child.stdio[3].setEncoding('utf8').on('data', (text) => {
      told += text;
      const found = /"event":"listen".*"port":(\d+)/.exec(told);
      if (found) resolve(`http://127.0.0.1:${found[1]}`);
    });
    child.once('exit', (code) => reject(new Error(`workerd ended with ${code}`)));
  });
}
