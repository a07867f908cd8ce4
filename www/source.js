// Shows a file of this page as it is, so that the code on display cannot differ from the code that runs.

import { element } from './feed.js';

const TOKENS = /(?<comment>\/\/.*)|(?<string>'[^']*'|`[^`]*`)|(?<word>\b(?:import|from|export|function|return|true)\b)/g;

export async function showSource(code, path) {
  const answer = await fetch(path).catch(() => undefined);
  if (!answer?.ok) {
    code.textContent = `// ${path} could not be fetched`;
    return;
  }
  const text = (await answer.text()).trimEnd();
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKENS)) {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    parts.push(text.slice(end, match.index), element('span', kind, match[0]));
    end = match.index + match[0].length;
  }
  code.replaceChildren(...parts, text.slice(end));
}
