// A file server for test pages, on a free port of the loopback.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';

const MEDIA_TYPES = {
  '.css': 'text/css',
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
};

/**
 * Serves `mounts` (`{'/pkg/': folder, '/': folder}`, the longest prefix wins) and `pages`
 * (`{'/page.html': 'text'}` or `{'/x': (request, response) => …}`), each page with `headers`.
 * Answers `{ address, close() }`.
 */
export async function serveSite({ mounts = {}, pages = {}, headers = {} }) {
  const prefixes = Object.keys(mounts).sort((a, b) => b.length - a.length);
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    const page = pages[path];
    if (typeof page === 'function') return page(request, response);
    if (page !== undefined) return response.writeHead(200, { 'content-type': 'text/html', ...headers }).end(page);

    const prefix = prefixes.find((candidate) => path.startsWith(candidate));
    if (prefix === undefined || path.includes('..')) return response.writeHead(404).end();
    try {
      const bytes = await readFile(join(mounts[prefix], path.slice(prefix.length)));
      const type = MEDIA_TYPES[extname(path)] ?? 'application/octet-stream';
      return response.writeHead(200, { 'content-type': type, ...headers }).end(bytes);
    } catch {
      return response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
