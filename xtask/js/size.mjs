// Prints the sizes of what an app downloads. usage: node size.mjs

import { readdirSync, readFileSync } from 'node:fs';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { transformSync } from 'esbuild';

const chunks = readdirSync('pkg/chunks').map((name) => readFileSync(`pkg/chunks/${name}`));
const minified = (code) => transformSync(code, { minify: true, format: 'esm', target: 'es2022' }).code;
const withChunks = (entry) =>
  [readFileSync(`pkg/${entry}`), ...chunks].map((part) => minified(part.toString())).join('');

const rows = [
  ['core.wasm', readFileSync('pkg/core.wasm')],
  ['index.js', readFileSync('pkg/index.js')],
  ['index.js + chunks, minified', Buffer.from(withChunks('index.js'))],
  ['slim.js + chunks, minified', Buffer.from(withChunks('slim.js'))],
];
console.log(`${'bytes'.padEnd(28)}${['raw', 'gzip', 'brotli'].map((name) => name.padStart(10)).join('')}`);
for (const [name, bytes] of rows) {
  const sizes = [bytes.length, gzipSync(bytes, { level: 9 }).length, brotliCompressSync(bytes).length];
  console.log(`${name.padEnd(28)}${sizes.map((size) => size.toLocaleString('en').padStart(10)).join('')}`);
}
