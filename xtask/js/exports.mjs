/** The names of the modules that a manifest exports: `./index.js` → `index`. */
export const entryPoints = (manifest) => conditionalFiles(manifest, 'default');

/** The names of those under a condition, `workerd` say, or without one. */
export function conditionalFiles(manifest, condition) {
  return Object.values(manifest.exports)
    .map((target) => (typeof target === 'string' ? target : target[condition]))
    .filter((file) => file?.endsWith('.js'))
    .map((file) => file.slice('./'.length, -'.js'.length));
}
