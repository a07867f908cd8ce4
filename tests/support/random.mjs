// Randomness that a printed seed brings back.

/** Numbers in [0, 1) from a seed (SplitMix32). */
export function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** The seed from the environment variable `name`, or a new one. */
export function seedFrom(name) {
  const given = process.env[name];
  return given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
}
