// The package's sources in one module, with what is not exported to apps: how the core fails, and where its memory is.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { inRepository } from './paths.mjs';

/** Answers `{ url, remove() }`, the address of the module. */
export async function bundleCore() {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-core-'));
  const outfile = join(folder, 'bundle.mjs');
  await build({
    stdin: {
      contents: `
        export * from './index.js';
        export { memory } from './loader.js';
        export { enterCore, guarded, instanceNow, leaveCore } from './core.js';
      `,
      resolveDir: inRepository('pkg-template/src'),
    },
    bundle: true,
    format: 'esm',
    loader: { '.wasm': 'base64' },
    outfile,
  });
  return { url: String(pathToFileURL(outfile)), remove: () => rmSync(folder, { recursive: true }) };
}
