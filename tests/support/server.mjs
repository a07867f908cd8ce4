// The real server as a process of its own, on a free port of the loopback.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { inRepository } from './paths.mjs';

const LISTENING = /^holdfast: listening on (\S+)$/m;

/** The command to test: what `cargo xtask test` built, or the release build. */
function binary() {
  const built = ['target/debug/holdfast', 'target/server/holdfast'].map(inRepository).find(existsSync);
  const command = process.env.HOLDFAST_BIN ?? built;
  if (command === undefined) throw new Error('there is no holdfast: cargo build --features server --bin holdfast');
  return command;
}

/**
 * Starts `holdfast serve`. `port` 0 takes a free one; `args` and `env` are added to what tests need.
 * Answers `{ address, port, kill(), stop() }`: `kill` is SIGKILL, `stop` a graceful end; both wait for the exit.
 */
export async function startServer({ port = 0, args = [], env = {} } = {}) {
  const child = spawn(binary(), ['serve', '--host', '127.0.0.1', '--port', String(port), ...args], {
    env: { ...process.env, SSE_TICK_INTERVAL: '0', LOG_LEVEL: 'warn', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const address = await new Promise((resolve, reject) => {
    let printed = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      printed += text;
      const found = LISTENING.exec(printed);
      if (found) resolve(found[1]);
    });
    child.once('exit', (code) => reject(new Error(`holdfast ended with ${code} before it listened`)));
  });
  const end = (signal) => async () => {
    child.kill(signal);
    await exited;
  };
  return { address, port: Number(new URL(address).port), kill: end('SIGKILL'), stop: end('SIGTERM') };
}
