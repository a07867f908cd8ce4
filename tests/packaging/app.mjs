// A fresh app of a user's: the packed package, installed into a folder of its own.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { packPackage } from '../support/package.mjs';
import { inRepository } from '../support/paths.mjs';

/**
 * Makes the app of these files (`{'index.html': 'text'}`), outside the repository. With `tools` it lies inside, where it finds
 * the bundlers and frameworks that are installed here, by the ways of Node. Answers `{ folder, remove() }`.
 */
export function makeApp(files, { tools = false } = {}) {
  const folder = mkdtempSync(join(tools ? appsInside() : tmpdir(), 'holdfast-app-'));
  const npm = (args) => execFileSync('npm', args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

  const manifest = { name: 'app', private: true, type: 'module' };
  for (const [name, text] of Object.entries({ 'package.json': JSON.stringify(manifest), ...files })) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  // The package depends on nothing, so that installing it needs no registry.
  npm(['install', packPackage(), '--offline', '--no-audit', '--no-fund', '--omit=peer', '--loglevel=error']);
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

function appsInside() {
  const folder = inRepository('target/apps');
  mkdirSync(folder, { recursive: true });
  return folder;
}
