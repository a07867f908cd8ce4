// Firefox, WebKit and Chromium, driven by WebDriver (https://www.w3.org/TR/webdriver2/): each browser's own driver from the system, and as
// much of the protocol as the tests need. Chromium is here for what playwright switches off: the back/forward cache.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { inRepository } from './paths.mjs';

const MINI_BROWSERS = ['4.1', '4.0', '6.0'].map((version) => `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/webkit2gtk-${version}/MiniBrowser`);

const { 'goog:chromeOptions': CHROMIUM_OPTIONS } = JSON.parse(readFileSync(inRepository('webdriver.json'), 'utf8'));

/** What starts each browser's driver, and what the driver is asked for. */
const BROWSERS = {
  chromium: (port) => ({
    command: [process.env.CHROMEDRIVER ?? 'chromedriver', `--port=${port}`, '--log-level=SEVERE'],
    capabilities: { 'goog:chromeOptions': { binary: process.env.CHROMIUM ?? '/usr/bin/chromium', ...CHROMIUM_OPTIONS } },
  }),
  firefox: (port) => ({
    command: [process.env.GECKODRIVER ?? 'geckodriver', '--port', String(port), '--log', 'error'],
    capabilities: { 'moz:firefoxOptions': { binary: process.env.FIREFOX ?? '/usr/bin/firefox-esr', args: ['-headless'] } },
  }),
  // It has no headless mode.
  webkit: (port) => ({
    command: ['xvfb-run', '--auto-servernum', 'WebKitWebDriver', `--port=${port}`],
    capabilities: { 'webkitgtk:browserOptions': { binary: process.env.MINI_BROWSER ?? MINI_BROWSERS.find(existsSync), args: ['--automation'] } },
  }),
};

/**
 * Starts a browser: `firefox`, `webkit` or `chromium`. It has one tab, with `goto(url)`, `back()`, `reload()`, `evaluate(body, ...args)` (a body of
 * a function that may be async, or a function), `until(body, ...args)`, which resolves once that is truthy,
 * `minimize()`, which hides it, and `close()`.
 */
export async function launch(name) {
  const port = await freePort();
  const { command: [program, ...args], capabilities } = BROWSERS[name](port);
  // A group of its own: what the driver starts ends with it.
  const driver = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'], detached: true });
  const exited = once(driver, 'exit').catch((error) => { throw new Error(`${program} cannot be started: ${error.message}`); });
  const send = async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, body: body && JSON.stringify(body), headers: { 'content-type': 'application/json' } });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${name}: ${value.error}: ${value.message}`);
    return value;
  };
  const over = new AbortController();
  const kill = async () => {
    over.abort();
    try { process.kill(-driver.pid, 'SIGKILL'); } catch { /* It has ended. */ }
    await exited;
  };
  try {
    await Promise.race([ready(port, over.signal), exited.then(() => { throw new Error(`${program} ended at once`); })]);
    const { sessionId } = await send('POST', '/session', { capabilities: { alwaysMatch: capabilities } });
    const session = (method, path, body) => send(method, `/session/${sessionId}${path}`, body);
    await session('POST', '/timeouts', { script: 60_000, pageLoad: 60_000 });
    return tab(session, kill);
  } catch (error) {
    await kill();
    throw error;
  }
}

function tab(session, kill) {
  const evaluate = async (body, ...args) => {
    const code = typeof body === 'function' ? `return (${body})(...arguments);` : body;
    const script = `
      const [answer, args] = [arguments[arguments.length - 1], [...arguments].slice(0, -1)];
      (async function () { ${code} }).apply(window, args).then((value) => answer({ value }), (error) => answer({ error: String(error) }));
    `;
    const { value, error } = await session('POST', '/execute/async', { script, args });
    if (error !== undefined) throw new Error(error);
    return value;
  };
  return {
    evaluate,
    until: (body, ...args) => evaluate(`
      const holds = ${typeof body === 'function' ? body : `() => { ${body} }`};
      while (!await holds(...arguments)) await new Promise((resolve) => { setTimeout(resolve, 20); });
    `, ...args),
    goto: (url) => session('POST', '/url', { url }),
    back: () => session('POST', '/back', {}),
    minimize: () => session('POST', '/window/minimize', {}),
    // Chromium's only.
    cdp: (cmd, params) => session('POST', '/goog/cdp/execute', { cmd, params }),
    reload: () => session('POST', '/refresh', {}),
    async close() {
      // In order first, so that the browser leaves no process behind.
      await session('DELETE', '').catch(() => {});
      await kill();
    },
  };
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Resolves once the driver answers, which says nothing of when it listens; or once `signal` ends the wait. */
async function ready(port, signal) {
  while (!signal.aborted) {
    const status = await fetch(`http://127.0.0.1:${port}/status`, { signal }).then((response) => response.json(), () => undefined);
    if (status !== undefined) return;
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}
