// Servers of others as processes of their own, and what an app must see of them.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { eventAt } from './servers/log.mjs';

const LISTENING = /^listening on (\S+)$/m;

/**
 * Starts `servers/<name>.mjs` with events up to `head` in its log; `port` 0 takes a free one. Answers `{ address, port,
 * publish(), end(), kill(), signal(name) }`: `end` ends the open responses, `kill` the process.
 */
async function start(name, { head, port = 0 }) {
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

const JSON_TEXT = { 'better-sse': JSON.stringify };

/** What an app sees of the events `from` to `to`, in the words of that server. */
export const expected = (name, from, to, withIds = true) => Array.from({ length: to - from + 1 }, (_, index) => {
  const { type, id, data } = eventAt(from + index);
  return [type, withIds ? id : undefined, (JSON_TEXT[name] ?? String)(data)];
});

/** A server that ends with the test; `restart(head)` kills it and starts it again at its port. */
export async function foreign(t, name, head) {
  let server = await start(name, { head });
  const { address, port } = server;
  t.after(() => server.kill());
  return {
    address,
    publish: () => server.publish(),
    end: () => server.end(),
    signal: (signal) => server.signal(signal),
    async restart(newHead) {
      await server.kill();
      server = await start(name, { head: newHead, port });
    },
  };
}
