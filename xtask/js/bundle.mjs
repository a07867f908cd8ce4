// Bundles the entry points that pkg-template/package.json exports, as ES modules into pkg/.
// Shared code goes into chunks, so that all entry points of an app have one module state.

import { readFile } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { build } from 'esbuild';
import { conditionalFiles, entryPoints } from './exports.mjs';

const SOURCES = resolve('pkg-template/src');
const manifest = JSON.parse(await readFile('pkg-template/package.json', 'utf8'));
const imported = conditionalFiles(manifest, 'workerd');

await build({
  entryPoints: [
    ...entryPoints(manifest).map((name) => ({ in: `${SOURCES}/${name}.ts`, out: name })),
    ...imported.map((name) => ({ in: `imported:${basename(name)}`, out: name })),
  ],
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
  plugins: [importedModule(new Set(imported.map((name) => basename(name))))],
  // Not minified: the app's own build does that, and its developers can read what they debug.
  legalComments: 'none',
  logLevel: 'info',
});

/**
 * Entry points once more, for platforms that compile WebAssembly at deployment only: the same sources with
 * inline-imported.ts in place of inline.ts. All else is shared, in chunks.
 */
function importedModule(names) {
  return {
    name: 'imported-module',
    setup({ onResolve, onLoad }) {
      onResolve({ filter: /^imported:/ }, ({ path }) => (
        { path: `${SOURCES}/${path.slice('imported:'.length)}.ts`, namespace: 'imported' }
      ));
      onResolve({ filter: /^\.\/[^/]+\.js$/, namespace: 'imported' }, ({ path }) => {
        const name = basename(path, '.js');
        if (name === 'inline') return { path: `${SOURCES}/inline-imported.ts` };
        return { path: `${SOURCES}/${name}.ts`, namespace: names.has(name) ? 'imported' : 'file' };
      });
      onLoad({ filter: /\.ts$/, namespace: 'imported' }, async ({ path }) => (
        { contents: await readFile(path, 'utf8'), loader: 'ts', resolveDir: SOURCES }
      ));
      // Several entry points share it, so that it lies in chunks/, beside which the file is.
      onResolve({ filter: /core\.wasm$/ }, ({ importer }) => (
        basename(importer) === 'inline-imported.ts' ? { path: '../core.wasm', external: true } : undefined
      ));
    },
  };
}
