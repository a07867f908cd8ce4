/** The names of the modules that a manifest exports: `./index.js` → `index`. */
export function entryPoints(manifest) {
  return Object.values(manifest.exports)
    .map((target) => (typeof target === 'string' ? target : target.default))
    .filter((file) => file.endsWith('.js'))
    .map((file) => file.slice('./'.length, -'.js'.length));
}
