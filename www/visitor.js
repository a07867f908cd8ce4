// Who this tab is: the debug routes bend the stream of one visitor, and cursor and ledger belong to one tab.

const KEY = 'holdfast-demo:client';
const LEDGERS = 'holdfast-demo:ledger:';
const CURSORS = 'holdfast:1:demo:';
const LOCK_WAIT_MS = 1500;
const AGE_MS_MAX = 7 * 24 * 3_600_000;

/** This tab's id; the same after a reload, another one in a duplicated tab. */
export async function visitor() {
  const known = read();
  if (known !== null && (await claim(known))) return known;
  const fresh = crypto.getRandomValues(new Uint32Array(2)).reduce((text, n) => text + n.toString(36), '');
  await claim(fresh);
  try {
    sessionStorage.setItem(KEY, fresh);
  } catch {
    // Denied: a reload is then another visitor.
  }
  sweep();
  return fresh;
}

export const ledgerKey = (client) => LEDGERS + client;

function read() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/**
 * "Duplicate tab" copies sessionStorage, and two tabs with one ledger would accuse the stream of repeats. The lock
 * is held as long as the page lives; after a reload it may take a moment until the old page has let go of it.
 */
function claim(client) {
  if (navigator.locks === undefined) return Promise.resolve(true);
  return new Promise((resolve) => {
    const hold = () => {
      resolve(true);
      return new Promise(() => {});
    };
    const signal = AbortSignal.timeout(LOCK_WAIT_MS);
    navigator.locks.request(`holdfast-demo:${client}`, { signal }, hold).catch(() => resolve(false));
  });
}

/** Every new tab leaves a ledger and a cursor behind: those of a week ago make room. */
function sweep() {
  try {
    for (const key of Object.keys(localStorage)) {
      if (!key.startsWith(LEDGERS)) continue;
      const { at } = JSON.parse(localStorage.getItem(key));
      if (at > Date.now() - AGE_MS_MAX) continue;
      localStorage.removeItem(key);
      localStorage.removeItem(CURSORS + key.slice(LEDGERS.length));
    }
  } catch {
    // Nothing that the page depends on.
  }
}
