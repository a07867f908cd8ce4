// A server of somebody else's as a process of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const LISTENING = /^listening on (\S+)$/m;

/**
 * Starts `servers/<name>.mjs` with events up to `head` in its log; `port` 0 takes a free one. Answers `{ address, port,
 * publish(), end(), kill(), signal(name) }`: `end` ends the open responses, `kill` the process.
 */
export async function startForeign(name, { head, port = 0 }) {
  const script = fileURLToPath(new URL(`servers/${name}.mjs`, import.meta.url));
  const child = spawn(process.execPath, [script, String(port), String(head)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const address = await new Promise((resolve, reject) => {
    let printed = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      printed += text;
      const found = LISTENING.exec(printed);
      if (found) resolve(found[1]);
    });
    child.once('exit', (code) => reject(new Error(`${name} ended with ${code} before it listened`)));
  });
  const post = async (path) => {
    const response = await fetch(address + path, { method: 'POST' });
    if (!response.ok) throw new Error(`${name} answers ${response.status} to ${path}`);
  };
  return {
    address,
    port: Number(new URL(address).port),
    publish: () => post('/publish'),
    end: () => post('/end'),
    signal: (signal) => child.kill(signal),
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
  };
}
