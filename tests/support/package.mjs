// The npm package as users get it: packed, then unpacked beside a page.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inRepository } from './paths.mjs';

/** Packs `pkg/` and unpacks the tarball. Answers `{ folder, remove() }`, the folder being the package's root. */
export function unpackPackage() {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-package-'));
  const packed = execFileSync('npm', ['pack', '--json', '--pack-destination', folder], {
    cwd: inRepository('pkg'),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [{ filename }] = Object.values(JSON.parse(packed));
  execFileSync('tar', ['-xzf', join(folder, filename), '-C', folder]);
  return { folder: join(folder, 'package'), remove: () => rmSync(folder, { recursive: true, force: true }) };
}
