// Writes pkg/package.json with the version given, and the README as it reads outside the repository; leaves in pkg/ only
// the declarations that an app can reach.
// usage: node manifest.mjs VERSION

import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { entryPoints } from './exports.mjs';

const [version] = process.argv.slice(2);
const manifest = JSON.parse(await readFile('pkg-template/package.json', 'utf8'));
await writeFile('pkg/package.json', `${JSON.stringify({ ...manifest, version }, null, 2)}\n`);

await writeFile('pkg/README.md', packageReadme(await readFile('README.md', 'utf8')));

const reachable = new Set();
const queue = entryPoints(manifest).map((name) => join('pkg', `${name}.d.ts`));
while (queue.length > 0) {
  const file = queue.pop();
  if (reachable.has(file)) continue;
  reachable.add(file);
  const text = await declarations(file);
  for (const [, specifier] of text.matchAll(/(?:from|import\()\s*['"](\.[^'"]+)\.js['"]/g)) {
    queue.push(join(dirname(file), `${specifier}.d.ts`));
  }
}
for (const entry of await readdir('pkg', { recursive: true })) {
  const file = join('pkg', entry);
  if (file.endsWith('.d.ts') && !reachable.has(file)) await rm(file);
}

/** Without the picture and its caption; links to files that only the repository has become plain text. */
function packageReadme(text) {
  return text
    .replace(/^\[!\[.*\n\n\*.*\*\n\n/m, '')
    .replace(/\[([^\]]+)\]\((?!https?:|#)[^)]*\)/g, '$1');
}

/** tsc writes declarations for our sources, but does not copy those that wasm-bindgen wrote. */
async function declarations(file) {
  try {
    return await readFile(file, 'utf8');
  } catch {
    const original = join('pkg-template/src', relative('pkg', file));
    await mkdir(dirname(file), { recursive: true });
    await copyFile(original, file);
    return readFile(file, 'utf8');
  }
}
