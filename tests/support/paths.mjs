import { fileURLToPath } from 'node:url';

/** A path below the repository's root. */
export const inRepository = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
