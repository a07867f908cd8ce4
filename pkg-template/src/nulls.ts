// `null` counts as absent, in every option.

/** What an app wrote, without the fields that are null. */
export function withoutNulls<Options extends object>(given: { [Name in keyof Options]?: Options[Name] | null }): Options {
  const entries = Object.entries(given);
  if (!entries.some(([, value]) => value === null)) return given as Options;
  return Object.fromEntries(entries.filter(([, value]) => value !== null)) as Options;
}
