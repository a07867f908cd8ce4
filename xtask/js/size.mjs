// Prints the sizes of what an app downloads. usage: node size.mjs

import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { transformSync } from 'esbuild';

const minified = (code) => transformSync(code, { minify: true, format: 'esm', target: 'es2022' }).code;
/** An entry point with the chunks that it imports, directly or not: several entry points share some, not all. */
const withChunks = (entry) => {
  const files = new Map();
  const add = (file) => {
    if (files.has(file)) return;
    files.set(file, '');
    const code = readFileSync(file, 'utf8');
    files.set(file, minified(code));
    for (const [, path] of code.matchAll(/(?:from|import) "(\.[^"]+)"/g)) add(join(dirname(file), path));
  };
  add(`pkg/${entry}`);
  return [...files.values()].join('');
};

const rows = [
  ['core.wasm', readFileSync('pkg/core.wasm')],
  ['index.js', readFileSync('pkg/index.js')],
  ['index.js + chunks, minified', Buffer.from(withChunks('index.js'))],
  ['eventsource.js, the same', Buffer.from(withChunks('eventsource.js'))],
  ['slim.js + chunks, minified', Buffer.from(withChunks('slim.js'))],
];
console.log(`${'bytes'.padEnd(28)}${['raw', 'gzip', 'brotli'].map((name) => name.padStart(10)).join('')}`);
for (const [name, bytes] of rows) {
  const sizes = [bytes.length, gzipSync(bytes, { level: 9 }).length, brotliCompressSync(bytes).length];
  console.log(`${name.padEnd(28)}${sizes.map((size) => size.toLocaleString('en').padStart(10)).join('')}`);
}
