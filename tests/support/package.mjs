// The npm package as users get it: packed, then unpacked beside a page.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inRepository } from './paths.mjs';

/** The archive of `pkg/` as it is now. Packed once for all test files, each of which is a process of its own. */
export function packPackage() {
  const pkg = inRepository('pkg');
  const hash = createHash('sha256');
  for (const name of readdirSync(pkg, { recursive: true }).sort()) {
    const { size, mtimeMs } = statSync(join(pkg, name));
    hash.update(`${name} ${size} ${mtimeMs}\n`);
  }
  const folder = inRepository('target/packed');
  const archive = join(folder, `${hash.digest('hex')}.tgz`);
  if (existsSync(archive)) return archive;
  mkdirSync(folder, { recursive: true });
  for (const name of readdirSync(folder)) if (name.endsWith('.tgz')) rmSync(join(folder, name), { force: true });
  const making = mkdtempSync(join(folder, 'making-'));
  const packed = execFileSync('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', making], {
    cwd: pkg,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [{ filename }] = Object.values(JSON.parse(packed));
  renameSync(join(making, filename), archive);
  rmSync(making, { recursive: true });
  return archive;
}

/** Packs `pkg/` and unpacks the archive. Answers `{ folder, remove() }`, the folder being the package's root. */
export function unpackPackage() {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-package-'));
  execFileSync('tar', ['-xzf', packPackage(), '-C', folder]);
  return { folder: join(folder, 'package'), remove: () => rmSync(folder, { recursive: true, force: true }) };
}
