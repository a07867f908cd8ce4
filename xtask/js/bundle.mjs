// Bundles the entry points that pkg-template/package.json exports, as ES modules into pkg/.
// Shared code goes into chunks, so that all entry points of an app have one module state.

import { readFile } from 'node:fs/promises';
import { build } from 'esbuild';
import { entryPoints } from './exports.mjs';

const manifest = JSON.parse(await readFile('pkg-template/package.json', 'utf8'));

await build({
  entryPoints: entryPoints(manifest).map((name) => `pkg-template/src/${name}.ts`),
  outdir: 'pkg',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'neutral',
  target: 'es2022',
  chunkNames: 'chunks/[hash]',
  // As text that is decoded on first use; the `binary` loader would decode it at import.
  loader: { '.wasm': 'base64' },
  // Importing makes nothing, the glue's decoder included.
  inject: ['pkg-template/src/lazy-text.ts'],
  // React and other peers come from the app.
  packages: 'external',
  // Not minified: the app's own build does that, and its developers can read what they debug.
  legalComments: 'none',
  logLevel: 'info',
});
